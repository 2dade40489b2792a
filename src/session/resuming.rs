//! Sessions that carry on a stream whose bytestream was lost.
//!
//! They are ordinary sessions whose content has the mark `<resumption/>`: nobody is asked about them. Whose stream it is,
//! both sides show inside, by TLS and by XEP-0198's id; the mark says nothing that would be worth keeping secret.

use std::{collections::HashMap, time::Instant};

use jid::{BareJid, FullJid};

use super::{
    SessionId, Sessions,
    state::{Errand, Role},
};
use crate::{Candidates, Error};

/// Sessions that one stream may have at the same time: the one that carries it, or whose end was not noticed yet; an attempt
/// that the peer has given up without our knowledge; and the one that succeeds.
const SESSIONS_PER_STREAM: usize = 3;

/// How many times [`Limits::sessions_per_peer`](crate::Limits::sessions_per_peer) streams an account may have, with those that
/// wait to be carried on; and how many times [`Limits::sessions`](crate::Limits::sessions) all accounts together. With once, a
/// bot that has lost its memory could not begin anew before we give up its old streams; without a limit, somebody could fill the
/// memory with streams that it does not carry on, each with all that may be unacknowledged, and from as many accounts as it takes.
const SUSPENDED_SHARE: usize = 2;

/// How many streams each account may carry on. No entry is 0.
#[derive(Debug, Default)]
pub(super) struct Resumable(HashMap<BareJid, usize>);

impl Resumable {
    pub(super) fn of(&self, account: &BareJid) -> usize {
        self.0.get(account).copied().unwrap_or_default()
    }

    fn all(&self) -> usize {
        self.0.values().sum()
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Sessions {
    /// Starts towards a session that carries on a stream with this peer: as [`Sessions::connect`], on the best transport
    /// there is, and marked, so that the peer's user is not asked.
    ///
    /// The session ends with [`Reason::Expired`](crate::Reason::Expired) if the peer has no stream to carry on.
    pub(crate) fn connect_to_resume(
        &mut self,
        now: Instant,
        peer: FullJid,
        candidates: Option<Candidates>,
    ) -> Result<SessionId, Error> {
        self.begin(now, peer, candidates, Errand::Resumption)
    }

    /// There is one stream more that this account may carry on.
    pub(crate) fn expect_resumption(&mut self, peer: &BareJid) {
        *self.resumable.0.entry(peer.clone()).or_default() += 1;
    }

    /// One of them is over.
    pub(crate) fn forget_resumption(&mut self, peer: &BareJid) {
        let Some(count) = self.resumable.0.get_mut(peer) else { return };
        *count -= 1;
        if *count == 0 {
            self.resumable.0.remove(peer);
        }
    }

    /// Whether one more session that this peer starts is too many.
    pub(super) fn is_full_for(&self, peer: &FullJid, errand: Errand) -> bool {
        let account = peer.to_bare();
        let streams = self.resumable.of(&account);
        match errand {
            Errand::NewStream => {
                let limits = &self.config.limits;
                let share = limits.sessions_per_peer.saturating_mul(SUSPENDED_SHARE);
                let all = limits.sessions.saturating_mul(SUSPENDED_SHARE);
                streams >= share.max(1) || self.resumable.all() >= all.max(1) || self.table.is_full_for(peer)
            }
            Errand::Resumption => {
                let theirs = self.table.sessions().filter(|session| {
                    let resumes = session.errand == Errand::Resumption && session.role == Role::Responder;
                    resumes && session.peer.to_bare() == account
                });
                theirs.count() >= streams.saturating_mul(SESSIONS_PER_STREAM) || self.table.has_no_room()
            }
        }
    }
}
