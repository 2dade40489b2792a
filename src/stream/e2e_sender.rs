//! The sending half of a stream.

use std::{
    fmt,
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll, ready},
};

use futures::{Sink, channel::oneshot};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::stanza::Stanza;

use super::{
    e2e_handle::Handle,
    e2e_shared::{Shared, now},
    machine::Machine,
};
use crate::{
    ApiMisuse, Error, PeerIncompatible, SecurityError,
    error::stanza_error,
    security::{Certificate, Level, Peer, VerificationCode, pubkeys},
    wire::pubkeys::Dialect,
};

/// The sending half of an [`E2eStream`](crate::E2eStream); clones send on the same stream.
///
/// Closing the sink sends the footer: nothing can be sent afterwards, by any handle.
#[derive(Clone)]
pub struct StreamSender {
    pub(super) handle: Arc<Handle>,
    /// What this handle has queued ends here, in the count of all bytes ever queued.
    mark: u64,
}

impl StreamSender {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        Self { handle, mark: 0 }
    }

    /// See [`E2eStream::peer`](crate::E2eStream::peer).
    #[must_use]
    pub fn peer(&self) -> Peer {
        let jid = self.handle.info.peer.clone();
        match self.handle.remote() {
            Some(remote) => remote.peer(jid),
            None => Peer::new(jid, None),
        }
    }

    /// See [`E2eStream::verification_code`](crate::E2eStream::verification_code).
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn verification_code(&self) -> Result<VerificationCode, Error> {
        verification_code(&self.handle.shared).await
    }

    /// For somebody who may never look at it.
    pub(crate) fn downgrade(&self) -> WeakSender {
        WeakSender(Arc::downgrade(&self.handle.shared))
    }

    /// See [`E2eStream::confirm_code`](crate::E2eStream::confirm_code).
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn confirm_code(&self) -> Result<(), Error> {
        self.handle.shared.with(|inner, _| inner.machine.check_code_shown())?;
        match self.handle.remote() {
            Some(remote) => remote.confirm_code().await,
            None => {
                Err(SecurityError::NoCode("answer the question about the peer instead".to_owned()).into())
            }
        }
    }

    /// See [`E2eStream::certificates`](crate::E2eStream::certificates).
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn certificates(&self) -> Result<Vec<Certificate>, Error> {
        let presented = self.verified_certificate()?;
        match self.send_iq(IqRequest::Get(Dialect::Tmp.request())).await? {
            IqResponse::Result(answer) => Ok(pubkeys::certificates(answer.as_ref(), &presented)?),
            IqResponse::Error(error) => {
                let refusal = PeerIncompatible::Unsupported(stanza_error(&error));
                Err(Error::PeerIncompatible(refusal))
            }
        }
    }

    /// `jingle-xtls` #exchange: nothing is asked where others can answer.
    fn verified_certificate(&self) -> Result<Certificate, Error> {
        let Some(remote) = self.handle.remote() else {
            let why =
                "certificates are only asked for on an encrypted stream, and with a peer that was accepted";
            return Err(ApiMisuse::BadStanza(why.to_owned()).into());
        };
        let presented = &remote.established().connection.presented;
        let (required, reached) = (Level::Verified, remote.level());
        if reached < required {
            let (peer, presented) = (presented.peer().clone(), presented.certificate().fingerprint().clone());
            return Err(SecurityError::Insufficient { peer, required, reached, presented }.into());
        }
        Ok(presented.certificate().clone())
    }

    /// Sends a stanza and waits until the peer's side has acknowledged it (XEP-0198): its bot has received it. The
    /// acknowledgement is asked for at once.
    ///
    /// If the future is dropped, the stanza may have been sent.
    ///
    /// # Errors
    ///
    /// As [`send_with_receipt`](Self::send_with_receipt), and as [`Receipt`].
    pub async fn send_acked(&self, stanza: impl Into<Stanza>) -> Result<(), Error> {
        self.send_with_receipt(stanza).await?.await
    }

    /// Queues a stanza, and gives a future that resolves when the peer's side has acknowledged it. Waits for room, as `send`
    /// does.
    ///
    /// If the future is dropped, the stanza was not sent.
    ///
    /// # Errors
    ///
    /// [`PeerIncompatible::MissingFeature`] if the peer acknowledges nothing, and the stanza was not sent; where that turns
    /// out only later, the receipt says so;
    /// [`ApiMisuse::BadStanza`] if it can't be XML; otherwise whatever ended the stream.
    pub async fn send_with_receipt(&self, stanza: impl Into<Stanza>) -> Result<Receipt, Error> {
        let shared = &self.handle.shared;
        poll_fn(|cx| shared.poll_room(cx)).await?;
        let (told, acked) = oneshot::channel();
        shared.send_now(|machine, now| machine.send_for(now, stanza.into(), Some(told)))?;
        Ok(Receipt { acked })
    }

    /// Sends a request (iq `get` or `set`) and waits for its reply, which may be an error reply. Works while
    /// another task receives; the reply does not show up there.
    ///
    /// If the future is dropped, the request may have been sent, and its reply is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Timeout`] if no reply came within [`Timeouts::iq`](crate::Timeouts::iq);
    /// [`ApiMisuse::BadStanza`] if the payload can't be XML; otherwise whatever ended the stream.
    pub async fn send_iq(&self, request: IqRequest) -> Result<IqResponse, Error> {
        let shared = &self.handle.shared;
        poll_fn(|cx| shared.poll_room(cx)).await?;
        let reply = shared.send_now(|machine, now| machine.send_iq(now, request))?;
        reply.await.unwrap_or_else(|_| Err(ApiMisuse::StreamClosed.into()))
    }
}

impl Sink<Stanza> for StreamSender {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.shared.poll_room(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, stanza: Stanza) -> Result<(), Error> {
        let send = |machine: &mut Machine, now| machine.send(now, stanza).map(|()| machine.queued());
        self.mark = self.handle.shared.send(send)?;
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.shared.poll_flushed(self.mark, cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        let mark = self.handle.shared.with(|inner, wakes| {
            inner.machine.is_open().then(|| {
                inner.queue(wakes, |machine| machine.close(now()));
                inner.wake_worker(wakes);
                inner.machine.queued()
            })
        });
        self.mark = mark.unwrap_or(self.mark);
        self.poll_flush(cx)
    }
}

/// Resolves when the peer's side has acknowledged a stanza; with the stream's error if it ended before, as far as is known here.
///
/// Such are [`Error::Undelivered`], whose stanzas have this one, [`Error::NotResumed`], and
/// [`PeerIncompatible::MissingFeature`] where the peer did not enable stream management after all.
///
/// Dropping it does not take the stanza back.
#[must_use = "it tells whether the stanza arrived"]
#[derive(Debug)]
pub struct Receipt {
    acked: oneshot::Receiver<Result<(), Error>>,
}

impl Future for Receipt {
    type Output = Result<(), Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let acked = ready!(Pin::new(&mut self.acked).poll(cx));
        Poll::Ready(acked.unwrap_or_else(|_| Err(ApiMisuse::StreamClosed.into())))
    }
}

/// Shows the code of a stream, and does not keep it open, not even while it waits for the code.
pub(crate) struct WeakSender(Weak<Shared>);

impl WeakSender {
    /// See [`E2eStream::verification_code`](crate::E2eStream::verification_code).
    ///
    /// # Errors
    ///
    /// As there; [`ApiMisuse::StreamClosed`] if the stream is gone.
    pub(crate) async fn verification_code(&self) -> Result<VerificationCode, Error> {
        let shared = self.0.upgrade().ok_or(ApiMisuse::StreamClosed)?;
        verification_code(&shared).await
    }
}

async fn verification_code(shared: &Shared) -> Result<VerificationCode, Error> {
    let code = shared.with(|inner, wakes| {
        // The task may have to look at the clock earlier than it thought.
        inner.wake_worker(wakes);
        inner.queue(wakes, |machine| machine.verification_code(now()))
    })?;
    let code = code.await.unwrap_or_else(|_| Err(ApiMisuse::StreamClosed.into()))?;
    shared.with(|inner, _| inner.machine.handle_code_shown());
    Ok(code)
}

impl fmt::Debug for StreamSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSender").field("info", &self.handle.info).finish_non_exhaustive()
    }
}
