//! The contacts who may call ([`Callers::Roster`]), as the own server has them (RFC 6121 §2).

use std::{collections::HashSet, time::Instant};

use jid::{BareJid, Jid};
use xmpp_parsers::{iq::Iq, minidom::Element, stanza_error::StanzaError};

use super::{Output, Purpose, Sessions};
use crate::{Callers, wire::ns};

/// Contacts that are kept: more than anybody has who is no service, and with JIDs of usual length a megabyte or two.
/// Those beyond may not call.
pub(super) const MAX_CONTACTS: usize = 16_384;

/// Those who may see our presence.
#[derive(Debug, Default)]
pub(super) enum Roster {
    /// It was not asked for, or has not come, or can't be had.
    #[default]
    Missing,
    Here(HashSet<BareJid>),
}

/// A contact, and whether it may see our presence.
struct Contact {
    jid: BareJid,
    sees_us: bool,
}

impl Sessions {
    /// RFC 6121 §2.1.3: upon connecting. What an earlier session with the server knew may be out of date.
    pub(super) fn ask_for_roster(&mut self, now: Instant) {
        self.roster = Roster::Missing;
        if !matches!(self.config.callers, Callers::Roster) {
            return;
        }
        let timeout = self.config.timeouts.iq;
        let id = self.requests.add(None, Purpose::Roster, Some((now + timeout, timeout)));
        self.wake_no_later_than(now + timeout);
        let payload = Element::bare("query", ns::ROSTER);
        self.outputs.push_back(Output::Send(Iq::Get { from: None, to: None, id, payload }.into()));
    }

    /// The answer to our request, or that there is none.
    pub(super) fn handle_roster(&mut self, reply: Result<Option<Element>, StanzaError>) {
        match reply {
            Ok(Some(query)) if query.is("query", ns::ROSTER) => self.roster = Roster::read(&query),
            Ok(_) => tracing::warn!("the server's answer is no roster: nobody may call"),
            Err(error) => {
                let condition = error.defined_condition;
                tracing::warn!(?condition, "the server gave no roster: nobody may call");
            }
        }
    }

    /// Takes a change of the roster. Only the own account's is one (RFC 6121 §2.1.6): anybody else who sends it would like to
    /// be let in.
    pub(super) fn handle_push(&mut self, from: Option<&Jid>, payload: &Element) {
        let Roster::Here(contacts) = &mut self.roster else { return };
        let own = self.bound.as_ref().map(|own| Jid::from(own.to_bare()));
        if !payload.is("query", ns::ROSTER) || from.is_some_and(|from| own.as_ref() != Some(from)) {
            return;
        }
        // There is one item in a push (RFC 6121 §2.1.6).
        let mut items = payload.children();
        let (Some(Contact { jid, sees_us }), None) = (items.next().and_then(Contact::read), items.next())
        else {
            return;
        };
        if !sees_us {
            contacts.remove(&jid);
        } else if contacts.len() < MAX_CONTACTS {
            contacts.insert(jid);
        } else if !contacts.contains(&jid) {
            tracing::debug!(contact = %jid, "more than {MAX_CONTACTS} contacts: this one may not call");
        }
    }
}

impl Roster {
    fn read(query: &Element) -> Self {
        let sees_us = |contact: &Contact| contact.sees_us;
        let mut all = query.children().filter_map(Contact::read).filter(sees_us).map(|contact| contact.jid);
        let contacts: HashSet<_> = all.by_ref().take(MAX_CONTACTS).collect();
        match all.count() {
            0 => tracing::debug!(count = contacts.len(), "the roster says who may call"),
            more => tracing::warn!(more, "more than {MAX_CONTACTS} contacts: these may not call"),
        }
        Self::Here(contacts)
    }

    pub(super) fn has(&self, contact: &BareJid) -> bool {
        matches!(self, Self::Here(contacts) if contacts.contains(contact))
    }
}

impl Contact {
    /// Leniently: what a server adds to an item must not cost the others.
    fn read(item: &Element) -> Option<Self> {
        let jid = item.attr("jid").filter(|_| item.is("item", ns::ROSTER))?.parse().ok()?;
        Some(Self { jid, sees_us: matches!(item.attr("subscription"), Some("from" | "both")) })
    }
}
