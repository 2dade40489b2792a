//! Streams and the sessions that carry them, in stopped time.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::{FutureExt as _, SinkExt as _, StreamExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf, duplex},
    sync::watch,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};
use xmpp_parsers::{stanza::Stanza, stream_error::DefinedCondition};

use super::{Carrier, E2eStream, StreamOptions, accept, initiate, tests::message};
use crate::{
    Error, Identity, Limits, Reason, SecurityError, SignallingError, Step, Terminated, Timeouts, TlsOptions,
    TransportError, TransportInfo, Trust,
};

const HEADER: &[u8] =
    b"<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>";

/// A session that notes what happens to it, and ends when it is told to.
struct Mock {
    terminated: Mutex<Vec<Reason>>,
    texts: Mutex<Vec<Option<String>>>,
    error: Mutex<Option<Error>>,
    ended: watch::Sender<bool>,
}

impl Mock {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            terminated: Mutex::default(),
            texts: Mutex::default(),
            error: Mutex::default(),
            ended: watch::Sender::new(false),
        })
    }

    fn options(self: &Arc<Self>) -> StreamOptions {
        StreamOptions::new().carrier(self.clone())
    }

    fn reasons(&self) -> Vec<Reason> {
        self.terminated.lock().unwrap().clone()
    }

    fn end_with(&self, error: impl Into<Error>) {
        *self.error.lock().unwrap() = Some(error.into());
        self.ended.send_replace(true);
    }
}

impl Carrier for Mock {
    fn transport(&self) -> Option<TransportInfo> {
        None
    }

    fn poll_moved(&self, _: &Context<'_>, _: Option<&TransportInfo>) -> Poll<Option<TransportInfo>> {
        Poll::Pending
    }

    fn terminate(&self, reason: Reason, text: Option<String>) {
        self.terminated.lock().unwrap().push(reason);
        self.texts.lock().unwrap().push(text);
        self.ended.send_replace(true);
    }

    fn error(&self) -> Option<Error> {
        self.error.lock().unwrap().clone()
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        let mut ended = self.ended.subscribe();
        async move { drop(ended.wait_for(|ended| *ended).await) }.boxed()
    }
}

async fn streams(one: StreamOptions, other: StreamOptions) -> (E2eStream, E2eStream) {
    let (ours, theirs) = duplex(4096);
    let (one, other) = tokio::join!(initiate(ours, one), accept(theirs, other));
    (one.unwrap(), other.unwrap())
}

/// An open responder, and the bare other end.
async fn responder(options: StreamOptions) -> (E2eStream, DuplexStream) {
    let (mut raw, theirs) = duplex(4096);
    raw.write_all(HEADER).await.unwrap();
    let stream = accept(theirs, options).await.unwrap();
    (stream, raw)
}

/// What the other end gets until the bytestream is closed.
async fn rest(raw: &mut DuplexStream) -> String {
    let mut rest = String::new();
    raw.read_to_string(&mut rest).await.unwrap();
    rest
}

#[tokio::test(start_paused = true)]
async fn an_orderly_close_ends_both_sessions_with_success_once() {
    let (one, other) = (Mock::new(), Mock::new());
    let (closing, mut following) = streams(one.options(), other.options()).await;
    let closing = tokio::spawn(closing.close());
    assert!(following.next().await.is_none());
    following.close().await.unwrap();
    closing.await.unwrap().unwrap();
    assert_eq!(one.reasons(), [Reason::Success]);
    assert_eq!(other.reasons(), [Reason::Success]);
}

#[tokio::test(start_paused = true)]
async fn whoever_follows_ends_the_session_itself_if_the_peer_does_not() {
    let session = Mock::new();
    let (mut stream, mut raw) = responder(session.options()).await;
    raw.write_all(b"</stream:stream>").await.unwrap();
    let start = Instant::now();
    assert!(stream.next().await.is_none());
    assert_eq!(session.reasons(), []);
    stream.close().await.unwrap();
    assert_eq!(session.reasons(), [Reason::Success]);
    assert_eq!(start.elapsed().as_secs(), Timeouts::default().close.as_secs());
    assert!(rest(&mut raw).await.ends_with("</stream:stream>"));
}

/// A peer whose footer is here, and whose session or bytestream ended before ours could be written.
async fn left_behind_its_footer(broken: io::ErrorKind, why: Option<Error>) -> (Arc<Mock>, E2eStream) {
    let session = Mock::new();
    let (inner, mut raw) = duplex(4096);
    raw.write_all(HEADER).await.unwrap();
    let breaking = Arc::new(Mutex::new(None));
    let io = Counting { inner, writes: Arc::default(), broken: breaking.clone() };
    let stream = accept(io, session.options()).await.unwrap();
    let mut header = [0; 64];
    raw.read_exact(&mut header).await.unwrap();
    *breaking.lock().unwrap() = Some(broken);
    raw.write_all(b"<message><body>bye</body></message></stream:stream>").await.unwrap();
    if let Some(why) = why {
        session.end_with(why);
    }
    (session, stream)
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_right_behind_its_footer_closed_in_good_order() {
    let terminated = |reason| Some(Terminated::new(reason, None).into());
    for why in [terminated(Reason::Other(String::new())), terminated(Reason::Success), None] {
        let (_, mut stream) = left_behind_its_footer(io::ErrorKind::BrokenPipe, why.clone()).await;
        let start = Instant::now();
        assert!(stream.next().await.unwrap().is_ok());
        assert!(stream.next().await.is_none());
        let closed = stream.close().await;
        assert!(closed.is_ok(), "{why:?}: {closed:?}");
        assert!(start.elapsed() < Duration::from_secs(1), "{why:?}: {:?}", start.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_for_another_reason_did_not() {
    let why = Terminated::new(Reason::Gone, None).into();
    let (_, mut stream) = left_behind_its_footer(io::ErrorKind::BrokenPipe, Some(why)).await;
    assert!(stream.next().await.unwrap().is_ok());
    assert!(stream.next().await.is_none());
    assert!(matches!(stream.close().await, Err(Error::Terminated(_))));

    let (_, stream) = left_behind_its_footer(io::ErrorKind::InvalidData, None).await;
    assert!(matches!(stream.close().await, Err(Error::Transport(TransportError::Io(_)))));
}

#[tokio::test(start_paused = true)]
async fn a_stanza_that_the_peer_did_not_wait_for_is_an_error_of_the_close() {
    let why = Terminated::new(Reason::Success, None).into();
    let (_, mut stream) = left_behind_its_footer(io::ErrorKind::BrokenPipe, Some(why)).await;
    stream.feed(message("wait")).await.unwrap();
    assert!(matches!(stream.close().await, Err(Error::Terminated(_))));
}

#[tokio::test(start_paused = true)]
async fn why_the_session_ended_says_more_than_that_the_bytestream_did() {
    let session = Mock::new();
    let (mut stream, raw) = responder(session.options()).await;
    *session.error.lock().unwrap() = Some(Terminated::new(Reason::Gone, None).into());
    drop(raw);
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(&error, Error::Terminated(terminated) if terminated.reason == Reason::Gone), "{error}");
    assert!(stream.next().await.is_none());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(session.reasons(), [Reason::Gone]);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_leaves_time_for_what_is_still_on_its_way() {
    let session = Mock::new();
    let (mut stream, mut raw) = responder(session.options()).await;
    session.end_with(Terminated::new(Reason::Success, None));
    sleep(Duration::from_secs(5)).await;
    raw.write_all(b"<message><body>late</body></message></stream:stream>").await.unwrap();
    assert!(stream.next().await.unwrap().is_ok());
    assert!(stream.next().await.is_none());
    stream.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_without_a_goodbye_is_an_error_after_a_while() {
    let session = Mock::new();
    let (mut stream, _raw) = responder(session.options()).await;
    session.end_with(Error::Signalling(SignallingError::Rebound));
    let start = Instant::now();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Signalling(SignallingError::Rebound)), "{error}");
    assert_eq!(start.elapsed().as_secs(), Timeouts::default().close.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_violation_ends_the_session_as_a_failed_application() {
    let session = Mock::new();
    let (mut stream, mut raw) = responder(session.options()).await;
    raw.write_all(b"<!-- -->").await.unwrap();
    assert!(matches!(stream.next().await, Some(Err(Error::Stream(_)))));
    let said = rest(&mut raw).await;
    assert!(said.ends_with("</stream:error></stream:stream>"), "{said}");
    drop(raw);
    assert!(matches!(stream.close().await, Err(Error::Stream(_))));
    assert_eq!(session.reasons(), [Reason::FailedApplication]);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_attempt_cancels_the_session() {
    let session = Mock::new();
    let (ours, mut theirs) = duplex(4096);
    assert!(timeout(Duration::from_secs(1), initiate(ours, session.options())).await.is_err());
    assert_eq!(session.reasons(), [Reason::Cancel]);
    assert!(rest(&mut theirs).await.starts_with("<?xml version='1.0'?><stream:stream "));
}

#[tokio::test(start_paused = true)]
async fn a_session_lives_through_several_streams_and_ends_once() {
    let (one, other) = (Mock::new(), Mock::new());
    let (first, second) = streams(one.options(), other.options()).await;
    let (first, second) = tokio::join!(first.finish(), second.finish());
    let (first, second) = tokio::join!(first.unwrap().reopen(), second.unwrap().reopen());
    let (first, second) = tokio::join!(first.unwrap().finish(), second.unwrap().finish());
    sleep(Duration::from_secs(1000)).await;
    assert_eq!((one.reasons(), other.reasons()), (vec![], vec![]));
    drop(first.unwrap());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(one.reasons(), [Reason::Success]);
    let error = second.unwrap().reopen().await.unwrap_err();
    assert!(matches!(error, Error::Transport(TransportError::Closed)), "{error}");
    sleep(Duration::from_secs(1)).await;
    assert_eq!(other.reasons(), [Reason::ConnectivityError]);
}

#[tokio::test(start_paused = true)]
async fn a_finish_that_is_dropped_closes() {
    let session = Mock::new();
    let (stream, mut raw) = responder(session.options()).await;
    assert!(timeout(Duration::from_secs(1), stream.finish()).await.is_err());
    raw.write_all(b"</stream:stream>").await.unwrap();
    assert!(rest(&mut raw).await.ends_with("</stream:stream>"));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(session.reasons(), [Reason::Success]);
}

#[tokio::test(start_paused = true)]
async fn a_close_that_the_peer_ignores_is_a_timeout() {
    let session = Mock::new();
    let (stream, _raw) = responder(session.options()).await;
    let error = stream.close().await.unwrap_err();
    assert!(matches!(error, Error::Timeout(crate::Step::Close, _)), "{error}");
    assert_eq!(session.reasons(), [Reason::Timeout]);
}

/// Time stands still until nobody has anything to do, so that a timeout means: nothing moves.
#[tokio::test(start_paused = true)]
async fn a_sender_that_waits_has_filled_the_buffers_and_nothing_more() {
    const BODY: usize = 1_000;
    let mut limits = Limits::default();
    (limits.inbox_bytes, limits.outbox_bytes) = (50_000, 20_000);
    let options = || StreamOptions::new().limits(limits);
    let (mut sending, mut receiving) = streams(options(), options()).await;
    let mut sent = 0;
    while timeout(Duration::from_secs(1), sending.feed(message(&format!("{sent:0BODY$}")))).await.is_ok() {
        sent += 1;
    }
    // At least most of both bounds; the inbox also counts what a stanza takes beside its bytes.
    let least = 50_000;
    // Both bounds, what the bytestream itself holds, one read and the last stanza on each side.
    let bound = 50_000 + 20_000 + 4_096 + 16 * 1024 + 2 * (BODY + 100);
    assert!((least..bound).contains(&(sent * BODY)), "{sent} messages of {BODY}");

    let closing = tokio::spawn(sending.close());
    let mut received = 0;
    while let Some(stanza) = receiving.next().await {
        let Stanza::Message(heard) = stanza.unwrap() else { panic!("not a message") };
        assert_eq!(heard.bodies[""], format!("{received:0BODY$}"));
        received += 1;
    }
    assert_eq!(received, sent);
    closing.await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiting_sender_learns_that_the_stream_failed() {
    let (mut stream, raw) = responder(StreamOptions::new()).await;
    while timeout(Duration::from_secs(1), stream.feed(message(&"x".repeat(10_000)))).await.is_ok() {}
    let sending = tokio::spawn(async move { stream.feed(message("more")).await });
    drop(raw);
    assert!(matches!(sending.await.unwrap(), Err(Error::Transport(_))));
}

/// A bytestream that counts writes, and whose writing can be made to fail.
struct Counting {
    inner: DuplexStream,
    writes: Arc<AtomicUsize>,
    broken: Arc<Mutex<Option<io::ErrorKind>>>,
}

impl AsyncRead for Counting {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Counting {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let broken = *self.broken.lock().unwrap();
        if let Some(kind) = broken {
            return Poll::Ready(Err(kind.into()));
        }
        self.writes.fetch_add(1, Ordering::Relaxed);
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn stanzas_that_are_fed_in_a_row_share_a_write() {
    let (inner, mut raw) = duplex(1024 * 1024);
    let writes = Arc::new(AtomicUsize::new(0));
    raw.write_all(HEADER).await.unwrap();
    let io = Counting { inner, writes: writes.clone(), broken: Arc::default() };
    let mut stream = accept(io, StreamOptions::new()).await.unwrap();
    let header = writes.load(Ordering::Relaxed);
    for number in 0..1000 {
        stream.feed(message(&number.to_string())).await.unwrap();
    }
    stream.flush().await.unwrap();
    assert!(header <= 1, "header and features share a write");
    assert_eq!(writes.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn a_bytestream_that_can_not_be_written_is_still_read_for_the_reason() {
    for answer in
        [&b"<stream:error><conflict xmlns='urn:ietf:params:xml:ns:xmpp-streams'/></stream:error>"[..], b""]
    {
        let (inner, mut raw) = duplex(4096);
        raw.write_all(HEADER).await.unwrap();
        let broken = Arc::new(Mutex::new(Some(io::ErrorKind::BrokenPipe)));
        let io = Counting { inner, writes: Arc::default(), broken };
        let mut stream = accept(io, StreamOptions::new()).await.unwrap();
        raw.write_all(answer).await.unwrap();
        let error = stream.next().await.unwrap().unwrap_err();
        match error {
            Error::Stream(failure) => assert_eq!(failure.condition, DefinedCondition::Conflict),
            Error::Transport(TransportError::Io(error)) => {
                assert!(answer.is_empty());
                assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
            }
            other => panic!("{other}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn errors_of_the_bytestream_are_understood_as_told() {
    let (inner, mut raw) = duplex(4096);
    raw.write_all(HEADER).await.unwrap();
    let broken = Arc::new(Mutex::new(Some(io::ErrorKind::PermissionDenied)));
    let io = Counting { inner, writes: Arc::default(), broken };
    let session = Mock::new();
    let options = session.options().map_io(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => SecurityError::PeerRefused(None).into(),
        _ => Error::io(error),
    });
    let mut stream = accept(io, options).await.unwrap();
    let error = stream.next().await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Security(SecurityError::PeerRefused(_))), "{error}");
    assert!(stream.close().await.is_err());
    assert_eq!(session.reasons(), [Reason::SecurityError]);
    assert_eq!(*session.texts.lock().unwrap(), [None], "what we trust is not for the peer to know");
}

/// Juliet, who requires STARTTLS, and a raw Romeo up to her `<proceed/>`.
async fn proceeding(session: &Arc<Mock>) -> (JoinHandle<Result<E2eStream, Error>>, DuplexStream) {
    let (mut raw, theirs) = duplex(4096);
    let tls = TlsOptions::new(Identity::generate().unwrap(), Trust::first_use());
    let juliet = session.options().peer("romeo@montague.example".parse().unwrap()).starttls(tls);
    let accepting = tokio::spawn(accept(theirs, juliet));
    let said = "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>\
         <starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
    raw.write_all(said.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    while !heard.ends_with(b"<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>") {
        heard.push(raw.read_u8().await.unwrap());
    }
    (accepting, raw)
}

#[tokio::test(start_paused = true)]
async fn a_session_whose_starttls_fails_ends_with_a_security_error() {
    let session = Mock::new();
    let (accepting, mut raw) = proceeding(&session).await;
    raw.write_all(b"<message><body>no TLS</body></message>").await.unwrap();
    assert!(accepting.await.unwrap().is_err());
    assert_eq!(session.reasons(), [Reason::SecurityError]);

    let session = Mock::new();
    let (accepting, _raw) = proceeding(&session).await;
    assert!(matches!(accepting.await.unwrap(), Err(Error::Timeout(Step::Tls, _))));
    assert_eq!(session.reasons(), [Reason::Timeout]);
}

#[tokio::test(start_paused = true)]
async fn why_the_session_ended_says_more_than_that_starttls_did() {
    let session = Mock::new();
    let (accepting, raw) = proceeding(&session).await;
    session.end_with(SecurityError::PeerRefused(None));
    drop(raw);
    let error = accepting.await.unwrap().unwrap_err();
    assert!(matches!(error, Error::Security(SecurityError::PeerRefused(None))), "{error}");
}
