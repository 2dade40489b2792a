//! What the server routed, in order.

use std::{
    collections::VecDeque,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use xmpp_parsers::{jid::Jid, minidom::Element, ns};

use crate::name::Namer;

/// Stanzas kept; the oldest go first. Enough for a flow test, little enough for memory (data of in-band bytestreams is
/// not kept).
const MAX_RECORDED: usize = 100_000;

/// One stanza that the server routed, or refused to.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Counts from 0, over the life of the server.
    pub number: u64,
    /// Time since the server started.
    pub at: Duration,
    /// The sender, as the server knows it. The stanza's own `from` may differ where a test made it.
    pub from: Jid,
    /// Whom it was for: the session it was written to where it was delivered.
    pub to: Jid,
    /// The stanza as it was delivered; where it was not, as it was sent. The text of IBB `<data/>` is replaced by its length.
    pub element: Arc<Element>,
    /// For ladders, such as `iq set jingle session-initiate` or `iq result (session-initiate)`.
    pub name: Arc<str>,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Delivered as sent, with `from` stamped; or answered by the server itself.
    Delivered,
    /// Delivered as an intercept replaced it.
    Altered,
    /// Delivered, and made by a test, not by a client.
    Injected,
    /// Not delivered: an intercept dropped it.
    Dropped,
    /// Not delivered: an intercept answered it.
    Intercepted,
    /// Not delivered: nobody has this address.
    Undeliverable,
}

impl Outcome {
    /// Whether the addressee got it.
    #[must_use]
    pub fn is_delivered(self) -> bool {
        matches!(self, Self::Delivered | Self::Altered | Self::Injected)
    }
}

/// A line of a ladder: `romeo@montague.lit/orchard -> juliet@capulet.lit/balcony  iq set ibb open`, with the outcome in
/// brackets behind it unless it was simply delivered.
impl fmt::Display for Recorded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}  {}", self.from, self.to, self.name)?;
        match self.outcome {
            Outcome::Delivered => Ok(()),
            Outcome::Altered => write!(f, " [altered]"),
            Outcome::Injected => write!(f, " [injected]"),
            Outcome::Dropped => write!(f, " [dropped]"),
            Outcome::Intercepted => write!(f, " [intercepted]"),
            Outcome::Undeliverable => write!(f, " [undeliverable]"),
        }
    }
}

/// The record, bounded.
#[derive(Debug)]
pub(crate) struct Record {
    started: Instant,
    next: u64,
    entries: VecDeque<Recorded>,
    namer: Namer,
}

impl Record {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), next: 0, entries: VecDeque::new(), namer: Namer::default() }
    }

    pub(crate) fn push(&mut self, from: &Jid, to: &Jid, stanza: Element, outcome: Outcome) -> Recorded {
        let recorded = Recorded {
            number: self.next,
            at: self.started.elapsed(),
            from: from.clone(),
            to: to.clone(),
            name: self.namer.name(from, to, &stanza).into(),
            element: Arc::new(without_ibb_data(stanza)),
            outcome,
        };
        self.next += 1;
        if self.entries.len() >= MAX_RECORDED {
            self.entries.pop_front();
        }
        self.entries.push_back(recorded.clone());
        recorded
    }

    pub(crate) fn all(&self) -> Vec<Recorded> {
        self.entries.iter().cloned().collect()
    }

    /// The lines between any two resources of two accounts, in either direction.
    pub(crate) fn ladder(&self, one: &Jid, other: &Jid) -> Vec<String> {
        let (one, other) = (one.to_bare(), other.to_bare());
        let between = |entry: &&Recorded| {
            let (from, to) = (entry.from.to_bare(), entry.to.to_bare());
            (from == one && to == other) || (from == other && to == one)
        };
        self.entries.iter().filter(between).map(Recorded::to_string).collect()
    }

    pub(crate) fn clear(&mut self) {
        self.entries.clear();
    }
}

fn without_ibb_data(mut stanza: Element) -> Element {
    if let Some(data) = stanza.get_child_mut("data", ns::IBB) {
        let length = data.text().len();
        data.take_nodes();
        data.append_text(format!("[{length} characters]"));
    }
    stanza
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jid(text: &str) -> Jid {
        text.parse().unwrap()
    }

    #[test]
    fn the_payload_of_ibb_data_is_kept_only_as_its_length() {
        let mut record = Record::new();
        let data: Element = "<iq xmlns='jabber:client' type='set' id='1'>\
            <data xmlns='http://jabber.org/protocol/ibb' seq='7' sid='s'>QUJDRA==</data></iq>"
            .parse()
            .unwrap();
        let entry = record.push(&jid("a@x/1"), &jid("b@x/1"), data, Outcome::Delivered);
        let kept = entry.element.get_child("data", ns::IBB).unwrap();
        assert_eq!((kept.attr("seq"), kept.text().as_str()), (Some("7"), "[8 characters]"));
    }

    #[test]
    fn the_oldest_entries_go_first() {
        let mut record = Record::new();
        for _ in 0..MAX_RECORDED + 5 {
            record.push(
                &jid("a@x/1"),
                &jid("b@x/1"),
                Element::bare("message", ns::JABBER_CLIENT),
                Outcome::Delivered,
            );
        }
        let all = record.all();
        assert_eq!((all.len(), all[0].number), (MAX_RECORDED, 5));
    }

    #[test]
    fn a_ladder_holds_both_directions_between_two_accounts_and_nothing_else() {
        let mut record = Record::new();
        let message = || Element::bare("message", ns::JABBER_CLIENT);
        record.push(&jid("a@x/1"), &jid("b@x/1"), message(), Outcome::Delivered);
        record.push(&jid("a@x/1"), &jid("c@x/1"), message(), Outcome::Delivered);
        record.push(&jid("b@x/2"), &jid("a@x/1"), message(), Outcome::Dropped);
        assert_eq!(
            record.ladder(&jid("a@x"), &jid("b@x")),
            ["a@x/1 -> b@x/1  message", "b@x/2 -> a@x/1  message [dropped]"]
        );
    }
}
