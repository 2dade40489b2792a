//! The receiving direction of an in-band bytestream: order, and acknowledgements as back-pressure.

use std::{collections::VecDeque, time::Instant};

use bytes::{Buf, Bytes};

/// What a peer may have sent beyond the receive buffer, before it counts as one that does not wait
/// for acknowledgements. No known peer has more than 16 blocks of 64 KiB in flight.
const OVERRUN_BYTES: usize = 2 * 1024 * 1024;
/// The same in blocks, for small ones.
const OVERRUN_BLOCKS: usize = 1024;

/// Length of the id of a block in bytes, which is kept until the block is acknowledged. Programs use less than 100;
/// servers let 256 KiB pass, and a thousand of those would be more than all else that a peer may have us keep.
const MAX_ID: usize = 1024;

/// Received blocks, in order, until they are read.
#[derive(Debug)]
pub(super) struct Receiver {
    blocks: VecDeque<Bytes>,
    buffered: usize,
    capacity: usize,
    expected_seq: u16,
    /// The ids of blocks whose acknowledgement is held back until the reader has caught up.
    unacknowledged: VecDeque<(String, Instant)>,
}

/// Why a block can't be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// XEP-0047 #send: a block was lost, or came twice.
    OutOfSequence { expected: u16, got: u16 },
    /// The peer does not wait for acknowledgements.
    Overrun,
    /// The id of the request is longer than anybody needs.
    LongId,
}

impl Receiver {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            blocks: VecDeque::new(),
            buffered: 0,
            capacity,
            expected_seq: 0,
            unacknowledged: VecDeque::new(),
        }
    }

    /// Whether a block is the next one, and fits.
    pub(super) fn check(&self, id: &str, seq: u16, length: usize) -> Result<(), Refused> {
        if id.len() > MAX_ID {
            return Err(Refused::LongId);
        }
        if !self.is_next(seq) {
            return Err(Refused::OutOfSequence { expected: self.expected_seq, got: seq });
        }
        let overrun = self.buffered.saturating_sub(self.capacity) + length > OVERRUN_BYTES;
        if overrun || self.unacknowledged.len() >= OVERRUN_BLOCKS {
            return Err(Refused::Overrun);
        }
        Ok(())
    }

    /// Takes a block that was checked.
    pub(super) fn take(&mut self, now: Instant, id: String, seq: u16, bytes: Vec<u8>) {
        self.expected_seq = seq.wrapping_add(1);
        self.buffered += bytes.len();
        if !bytes.is_empty() {
            self.blocks.push_back(bytes.into());
        }
        self.unacknowledged.push_back((id, now));
    }

    fn is_next(&self, seq: u16) -> bool {
        // COMPAT Libervia: counts modulo 65535, so that 0 follows 65534.
        seq == self.expected_seq || (self.expected_seq == u16::MAX && seq == 0)
    }

    /// The id of a block to acknowledge now: the reader keeps up.
    pub(super) fn next_acknowledgement(&mut self) -> Option<String> {
        if self.buffered > self.capacity { None } else { self.take_unacknowledged() }
    }

    /// The id of a block that was not acknowledged yet, whether the reader keeps up or not.
    pub(super) fn take_unacknowledged(&mut self) -> Option<String> {
        self.unacknowledged.pop_front().map(|(id, _)| id)
    }

    /// When the oldest block that was not acknowledged came, if there is room for more than the reader keeps up with.
    pub(super) fn oldest_unacknowledged(&self) -> Option<Instant> {
        let room = self.buffered < self.capacity + OVERRUN_BYTES / 2;
        self.unacknowledged.front().filter(|_| room).map(|(_, came)| *came)
    }

    /// The id of a block that came no later than that and was not acknowledged yet.
    pub(super) fn take_unacknowledged_since(&mut self, latest: Option<Instant>) -> Option<String> {
        let due = self.oldest_unacknowledged().zip(latest).is_some_and(|(came, latest)| came <= latest);
        if due { self.take_unacknowledged() } else { None }
    }

    /// Reads what is there; 0 if nothing is.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> usize {
        let mut read = 0;
        while let Some(block) = self.blocks.front_mut() {
            let rest = buffer.get_mut(read..).unwrap_or_default();
            let taken = block.len().min(rest.len());
            if taken == 0 {
                break;
            }
            if let Some(target) = rest.get_mut(..taken) {
                block.copy_to_slice(target);
            }
            read += taken;
            if block.is_empty() {
                self.blocks.pop_front();
            }
        }
        self.buffered -= read;
        read
    }

    #[cfg(test)]
    pub(super) fn start_at(&mut self, seq: u16) {
        self.expected_seq = seq;
    }
}
