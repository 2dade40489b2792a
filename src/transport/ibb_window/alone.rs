//! One block alone in flight, tried where the law comes down to two small ones, and kept where it carries as much.
//!
//! Delays do not tell a slow server from a long path: behind both, little is in flight and takes long. They want different things.
//! A server that limits a rate pauses behind what it has read, so one block is enough to keep it busy even on a path of some hundred
//! milliseconds; it leaves a whole pause for another stanza to come next, and has the XML of one stanza where two small ones have that
//! of two. Behind a path that is slow itself, nothing travels while the acknowledgement does. So both are compared:
//!
//! ```text
//!                 a round of two small blocks         a round of one block alone
//!        ┌─────► Few ─────────────────────────► Tried ─────────────────────────► Kept ─────┐
//!        │        ▲                               │ carried less                            │ after some rounds,
//!        │        └─────────── for some rounds ───┘                                         │ or when it is slower
//!        └──────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A verdict holds for some [`ROUNDS`], and when it is the same again, for twice as many. An acknowledgement that comes in half the time
//! shows a faster server, for which the law is there. The price: on a path where one block alone is less, one round in nine is
//! slower at first, and one in 33 later.

use std::time::Instant;

use super::{STANZA, law::Sample};

/// The block that is alone: what most other programs have in flight.
const BLOCK: usize = 4096;

/// What is carried before it is believed: twelve blocks of 1920, or six of 4096. Servers that limit rates read by fits and starts, so there
/// have to be several, and where each fit is two small blocks, an even number of them.
const ROUND: usize = 23_000;

/// The share of what two small blocks carried, from which on one block alone is kept. Rounds differ by two or three per cent from
/// each other, and behind a rate limit one block alone carries 4 % more: it has the XML of one stanza.
const SHARE: f64 = 0.97;

/// What carries so many times as much as before, or as little, has changed: the path or the server is another one. Rounds of
/// one block alone carry up to a tenth more than those of two.
const CHANGED: f64 = 1.15;

/// Payload per second from which on it is not tried: a default Prosody lets 7 kB/s pass. Where another stream fills a faster server,
/// this one has two small blocks at first, and as long a delay as behind a slow one; but it is to grow.
const SLOW: f64 = 12e3;

/// How many rounds a verdict holds, at first and at most: 27 s at 10 kB/s and 90 s at 3 kB/s, and four times as long.
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
    /// The same, for so many rounds more, because it carried that much.
    Kept { rate: f64, left: u32, round: Round },
}

/// What is carried by blocks that were sent in the same way.
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
    /// With blocks of at most that size, and so many bytes in flight. None if there is nothing to choose from.
    pub(super) fn new(largest_block: usize, most: usize, small: usize) -> Option<Self> {
        let block = BLOCK.min(largest_block).min(most.saturating_sub(STANZA));
        let [rounds, _] = ROUNDS;
        (block > small).then(|| Self { block, small, rounds, state: State::few(0, 0) })
    }

    /// Its size, where one is alone in flight.
    pub(super) fn block(&self) -> Option<usize> {
        match self.state {
            State::Few { .. } => None,
            State::Tried { .. } | State::Kept { .. } => Some(self.block),
        }
    }

    /// The law wants more than two small blocks; `next` is the number of the next one to be sent.
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
        let (State::Few { round, .. } | State::Tried { round, .. } | State::Kept { round, .. }) = &mut self.state;
        let shows = round.add(now, sample, self.block, 1);
        self.state = match (&self.state, shows) {
            (_, Shows::Nothing) => return,
            (&State::Kept { rate, left, .. }, Shows::Pauses) => State::kept(rate, left, next),
            (&State::Kept { rate, left, .. }, Shows::Carried(now)) if left > 1 && !has_changed(rate, now) => {
                State::kept(rate, left - 1, next)
            }
            (&State::Tried { few, .. }, Shows::Carried(rate)) if rate < CHANGED * few => self.verdict(few, rate, next),
            (State::Tried { .. } | State::Kept { .. } | State::Few { .. }, _) => State::few(0, next),
        };
    }

    fn verdict(&mut self, few: f64, alone: f64, next: u64) -> State {
        let [_, longest] = ROUNDS;
        let left = self.rounds;
        self.rounds = longest.min(2 * left);
        if alone < SHARE * few { State::few(left, next) } else { State::kept(alone, left, next) }
    }
}

fn has_changed(before: f64, now: f64) -> bool {
    now > CHANGED * before || before > CHANGED * now
}

impl State {
    fn few(left: u32, next: u64) -> Self {
        Self::Few { left, round: Round::new(next) }
    }

    fn kept(rate: f64, left: u32, next: u64) -> Self {
        Self::Kept { rate, left, round: Round::new(next) }
    }
}

impl Round {
    fn new(from: u64) -> Self {
        Self { from, begun: None, bytes: 0, flight: 0.0 }
    }

    /// Another acknowledgement, where there may be so many blocks of that size in flight.
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
