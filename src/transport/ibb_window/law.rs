//! The law: how much to have in flight, from the delays of acknowledgements alone.
//!
//! XEP-0047 gives a sender one signal, the acknowledgement of each block. Nothing is ever lost, and a server that limits the
//! rate of a session says so by reading more slowly: what it does not read waits in its socket, and every other stanza of the
//! bot waits behind it. So the delay has to tell how much is enough.
//!
//! Each block remembers what was in flight when it was sent, itself included: `flight`. With its `delay`, that gives two numbers
//! that belong together however the window changed meanwhile:
//!
//! ```text
//!   rate   = flight / delay               what the path carried
//!   queued = flight − rate × path         what of it did not travel, but wait
//! ```
//!
//! `path` is the shortest delay of late ([`Base`]). The time that the server takes for one block is part of it, so that `queued` is
//! what waits for longer than a single block would. The window that fits is what the path holds and a small queue:
//!
//! ```text
//!   fits  = rate × path + spare,                                  at least two small blocks
//!   spare = rate × path × 0.11 + min(90 × √rate, rate × 0.15 s),  at least min(2.16 × rate^¾, rate × 0.15 s)
//! ```
//!
//! Twice in each window, the acknowledgement with the shortest delay decides. Where less than half of what is to spare is in the queue, the
//! window grows, to twice what was in flight, and beyond 64 KiB to four times; where more is there, it becomes what fits. That
//! is no step towards a goal but the goal itself, so it takes one round trip to shrink, and no constant says how fast.
//!
//! - **The queue** is a multiple of the square root of the rate. In proportion to the rate, of two streams through one server the
//!   one that has more would keep more; a constant one is too much for 3 kB/s or too little for 50 MB/s. It is large enough for a
//!   delay that is no queue at all: where a server's writes wait for a kernel's delayed acknowledgement (40 ms), it
//!   allows 4 MB/s. With half of it, a stream through such a Prosody stood still at 0.7 MB/s.
//! - **The 11 %** of the path are there because paths vary: what is a bit longer than the shortest delay is no queue. More would be
//!   more robust, and less fair: it is in proportion to the rate.
//! - **At least 2.16 × rate^¾** to spare is what keeps a fast server busy. A block and its acknowledgement pass the sender, the
//!   server, the reader and the server again, and each does nothing for some milliseconds when another one has its processor. What
//!   they lack then grows with the rate: through an ejabberd that takes 40 MB/s, with 0.6 MB in flight an eighth of two processors
//!   was idle and 80 % of the best fixed window's rate was reached; with not quite twice as much, 82 to 97 %. It exceeds the rest
//!   from 3 MB/s on, on short paths only: on a long one, the 11 % are more. In proportion to the rate it would not be fair, and
//!   added to the rest it would be less so on long paths.
//! - **Blocks** are a third of the queue at most, in powers of two from 4096 on: a server that takes 7 kB/s gets 1920 bytes,
//!   which it needs 0.3 s for, where it does not get one larger block alone. Larger ones than 4096 grow with the square of the
//!   rate. Servers that are slow by the byte have no use for them: Prosody takes 4.7 MB/s in blocks of 4096 and 2.3 in such of
//!   65535, because it puts a long stanza together from pieces. One that takes 20 MB/s is slowed down by the number of stanzas,
//!   and ejabberd takes half as much again with the largest ones.
//! - **What is proved** bounds all of it: the window grows on what was in flight, not on what might have been, so a sender that has
//!   little to send gets no larger one. Until 16 KiB were acknowledged it does not grow at all: a rate limit lets a burst of that
//!   size pass first. After five idle seconds everything but the
//!   path's delay begins anew.
//! - **The path is measured again** when nothing has confirmed it for some seconds: the window is half of what the path holds, or
//!   one block, until a block that was sent so is acknowledged. A stream that came later, and has never seen the path without the
//!   queue of the first one, sees it then. What it finds counts if it is shorter, or longer by more than the queue by the root of the
//!   rate, and a block that was alone in flight has found it, too: two streams that took each other's queues for the path would
//!   outbid each other by turns. On a short path to a server that takes 50 MB/s one other stream's queue is just below that, and
//!   two others' are not. The price: behind a slow server a path that becomes longer by less than 0.15 s is
//!   never believed to be longer, and carries less than it could.
//! - **One block alone** takes the place of two small ones where those are all there may be, they carry less than 12 kB/s, and
//!   it carries as much ([`super::alone`]): behind a rate limit it does, and is what most other programs have in flight, for
//!   the bot's other stanzas as for the stream. The law stands still meanwhile, and what it knows about the path is of small
//!   blocks only.
//! - **A reader that pauses** looks like a server that has become very slow. The window shrinks; if what is sent in the
//!   smaller one comes back without a queue, it was a pause, and the window is what it was before.
//!
//! # Why not another one
//!
//! - *A fixed window.* The best one differs by two orders of magnitude from path to path (`bench simulate` prints it): 16 blocks of
//!   4096 bytes carry 0.3 MB/s over 200 ms where 35 MB/s are possible, and make a stanza behind a default ejabberd wait half a minute.
//! - *BBR* keeps twice of what the path holds in flight, or paces with timers. Its shortest delay includes the time that one block
//!   takes, which with 3 kB/s is a second or two, so that it would keep two to four blocks where one is enough; and it looks for
//!   more bandwidth by sending a quarter more than fits, which behind a rate limit somebody always waits for.
//! - *LEDBAT* has a queue of 100 ms as its goal: less than one block of a slow server, so that it would always think it has too
//!   much, and more than a fast one needs. It grows by a block in each round trip, which takes 50 s to fill 400 ms at 20 MB/s. And of two
//!   such streams the later one starves the first.

use std::time::{Duration, Instant};

use super::{STANZA, alone::Alone, base::Base};

/// The sizes of blocks. The smallest is the largest of which two in flight make another stanza of the bot wait less than 1.5
/// times as long as one of 4096 bytes does in the simulation. Through a real Prosody it is 1.6 to 1.7 times as long, as long as
/// they are not replaced by one alone; the first 40 s with that included, 1.1 times. Doubling keeps the size steady while the
/// rate is not.
const BLOCKS: [usize; 6] = [1920, 4096, 8192, 16384, 32768, 65535];

/// The least that may be in flight: two of the smallest blocks, so that the server has one while the other's acknowledgement is
/// on its way.
const LEAST: usize = 2 * (BLOCKS[0] + STANZA);

/// With less, two of them are all there may be.
const THREE_BLOCKS: usize = 3 * (BLOCKS[0] + STANZA);

/// The queue that we want in the server, but for what [`LEAST_SPARE`] adds to it, as a multiple of the square root of the rate in
/// bytes per second: 90 kB at 1 MB/s, 636 kB at 50 MB/s. It grows slower than the rate, so that of two streams the slower one gains
/// on the faster one.
const QUEUE: f64 = 90.0;

/// And at most what the server takes in so many seconds.
const QUEUE_TIME: f64 = 0.15;

/// What there has to be at least beyond what travels, as a multiple of the rate's power of ¾: 0.9 MB at 30 MB/s, 1.3 MB at
/// 50 MB/s. At 3 MB/s it is the same as the queue, and below that not more.
const LEAST_SPARE: f64 = 2.16;

/// The square of the rate by which a larger block begins to be worth it: 8192 at 6 MB/s, 65535 at 17 MB/s.
const BLOCK_RATE: f64 = 4.3e9;

/// What a decision's rate counts in the one that blocks are chosen by: single acknowledgements are much too fast at times.
const SMOOTHING: f64 = 0.25;

/// By how much the window grows at most while the last one has been in flight, as a multiple of it: up to [`BOLD`], and beyond
/// that, where no server is known to have a rate limit with a burst that looks like a fast path.
const GROWTH: [usize; 2] = [1, 3];
const BOLD: usize = 64 * 1024;

/// What the path may vary without being taken for a queue, as a part of its delay.
const TOLERANCE: f64 = 0.11;

/// What has to be acknowledged before more than [`LEAST`] may be in flight. Rate limits let a burst pass before they show:
/// 20 kB on the wire with a default Prosody and ejabberd.
const PROOF: usize = 16 * 1024;

/// A delay without queue that nothing has confirmed for so long is measured again. At first, and when the window has to shrink, it is
/// the shorter time, and each time twice as long: another stream may be there, and each has to see the path without the other
/// one's queue.
const BASE_AGE: [Duration; 2] = [Duration::from_millis(2500), Duration::from_secs(20)];

/// And no more often than once in so many delays: it costs one or two of them.
const MEASURED_DELAYS: u32 = 40;

/// A window of few blocks.
const FEW: usize = 2 * LEAST;

/// After such a time with nothing in flight, what the path carried is history.
const IDLE: Duration = Duration::from_secs(5);

/// What the acknowledgement of a block shows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) number: u64,
    cost: usize,
    flight: usize,
    /// In seconds.
    pub(super) delay: f64,
}

impl Sample {
    pub(super) fn new(number: u64, cost: usize, flight: usize, delay: Duration) -> Self {
        // No clock tells less apart, and nothing is divided by zero.
        Self { number, cost, flight, delay: delay.as_secs_f64().max(1e-6) }
    }

    /// Bytes in the block.
    pub(super) fn payload(&self) -> usize {
        self.cost.saturating_sub(STANZA)
    }

    /// Bytes per second while it was in flight.
    fn rate(&self) -> f64 {
        self.flight as f64 / self.delay
    }
}

/// Decides, from the delays of acknowledgements, what may be in flight.
#[derive(Debug)]
pub(super) struct Law {
    largest_block: usize,
    smallest_block: usize,
    most: usize,
    window: usize,
    /// What the window grows to, by no more than what is acknowledged.
    goal: usize,
    block: usize,
    /// What was acknowledged since the beginning, or the last idle time.
    proved: usize,
    rate: f64,
    /// The same over some decisions.
    usual_rate: f64,
    base: Option<Base>,
    /// What was acknowledged since the last decision, and the sample with the shortest delay among it.
    credit: usize,
    best: Option<Sample>,
    phase: Phase,
    /// When a window was last given back behind a stall.
    restored: Option<Instant>,
    /// After how long the delay without queue is measured again.
    base_age: Duration,
    /// What has its say where two small blocks are all there may be.
    alone: Option<Alone>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// Each decision is about the window.
    Steady,
    /// The queue is let run empty, to see the delay without it.
    Measuring { before: usize, from: u64 },
    /// Acknowledgements came much too late. Whether that is how it is from now on, or a reader that had paused, what is
    /// sent since then will show.
    Stalled { before: usize, from: u64 },
}

impl Law {
    pub(super) fn new(largest_block: usize, most: usize) -> Self {
        let [base_age, _] = BASE_AGE;
        // Where two of the smallest do not fit, one is as large as may be.
        let room = if most < LEAST { most.saturating_sub(STANZA) } else { 0 };
        let smallest_block = BLOCKS[0].max(room).min(largest_block);
        Self {
            largest_block,
            smallest_block,
            most: most.max(1),
            window: LEAST,
            goal: LEAST,
            block: smallest_block,
            proved: 0,
            rate: 0.0,
            usual_rate: 0.0,
            base: None,
            credit: 0,
            best: None,
            phase: Phase::Steady,
            restored: None,
            base_age,
            alone: Alone::new(largest_block, most, BLOCKS[0]),
        }
    }

    pub(super) fn window(&self) -> usize {
        self.alone().map_or(self.window, |block| block + STANZA).min(self.most)
    }

    pub(super) fn block(&self) -> usize {
        self.alone().unwrap_or(self.block)
    }

    /// The size of the block that is alone in flight, where one is.
    fn alone(&self) -> Option<usize> {
        self.alone.as_ref()?.block()
    }

    /// A block is sent with nothing in flight, so long after the last acknowledgement.
    pub(super) fn resume(&mut self, idle: Option<Duration>) {
        if idle.is_none_or(|idle| idle < IDLE) {
            return;
        }
        let base = self.base.take();
        *self = Self { base, ..Self::new(self.largest_block, self.most) };
    }

    /// A block was acknowledged; `next` is the number of the next one to be sent.
    pub(super) fn acknowledged(&mut self, now: Instant, next: u64, sample: Sample) {
        self.proved = self.proved.saturating_add(sample.cost);
        if let Some(alone) = self.alone.as_mut().filter(|alone| alone.block().is_some()) {
            // The law keeps what it knows about small blocks: a larger one's delay is another one.
            alone.acknowledged(now, next, &sample);
            return;
        }
        if self.window < self.goal {
            self.window = self.goal.min(self.window + self.growth() * sample.cost);
        }
        match self.phase {
            Phase::Measuring { before, from } => {
                if sample.number >= from {
                    self.remeasured(now, next, &sample, before);
                }
                return;
            }
            Phase::Stalled { from, .. } if sample.number < from => return,
            Phase::Stalled { .. } | Phase::Steady => {}
        }
        self.base.get_or_insert_with(|| Base::new(now, sample.delay)).observe(now, sample.delay);
        self.credit += sample.cost;
        if self.best.is_none_or(|best| sample.delay <= best.delay) {
            self.best = Some(sample);
        }
        if self.credit * 2 >= self.window
            && let Some(best) = self.best
        {
            self.decide(now, next, &best);
        }
        self.compare(now, next, &sample);
    }

    /// Where the window is as small as it gets, one block alone may be better.
    fn compare(&mut self, now: Instant, next: u64, sample: &Sample) {
        let Some(alone) = &mut self.alone else { return };
        match self.phase {
            _ if self.goal >= FEW => alone.forget(next),
            Phase::Steady if self.goal < THREE_BLOCKS && self.proved >= PROOF => {
                alone.few_acknowledged(now, next, sample);
            }
            Phase::Steady | Phase::Measuring { .. } | Phase::Stalled { .. } => alone.wait(next),
        }
        if alone.block().is_some() {
            self.begin(Phase::Steady);
        }
    }

    fn decide(&mut self, now: Instant, next: u64, sample: &Sample) {
        let Some(base) = &self.base else { return };
        let (path, age) = (base.delay(), base.age(now, self.window < FEW));
        let rate = sample.rate();
        self.usual_rate += (rate - self.usual_rate) * SMOOTHING;
        let fits = (rate * path + spare(rate, path)).max(LEAST as f64);
        let allowed = fits - rate * path;
        let queued = sample.flight as f64 - rate * path;
        let before = self.window;
        let phase = self.phase;
        self.begin(Phase::Steady);
        if fits < 0.7 * before as f64 {
            [self.base_age, _] = BASE_AGE;
        }
        if queued > allowed / 2.0 {
            self.rate = rate;
            self.set(fits as usize);
            if self.window < before / 2 && matches!(phase, Phase::Steady) && !self.is_restored(now, sample) {
                self.phase = Phase::Stalled { before, from: next };
            } else if age > self.base_age.max(MEASURED_DELAYS * Duration::from_secs_f64(sample.delay)) {
                self.phase = Phase::Measuring { before: self.window, from: next };
                self.set((rate * path / 2.0) as usize);
            }
        } else {
            self.rate = self.rate.max(rate);
            if let Phase::Stalled { before, .. } = phase {
                self.set(before);
                self.restored = Some(now);
            }
            self.goal = self.window.max((1 + self.growth()) * sample.flight).min(self.bound());
        }
        self.choose_block();
    }

    /// A block is back that was sent when the queue was to be empty.
    fn remeasured(&mut self, now: Instant, next: u64, sample: &Sample, before: usize) {
        let [_, longest] = BASE_AGE;
        self.base_age = longest.min(2 * self.base_age);
        self.begin(Phase::Steady);
        let allowed = queue(self.rate) / self.rate.max(1.0);
        let Some(base) = &mut self.base else { return };
        let path = base.delay();
        let is_longer = sample.delay > path * (1.0 + TOLERANCE) + allowed;
        if !is_longer {
            base.confirm(now, sample.delay);
            self.set(before);
        } else if sample.flight > sample.cost {
            // The path, or a queue of what was in flight with it? A block alone will tell.
            self.set(1);
            self.phase = Phase::Measuring { before, from: next };
        } else {
            *base = Base::new(now, sample.delay);
            self.set(LEAST);
        }
    }

    /// Whether a window was given back just now: if it was too large, it is not given back again.
    fn is_restored(&self, now: Instant, sample: &Sample) -> bool {
        let while_ago = IDLE.as_secs_f64().max(8.0 * sample.delay);
        self.restored.is_some_and(|at| now.saturating_duration_since(at).as_secs_f64() < while_ago)
    }

    fn begin(&mut self, phase: Phase) {
        self.phase = phase;
        self.credit = 0;
        self.best = None;
    }

    fn set(&mut self, window: usize) {
        self.window = window.min(self.bound());
        self.goal = self.window;
    }

    fn growth(&self) -> usize {
        let [careful, bold] = GROWTH;
        if self.window < BOLD { careful } else { bold }
    }

    /// No more than this whatever the delays say.
    fn bound(&self) -> usize {
        if self.proved < PROOF { LEAST.min(self.most) } else { self.most }
    }

    /// A third of the queue that we want, so that a window has some of them, and no more than is of use at this rate.
    fn choose_block(&mut self) {
        let [_, usual, ..] = BLOCKS;
        let useful = (self.usual_rate.powi(2) / BLOCK_RATE).max((usual + STANZA) as f64);
        let part = (queue(self.rate).min(self.window as f64) / 3.0).min(useful);
        let fits = |size: &&usize| (**size + STANZA) as f64 <= part;
        let size = BLOCKS.iter().rev().find(fits).unwrap_or(&self.smallest_block);
        // A rate that varies does not change the size back and forth.
        let steady = *size < self.block && (self.block + STANZA) as f64 * 0.75 <= part;
        if !steady {
            self.block = (*size).min(self.largest_block);
        }
    }
}

/// The queue that we want at this rate.
fn queue(rate: f64) -> f64 {
    (QUEUE * rate.sqrt()).min(QUEUE_TIME * rate)
}

/// What there may be at this rate beyond what travels on a path of so many seconds.
pub(super) fn spare(rate: f64, path: f64) -> f64 {
    let least = (LEAST_SPARE * rate.powf(0.75)).min(QUEUE_TIME * rate);
    (TOLERANCE * rate * path + queue(rate)).max(least)
}
