//! The session with the server: it comes, goes, and takes with it what was said on it.

use std::time::Instant;

use jid::FullJid;

use super::{
    Output, Purpose, Sessions,
    roster::Roster,
    stalling::Link,
    state::{Farewell, Line, Preparing, SessionId, State},
};
use crate::{Error, SignallingError, Step};

impl Sessions {
    /// The server gave us this full JID, on a new stream: whatever was said on an old one is lost.
    pub(crate) fn handle_bound(&mut self, now: Instant, jid: FullJid) {
        let before = self.bound.replace(jid);
        self.link = Link::Up;
        self.proxies.reset();
        if let Some(before) = before {
            let reachable_as_before = self.bound.as_ref() == Some(&before);
            self.lose_everything(now, &SignallingError::Rebound, reachable_as_before);
        }
        self.ask_for_roster(now);
        self.announce_whereabouts();
        self.begin_waiting(now);
    }

    /// The session with the server is gone for good.
    pub(crate) fn handle_disconnected(&mut self, now: Instant) {
        self.bound = None;
        self.link = Link::Up;
        self.roster = Roster::default();
        self.lose_everything(now, &SignallingError::Offline, false);
    }

    fn lose_everything(&mut self, now: Instant, why: &SignallingError, say_so: bool) {
        for purpose in self.requests.drain() {
            if let Purpose::User(token) = purpose {
                self.outputs.push_back(Output::Reply(token, Err(Error::Signalling(why.clone()))));
            }
        }
        for id in self.table.ids() {
            let Some(session) = self.table.get_mut(id) else { continue };
            if session.outlives_signalling() {
                if !say_so {
                    self.lose_line(id);
                }
                continue;
            }
            if let (State::Gathering(gathering), SignallingError::Rebound) = (&session.state, why) {
                // Nothing was said to the peer yet, so nothing is lost.
                let (since, deadline) = (now, gathering.gather.deadline + self.config.timeouts.online);
                let preparing = Preparing { waits_for: Step::Online, since, deadline, latest: deadline };
                session.state = State::Preparing(preparing);
                continue;
            }
            if let (State::Preparing(preparing), SignallingError::Rebound) = (&mut session.state, why) {
                preparing.waits_for = Step::Online;
                continue;
            }
            if say_so && session.is_on_wire() {
                self.fail(now, id, Error::Signalling(why.clone()));
            } else {
                self.end(now, id, Some(Error::Signalling(why.clone())), Farewell::Over);
            }
        }
    }

    /// A stream on a socket goes on, though nothing can be said about its session any more.
    fn lose_line(&mut self, id: SessionId) {
        self.give_up_connecting(id);
        self.table.unname(id);
        if let Some(session) = self.table.get_mut(id) {
            session.line = Line::Lost;
        }
    }
}
