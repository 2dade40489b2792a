//! The receiving direction of an in-band bytestream: order, and acknowledgements as back-pressure.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::{Buf, Bytes, BytesMut};

use super::ibb_window::{MAX_BLOCKS, MAX_IN_FLIGHT};

/// Bytes that are acknowledged at most although the reader is behind, so that the peer does not take us for dead.
const MERCY_BYTES: usize = 1024 * 1024;
/// The same each time: as many blocks as this holds, and one at least. A peer with a large window waits all the longer.
const MERCY_AT_ONCE: usize = 64 * 1024;

/// What a peer may have sent beyond the receive buffer, before it counts as one that does not wait for acknowledgements: all
/// that may be acknowledged out of mercy, and the largest window of this crate. No other known peer has more than 16 blocks of
/// 64 KiB in flight.
const OVERRUN_BYTES: usize = MERCY_BYTES + MERCY_AT_ONCE + MAX_IN_FLIGHT;
/// The same in blocks, for small ones, whose acknowledgements are to be kept in mind.
const OVERRUN_BLOCKS: usize = MAX_BLOCKS;

/// Blocks are joined while they have no more bytes than this together: a block costs more to keep than a few bytes do.
const JOINED: usize = 4096;

/// Length of the id of a block in bytes, which is kept until the block is acknowledged. Programs use less than 100;
/// servers let 256 KiB pass, and a thousand of those would be more than all else that a peer may have us keep.
const MAX_ID: usize = 1024;

/// What the in-band bytestreams of an endpoint keep together until it is read, in bytes.
///
/// From a quarter of what they may keep on, none is acknowledged more than its reader makes room for. With all of it kept,
/// those whose readers are behind take no more. One whose reader keeps up is acknowledged whatever the others do, so that none
/// waits for another.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    bytes: Arc<AtomicUsize>,
    most: usize,
}

impl Kept {
    pub(crate) fn new(most: usize) -> Self {
        Self { bytes: Arc::default(), most }
    }

    fn is_tight(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > self.most / 4
    }

    fn has_room_for(&self, bytes: usize) -> bool {
        self.bytes.load(Ordering::Relaxed).saturating_add(bytes) <= self.most
    }

    fn add(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn subtract(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Received blocks, in order, until they are read.
#[derive(Debug)]
pub(super) struct Receiver {
    blocks: VecDeque<BytesMut>,
    buffered: usize,
    capacity: usize,
    expected_seq: u16,
    /// The blocks whose acknowledgement is held back until the reader has caught up.
    unacknowledged: VecDeque<Unacknowledged>,
    /// The bytes in them.
    held: usize,
    /// When mercy was shown last.
    mercy: Option<Instant>,
    /// With those of the other bytestreams, if they are counted.
    kept: Option<Kept>,
}

#[derive(Debug)]
struct Unacknowledged {
    id: String,
    came: Instant,
    length: usize,
}

/// Why a block can't be taken.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// XEP-0047 #send: a block was lost, or came twice.
    OutOfSequence { expected: u16, got: u16 },
    /// The peer does not wait for acknowledgements.
    Overrun,
    /// The reader is behind, and all bytestreams together keep as much as they may.
    Full,
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
            held: 0,
            mercy: None,
            kept: None,
        }
    }

    /// From now on what it keeps counts among this.
    pub(super) fn count_in(&mut self, kept: &Kept) {
        if self.kept.is_none() {
            kept.add(self.buffered);
            self.kept = Some(kept.clone());
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
        let is_behind = self.buffered + length > self.capacity;
        if is_behind && self.kept.as_ref().is_some_and(|kept| !kept.has_room_for(length)) {
            return Err(Refused::Full);
        }
        Ok(())
    }

    /// Takes a block that was checked.
    pub(super) fn take(&mut self, now: Instant, id: String, seq: u16, bytes: Vec<u8>) {
        self.expected_seq = seq.wrapping_add(1);
        self.buffered += bytes.len();
        if let Some(kept) = &self.kept {
            kept.add(bytes.len());
        }
        self.held += bytes.len();
        self.unacknowledged.push_back(Unacknowledged { id, came: now, length: bytes.len() });
        match self.blocks.back_mut() {
            Some(last) if last.len() + bytes.len() <= JOINED => last.extend_from_slice(&bytes),
            _ if bytes.is_empty() => {}
            _ => self.blocks.push_back(Bytes::from(bytes).into()),
        }
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
        let block = self.unacknowledged.pop_front()?;
        self.held -= block.length;
        Some(block.id)
    }

    /// Since when the peer waits for an acknowledgement that it may be given although the reader is behind: the oldest
    /// block came, or another one was acknowledged out of mercy.
    pub(super) fn waiting_for_mercy(&self) -> Option<Instant> {
        let oldest = self.unacknowledged.front()?;
        let acknowledged = self.buffered.saturating_sub(self.held);
        let room = acknowledged < self.capacity + MERCY_BYTES;
        room.then(|| self.mercy.map_or(oldest.came, |last| last.max(oldest.came)))
    }

    /// The ids of blocks to acknowledge although the reader is behind: the peer waits since that time or longer.
    pub(super) fn show_mercy(&mut self, now: Instant, latest: Option<Instant>) -> Vec<String> {
        let mut ids = Vec::new();
        let mut bytes = 0;
        if self.waiting_for_mercy().zip(latest).is_none_or(|(since, latest)| since > latest) {
            return ids;
        }
        self.mercy = Some(now);
        if self.kept.as_ref().is_some_and(Kept::is_tight) {
            return ids;
        }
        while let Some(block) = self.unacknowledged.front()
            && latest.is_some_and(|latest| block.came <= latest)
            && (ids.is_empty() || bytes + block.length <= MERCY_AT_ONCE)
        {
            bytes += block.length;
            ids.extend(self.take_unacknowledged());
        }
        ids
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
        if let Some(kept) = &self.kept {
            kept.subtract(read);
        }
        read
    }

    #[cfg(test)]
    pub(super) fn start_at(&mut self, seq: u16) {
        self.expected_seq = seq;
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if let Some(kept) = &self.kept {
            kept.subtract(self.buffered);
        }
    }
}
