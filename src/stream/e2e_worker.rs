//! The task of a stream: it moves bytes between the bytestream, the codec and the state machine.
//!
//! While the stream is open, one hand-written poll function does it all ([`Worker::poll_stream`]): it
//! writes whatever has accumulated in one go, reads while the inbox has room, and keeps one timer. What
//! comes after both footers or an error is ordinary async code, in `e2e_end.rs`.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::{FutureExt as _, future::BoxFuture};

use super::{
    Flow, Path,
    addressing::Introduction,
    decode::{Decoded, Decoder},
    e2e_buffers::{Bytes, Inbound, Outbound, Timer},
    e2e_revive::{Recovery, Registered},
    e2e_shared::{Reading, Shared, now},
    machine::{Machine, Role, Setup, cut_off, management::Plan},
    negotiation::{Agenda, Next},
    options::{Session, StreamOptions},
    violation::Violation,
};
use crate::{Error, Reason, TransportError, security::Certificate};

/// Turns before the task lets others run, on a bytestream that is always ready.
const TURNS: usize = 32;

pub(super) struct Worker {
    pub(super) io: Box<dyn Bytes>,
    pub(super) shared: Arc<Shared>,
    pub(super) session: Session,
    pub(super) role: Role,
    pub(super) options: StreamOptions,
    pub(super) inbound: Inbound,
    pub(super) outbound: Outbound,
    decoder: Decoder,
    decoded: Vec<Result<Decoded, Violation>>,
    timer: Timer,
    link: Link,
    /// As the machine was told.
    flow: Flow,
    session_ended: Option<BoxFuture<'static, ()>>,
    /// The peer's, if the stream is encrypted: what it has to present on another bytestream.
    pub(super) certificate: Option<Certificate>,
    pub(super) registered: Option<Registered>,
    pub(super) recovery: Option<Recovery>,
}

/// What is wrong with the bytestream. It is still read, because the reason may yet come.
enum Link {
    Up,
    Down { error: Error, deadline: Instant },
}

/// A bytestream that no XML stream is on.
pub(super) struct Bare {
    pub(super) io: Box<dyn Bytes>,
    pub(super) session: Session,
    pub(super) options: StreamOptions,
}

/// What one XML stream on the bytestream is for.
pub(super) struct Round {
    pub(super) agenda: Agenda,
    /// As [`Setup::nonce`].
    pub(super) nonce: String,
    pub(super) management: Plan,
}

/// What an XML stream has become.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opening {
    Open,
    /// Nothing of it is needed any more.
    Negotiated(Next),
    /// The bytestream of an earlier stream, as one side wants and the other has yet to agree or has agreed.
    Resumption,
}

/// What a turn found out under the lock.
struct Turn {
    reading: Reading,
    deadline: Option<Instant>,
}

impl Worker {
    pub(super) fn new(
        io: Box<dyn Bytes>,
        early: &[u8],
        role: Role,
        session: Session,
        options: StreamOptions,
        round: Round,
    ) -> Self {
        let Round { agenda, nonce, management } = round;
        let channel = options.protection.channel();
        let certificate = channel.as_ref().map(|channel| channel.peer.clone());
        let setup = Setup {
            role,
            local: options.local.clone(),
            peer: options.peer.clone(),
            introduction: options.introduction,
            timeouts: options.timeouts,
            limits: options.limits,
            nonce,
            channel,
            agenda,
            management,
        };
        Self {
            io,
            shared: Shared::new(Machine::new(now(), setup), options.limits.outbox_bytes),
            session_ended: session.ended(),
            session,
            role,
            decoder: Decoder::new(&options.limits),
            decoded: Vec::new(),
            inbound: Inbound::new(early),
            outbound: Outbound::new(),
            timer: Timer::new(),
            link: Link::Up,
            flow: Flow::Flowing,
            certificate,
            registered: None,
            recovery: None,
            options,
        }
    }

    /// Works until the stream is open, or over because something else comes next; `Err` says why neither will be.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<Opening, Error>> {
        let over = self.poll_stream(cx).is_ready();
        let outbound = &self.outbound;
        self.shared.with(|inner, _| match (inner.machine.error(), inner.machine.negotiated()) {
            (Some(error), _) => Poll::Ready(Err(error.clone())),
            _ if inner.is_resumption() => Poll::Ready(Ok(Opening::Resumption)),
            (None, Some(next)) if inner.outbox_len() == 0 && outbound.is_idle() => {
                Poll::Ready(Ok(Opening::Negotiated(next)))
            }
            (None, None) if over || inner.machine.is_open() => Poll::Ready(Ok(Opening::Open)),
            _ => Poll::Pending,
        })
    }

    /// What another stream can begin with, and what of that was read already.
    pub(super) fn into_bare(self) -> (Bare, Vec<u8>) {
        let peer = self.shared.with(|inner, _| inner.machine.peer().cloned());
        let Self { io, session, mut options, inbound, .. } = self;
        // Who the peer said it was is who it has to be from now on, and it has to say so where nobody else can.
        if options.peer.is_none() {
            options.introduction = Introduction::Required;
        }
        options.peer = peer;
        (Bare { io, session, options }, inbound.unread().to_vec())
    }

    /// Works until nothing more will be read, because both footers or an error came, or because the stream has to go on over
    /// another bytestream.
    pub(super) fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS {
            self.poll_flow(cx);
            let Some(turn) = self.begin_turn(cx) else {
                return Poll::Ready(());
            };
            // Each of them is to be polled, so that each can wake us.
            let progress = [
                self.poll_time(cx, turn.deadline).is_ready(),
                self.poll_write(cx).is_ready(),
                turn.reading == Reading::On && self.poll_read(cx).is_ready(),
            ];
            if progress == [false; 3] {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Tells the machine when the bytestream stands still, or no longer does.
    fn poll_flow(&mut self, cx: &Context<'_>) {
        if let Poll::Ready(flow) = self.session.poll_flow(cx, self.flow)
            && flow != self.flow
            // What failed while it stood still does not go on: its end follows.
            && (flow == Flow::Stalled || self.session.error().is_none())
        {
            self.flow = flow;
            let transport = self.session.transport();
            self.shared.with(|inner, wakes| inner.set_flow(flow, transport, wakes));
        }
    }

    /// Tells what was written, and takes what there is to write. `None` when the stream is over, or this bytestream is for it.
    fn begin_turn(&mut self, cx: &Context<'_>) -> Option<Turn> {
        let flow = self.flow;
        let (outbound, link) = (&mut self.outbound, &self.link);
        // Nothing can be done about a proxy on a bytestream that is broken.
        let path = match link {
            Link::Up => self.session.path(),
            Link::Down { .. } => Path::Direct,
        };
        self.shared.with(|inner, wakes| {
            inner.register_worker(cx);
            inner.machine.set_path(now(), path);
            outbound.exchange(inner, wakes);
            if inner.machine.is_over() {
                inner.wake_all(wakes);
                return None;
            }
            let is_lost = flow == Flow::Flowing && inner.machine.suspension().is_some();
            // Nothing of the old bytestream may come behind what a new one carries.
            if is_lost || inner.has_successor() || inner.is_resumption() {
                return None;
            }
            let reading = inner.reading();
            inner.machine.set_listening(now(), reading == Reading::On);
            let link_deadline = match link {
                Link::Up => None,
                Link::Down { deadline, .. } => Some(*deadline),
            };
            let deadline = [inner.machine.poll_timeout(), link_deadline].into_iter().flatten().min();
            Some(Turn { reading, deadline })
        })
    }

    /// Ready when time or the end of the session changed something.
    fn poll_time(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        if let Some(ended) = &mut self.session_ended
            && ended.poll_unpin(cx).is_ready()
        {
            self.session_ended = None;
            if self.is_nothing_to_come() {
                self.end(cut_off());
            } else {
                // What was sent before may still be on its way through the bytestream.
                self.link_down(cut_off());
            }
            return Poll::Ready(());
        }
        ready!(self.timer.poll(cx, deadline));
        let now = now();
        let lost = match &self.link {
            Link::Down { error, deadline } if *deadline <= now => Some(self.explain(error.clone())),
            _ => None,
        };
        if lost.is_some() {
            self.flow = Flow::Flowing;
        }
        self.shared.with(|inner, _| {
            inner.machine.handle_timeout(now);
            if let Some(error) = lost {
                inner.machine.handle_end(error);
            }
        });
        Poll::Ready(())
    }

    /// Ready when something was written or flushed.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if matches!(self.link, Link::Down { .. }) {
            return Poll::Pending;
        }
        let result = ready!(self.outbound.poll_write(&mut self.io, cx));
        if let Err(error) = result {
            let error = self.map_io(&error);
            self.link_down(error);
        }
        Poll::Ready(())
    }

    /// Ready when something was read, or the bytestream ended.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.inbound.unread().is_empty() {
            match ready!(self.inbound.poll_fill(&mut self.io, cx)) {
                Ok(0) => self.end(cut_off()),
                Ok(_) => self.decode(),
                Err(error) => {
                    let error = self.map_io(&error);
                    self.end(error);
                }
            }
        } else {
            self.decode();
        }
        Poll::Ready(())
    }

    /// Decodes outside of the lock, and hands over the lot under it.
    fn decode(&mut self) {
        let mut bytes = self.inbound.unread();
        let before = bytes.len();
        loop {
            match self.decoder.decode(&mut bytes) {
                Ok(None) => break,
                Ok(Some(decoded)) => {
                    // What is behind them may be no part of this stream.
                    let may_be_last = matches!(decoded, Decoded::Footer | Decoded::Negotiation { .. });
                    self.decoded.push(Ok(decoded));
                    if may_be_last {
                        break;
                    }
                }
                Err(violation) => {
                    self.decoded.push(Err(violation));
                    break;
                }
            }
        }
        let used = before - bytes.len();
        self.inbound.consume(used);
        let (now, decoded) = (now(), &mut self.decoded);
        self.shared.with(|inner, wakes| {
            inner.machine.handle_alive(now);
            for item in decoded.drain(..) {
                inner.machine.handle(now, item);
            }
            if inner.machine.has_news() {
                inner.wake_receiver(wakes);
            }
        });
    }

    /// The bytestream ended.
    fn end(&mut self, error: Error) {
        let error = match &self.link {
            // It began with this.
            Link::Down { error, .. } => error.clone(),
            Link::Up => error,
        };
        let error = self.explain(error);
        // It does not stand still, it is no more.
        self.flow = Flow::Flowing;
        self.shared.with(|inner, _| inner.machine.handle_end(error));
    }

    /// Whether the session ended because its bytestream is no good. A stream that can be resumed gets again what was on its way.
    fn is_nothing_to_come(&self) -> bool {
        let is_lost = match self.session.error() {
            Some(Error::Terminated(why)) => {
                matches!(why.reason, Reason::ConnectivityError | Reason::FailedTransport | Reason::Timeout)
            }
            Some(Error::Transport(_) | Error::Signalling(_)) => true,
            _ => false,
        };
        is_lost && self.shared.with(|inner, _| inner.machine.is_resumable())
    }

    fn link_down(&mut self, error: Error) {
        if let Link::Up = self.link {
            self.link = Link::Down { error, deadline: now() + self.options.timeouts.close };
        }
    }

    /// Why the session ended says more than that its bytestream did.
    pub(super) fn explain(&self, error: Error) -> Error {
        self.session.error().unwrap_or(error)
    }

    pub(super) fn map_io(&self, error: &io::Error) -> Error {
        match (self.options.map_io)(error) {
            // TLS without its close_notify.
            Error::Transport(TransportError::Io(_)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                cut_off()
            }
            other => other,
        }
    }
}
