//! What the handles of a stream and its task share.

use std::{
    mem,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Waker},
    time::Instant,
};

use xmpp_parsers::stanza::Stanza;

use super::{e2e_bytestream::Kept, machine::Machine};
use crate::{ApiMisuse, Error, wakers::remember};

pub(super) struct Shared {
    inner: Mutex<Inner>,
}

pub(super) struct Inner {
    pub(super) machine: Machine,
    /// Bytes that the task took and has yet to write.
    pub(super) unwritten: usize,
    /// Bytes that were written and flushed, of all that were ever queued.
    pub(super) flushed: u64,
    pub(super) intent: Intent,
    pub(super) task: Task,
    reading: Reading,
    outbox_limit: usize,
    worker: Option<Waker>,
    receiver: Option<Waker>,
    /// Those that wait for room to send.
    senders: Vec<Waker>,
    /// Those that wait for a flush or for the end.
    others: Vec<Waker>,
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
            inner: Mutex::new(Inner {
                machine,
                unwritten: 0,
                flushed: 0,
                intent: Intent::Undecided,
                task: Task::Running,
                reading: Reading::On,
                outbox_limit,
                worker: None,
                receiver: None,
                senders: Vec::new(),
                others: Vec::new(),
            }),
        })
    }

    /// Runs `f` under the lock, then wakes whom it marked.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Inner, &mut Wakes) -> R) -> R {
        let mut wakes = Wakes::default();
        // Nothing in here panics half-way; if it did, the state would still be the best there is.
        let result = f(&mut self.inner.lock().unwrap_or_else(PoisonError::into_inner), &mut wakes);
        for waker in wakes.0 {
            waker.wake();
        }
        result
    }
}

pub(super) fn now() -> Instant {
    // Tokio's clock, so that tests may stop it.
    tokio::time::Instant::now().into_std()
}

impl Inner {
    // For the handles.

    /// Whether there is room to send; if not, the caller is woken when there is.
    pub(super) fn poll_room(&mut self, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        self.machine.check_open()?;
        if self.outbox_len() < self.outbox_limit {
            return Poll::Ready(Ok(()));
        }
        remember(&mut self.senders, cx.waker());
        Poll::Pending
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
    pub(super) fn poll_flushed(&mut self, mark: u64, cx: &Context<'_>) -> Poll<Result<(), Error>> {
        if self.flushed >= mark {
            return Poll::Ready(Ok(()));
        }
        match (self.machine.error(), &self.task) {
            (Some(error), _) | (None, Task::Done(Err(error))) => return Poll::Ready(Err(error.clone())),
            (None, Task::Done(Ok(())) | Task::Kept(_)) => {
                return Poll::Ready(Err(ApiMisuse::StreamClosed.into()));
            }
            (None, Task::Running) => {}
        }
        remember(&mut self.others, cx.waker());
        Poll::Pending
    }

    /// The next stanza; `None` after the last one of a stream that was closed in good order.
    pub(super) fn poll_stanza(
        &mut self,
        cx: &Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Option<Result<Stanza, Error>>> {
        if let Some(stanza) = self.machine.next_stanza() {
            if self.reading == Reading::Paused && self.machine.has_inbox_room() {
                self.reading = Reading::On;
                self.wake_worker(wakes);
            }
            return Poll::Ready(Some(Ok(stanza)));
        }
        if let Some(error) = self.machine.error() {
            return Poll::Ready(Some(Err(error.clone())));
        }
        if self.machine.is_over() {
            return Poll::Ready(None);
        }
        self.receiver = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The user decides how the stream is to end. The last decision counts.
    pub(super) fn end(&mut self, intent: Intent, wakes: &mut Wakes) {
        self.intent = intent;
        self.machine.close(now());
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
        if self.outbox_len() <= self.outbox_limit / 2 {
            wakes.0.append(&mut self.senders);
        }
    }

    pub(super) fn wake_receiver(&mut self, wakes: &mut Wakes) {
        wakes.0.extend(self.receiver.take());
    }

    pub(super) fn wake_flushers(&mut self, wakes: &mut Wakes) {
        wakes.0.append(&mut self.others);
    }

    pub(super) fn wake_all(&mut self, wakes: &mut Wakes) {
        self.wake_receiver(wakes);
        self.wake_flushers(wakes);
        wakes.0.append(&mut self.senders);
    }

    pub(super) fn done(&mut self, result: Result<(), Error>, wakes: &mut Wakes) {
        self.task = Task::Done(result);
        self.wake_all(wakes);
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
