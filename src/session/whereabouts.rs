//! Where the peers of lost streams are, and that they know where we are.
//!
//! After a loss either side may come back under another full JID. Presence tells: each sends it to the other directly, so that
//! no subscription is needed, and whoever sees the other for the first time answers.

use std::{collections::HashMap, time::Instant};

use jid::{BareJid, FullJid, Jid};
use xmpp_parsers::presence::{Presence, Type as PresenceType};

use super::{Output, Sessions};
use crate::disco::Lookup;

/// Full JIDs of one account that are remembered, of where it was and of where it was seen each. Servers let an account have
/// about ten at the same time.
pub(super) const MAX_PLACES: usize = 16;

/// The accounts that are looked out for: one at most for each stream that was lost.
#[derive(Debug, Default)]
pub(super) struct Lookouts(HashMap<BareJid, Lookout>);

/// What is known about where an account is.
#[derive(Debug, Default)]
struct Lookout {
    /// How many streams with it are lost.
    streams: usize,
    /// Where it was when they were, unless it has left there; the newest last.
    last: Vec<FullJid>,
    /// Where it was seen since; the newest last.
    seen: Vec<FullJid>,
}

#[cfg(test)]
impl Lookouts {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Sessions {
    /// A stream to this peer was lost: from now on it is remembered where the peer shows up, and the peer is told where we are
    /// (directed presence, RFC 6121 §4.6), whenever one of us has a new full JID. To be called once for each stream.
    pub(crate) fn look_out_for(&mut self, _now: Instant, peer: &FullJid) {
        let account = peer.to_bare();
        let lookout = self.lookouts.0.entry(account.clone()).or_default();
        lookout.streams += 1;
        let (first, known) = (lookout.streams == 1, lookout.last.contains(peer));
        add(&mut lookout.last, peer);
        if first {
            self.show_presence(account.into());
        }
        if !known {
            self.show_presence(peer.clone().into());
        }
    }

    /// That stream goes on, or is given up.
    pub(crate) fn stop_looking_out_for(&mut self, peer: &BareJid) {
        let Some(lookout) = self.lookouts.0.get_mut(peer) else { return };
        lookout.streams -= 1;
        if lookout.streams == 0 {
            self.lookouts.0.remove(peer);
        }
    }

    /// Under which full JIDs the peer may be reached, the best guess first: where it was last, then where it was seen since.
    ///
    /// Of the latter, those that have announced all that a stream needs come first, then the newest. If the peer has left where
    /// it was last, that comes at the end: its server may be mistaken.
    pub(crate) fn whereabouts(&self, peer: &FullJid) -> Vec<FullJid> {
        let Some(lookout) = self.lookouts.0.get(&peer.to_bare()) else { return vec![peer.clone()] };
        let mut seen: Vec<_> = lookout.seen.iter().rev().filter(|place| *place != peer).cloned().collect();
        seen.sort_by_key(|place| !matches!(self.disco.lookup(place), Lookup::Known(_)));
        let may_be_there = lookout.last.contains(peer) || lookout.seen.contains(peer);
        seen.insert(if may_be_there { 0 } else { seen.len() }, peer.clone());
        seen
    }

    /// Learns where a peer is from its presence. An answer goes to each place once.
    pub(super) fn note_whereabouts(&mut self, presence: &Presence) {
        let Some(from) = presence.from.as_ref().and_then(|from| from.try_as_full().ok()) else { return };
        if self.lookouts.0.is_empty() {
            return;
        }
        let Some(lookout) = self.lookouts.0.get_mut(&from.to_bare()) else { return };
        match presence.type_ {
            PresenceType::None => {
                let known = lookout.seen.contains(from);
                add(&mut lookout.seen, from);
                if !known {
                    self.show_presence(from.clone().into());
                }
            }
            PresenceType::Unavailable | PresenceType::Error => {
                lookout.last.retain(|place| place != from);
                lookout.seen.retain(|place| place != from);
            }
            _ => {}
        }
    }

    /// We have a new session with the server, so that nobody knows any more where we are.
    pub(super) fn announce_whereabouts(&mut self) {
        let accounts = self.lookouts.0.iter();
        let told: Vec<_> = accounts
            .flat_map(|(account, lookout)| {
                let places = lookout.last.iter().cloned().map(Jid::from);
                std::iter::once(Jid::from(account.clone())).chain(places)
            })
            .collect();
        for to in told {
            self.show_presence(to);
        }
    }

    fn show_presence(&mut self, to: Jid) {
        if self.bound.is_none() {
            return;
        }
        let mut presence = Presence::available().with_to(to);
        presence.payloads.push(self.disco.caps());
        self.outputs.push_back(Output::Send(presence.into()));
    }
}

/// Puts it at the end, and forgets the oldest if there are too many.
fn add(places: &mut Vec<FullJid>, place: &FullJid) {
    places.retain(|known| known != place);
    if places.len() >= MAX_PLACES {
        places.remove(0);
    }
    places.push(place.clone());
}
