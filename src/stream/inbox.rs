//! Stanzas that wait for the user.

use std::collections::VecDeque;

use xmpp_parsers::stanza::Stanza;

/// A queue that knows the size of what it holds: bytes as they were on the wire, and what every stanza takes however
/// small it is.
#[derive(Debug)]
pub(super) struct Inbox {
    stanzas: VecDeque<(Stanza, usize)>,
    bytes: usize,
    limit: usize,
}

impl Inbox {
    pub(super) fn new(limit: usize) -> Self {
        Self { stanzas: VecDeque::new(), bytes: 0, limit }
    }

    pub(super) fn push(&mut self, stanza: Stanza, bytes: usize) {
        // Without it, a million bytes of `<message/>` would be a hundred thousand stanzas.
        let bytes = bytes + size_of::<Stanza>();
        self.bytes += bytes;
        self.stanzas.push_back((stanza, bytes));
    }

    pub(super) fn pop(&mut self) -> Option<Stanza> {
        let (stanza, bytes) = self.stanzas.pop_front()?;
        self.bytes -= bytes;
        Some(stanza)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.stanzas.is_empty()
    }

    /// Reading should pause. What was read before may still come in.
    pub(super) fn is_full(&self) -> bool {
        self.bytes >= self.limit
    }

    /// Reading should go on: not for each stanza that leaves, but when there is room for some.
    pub(super) fn has_room(&self) -> bool {
        self.bytes <= self.limit / 2
    }

    pub(super) fn clear(&mut self) {
        self.stanzas.clear();
        self.bytes = 0;
    }
}
