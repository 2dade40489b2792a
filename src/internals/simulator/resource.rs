//! What the simulated stanzas go through.

use std::{collections::VecDeque, time::Duration};

use super::{Reading, Stanza};

/// What a server that pauses behind it reads at once.
const READ: usize = 8192;

/// A rate limit, and what a session's socket holds before it.
pub(super) struct Limit {
    pub(super) rate: f64,
    burst: f64,
    reading: Reading,
    /// When, in seconds, all that has passed would have passed without a burst.
    spent: f64,
    queue: VecDeque<Stanza>,
    /// What was read of the oldest one.
    begun: usize,
    /// Whether an event is on its way that lets something pass.
    is_due: bool,
}

impl Limit {
    pub(super) fn new(rate: f64, burst: f64, reading: Reading) -> Self {
        Self { rate, burst, reading, spent: f64::MIN, queue: VecDeque::new(), begun: 0, is_due: false }
    }

    /// Another stanza is in the socket. If something is to pass because of it, when.
    pub(super) fn arrives(&mut self, now: Duration, stanza: Stanza) -> Option<Duration> {
        self.queue.push_back(stanza);
        if self.is_due { None } else { self.next(now) }
    }

    /// What passes now, and when something does again.
    pub(super) fn passes(&mut self, now: Duration) -> (Vec<Stanza>, Option<Duration>) {
        let passed = match self.reading {
            Reading::Evenly => self.queue.pop_front().into_iter().collect(),
            Reading::ThenPausing => self.read(now),
        };
        (passed, self.next(now))
    }

    fn next(&mut self, now: Duration) -> Option<Duration> {
        let oldest = self.queue.front().copied();
        self.is_due = oldest.is_some();
        let now = now.as_secs_f64();
        let oldest = oldest?;
        if self.reading == Reading::Evenly {
            self.spent = self.spent.max(now - self.burst / self.rate) + oldest.length() as f64 / self.rate;
        }
        Some(Duration::from_secs_f64(self.spent.max(now)))
    }

    /// The stanzas that are complete with what is read.
    fn read(&mut self, now: Duration) -> Vec<Stanza> {
        let mut room = READ;
        let mut stanzas = Vec::new();
        while let Some(stanza) = self.queue.front() {
            let rest = stanza.length() - self.begun;
            if rest > room {
                self.begun += room;
                room = 0;
                break;
            }
            room -= rest;
            self.begun = 0;
            stanzas.extend(self.queue.pop_front());
        }
        self.spent = now.as_secs_f64() + (READ - room) as f64 / self.rate;
        stanzas
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
