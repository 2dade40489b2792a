//! Where the worker of a stream sits while it waits, so that others may put it to work.
//!
//! A stream has a task, which whatever the stream waits for wakes. To wake a task takes longer than to write a stanza, and than
//! to read one: so whoever sends or receives does itself what can be done at once, with the waker of the task, and leaves to
//! that only what has to be waited for. Nothing depends on anybody's coming back:
//!
//! - What is waited for wakes the task, whoever was there when it had to be waited for.
//! - What somebody leaves behind that could be done at once (a batch of stanzas that is still small, bytes that wait to be read
//!   behind those that were) the task sees to after [`PATIENCE`](super::e2e_visits::PATIENCE), unless that somebody was quicker.

use std::{
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use tokio::{runtime::Handle, task::coop};

use super::{e2e_shared::Shared, e2e_worker::Worker};

/// See the module's documentation.
pub(super) struct Desk {
    seat: Mutex<Seat>,
    /// The task's, where what a visitor begins has to live. Visitors may be on another one, or on none.
    runtime: Handle,
}

enum Seat {
    /// Between two bytestreams, before the first and behind the last there is nothing that others could do.
    Closed,
    Free(Box<Worker>, Waker),
    /// Somebody puts it to work.
    Taken(Call),
}

/// Whether somebody has something for a worker that others have.
enum Call {
    Nobody,
    /// The task came; or somebody did who can't wait, and it is for the task.
    Task(Waker),
    Anybody,
}

/// What became of an offer to help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Help {
    /// What there is was seen to, or will be by those who are at it.
    Taken,
    /// There is only the task.
    Closed,
}

impl Desk {
    /// On the runtime of the task.
    pub(super) fn new() -> Self {
        Self { seat: Mutex::new(Seat::Closed), runtime: Handle::current() }
    }

    fn lock(&self) -> MutexGuard<'_, Seat> {
        // Nothing in here panics half-way.
        self.seat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts the worker to work, if nobody else does.
    pub(super) fn help(&self, work: impl FnOnce(&mut Worker, &mut Context<'_>)) -> Help {
        let (worker, waker) = {
            let mut seat = self.lock();
            match mem::replace(&mut *seat, Seat::Taken(Call::Nobody)) {
                Seat::Free(worker, waker) => (worker, waker),
                Seat::Taken(Call::Nobody | Call::Anybody) => {
                    *seat = Seat::Taken(Call::Anybody);
                    return Help::Taken;
                }
                Seat::Taken(task @ Call::Task(_)) => {
                    *seat = Seat::Taken(task);
                    return Help::Taken;
                }
                Seat::Closed => {
                    *seat = Seat::Closed;
                    return Help::Closed;
                }
            }
        };
        let mut borrowed = Borrowed { desk: self, worker: Some(worker), waker };
        if let Borrowed { worker: Some(worker), waker, .. } = &mut borrowed {
            let _runtime = self.runtime.enter();
            work(worker, &mut Context::from_waker(waker));
            // What had to wait because the visitor's own budget is used up would be woken when the visitor's scheduler gets to it, if
            // it does.
            if !coop::has_budget_remaining() {
                waker.wake_by_ref();
            }
        }
        Help::Taken
    }

    /// Gives the worker back. A call that came meanwhile is for the task.
    fn give_back(&self, mut worker: Box<Worker>, waker: Waker) {
        let wakes = worker.take_wakes();
        self.put(worker, waker);
        // Who wakes up may want to put it to work.
        wakes.wake();
    }

    fn put(&self, worker: Box<Worker>, waker: Waker) {
        let mut seat = self.lock();
        match mem::replace(&mut *seat, Seat::Closed) {
            // The task is gone, and with it all that the worker is for.
            Seat::Closed => {
                drop(seat);
                drop(worker);
            }
            Seat::Taken(Call::Nobody) => *seat = Seat::Free(worker, waker),
            Seat::Taken(Call::Anybody) => {
                *seat = Seat::Free(worker, waker.clone());
                drop(seat);
                waker.wake();
            }
            Seat::Taken(Call::Task(task)) => {
                *seat = Seat::Free(worker, task.clone());
                drop(seat);
                task.wake();
            }
            // There is one worker.
            free @ Seat::Free(..) => *seat = free,
        }
    }
}

/// A worker that comes back, whatever happens.
struct Borrowed<'a> {
    desk: &'a Desk,
    worker: Option<Box<Worker>>,
    waker: Waker,
}

impl Drop for Borrowed<'_> {
    fn drop(&mut self) {
        if let Some(worker) = self.worker.take() {
            self.desk.give_back(worker, self.waker.clone());
        }
    }
}

/// The task's hold on a worker that sits at its desk.
pub(super) struct Shift {
    shared: Arc<Shared>,
    /// Before it sits down.
    worker: Option<Box<Worker>>,
}

impl Shift {
    pub(super) fn new(mut worker: Box<Worker>) -> Self {
        // What the negotiation has taken, many streams never need again.
        worker.release();
        worker.hang_bell();
        Self { shared: Arc::clone(&worker.shared), worker: Some(worker) }
    }

    /// Works until nothing more is to be done on this bytestream, and gives the worker.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Box<Worker>> {
        let desk = &self.shared.desk;
        let mut worker = match self.worker.take() {
            Some(worker) => {
                *desk.lock() = Seat::Taken(Call::Nobody);
                worker
            }
            None => match self.take(cx) {
                Some(worker) => worker,
                None => return Poll::Pending,
            },
        };
        let over = worker.poll_stream(cx);
        worker.register();
        if over.is_ready() {
            *desk.lock() = Seat::Closed;
            worker.take_wakes().wake();
            return Poll::Ready(worker);
        }
        desk.give_back(worker, cx.waker().clone());
        Poll::Pending
    }

    /// The worker, if nobody has it; if somebody has, the task is woken once it is back.
    fn take(&self, cx: &Context<'_>) -> Option<Box<Worker>> {
        let mut seat = self.shared.desk.lock();
        match mem::replace(&mut *seat, Seat::Closed) {
            Seat::Free(worker, _) => {
                *seat = Seat::Taken(Call::Nobody);
                Some(worker)
            }
            Seat::Taken(_) => {
                *seat = Seat::Taken(Call::Task(cx.waker().clone()));
                None
            }
            Seat::Closed => None,
        }
    }
}

impl Drop for Shift {
    /// The task is done, or its runtime is shutting down.
    fn drop(&mut self) {
        let seat = mem::replace(&mut *self.shared.desk.lock(), Seat::Closed);
        // Not under the lock: it has an end to tell.
        drop(seat);
    }
}
