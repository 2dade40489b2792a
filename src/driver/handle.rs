//! What endpoints, streams and bytestreams hold of the driver.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use futures::future::poll_fn;
use jid::{BareJid, FullJid, Jid};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::stanza::Stanza;

use super::{Phase, Reach, Shared};
use crate::{
    ApiMisuse, Candidates, Error, Reason, SignallingError,
    session::{Progress, RequestToken, SessionId, Sessions},
    transport::{TransportInfo, s5b::candidate::SocketId},
};

/// The bot's stanzas that wait for the driver; more of them wait at their senders.
pub(super) const COMMANDS: usize = 64;

/// A stanza of the bot's, and who wants to know that it was sent.
#[derive(Debug)]
pub(super) struct FromBot {
    pub(super) stanza: Box<Stanza>,
    pub(super) sent: oneshot::Sender<Result<(), Error>>,
}

/// Ends the driver; dropped when it has ended.
pub(super) type Close = oneshot::Sender<Infallible>;

/// The driver runs as long as there is one of these.
#[derive(Clone, Debug)]
pub(crate) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) to_send: mpsc::Sender<FromBot>,
    /// Apart from the stanzas, which wait while the server takes none: an end does not.
    pub(super) close: mpsc::Sender<Close>,
}

/// The driver's side of [`Handle`].
#[derive(Debug)]
pub(super) struct Commands {
    pub(super) to_send: mpsc::Receiver<FromBot>,
    /// Ends with the last handle.
    pub(super) close: mpsc::Receiver<Close>,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> (Self, Commands) {
        let (to_send, stanzas) = mpsc::channel(COMMANDS);
        let (close, closes) = mpsc::channel(1);
        (Self { shared, to_send, close }, Commands { to_send: stanzas, close: closes })
    }

    /// Asks the sessions something, or tells them something.
    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Sessions, Instant) -> T) -> T {
        self.shared.act(|state, now| act(&mut state.sessions, now))
    }

    /// Sends a stanza of the bot's; resolves when it was written to the server.
    pub(crate) async fn send(&self, stanza: Stanza) -> Result<(), Error> {
        let (sent, result) = oneshot::channel();
        let from_bot = FromBot { stanza: Box::new(stanza), sent };
        self.to_send.send(from_bot).await.map_err(|_| closed())?;
        result.await.map_err(|_| closed())?
    }

    /// Sends an iq request of the bot's, and waits for the reply.
    pub(crate) async fn request(&self, to: Option<Jid>, request: IqRequest) -> Result<IqResponse, Error> {
        let (answer, reply) = oneshot::channel();
        let token = self.shared.act(|state, now| {
            if state.phase == Phase::Closed {
                return Err(closed());
            }
            let token = RequestToken(state.next_token);
            state.next_token += 1;
            state.replies.insert(token, answer);
            state.sessions.request(now, token, to, request);
            Ok(token)
        })?;
        let forget = Forget { handle: self, token };
        let result = reply.await.map_err(|_| closed());
        drop(forget);
        result?
    }

    /// Starts towards a session.
    pub(crate) fn connect(
        &self,
        peer: FullJid,
        candidates: Option<Candidates>,
    ) -> Result<SessionHandle, Error> {
        let id = self.shared.act(|state, now| match state.phase {
            Phase::Running => state.sessions.connect(now, peer, candidates),
            Phase::Closing | Phase::Closed => Err(closed()),
        })?;
        Ok(SessionHandle::new(self.clone(), id))
    }

    /// Starts towards a session that carries on a stream. That is possible while the endpoint is being closed, too: closing
    /// waits for what the peer has to acknowledge.
    pub(crate) fn connect_to_resume(
        &self,
        peer: FullJid,
        candidates: Option<Candidates>,
    ) -> Result<SessionHandle, Error> {
        let id = self.shared.act(|state, now| match state.phase {
            Phase::Running | Phase::Closing => state.sessions.connect_to_resume(now, peer, candidates),
            Phase::Closed => Err(closed()),
        })?;
        Ok(SessionHandle::new(self.clone(), id))
    }

    /// The next session that a peer offers; `None` once the endpoint is closed.
    pub(crate) async fn incoming(&self) -> Option<SessionHandle> {
        let next = self.shared.until(|state| {
            if state.phase != Phase::Running {
                return Poll::Ready(None);
            }
            state.incoming.pop_front().map_or(Poll::Pending, |id| Poll::Ready(Some(id)))
        });
        next.await.map(|id| SessionHandle::new(self.clone(), id))
    }

    /// The next session that a peer offers to carry on a stream, of those whose turn it may be; `None` once the endpoint is
    /// closed for good.
    pub(crate) async fn resumption(&self, may_be_next: impl Fn(&BareJid) -> bool) -> Option<SessionHandle> {
        let next = self.shared.until(|state| {
            if state.phase == Phase::Closed {
                return Poll::Ready(None);
            }
            let is_next =
                |id: &SessionId| state.sessions.peer(*id).is_none_or(|peer| may_be_next(&peer.to_bare()));
            let next = state.resumptions.iter().position(is_next);
            let id = next.and_then(|position| state.resumptions.remove(position));
            id.map_or(Poll::Pending, |id| Poll::Ready(Some(id)))
        });
        next.await.map(|id| SessionHandle::new(self.clone(), id))
    }

    /// There are no streams to be carried on any more.
    pub(crate) fn refuse_resumptions(&self) {
        self.shared.act(|state, now| {
            for id in std::mem::take(&mut state.resumptions) {
                state.sessions.terminate(now, id, Reason::Expired, None);
                state.sessions.release(now, id);
            }
        });
    }

    /// Waits for a connection to the server with a session on it. Unlike [`Self::online`], a session that is suspended does
    /// not do.
    pub(crate) async fn reachable(&self) -> Result<(), Error> {
        let reachable = self.shared.until(|state| match (state.sessions.bound(), state.phase, state.reach) {
            (_, Phase::Closed, _) => Poll::Ready(Err(closed())),
            (Some(_), _, Reach::Connected) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        });
        reachable.await
    }

    /// Looks for this peer until that is dropped.
    pub(crate) fn look_out_for(&self, peer: &FullJid) -> Lookout {
        self.shared.act(|state, now| {
            state.lookouts += 1;
            state.sessions.look_out_for(now, peer);
        });
        Lookout { handle: self.clone(), peer: peer.to_bare() }
    }

    /// Resolves when the peer may be reached elsewhere than at these addresses.
    pub(crate) async fn elsewhere(&self, peer: &FullJid, known: &[FullJid]) {
        let elsewhere = self.shared.until(|state| {
            let places = state.sessions.whereabouts(peer);
            if places.iter().all(|place| known.contains(place)) { Poll::Pending } else { Poll::Ready(()) }
        });
        elsewhere.await;
    }

    /// Our full JID, as soon as there is one.
    pub(crate) async fn online(&self) -> Result<FullJid, Error> {
        let online = self.shared.until(|state| match (state.sessions.bound(), state.phase) {
            (Some(jid), _) => Poll::Ready(Ok(jid.clone())),
            (None, Phase::Closed) => Poll::Ready(Err(Error::Signalling(SignallingError::Offline))),
            (None, _) => Poll::Pending,
        });
        online.await
    }

    /// No more sessions for new streams.
    pub(crate) fn start_closing(&self) {
        self.shared.act(|state, now| {
            if state.phase == Phase::Running {
                state.enter(Phase::Closing);
                state.sessions.close_doors();
            }
            for id in std::mem::take(&mut state.incoming) {
                state.sessions.terminate(now, id, Reason::Gone, None);
                state.sessions.release(now, id);
            }
        });
    }

    /// Ends all sessions that are left.
    pub(crate) fn terminate_all(&self, reason: &Reason) {
        self.shared.act(|state, now| {
            for id in state.sessions.live() {
                state.sessions.terminate(now, id, reason.clone(), None);
            }
        });
    }

    /// Waits until no session has anything outstanding on the wire, or there is no connection on which to hear about it.
    pub(crate) async fn all_over(&self) {
        poll_fn(|cx| {
            self.shared.act(|state, _| match (state.sessions.live().first(), state.reach) {
                (Some(id), Reach::Connected) => {
                    state.wait_for(*id, cx.waker());
                    Poll::Pending
                }
                (None, _) | (_, Reach::Suspended) => Poll::Ready(()),
            })
        })
        .await;
    }

    /// Ends the session with the server in good order, and the task.
    pub(crate) async fn finish(&self) {
        let (done, finished) = oneshot::channel();
        if self.close.send(done).await.is_ok() {
            let Err(_ended) = finished.await;
        }
    }
}

/// Forgets a request whose answer nobody waits for any more.
struct Forget<'a> {
    handle: &'a Handle,
    token: RequestToken,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.handle.shared.act(|state, _| {
            if state.replies.remove(&self.token).is_some() {
                state.sessions.forget_request(self.token);
            }
        });
    }
}

/// Somebody waits for a peer to show up.
#[derive(Debug)]
pub(crate) struct Lookout {
    handle: Handle,
    peer: BareJid,
}

impl Drop for Lookout {
    fn drop(&mut self) {
        self.handle.shared.act(|state, _| {
            state.lookouts = state.lookouts.saturating_sub(1);
            state.sessions.stop_looking_out_for(&self.peer);
        });
    }
}

/// One session. Dropping it ends the session, if it has not ended.
#[derive(Debug)]
pub(crate) struct SessionHandle {
    handle: Handle,
    id: SessionId,
    /// Whether the socket that was taken leads to a relay. Asked for with every write, so not worth a lock.
    relayed: AtomicBool,
}

impl SessionHandle {
    fn new(handle: Handle, id: SessionId) -> Self {
        Self { handle, id, relayed: AtomicBool::new(false) }
    }

    pub(crate) fn with<T>(&self, act: impl FnOnce(&mut Sessions, SessionId, Instant) -> T) -> T {
        self.handle.with(|sessions, now| act(sessions, self.id, now))
    }

    /// Tries something again whenever the session changes, until it is ready.
    pub(crate) fn poll<T>(
        &self,
        cx: &Context<'_>,
        mut attempt: impl FnMut(&mut Sessions, SessionId, Instant) -> Poll<T>,
    ) -> Poll<T> {
        self.handle.shared.act(|state, now| {
            let result = attempt(&mut state.sessions, self.id, now);
            if result.is_pending() {
                state.wait_for(self.id, cx.waker());
            }
            result
        })
    }

    /// A connection that carries the bytes from now on; `None` if the session has ended.
    pub(crate) fn take_socket(&self, socket: SocketId) -> Option<TcpStream> {
        let relayed = self.transport().is_some_and(|transport| transport.is_relayed());
        self.relayed.store(relayed, Ordering::Relaxed);
        self.handle.shared.take_socket(socket)
    }

    /// Whether the bytes go through a SOCKS5 proxy.
    pub(crate) fn is_relayed(&self) -> bool {
        self.relayed.load(Ordering::Relaxed)
    }

    /// What carries the bytes.
    pub(crate) fn transport(&self) -> Option<TransportInfo> {
        self.with(|sessions, id, _| sessions.transport_info(id))
    }

    /// For whatever is done for the session.
    pub(crate) fn span(&self) -> tracing::Span {
        self.with(|sessions, id, _| sessions.span(id))
    }

    /// Waits until the bytestream can be used.
    pub(crate) async fn opened(&self) -> Result<(), Error> {
        poll_fn(|cx| {
            self.poll(cx, |sessions, id, _| match sessions.progress(id) {
                Progress::Pending => Poll::Pending,
                Progress::Open => Poll::Ready(Ok(())),
                Progress::Ended(error) => Poll::Ready(Err(error.unwrap_or_else(closed))),
            })
        })
        .await
    }

    /// Waits until nothing of the session is outstanding on the wire, or there is no connection on which to hear about it.
    pub(crate) async fn over(&self) {
        poll_fn(|cx| {
            self.handle.shared.act(|state, _| {
                let ended = matches!(state.sessions.progress(self.id), Progress::Ended(_));
                if state.sessions.is_over(self.id) || ended && state.reach == Reach::Suspended {
                    return Poll::Ready(());
                }
                state.wait_for(self.id, cx.waker());
                Poll::Pending
            })
        })
        .await;
    }

    /// Why the session ended, if it did and not by our own wish.
    pub(crate) fn error(&self) -> Option<Error> {
        self.with(|sessions, id, _| match sessions.progress(id) {
            Progress::Ended(error) => error,
            Progress::Pending | Progress::Open => None,
        })
    }
}

impl Drop for SessionHandle {
    fn drop(&mut self) {
        self.handle.shared.act(|state, now| {
            state.sessions.release(now, self.id);
            // Whoever closes the endpoint may be waiting for it.
            state.waking.extend(state.waiting.remove(&self.id).into_iter().flatten());
        });
    }
}

fn closed() -> Error {
    ApiMisuse::EndpointClosed.into()
}
