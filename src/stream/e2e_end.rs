//! How a stream's task ends: after both footers, or after an error.

use std::{future::poll_fn, io, task::Poll, time::Duration};

use futures::future::{self, Either};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::{Instant, timeout, timeout_at},
};
use xmpp_parsers::stanza_error::DefinedCondition;

use super::{
    e2e_buffers::Bytes,
    e2e_bytestream::Kept,
    e2e_desk::Shift,
    e2e_shared::{Intent, now},
    e2e_worker::Worker,
    machine::{CLOSING_BYTES, Closer},
    options::Session,
};
use crate::{Direction, Error, Reason, Step, Timeouts, TransportError};

/// How long whoever did not close the stream leaves it to the other side to end the session.
const COURTESY: Duration = Duration::from_secs(2);

/// How long the session's end is waited for when the bytestream is a socket: the two are rid of each other by then, and
/// there may be no server to say more to.
const FORMALITY: Duration = Duration::from_secs(2);

/// What happened while we waited for the user's decision.
enum Wait {
    Decided(Intent),
    /// The peer closed the bytestream or ended the session.
    PeerLeft,
    /// The peer did neither.
    TimedOut,
}

impl Worker {
    /// Works until everything is over, over as many bytestreams as that takes.
    ///
    /// What comes behind the stream's life is boxed: a future is as large as the largest that it waits for, all its life.
    pub(super) async fn run(mut worker: Box<Self>) {
        loop {
            let mut shift = Shift::new(worker);
            worker = poll_fn(|cx| shift.poll(cx)).await;
            if worker.shared.with(|inner, _| inner.machine.is_over()) {
                return Box::pin(worker.wind_up()).await;
            }
            match Box::pin(worker.revive()).await {
                Some(next) => worker = next,
                None => return,
            }
        }
    }

    /// Both footers or an error are here.
    async fn wind_up(mut self) {
        // First nobody finds it any more, then whoever found it is refused.
        self.registered = None;
        let (closer, error, late) = self.shared.with(|inner, _| {
            (inner.machine.closed_by(), inner.machine.error().cloned(), inner.take_successor())
        });
        if let Some(late) = late {
            late.refuse();
        }
        match (closer, error) {
            (Some(closer), _) => match self.drain().await {
                Ok(()) => self.after_close(closer).await,
                // COMPAT XEP-0247: as printed, whoever ends the stream sends session-terminate right behind its
                // footer, and does not wait for ours.
                Err(error) if has_left(&error) && self.is_all_said() => self.close_all().await,
                Err(error) => self.after_failure(error).await,
            },
            (None, Some(error)) => self.give_up(error).await,
            (None, None) => {}
        }
    }

    /// The end of a stream that failed, or could not be opened.
    pub(super) async fn give_up(mut self, error: Error) {
        // So that the peer learns why; if it does not listen, it does not.
        let _ = timeout(self.options.timeouts.close, self.drain()).await;
        self.after_failure(error).await;
    }

    /// Writes what is left. Each [`CLOSING_BYTES`] have the time of an orderly close: a slow bytestream is no
    /// broken one.
    async fn drain(&mut self) -> Result<(), Error> {
        let limit = self.options.timeouts.close;
        let (mut deadline, mut pieces) = (Instant::now() + limit, 0);
        loop {
            let outbound = &mut self.outbound;
            let left = self.shared.with(|inner, wakes| {
                outbound.exchange(now(), inner, wakes);
                inner.outbox_len()
            });
            if left.div_ceil(CLOSING_BYTES) != pieces {
                (deadline, pieces) = (Instant::now() + limit, left.div_ceil(CLOSING_BYTES));
            }
            let io = &mut self.io;
            // `Pending` for good means that all is written and flushed.
            let step = poll_fn(|cx| match outbound.poll_write(io, cx) {
                Poll::Pending if outbound.is_idle() => Poll::Ready(None),
                other => other.map(Some),
            });
            match timeout_at(deadline, step).await {
                Ok(None) => return Ok(()),
                Ok(Some(Ok(()))) => {}
                Ok(Some(Err(error))) => return Err(self.explain(self.map_io(&error))),
                Err(_) => return Err(self.explain(Error::Timeout(Step::Close, limit))),
            }
        }
    }

    /// Whether the user's stanzas were all written, be it without the footer behind them.
    fn is_all_said(&self) -> bool {
        let written = self.outbound.end_of_written();
        self.shared.with(|inner, _| inner.machine.is_said(written))
    }

    /// All is said: the bytestream and the session end in good order.
    async fn close_all(self) {
        let Self { mut io, shared, session, options, .. } = self;
        end(&mut io, session, &options.timeouts).await;
        shared.with(|inner, wakes| inner.done_as_it_ended(Ok(()), wakes));
    }

    /// Both footers are here, and all is written.
    async fn after_close(mut self, closer: Closer) {
        let limit = self.options.timeouts.close;
        // Whoever closed first ends the session; the other gives it time to.
        let deadline = (closer == Closer::Peer).then(|| Instant::now() + limit);
        let mut wait = self.wait(deadline).await;
        if let (Wait::Decided(Intent::Close), Some(deadline)) = (&wait, deadline) {
            self.inbound.discard();
            wait = self.wait_for_peer(deadline).await;
        }
        // Who wants the bytestream has to know first that not all was acknowledged.
        let is_delivered = self.shared.with(|inner, _| !matches!(inner.machine.outcome(), Some(Err(_))));
        if let (Wait::Decided(Intent::Keep), true) = (&wait, is_delivered) {
            return self.keep();
        }
        if let (Closer::Peer, Wait::PeerLeft) = (closer, wait) {
            self.let_the_peer_end().await;
        }
        self.close_all().await;
    }

    /// The peer's session-terminate follows once its bytestream is closed; ours would only cross it.
    async fn let_the_peer_end(&mut self) {
        if let Some(ended) = self.session.ended() {
            let close = async {
                // That the peer was quicker is no failure.
                let _ = self.io.shutdown().await;
                ended.await;
            };
            let _ = timeout(COURTESY.min(self.options.timeouts.close), close).await;
        }
    }

    /// Waits for the user, the peer or the deadline. Bytes that come meanwhile are a next stream's.
    async fn wait(&mut self, deadline: Option<Instant>) -> Wait {
        let Self { io, shared, session, inbound, .. } = self;
        let mut ended = session.ended().unwrap_or_else(|| Box::pin(future::pending()));
        let mut late = Box::pin(sleep_until(deadline));
        poll_fn(|cx| {
            let intent = shared.with(|inner, _| {
                inner.register_worker(cx);
                inner.intent
            });
            if intent != Intent::Undecided {
                return Poll::Ready(Wait::Decided(intent));
            }
            let left = matches!(inbound.poll_bytes(io, cx), Poll::Ready(Ok([]) | Err(_)));
            if left || ended.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Wait::PeerLeft);
            }
            late.as_mut().poll(cx).map(|()| Wait::TimedOut)
        })
        .await
    }

    /// Waits for the peer to close the bytestream or to end the session.
    async fn wait_for_peer(&mut self, deadline: Instant) -> Wait {
        let ended = self.session.ended().unwrap_or_else(|| Box::pin(future::pending()));
        let closed = Box::pin(discard(&mut self.io));
        match timeout_at(deadline, future::select(ended, closed)).await {
            Ok(Either::Left(_) | Either::Right(_)) => Wait::PeerLeft,
            Err(_) => Wait::TimedOut,
        }
    }

    /// Leaves the bytestream to the user.
    fn keep(self) {
        let Self { io, shared, session, role, options, inbound, .. } = self;
        let early = inbound.into_early();
        let kept = Box::new(Kept { io, early, session, role, options });
        let unwanted = shared.with(|inner, wakes| {
            // The user may have let go of the stream meanwhile.
            if inner.intent != Intent::Keep {
                inner.done(Ok(()), wakes);
                return Some(kept);
            }
            inner.keep(kept, wakes);
            None
        });
        if let Some(kept) = unwanted {
            kept.end_in_background();
        }
    }

    async fn after_failure(self, error: Error) {
        let Self { mut io, shared, mut session, options, .. } = self;
        let limit = options.timeouts.close;
        let _ = timeout(limit, io.shutdown()).await;
        let is_awaited = shared.with(|inner, _| inner.machine.is_awaited());
        session.terminate(parting_reason(&error, is_awaited), error.peer_text());
        let told = is_told(&error);
        shared.with(|inner, wakes| inner.done_as_it_ended(Err(error), wakes));
        if told {
            // Closing a socket with unread bytes makes the peer's system drop our stream error.
            let _ = timeout(limit, discard(&mut io)).await;
        }
    }
}

/// Whether the peer was sent a stream error for it.
fn is_told(error: &Error) -> bool {
    match error {
        Error::Stream(failure) => failure.direction == Direction::Sent,
        Error::PeerIncompatible(_) | Error::PeerMisbehaved(_) | Error::Security(_) => true,
        Error::Undelivered(undelivered) => undelivered.cause().is_some_and(is_told),
        _ => false,
    }
}

/// Why the session of a stream ends that has failed. What would say that no more than the way was lost is not for a peer that
/// waits then.
fn parting_reason(error: &Error, is_awaited: bool) -> Reason {
    match error.reason() {
        Reason::ConnectivityError | Reason::FailedTransport | Reason::Timeout if is_awaited => Reason::Gone,
        reason => reason,
    }
}

/// Whether an error says no more than that the peer closed the bytestream or ended the session. Behind its
/// footer it may.
fn has_left(error: &Error) -> bool {
    match error {
        // XEP-0247 prints a session-terminate without a reason.
        Error::Terminated(why) => why.reason == Reason::Success || why.reason == Reason::Other(String::new()),
        Error::Transport(TransportError::Closed) => true,
        Error::Transport(TransportError::Io(error)) => matches!(
            error.kind(),
            io::ErrorKind::BrokenPipe
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::NotConnected
                | io::ErrorKind::WriteZero
        ),
        // XEP-0047 #send: the peer does not know the in-band bytestream any more.
        Error::Transport(TransportError::Refused(error)) => {
            error.defined_condition == DefinedCondition::ItemNotFound
        }
        _ => false,
    }
}

/// Closes a bytestream and the session that carries it, in good order.
pub(super) async fn end(io: &mut Box<dyn Bytes>, mut session: Session, timeouts: &Timeouts) {
    // Both sides have said goodbye: that the peer was quicker is no failure.
    let _ = timeout(timeouts.close, io.shutdown()).await;
    let patience = if session.is_on_socket() { FORMALITY } else { timeouts.close };
    session.terminate(Reason::Success, None);
    if let Some(ended) = session.ended() {
        let _ = timeout(patience.min(timeouts.close), ended).await;
    }
}

/// Reads until the bytestream ends.
async fn discard(io: &mut Box<dyn Bytes>) -> io::Result<()> {
    let mut buffer = vec![0; 8 * 1024];
    while io.read(&mut buffer).await? > 0 {}
    Ok(())
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_task_of_a_stream_is_no_larger_than_its_life_needs() {
        fn size_of_future<F: Future>(_: impl FnOnce(Box<Worker>) -> F) -> usize {
            size_of::<F>()
        }
        let size = size_of_future(Worker::run);
        assert!(size <= 64, "{size} bytes for each idle stream");
    }
}
