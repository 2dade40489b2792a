//! The paths that the law has to fill, and what it is held against there.

use std::time::Duration;

use super::{Rule, Scenario};
use crate::transport::ibb_window::MAX_IN_FLIGHT;

/// In milliseconds.
pub const ROUND_TRIPS: [u64; 5] = [0, 10, 50, 200, 400];
/// In bytes per second on the wire.
pub const RATES: [f64; 4] = [3e3, 10e3, 1e6, 50e6];
/// Windows that are tried, in blocks.
pub const WINDOWS: [usize; 9] = [1, 2, 4, 8, 16, 32, 64, 128, 256];
/// Sizes of blocks that are tried.
pub const BLOCKS: [u16; 4] = [1024, 4096, 16384, 65535];

/// What most peers do: one block of 4096 bytes in flight.
pub const ONE_BLOCK: Rule = Rule::Fixed { window: 1, block: 4096 };

/// How long a stream is watched, its beginning included: slow servers answer seldom.
pub const WATCHED: Duration = Duration::from_secs(120);

/// What came out on one path.
#[derive(Clone, Copy, Debug)]
pub struct Cell {
    /// Of the path.
    pub round_trip: Duration,
    /// Of the server.
    pub rate: f64,
    /// The window and block that are best there, if they are always the same.
    pub best: Rule,
    /// Its goodput, in bytes per second.
    pub best_goodput: f64,
    /// The goodput of one block of 4096 bytes in flight.
    pub one_block_goodput: f64,
    /// Seconds that another stanza waits then, on average.
    pub one_block_wait: f64,
    /// Goodput of the law.
    pub goodput: f64,
    /// Seconds that another stanza waits with it, on average.
    pub wait: f64,
}

impl Cell {
    /// Measures one path.
    #[must_use]
    pub fn measure(round_trip: Duration, rate: f64) -> Self {
        let scenario = |rule| Scenario {
            other_stanzas: Some(Duration::from_millis(1370)),
            ..Scenario::new(round_trip, rate, rule, WATCHED)
        };
        let (best, best_goodput) = best(round_trip, rate);
        let (goodput, wait) = watch(&scenario(Rule::Adaptive(MAX_IN_FLIGHT)));
        let (one_block_goodput, one_block_wait) = watch(&scenario(ONE_BLOCK));
        Self { round_trip, rate, best, best_goodput, one_block_goodput, one_block_wait, goodput, wait }
    }

    /// Whether the server limits the rate, and others have to be thought of.
    #[must_use]
    pub fn is_slow(&self) -> bool {
        self.rate < 100_000.0
    }

    /// Whether the law does what it should: at least 90 % of the best, and with slow servers 95 % of what one block does,
    /// without making others wait more than 1.5 times as long.
    #[must_use]
    pub fn is_met(&self) -> bool {
        let polite = self.goodput >= 0.95 * self.one_block_goodput && self.wait <= 1.5 * self.one_block_wait;
        self.goodput >= 0.9 * self.best_goodput && (!self.is_slow() || polite)
    }
}

fn watch(scenario: &Scenario) -> (f64, f64) {
    let outcome = scenario.run();
    (outcome.goodput(0, Duration::ZERO, scenario.duration), outcome.mean_wait())
}

/// The best of all fixed windows and blocks on this path.
#[must_use]
pub fn best(round_trip: Duration, rate: f64) -> (Rule, f64) {
    let mut best = (ONE_BLOCK, 0.0);
    for block in BLOCKS {
        for window in WINDOWS {
            if window * usize::from(block) > MAX_IN_FLIGHT {
                continue;
            }
            let rule = Rule::Fixed { window, block };
            let goodput = fixed(round_trip, rate, rule);
            // Of those that are as good, the smallest.
            if goodput > best.1 * 1.002 {
                best = (rule, goodput);
            }
            // What is as fast with fewer blocks in flight gets no faster with more.
            if goodput < best.1 * 0.99
                && best.0 != ONE_BLOCK
                && matches!(best.0, Rule::Fixed { block: b, .. } if b == block)
            {
                break;
            }
        }
    }
    best
}

/// The steady goodput of a fixed window: of some of its blocks once it is going. With a slow server, the burst is over by then.
#[must_use]
pub fn fixed(round_trip: Duration, rate: f64, rule: Rule) -> f64 {
    let Rule::Fixed { window, block } = rule else { return 0.0 };
    let burst = 40_000 / usize::from(block);
    let warm = window * 2 + burst + 8;
    // Whole windows: with a long path, they come in bursts.
    let measured = window * 40_usize.div_ceil(window).max(2);
    let scenario = Scenario {
        blocks: warm + measured,
        ..Scenario::new(round_trip, rate, rule, Duration::from_secs(100_000))
    };
    let outcome = scenario.run();
    let Some(blocks) = outcome.delivered.first() else { return 0.0 };
    let (Some((from, _)), Some((until, _))) = (blocks.get(warm - 1), blocks.last()) else { return 0.0 };
    outcome.goodput(0, *from, *until)
}
