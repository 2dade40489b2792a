//! Stanzas that wait for the user.

use std::collections::VecDeque;

use xmpp_parsers::stanza::Stanza;

use super::acks::Number;

/// Stanzas that an empty queue keeps room for: as many as come and go together, where nobody is behind.
pub(super) const IDLE_STANZAS: usize = 16;

/// A queue that knows the size of what it holds: bytes as they were on the wire, and what every stanza takes however
/// small it is.
#[derive(Debug)]
pub(super) struct Inbox {
    stanzas: VecDeque<Received>,
    /// How many at the front were not counted for acknowledgements.
    uncounted: usize,
    bytes: usize,
    limit: usize,
}

#[derive(Debug)]
struct Received {
    stanza: Stanza,
    bytes: usize,
    number: Number,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { stanzas: VecDeque::new(), uncounted: 0, bytes: 0, limit }
    }

    pub(super) fn push(&mut self, stanza: Stanza, bytes: usize, number: Number) {
        // Without it, a million bytes of `<message/>` would be a hundred thousand stanzas.
        let bytes = bytes + size_of::<Stanza>();
        self.bytes += bytes;
        if number == 0 {
            self.uncounted = self.stanzas.len() + 1;
        }
        self.stanzas.push_back(Received { stanza, bytes, number });
    }

    pub(super) fn pop(&mut self) -> Option<Stanza> {
        let Received { stanza, bytes, .. } = self.stanzas.pop_front()?;
        if self.stanzas.is_empty() {
            self.stanzas.shrink_to(IDLE_STANZAS);
        }
        self.bytes -= bytes;
        self.uncounted = self.uncounted.saturating_sub(1);
        Some(stanza)
    }

    /// The oldest that was counted.
    pub(super) fn oldest(&self) -> Option<Number> {
        self.stanzas.get(self.uncounted).map(|received| received.number)
    }

    /// Counting begins anew, with what came on another stream.
    pub(super) fn append(&mut self, other: &mut Self) {
        self.uncounted = self.stanzas.len() + other.uncounted;
        self.bytes += other.bytes;
        self.stanzas.append(&mut other.stanzas);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stanzas.is_empty()
    }

    /// Reading should pause. What was read before may still come in.
    pub(super) fn is_full(&self) -> bool {
        self.is_full_beyond(0)
    }

    /// The same, with so many bytes more than usual.
    pub(super) fn is_full_beyond(&self, reserve: usize) -> bool {
        self.bytes >= self.limit.saturating_add(reserve)
    }

    /// Reading should go on: not for each stanza that leaves, but when there is room for some.
    pub(super) fn has_room(&self) -> bool {
        self.bytes <= self.limit / 2
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.stanzas.capacity()
    }

    pub(super) fn clear(&mut self) {
        self.stanzas.clear();
        self.uncounted = 0;
        self.bytes = 0;
    }
}
