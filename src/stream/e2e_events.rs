//! What happens to a stream while it lives.

use std::{
    collections::VecDeque,
    fmt, mem,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use futures::Stream;

use crate::{Error, TransportInfo, Undelivered, wakers::remember};

/// Events that are kept for a subscriber who does not look. They are a few hundred bytes each, and one of a lost stream
/// comes no more often than bytestreams can be opened.
const KEPT: usize = 64;

/// The bytestream under a stream was lost, or is there again; see [`E2eStream::events`](super::E2eStream::events).
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StreamEvent {
    /// Nothing gets through, for this reason: `send` waits. The stream looks for another way.
    Suspended(Error),
    /// It goes on where it was, over this transport.
    Resumed(Option<TransportInfo>),
    /// The peer had forgotten the stream, and a new one took its place ([`SmConfig::renew`](crate::SmConfig::renew)). What waits
    /// to be sent goes out once somebody has seen this. Nobody else has the stanzas: who looks at nothing for 64 events, or drops
    /// its [`StreamEvents`] without having looked, loses them.
    #[non_exhaustive]
    Renewed {
        /// What carries it.
        transport: Option<TransportInfo>,
        /// What the peer had not acknowledged, the oldest first. None of it was sent again.
        undelivered: Undelivered,
    },
}

/// What happens to a stream; see [`E2eStream::events`](super::E2eStream::events). It does not keep the stream up, and ends
/// with it.
///
/// It shows everything that happened since it was made. Of what was not looked at, the last 64 events are kept; those before are
/// skipped.
pub struct StreamEvents {
    log: Arc<Log>,
    /// How many events there were before the next one to be seen.
    position: u64,
}

impl Stream for StreamEvents {
    type Item = StreamEvent;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        let (next, position, released) = self.log.poll(self.position, cx);
        self.position = position;
        released.into_iter().for_each(Waker::wake);
        next
    }
}

impl Drop for StreamEvents {
    fn drop(&mut self) {
        let released = self.log.with(|entries| {
            entries.subscribers = entries.subscribers.saturating_sub(1);
            if entries.subscribers > 0 {
                return Vec::new();
            }
            entries.forget();
            entries.release()
        });
        released.into_iter().for_each(Waker::wake);
    }
}

impl fmt::Debug for StreamEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamEvents").field("position", &self.position).finish_non_exhaustive()
    }
}

/// Where a stream writes down what happens to it. Dropping it ends what its subscribers see.
pub(super) struct EventLog {
    log: Arc<Log>,
}

struct Log(Mutex<Entries>);

struct Entries {
    kept: VecDeque<StreamEvent>,
    /// How many there were before those.
    forgotten: u64,
    /// Without one, nothing is kept.
    subscribers: usize,
    outlook: Outlook,
    waiting: Vec<Waker>,
    /// Those who may not go on before this event was seen.
    held: Option<(u64, Vec<Waker>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outlook {
    Open,
    /// Nothing more will happen.
    Over,
}

impl EventLog {
    pub(super) fn new() -> Self {
        let entries = Entries {
            kept: VecDeque::new(),
            forgotten: 0,
            subscribers: 0,
            outlook: Outlook::Open,
            waiting: Vec::new(),
            held: None,
        };
        Self { log: Arc::new(Log(Mutex::new(entries))) }
    }

    /// Somebody who sees what happens from now on.
    pub(super) fn subscribe(&self) -> StreamEvents {
        let position = self.log.with(|entries| {
            entries.subscribers += 1;
            entries.forgotten + entries.kept.len() as u64
        });
        StreamEvents { log: Arc::clone(&self.log), position }
    }

    /// Whether somebody looks.
    pub(super) fn is_watched(&self) -> bool {
        self.log.with(|entries| entries.subscribers > 0)
    }

    /// Whoever asks [`Self::poll_seen`] waits until the last event was seen.
    pub(super) fn hold(&self) {
        self.log.with(|entries| {
            let last = (entries.forgotten + entries.kept.len() as u64).checked_sub(1);
            entries.held = last.map(|last| (last, Vec::new()));
        });
    }

    /// Ready when somebody has seen the event that was to be seen first, or nobody will.
    pub(super) fn poll_seen(&self, cx: &Context<'_>) -> Poll<()> {
        self.log.with(|entries| match &mut entries.held {
            Some((_, waiting)) if entries.subscribers > 0 => {
                remember(waiting, cx.waker());
                Poll::Pending
            }
            _ => Poll::Ready(()),
        })
    }

    /// Writes it down; gives whom to wake.
    pub(super) fn push(&self, event: StreamEvent) -> Vec<Waker> {
        self.log.with(|entries| {
            if entries.outlook == Outlook::Open && entries.subscribers > 0 {
                if entries.kept.len() >= KEPT {
                    entries.kept.pop_front();
                    entries.forgotten += 1;
                }
                entries.kept.push_back(event);
            }
            mem::take(&mut entries.waiting)
        })
    }

    /// The stream is over; gives whom to wake.
    pub(super) fn end(&self) -> Vec<Waker> {
        self.log.with(|entries| {
            entries.outlook = Outlook::Over;
            mem::take(&mut entries.waiting)
        })
    }
}

impl Drop for EventLog {
    fn drop(&mut self) {
        for waker in self.end() {
            waker.wake();
        }
    }
}

impl Log {
    fn with<R>(&self, f: impl FnOnce(&mut Entries) -> R) -> R {
        let mut entries: MutexGuard<'_, Entries> = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut entries)
    }

    /// The event at this position, the next position, and who was waiting for it to be seen.
    fn poll(&self, position: u64, cx: &Context<'_>) -> (Poll<Option<StreamEvent>>, u64, Vec<Waker>) {
        self.with(|entries| {
            let position = position.max(entries.forgotten);
            let index = usize::try_from(position - entries.forgotten).unwrap_or(usize::MAX);
            match (entries.kept.get(index), entries.outlook) {
                (Some(event), _) => {
                    let event = event.clone();
                    let is_awaited = entries.held.as_ref().is_some_and(|(awaited, _)| *awaited <= position);
                    let released = if is_awaited { entries.release() } else { Vec::new() };
                    (Poll::Ready(Some(event)), position + 1, released)
                }
                (None, Outlook::Over) => (Poll::Ready(None), position, Vec::new()),
                (None, Outlook::Open) => {
                    remember(&mut entries.waiting, cx.waker());
                    (Poll::Pending, position, Vec::new())
                }
            }
        })
    }
}

impl Entries {
    /// Nobody need wait any more; gives whom to wake.
    fn release(&mut self) -> Vec<Waker> {
        self.held.take().map(|(_, waiting)| waiting).unwrap_or_default()
    }

    /// Nobody will look at what was kept: undelivered stanzas may be large.
    fn forget(&mut self) {
        self.forgotten += self.kept.len() as u64;
        self.kept.clear();
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::ApiMisuse;

    fn resumed() -> StreamEvent {
        StreamEvent::Resumed(None)
    }

    fn suspended() -> StreamEvent {
        StreamEvent::Suspended(ApiMisuse::StreamClosed.into())
    }

    fn seen(events: &mut StreamEvents) -> Vec<&'static str> {
        let mut seen = Vec::new();
        while let Some(event) = events.next().now_or_never() {
            match event {
                Some(StreamEvent::Suspended(_)) => seen.push("suspended"),
                Some(StreamEvent::Resumed(_)) => seen.push("resumed"),
                Some(StreamEvent::Renewed { .. }) => seen.push("renewed"),
                None => {
                    seen.push("over");
                    break;
                }
            }
        }
        seen
    }

    #[test]
    fn each_subscriber_sees_everything_since_it_subscribed() {
        let log = EventLog::new();
        log.push(suspended());
        let mut early = log.subscribe();
        log.push(resumed());
        let mut late = log.subscribe();
        log.push(suspended());
        assert_eq!(seen(&mut early), ["resumed", "suspended"]);
        assert_eq!(seen(&mut late), ["suspended"]);
        assert!(seen(&mut late).is_empty());
    }

    #[test]
    fn it_ends_with_the_stream_behind_what_was_not_seen_yet() {
        let log = EventLog::new();
        let mut events = log.subscribe();
        log.push(suspended());
        drop(log);
        assert_eq!(seen(&mut events), ["suspended", "over"]);
        assert_eq!(seen(&mut events), ["over"]);
    }

    #[test]
    fn who_does_not_look_misses_the_oldest() {
        let log = EventLog::new();
        let mut events = log.subscribe();
        log.push(suspended());
        for _ in 0..KEPT {
            log.push(resumed());
        }
        assert_eq!(seen(&mut events), ["resumed"; KEPT]);
    }

    #[test]
    fn nothing_is_kept_for_nobody() {
        let log = EventLog::new();
        let events = log.subscribe();
        log.push(suspended());
        drop(events);
        log.push(suspended());
        assert!(log.log.with(|entries| entries.kept.is_empty()));
        assert!(seen(&mut log.subscribe()).is_empty());
    }
}
