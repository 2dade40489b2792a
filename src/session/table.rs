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
    by_sid: HashMap<(FullJid, String), SessionId>,
    by_bytestream: HashMap<(FullJid, String), SessionId>,
}

impl Table {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            next: 0,
            sessions: BTreeMap::new(),
            by_sid: HashMap::new(),
            by_bytestream: HashMap::new(),
        }
    }

    /// Whether one more session fits at all.
    pub(super) fn is_full(&self) -> bool {
        self.on_wire().count() >= self.limits.sessions
    }

    /// Whether one more session that this peer starts fits.
    pub(super) fn is_full_for(&self, peer: &FullJid) -> bool {
        let bare = peer.to_bare();
        let theirs = self.on_wire().filter(|session| session.role == Role::Responder);
        self.is_full()
            || theirs.filter(|session| session.peer.to_bare() == bare).count()
                >= self.limits.sessions_per_peer
    }

    fn on_wire(&self) -> impl Iterator<Item = &Session> {
        self.sessions().filter(|session| !matches!(session.state, State::Ended(_)))
    }

    pub(super) fn insert(&mut self, session: Session) -> SessionId {
        let id = SessionId(self.next);
        self.next += 1;
        self.sessions.insert(id, session);
        self.name(id);
        id
    }

    /// Makes the session reachable under its sid, once it has one.
    pub(super) fn name(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get(&id).filter(|session| !session.sid.is_empty()) {
            self.by_sid.insert((session.peer.clone(), session.sid.clone()), id);
        }
    }

    /// Makes the session's bytestream reachable under a sid of its own. False if the peer has used
    /// that for another session.
    #[must_use]
    pub(super) fn name_bytestream(&mut self, id: SessionId, sid: &str) -> bool {
        let Some(session) = self.sessions.get(&id) else { return false };
        let key = (session.peer.clone(), sid.to_owned());
        *self.by_bytestream.entry(key).or_insert(id) == id
    }

    pub(super) fn get(&self, id: SessionId) -> Option<&Session> {
        self.sessions.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: SessionId) -> Option<&mut Session> {
        self.sessions.get_mut(&id)
    }

    pub(super) fn find(&self, peer: &FullJid, sid: &str) -> Option<SessionId> {
        // The key is owned by the map, so looking up needs one of its own.
        self.by_sid.get(&(peer.clone(), sid.to_owned())).copied()
    }

    pub(super) fn find_bytestream(&self, peer: &FullJid, sid: &str) -> Option<SessionId> {
        self.by_bytestream.get(&(peer.clone(), sid.to_owned())).copied()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> {
        self.sessions.values()
    }

    /// All of them, oldest first.
    pub(super) fn ids(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    pub(super) fn with_peer_mut<'a>(
        &'a mut self,
        peer: &'a FullJid,
    ) -> impl Iterator<Item = &'a mut Session> {
        self.sessions.values_mut().filter(move |session| session.peer == *peer && session.is_on_wire())
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
        self.by_sid.retain(|_, named| *named != id);
        self.by_bytestream.retain(|_, named| *named != id);
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
}
