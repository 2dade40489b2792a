//! One block alone in flight: tried where the law comes down to two small ones, and kept where it carries as much.
//!
//! Delays do not tell a slow server from a long path: behind both, little is in flight and takes long. They want different things.
//! A server that limits a rate pauses behind what it has read, so one block is enough to keep it busy, even on a path of some hundred
//! milliseconds; and it has the XML of one stanza where two small ones have that of two. Where the path itself is slow, it carries
//! nothing while the acknowledgement travels. So nothing is inferred, both are compared:
//!
//! ```text
//!            a round of two            a round of one          it carried as much
//!   ┌──► Few ───────────────► Tried ─────────────────────────────────────────────► Kept ──┐
//!   │     ▲                     │ it carried less, or the sender paused:                  │ after as much as some
//!   │     │                     │ for some rounds; much more: anew                        │ rounds are, or when the
//!   │     └─────────────────────┘                                                         │ rate is another one
//!   └─────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The price: on a path where one block alone carries less, one round in nine is slower at first, and one in 33 later. And a
//! server that becomes faster is seen at the end of a round, if the delay of one block shows it; on a path as long as the server
//! took for a block it does not, and is seen when two are in flight again.

use std::time::Instant;

use super::{STANZA, law::Sample};

/// The block that is alone: what most other programs have in flight.
const BLOCK: usize = 4096;

/// What is carried before it is believed: ten blocks of 1920, or five of 4096. Servers that limit rates read by fits and
/// starts, so there have to be several, and where each fit is two small blocks, an even number of them.
const ROUND: usize = 19_000;

/// The share of what two small blocks carried, from which on one block alone is kept. Rounds differ by two or three per cent
/// from each other, and behind a rate limit one block alone carries 3 to 4 % more, as there is less XML around it.
const SHARE: f64 = 0.97;

/// One block alone that carries so many times as much as two did a moment ago owes it to a server that became faster. With one
/// that did not, an ejabberd, up to 1.13 times were seen.
const FASTER: f64 = 1.3;

/// Where a round carries so many times as much as the one it was kept for, or as little, the path or the server is another one.
/// Those rounds are alike, and differ by few per cent.
const CHANGED: f64 = 1.15;

/// Payload per second from which on it is not tried: a default Prosody lets 7 kB/s pass. A stream that comes late to a fast
/// server, and finds it full, has two small blocks at first and delays as behind a slow one; but it is to grow.
const SLOW: f64 = 12e3;

/// How many rounds a verdict holds, or as much as they are: so many at first, each time twice as many, and no more than that. With
/// the 7 kB/s that a default Prosody lets pass it is 22 s at first and a minute and a half later, with an ejabberd's 2 kB/s over
/// a minute and five.
const ROUNDS: [u32; 2] = [8, 32];

/// What has to be in flight on average, as a share of what may be: else the sender has too little to send, and nothing is
/// shown.
const BUSY: f64 = 0.8;

/// Whether one block is alone in flight, and what is known about it.
#[derive(Debug)]
pub(super) struct Alone {
    /// The size of the one that is alone, and of the two others, in bytes.
    block: usize,
    small: usize,
    /// How many rounds the next verdict holds.
    rounds: u32,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Two small blocks are in flight, if the law wants no more. After so many rounds, one alone is tried.
    Few { left: u32, round: Round },
    /// One block is alone in flight. Two small ones carried so many bytes in a second.
    Tried { few: f64, round: Round },
    /// The same, for so many bytes more, because it carried that much in a second.
    Kept { rate: f64, left: usize, round: Round },
}

/// What is carried by blocks that were sent one way.
#[derive(Clone, Copy, Debug)]
struct Round {
    /// The first of them.
    from: u64,
    /// Since when it is counted: the first one's acknowledgement.
    begun: Option<Instant>,
    bytes: usize,
    /// What was in flight, for how long each: bytes times seconds.
    flight: f64,
}

/// What a round shows.
enum Shows {
    Nothing,
    /// The sender had too little to send.
    Pauses,
    /// Bytes per second without the stanzas around them.
    Carried(f64),
}

impl Alone {
    /// With blocks of at most that size, and so many bytes in flight, where the small ones have that size. None if no block may be
    /// larger than those, or only one of them in flight.
    pub(super) fn new(largest_block: usize, most: usize, small: usize) -> Option<Self> {
        let block = BLOCK.min(largest_block).min(most.saturating_sub(STANZA));
        let [rounds, _] = ROUNDS;
        let is_choice = block > small && most >= 2 * (small + STANZA);
        is_choice.then(|| Self { block, small, rounds, state: State::few(0, 0) })
    }

    /// Its size, where one is alone in flight.
    pub(super) fn block(&self) -> Option<usize> {
        match self.state {
            State::Few { .. } => None,
            State::Tried { .. } | State::Kept { .. } => Some(self.block),
        }
    }

    /// The law wants another window than two small blocks; `next` is the number of the next one to be sent.
    pub(super) fn wait(&mut self, next: u64) {
        if let State::Few { round, .. } = &mut self.state {
            *round = Round::new(next);
        }
    }

    /// The law wants much more: what was found out is history.
    pub(super) fn forget(&mut self, next: u64) {
        [self.rounds, _] = ROUNDS;
        self.state = State::few(0, next);
    }

    /// A block was acknowledged while the law wants two small ones and no more.
    pub(super) fn few_acknowledged(&mut self, now: Instant, next: u64, sample: &Sample) {
        let State::Few { left, round } = &mut self.state else { return };
        self.state = match round.add(now, sample, self.small, 2) {
            Shows::Nothing => return,
            Shows::Pauses => State::few(*left, next),
            Shows::Carried(few) if few > SLOW => State::few(0, next),
            Shows::Carried(_) if *left > 1 => State::few(*left - 1, next),
            Shows::Carried(few) => State::Tried { few, round: Round::new(next) },
        };
    }

    /// A block was acknowledged while one is alone in flight.
    pub(super) fn acknowledged(&mut self, now: Instant, next: u64, sample: &Sample) {
        let (State::Few { round, .. } | State::Tried { round, .. } | State::Kept { round, .. }) =
            &mut self.state;
        let shows = round.add(now, sample, self.block, 1);
        let bytes = sample.payload();
        self.state = match (&self.state, shows) {
            // It is time to look again, also where a sender that pauses has shown nothing.
            (&State::Kept { left, .. }, _) if left <= bytes => State::few(0, next),
            (&State::Kept { rate, left, round }, Shows::Nothing) => {
                State::Kept { rate, left: left - bytes, round }
            }
            (&State::Kept { rate, left, .. }, Shows::Pauses) => State::kept(rate, left - bytes, next),
            (&State::Kept { rate, left, .. }, Shows::Carried(carried)) if !has_changed(rate, carried) => {
                State::kept(rate, left - bytes, next)
            }
            (_, Shows::Nothing) => return,
            (&State::Tried { few, .. }, Shows::Carried(alone)) if alone < FASTER * few => {
                self.verdict(few, alone, next)
            }
            // Who pauses is in no hurry, and would only be tried in vain again.
            (State::Tried { .. }, Shows::Pauses) => State::few(self.rounds, next),
            (State::Tried { .. } | State::Kept { .. } | State::Few { .. }, _) => State::few(0, next),
        };
    }

    /// Two small blocks carried that much in a second, and one alone that.
    fn verdict(&mut self, few: f64, alone: f64, next: u64) -> State {
        let [_, longest] = ROUNDS;
        let left = self.rounds;
        self.rounds = longest.min(2 * left);
        if alone < SHARE * few {
            State::few(left, next)
        } else {
            State::kept(alone, left as usize * ROUND, next)
        }
    }
}

fn has_changed(before: f64, now: f64) -> bool {
    now > CHANGED * before || before > CHANGED * now
}

impl State {
    fn few(left: u32, next: u64) -> Self {
        Self::Few { left, round: Round::new(next) }
    }

    fn kept(rate: f64, left: usize, next: u64) -> Self {
        Self::Kept { rate, left, round: Round::new(next) }
    }
}

impl Round {
    fn new(from: u64) -> Self {
        Self { from, begun: None, bytes: 0, flight: 0.0 }
    }

    /// Another acknowledgement, where so many blocks of that size may be in flight.
    fn add(&mut self, now: Instant, sample: &Sample, block: usize, blocks: usize) -> Shows {
        if sample.number < self.from {
            return Shows::Nothing;
        }
        if sample.payload() != block {
            return Shows::Pauses;
        }
        let Some(begun) = self.begun else {
            self.begun = Some(now);
            return Shows::Nothing;
        };
        self.bytes += sample.payload();
        self.flight += sample.payload() as f64 * sample.delay;
        if self.bytes < ROUND {
            return Shows::Nothing;
        }
        let seconds = now.saturating_duration_since(begun).as_secs_f64().max(1e-6);
        if self.flight < BUSY * (block * blocks) as f64 * seconds {
            return Shows::Pauses;
        }
        Shows::Carried(self.bytes as f64 / seconds)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SMALL: usize = 1920;

    /// A sender that always has something to send.
    struct Sender {
        alone: Alone,
        now: Instant,
        next: u64,
    }

    impl Sender {
        fn new() -> Self {
            let alone = Alone::new(65535, 1_000_000, SMALL).expect("there is something to choose from");
            Self { alone, now: Instant::now(), next: 0 }
        }

        /// A block is acknowledged where two carry so many bytes in a second, and one alone that many.
        fn acknowledge(&mut self, two: f64, one: f64) {
            let block = self.alone.block();
            let seconds = block.map_or(SMALL as f64 / two, |block| block as f64 / one);
            self.now += Duration::from_secs_f64(seconds);
            let delay = Duration::from_secs_f64(if block.is_some() { seconds } else { 2.0 * seconds });
            self.acknowledged(block.unwrap_or(SMALL), delay);
        }

        fn acknowledged(&mut self, bytes: usize, delay: Duration) {
            let cost = bytes + STANZA;
            let sample = Sample::new(self.next, cost, cost, delay);
            self.next += 1;
            if self.alone.block().is_some() {
                self.alone.acknowledged(self.now, self.next, &sample);
            } else {
                self.alone.few_acknowledged(self.now, self.next, &sample);
            }
        }

        /// Blocks until it is the other way, or more than ever should be.
        fn until_changed(&mut self, two: f64, one: f64) -> usize {
            let before = self.alone.block();
            let is_same = |sender: &mut Self| {
                sender.acknowledge(two, one);
                sender.alone.block() == before
            };
            1 + (0..1000).take_while(|_| is_same(self)).count()
        }
    }

    /// Blocks in a round, with the one that it is counted from.
    const TWO: usize = 11;
    const ONE: usize = 6;

    #[test]
    fn one_block_alone_that_carries_as_much_is_kept_for_longer_and_longer() {
        let mut sender = Sender::new();
        for rounds in [8, 16, 32, 32] {
            assert_eq!(sender.until_changed(7000.0, 7000.0), TWO);
            assert_eq!(sender.until_changed(7000.0, 7000.0), ONE + (rounds * ROUND).div_ceil(BLOCK));
        }
    }

    #[test]
    fn one_block_alone_that_carries_less_is_tried_ever_more_seldom() {
        let mut sender = Sender::new();
        assert_eq!(sender.until_changed(7000.0, 6600.0), TWO);
        for rounds in [8, 16, 32, 32] {
            assert_eq!(sender.until_changed(7000.0, 6600.0), ONE);
            assert_eq!(sender.until_changed(7000.0, 6600.0), rounds * TWO);
        }
    }

    #[test]
    fn where_it_is_kept_another_rate_ends_it_with_the_round() {
        for now in [5000.0, 9000.0] {
            let mut sender = Sender::new();
            sender.until_changed(7000.0, 7000.0);
            (0..3 * ONE).for_each(|_| sender.acknowledge(7000.0, 7000.0));
            assert_eq!(sender.until_changed(7000.0, now), ONE, "{now}");
        }
    }

    #[test]
    fn a_server_that_became_faster_meanwhile_is_no_merit_of_it() {
        let mut sender = Sender::new();
        sender.until_changed(7000.0, 7000.0);
        assert_eq!(sender.until_changed(10_000.0, 10_000.0), ONE, "not kept");
        assert_eq!(sender.until_changed(10_000.0, 10_000.0), TWO, "but tried again");
    }

    #[test]
    fn where_two_small_blocks_are_fast_it_is_not_tried() {
        let mut sender = Sender::new();
        (0..1000).for_each(|_| sender.acknowledge(12_500.0, 12_500.0));
        assert_eq!(sender.alone.block(), None);
    }

    /// 1 kB at a time, or a full block and then nothing for a while.
    #[test]
    fn who_has_too_little_to_send_shows_nothing() {
        for (bytes, pause) in [(1000, 0), (SMALL, 1000)] {
            let mut sender = Sender::new();
            for _ in 0..1000 {
                sender.now += Duration::from_millis(500 + pause);
                sender.acknowledged(bytes, Duration::from_millis(500));
            }
            assert_eq!(sender.alone.block(), None, "{bytes}");
        }
    }

    #[test]
    fn a_trial_with_a_short_block_in_it_begins_anew_with_two() {
        let mut sender = Sender::new();
        sender.until_changed(7000.0, 7000.0);
        sender.acknowledged(1000, Duration::from_millis(500));
        assert_eq!(sender.alone.block(), None);
        assert_eq!(sender.until_changed(7000.0, 7000.0), 8 * TWO, "and not at once");
    }

    #[test]
    fn a_short_block_does_not_end_what_is_kept() {
        let mut sender = Sender::new();
        sender.until_changed(7000.0, 7000.0);
        (0..2 * ONE).for_each(|_| sender.acknowledge(7000.0, 7000.0));
        sender.acknowledged(1000, Duration::from_millis(500));
        assert_eq!(sender.alone.block(), Some(BLOCK));
    }

    #[test]
    fn short_blocks_alone_end_what_is_kept_at_last() {
        let mut sender = Sender::new();
        while sender.alone.block().is_none() || matches!(sender.alone.state, State::Tried { .. }) {
            sender.acknowledge(7000.0, 7000.0);
        }
        let is_kept = |sender: &mut Sender| {
            sender.acknowledged(1000, Duration::from_millis(500));
            sender.alone.block().is_some()
        };
        assert_eq!(1 + (0..1000).take_while(|_| is_kept(&mut sender)).count(), 8 * ROUND / 1000);
    }

    #[test]
    fn it_is_no_larger_than_agreed_and_than_may_be_in_flight() {
        for (largest, most, size) in
            [(65535, 1_000_000, 4096), (4096, 4246, 4096), (3000, 1_000_000, 3000), (65535, 4200, 4050)]
        {
            let block = Alone::new(largest, most, SMALL).map(|alone| alone.block);
            assert_eq!(block, Some(size), "{largest}, {most}");
        }
        for (largest, most) in [(SMALL, 1_000_000), (100, 1_000_000), (65535, 4139), (65535, 1)] {
            assert!(Alone::new(largest, most, SMALL).is_none(), "{largest}, {most}");
        }
    }
}
