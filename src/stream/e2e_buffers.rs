//! Bytes between a stream's task and its bytestream, and the task's clock.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::FutureExt as _;
use tokio::{
    io::{AsyncBufRead, AsyncRead, AsyncWrite, BufReader},
    task::coop,
    time::{Sleep, sleep_until},
};

use super::e2e_shared::{Inner, Wakes};

/// Any bytestream that has read more than was asked for, as TLS has: so it needs no buffer here, and no copy.
pub(crate) trait Bytes: AsyncBufRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncBufRead + AsyncWrite + Send + Unpin + 'static> Bytes for T {}

/// Bytes per read of a bytestream that has no buffer of its own, as many as in a TLS record.
const READ_BYTES: usize = 16 * 1024;

/// Makes one of any other bytestream.
pub(crate) fn buffered<IO: AsyncRead>(io: IO) -> BufReader<IO> {
    BufReader::with_capacity(READ_BYTES, io)
}

/// What is read next.
pub(super) struct Inbound {
    /// What was read before, and comes first.
    early: Vec<u8>,
    /// Bytes in the last piece.
    last: usize,
    /// And how many of these were not taken.
    rest: usize,
}

/// Bytes in a read behind which more are likely to be there.
const BUSY: usize = 4 * 1024;

/// Bytes of an empty buffer that are kept while nothing is said: room for a few stanzas.
pub(super) const IDLE_BYTES: usize = 1024;

/// Bytes that are being written.
pub(super) struct Outbound {
    buffer: Vec<u8>,
    written: usize,
    /// The count of all bytes ever queued, up to the end of `buffer`.
    mark: u64,
    flush: Flush,
    taking: Taking,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    NotNeeded,
    Needed,
    /// Done, and not yet told.
    Done,
}

/// What the bytestream did with the last write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taking {
    Freely,
    /// It took nothing.
    Blocked,
    /// It took something after it had taken nothing, which shows that the other end lives; that is not yet told.
    Again,
}

impl Inbound {
    pub(super) fn new(early: &[u8]) -> Self {
        Self { early: early.to_vec(), last: 0, rest: 0 }
    }

    /// What was read before, and has not been taken. The bytestream has the rest.
    pub(super) fn into_early(self) -> Vec<u8> {
        self.early
    }

    /// Whether there is more behind what was taken of the last piece, or may be, because it had so many bytes.
    pub(super) fn is_busy(&self) -> bool {
        self.rest > 0 || self.last >= BUSY
    }

    /// The bytes that come next, none at the end. They come again until they are consumed.
    pub(super) fn poll_bytes<'a>(
        &'a mut self,
        io: &'a mut Box<dyn Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<&'a [u8]>> {
        let bytes = match self.early.is_empty() {
            true => ready!(Pin::new(io).poll_fill_buf(cx))?,
            false => &self.early,
        };
        self.last = bytes.len();
        Poll::Ready(Ok(bytes))
    }

    /// So many of these were taken.
    pub(super) fn consume(&mut self, io: &mut Box<dyn Bytes>, count: usize) {
        self.rest = self.last.saturating_sub(count);
        if self.early.is_empty() {
            Pin::new(io).consume(count);
        } else {
            self.early.drain(..count.min(self.early.len()));
        }
    }

    pub(super) fn discard(&mut self) {
        (self.early, self.rest) = (Vec::new(), 0);
    }
}

impl Outbound {
    pub(super) fn new() -> Self {
        Self { buffer: Vec::new(), written: 0, mark: 0, flush: Flush::NotNeeded, taking: Taking::Freely }
    }

    pub(super) fn unwritten(&self) -> &[u8] {
        self.buffer.get(self.written..).unwrap_or_default()
    }

    /// Bytes that were written, of all that were ever queued.
    pub(super) fn end_of_written(&self) -> u64 {
        self.mark.saturating_sub(self.unwritten().len() as u64)
    }

    /// All is written and flushed.
    pub(super) fn is_idle(&self) -> bool {
        self.unwritten().is_empty() && self.flush == Flush::NotNeeded
    }

    /// Tells what was written, and takes what there is to write once all before it is.
    pub(super) fn exchange(&mut self, now: Instant, inner: &mut Inner, wakes: &mut Wakes) {
        if self.taking == Taking::Again {
            self.taking = Taking::Freely;
            inner.machine.handle_alive(now);
        }
        if self.flush == Flush::Done {
            self.flush = Flush::NotNeeded;
            inner.flushed = self.mark;
            inner.machine.handle_flushed(now);
            inner.wake_flushers(wakes);
        }
        let left = self.unwritten().len();
        if left < inner.unwritten {
            inner.machine.handle_written(now, inner.unwritten - left, left);
        }
        if self.unwritten().is_empty() {
            self.buffer.clear();
            self.written = 0;
            if inner.machine.outgoing_len() > 0 {
                inner.machine.take_outgoing(&mut self.buffer);
                self.mark = inner.machine.queued();
                self.flush = Flush::Needed;
                inner.taken_at = now;
            }
        }
        inner.unwritten = self.unwritten().len();
        inner.wake_senders(wakes);
    }

    /// Gives memory back that is not needed while nothing is said.
    pub(super) fn release(&mut self) {
        self.buffer.shrink_to(IDLE_BYTES);
    }

    /// What is here was queued by another machine than the one that goes on. Of hers, so many were flushed, and nothing of the
    /// rest was taken; so many were ever queued, and so many wait.
    pub(super) fn rebase(&mut self, flushed: u64, queued: u64, waiting: usize) {
        if waiting > 0 {
            self.mark = flushed;
        } else {
            // The peer has all that was ever said, perhaps without our having seen it leave.
            self.mark = queued;
            self.flush = Flush::Needed;
        }
    }

    /// Writes all there is; flushes when there was nothing. Ready when it made progress.
    pub(super) fn poll_write(
        &mut self,
        io: &mut Box<dyn Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
        let progress = self.poll_progress(io, cx);
        self.taking = match (&progress, self.taking) {
            // Whoever has no budget left has not been told anything about the bytestream.
            (Poll::Pending, Taking::Freely) if !self.is_idle() && coop::has_budget_remaining() => {
                Taking::Blocked
            }
            (Poll::Ready(Ok(())), Taking::Blocked) => Taking::Again,
            (_, taking) => taking,
        };
        progress
    }

    fn poll_progress(&mut self, io: &mut Box<dyn Bytes>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unwritten().is_empty() {
            if self.flush != Flush::Needed {
                return Poll::Pending;
            }
            ready!(Pin::new(io).poll_flush(cx))?;
            self.flush = Flush::Done;
            return Poll::Ready(Ok(()));
        }
        let before = self.written;
        while !self.unwritten().is_empty() {
            match Pin::new(&mut *io).poll_write(cx, self.unwritten()) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(count)) => self.written += count,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if self.written == before => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// One timer for all deadlines. They mostly move away, so it may fire too early; then it is set anew.
pub(super) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(super) fn new() -> Self {
        Self { sleep: None }
    }

    /// Whether this deadline will not pass unnoticed.
    pub(super) fn is_set_for(&self, deadline: Option<Instant>) -> bool {
        match (&self.sleep, deadline) {
            (_, None) => true,
            (Some(sleep), Some(deadline)) => sleep.deadline().into_std() <= deadline,
            (None, Some(_)) => false,
        }
    }

    /// Ready when the deadline has passed.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        let Some(deadline) = deadline.map(tokio::time::Instant::from_std) else {
            return Poll::Pending;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll_unpin(cx));
            if sleep.deadline() >= deadline {
                // For the next deadline it has to be later.
                self.sleep = None;
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }
}
