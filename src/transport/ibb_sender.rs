//! The sending direction of an in-band bytestream: blocks, sequence numbers, the window.

use std::time::Instant;

use bytes::BytesMut;

use super::ibb_window::Window;
use crate::IbbConfig;

/// Blocks are cut from a buffer, numbered, and counted until they are acknowledged.
#[derive(Debug)]
pub(super) struct Sender {
    window: Window,
    buffer: BytesMut,
    next_seq: u16,
    /// Whether a block shorter than the window wants it may be sent.
    flush: bool,
}

/// A block to send.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) seq: u16,
    pub(super) bytes: BytesMut,
}

impl Sender {
    pub(super) fn new(block_size: u16, config: &IbbConfig) -> Self {
        let block_size = block_size.max(1);
        let window = match config.fixed_window {
            Some(blocks) => Window::fixed(block_size, blocks),
            None => Window::adaptive(block_size, config.in_flight),
        };
        Self { window, buffer: BytesMut::new(), next_seq: 0, flush: false }
    }

    /// Takes what fits into the buffer.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let room = self.window.ready().saturating_sub(self.buffer.len());
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
        let size = self.window.block();
        let full = self.buffer.len() >= size;
        let due = full || (self.flush && !self.buffer.is_empty());
        let length = size.min(self.buffer.len());
        if !due || !self.window.admits(length) {
            return None;
        }
        let bytes = self.buffer.split_to(length);
        let seq = self.next_seq;
        // XEP-0047 #send: after 65535 the counter starts again at 0.
        self.next_seq = self.next_seq.wrapping_add(1);
        self.window.sent(now, length);
        Some(Block { seq, bytes })
    }

    /// Gives back what was written and is in no block yet.
    pub(super) fn take_uncut(&mut self) -> BytesMut {
        self.buffer.split()
    }

    /// A block was acknowledged.
    pub(super) fn acknowledged(&mut self, now: Instant) {
        self.window.acknowledged(now);
    }

    /// Since when an acknowledgement is waited for.
    pub(super) fn waiting_since(&self) -> Option<Instant> {
        self.window.waiting_since()
    }

    /// What is in flight counts as sent now.
    pub(super) fn restart_clock(&mut self, now: Instant) {
        self.window.restart_clock(now);
    }

    /// Whether all that was written went out in blocks.
    pub(super) fn is_flushed(&self) -> bool {
        self.buffer.is_empty()
    }

    /// Whether all that was written was also acknowledged.
    pub(super) fn is_idle(&self) -> bool {
        self.buffer.is_empty() && self.window.is_idle()
    }

    pub(super) fn has_room(&self) -> bool {
        self.buffer.len() < self.window.ready()
    }

    #[cfg(test)]
    pub(super) fn start_at(&mut self, seq: u16) {
        self.next_seq = seq;
    }
}
