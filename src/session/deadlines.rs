//! What is waited for, and what follows when it does not come in time.

use std::time::{Duration, Instant};

use xmpp_parsers::jingle::Action;

use super::{
    Output, Progress, Purpose, Sessions,
    state::{ABSENCE, Farewell, Replacement, SessionId, State},
};
use crate::{Error, SignallingError, Step, wire::errors};

impl Sessions {
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.wake_at
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.wake_at.is_none_or(|due| now < due) {
            return;
        }
        while let Some((purpose, given)) = self.requests.take_expired(now) {
            self.expire(now, purpose, given);
        }
        for id in self.table.ids() {
            self.handle_session_timeout(now, id);
        }
        self.handle_listener_timeout(now);
        self.handle_link_timeout(now);
        self.forget_absences(now);
        let sessions = self.table.sessions().filter_map(|session| session.state.poll_timeout());
        let absences = self.absences().map(|(_, since)| *since + ABSENCE);
        let others = [self.requests.poll_timeout(), self.listening_until, self.link.poll_timeout()]
            .into_iter()
            .flatten();
        self.wake_at = sessions.chain(absences).chain(others).min();
    }

    fn expire(&mut self, now: Instant, purpose: Purpose, given: Duration) {
        match purpose {
            Purpose::User(token) => {
                self.outputs.push_back(Output::Reply(token, Err(Error::Timeout(Step::Iq, given))));
            }
            Purpose::Disco { session, .. } => self.fail(now, session, Error::Timeout(Step::Disco, given)),
            Purpose::Jingle { session, action: Action::SessionTerminate } => {
                self.end(now, session, None, Farewell::Over);
            }
            purpose @ (Purpose::Proxies(_) | Purpose::Activation { .. } | Purpose::Roster) => {
                self.settle(now, purpose, Err(errors::remote_server_timeout()));
            }
            Purpose::Jingle { session, action: Action::TransportReplace } => {
                let why = Error::Timeout(Step::JingleAck, given);
                self.replacement_refused(now, session, why);
            }
            // What it says is said again by what follows, or not needed.
            Purpose::Jingle { session: _, action: Action::TransportAccept } => {}
            Purpose::Jingle { session, .. } if self.is_open(session) => {
                tracing::debug!("the peer goes on with the session without having acknowledged it");
            }
            Purpose::Jingle { session, .. } => {
                self.fail(now, session, Error::Timeout(Step::JingleAck, given))
            }
            // Bytestreams have their own deadlines.
            Purpose::Transport { .. } => {}
        }
    }

    fn is_open(&self, id: SessionId) -> bool {
        matches!(self.progress(id), Progress::Open)
    }

    fn handle_session_timeout(&mut self, now: Instant, id: SessionId) {
        let span = self.span(id);
        let _entered = span.enter();
        let Some(session) = self.table.get(id) else { return };
        let absent = !self.link.is_down()
            && self.absent.get(&session.peer).is_some_and(|since| now >= *since + ABSENCE);
        if absent && session.is_on_wire() && !session.outlives_signalling() {
            return self.fail(now, id, Error::Signalling(SignallingError::PeerGone));
        }
        let Some(session) = self.table.get_mut(id) else { return };
        let late = match &mut session.state {
            State::Active(active) => {
                active.transport.handle_timeout(now);
                if let Replacement::Connecting(s5b) = &mut active.replacement {
                    s5b.handle_timeout(now);
                }
                self.after_transport(now, id);
                self.handle_replacement_timeout(now, id);
                return self.continue_gathering(now, id);
            }
            State::Gathering(_) | State::Accepting(_) => return self.continue_gathering(now, id),
            State::Preparing(preparing) => (preparing.waits_for, preparing.since, preparing.deadline),
            State::Offered(offered) => (Step::Accept, offered.since, offered.deadline),
            State::Ringing(ringing) => (Step::Decision, ringing.since, ringing.deadline),
            State::Ended(_) => return,
        };
        let (step, since, deadline) = late;
        if now >= deadline {
            self.fail(now, id, Error::Timeout(step, deadline - since));
        }
    }

    pub(super) fn wake_no_later_than(&mut self, at: Instant) {
        self.wake_at = Some(self.wake_at.map_or(at, |wake_at| wake_at.min(at)));
    }

    pub(super) fn watch(&mut self, id: SessionId) {
        if let Some(at) = self.table.get(id).and_then(|session| session.state.poll_timeout()) {
            self.wake_no_later_than(at);
        }
    }
}
