//! A stream between two bytestreams: how it leaves the one and finds the next.
//!
//! ```text
//!                        ┌── initiator: connects again, with back-off ──┐
//! Worker ──lost──► Adrift┤                                              ├─► Worker, of the same stream
//!                        └── responder: waits for a successor ──────────┘
//!                                      too late, refused ──► the stream is over
//! ```
//!
//! The stream's own task does it all, between two turns: no byte of the old bytestream reaches a machine that has a new one.

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use aws_lc_rs::rand;
use futures::channel::oneshot;
use tokio::{
    io::AsyncWriteExt as _,
    time::{sleep, timeout},
};
use xmpp_parsers::stream_error::{DefinedCondition, StreamError};

use super::{
    backoff::Backoff,
    e2e_buffers::{Bytes, Timer},
    e2e_resume::{Goal, Reconnect, Reconnected, Registry, Resumable, Revival},
    e2e_shared::{Fresh, Shared, now},
    e2e_worker::Worker,
    encode::Encoder,
    machine::cut_off,
    options::{Protection, StreamOptions},
};
use crate::{ApiMisuse, Error, NotResumed, Reason, Terminated, security::Certificate};

/// Bytes behind which a bytestream that is left is still told why: a stream error can only follow what was begun. With more of
/// them its other end does not read; to keep them would let a peer that comes back again and again fill the memory.
const FAREWELL_BYTES: usize = 64 * 1024;

/// A bytestream on which the initiator asked to carry on a stream, for that stream's task.
pub(super) struct Successor {
    worker: Box<Worker>,
    told: oneshot::Sender<Result<(), Error>>,
}

impl Successor {
    /// The receiver learns what became of it.
    pub(super) fn new(worker: Box<Worker>) -> (Self, oneshot::Receiver<Result<(), Error>>) {
        let (told, result) = oneshot::channel();
        (Self { worker, told }, result)
    }

    /// There is no such stream.
    pub(super) fn refuse(self) {
        let error = unknown();
        self.worker.refuse_resumption(error.clone());
        // Nobody may wait any more.
        let _ = self.told.send(Err(error));
    }
}

/// A responder's stream is found by its initiator while this lives.
pub(super) struct Registered {
    registry: Arc<dyn Registry>,
    id: String,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.registry.remove(&self.id);
    }
}

/// A stream that was carried on, and whom to tell.
struct Carried {
    worker: Box<Worker>,
    told: Option<oneshot::Sender<Result<(), Error>>>,
}

/// What is left of a stream without its bytestream.
struct Adrift {
    shared: Arc<Shared>,
    options: StreamOptions,
    certificate: Option<Certificate>,
    registered: Option<Registered>,
    timer: Timer,
    backoff: Backoff,
    /// To be waited for before the first attempt.
    pause: Option<Duration>,
}

/// The last time that the stream got another bytestream.
pub(super) struct Recovery {
    at: Instant,
    backoff: Backoff,
}

impl Recovery {
    /// How to go about the next one, and how long to wait before: a bytestream that broke as soon as it was there is no better
    /// than an attempt that failed, and somebody on the way can make that happen again and again.
    fn pace(last: Option<Self>) -> (Backoff, Option<Duration>) {
        match last {
            None => (Backoff::new(seed()), None),
            Some(Self { at, mut backoff }) => {
                let pause = backoff.wait_after(now().saturating_duration_since(at));
                (backoff, pause)
            }
        }
    }
}

/// What waiting ended with.
enum Wait<T> {
    Done(T),
    /// The stream is over.
    Over,
    /// It took too long.
    TimedOut,
}

/// What the initiator is after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    Resume,
    /// The peer has forgotten the stream.
    Renew,
}

impl Worker {
    /// Lets the initiator find the stream, once it was told what it is called.
    pub(super) fn register(&mut self) {
        if self.registered.is_some() {
            return;
        }
        let (Revival::Responder(registry), Some(certificate)) = (&self.options.revival, &self.certificate)
        else {
            return;
        };
        let id = self.shared.with(|inner, _| inner.machine.resumption_id().map(str::to_owned));
        if let Some(id) = id {
            let stream = Resumable { shared: Arc::downgrade(&self.shared), certificate: certificate.clone() };
            registry.add(&id, stream);
            self.registered = Some(Registered { registry: Arc::clone(registry), id });
        }
    }

    /// Leaves the bytestream, and goes on over another one; `None` if the stream is over instead.
    pub(super) async fn revive(self) -> Option<Box<Self>> {
        let mut adrift = self.leave();
        let carried = match adrift.options.revival.clone() {
            Revival::Initiator(reconnect) => adrift.reconnect(&*reconnect).await,
            Revival::Responder(_) => adrift.await_successor().await,
            Revival::None => {
                adrift.give_up(unknown());
                None
            }
        };
        let Some(Carried { worker, told }) = carried else {
            adrift.end();
            return None;
        };
        if let Some(told) = told {
            // Nobody may wait any more.
            let _ = told.send(Ok(()));
        }
        Some(worker)
    }

    /// The bytestream is lost, or no longer needed: the session ends, so that the peer notices too.
    fn leave(self) -> Adrift {
        let Self { io, shared, mut session, options, outbound, certificate, registered, recovery, .. } = self;
        let farewell = shared.with(|inner, wakes| {
            let is_used = inner.machine.suspension().is_none();
            if !inner.machine.is_adrift() {
                // The peer lost it, and we did not notice, or it stood still.
                inner.machine.handle_end(cut_off());
            }
            inner.lose(wakes);
            let unwritten = outbound.unwritten();
            (is_used && unwritten.len() <= FAREWELL_BYTES).then(|| [unwritten, &conflict()].concat())
        });
        let (backoff, pause) = Recovery::pace(recovery);
        session.terminate(Reason::ConnectivityError, None);
        tokio::spawn(shut_down(io, farewell, options.timeouts.close));
        Adrift { shared, options, certificate, registered, timer: Timer::new(), backoff, pause }
    }

    /// The peer asks to carry on a stream that is not here.
    pub(super) fn refuse_resumption(self, error: Error) {
        self.shared.with(|inner, _| inner.machine.refuse_resumption(now()));
        tokio::spawn(self.give_up(error));
    }
}

impl Adrift {
    /// Connects until one attempt succeeds, or none can.
    async fn reconnect(&mut self, reconnect: &dyn Reconnect) -> Option<Carried> {
        let (mut aim, mut last) = (Aim::Resume, None);
        if let Some(pause) = self.pause.take() {
            self.rest(pause, None).await?;
        }
        loop {
            let error = match self.attempt(reconnect, aim).await {
                Wait::Done(Ok(worker)) => return Some(Carried { worker, told: None }),
                Wait::Done(Err(error)) => error,
                Wait::Over => return None,
                Wait::TimedOut => {
                    self.give_up_in_time(last);
                    return None;
                }
            };
            if is_final(&error, aim) {
                if aim == Aim::Renew || !self.may_renew() {
                    self.give_up(error);
                    return None;
                }
                tracing::warn!(%error, "the peer has forgotten the stream, and gets a new one");
                (aim, self.backoff) = (Aim::Renew, Backoff::new(seed()));
                continue;
            }
            let wait = self.backoff.wait();
            tracing::info!(%error, ?wait, "the stream can't go on yet");
            last = Some(error);
            self.rest(wait, last.clone()).await?;
        }
    }

    /// `None` if the stream is over before that.
    async fn rest(&mut self, time: Duration, last: Option<Error>) -> Option<()> {
        match self.meanwhile(sleep(time)).await {
            Wait::Done(()) => Some(()),
            Wait::Over => None,
            Wait::TimedOut => {
                self.give_up_in_time(last);
                None
            }
        }
    }

    async fn attempt(&mut self, reconnect: &dyn Reconnect, aim: Aim) -> Wait<Result<Box<Worker>, Error>> {
        let request = self.shared.with(|inner, _| inner.machine.resume_request());
        let (Some(request), Some(certificate)) = (request, self.certificate.clone()) else {
            return Wait::Done(Err(unknown()));
        };
        let goal = match aim {
            Aim::Renew => Goal::Renew(certificate),
            Aim::Resume => Goal::Resume(request, certificate),
        };
        match self.meanwhile(reconnect.reconnect(goal)).await {
            Wait::Done(Ok(Reconnected { worker })) => match aim {
                Aim::Resume => self.go_on(worker),
                Aim::Renew => self.begin_anew(worker),
            },
            Wait::Done(Err(error)) => Wait::Done(Err(error)),
            Wait::Over => Wait::Over,
            Wait::TimedOut => Wait::TimedOut,
        }
    }

    /// Waits for the initiator to come back.
    async fn await_successor(&mut self) -> Option<Carried> {
        loop {
            let shared = Arc::clone(&self.shared);
            let successor = poll_fn(|_| match shared.with(|inner, _| inner.take_successor()) {
                Some(successor) => Poll::Ready(successor),
                None => Poll::Pending,
            });
            let Successor { worker, told } = match self.meanwhile(successor).await {
                Wait::Done(successor) => successor,
                Wait::Over => return None,
                Wait::TimedOut => {
                    self.give_up_in_time(None);
                    return None;
                }
            };
            match self.go_on(worker) {
                Wait::Done(Ok(worker)) => return Some(Carried { worker, told: Some(told) }),
                Wait::Done(Err(error)) => drop(told.send(Err(error))),
                Wait::Over | Wait::TimedOut => {
                    // Nobody may wait any more.
                    let _ = told.send(Err(unknown()));
                    return None;
                }
            }
        }
    }

    /// Goes on where the stream was.
    fn go_on(&mut self, mut worker: Box<Worker>) -> Wait<Result<Box<Worker>, Error>> {
        let fresh = match self.take_over(&mut worker) {
            Ok(fresh) => fresh,
            Err(error) => return Wait::Done(Err(error)),
        };
        let adopted = self.shared.with(|inner, wakes| {
            let adopted = inner.adopt(fresh, &mut worker.outbound, wakes);
            adopted.map_err(|failed| (failed, inner.machine.is_over()))
        });
        match adopted {
            Ok(()) => Wait::Done(Ok(self.hand_on(worker))),
            Err((failed, is_over)) => {
                let error = failed.error().cloned().unwrap_or_else(unknown);
                worker.shared = Shared::new(*failed, worker.options.limits.outbox_bytes);
                // Telling the peer may take a while.
                tokio::spawn(worker.give_up(error.clone()));
                if is_over { Wait::Over } else { Wait::Done(Err(error)) }
            }
        }
    }

    /// Goes on with a new stream, with the same peer.
    fn begin_anew(&mut self, mut worker: Box<Worker>) -> Wait<Result<Box<Worker>, Error>> {
        let fresh = match self.take_over(&mut worker) {
            Ok(fresh) => fresh,
            Err(error) => return Wait::Done(Err(error)),
        };
        let remote = worker.options.protection.settled();
        let unwanted = self.shared.with(|inner, wakes| {
            // The user may have let go of it, or of what is handed back, since it was begun.
            if inner.machine.is_over() || !inner.wants_more() || !inner.is_watched() {
                inner.machine.give_up(unknown());
                inner.wake_all(wakes);
                return Some(fresh);
            }
            inner.remote = remote;
            inner.begin_anew(fresh, &mut worker.outbound, wakes);
            None
        });
        let Some(Fresh { mut machine, .. }) = unwanted else {
            return Wait::Done(Ok(self.hand_on(worker)));
        };
        machine.close(now());
        worker.shared = Shared::new(machine, worker.options.limits.outbox_bytes);
        tokio::spawn(worker.give_up(unknown()));
        Wait::Over
    }

    /// Puts the worker to this stream, and gives what it worked for and what carries it.
    fn take_over(&self, worker: &mut Worker) -> Result<Fresh, Error> {
        let fresh = std::mem::replace(&mut worker.shared, Arc::clone(&self.shared));
        let machine = Shared::into_machine(fresh).ok_or(ApiMisuse::StreamClosed)?;
        Ok(Fresh { machine, carrier: worker.session.carrier(), transport: worker.session.transport() })
    }

    /// The worker goes on with all that outlives a bytestream.
    fn hand_on(&mut self, mut worker: Box<Worker>) -> Box<Worker> {
        let options = &self.options;
        worker.options.revival = options.revival.clone();
        worker.options.sm = options.sm;
        // Who the peer is was settled once.
        if let Some(remote) = self.shared.with(|inner, _| inner.remote.clone()) {
            worker.options.protection = Protection::Settled(remote);
        }
        worker.certificate = self.certificate.clone();
        worker.registered = self.registered.take();
        let backoff = std::mem::replace(&mut self.backoff, Backoff::new(seed()));
        worker.recovery = Some(Recovery { at: now(), backoff });
        worker
    }

    /// Waits for something for as long as the stream may wait.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> Wait<T> {
        let mut work = pin!(work);
        poll_fn(|cx| {
            let Some((until, deadline)) = self.look(cx) else { return Poll::Ready(Wait::Over) };
            if let Poll::Ready(done) = work.as_mut().poll(cx) {
                return Poll::Ready(Wait::Done(done));
            }
            ready!(self.timer.poll(cx, Some(deadline)));
            let now = now();
            if until <= now {
                return Poll::Ready(Wait::TimedOut);
            }
            self.shared.with(|inner, _| inner.machine.handle_timeout(now));
            // It has another deadline now.
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Until when the stream may wait, and when there is something to do; `None` when it is over.
    fn look(&self, cx: &Context<'_>) -> Option<(Instant, Instant)> {
        self.shared.with(|inner, wakes| {
            inner.register_worker(cx);
            if inner.machine.is_over() {
                inner.wake_all(wakes);
            }
            let until = inner.machine.suspension()?.until;
            let deadline = inner.machine.poll_timeout().map_or(until, |deadline| until.min(deadline));
            Some((until, deadline))
        })
    }

    /// Only where the user allowed it, goes on to use it, and sees what is handed back.
    fn may_renew(&self) -> bool {
        self.options.sm.renew && self.shared.with(|inner, _| inner.wants_more() && inner.is_watched())
    }

    /// The last attempt says more than that there is no time for another one.
    fn give_up_in_time(&self, last: Option<Error>) {
        match last {
            Some(last) => self.give_up(last),
            None => self.shared.with(|inner, _| inner.machine.handle_timeout(now())),
        }
    }

    fn give_up(&self, why: Error) {
        self.shared.with(|inner, _| inner.machine.give_up(why));
    }

    /// The stream is over, and there is nobody to say it to.
    fn end(&mut self) {
        // First nobody finds it any more, then whoever found it is refused.
        self.registered = None;
        let late = self.shared.with(|inner, wakes| {
            if !inner.machine.is_over() {
                inner.machine.give_up(unknown());
            }
            inner.done_as_it_ended(Err(unknown()), wakes);
            inner.take_successor()
        });
        if let Some(late) = late {
            late.refuse();
        }
    }
}

/// Trying again would give the same.
fn is_final(error: &Error, aim: Aim) -> bool {
    match (error, aim) {
        (Error::NotResumed(_), _) => true,
        (Error::Terminated(why), Aim::Resume) => why.reason == Reason::Expired,
        // The peer's user was asked, and should not be asked every few seconds.
        (Error::Terminated(why), Aim::Renew) => why.reason == Reason::Decline,
        _ => false,
    }
}

/// The stream that was asked for is not here.
pub(super) fn unknown() -> Error {
    let why = Terminated::new(Reason::Expired, None).into();
    Error::NotResumed(NotResumed { lost: Arc::new(cut_off()), why: Arc::new(why) })
}

/// RFC 6120 §4.9.3.3: another connection has taken the place of this one.
fn conflict() -> Vec<u8> {
    let (mut encoder, mut bytes) = (Encoder::new(), Vec::new());
    let error =
        StreamError::new(DefinedCondition::Conflict, "en", "the stream goes on over another bytestream");
    match encoder.stream_error(&error, &mut bytes) {
        Ok(()) => encoder.footer(&mut bytes),
        Err(error) => tracing::debug!(error, "a stream error can't be sent"),
    }
    bytes
}

/// Says what is left to say, and closes. Whether anybody listens is not known.
async fn shut_down(mut io: Box<dyn Bytes>, farewell: Option<Vec<u8>>, limit: Duration) {
    let close = async {
        if let Some(farewell) = farewell {
            io.write_all(&farewell).await?;
            io.flush().await?;
        }
        io.shutdown().await
    };
    let _ = timeout(limit, close).await;
}

/// Without random numbers, streams that are lost together come back together.
fn seed() -> u64 {
    let mut bytes = [0; 8];
    match rand::fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}
