//! How often, how much, and in which order.

use std::time::{Duration, Instant};

/// How thoroughly to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Effort {
    pub(crate) rounds: usize,
    pub(crate) size: Size,
}

/// How much work a single measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Size {
    /// About a second.
    Full,
    /// Just enough to see that it works.
    Quick,
}

impl Effort {
    /// So many, or few of them.
    pub(crate) fn count(self, full: usize) -> usize {
        match self.size {
            Size::Full => full,
            Size::Quick => (full / 50).max(20).min(full),
        }
    }

    pub(crate) fn is_quick(self) -> bool {
        self.size == Size::Quick
    }

    /// Calls both by turns; who is first in one round is second in the next, so that neither profits from the other.
    pub(crate) async fn by_turns(
        self,
        mut ours: impl AsyncFnMut() -> f64,
        mut reference: impl AsyncFnMut() -> f64,
        mut push: impl FnMut(f64, f64),
    ) {
        for round in 0..self.rounds {
            let (one, other) = if round % 2 == 0 {
                let one = ours().await;
                (one, reference().await)
            } else {
                let other = reference().await;
                (ours().await, other)
            };
            push(one, other);
        }
    }
}

/// So many a second.
pub(crate) fn rate(count: usize, begun: Instant) -> f64 {
    count as f64 / begun.elapsed().as_secs_f64()
}

/// The one in the middle; none is zero.
pub(crate) fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations.get(durations.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    #[tokio::test]
    async fn each_is_first_in_every_second_round() {
        let order = RefCell::new(String::new());
        let note = |who: char| {
            order.borrow_mut().push(who);
            f64::from(u32::from(who))
        };
        let mut pushed = 0;
        let effort = Effort { rounds: 3, size: Size::Quick };
        let push = |ours, reference| {
            assert!(ours < reference, "a (ours) and b (the reference) do not change places");
            pushed += 1;
        };
        effort.by_turns(async || note('a'), async || note('b'), push).await;
        assert_eq!((order.into_inner().as_str(), pushed), ("abbaab", 3));
    }
}
