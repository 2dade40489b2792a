//! The delay of a path without a queue of ours.

use std::time::{Duration, Instant};

use super::law::Sample;

/// A delay this much longer than the shortest one still confirms it.
const CONFIRMS: f64 = 1.05;

/// The shortest delay of an acknowledgement that was seen of late, and what it consists of.
#[derive(Debug)]
pub(super) struct Base {
    /// In seconds, with the time that the block itself took.
    delay: f64,
    /// What that block cost.
    cost: f64,
    /// The highest rate that was seen since: what tells the time that the block itself took from the rest.
    rate: f64,
    confirmed: Instant,
    began: Instant,
}

impl Base {
    /// The first, or one to begin anew with, while this was the rate.
    pub(super) fn new(now: Instant, sample: &Sample, rate: f64) -> Self {
        let rate = sample.capacity().max(rate);
        Self { delay: sample.delay, cost: sample.cost as f64, rate, confirmed: now, began: now }
    }

    /// Another delay.
    pub(super) fn observe(&mut self, now: Instant, sample: &Sample, rate: f64) {
        if sample.delay * CONFIRMS < self.delay {
            *self = Self::new(now, sample, rate);
            return;
        }
        self.rate = self.rate.max(sample.capacity());
        if sample.delay < self.delay {
            (self.delay, self.cost) = (sample.delay, sample.cost as f64);
        }
        if sample.delay <= self.delay * CONFIRMS {
            self.confirmed = now;
        }
    }

    /// The delay of a block without length, in seconds.
    pub(super) fn path(&self) -> f64 {
        (self.delay - self.cost / self.rate).max(0.0)
    }

    /// How long nothing has confirmed it. With a few blocks in flight nothing can: they may have spread out over a path that
    /// is faster than they are, and only a burst shows whether they have.
    pub(super) fn age(&self, now: Instant, few: bool) -> Duration {
        now.saturating_duration_since(if few { self.began } else { self.confirmed })
    }
}
