//! The initiator's phase before there is a stream.

use std::{
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    TryFutureExt as _,
    future::{BoxFuture, FutureExt as _},
};
use jid::FullJid;
use xmpp_parsers::stanza::Stanza;

use super::{
    Endpoint,
    secure::{self, First},
};
use crate::{
    Candidates, Error, Undelivered,
    stream::{E2eStream, check_stanza},
};

/// A stream that is being opened; see [`Endpoint::connect`]. Nothing happens before it is polled.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Connecting {
    endpoint: Endpoint,
    peer: FullJid,
    candidates: Option<Candidates>,
    first: Vec<Stanza>,
    /// Once it was polled.
    future: Option<BoxFuture<'static, Result<E2eStream, Error>>>,
}

impl Connecting {
    pub(super) fn new(endpoint: Endpoint, peer: FullJid) -> Self {
        Self { endpoint, peer, candidates: None, first: Vec::new(), future: None }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &FullJid {
        &self.peer
    }

    /// Shows this peer other addresses than [`S5bConfig::candidates`](crate::S5bConfig::candidates) says (XEP-0260
    /// #security-sharing). No effect once it was polled.
    pub fn candidates(mut self, candidates: Candidates) -> Self {
        self.candidates = Some(candidates);
        self
    }

    /// Has a stanza sent as soon as that can be; several go out in the order of the calls, and before whatever is sent on the
    /// stream later. No effect once it was polled.
    ///
    /// A peer that is believed for its certificate alone gets them with the stream header, a round trip before this resolves.
    /// Others get them once all is settled: one that has to prove a secret, or that the user is asked about, and one that
    /// encrypts by STARTTLS.
    ///
    /// The peer may still refuse us then, and what it makes of the stanzas before is not known. If there is no stream, they come
    /// back, all of them: in [`Error::Undelivered`], whose [`cause`](crate::Undelivered::cause) says why. They are meant to
    /// be few: nothing waits for room.
    ///
    /// ```no_run
    /// # async fn example(endpoint: jingle_xmlstream::Endpoint, hello: xmpp_parsers::message::Message)
    /// # -> Result<(), Box<dyn std::error::Error>> {
    /// let peer = "juliet@capulet.lit/balcony".parse()?;
    /// let stream = endpoint.connect(&peer).first(hello).await?;
    /// # drop(stream);
    /// # Ok(())
    /// # }
    /// ```
    pub fn first(mut self, stanza: impl Into<Stanza>) -> Self {
        self.first.push(stanza.into());
        self
    }

    fn begin(&mut self) -> BoxFuture<'static, Result<E2eStream, Error>> {
        let (endpoint, peer, candidates) = (self.endpoint.clone(), self.peer.clone(), self.candidates);
        let first: Arc<[Stanza]> = mem::take(&mut self.first).into();
        let unsaid = Arc::clone(&first);
        let future = async move {
            first.iter().try_for_each(check_stanza)?;
            let session = Arc::new(endpoint.handle.connect(peer, candidates)?);
            session.opened().await?;
            secure::open(session, First { endpoint, candidates, first }).await
        };
        let future = future.map_err(|error| match unsaid.is_empty() {
            true => error,
            false => Undelivered::unsaid(error, unsaid),
        });
        future.boxed()
    }
}

impl Future for Connecting {
    type Output = Result<E2eStream, Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut future = self.future.take().unwrap_or_else(|| self.begin());
        let result = future.poll_unpin(cx);
        self.future = Some(future);
        result
    }
}

impl fmt::Debug for Connecting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connecting").field("peer", &self.peer).finish_non_exhaustive()
    }
}
