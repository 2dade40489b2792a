//! The sending direction of an in-band bytestream: blocks, sequence numbers, the window.

use std::{mem, time::Instant};

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
    writer: Writer,
}

/// Who writes. Whether it waits can't be told from the buffer: what is kept ready follows the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writer {
    Free,
    /// Not all that it wanted to write was taken.
    Waiting,
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
        Self { window, buffer: BytesMut::new(), next_seq: 0, flush: false, writer: Writer::Free }
    }

    /// Takes what fits into the buffer.
    pub(super) fn write(&mut self, bytes: &[u8]) -> usize {
        let room = self.window.ready().saturating_sub(self.buffer.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.buffer.extend_from_slice(taken);
        self.flush = false;
        if taken.len() < bytes.len() {
            self.writer = Writer::Waiting;
        }
        taken.len()
    }

    /// Whether a writer that waited can go on now. It is told once.
    pub(super) fn frees_writer(&mut self) -> bool {
        let frees = self.writer == Writer::Waiting && self.buffer.len() < self.window.ready();
        if frees {
            self.writer = Writer::Free;
        }
        frees
    }

    /// From now on, what is in the buffer goes out in blocks however short.
    pub(super) fn flush(&mut self) {
        self.flush = true;
    }

    /// The next block that the window and the flush mark let go.
    pub(super) fn next_block(&mut self, now: Instant) -> Option<Block> {
        self.window.resume(now);
        let size = self.window.block();
        let full = self.buffer.len() >= size;
        let due = full || (self.flush && !self.buffer.is_empty());
        let length = size.min(self.buffer.len());
        if !due || !self.window.admits(length) {
            return None;
        }
        let bytes = self.cut(length);
        let seq = self.next_seq;
        // XEP-0047 #send: after 65535 the counter starts again at 0.
        self.next_seq = self.next_seq.wrapping_add(1);
        self.window.sent(now, length);
        Some(Block { seq, bytes })
    }

    /// The front of the buffer. With the last of it goes the memory that it had grown to.
    fn cut(&mut self, length: usize) -> BytesMut {
        if length < self.buffer.len() { self.buffer.split_to(length) } else { self.take_uncut() }
    }

    /// Gives back what was written and is in no block yet.
    pub(super) fn take_uncut(&mut self) -> BytesMut {
        mem::take(&mut self.buffer)
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

    #[cfg(test)]
    pub(super) fn start_at(&mut self, seq: u16) {
        self.next_seq = seq;
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::VecDeque, time::Duration};

    use super::*;

    #[test]
    fn a_buffer_that_is_empty_keeps_no_memory() {
        let (mut sender, now) = (Sender::new(4096, &IbbConfig::default()), Instant::now());
        sender.write(&[0; 50_000]);
        sender.flush();
        while !sender.is_idle() {
            while sender.next_block(now).is_some() {}
            sender.acknowledged(now);
        }
        assert_eq!(sender.buffer.capacity(), 0);
    }

    /// A writer that waits is told, whatever the window has become meanwhile: what is kept ready grows with it.
    #[test]
    fn who_waits_to_write_goes_on_until_all_is_written() {
        const PIECE: [u8; 10_000] = [0; 10_000];
        for round_trip in [1, 10, 50, 200] {
            let (mut sender, mut now) = (Sender::new(65535, &IbbConfig::default()), Instant::now());
            let (mut left, mut is_free, mut in_flight) = (500, true, VecDeque::new());
            while left > 0 || !sender.is_idle() {
                let mut begun = 0;
                while is_free && left > 0 {
                    let piece = PIECE.get(begun..).unwrap();
                    let taken = sender.write(piece);
                    is_free = taken == piece.len();
                    begun = if is_free { 0 } else { begun + taken };
                    left -= usize::from(is_free);
                    if left == 0 {
                        sender.flush();
                    }
                }
                while sender.next_block(now).is_some() {
                    in_flight.push_back(now + Duration::from_millis(round_trip));
                }
                is_free |= sender.frees_writer();
                if let Some(at) = in_flight.pop_front() {
                    now = now.max(at);
                    sender.acknowledged(now);
                } else {
                    assert!(is_free, "{round_trip} ms: stuck with {left} pieces left");
                }
            }
        }
    }
}
