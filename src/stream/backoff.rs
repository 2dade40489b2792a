//! How long to wait between attempts to get a stream going again, without IO.

use std::time::Duration;

use crate::pauses::Pauses;

/// The longest wait behind the first failed attempt.
const FIRST: Duration = Duration::from_millis(100);

/// The longest wait of all: a peer that is back is found by then.
const LONGEST: Duration = Duration::from_secs(10);

/// What has held for so many times the next wait makes up for the attempts before it.
const HELD: u32 = 4;

/// What streams wait that were lost together, with a proxy or a server, and are not to come back together.
#[derive(Debug)]
pub(super) struct Backoff {
    pauses: Pauses,
    dice: u64,
}

impl Backoff {
    /// The same seed gives the same waits.
    pub(super) fn new(seed: u64) -> Self {
        Self { pauses: Pauses::new(FIRST, LONGEST), dice: seed }
    }

    /// How long to wait behind one more attempt that failed.
    pub(super) fn wait(&mut self) -> Duration {
        let [chance, ..] = self.roll().to_be_bytes();
        self.pauses.take(chance)
    }

    /// How long to wait behind an attempt that succeeded, when what it brought has held for so long; `None` if that makes up for
    /// the attempts before it.
    pub(super) fn wait_after(&mut self, held: Duration) -> Option<Duration> {
        if held >= self.pauses.peek() * HELD {
            self.pauses = Pauses::new(FIRST, LONGEST);
            return None;
        }
        Some(self.wait())
    }

    /// SplitMix64: any seed is good, and guessing it gains nobody anything.
    fn roll(&mut self) -> u64 {
        self.dice = self.dice.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.dice;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(seed: u64) -> Vec<Duration> {
        let mut backoff = Backoff::new(seed);
        (0..20).map(|_| backoff.wait()).collect()
    }

    #[test]
    fn the_waits_double_up_to_ten_seconds_and_are_never_less_than_half_of_that() {
        for seed in 0..100 {
            let mut longest = Duration::from_millis(100);
            for wait in waits(seed) {
                assert!(wait >= longest / 2 && wait <= longest, "{wait:?} of {longest:?}");
                longest = (longest * 2).min(Duration::from_secs(10));
            }
        }
    }

    #[test]
    fn what_breaks_at_once_is_waited_for_like_what_fails() {
        let mut backoff = Backoff::new(7);
        let pauses: Vec<_> = (0..10).filter_map(|_| backoff.wait_after(Duration::from_millis(300))).collect();
        assert_eq!(pauses.len(), 10);
        assert!(pauses[9] >= Duration::from_secs(5), "{pauses:?}");
        let mut backoff = Backoff::new(7);
        for _ in 0..10 {
            backoff.wait();
        }
        assert!(backoff.wait_after(Duration::from_secs(39)).is_some());
        assert_eq!(backoff.wait_after(Duration::from_secs(40)), None);
        assert!(backoff.wait() <= FIRST, "all is forgotten");
    }

    #[test]
    fn two_streams_do_not_wait_equally_long() {
        assert_eq!(waits(1), waits(1));
        assert_ne!(waits(1), waits(2));
        assert!(waits(3).iter().any(|wait| *wait > Duration::from_secs(6)), "chance only shortens a bit");
    }
}
