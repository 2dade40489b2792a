//! The initiator's phase before there is a stream.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::{BoxFuture, FutureExt as _};
use jid::FullJid;

use super::{
    Endpoint,
    secure::{self, First},
};
use crate::{Candidates, Error, stream::E2eStream};

/// A stream that is being opened; see [`Endpoint::connect`]. Nothing happens before it is polled.
#[must_use = "a future does nothing unless it is awaited"]
pub struct Connecting {
    endpoint: Endpoint,
    peer: FullJid,
    candidates: Option<Candidates>,
    /// Once it was polled.
    future: Option<BoxFuture<'static, Result<E2eStream, Error>>>,
}

impl Connecting {
    pub(super) fn new(endpoint: Endpoint, peer: FullJid) -> Self {
        Self { endpoint, peer, candidates: None, future: None }
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

    fn begin(&self) -> BoxFuture<'static, Result<E2eStream, Error>> {
        let (endpoint, peer, candidates) = (self.endpoint.clone(), self.peer.clone(), self.candidates);
        let future = async move {
            let session = Arc::new(endpoint.handle.connect(peer, candidates)?);
            session.opened().await?;
            secure::open(session, First { endpoint, candidates }).await
        };
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
