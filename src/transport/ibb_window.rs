//! How much of an in-band bytestream may be in flight, and in blocks of what size, sans-IO.
//!
//! A [`Window`] is told of each block that is sent and of each acknowledgement, and says whether the next one may follow.
//! The law behind it, with its constants and the reasons for them, is in [`law`].

use std::{collections::VecDeque, time::Instant};

use self::law::{Law, Sample};

mod alone;
mod base;
pub(crate) mod law;
#[cfg(test)]
mod tests;

/// What a block costs beyond its bytes, in bytes before base64: the stanza around it is some 200 bytes long on the wire.
const STANZA: usize = 150;

/// Blocks in flight at most: what the receiver keeps about each of them is bounded, too. Enough for 4 MiB in blocks of the
/// 4096 bytes that other programs offer.
pub(crate) const MAX_BLOCKS: usize = 1024;

/// Bytes in flight at most. It fills 400 ms at 20 MB/s; the receiver has to be ready for as much when its user pauses.
pub(crate) const MAX_IN_FLIGHT: usize = 8 * 1024 * 1024;

/// Bytes that are worth keeping ready for the window at least: the largest block.
const LEAST_READY: usize = 64 * 1024;
/// The same at most: more only adds to what is copied ahead of time.
const MOST_READY: usize = 1024 * 1024;

/// The blocks in flight, and how many there may be.
#[derive(Debug)]
pub(crate) struct Window {
    rule: Rule,
    blocks: VecDeque<Sent>,
    /// What the blocks in flight cost.
    in_flight: usize,
    /// The number of the next block, from the beginning of the bytestream.
    next: u64,
    last_acknowledged: Option<Instant>,
}

#[derive(Debug)]
enum Rule {
    Adaptive(Box<Law>),
    Fixed { blocks: usize, size: usize },
}

/// A block in flight.
#[derive(Debug)]
struct Sent {
    at: Instant,
    cost: usize,
    /// What was in flight when it was sent, itself included.
    flight: usize,
    timing: Timing,
}

/// Whether the delay of a block's acknowledgement says something about the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Timing {
    True,
    /// The path was away in between.
    Broken,
}

impl Window {
    /// A window that adapts to the path, with blocks of at most that size, and so many bytes in flight.
    pub(crate) fn adaptive(block_size: u16, in_flight: usize) -> Self {
        let law = Law::new(block_size.into(), in_flight.min(MAX_IN_FLIGHT));
        Self::new(Rule::Adaptive(Box::new(law)))
    }

    /// A window of so many blocks, all of that size.
    pub(crate) fn fixed(block_size: u16, blocks: usize) -> Self {
        let largest = (MAX_IN_FLIGHT / usize::from(block_size.max(1))).min(MAX_BLOCKS);
        Self::new(Rule::Fixed { blocks: blocks.clamp(1, largest), size: usize::from(block_size.max(1)) })
    }

    fn new(rule: Rule) -> Self {
        Self { rule, blocks: VecDeque::new(), in_flight: 0, next: 0, last_acknowledged: None }
    }

    /// The size of the next block, in bytes.
    pub(crate) fn block(&self) -> usize {
        match &self.rule {
            Rule::Adaptive(law) => law.block(),
            Rule::Fixed { size, .. } => *size,
        }
    }

    /// Whether a block with so many bytes may be sent now.
    pub(crate) fn admits(&self, bytes: usize) -> bool {
        match &self.rule {
            _ if self.blocks.is_empty() => true,
            Rule::Adaptive(law) => {
                self.blocks.len() < MAX_BLOCKS && self.in_flight + bytes + STANZA <= law.window()
            }
            Rule::Fixed { blocks, .. } => self.blocks.len() < *blocks,
        }
    }

    /// Before a block is cut: behind an idle time, it is a small one.
    pub(crate) fn resume(&mut self, now: Instant) {
        if let (Rule::Adaptive(law), true) = (&mut self.rule, self.blocks.is_empty()) {
            law.resume(self.last_acknowledged.map(|last| now.saturating_duration_since(last)));
        }
    }

    /// A block with so many bytes is sent.
    pub(crate) fn sent(&mut self, now: Instant, bytes: usize) {
        let cost = bytes + STANZA;
        self.in_flight += cost;
        self.next += 1;
        self.blocks.push_back(Sent { at: now, cost, flight: self.in_flight, timing: Timing::True });
    }

    /// The oldest block in flight is acknowledged. A receiver that acknowledges in another order is no reason to do
    /// otherwise.
    pub(crate) fn acknowledged(&mut self, now: Instant) {
        let Some(block) = self.blocks.pop_front() else { return };
        self.in_flight -= block.cost;
        self.last_acknowledged = Some(now);
        let (Rule::Adaptive(law), Timing::True) = (&mut self.rule, block.timing) else { return };
        let delay = now.saturating_duration_since(block.at);
        let number = self.next - self.blocks.len() as u64 - 1;
        law.acknowledged(now, self.next, Sample::new(number, block.cost, block.flight, delay));
    }

    /// Since when an acknowledgement is waited for: the oldest block was sent, or another one acknowledged. A window that
    /// was right before the server became slow takes its time, and each acknowledgement shows that it goes on.
    pub(crate) fn waiting_since(&self) -> Option<Instant> {
        let oldest = self.blocks.front()?.at;
        Some(self.last_acknowledged.map_or(oldest, |last| last.max(oldest)))
    }

    /// What is in flight counts as sent now, and says nothing about delays.
    pub(crate) fn restart_clock(&mut self, now: Instant) {
        for block in &mut self.blocks {
            block.at = now;
            block.timing = Timing::Broken;
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Bytes worth keeping ready to be sent: two windows, in bounds. What waits behind a slow server should wait in the
    /// hands of whoever wrote it.
    pub(crate) fn ready(&self) -> usize {
        let window = match &self.rule {
            Rule::Adaptive(law) => law.window(),
            Rule::Fixed { blocks, size } => blocks.saturating_mul(*size),
        };
        window.saturating_mul(2).clamp(LEAST_READY, MOST_READY)
    }
}
