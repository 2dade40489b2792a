//! What was sent and what was received, as XEP-0198 counts it (#acking).

use std::{collections::VecDeque, time::Instant};

use xmpp_parsers::stanza::Stanza;

use super::{inbox::IDLE_STANZAS, machine::management::ReceiptSender};
use crate::{Error, SmConfig};

/// Whose a stanza is.
#[derive(Debug)]
pub(super) enum Origin {
    /// The user's, who may wait for its acknowledgement.
    User(Option<ReceiptSender>),
    /// A request of the user's: whoever waits for its reply learns what becomes of it.
    Request,
    /// The stream's own.
    Automatic,
}

/// A stanza that was sent and not acknowledged.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) stanza: Stanza,
    pub(super) bytes: usize,
    pub(super) origin: Origin,
}

/// The stanzas that the peer has not acknowledged, the oldest first.
#[derive(Debug)]
pub(super) struct Outgoing {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// Bytes of the stream's own stanzas among them.
    automatic: usize,
    /// How many at the front went out before counting began.
    early: usize,
    /// Acknowledged stanzas that were counted.
    acked: u64,
    asking: Asking,
}

/// When the peer is asked what it has handled.
#[derive(Clone, Copy, Debug)]
struct Asking {
    /// Stanzas that no request is behind.
    uncovered: u32,
    /// When one has to be, for the first of these.
    due: Option<Instant>,
    /// When to ask again about those that the last answer left open.
    again: Option<Instant>,
    question: Question,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Answered,
    Open,
}

/// The peer claims to have handled what was never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooHigh {
    pub(super) h: u32,
    pub(super) sent: u32,
}

/// What an entry's sender gets when the stream has come to an end.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// The user's.
    pub(super) stanzas: Vec<Stanza>,
    receipts: Vec<ReceiptSender>,
}

impl Outgoing {
    pub(super) fn new() -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            automatic: 0,
            early: 0,
            acked: 0,
            asking: Asking { uncovered: 0, due: None, again: None, question: Question::Answered },
        }
    }

    /// A stanza was queued for writing.
    pub(super) fn push(&mut self, now: Instant, entry: Entry, config: &SmConfig) {
        self.bytes += entry.bytes;
        if matches!(entry.origin, Origin::Automatic) {
            self.automatic += entry.bytes;
        }
        self.entries.push_back(entry);
        self.asking.uncovered = self.asking.uncovered.saturating_add(1);
        self.asking.due.get_or_insert(now + config.request_within);
    }

    /// Counting begins: what is here went out before.
    pub(super) fn begin_counting(&mut self) {
        self.early = self.entries.len();
    }

    /// Takes `<a/>`, or the `h` of a resumption; says how many stanzas that were not acknowledged are now.
    ///
    /// A count below the last one is too high as well: it can only mean that the peer went once around.
    pub(super) fn acknowledge(&mut self, h: u32) -> Result<usize, TooHigh> {
        let counted = self.entries.len() - self.early;
        let handled = h.wrapping_sub(self.acked as u32);
        let handled_count = usize::try_from(handled).unwrap_or(usize::MAX);
        if handled_count > counted {
            let sent = (self.acked as u32).wrapping_add(counted as u32);
            return Err(TooHigh { h, sent });
        }
        let count = self.early + handled_count;
        self.early = 0;
        self.acked = self.acked.wrapping_add(u64::from(handled));
        for _ in 0..count {
            if let Some(Origin::User(Some(receipt))) = self.pop().map(|entry| entry.origin) {
                // Whoever dropped its receipt does not want to know.
                let _ = receipt.send(Ok(()));
            }
        }
        self.asking.question = Question::Answered;
        if self.entries.is_empty() {
            self.entries.shrink_to(IDLE_STANZAS);
            self.asking.uncovered = 0;
            (self.asking.due, self.asking.again) = (None, None);
        }
        Ok(count)
    }

    /// What an answer left open is asked about again after a while: not every peer tells unasked.
    pub(super) fn ask_again(&mut self, now: Instant, config: &SmConfig) {
        if !self.entries.is_empty() && self.asking.uncovered == 0 {
            self.asking.again.get_or_insert(now + config.request_within);
        }
    }

    /// Whether the peer has acknowledged more than this before, so that it is old news. Of two counts on a circle, the one
    /// behind is the one with the shorter way to the other.
    pub(super) fn is_outdated(&self, h: u32) -> bool {
        let behind = (self.acked as u32).wrapping_sub(h);
        (1..=u32::MAX / 2).contains(&behind)
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.bytes -= entry.bytes;
        if matches!(entry.origin, Origin::Automatic) {
            self.automatic -= entry.bytes;
        }
        Some(entry)
    }

    /// Whether an acknowledgement should be asked for now: after many stanzas or after a while, unless the last question is
    /// open.
    pub(super) fn is_request_due(&self, now: Instant, config: &SmConfig, is_half_full: bool) -> bool {
        let Asking { uncovered, due, again, question } = self.asking;
        let is_time = [due, again].into_iter().flatten().any(|due| due <= now);
        question == Question::Answered
            && (is_time || uncovered >= config.request_after || (is_half_full && uncovered > 0))
    }

    pub(super) fn next_request(&self) -> Option<Instant> {
        let Asking { due, again, question, .. } = self.asking;
        [due, again].into_iter().flatten().min().filter(|_| question == Question::Answered)
    }

    /// `<r/>` was queued.
    pub(super) fn handle_requested(&mut self) {
        self.asking = Asking { uncovered: 0, due: None, again: None, question: Question::Open };
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn automatic_bytes(&self) -> usize {
        self.automatic
    }

    /// All of them, to be sent again.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter()
    }

    /// Nothing more of this will be acknowledged.
    pub(super) fn into_leftovers(mut self) -> Leftovers {
        self.take_leftovers()
    }

    /// The same, where more is to come.
    pub(super) fn take_leftovers(&mut self) -> Leftovers {
        let mut leftovers = Leftovers::default();
        while let Some(Entry { stanza, origin, .. }) = self.pop() {
            if let Origin::User(receipt) = origin {
                leftovers.stanzas.push(stanza);
                leftovers.receipts.extend(receipt);
            }
        }
        self.early = 0;
        leftovers
    }

    /// As [`Self::take_leftovers`], to be sent on another stream.
    pub(super) fn into_entries(self) -> VecDeque<Entry> {
        self.entries
    }

    /// As if so many had been acknowledged before.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, acked: u32) {
        self.acked = u64::from(acked);
    }
}

impl Leftovers {
    /// Whoever waits for an acknowledgement will not get it.
    pub(super) fn fail_receipts(&mut self, error: &Error) {
        for receipt in self.receipts.drain(..) {
            let _ = receipt.send(Err(error.clone()));
        }
    }
}

/// The place of a stanza among all that were counted, from 1; 0 if it was not counted.
pub(super) type Number = u64;

/// What came, and how much of it was handled.
#[derive(Debug)]
pub(super) struct Incoming {
    received: u64,
    /// What the peer was told last.
    told: Option<u64>,
    /// The peer asked when so many were received and not all handled; it will be told once they are.
    owed: Option<u64>,
    /// More will never be handled: it was thrown away unread.
    ceiling: Option<u64>,
    /// So many will be sent again that are here already.
    duplicates: u64,
}

impl Incoming {
    pub(super) fn new() -> Self {
        Self { received: 0, told: None, owed: None, ceiling: None, duplicates: 0 }
    }

    /// A stanza came; `None` if it came before.
    pub(super) fn count(&mut self) -> Option<Number> {
        if let Some(left) = self.duplicates.checked_sub(1) {
            self.duplicates = left;
            return None;
        }
        self.received += 1;
        Some(self.received)
    }

    /// How many are handled, if this is the oldest that nobody has taken. What the peer was told can't be taken back.
    fn handled(&self, unread: Option<Number>) -> u64 {
        let taken = unread.map_or(self.received, |number| number.saturating_sub(1));
        let handled = self.ceiling.map_or(taken, |ceiling| taken.min(ceiling));
        handled.max(self.told.unwrap_or(0))
    }

    /// What is unread now will not be handled, though it is thrown away.
    pub(super) fn abandon(&mut self, unread: Option<Number>) {
        self.ceiling = Some(self.handled(unread));
    }

    /// What the peer is told now.
    pub(super) fn tell(&mut self, unread: Option<Number>) -> u32 {
        let handled = self.handled(unread);
        self.told = Some(handled);
        self.owed = self.owed.filter(|owed| *owed > handled);
        handled as u32
    }

    /// The peer asked; what it is told.
    pub(super) fn answer(&mut self, unread: Option<Number>) -> u32 {
        let h = self.tell(unread);
        self.owed = (self.handled(unread) < self.received).then_some(self.received);
        h
    }

    /// Whether the peer should be told without being asked: much was handled, or what it asked about.
    pub(super) fn is_due(&self, unread: Option<Number>, every: u32) -> bool {
        let handled = self.handled(unread);
        let news = handled.saturating_sub(self.told.unwrap_or(0));
        news >= u64::from(every) || (news > 0 && self.owed.is_some_and(|owed| owed <= handled))
    }

    /// Whether the peer does not know how many are handled.
    pub(super) fn is_untold(&self, unread: Option<Number>) -> bool {
        self.told != Some(self.handled(unread))
    }

    /// A resumption was agreed on, for which the peer was told this: it sends again all that is behind.
    pub(super) fn resumed_at(&mut self, h: u32) {
        self.duplicates = u64::from((self.received as u32).wrapping_sub(h));
        self.owed = (self.duplicates > 0).then_some(self.received);
    }

    /// As if so many had been received and handled before.
    #[cfg(test)]
    pub(super) fn start_at(&mut self, received: u32) {
        self.received = u64::from(received);
    }
}
