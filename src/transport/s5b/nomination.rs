//! From both sides' notifications to a bytestream (XEP-0260 #complete).

use std::{collections::VecDeque, mem};

use xmpp_parsers::stanza_error::StanzaError;

use super::{
    Attempt, Dial, Pending, S5b,
    candidate::{Candidate, Connection, SocketId},
    dialling::prevails,
    state::{Ahead, Chosen, Own, PeerNotification, State},
};
use crate::{SignallingError, wire::s5b::Notification};

impl S5b {
    /// Nominates a candidate, once both sides have said what they use.
    pub(super) fn nominate(&mut self) {
        let State::Choosing(choosing) = &self.state else { return };
        let Some(notification) = self.peer_notification.clone() else { return };
        if matches!(choosing.own, Own::Dialling(_)) {
            return;
        }
        let State::Choosing(choosing) = mem::replace(&mut self.state, State::Over) else { return };
        let (incoming, ahead) = (choosing.incoming, choosing.ahead);
        match (choosing.own, notification) {
            (Own::Used(chosen), PeerNotification::Error) => self.use_theirs(chosen, incoming, ahead),
            (Own::Used(chosen), PeerNotification::Used(candidate)) => {
                if prevails(chosen.candidate.priority, candidate.priority, self.setup.parties.role) {
                    self.use_theirs(chosen, incoming, ahead);
                } else {
                    self.hang_up(chosen.connection);
                    self.use_ours(candidate, incoming, ahead);
                }
            }
            (Own::Error | Own::Dialling(_), PeerNotification::Used(candidate)) => {
                self.use_ours(candidate, incoming, ahead);
            }
            (Own::Error | Own::Dialling(_), PeerNotification::Error) => {
                self.hang_up_all(incoming);
                let nothing_to_try = self.ours.is_empty() && self.theirs.is_empty();
                self.fail_unconnected(match nothing_to_try {
                    true => "neither side offered an address or a proxy",
                    false => "neither side could connect to the other",
                });
            }
        }
    }

    fn use_theirs(&mut self, chosen: Chosen, incoming: VecDeque<Connection>, ahead: Option<Ahead>) {
        self.hang_up_all(incoming);
        if self.lost == Some(chosen.connection.socket) {
            return self.chosen_was_closed(&chosen.candidate);
        }
        if !chosen.candidate.is_proxy() {
            return self.open(chosen);
        }
        match ahead {
            Some(Ahead::Activated(cid)) if cid == chosen.candidate.cid => self.open(chosen),
            Some(Ahead::ProxyError) => {
                self.state = State::AwaitingActivation(chosen);
                self.fail_by_proxy_error();
            }
            Some(Ahead::Activated(_)) | None => self.state = State::AwaitingActivation(chosen),
        }
    }

    fn use_ours(&mut self, candidate: Candidate, mut incoming: VecDeque<Connection>, ahead: Option<Ahead>) {
        if candidate.is_proxy() {
            self.hang_up_all(incoming);
            return match ahead {
                Some(Ahead::ProxyError) => self.fail_by_proxy_error(),
                Some(Ahead::Activated(_)) | None => self.dial_own_proxy(candidate),
            };
        }
        let made = made_through(&candidate, &incoming).and_then(|index| incoming.remove(index));
        self.hang_up_all(incoming);
        match made {
            Some(connection) => self.open(Chosen { candidate, connection }),
            None => {
                self.failures.note(&candidate, "the peer chose it, but is not connected");
                self.fail_unconnected("the peer named a connection that is not there");
            }
        }
    }

    // ---- our own proxy ---------------------------------------------------------------------

    fn dial_own_proxy(&mut self, candidate: Candidate) {
        let attempt = self.next_attempt();
        self.push(Pending::Dial(Dial {
            attempt,
            host: candidate.host.clone(),
            port: candidate.port,
            dst_addrs: vec![self.setup.parties.own_dst_addr(&self.setup.sid)],
            timeout: self.setup.proxy_timeout,
            // Our server may have named it, which is not trusted with services of this machine either.
            reach: self.setup.reach,
        }));
        self.state = State::DiallingProxy { attempt, candidate };
    }

    /// Gives the result back if it is not about our proxy.
    pub(super) fn own_proxy_dialled(
        &mut self,
        dialled: Attempt,
        result: Result<Connection, String>,
    ) -> Option<Result<Connection, String>> {
        match mem::replace(&mut self.state, State::Over) {
            State::DiallingProxy { attempt, candidate } if attempt == dialled => match result {
                Ok(connection) => self.activate(Chosen { candidate, connection }),
                Err(why) => self.own_proxy_failed(&candidate, &why),
            },
            state => {
                self.state = state;
                return Some(result);
            }
        }
        None
    }

    fn activate(&mut self, chosen: Chosen) {
        let Some(jid) = chosen.candidate.jid.clone() else {
            self.hang_up(chosen.connection);
            return self.own_proxy_failed(&chosen.candidate, "it has no JID");
        };
        self.push(Pending::Activate(jid));
        self.state = State::Activating(chosen);
    }

    pub(super) fn own_proxy_answered(&mut self, reply: Result<(), StanzaError>) {
        match mem::replace(&mut self.state, State::Over) {
            State::Activating(chosen) => match reply {
                Ok(()) => {
                    self.say(Notification::Activated(chosen.candidate.cid.clone()));
                    self.open(chosen);
                }
                Err(error) => {
                    self.hang_up(chosen.connection);
                    let why = SignallingError::Refused(error.into()).to_string();
                    self.own_proxy_failed(&chosen.candidate, &why);
                }
            },
            state => self.state = state,
        }
    }

    fn own_proxy_failed(&mut self, candidate: &Candidate, why: &str) {
        self.say(Notification::ProxyError);
        self.failures.note(candidate, why);
        self.fail_unconnected("our proxy is of no use");
    }

    // ---- the peer about the nominated proxy ------------------------------------------------

    pub(super) fn fail_by_proxy_error(&mut self) {
        self.fail_unconnected("the peer can't use the proxy that was chosen");
    }

    /// Opens the bytestream if it waits for just this; whether it did.
    pub(super) fn peer_activated(&mut self, cid: &str) -> bool {
        match mem::replace(&mut self.state, State::Over) {
            State::AwaitingActivation(chosen) if chosen.candidate.cid == cid => {
                self.open(chosen);
                true
            }
            state => {
                self.state = state;
                false
            }
        }
    }

    fn open(&mut self, chosen: Chosen) {
        self.state = State::Open(chosen);
        self.push(Pending::Open);
    }

    // ---- connections that are not there any more -------------------------------------------

    /// Fails if a proxy was nominated, and this is our connection to it.
    pub(super) fn nominated_proxy_closed(&mut self, socket: SocketId) {
        match mem::replace(&mut self.state, State::Over) {
            State::AwaitingActivation(chosen) | State::Activating(chosen)
                if chosen.connection.socket == socket =>
            {
                self.chosen_was_closed(&chosen.candidate);
            }
            state => self.state = state,
        }
    }

    fn chosen_was_closed(&mut self, candidate: &Candidate) {
        if candidate.is_proxy() {
            // XEP-0260 #complete: whoever can't use the nominated proxy says so.
            self.say(Notification::ProxyError);
        }
        self.failures.note(candidate, "closed by the other end");
        self.fail_unconnected("the connection that was chosen is not there any more");
    }
}

/// Which connection to our listener is the one that the peer made through this candidate: one that came in at its address,
/// of several the latest, as the peer may have given up others. Behind a port-forward the address is another; then
/// it is the latest of all.
fn made_through(candidate: &Candidate, incoming: &VecDeque<Connection>) -> Option<usize> {
    let at_its_address = |connection: &Connection| {
        candidate.port == connection.local.port()
            && candidate.address() == Some(connection.local.ip().to_canonical())
    };
    incoming.iter().rposition(at_its_address).or_else(|| incoming.len().checked_sub(1))
}
