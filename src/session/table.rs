//! Which session a stanza is for, and how many there may be.

use std::collections::{BTreeMap, HashMap};

use jid::FullJid;

use super::state::{Ended, Farewell, Role, Session, SessionId, State};
use crate::{Error, Limits};

/// The sessions, by the names that we and the peers have for them.
///
/// A session that ended can't be reached by its peer any more, but stays until its user lets go of
/// it: there may be something left to read.
#[derive(Debug)]
pub(super) struct Table {
    limits: Limits,
    next: u64,
    sessions: BTreeMap<SessionId, Session>,
    by_sid: Names,
    by_bytestream: Names,
}

/// What peers call things, each peer for itself. Nested, so that a look-up needs no key of its own.
#[derive(Debug, Default)]
struct Names(HashMap<FullJid, HashMap<String, SessionId>>);

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 0,
            sessions: BTreeMap::new(),
            by_sid: Names::default(),
            by_bytestream: Names::default(),
        }
    }

    /// Whether one more session that our user starts fits.
    pub(super) fn is_full(&self) -> bool {
        let alive = self.sessions().filter(|session| !matches!(session.state, State::Ended(_)));
        alive.count() >= self.limits.sessions
    }

    /// Whether one more session that this peer starts fits. Those that ended count until their user lets go of
    /// them: a peer that starts and ends sessions faster than anybody looks at them must not fill the memory.
    pub(super) fn is_full_for(&self, peer: &FullJid) -> bool {
        let is_theirs = |other: &FullJid| (other.node(), other.domain()) == (peer.node(), peer.domain());
        let undecided = self.sessions().filter(|session| matches!(session.state, State::Ringing(_))).count();
        let theirs = self.sessions().filter(|session| session.role == Role::Responder);
        self.has_no_room()
            // Anybody can have any number of accounts, so that alone must not keep our user from starting sessions.
            || undecided >= self.limits.sessions.div_ceil(2)
            || theirs.filter(|session| is_theirs(&session.peer)).count()
                >= self.limits.sessions_per_peer
    }

    /// Whether all together are as many as may be.
    pub(super) fn has_no_room(&self) -> bool {
        self.sessions.len() >= self.limits.sessions
    }

    pub(super) fn insert(&mut self, session: Session) -> SessionId {
        let id = SessionId(self.next);
        self.next += 1;
        self.sessions.insert(id, session);
        self.name(id);
        id
    }

    /// Puts another session into the place of one.
    pub(super) fn replace(&mut self, id: SessionId, session: Session) {
        self.unname(id);
        self.sessions.insert(id, session);
        self.name(id);
    }

    /// Makes the session reachable under its sid, once it has one.
    pub(super) fn name(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(&id).filter(|session| !session.sid.is_empty()) {
            self.by_sid.add(&session.peer, &session.sid, id);
        }
    }

    /// Makes the session's bytestream reachable under a sid of its own. False if another session with
    /// the peer has that.
    #[must_use]
    pub(super) fn name_bytestream(&mut self, id: SessionId, sid: &str) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        self.by_bytestream.add(&session.peer, sid, id) == id
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    pub(super) fn find(&self, peer: &FullJid, sid: &str) -> Option<SessionId> {
        self.by_sid.find(peer, sid)
    }

    pub(super) fn find_bytestream(&self, peer: &FullJid, sid: &str) -> Option<SessionId> {
        self.by_bytestream.find(peer, sid)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    /// The same, with their names, oldest first.
    pub(super) fn entries(&self) -> impl Iterator<Item = (SessionId, &Session)> {
        self.sessions.iter().map(|(id, session)| (*id, session))
    }

    /// All of them, oldest first.
    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    /// The session is over for its peer; see [`Session::end`].
    pub(super) fn close(&mut self, id: SessionId, error: Option<Error>, farewell: Farewell) {
        self.unname(id);
        if let Some(session) = self.sessions.get_mut(&id) {
            session.end(error, farewell);
        }
    }

    /// Takes the session out of its peer's reach.
    pub(super) fn unname(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(&id) {
            self.by_sid.remove(&session.peer, id);
            self.by_bytestream.remove(&session.peer, id);
        }
    }

    pub(super) fn remove(&mut self, id: SessionId) {
        self.unname(id);
        self.sessions.remove(&id);
    }

    /// Whether the acknowledgement of our session-terminate is still due.
    pub(super) fn awaits_farewell(&self, id: SessionId) -> bool {
        let state = self.get(id).map(|session| &session.state);
        matches!(state, Some(State::Ended(Ended { farewell: Farewell::AwaitingAck, .. })))
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty() && self.by_sid.0.is_empty() && self.by_bytestream.0.is_empty()
    }
}

impl Names {
    /// Gives a session a name, unless another one has it; says who has it.
    fn add(&mut self, peer: &FullJid, sid: &str, id: SessionId) -> SessionId {
        *self.0.entry(peer.clone()).or_default().entry(sid.to_owned()).or_insert(id)
    }

    fn find(&self, peer: &FullJid, sid: &str) -> Option<SessionId> {
        self.0.get(peer)?.get(sid).copied()
    }

    fn remove(&mut self, peer: &FullJid, id: SessionId) {
        let Some(names) = self.0.get_mut(peer) else { return };
        names.retain(|_, named| *named != id);
        if names.is_empty() {
            self.0.remove(peer);
        }
    }
}
