//! The sending direction of an in-band bytestream: blocks, sequence numbers, the window.

use std::{collections::VecDeque, time::Instant};

use bytes::BytesMut;

/// Bytes that may wait for the window; a writer that is ahead of it waits. Four blocks of the
/// largest size.
const SEND_BUFFER: usize = 256 * 1024;

/// Blocks are cut from a buffer, numbered, and counted until they are acknowledged.
#[derive(Debug)]
pub(super) struct Sender {
    block_size: usize,
    window: usize,
    buffer: BytesMut,
    next_seq: u16,
    /// When each block in flight was sent, oldest first.
    in_flight: VecDeque<Instant>,
    /// Whether a block shorter than `block_size` may be sent.
    flush: bool,
}

/// A block to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) seq: u16,
    pub(super) bytes: BytesMut,
}

impl Sender {
    pub(super) fn new(block_size: u16, window: usize) -> Self {
        Self {
            block_size: usize::from(block_size.max(1)),
            window: window.max(1),
            buffer: BytesMut::new(),
            next_seq: 0,
            in_flight: VecDeque::new(),
            flush: false,
        }
    }

    /// Takes what fits into the buffer.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let room = SEND_BUFFER.saturating_sub(self.buffer.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        self.flush = false;
        taken.len()
    }

    /// From now on, what is in the buffer goes out in blocks however short.
    pub(super) fn flush(&mut self) {
        self.flush = true;
    }

    /// The next block that the window and the flush mark let go.
    pub(super) fn next_block(&mut self, now: Instant) -> Option<Block> {
        let full = self.buffer.len() >= self.block_size;
        let due = full || (self.flush && !self.buffer.is_empty());
        if !due || self.in_flight.len() >= self.window {
            return None;
        }
        let bytes = self.buffer.split_to(self.block_size.min(self.buffer.len()));
        let seq = self.next_seq;
        // XEP-0047 #send: after 65535 the counter starts again at 0.
        self.next_seq = self.next_seq.wrapping_add(1);
        self.in_flight.push_back(now);
        Some(Block { seq, bytes })
    }

    /// Gives back what was written and is in no block yet.
    pub(super) fn take_uncut(&mut self) -> BytesMut {
        self.buffer.split()
    }

    /// A block was acknowledged. Only the number in flight matters: a receiver that acknowledges
    /// out of order is no reason to send otherwise.
    pub(super) fn acknowledged(&mut self) {
        self.in_flight.pop_front();
    }

    /// When the oldest block in flight was sent.
    pub(super) fn oldest_in_flight(&self) -> Option<Instant> {
        self.in_flight.front().copied()
    }

    /// What is in flight counts as sent now.
    pub(super) fn restart_clock(&mut self, now: Instant) {
        self.in_flight.iter_mut().for_each(|sent| *sent = now);
    }

    /// Whether all that was written went out in blocks.
    pub(super) fn is_flushed(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether all that was written was also acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.buffer.is_empty() && self.in_flight.is_empty()
    }

    pub(super) fn has_room(&self) -> bool {
        self.buffer.len() < SEND_BUFFER
    }

    #[cfg(test)]
    pub(super) fn start_at(&mut self, seq: u16) {
        self.next_seq = seq;
    }
}
