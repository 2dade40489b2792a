//! The task of a stream: it moves bytes between the bytestream, the codec and the state machine.
//!
//! While the stream is open, one hand-written poll function does it all ([`Worker::poll_stream`]): it
//! writes whatever has accumulated in one go, reads while the inbox has room, and keeps one timer. What
//! comes after both footers or an error is ordinary async code, in `e2e_end.rs`.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};

use futures::{FutureExt as _, future::BoxFuture};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep_until},
};

use super::{
    Path,
    addressing::Introduction,
    decode::{Decoded, Decoder},
    e2e_shared::{Reading, Shared, now},
    machine::{Machine, Role, Setup, cut_off, management::Plan},
    negotiation::{Agenda, Next},
    options::{Session, StreamOptions},
    violation::Violation,
};
use crate::{Error, TransportError};

/// Any bytestream.
pub(super) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Bytes for T {}

/// Bytes per read, and held by each stream for as long as it lives: one TLS record. The decoder takes them in
/// smaller windows.
const READ_BYTES: usize = 16 * 1024;

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
    session_ended: Option<BoxFuture<'static, ()>>,
}

/// Bytes that were read; those from `start` to `end` have yet to be decoded.
pub(super) struct Inbound {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
}

/// Bytes that are being written.
pub(super) struct Outbound {
    buffer: Vec<u8>,
    written: usize,
    /// The count of all bytes ever queued, up to the end of `buffer`.
    mark: u64,
    flush: Flush,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flush {
    NotNeeded,
    Needed,
    /// Done, and not yet told.
    Done,
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

/// What an XML stream has become.
#[derive(Clone, Copy, Debug)]
pub(super) enum Opening {
    Open,
    /// Nothing of it is needed any more.
    Negotiated(Next),
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
        agenda: Agenda,
        nonce: String,
    ) -> Self {
        let setup = Setup {
            role,
            local: options.local.clone(),
            peer: options.peer.clone(),
            introduction: options.introduction,
            timeouts: options.timeouts,
            limits: options.limits,
            nonce,
            channel: options.protection.channel(),
            agenda,
            management: Plan::Off,
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
            outbound: Outbound { buffer: Vec::new(), written: 0, mark: 0, flush: Flush::NotNeeded },
            timer: Timer::new(),
            link: Link::Up,
            options,
        }
    }

    /// Works until the stream is open, or over because something else comes next; `Err` says why neither will be.
    pub(super) fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<Result<Opening, Error>> {
        let over = self.poll_stream(cx).is_ready();
        let outbound = &self.outbound;
        self.shared.with(|inner, _| match (inner.machine.error(), inner.machine.negotiated()) {
            (Some(error), _) => Poll::Ready(Err(error.clone())),
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

    /// Works until nothing more will be read, because both footers or an error came.
    pub(super) fn poll_stream(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        for _ in 0..TURNS {
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

    /// Tells what was written, and takes what there is to write. `None` when the stream is over.
    fn begin_turn(&mut self, cx: &Context<'_>) -> Option<Turn> {
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
            let link_deadline = match link {
                Link::Up => None,
                Link::Down { deadline, .. } => Some(*deadline),
            };
            let deadline = [inner.machine.poll_timeout(), link_deadline].into_iter().flatten().min();
            Some(Turn { reading: inner.reading(), deadline })
        })
    }

    /// Ready when time or the end of the session changed something.
    fn poll_time(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
        if let Some(ended) = &mut self.session_ended
            && ended.poll_unpin(cx).is_ready()
        {
            self.session_ended = None;
            // What was sent before may still be on its way through the bytestream.
            self.link_down(cut_off());
            return Poll::Ready(());
        }
        ready!(self.timer.poll(cx, deadline));
        let now = now();
        let lost = match &self.link {
            Link::Down { error, deadline } if *deadline <= now => Some(self.explain(error.clone())),
            _ => None,
        };
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
        self.shared.with(|inner, _| inner.machine.handle_end(error));
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

impl Inbound {
    fn new(early: &[u8]) -> Self {
        let mut buffer = vec![0; READ_BYTES.max(early.len())].into_boxed_slice();
        if let Some(front) = buffer.get_mut(..early.len()) {
            front.copy_from_slice(early);
        }
        Self { buffer, start: 0, end: early.len() }
    }

    pub(super) fn unread(&self) -> &[u8] {
        self.buffer.get(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    pub(super) fn discard(&mut self) {
        self.start = self.end;
    }

    /// Reads once; to be used when all is decoded.
    pub(super) fn poll_fill(
        &mut self,
        io: &mut Box<dyn Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(&mut self.buffer);
        ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
        let count = buffer.filled().len();
        (self.start, self.end) = (0, count);
        Poll::Ready(Ok(count))
    }
}

impl Outbound {
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
    pub(super) fn exchange(
        &mut self,
        inner: &mut super::e2e_shared::Inner,
        wakes: &mut super::e2e_shared::Wakes,
    ) {
        if self.flush == Flush::Done {
            self.flush = Flush::NotNeeded;
            inner.flushed = self.mark;
            inner.machine.handle_flushed(now());
            inner.wake_flushers(wakes);
        }
        let left = self.unwritten().len();
        if left < inner.unwritten {
            inner.machine.handle_written(now(), inner.unwritten - left, left);
        }
        if self.unwritten().is_empty() {
            self.buffer.clear();
            self.written = 0;
            if inner.machine.outgoing_len() > 0 {
                inner.machine.take_outgoing(&mut self.buffer);
                self.mark = inner.machine.queued();
                self.flush = Flush::Needed;
            }
        }
        inner.unwritten = self.unwritten().len();
        inner.wake_senders(wakes);
    }

    /// Writes all there is; flushes when there was nothing. Ready when it made progress.
    pub(super) fn poll_write(
        &mut self,
        io: &mut Box<dyn Bytes>,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<()>> {
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
struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    fn new() -> Self {
        Self { sleep: None }
    }

    /// Ready when the deadline has passed.
    fn poll(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> Poll<()> {
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
