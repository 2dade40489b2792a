//! What whoever sends or receives does without the stream's task, and what is left to others.

use std::{
    mem,
    sync::{Arc, Weak},
    task::{Context, Poll, Wake, Waker},
    time::{Duration, Instant},
};

use xmpp_parsers::stanza::Stanza;

use super::{
    e2e_desk::Help,
    e2e_shared::{Inner, Shared, Wakes, now},
    e2e_worker::Visit,
    machine::Machine,
};
use crate::Error;

/// How long whoever sends or receives is expected to come back. Longer than a bot takes for a few stanzas; to the peer it is as
/// if the way were so much longer.
pub(super) const PATIENCE: Duration = Duration::from_millis(2);

/// So much is written in one go: a TLS record.
const RECORD: usize = 16 * 1024;

/// A stanza that comes so long after the last write does not wait for company. Those that come sooner are written so often.
const COMPANY: Duration = Duration::from_micros(100);

/// Whether what was queued is to be written now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writing {
    Now,
    Later,
}

/// Who was there lately, and is expected to come back.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Visits {
    /// Somebody took stanzas who has more to read.
    read: bool,
    /// Somebody left something to write.
    left: bool,
    /// The task looks after all that before long.
    looking: bool,
}

impl Visits {
    /// Somebody reads what there is to read. Says whether the task has to be woken, to look after that.
    pub(super) fn note_reader(&mut self) -> bool {
        self.read = true;
        !mem::replace(&mut self.looking, true)
    }

    /// The same of what there is to write.
    pub(super) fn note_left(&mut self) -> bool {
        self.left = true;
        !mem::replace(&mut self.looking, true)
    }

    /// Whether somebody relies on the task's looking.
    pub(super) fn is_relied_on(&self) -> bool {
        self.looking
    }

    /// The task looks: whether somebody reads, and whether it has to look again.
    pub(super) fn look(&mut self) -> (bool, bool) {
        let Self { read, left, .. } = mem::take(self);
        self.looking = read || left;
        (read, self.looking)
    }
}

impl Shared {
    /// Whether there is room to send; if not, the caller is woken when there is.
    pub(super) fn poll_room(&self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let room = self.with(|inner, _| inner.poll_room());
        if room.is_ready() {
            return room;
        }
        self.help(Visit::Both);
        self.with(|inner, wakes| inner.await_room(cx, wakes))
    }

    /// Runs a verb that queues something. It is written at once if it is much, or comes alone; else it waits for what comes
    /// next, and be it a flush.
    pub(super) fn send<R>(&self, verb: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        let now = now();
        let (result, writing) =
            self.with(|inner, wakes| inner.queue_more(now, wakes, |machine| verb(machine, now)));
        if writing == Writing::Now {
            self.help(Visit::Write);
        }
        result
    }

    /// The same; it is waited for, and so written at once.
    pub(super) fn send_now<R>(&self, verb: impl FnOnce(&mut Machine, Instant) -> R) -> R {
        let result = self.with(|inner, _| verb(&mut inner.machine, now()));
        self.help(Visit::Write);
        result
    }

    /// Whether everything up to `mark` was written and flushed.
    pub(super) fn poll_flushed(&self, mark: u64, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        let flushed = self.with(|inner, _| inner.poll_flushed(mark));
        if flushed.is_ready() {
            return flushed;
        }
        self.help(Visit::Both);
        self.with(|inner, _| inner.await_flushed(mark, cx))
    }

    /// The next stanza; `None` after the last one of a stream that was closed in good order.
    pub(super) fn poll_stanza(&self, cx: &Context<'_>) -> Poll<Option<Result<Stanza, Error>>> {
        let stanza = self.with(|inner, wakes| inner.poll_stanza(wakes));
        if stanza.is_ready() {
            return stanza;
        }
        self.help(Visit::Read);
        self.with(|inner, wakes| inner.await_stanza(cx, wakes))
    }

    fn help(&self, visit: Visit) {
        let help = self.desk.help(|worker, cx| {
            worker.help(cx, visit);
            // The peer may have been told just now what the stream is called.
            worker.register();
        });
        if help == Help::Closed {
            self.with(|inner, wakes| inner.wake_worker(wakes));
        }
    }
}

/// Rung when there is something to read. Whoever waits for a stanza is woken to read it, and not the task first; should nobody
/// come, the task looks after it.
pub(super) struct Bell {
    shared: Weak<Shared>,
    task: Waker,
}

impl Bell {
    pub(super) fn waker(shared: &Arc<Shared>, task: &Waker) -> Waker {
        Waker::from(Arc::new(Self { shared: Arc::downgrade(shared), task: task.clone() }))
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let shared = self.shared.upgrade();
        if !shared.is_some_and(|shared| shared.with(Inner::call_reader)) {
            self.task.wake_by_ref();
        }
    }
}

impl Inner {
    /// Wakes whoever waits for a stanza. Says whether nobody else has to be woken.
    fn call_reader(&mut self, wakes: &mut Wakes) -> bool {
        // Whoever waits for a reply may be the same, and wait for no stanza any more.
        self.wake_receiver(wakes) && !self.visits.note_reader() && !self.machine.is_reply_awaited()
    }

    /// Runs a verb that queues something for somebody who will see to it that it gets written.
    fn queue_more<R>(
        &mut self,
        now: Instant,
        wakes: &mut Wakes,
        verb: impl FnOnce(&mut Machine) -> R,
    ) -> (R, Writing) {
        let result = verb(&mut self.machine);
        let is_alone = now.saturating_duration_since(self.taken_at) >= COMPANY;
        let is_much = self.machine.outgoing_len() >= RECORD;
        // What is being written takes the rest along.
        if self.unwritten == 0 && (is_alone || is_much) {
            return (result, Writing::Now);
        }
        self.leave(wakes);
        (result, Writing::Later)
    }

    /// Something that could be written is left for whoever comes next, who is expected soon.
    pub(super) fn leave(&mut self, wakes: &mut Wakes) {
        if self.outbox_len() > 0 && self.visits.note_left() {
            self.wake_worker(wakes);
        }
    }

    /// Whether there is something to receive for somebody who has read; what is behind it is left for when that is used up.
    pub(super) fn leave_rest(&mut self, wakes: &mut Wakes) -> bool {
        if !self.machine.has_news() {
            return false;
        }
        if self.visits.note_reader() {
            self.wake_worker(wakes);
        }
        true
    }
}
