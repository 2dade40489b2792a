//! The delay of a path without a queue of ours.

use std::time::{Duration, Instant};

/// A delay this much longer than the shortest one still confirms it.
const CONFIRMS: f64 = 1.05;

/// The shortest delay of an acknowledgement that was seen of late.
#[derive(Debug)]
pub(super) struct Base {
    /// In seconds, with the time that the block itself took.
    delay: f64,
    confirmed: Instant,
    measured: Instant,
}

impl Base {
    /// The first, or one to begin anew with.
    pub(super) fn new(now: Instant, delay: f64) -> Self {
        Self { delay, confirmed: now, measured: now }
    }

    /// Another delay.
    pub(super) fn observe(&mut self, now: Instant, delay: f64) {
        if delay * CONFIRMS < self.delay {
            *self = Self::new(now, delay);
            return;
        }
        self.delay = self.delay.min(delay);
        if delay <= self.delay * CONFIRMS {
            self.confirmed = now;
        }
    }

    /// It was measured again, with nothing of ours waiting, and is not longer than it was by more than the queue that another stream is
    /// allowed. It stays what it was: else whoever measured last would take the other one's queue for the path.
    pub(super) fn confirm(&mut self, now: Instant, delay: f64) {
        self.delay = self.delay.min(delay);
        (self.confirmed, self.measured) = (now, now);
    }

    /// In seconds.
    pub(super) fn delay(&self) -> f64 {
        self.delay
    }

    /// How long nothing has confirmed it. With a few blocks in flight nothing can: the delay is that of the blocks themselves.
    pub(super) fn age(&self, now: Instant, few: bool) -> Duration {
        now.saturating_duration_since(if few { self.measured } else { self.confirmed })
    }
}
