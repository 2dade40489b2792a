//! The session with the server is lost, and may be resumed (XEP-0198): nothing is lost yet, and nothing gets through.
//!
//! Streams on sockets don't notice. In-band bytestreams stand still, and with them whatever waits for a peer's word about an
//! open one. What is being negotiated keeps its deadlines: there is nothing yet that would be worth the wait.

use std::time::{Duration, Instant};

use jid::FullJid;

use super::{
    Output, Purpose, Sessions,
    state::{ABSENCE, SessionId, State},
};
use crate::{Error, SignallingError, stream::Flow};

/// How long in-band bytestreams wait for the same session with the server. Servers forget one after 5 (ejabberd) or 10
/// minutes (Prosody), so that nothing comes of those who have waited longer.
pub(super) const STANDSTILL: Duration = Duration::from_secs(600);

/// Whether the session with the server has a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    Up,
    /// In-band bytestreams wait.
    Down {
        until: Instant,
    },
    /// They have waited for long enough; those that were there are over.
    Lost,
}

impl Link {
    pub(super) fn is_down(self) -> bool {
        self != Self::Up
    }

    pub(super) fn poll_timeout(self) -> Option<Instant> {
        match self {
            Self::Down { until } => Some(until),
            Self::Up | Self::Lost => None,
        }
    }
}

impl Sessions {
    /// The session with the server is lost for now. It may be resumed, so that nothing is lost yet.
    pub(crate) fn handle_link_down(&mut self, now: Instant) {
        if self.bound.is_none() || self.link.is_down() {
            return;
        }
        let until = now + STANDSTILL;
        self.link = Link::Down { until };
        self.wake_no_later_than(until);
        let stalled = self.stalled();
        tracing::debug!(sessions = stalled.len(), "in-band bytestreams wait for the server");
        for id in &stalled {
            if let Some(transport) = self.table.get_mut(*id).and_then(|session| session.transport_mut()) {
                transport.stand_still();
            }
            self.outputs.push_back(Output::Changed(*id));
        }
        self.requests.hold(|purpose| is_about(purpose, &stalled));
    }

    /// The session with the server is there again, and the same as before.
    pub(crate) fn handle_link_resumed(&mut self, now: Instant) {
        if !self.link.is_down() {
            return;
        }
        let stalled = self.stalled();
        self.link = Link::Up;
        for id in &stalled {
            if let Some(transport) = self.table.get_mut(*id).and_then(|session| session.transport_mut()) {
                transport.go_on(now);
            }
            self.watch(*id);
            self.outputs.push_back(Output::Changed(*id));
        }
        self.requests.renew(now, |purpose| is_about(purpose, &stalled));
        // A sign of life may be among what the server has kept for us.
        for since in self.absent.values_mut() {
            *since = now;
        }
        let timers = [self.requests.poll_timeout(), self.absences().next().map(|_| now + ABSENCE)];
        for due in timers.into_iter().flatten() {
            self.wake_no_later_than(due);
        }
        self.begin_waiting(now);
    }

    /// Whether what is written to a session's bytestream can get anywhere.
    pub(crate) fn flow(&self, id: SessionId) -> Flow {
        if self.link.is_down() && self.goes_through_server(id) { Flow::Stalled } else { Flow::Flowing }
    }

    /// The open bytestreams that go through the server.
    fn stalled(&self) -> Vec<SessionId> {
        self.table.ids().into_iter().filter(|id| self.goes_through_server(*id)).collect()
    }

    fn goes_through_server(&self, id: SessionId) -> bool {
        let state = self.table.get(id).map(|session| &session.state);
        matches!(state, Some(State::Active(active))
            if active.transport.is_open() && !active.transport.outlives_signalling())
    }

    pub(super) fn handle_link_timeout(&mut self, now: Instant) {
        if self.link.poll_timeout().is_none_or(|until| now < until) {
            return;
        }
        self.link = Link::Lost;
        for id in self.stalled() {
            self.fail(now, id, Error::Signalling(SignallingError::Offline));
        }
    }

    // ---- peers that are gone ---------------------------------------------------------------

    /// The peers whose absence counts: while we hear nobody, nobody can show that it is there.
    pub(super) fn absences(&self) -> impl Iterator<Item = (&FullJid, &Instant)> {
        let counts = !self.link.is_down();
        self.absent.iter().filter(move |_| counts)
    }

    pub(super) fn forget_absences(&mut self, now: Instant) {
        if !self.link.is_down() {
            self.absent.retain(|_, since| now < *since + ABSENCE);
        }
    }
}

/// Whether it is a Jingle request of one of these sessions, which goes on.
fn is_about(purpose: &Purpose, sessions: &[SessionId]) -> bool {
    matches!(purpose, Purpose::Jingle { session, .. } if sessions.contains(session))
}
