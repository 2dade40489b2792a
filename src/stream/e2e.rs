//! The user's handles of an open stream.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{Arc, OnceLock, Weak},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures::{
    Sink, Stream,
    channel::oneshot,
    future::{Either, select},
};
use jid::Jid;
use tokio::time::timeout;
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::stanza::Stanza;

use super::{
    Carrier,
    e2e_bytestream::Bytestream,
    e2e_closer::Closer,
    e2e_events::StreamEvents,
    e2e_moves::Moves,
    e2e_peer::{Remote, unanswered},
    e2e_shared::{Intent, Shared, Task, now},
    options::{Established, Protection, StreamInfo},
};
use crate::{
    ApiMisuse, Error, PeerIncompatible, SecurityError, TransportInfo,
    error::stanza_error,
    security::{Certificate, Level, Peer, VerificationCode, pubkeys},
    wire::pubkeys::Dialect,
};

/// An open XML stream to the peer.
///
/// It is a [`Sink`] of stanzas and a [`Stream`] of them. Incoming ones carry the true addresses, whatever the peer
/// wrote. Outgoing stanzas may leave out `from` and `to`; addresses of others are removed, so that a received stanza
/// can be sent back as it is.
///
/// - **Sending** waits while [`Limits::outbox_bytes`](crate::Limits::outbox_bytes) wait to be written.
///   `send` also waits until the stanza is written; `feed` does not, and stanzas that are fed in a row
///   share a write.
/// - **Receiving** ends with `None` after an orderly close, or with one error and then `None`. While
///   [`Limits::inbox_bytes`](crate::Limits::inbox_bytes) wait to be received, nothing more is read, replies
///   to iqs included: use [`split`](Self::split) where one task sends and another one receives. Where both sides
///   send much, neither may wait for room to send before it receives the next one, or both wait for ever.
/// - **Requests** of the peer (iq `get` and `set`) are to be answered with a result or an error of the same
///   id. After [`Timeouts::iq_unanswered`](crate::Timeouts::iq_unanswered), and when the stream is closed,
///   the stream answers by itself with `service-unavailable` (RFC 6120 §8.2.3); an answer that is sent after that
///   is silently dropped, as is one to a request that never came, because a request has one answer. The stream
///   also answers pings (XEP-0199) and what is for verification codes and certificates; none of that is received at
///   all.
///
/// Dropping it, with every [`StreamSender`] of it, closes the stream in good order in the background.
pub struct E2eStream {
    sender: StreamSender,
    receiver: StreamReceiver,
}

impl E2eStream {
    pub(super) fn new(
        shared: Arc<Shared>,
        info: StreamInfo,
        carrier: Option<Weak<dyn Carrier>>,
        remote: Option<Arc<Remote>>,
    ) -> Self {
        let remote = remote.map_or_else(OnceLock::new, OnceLock::from);
        let handle = Arc::new(Handle { shared, info, carrier, remote });
        Self {
            sender: StreamSender { handle: handle.clone(), mark: 0 },
            receiver: StreamReceiver { handle, rest: Rest::ToCome },
        }
    }

    /// What is known about the stream.
    #[must_use]
    pub fn info(&self) -> &StreamInfo {
        &self.sender.handle.info
    }

    /// Who the peer is, its certificate, and what shows that it is the peer's.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.sender.peer()
    }

    /// The code to compare with the peer's user: both sides show the same twelve digits if nobody is in between; see
    /// [`manual`](crate::manual#verification-code). The first call of either side exchanges what it is made of, which takes
    /// two round trips.
    ///
    /// Cancel safe: calling it again goes on where it was. A stream has one code: where its exchange failed, or took longer
    /// than [`Timeouts::iq`](crate::Timeouts::iq), only another stream has another one.
    ///
    /// # Errors
    ///
    /// [`SecurityError::NoCode`](crate::SecurityError::NoCode) without encryption, if the peer does not know of codes, does
    /// not answer in time, or does not keep to what it promised, as somebody in between might; otherwise whatever ended
    /// the stream.
    pub async fn verification_code(&self) -> Result<VerificationCode, Error> {
        self.sender.verification_code().await
    }

    /// The users have compared the verification code, and it is the same: from now on the peer is verified
    /// ([`Verification::Code`](crate::security::Verification::Code)), in the [`KnownPeers`](crate::KnownPeers) too.
    ///
    /// If the future is dropped, it may be written down all the same, while [`peer`](Self::peer) goes on as before; calling
    /// it again makes up for that.
    ///
    /// # Errors
    ///
    /// [`SecurityError::NoCode`](crate::SecurityError::NoCode) if [`verification_code`](Self::verification_code) has not
    /// shown a code of this stream, or if the bot's user has yet to accept the peer;
    /// [`SecurityError::KnownPeers`](crate::SecurityError::KnownPeers) if it can't be written down.
    pub async fn confirm_code(&self) -> Result<(), Error> {
        self.sender.confirm_code().await
    }

    /// Asks the peer for its certificates (`jingle-xtls` #exchange, XEP-0189): the one of this stream, and those of its user's
    /// other devices, if it tells. It is what the peer says, so only a peer that is
    /// [verified](crate::Level::Verified) is asked. Our own is told to whoever asks on an encrypted stream.
    ///
    /// Nothing is remembered: a bot that believes them adds them itself, as
    /// [`KnownPeers::add`](crate::KnownPeers::add) does, and has no first use with those devices.
    ///
    /// If the future is dropped, the request may have been sent; nothing else is lost.
    ///
    /// # Errors
    ///
    /// [`ApiMisuse::BadStanza`] without encryption; [`SecurityError::Insufficient`](crate::SecurityError::Insufficient) if
    /// the peer is not verified; [`Error::PeerIncompatible`] if it refuses; [`Error::PeerMisbehaved`] if its answer is too
    /// large, or lacks the certificate of this stream; otherwise as [`send_iq`](Self::send_iq).
    pub async fn certificates(&self) -> Result<Vec<Certificate>, Error> {
        self.sender.certificates().await
    }

    /// Asks the bot's user whether the peer is to be believed, for so long.
    pub(super) async fn ask(&mut self, established: Established, patience: Duration) -> Result<(), Error> {
        let too_late = unanswered(&established.connection.presented);
        let answer = timeout(patience, Remote::ask(established, self.sender.downgrade()));
        // Nothing is left to decide once the stream is over.
        let over = poll_fn(|cx| self.sender.handle.shared.with(|inner, _| inner.poll_flushed(u64::MAX, cx)));
        let answered = match select(pin!(answer), over).await {
            Either::Left((answer, _)) => answer.unwrap_or_else(|_| Err(too_late.into())),
            Either::Right((over, _)) => Err(over.err().unwrap_or_else(|| ApiMisuse::StreamClosed.into())),
        };
        match answered {
            Ok(remote) => {
                let _ = self.sender.handle.remote.set(remote);
                Ok(())
            }
            Err(error) => {
                self.sender.handle.shared.with(|inner, wakes| {
                    inner.queue(wakes, |machine| machine.refuse(now(), error.clone()));
                    inner.wake_worker(wakes);
                });
                Err(error)
            }
        }
    }

    /// Our address, if known.
    #[must_use]
    pub fn local(&self) -> Option<&Jid> {
        self.info().local.as_ref()
    }

    /// What carries the stream now; `None` if Jingle had no part in that, or the stream is over.
    ///
    /// A stream that begins on in-band bytestreams may move ([`Start::Fast`](crate::Start::Fast)).
    #[must_use]
    pub fn transport(&self) -> Option<TransportInfo> {
        self.sender.handle.carrier.as_ref()?.upgrade()?.transport()
    }

    /// Tells when the stream moves from the transport that it began on, [`Negotiated::transport`](crate::Negotiated::transport).
    #[must_use]
    pub fn moves(&self) -> Moves {
        let first = self.info().negotiated.as_ref().map(|negotiated| negotiated.transport.clone());
        Moves::new(self.sender.handle.carrier.clone(), first)
    }

    /// Tells when the bytestream is lost, and when the stream goes on over another one.
    #[must_use]
    pub fn events(&self) -> StreamEvents {
        StreamEvents::new(Arc::downgrade(&self.sender.handle.shared))
    }

    /// Whether the peer acknowledges stanzas (XEP-0198). It is known a round trip after the stream was opened; before,
    /// and with a peer that does not, it is false.
    #[must_use]
    pub fn acknowledges(&self) -> bool {
        self.sender.handle.shared.with(|inner, _| inner.machine.acknowledges())
    }

    /// Stanzas that were sent and that the peer has not acknowledged. 0 if it acknowledges none at all.
    #[must_use]
    pub fn unacked(&self) -> usize {
        self.sender.handle.shared.with(|inner, _| inner.machine.unacked())
    }

    /// See [`StreamSender::send_acked`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn send_acked(&self, stanza: impl Into<Stanza>) -> Result<(), Error> {
        self.sender.send_acked(stanza).await
    }

    /// See [`StreamSender::send_with_receipt`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn send_with_receipt(&self, stanza: impl Into<Stanza>) -> Result<Receipt, Error> {
        self.sender.send_with_receipt(stanza).await
    }

    /// How many stanzas so far claimed to be from somebody else than the peer, or to somebody else than
    /// us. They were received under the true addresses.
    #[must_use]
    pub fn violations(&self) -> u64 {
        self.sender.handle.shared.with(|inner, _| inner.machine.violations())
    }

    /// Sends a request and waits for its reply; see [`StreamSender::send_iq`].
    ///
    /// # Errors
    ///
    /// See [`StreamSender::send_iq`].
    pub async fn send_iq(&self, request: IqRequest) -> Result<IqResponse, Error> {
        self.sender.send_iq(request).await
    }

    /// Another handle that sends.
    #[must_use]
    pub fn sender(&self) -> StreamSender {
        self.sender.clone()
    }

    /// Makes two handles of it, for two tasks.
    #[must_use]
    pub fn split(self) -> (StreamSender, StreamReceiver) {
        (self.sender, self.receiver)
    }

    /// Closes the stream in good order: sends what waits to be sent and the footer, waits for the peer's
    /// footer, closes the bytestream and ends its session.
    ///
    /// Stanzas that have not been received yet, or that the peer sends before its footer, are dropped. To receive
    /// them, close the sink (`SinkExt::close`), receive until `None`, then call this.
    ///
    /// If the future is dropped, the stream is closed in the background.
    ///
    /// # Errors
    ///
    /// Whatever kept the close from being orderly: an error before or during it, or
    /// [`Error::Timeout`] if the peer did not do its part within [`Timeouts::close`](crate::Timeouts::close).
    /// That a peer leaves right behind its footer is an error only if a stanza of ours was not written by then.
    pub async fn close(self) -> Result<(), Error> {
        self.end(Intent::Close).await.map(drop)
    }

    /// Closes the XML stream as [`close`](Self::close) does, but keeps the bytestream and its session, for
    /// another XML stream. Also for the side whose peer closed: once receiving gave `None`, there are
    /// [`Timeouts::close`](crate::Timeouts::close) to call it.
    ///
    /// If the future is dropped, the stream is closed in the background.
    ///
    /// # Errors
    ///
    /// As [`close`](Self::close); and [`ApiMisuse::StreamClosed`] if the bytestream is closed already.
    pub async fn finish(self) -> Result<Bytestream, Error> {
        self.end(Intent::Keep).await?.ok_or_else(|| ApiMisuse::StreamClosed.into())
    }

    /// Lets the endpoint close the stream without holding it.
    pub(crate) fn closer(&self) -> Closer {
        Closer::new(&self.sender.handle.shared)
    }

    async fn end(self, intent: Intent) -> Result<Option<Bytestream>, Error> {
        let Self { sender, receiver } = self;
        let shared = sender.handle.shared.clone();
        drop(receiver);
        shared.with(|inner, wakes| inner.end(intent, wakes));
        let mut kept = poll_fn(|cx| shared.with(|inner, _| inner.poll_done(cx))).await?;
        // The user may have been asked about the peer only after the stream's task had begun.
        if let (Some(kept), Some(remote)) = (&mut kept, sender.handle.remote.get()) {
            kept.options.protection = Protection::Settled(Arc::clone(remote));
        }
        Ok(kept.map(Bytestream::new))
    }
}

impl Sink<Stanza> for E2eStream {
    type Error = Error;

    fn poll_ready(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_ready(cx)
    }

    fn start_send(mut self: Pin<&mut Self>, stanza: Stanza) -> Result<(), Error> {
        Pin::new(&mut self.sender).start_send(stanza)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_flush(cx)
    }

    fn poll_close(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.sender).poll_close(cx)
    }
}

impl Stream for E2eStream {
    type Item = Result<Stanza, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.receiver).poll_next(cx)
    }
}

/// The sending half of an [`E2eStream`]; clones send on the same stream.
///
/// Closing the sink sends the footer: nothing can be sent afterwards, by any handle.
#[derive(Clone)]
pub struct StreamSender {
    handle: Arc<Handle>,
    /// What this handle has queued ends here, in the count of all bytes ever queued.
    mark: u64,
}

impl StreamSender {
    /// See [`E2eStream::peer`].
    #[must_use]
    pub fn peer(&self) -> Peer {
        let jid = self.handle.info.peer.clone();
        match self.handle.remote.get() {
            Some(remote) => remote.peer(jid),
            None => Peer::new(jid, None),
        }
    }

    /// See [`E2eStream::verification_code`].
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

    /// See [`E2eStream::confirm_code`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn confirm_code(&self) -> Result<(), Error> {
        self.handle.shared.with(|inner, _| inner.machine.check_code_shown())?;
        match self.handle.remote.get() {
            Some(remote) => remote.confirm_code().await,
            None => {
                Err(SecurityError::NoCode("answer the question about the peer instead".to_owned()).into())
            }
        }
    }

    /// See [`E2eStream::certificates`].
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
        let Some(remote) = self.handle.remote.get() else {
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
    /// [`PeerIncompatible::MissingFeature`] if the peer acknowledges nothing, and the stanza was not sent;
    /// [`ApiMisuse::BadStanza`] if it can't be XML; otherwise whatever ended the stream.
    pub async fn send_with_receipt(&self, _stanza: impl Into<Stanza>) -> Result<Receipt, Error> {
        Err(ApiMisuse::StreamClosed.into())
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
        poll_fn(|cx| shared.with(|inner, _| inner.poll_room(cx))).await?;
        let reply = shared.with(|inner, wakes| {
            // The task may have to look at the clock earlier than it thought.
            inner.wake_worker(wakes);
            inner.queue(wakes, |machine| machine.send_iq(now(), request))
        })?;
        reply.await.unwrap_or_else(|_| Err(ApiMisuse::StreamClosed.into()))
    }
}

impl Sink<Stanza> for StreamSender {
    type Error = Error;

    fn poll_ready(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.shared.with(|inner, _| inner.poll_room(cx))
    }

    fn start_send(mut self: Pin<&mut Self>, stanza: Stanza) -> Result<(), Error> {
        self.mark = self.handle.shared.with(|inner, wakes| {
            inner.queue(wakes, |machine| machine.send(now(), stanza).map(|()| machine.queued()))
        })?;
        Ok(())
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.handle.shared.with(|inner, _| inner.poll_flushed(self.mark, cx))
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
    /// See [`E2eStream::verification_code`].
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

/// The receiving half of an [`E2eStream`].
///
/// Without it, messages and presence are dropped, and requests are refused.
pub struct StreamReceiver {
    handle: Arc<Handle>,
    rest: Rest,
}

/// Whether there is anything left to be received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    ToCome,
    Over,
}

impl Stream for StreamReceiver {
    type Item = Result<Stanza, Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.rest == Rest::Over {
            return Poll::Ready(None);
        }
        let next = self.handle.shared.with(|inner, wakes| inner.poll_stanza(cx, wakes));
        if let Poll::Ready(None | Some(Err(_))) = next {
            self.rest = Rest::Over;
        }
        next
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        self.handle.shared.with(|inner, wakes| {
            inner.queue(wakes, |machine| machine.stop_receiving(now()));
            // It may be waiting for room in the inbox.
            inner.wake_worker(wakes);
        });
    }
}

/// What all handles of one stream share. With the last of them the stream is closed.
struct Handle {
    shared: Arc<Shared>,
    info: StreamInfo,
    carrier: Option<Weak<dyn Carrier>>,
    /// Set once the peer is known, if the stream is encrypted.
    remote: OnceLock<Arc<Remote>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        let kept = self.shared.with(|inner, wakes| {
            inner.end(Intent::Close, wakes);
            match std::mem::replace(&mut inner.task, Task::Running) {
                Task::Kept(kept) => {
                    inner.task = Task::Done(Ok(()));
                    Some(kept)
                }
                other => {
                    inner.task = other;
                    None
                }
            }
        });
        if let Some(kept) = kept {
            kept.end_in_background();
        }
    }
}

impl fmt::Debug for E2eStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("E2eStream").field("info", self.info()).finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamSender").field("info", &self.handle.info).finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReceiver").field("info", &self.handle.info).finish_non_exhaustive()
    }
}
