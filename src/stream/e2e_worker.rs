//! The worker of a stream: it moves bytes between the bytestream, the codec and the state machine.
//!
//! While the stream is open, one hand-written poll function does it all ([`Worker::poll_stream`]): it
//! writes whatever has accumulated in one go, reads while the inbox has room, and keeps one timer. The stream's task calls it;
//! whoever sends or receives calls a shorter one ([`Worker::help`], see `e2e_desk.rs`). What
//! comes after both footers or an error is ordinary async code, in `e2e_end.rs`.

use std::{
    io, mem,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Instant,
};

use futures::{FutureExt as _, future::BoxFuture};

use super::{
    Flow, Path,
    addressing::Introduction,
    decode::{Decoded, Decoder},
    e2e_buffers::{Bytes, IDLE_BYTES, Inbound, Outbound, Timer},
    e2e_revive::{Recovery, Registered},
    e2e_shared::{Reading, Shared, Wakes, now},
    e2e_visits::{Bell, PATIENCE},
    machine::{Machine, Role, Setup, cut_off, management::Plan},
    negotiation::{Agenda, Next},
    options::{Session, StreamOptions},
    violation::Violation,
};
use crate::{Error, Reason, TransportError, security::Certificate};

/// Turns before the task lets others run, on a bytestream that is always ready.
const TURNS: usize = 32;

/// The same for somebody who wants to send, and does not wait for what is read.
const VISITED_TURNS: usize = 4;

/// So many stanzas are read at most before somebody may take them: each needs room meanwhile.
const BATCH: usize = 8;

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
    /// Until when those who were here lately are expected back, if any.
    patience: Option<Instant>,
    look: Timer,
    readers: Readers,
    wakes: Wakes,
    bell: Bells,
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

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    Task,
    /// Somebody who takes the stanzas reads them, too, and will be back when they are used up.
    Visitor,
}

/// What somebody has come for who helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Visit {
    /// To get written what was queued.
    Write,
    /// The same, and waits for what the peer makes of it.
    Both,
    /// For the next stanza.
    Read,
}

/// A bytestream that no XML stream is on.
pub(super) struct Bare {
    pub(super) io: Box<dyn Bytes>,
    pub(super) session: Session,
    pub(super) options: StreamOptions,
}

/// Who is woken by what can be read.
enum Bells {
    /// The task: a stream that is being opened may have to give way to one that it carries on.
    Off,
    /// Whoever waits for it, by a bell that was made for a waker of the task.
    On(Option<(Waker, Waker)>),
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
    /// Somebody else reads.
    is_read: bool,
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
            patience: None,
            look: Timer::new(),
            readers: Readers::Task,
            wakes: Wakes::default(),
            bell: Bells::Off,
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
        self.take_wakes().wake();
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
        (Bare { io, session, options }, inbound.into_early())
    }

    /// Looks, once it is time, whether those are still there who have left something.
    fn look_after(&mut self, cx: &mut Context<'_>) {
        if self.patience.is_some() && self.look.poll(cx, self.patience).is_pending() {
            return;
        }
        let (is_read, is_to_be_continued) = self.shared.with(|inner, _| inner.visits.look());
        self.readers = if is_read { Readers::Visitor } else { Readers::Task };
        let before = self.patience;
        self.patience = is_to_be_continued.then(|| now() + PATIENCE);
        if self.patience.is_some() && self.look.poll(cx, self.patience).is_ready() {
            cx.waker().wake_by_ref();
        }
        if before.is_some() && self.patience.is_none() {
            self.release();
        }
    }

    /// Nobody came back: what a burst has taken is given back.
    pub(super) fn release(&mut self) {
        self.decoder.release();
        self.outbound.release();
        self.shared.with(|inner, _| inner.machine.release(IDLE_BYTES));
    }

    /// Whom the work has to wake, once others can put the worker to work.
    pub(super) fn take_wakes(&mut self) -> Wakes {
        mem::take(&mut self.wakes)
    }

    /// Does what can be done at once, for somebody who is here. What has to be waited for wakes the task, whose context this is.
    pub(super) fn help(&mut self, cx: &mut Context<'_>, visit: Visit) {
        let turns = if visit == Visit::Both { VISITED_TURNS } else { TURNS };
        for _ in 0..turns {
            let Some(turn) = self.begin_turn(cx).filter(|_| matches!(self.link, Link::Up)) else {
                return cx.waker().wake_by_ref();
            };
            let is_to_read = visit != Visit::Write && turn.reading == Reading::On;
            let progress = [self.poll_write(cx).is_ready(), is_to_read && self.poll_read(cx).is_ready()];
            let is_satisfied = match visit {
                Visit::Read if self.inbound.is_busy() || progress == [false; 2] => {
                    self.shared.with(|inner, wakes| inner.leave_rest(wakes))
                }
                Visit::Read | Visit::Write | Visit::Both => false,
            };
            if progress == [false; 2] || is_satisfied {
                if !self.timer.is_set_for(turn.deadline) {
                    cx.waker().wake_by_ref();
                }
                return;
            }
        }
        cx.waker().wake_by_ref();
    }

    /// Works until nothing more will be read, because both footers or an error came, or because the stream has to go on over
    /// another bytestream.
    pub(super) fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_flow(cx);
        for _ in 0..TURNS {
            self.look_after(cx);
            let Some(turn) = self.begin_turn(cx) else {
                return Poll::Ready(());
            };
            // Each of them is to be polled, so that each can wake us.
            let progress = [
                self.poll_time(cx, turn.deadline).is_ready(),
                self.poll_write(cx).is_ready(),
                turn.reading == Reading::On && !turn.is_read && self.poll_read(cx).is_ready(),
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
        while let Poll::Ready(flow) = self.session.poll_flow(cx, self.flow)
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
        let (flow, now, readers) = (self.flow, now(), self.readers);
        let (outbound, link, wakes) = (&mut self.outbound, &self.link, &mut self.wakes);
        // Nothing can be done about a proxy on a bytestream that is broken.
        let path = match link {
            Link::Up => self.session.path(),
            Link::Down { .. } => Path::Direct,
        };
        let is_looking = self.patience.is_some();
        self.shared.with(|inner, _| {
            inner.register_worker(cx);
            // Somebody has relied on it since it was last looked, and could not wake us then.
            if !is_looking && inner.visits.is_relied_on() {
                cx.waker().wake_by_ref();
            }
            inner.machine.set_path(now, path);
            outbound.exchange(now, inner, wakes);
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
            inner.machine.set_listening(now, reading == Reading::On);
            let link_deadline = match link {
                Link::Up => None,
                Link::Down { deadline, .. } => Some(*deadline),
            };
            let deadline = [inner.machine.poll_timeout(), link_deadline].into_iter().flatten().min();
            let is_read = readers == Readers::Visitor && !inner.is_received_for();
            Some(Turn { reading, is_read, deadline })
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
        let bell = self.bell(cx.waker());
        let cx = &mut bell.as_ref().map_or_else(|| Context::from_waker(cx.waker()), Context::from_waker);
        let read = ready!(self.poll_decode(cx));
        match read {
            Ok(0) => self.end(cut_off()),
            Ok(_) => self.hand_over(),
            Err(error) => {
                let error = self.map_io(&error);
                self.end(error);
            }
        }
        Poll::Ready(())
    }

    /// From now on, what comes is for those who wait for stanzas of this stream.
    pub(super) fn hang_bell(&mut self) {
        self.bell = Bells::On(None);
    }

    /// What wakes those who wait for what comes, of this task.
    fn bell(&mut self, task: &Waker) -> Option<Waker> {
        let Bells::On(bell) = &mut self.bell else { return None };
        match bell {
            Some((made_for, bell)) if made_for.will_wake(task) => Some(bell.clone()),
            _ => {
                let (_, made) = bell.insert((task.clone(), Bell::waker(&self.shared, task)));
                Some(made.clone())
            }
        }
    }

    /// Decodes what comes next where it was read, and outside of the lock. Gives how many bytes there were.
    fn poll_decode(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Self { io, inbound, decoder, decoded: all, .. } = self;
        let mut bytes = ready!(inbound.poll_bytes(io, cx))?;
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let count = bytes.len();
        loop {
            match decoder.decode(&mut bytes) {
                Ok(None) => break,
                Ok(Some(decoded)) => {
                    // What is behind them may be no part of this stream.
                    let may_be_last = matches!(decoded, Decoded::Footer | Decoded::Negotiation { .. });
                    all.push(Ok(decoded));
                    if may_be_last || all.len() >= BATCH {
                        break;
                    }
                }
                Err(violation) => {
                    all.push(Err(violation));
                    break;
                }
            }
        }
        let used = count - bytes.len();
        inbound.consume(io, used);
        Poll::Ready(Ok(count))
    }

    /// Hands over the lot under the lock.
    fn hand_over(&mut self) {
        let (now, decoded, wakes) = (now(), &mut self.decoded, &mut self.wakes);
        let is_busy = self.inbound.is_busy();
        let is_awaited = self.shared.with(|inner, _| {
            inner.machine.handle_alive(now);
            for item in decoded.drain(..) {
                inner.machine.handle(now, item);
            }
            let is_awaited = inner.machine.has_news() && inner.wake_receiver(wakes);
            if is_awaited && is_busy && inner.visits.note_reader() {
                inner.wake_worker(wakes);
            }
            is_awaited
        });
        if is_awaited && is_busy {
            // Whoever waited for it reads what is behind it.
            self.readers = Readers::Visitor;
        }
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
