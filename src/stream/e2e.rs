//! The user's handles of an open stream.

use std::{
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::{
    Sink, Stream,
    future::{Either, select},
};
use jid::Jid;
use tokio::time::timeout;
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::stanza::Stanza;

use super::{
    e2e_bytestream::Bytestream,
    e2e_closer::Closer,
    e2e_events::StreamEvents,
    e2e_handle::Handle,
    e2e_moves::Moves,
    e2e_peer::{Remote, unanswered},
    e2e_sender::{Receipt, StreamSender},
    e2e_shared::{Intent, Shared, now},
    options::{Established, Protection, StreamInfo},
};
use crate::{
    ApiMisuse, Error, TransportInfo,
    security::{Certificate, Peer, VerificationCode},
};

/// An open XML stream to the peer.
///
/// It is a [`Sink`] of stanzas and a [`Stream`] of them. Incoming ones carry the true addresses, whatever the peer
/// wrote. Outgoing stanzas may leave out `from` and `to`; addresses of others are removed, so that a received stanza
/// can be sent back as it is.
///
/// - **Sending** waits while [`Limits::outbox_bytes`](crate::Limits::outbox_bytes) wait to be written, and while as many
///   stanzas or bytes wait for their acknowledgement as [`Limits::unacked_stanzas`](crate::Limits::unacked_stanzas) and
///   [`Limits::unacked_bytes`](crate::Limits::unacked_bytes) allow. `send` also waits until the stanza is written, which
///   does not mean that it arrived: [`send_acked`](Self::send_acked) waits for that. `feed` waits for neither, and stanzas
///   that are fed in a row share a write: what nobody flushes is written 2 ms later at the latest.
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
/// - **Acknowledgement** (XEP-0198), with a peer that has it: a stanza is acknowledged once the peer's bot has received
///   it, and ours once this one has. A stream that ends before everything was acknowledged ends with
///   [`Error::Undelivered`], which has the stanzas, in order: from receiving, sending, [`close`](Self::close) and
///   [`finish`](Self::finish) alike, be the close itself in good order. Some of them may have arrived all the same.
/// - **Suspension**: an encrypted stream of an endpoint outlives its bytestream
///   ([`SmConfig::resumption`](crate::SmConfig::resumption)). While there is none, sending waits, requests go on to time out,
///   and what was received before can still be taken. It goes on over another bytestream to the same peer with the same
///   certificate, with nothing lost or repeated; [`events`](Self::events) tells. If it can't, it ends with
///   [`Error::NotResumed`], within [`Error::Undelivered`] if there is something to hand back.
///
/// Dropping it, with every [`StreamSender`] of it, closes the stream in good order in the background, as
/// [`close`](Self::close) does; nobody learns then what was not acknowledged. What was not received by then is not
/// acknowledged to the peer. A stream that is closed or dropped while it is suspended tries to go on for no longer than
/// [`Timeouts::close`](crate::Timeouts::close).
pub struct E2eStream {
    sender: StreamSender,
    receiver: StreamReceiver,
}

impl E2eStream {
    pub(super) fn new(shared: Arc<Shared>, info: StreamInfo) -> Self {
        let handle = Arc::new(Handle { shared, info });
        Self {
            sender: StreamSender::new(handle.clone()),
            receiver: StreamReceiver { handle, rest: Rest::ToCome },
        }
    }

    /// What is known about the stream, as it began; what carries it now is [`transport`](Self::transport).
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
        let too_late = Error::from(unanswered(&established.connection.presented));
        let mut refusal =
            Refusal { shared: Arc::clone(&self.sender.handle.shared), error: Some(too_late.clone()) };
        let answer = timeout(patience, Remote::ask(established, self.sender.downgrade()));
        // Nothing is left to decide once the stream is over.
        let over = poll_fn(|cx| self.sender.handle.shared.with(|inner, _| inner.await_flushed(u64::MAX, cx)));
        let answered = match select(pin!(answer), over).await {
            Either::Left((answer, _)) => answer.unwrap_or(Err(too_late)),
            Either::Right((over, _)) => Err(over.err().unwrap_or_else(|| ApiMisuse::StreamClosed.into())),
        };
        match answered {
            Ok(remote) => {
                refusal.error = None;
                self.sender.handle.shared.with(|inner, _| inner.remote = Some(remote));
                Ok(())
            }
            Err(error) => {
                refusal.error = Some(error.clone());
                Err(error)
            }
        }
    }

    /// Queues these, as much as that may be, before the user has the stream.
    pub(super) fn say(&self, stanzas: Vec<Stanza>) -> Result<(), Error> {
        self.sender.handle.shared.with(|inner, wakes| {
            inner.queue(wakes, |machine| {
                stanzas.into_iter().try_for_each(|stanza| machine.send(now(), stanza))
            })
        })
    }

    /// Our address, if known.
    #[must_use]
    pub fn local(&self) -> Option<&Jid> {
        self.info().local.as_ref()
    }

    /// What carries the stream now; `None` if Jingle had no part in that, or the stream is over or has lost its bytestream.
    ///
    /// A stream that begins on in-band bytestreams may move ([`Start::Fast`](crate::Start::Fast)), and one that is
    /// resumed may be on any transport.
    #[must_use]
    pub fn transport(&self) -> Option<TransportInfo> {
        let carrier = self.sender.handle.shared.with(|inner, _| inner.carrier.clone());
        carrier?.upgrade()?.transport()
    }

    /// Tells when the stream moves from the transport that it began on, [`Negotiated::transport`](crate::Negotiated::transport).
    #[must_use]
    pub fn moves(&self) -> Moves {
        let first = self.info().negotiated.as_ref().map(|negotiated| negotiated.transport.clone());
        Moves::new(Arc::downgrade(&self.sender.handle.shared), first)
    }

    /// Tells when the bytestream is lost, and when the stream goes on over another one, from now on.
    #[must_use]
    pub fn events(&self) -> StreamEvents {
        self.sender.handle.shared.with(|inner, _| inner.events.subscribe())
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
    /// Stanzas that have not been received yet, or that the peer sends before its footer, are dropped. They are not
    /// acknowledged, unless the sink was closed before, or the peer has closed: then they count as received already. To receive them, close the sink (`SinkExt::close`), receive until `None`, then call this.
    ///
    /// If the future is dropped, the stream is closed in the background.
    ///
    /// # Errors
    ///
    /// Whatever kept the close from being orderly: an error before or during it, or
    /// [`Error::Timeout`] if the peer did not do its part within [`Timeouts::close`](crate::Timeouts::close).
    /// [`Error::Undelivered`] has the stanzas that the peer has not acknowledged, be that the only thing wrong.
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
        // What nobody has received by now is not acknowledged any more.
        shared.with(|inner, wakes| inner.end(intent, wakes));
        drop(receiver);
        let mut kept = poll_fn(|cx| shared.with(|inner, _| inner.poll_done(cx))).await?;
        // The user may have been asked about the peer only after the stream's task had begun.
        if let (Some(kept), Some(remote)) = (&mut kept, sender.handle.remote()) {
            kept.options.protection = Protection::Settled(remote);
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
        let next = self.handle.shared.poll_stanza(cx);
        if let Poll::Ready(None | Some(Err(_))) = next {
            self.rest = Rest::Over;
        }
        next
    }
}

/// What becomes of a stream whose peer was not believed, be it that nobody waits for an answer any more: it does not end
/// like one that was.
struct Refusal {
    shared: Arc<Shared>,
    error: Option<Error>,
}

impl Drop for Refusal {
    fn drop(&mut self) {
        if let Some(error) = self.error.take() {
            self.shared.with(|inner, wakes| {
                inner.queue(wakes, |machine| machine.refuse(now(), error));
                inner.wake_worker(wakes);
            });
        }
    }
}

impl Drop for StreamReceiver {
    fn drop(&mut self) {
        let is_last = Arc::strong_count(&self.handle) == 1;
        self.handle.shared.with(|inner, wakes| {
            if is_last {
                // What was not received is not acknowledged, so that the peer learns of it.
                inner.end(Intent::Close, wakes);
            }
            inner.queue(wakes, |machine| machine.stop_receiving(now()));
            // It may be waiting for room in the inbox.
            inner.wake_worker(wakes);
        });
    }
}

impl fmt::Debug for E2eStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("E2eStream").field("info", self.info()).finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReceiver").field("info", &self.handle.info).finish_non_exhaustive()
    }
}
