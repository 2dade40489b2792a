//! Who may open a session with us ([`Callers`]): others find nobody at home.

use std::time::{Duration, Instant};

use jid::FullJid;
use xmpp_parsers::{iq::Iq, jingle::Action, minidom::Element, stanza::Stanza, stanza_error::StanzaError};

use super::{
    Request, Sessions,
    responder::is_xmlstream,
    state::{Errand, State},
};
use crate::{
    Callers,
    wire::{
        errors,
        jingle::{Dialect, Jingle, Malformed},
        ns,
    },
};

/// How often a refusal is logged at most: anybody can cause as many as it likes.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// What [`Callers::Filter`] says of the sender of a stanza.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Word {
    Yes,
    No,
    /// There is no filter, or it is not its business.
    NotAsked,
}

/// The refusals that were not logged.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    logged: Option<Instant>,
    since_then: u64,
}

impl Sessions {
    /// Whom the bot's filter has to be asked about before the stanza is handled: the sender of a request that belongs to no
    /// session. It is asked by whoever passes the stanza in, because it is the bot's code and may want to ask us something.
    pub(crate) fn asks_about(&self, stanza: &Stanza) -> Option<FullJid> {
        let Stanza::Iq(Iq::Set { from: Some(from), payload, .. }) = stanza else { return None };
        let from = from.try_as_full().ok()?;
        let is_ours = Jingle::matches(payload) || payload.has_ns(ns::IBB);
        (is_ours && !self.belongs_to_session(from, payload)).then(|| from.clone())
    }

    /// Whether a request is of no session, and from somebody who may not open one.
    pub(super) fn is_unwelcome(&self, request: &Request) -> bool {
        !self.belongs_to_session(&request.from, &request.payload)
            && !self.may_call(&request.from, request.word)
    }

    fn belongs_to_session(&self, from: &FullJid, payload: &Element) -> bool {
        let sid = payload.attr("sid");
        let session = match Jingle::matches(payload) {
            true => sid.and_then(|sid| self.table.find(from, sid)),
            false => sid.and_then(|sid| self.table.find_bytestream(from, sid)),
        };
        session.is_some()
    }

    fn may_call(&self, peer: &FullJid, word: Word) -> bool {
        let listed = match &self.config.callers {
            Callers::Everybody => true,
            Callers::Only(some) => some.contains(&peer.to_bare()),
            Callers::Roster => self.is_own_account(peer) || self.roster.has(&peer.to_bare()),
            Callers::Filter(_) => word == Word::Yes,
        };
        listed || self.is_calling(peer)
    }

    fn is_own_account(&self, peer: &FullJid) -> bool {
        self.bound.as_ref().is_some_and(|own| own.to_bare() == peer.to_bare())
    }

    /// Whether we are trying to open a session with this peer. If it does the same, the two have to find each other
    /// (XEP-0166 #def-action-ties).
    fn is_calling(&self, peer: &FullJid) -> bool {
        self.table.sessions().any(|session| {
            let calling =
                matches!(session.state, State::Preparing(_) | State::Gathering(_) | State::Offered(_));
            calling && session.peer == *peer && session.errand == Errand::NewStream
        })
    }

    /// Whether a request is the bot's, whoever sent it: [`Callers`] is about our sessions alone.
    pub(super) fn is_foreign(&self, parsed: &Result<(Jingle, Dialect), Malformed>) -> bool {
        let is_our_offer = parsed.as_ref().is_ok_and(|(jingle, _)| {
            jingle.known_action() == Some(Action::SessionInitiate) && jingle.contents.iter().any(is_xmlstream)
        });
        self.config.pass_foreign && !is_our_offer
    }

    /// Answers as if we knew nothing of what is asked (XEP-0166 #protocol-response-errors, RFC 6120 §8.3.3.19).
    pub(super) fn turn_away(&mut self, now: Instant, request: Request) {
        self.refusals.note(now, &request.from);
        self.refuse(request.from, request.id, errors::service_unavailable());
    }

    /// The answer to an account that sends what only a resource can.
    pub(super) fn refusal_of_bare(&self) -> StanzaError {
        match self.config.callers {
            // Sessions are between full JIDs (XEP-0166 #def-jingle).
            Callers::Everybody => errors::bad_request("a session needs the full JID of either side"),
            Callers::Only(_) | Callers::Roster | Callers::Filter(_) => errors::service_unavailable(),
        }
    }
}

impl Refusals {
    fn note(&mut self, now: Instant, caller: &FullJid) {
        if self.logged.is_some_and(|logged| now < logged + LOG_INTERVAL) {
            self.since_then += 1;
            return;
        }
        let unlogged = std::mem::take(&mut self.since_then);
        self.logged = Some(now);
        tracing::debug!(%caller, unlogged, "turned away: it is none of those who may call (Config::callers)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_refusals_is_no_flood_of_lines() {
        let now = Instant::now();
        let tybalt: FullJid = "tybalt@capulet.lit/street".parse().unwrap();
        let mut refusals = Refusals::default();
        for _ in 0..1000 {
            refusals.note(now, &tybalt);
        }
        assert_eq!((refusals.logged, refusals.since_then), (Some(now), 999));
        refusals.note(now + LOG_INTERVAL, &tybalt);
        assert_eq!((refusals.logged, refusals.since_then), (Some(now + LOG_INTERVAL), 0));
    }
}
