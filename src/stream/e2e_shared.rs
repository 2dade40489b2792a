//! What the handles of a stream and its task share.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError, Weak},
    task::{Context, Poll, Waker},
    time::Instant,
};

use xmpp_parsers::stanza::Stanza;

use super::{
    Carrier, Flow,
    e2e_buffers::Outbound,
    e2e_bytestream::Kept,
    e2e_desk::Desk,
    e2e_events::{EventLog, StreamEvent},
    e2e_peer::Remote,
    e2e_revive::Successor,
    e2e_visits::Visits,
    machine::{Machine, management::Resume},
};
use crate::{ApiMisuse, Error, SignallingError, TransportInfo, Undelivered, wakers::remember};

pub(super) struct Shared {
    inner: Mutex<Inner>,
    pub(super) desk: Desk,
}

pub(super) struct Inner {
    pub(super) machine: Machine,
    /// Bytes that the task took and has yet to write.
    pub(super) unwritten: usize,
    /// Bytes that were written and flushed, of all that were ever queued.
    pub(super) flushed: u64,
    pub(super) intent: Intent,
    pub(super) task: Task,
    /// What carries the bytes now. It changes with each resumption.
    pub(super) carrier: Option<Weak<dyn Carrier>>,
    /// Set once the peer is known, if the stream is encrypted.
    pub(super) remote: Option<Arc<Remote>>,
    pub(super) events: EventLog,
    shown: Shown,
    handed_back: HandedBack,
    /// The bytestream on which the initiator asked to carry on this stream.
    successor: Option<Successor>,
    reading: Reading,
    pub(super) visits: Visits,
    /// When something was last taken to be written.
    pub(super) taken_at: Instant,
    outbox_limit: usize,
    worker: Option<Waker>,
    receiver: Option<Waker>,
    /// Those that wait for room to send.
    senders: Vec<Waker>,
    /// Those that wait for a flush or for the end.
    others: Vec<Waker>,
    /// Those that wait for another carrier.
    movers: Vec<Waker>,
}

/// Another bytestream, with a machine of its own so far.
pub(super) struct Fresh {
    pub(super) machine: Machine,
    pub(super) carrier: Option<Weak<dyn Carrier>>,
    pub(super) transport: Option<TransportInfo>,
}

/// What the events say of the bytestream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    Up,
    Suspended,
}

/// What becomes of stanzas that the peer has forgotten with the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HandedBack {
    /// Nobody has looked at the event that has them.
    Unseen,
    /// Or there are none.
    Seen,
}

/// What the user wants to happen when both footers are here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Intent {
    Undecided,
    /// Close the bytestream.
    Close,
    /// Keep the bytestream.
    Keep,
}

/// Whether the task reads, or waits until the user has taken something out of the inbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reading {
    On,
    Paused,
}

/// How far the task is.
pub(super) enum Task {
    Running,
    /// The bytestream waits to be taken.
    Kept(Box<Kept>),
    Done(Result<(), Error>),
}

/// Wakers to be woken after the lock is released.
#[derive(Default)]
pub(super) struct Wakes(Vec<Waker>);

impl Shared {
    pub(super) fn new(machine: Machine, outbox_limit: usize) -> Arc<Self> {
        Arc::new(Self {
            desk: Desk::new(),
            inner: Mutex::new(Inner {
                machine,
                unwritten: 0,
                flushed: 0,
                intent: Intent::Undecided,
                task: Task::Running,
                carrier: None,
                remote: None,
                events: EventLog::new(),
                shown: Shown::Up,
                handed_back: HandedBack::Seen,
                successor: None,
                reading: Reading::On,
                visits: Visits::default(),
                taken_at: now(),
                outbox_limit,
                worker: None,
                receiver: None,
                senders: Vec::new(),
                others: Vec::new(),
                movers: Vec::new(),
            }),
        })
    }

    /// The machine of a stream that nobody else has; `None` if somebody has it.
    pub(super) fn into_machine(this: Arc<Self>) -> Option<Machine> {
        let shared = Arc::into_inner(this)?;
        Some(shared.inner.into_inner().unwrap_or_else(PoisonError::into_inner).machine)
    }

    /// Runs `f` under the lock, then wakes whom it marked.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Inner, &mut Wakes) -> R) -> R {
        let mut wakes = Wakes::default();
        // Nothing in here panics half-way; if it did, the state would still be the best there is.
        let result = f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner), &mut wakes);
        wakes.wake();
        result
    }
}

impl Wakes {
    pub(super) fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

pub(super) fn now() -> Instant {
    // Tokio's clock, so that tests may stop it.
    tokio::time::Instant::now().into_std()
}

impl Inner {
    // For the handles.

    /// Whether there is room to send.
    pub(super) fn poll_room(&self) -> Poll<Result<(), Error>> {
        match self.machine.check_room() {
            Ok(true) if self.outbox_len() < self.outbox_limit && self.handed_back == HandedBack::Seen => {
                Poll::Ready(Ok(()))
            }
            Ok(_) => Poll::Pending,
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// The same; if there is none, the caller is woken when there is.
    pub(super) fn await_room(&mut self, cx: &Context<'_>, wakes: &mut Wakes) -> Poll<Result<(), Error>> {
        match self.machine.check_room() {
            Ok(true) if self.outbox_len() < self.outbox_limit && self.is_released(cx) => {
                return Poll::Ready(Ok(()));
            }
            Ok(true) => {}
            // What is waited for has to be read.
            Ok(false) if self.reading == Reading::Paused => self.wake_worker(wakes),
            Ok(false) => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
        remember(&mut self.senders, cx.waker());
        Poll::Pending
    }

    /// Whether what the peer had forgotten was handed back, before anything else is sent on the stream that took the place.
    fn is_released(&mut self, cx: &Context<'_>) -> bool {
        if self.handed_back == HandedBack::Unseen && self.events.poll_seen(cx).is_ready() {
            self.handed_back = HandedBack::Seen;
        }
        self.handed_back == HandedBack::Seen
    }

    /// Runs a verb that queues something, and sees to it that it gets written.
    pub(super) fn queue<R>(&mut self, wakes: &mut Wakes, verb: impl FnOnce(&mut Machine) -> R) -> R {
        let was_idle = self.outbox_len() == 0;
        let result = verb(&mut self.machine);
        // While it is writing, the task looks for more by itself.
        if was_idle {
            self.wake_worker(wakes);
        }
        result
    }

    /// Whether everything up to `mark` was written and flushed.
    pub(super) fn poll_flushed(&self, mark: u64) -> Poll<Result<(), Error>> {
        if self.flushed >= mark {
            return Poll::Ready(Ok(()));
        }
        match (self.machine.error().cloned(), &self.task) {
            (Some(error), _) => Poll::Ready(Err(error)),
            (None, Task::Done(Err(error))) => Poll::Ready(Err(error.clone())),
            (None, Task::Done(Ok(())) | Task::Kept(_)) => Poll::Ready(Err(ApiMisuse::StreamClosed.into())),
            (None, Task::Running) => Poll::Pending,
        }
    }

    /// The same; if not, the caller is woken when it is.
    pub(super) fn await_flushed(&mut self, mark: u64, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = self.poll_flushed(mark);
        if flushed.is_pending() {
            remember(&mut self.others, cx.waker());
        }
        flushed
    }

    /// The next stanza; `None` after the last one of a stream that was closed in good order.
    pub(super) fn poll_stanza(&mut self, wakes: &mut Wakes) -> Poll<Option<Result<Stanza, Error>>> {
        // It is here, and need not be woken.
        self.receiver = None;
        let was_idle = self.outbox_len() == 0;
        if let Some(stanza) = self.machine.next_stanza() {
            // An acknowledgement, perhaps.
            if was_idle {
                self.leave(wakes);
            }
            if self.reading == Reading::Paused && self.machine.has_inbox_room() {
                self.reading = Reading::On;
                self.wake_worker(wakes);
            }
            return Poll::Ready(Some(Ok(stanza)));
        }
        match self.machine.outcome() {
            Some(Err(error)) => Poll::Ready(Some(Err(error))),
            Some(Ok(())) => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// The same; the caller is woken when it is here.
    pub(super) fn await_stanza(
        &mut self,
        cx: &Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Option<Result<Stanza, Error>>> {
        let stanza = self.poll_stanza(wakes);
        if stanza.is_pending() {
            self.receiver = Some(cx.waker().clone());
        }
        stanza
    }

    /// Whether somebody waits for a stanza.
    pub(super) fn is_received_for(&self) -> bool {
        self.receiver.is_some()
    }

    /// The user decides how the stream is to end, and receives nothing more. The last decision counts.
    pub(super) fn end(&mut self, intent: Intent, wakes: &mut Wakes) {
        self.intent = intent;
        self.machine.leave(now());
        self.wake_worker(wakes);
    }

    /// Waits for the task to be done; gives the bytestream if that was wanted.
    pub(super) fn poll_done(&mut self, cx: &Context<'_>) -> Poll<Result<Option<Box<Kept>>, Error>> {
        match &mut self.task {
            Task::Running => {
                remember(&mut self.others, cx.waker());
                Poll::Pending
            }
            Task::Done(result) => Poll::Ready(result.clone().map(|()| None)),
            kept @ Task::Kept(_) => match mem::replace(kept, Task::Done(Ok(()))) {
                Task::Kept(kept) => Poll::Ready(Ok(Some(kept))),
                Task::Running | Task::Done(_) => Poll::Ready(Ok(None)),
            },
        }
    }

    /// Remembers who waits for another carrier.
    pub(super) fn await_carrier(&mut self, cx: &Context<'_>) {
        remember(&mut self.movers, cx.waker());
    }

    pub(super) fn wake_worker(&mut self, wakes: &mut Wakes) {
        wakes.0.extend(self.worker.take());
    }

    // For the task.

    pub(super) fn outbox_len(&self) -> usize {
        self.machine.outgoing_len() + self.unwritten
    }

    pub(super) fn register_worker(&mut self, cx: &Context<'_>) {
        self.worker = Some(cx.waker().clone());
    }

    /// Senders are woken not for each byte that leaves, but when there is room for some.
    pub(super) fn wake_senders(&mut self, wakes: &mut Wakes) {
        if self.outbox_len() <= self.outbox_limit / 2 && !matches!(self.machine.check_room(), Ok(false)) {
            wakes.0.append(&mut self.senders);
        }
    }

    /// Says whether somebody waits.
    pub(super) fn wake_receiver(&mut self, wakes: &mut Wakes) -> bool {
        let receiver = self.receiver.take();
        let is_awaited = receiver.is_some();
        wakes.0.extend(receiver);
        is_awaited
    }

    pub(super) fn wake_flushers(&mut self, wakes: &mut Wakes) {
        wakes.0.append(&mut self.others);
    }

    pub(super) fn wake_all(&mut self, wakes: &mut Wakes) {
        self.wake_receiver(wakes);
        self.wake_flushers(wakes);
        wakes.0.append(&mut self.senders);
        wakes.0.append(&mut self.movers);
    }

    pub(super) fn done(&mut self, result: Result<(), Error>, wakes: &mut Wakes) {
        self.task = Task::Done(result);
        self.wake_all(wakes);
        wakes.0.extend(self.events.end());
    }

    /// The XML stream is over, and its bytestream waits to be taken.
    pub(super) fn keep(&mut self, kept: Box<Kept>, wakes: &mut Wakes) {
        self.task = Task::Kept(kept);
        self.wake_all(wakes);
        wakes.0.extend(self.events.end());
    }

    /// The stream is over, and this became of it, if nothing worse did.
    pub(super) fn done_as_it_ended(&mut self, otherwise: Result<(), Error>, wakes: &mut Wakes) {
        let result = match self.machine.outcome() {
            Some(Err(error)) => Err(error),
            Some(Ok(())) | None => otherwise,
        };
        self.done(result, wakes);
    }

    // For what happens between two bytestreams.

    /// The bytestream stands still, or no longer does.
    pub(super) fn set_flow(&mut self, flow: Flow, transport: Option<TransportInfo>, wakes: &mut Wakes) {
        match flow {
            Flow::Stalled => {
                self.machine.stall(now(), Error::Signalling(SignallingError::Offline));
                self.show_suspension(wakes);
            }
            Flow::Flowing => {
                self.machine.unstall(now());
                self.show_resumption(transport, wakes);
            }
        }
    }

    /// There is no bytestream any more.
    pub(super) fn lose(&mut self, wakes: &mut Wakes) {
        self.unwritten = 0;
        self.carrier = None;
        self.show_suspension(wakes);
    }

    fn show_suspension(&mut self, wakes: &mut Wakes) {
        if let (Shown::Up, Some(suspension)) = (self.shown, self.machine.suspension()) {
            wakes.0.extend(self.events.push(StreamEvent::Suspended(suspension.cause.clone())));
            self.shown = Shown::Suspended;
        }
    }

    fn show_resumption(&mut self, transport: Option<TransportInfo>, wakes: &mut Wakes) {
        if self.machine.suspension().is_none() && self.shown == Shown::Suspended {
            wakes.0.extend(self.events.push(StreamEvent::Resumed(transport)));
            self.shown = Shown::Up;
            wakes.0.append(&mut self.senders);
        }
    }

    /// Goes on over the bytestream of a fresh machine. As [`Machine::adopt`].
    pub(super) fn adopt(
        &mut self,
        Fresh { machine, carrier, transport }: Fresh,
        outbound: &mut Outbound,
        wakes: &mut Wakes,
    ) -> Result<(), Box<Machine>> {
        self.machine.adopt(now(), machine)?;
        self.go_on(outbound, carrier);
        self.show_resumption(transport, wakes);
        self.wake_all(wakes);
        Ok(())
    }

    /// Goes on with a new stream. As [`Machine::begin_anew`].
    pub(super) fn begin_anew(
        &mut self,
        Fresh { machine, carrier, transport }: Fresh,
        outbound: &mut Outbound,
        wakes: &mut Wakes,
    ) {
        let cause = self.machine.suspension().map(|suspension| suspension.cause.clone());
        let undelivered = Undelivered::new(cause, self.machine.hand_back());
        self.machine.begin_anew(now(), machine);
        self.go_on(outbound, carrier);
        wakes.0.extend(self.events.push(StreamEvent::Renewed { transport, undelivered }));
        self.events.hold();
        (self.shown, self.handed_back) = (Shown::Up, HandedBack::Unseen);
        self.wake_all(wakes);
    }

    fn go_on(&mut self, outbound: &mut Outbound, carrier: Option<Weak<dyn Carrier>>) {
        outbound.rebase(self.flushed, self.machine.queued(), self.machine.outgoing_len());
        self.unwritten = outbound.unwritten().len();
        self.carrier = carrier;
    }

    /// The initiator asks on another bytestream to carry on the stream of this id.
    ///
    /// # Errors
    ///
    /// It can't be: it is over, not resumable, another one, or being carried on already. Or it was carried on since that was
    /// asked: a word that was long on its way must not take the stream off the bytestream that works.
    pub(super) fn succeed(
        &mut self,
        asked: &Resume,
        successor: Successor,
        wakes: &mut Wakes,
    ) -> Result<(), Successor> {
        let is_meant = self.machine.resumption_id() == Some(&asked.previd);
        let is_possible = !self.machine.is_over() && self.successor.is_none();
        if !is_meant || !is_possible || self.machine.is_outdated(asked) {
            return Err(successor);
        }
        self.successor = Some(successor);
        self.wake_worker(wakes);
        Ok(())
    }

    /// Whether the machine is a fresh one, for a stream that is to be carried on.
    pub(super) fn is_resumption(&self) -> bool {
        self.machine.asked_to_resume().is_some() || self.machine.resumed_at().is_some()
    }

    /// Whether anybody would use the stream if it went on.
    pub(super) fn wants_more(&self) -> bool {
        self.intent == Intent::Undecided
    }

    /// Whether somebody will see what is handed back.
    pub(super) fn is_watched(&self) -> bool {
        self.events.is_watched()
    }

    pub(super) fn has_successor(&self) -> bool {
        self.successor.is_some()
    }

    pub(super) fn take_successor(&mut self) -> Option<Successor> {
        self.successor.take()
    }

    /// Whether the task should read.
    pub(super) fn reading(&mut self) -> Reading {
        if self.machine.is_silent() {
            // What is behind the peer's footer is a next stream's.
            return Reading::Paused;
        }
        if self.machine.is_inbox_full() {
            self.reading = Reading::Paused;
        } else if self.machine.has_inbox_room() {
            self.reading = Reading::On;
        }
        self.reading
    }
}
