//! Telling the bot's user about known peers.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    task::{Context, Poll, Waker},
};

use futures::Stream;
use jid::BareJid;

use super::super::{certificate::Certificate, peer::Verification};
use crate::error::SecurityError;

/// How many events wait for one subscriber. Whoever can make up JIDs can make up events, so one that does not look must
/// not cost more than this; the latest are the ones of interest.
const MAX_WAITING: usize = 256;

/// Something to tell the bot's user about whom it talks to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PeerEvent {
    /// A peer was seen for the first time, and its certificate believed.
    FirstUse {
        /// Who it says it is.
        peer: BareJid,
        /// What it presented.
        certificate: Certificate,
    },
    /// A certificate was verified and is remembered so.
    Verified {
        /// Whose it is.
        peer: BareJid,
        /// What it presented.
        certificate: Certificate,
        /// How.
        verification: Verification,
    },
    /// A peer has a new certificate with the key that it had before.
    Renewed {
        /// Whose it is.
        peer: BareJid,
        /// What it presented.
        certificate: Certificate,
    },
    /// A peer presented another certificate than it had before, or a revoked one, or one that no authority answers for where
    /// one did before, and was refused.
    Refused {
        /// Who it says it is.
        peer: BareJid,
        /// Why.
        error: SecurityError,
    },
}

/// The events of [`KnownPeers`](super::KnownPeers), as a stream; see [`KnownPeers::events`](super::KnownPeers::events).
///
/// At most 256 wait for whoever reads it; the oldest are dropped for newer ones, with a warning in the log. The same
/// refusal waits only once. It ends when the last clone of the store is gone.
#[derive(Debug)]
pub struct PeerEvents {
    waiting: Arc<Waiting>,
    source: Weak<Broadcast>,
}

/// Everybody who wants the events.
#[derive(Debug, Default)]
pub(super) struct Broadcast(Mutex<Vec<Weak<Waiting>>>);

#[derive(Debug, Default)]
struct Waiting(Mutex<Queue>);

#[derive(Debug, Default)]
struct Queue {
    events: VecDeque<PeerEvent>,
    waker: Option<Waker>,
}

impl Broadcast {
    pub(super) fn subscribe(self: &Arc<Self>) -> PeerEvents {
        let waiting = Arc::default();
        let mut subscribers = lock(&self.0);
        subscribers.retain(|subscriber| subscriber.strong_count() > 0);
        subscribers.push(Arc::downgrade(&waiting));
        PeerEvents { waiting, source: Arc::downgrade(self) }
    }

    pub(super) fn tell(&self, event: &PeerEvent) {
        for waiting in lock(&self.0).iter().filter_map(Weak::upgrade) {
            waiting.push(event);
        }
    }
}

/// The subscribers learn that nothing more comes.
impl Drop for Broadcast {
    fn drop(&mut self) {
        for waiting in lock(&self.0).iter().filter_map(Weak::upgrade) {
            waiting.wake();
        }
    }
}

impl Waiting {
    fn push(&self, event: &PeerEvent) {
        let mut queue = lock(&self.0);
        if queue.events.iter().any(|waiting| waiting.is_same_refusal(event)) {
            return;
        }
        if queue.events.len() >= MAX_WAITING {
            let dropped = queue.events.pop_front();
            tracing::warn!(?dropped, "nobody reads the events of the known peers: the oldest is dropped");
        }
        queue.events.push_back(event.clone());
        drop(queue);
        self.wake();
    }

    fn wake(&self) {
        let waker = lock(&self.0).waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl PeerEvent {
    fn is_same_refusal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Refused { peer, error }, Self::Refused { peer: other_peer, error: other_error }) => {
                peer == other_peer && error == other_error
            }
            _ => false,
        }
    }
}

impl Stream for PeerEvents {
    type Item = PeerEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<PeerEvent>> {
        let mut queue = lock(&self.waiting.0);
        if let Some(event) = queue.events.pop_front() {
            return Poll::Ready(Some(event));
        }
        // Before the look at the source, so that its end is not missed.
        queue.waker = Some(cx.waker().clone());
        if self.source.strong_count() == 0 { Poll::Ready(None) } else { Poll::Pending }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, StreamExt};

    use super::*;

    fn first_use(number: usize) -> PeerEvent {
        let peer = format!("bot{number}@capulet.lit").parse().unwrap();
        PeerEvent::FirstUse { peer, certificate: Certificate::from_der(b"a certificate") }
    }

    fn peer_of(event: Option<PeerEvent>) -> String {
        match event {
            Some(PeerEvent::FirstUse { peer, .. } | PeerEvent::Refused { peer, .. }) => peer.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_subscriber_gets_what_comes_after_it() {
        let broadcast = Arc::new(Broadcast::default());
        let mut early = broadcast.subscribe();
        broadcast.tell(&first_use(1));
        let mut late = broadcast.subscribe();
        broadcast.tell(&first_use(2));
        assert_eq!(peer_of(early.next().now_or_never().unwrap()), "bot1@capulet.lit");
        assert_eq!(peer_of(early.next().now_or_never().unwrap()), "bot2@capulet.lit");
        assert_eq!(peer_of(late.next().now_or_never().unwrap()), "bot2@capulet.lit");
        assert!(late.next().now_or_never().is_none(), "nothing more");
    }

    #[test]
    fn of_too_many_the_oldest_are_dropped() {
        let broadcast = Arc::new(Broadcast::default());
        let mut events = broadcast.subscribe();
        for number in 0..MAX_WAITING + 3 {
            broadcast.tell(&first_use(number));
        }
        assert_eq!(peer_of(events.next().now_or_never().unwrap()), "bot3@capulet.lit");
        let rest = std::iter::from_fn(|| events.next().now_or_never()).count();
        assert_eq!(rest, MAX_WAITING - 1);
    }

    #[test]
    fn the_same_refusal_waits_only_once() {
        let broadcast = Arc::new(Broadcast::default());
        let mut events = broadcast.subscribe();
        let peer: BareJid = "juliet@capulet.lit".parse().unwrap();
        let error = SecurityError::TooManyPeers { limit: 1 };
        let refused = PeerEvent::Refused { peer, error };
        broadcast.tell(&refused);
        broadcast.tell(&refused);
        assert_eq!(peer_of(events.next().now_or_never().unwrap()), "juliet@capulet.lit");
        assert!(events.next().now_or_never().is_none());
        broadcast.tell(&refused);
        assert!(events.next().now_or_never().is_some(), "it was seen, and happens again");
    }

    #[test]
    fn they_end_with_the_store_once_all_are_read() {
        let broadcast = Arc::new(Broadcast::default());
        let mut events = broadcast.subscribe();
        let (waker, woken) = counting_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(events.poll_next_unpin(&mut cx).is_pending());
        broadcast.tell(&first_use(1));
        assert_eq!(woken(), 1);
        drop(broadcast);
        assert!(events.next().now_or_never().unwrap().is_some());
        assert!(events.next().now_or_never().unwrap().is_none());
    }

    #[test]
    fn whoever_waits_is_woken_by_the_end() {
        let broadcast = Arc::new(Broadcast::default());
        let mut events = broadcast.subscribe();
        let (waker, woken) = counting_waker();
        assert!(events.poll_next_unpin(&mut Context::from_waker(&waker)).is_pending());
        drop(broadcast);
        assert_eq!(woken(), 1);
    }

    /// A waker, and how often it was used.
    fn counting_waker() -> (Waker, impl Fn() -> usize) {
        struct Count(std::sync::atomic::AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(0.into()));
        (Arc::clone(&count).into(), move || count.0.load(std::sync::atomic::Ordering::SeqCst))
    }
}
