//! How long to wait between attempts, without IO: longer and longer, and not all at the same times.

use std::time::Duration;

/// Pauses that double up to the longest, each shortened by chance to between a half and all of it: those who lost the same thing
/// at once do not all come back at once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(crate) fn new(first: Duration, longest: Duration) -> Self {
        Self { next: first, longest }
    }

    /// The next pause, all of it.
    pub(crate) fn peek(&self) -> Duration {
        self.next
    }

    /// The next pause: its half for a chance of 0, and all of it for 255.
    pub(crate) fn take(&mut self, chance: u8) -> Duration {
        let half = self.next / 2;
        self.next = self.longest.min(self.next.saturating_mul(2));
        half + half * u32::from(chance) / u32::from(u8::MAX)
    }
}
