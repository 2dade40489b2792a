//! What the simulated stanzas go through.

use std::{collections::VecDeque, time::Duration};

use super::Stanza;

/// A token bucket in front of what a session's socket holds.
pub(super) struct Limit {
    pub(super) rate: f64,
    pub(super) burst: f64,
    /// When, in seconds, all that has passed would have passed without a burst.
    pub(super) spent: f64,
    pub(super) queue: VecDeque<Stanza>,
}

impl Limit {
    /// When so many bytes, which are the next ones, have passed.
    pub(super) fn passes(&mut self, now: Duration, bytes: usize) -> Duration {
        let now = now.as_secs_f64();
        self.spent = self.spent.max(now - self.burst / self.rate) + bytes as f64 / self.rate;
        Duration::from_secs_f64(self.spent.max(now))
    }
}

/// xorshift64*, to run the same on every machine.
pub(super) struct Random(pub(super) u64);

impl Random {
    /// From 0 to 1.
    pub(super) fn next(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) as f64 / (1_u64 << 53) as f64
    }
}
