//! Two ends, pipes between them that can be cut, and what becomes of attempts to connect again.

use std::{
    collections::HashMap,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf, duplex},
    sync::watch,
    time::sleep,
};

use super::{JULIET, ROMEO};
use crate::{
    Error, Identity, Limits, Reason, SmConfig, Terminated, TlsOptions, TransportInfo, Trust,
    stream::{
        Carrier, E2eStream, Flow, Goal, Reconnect, Reconnected, Registry, Resumable, Revival, StreamOptions,
        accept, await_resume, buffered, initiate, renew, resume,
    },
};

/// What both ends of one pipe share.
#[derive(Clone, Default)]
pub(super) struct Wire(pub(super) Arc<Mutex<WireState>>);

#[derive(Default)]
pub(super) struct WireState {
    /// Bytes that still get through; `None` for all.
    pub(super) left: Option<usize>,
    pub(super) carried: usize,
    pub(super) wakers: Vec<Waker>,
}

impl Wire {
    pub(super) fn cut_after(bytes: usize) -> Self {
        let wire = Self::default();
        wire.0.lock().unwrap().left = Some(bytes);
        wire
    }

    /// Nothing gets through any more.
    pub(super) fn cut(&self) {
        let wakers = {
            let mut state = self.0.lock().unwrap();
            state.left = Some(0);
            std::mem::take(&mut state.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }

    pub(super) fn carried(&self) -> usize {
        self.0.lock().unwrap().carried
    }

    pub(super) fn is_cut(&self, cx: &Context<'_>) -> bool {
        let mut state = self.0.lock().unwrap();
        state.wakers.push(cx.waker().clone());
        state.left == Some(0)
    }
}

/// One end of a pipe. Where it is cut, one end notices, or both do.
pub(super) struct Pipe {
    pub(super) inner: DuplexStream,
    pub(super) wire: Wire,
    pub(super) notices: bool,
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.wire.is_cut(cx) {
            return if self.notices {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            } else {
                Poll::Pending
            };
        }
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.wire.is_cut(cx) {
            return if self.notices {
                Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()))
            } else {
                Poll::Pending
            };
        }
        let left = self.wire.0.lock().unwrap().left.unwrap_or(usize::MAX);
        let buf = &buf[..buf.len().min(left)];
        let count = std::task::ready!(Pin::new(&mut self.inner).poll_write(cx, buf))?;
        let is_spent = {
            let mut state = self.wire.0.lock().unwrap();
            state.carried += count;
            state.left = state.left.map(|left| left - count);
            state.left == Some(0)
        };
        if is_spent {
            self.wire.cut();
        }
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A session that stands still when it is told to.
#[derive(Default)]
pub(super) struct Session {
    pub(super) terminated: Mutex<Vec<Reason>>,
    pub(super) error: Mutex<Option<Error>>,
    pub(super) stalled: watch::Sender<bool>,
    pub(super) waker: Mutex<Option<Waker>>,
}

impl Session {
    pub(super) fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
        if let Some(waker) = self.waker.lock().unwrap().take() {
            waker.wake();
        }
    }
}

impl Carrier for Session {
    fn terminate(&self, reason: Reason, _: Option<String>) {
        self.terminated.lock().unwrap().push(reason);
    }

    fn error(&self) -> Option<Error> {
        self.error.lock().unwrap().clone()
    }

    fn transport(&self) -> Option<TransportInfo> {
        None
    }

    fn poll_moved(&self, _: &Context<'_>, _: Option<&TransportInfo>) -> Poll<Option<TransportInfo>> {
        Poll::Pending
    }

    fn ended(&self) -> BoxFuture<'static, ()> {
        futures::future::pending().boxed()
    }

    fn poll_flow(&self, cx: &Context<'_>, known: Flow) -> Poll<Flow> {
        *self.waker.lock().unwrap() = Some(cx.waker().clone());
        let flow = if *self.stalled.borrow() { Flow::Stalled } else { Flow::Flowing };
        if flow == known { Poll::Pending } else { Poll::Ready(flow) }
    }
}

/// What the initiator finds when it connects again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Door {
    Open,
    /// No bytestream comes about.
    Shut,
    /// The peer has forgotten the stream.
    Forgetful,
    /// Somebody else is there.
    Impostor,
    /// The peer has forgotten the stream, and then somebody else is there.
    Usurped,
    /// The peer has forgotten the stream, and its user wants no other.
    Unwilling,
    /// The peer has forgotten the stream, and its user takes a while to decide.
    Slow,
}

/// Two ends, and the way between them.
pub(super) struct World {
    pub(super) romeo: Identity,
    pub(super) juliet: Identity,
    pub(super) sm: SmConfig,
    pub(super) limits: Limits,
    pub(super) door: Mutex<Door>,
    /// The bytestreams after the first, in the order in which they are made; without one, nothing is cut.
    pub(super) wires: Mutex<Vec<Wire>>,
    pub(super) attempts: Mutex<usize>,
    pub(super) streams: Mutex<HashMap<String, Resumable>>,
    /// Streams that the responder gets anew.
    pub(super) accepted: Mutex<Vec<E2eStream>>,
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        Self::with(SmConfig::default(), Limits::default())
    }

    pub(super) fn with(sm: SmConfig, limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            romeo: Identity::generate().unwrap(),
            juliet: Identity::generate().unwrap(),
            sm,
            limits,
            door: Mutex::new(Door::Open),
            wires: Mutex::default(),
            attempts: Mutex::default(),
            streams: Mutex::default(),
            accepted: Mutex::default(),
        })
    }

    pub(super) fn options(&self, local: &str, peer: &str, identity: &Identity) -> StreamOptions {
        StreamOptions::new()
            .local(local.parse().unwrap())
            .peer(peer.parse().unwrap())
            .sm(self.sm)
            .limits(self.limits)
            .starttls(TlsOptions::new(identity.clone(), Trust::first_use()))
    }

    pub(super) fn romeo(self: &Arc<Self>) -> StreamOptions {
        self.options(ROMEO, JULIET, &self.romeo).revival(Revival::Initiator(Arc::new(Way(self.clone()))))
    }

    pub(super) fn juliet(self: &Arc<Self>) -> StreamOptions {
        self.options(JULIET, ROMEO, &self.juliet).revival(Revival::Responder(Arc::new(Way(self.clone()))))
    }

    pub(super) async fn streams(self: &Arc<Self>, wire: &Wire) -> (E2eStream, E2eStream) {
        let (ours, theirs) = pipe(wire, true);
        let (romeo, juliet) = tokio::join!(initiate(ours, self.romeo()), accept(theirs, self.juliet()));
        (romeo.unwrap(), juliet.unwrap())
    }

    pub(super) fn set_door(&self, door: Door) {
        *self.door.lock().unwrap() = door;
    }

    pub(super) fn attempts(&self) -> usize {
        *self.attempts.lock().unwrap()
    }

    pub(super) async fn connect(self: Arc<Self>, goal: Goal) -> Result<Reconnected, Error> {
        *self.attempts.lock().unwrap() += 1;
        let door = self.door.lock().unwrap().clone();
        if door == Door::Shut {
            return Err(Error::io(&io::ErrorKind::ConnectionRefused.into()));
        }
        let wire = {
            let mut wires = self.wires.lock().unwrap();
            if wires.is_empty() { Wire::default() } else { wires.remove(0) }
        };
        let (ours, theirs) = pipe(&wire, true);
        let world = self.clone();
        match goal {
            Goal::Resume(what, certificate) => {
                let responder = match door {
                    Door::Impostor => self.options(JULIET, ROMEO, &Identity::generate().unwrap()),
                    _ => self.juliet(),
                };
                tokio::spawn(async move {
                    let find = |id: &str| match door {
                        Door::Forgetful | Door::Usurped | Door::Unwilling | Door::Slow => None,
                        _ => world.streams.lock().unwrap().get(id).cloned(),
                    };
                    let _ = await_resume(buffered(theirs), responder, find).await;
                });
                resume(buffered(ours), self.romeo(), what, certificate).await
            }
            Goal::Renew(_) if door == Door::Unwilling => {
                Err(Error::Terminated(Terminated::new(Reason::Decline, None)))
            }
            Goal::Renew(certificate) => {
                let responder = match door {
                    Door::Usurped => self.options(JULIET, ROMEO, &Identity::generate().unwrap()),
                    _ => self.juliet(),
                };
                if door == Door::Slow {
                    sleep(Duration::from_secs(5)).await;
                }
                tokio::spawn(async move {
                    if let Ok(stream) = accept(theirs, responder).await {
                        world.accepted.lock().unwrap().push(stream);
                    }
                });
                renew(buffered(ours), self.romeo(), certificate).await
            }
        }
    }
}

/// How the two find each other again.
pub(super) struct Way(pub(super) Arc<World>);

impl Reconnect for Way {
    fn reconnect(&self, goal: Goal) -> BoxFuture<'static, Result<Reconnected, Error>> {
        self.0.clone().connect(goal).boxed()
    }
}

impl Registry for Way {
    fn add(&self, id: &str, stream: Resumable) {
        self.0.streams.lock().unwrap().insert(id.to_owned(), stream);
    }

    fn remove(&self, id: &str) {
        self.0.streams.lock().unwrap().remove(id);
    }
}

pub(super) fn pipe(wire: &Wire, responder_notices: bool) -> (Pipe, Pipe) {
    let (ours, theirs) = duplex(4096);
    let end = |inner, notices| Pipe { inner, wire: wire.clone(), notices };
    (end(ours, true), end(theirs, responder_notices))
}
