//! SOCKS5 bytestreams (XEP-0065) as a Jingle transport (XEP-0260): the negotiation, sans-IO.
//!
//! Each side connects to candidates of the other's and says by transport-info which one it uses; from both
//! notifications, both know which one is nominated.

pub(crate) mod candidate;
mod dialling;
mod dst_addr;
mod failures;
mod nomination;
mod notifications;
mod offer;
mod state;
#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    mem,
    time::{Duration, Instant},
};

use jid::Jid;
use xmpp_parsers::{minidom::Element, stanza_error::StanzaError};

use self::{
    candidate::{Candidate, CandidateType, Connection, Parties, Reach, SocketId},
    dialling::Dialling,
    failures::Failures,
    state::{Choosing, Chosen, Own, PeerNotification, State},
};
use crate::{
    Candidates, Error, Step, TransportError,
    session::Role,
    wire::{
        bytestreams,
        s5b::{Notification, S5bTransport},
    },
};

/// Connections to our listener that are held for one bytestream: one for each candidate that we offer. When there are
/// more, the oldest is the likeliest to be dead.
const MAX_INCOMING: usize = offer::MAX_OWN;

/// What a negotiation starts with.
#[derive(Clone, Debug)]
pub(crate) struct Setup {
    /// The bytestream's own sid.
    pub(crate) sid: String,
    pub(crate) parties: Parties,
    /// What we offer, and may dial.
    pub(crate) policy: Candidates,
    pub(crate) reach: Reach,
    /// For one connection to a candidate that is no proxy, SOCKS5 included.
    pub(crate) connect_timeout: Duration,
    /// The same for one to a proxy.
    pub(crate) proxy_timeout: Duration,
    /// For the whole.
    pub(crate) timeout: Duration,
}

/// Names an attempt to connect to a candidate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Attempt(pub(crate) u32);

/// A connection to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dial {
    pub(crate) attempt: Attempt,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The DST.ADDRs to ask for, one connection each, in this order, until one is granted.
    pub(crate) dst_addrs: Vec<String>,
    /// For all of it.
    pub(crate) timeout: Duration,
    pub(crate) reach: Reach,
}

/// What a negotiation wants done.
#[derive(Debug)]
pub(crate) enum Output {
    /// Send this `<transport/>` in a transport-info.
    Info(Element),
    /// Send this iq-set to the proxy, and bring back the reply with [`S5b::handle_activated`].
    Activate(Jid, Element),
    Dial(Dial),
    /// Give up an attempt; nothing is reported of it any more.
    Abandon(Attempt),
    /// Close a connection that is not needed.
    HangUp(SocketId),
    /// The bytestream is there: see [`S5b::connection`].
    Open,
    /// There will be no bytestream.
    Failed(Error),
}

/// Our `<transport/>` with all candidates, as an offer, an accept or a transport-info has it (XEP-0260 #exchange).
pub(crate) fn transport(setup: &Setup, ours: &[Candidate]) -> S5bTransport {
    let dstaddr = || setup.parties.own_dst_addr(&setup.sid);
    S5bTransport {
        sid: setup.sid.clone(),
        dstaddr: ours.iter().any(Candidate::is_proxy).then(dstaddr),
        candidates: ours.iter().map(Candidate::to_wire).collect(),
        ..S5bTransport::default()
    }
}

/// One negotiation, from both sides' candidates to a connection.
#[derive(Debug)]
pub(crate) struct S5b {
    setup: Setup,
    ours: Vec<Candidate>,
    /// All that the peer has offered so far.
    theirs: Vec<Candidate>,
    /// The peer's, for its proxies.
    dstaddr: Option<String>,
    peer_notification: Option<PeerNotification>,
    /// By [`Setup::timeout`].
    deadline: Instant,
    /// Attempts so far.
    attempts: u32,
    failures: Failures,
    /// The connection that we chose, if it was closed before one was nominated.
    lost: Option<SocketId>,
    state: State,
    outputs: VecDeque<Pending>,
}

/// An [`Output`] before it is XML.
#[derive(Debug)]
enum Pending {
    Info(S5bTransport),
    Activate(Jid),
    Dial(Dial),
    Abandon(Attempt),
    HangUp(SocketId),
    Open,
    Failed(Error),
}

impl S5b {
    /// Both `<transport/>`s are known: connecting begins.
    ///
    /// `ours` are the candidates that we offered, or will with [`S5b::offer_late`]. `theirs` is the peer's `<transport/>`.
    /// The error says why that one can't be used.
    pub(crate) fn new(
        now: Instant,
        setup: Setup,
        ours: Vec<Candidate>,
        theirs: &S5bTransport,
    ) -> Result<Self, String> {
        if theirs.udp {
            return Err("the peer wants a SOCKS5 bytestream over UDP".to_owned());
        }
        if theirs.sid != setup.sid {
            let said = failures::shortened(&theirs.sid);
            return Err(format!("the sid of the SOCKS5 bytestream is {}, the peer says {said}", setup.sid));
        }
        let mut dialling = Dialling::new(now);
        // XEP-0260 #exchange: the candidates may come in transport-infos. An initiator does so when it does not want to
        // show them before its offer is accepted. A responder may too, and it dials ours meanwhile, so it costs nothing to
        // wait for it if there are any.
        let may_follow = setup.parties.role == Role::Responder || !ours.is_empty();
        if theirs.trickled || (theirs.candidates.is_empty() && may_follow) {
            dialling.be_patient(now);
        }
        let choosing = Choosing { own: Own::Dialling(dialling), incoming: VecDeque::new(), ahead: None };
        let mut negotiation = Self {
            deadline: now + setup.timeout,
            setup,
            ours,
            theirs: Vec::new(),
            dstaddr: None,
            peer_notification: None,
            attempts: 0,
            failures: Failures::default(),
            lost: None,
            state: State::Choosing(choosing),
            outputs: VecDeque::new(),
        };
        negotiation.learn(now, theirs);
        negotiation.advance(now);
        Ok(negotiation)
    }

    /// Sends our candidates now, in a transport-info (XEP-0260 #exchange). To be called right after [`S5b::new`].
    pub(crate) fn offer_late(&mut self) {
        if !self.ours.is_empty() {
            // Before our own notification, which a peer may take for the end of what we have to say.
            self.outputs.push_front(Pending::Info(transport(&self.setup, &self.ours)));
        }
    }

    /// A transport-info of the peer's; what to answer.
    pub(crate) fn handle_info(&mut self, now: Instant, info: &S5bTransport) -> Result<(), Box<StanzaError>> {
        self.receive(now, info)
    }

    /// What became of an attempt of ours.
    pub(crate) fn handle_dialed(
        &mut self,
        now: Instant,
        attempt: Attempt,
        result: Result<Connection, String>,
    ) {
        let Some(result) = self.own_proxy_dialled(attempt, result) else { return };
        let candidate = self.dialling().and_then(|dialling| dialling.landed(attempt));
        match (candidate, result) {
            (Some(candidate), Ok(connection)) => self.choose(Chosen { candidate, connection }),
            (Some(candidate), Err(why)) => self.failures.note(&candidate, &why),
            // It was abandoned, and had come through by then.
            (None, Ok(connection)) => self.hang_up(connection),
            (None, Err(_)) => {}
        }
        self.advance(now);
    }

    /// The DST.ADDRs that those who connect to our listener for this bytestream may ask for, in lower case.
    pub(crate) fn dst_addrs(&self) -> Vec<String> {
        self.setup.parties.dst_addrs(&self.setup.sid)
    }

    /// Somebody connected to our listener and asked for one of [`S5b::dst_addrs`]; false if it is refused.
    ///
    /// The reply of SOCKS5 is to be sent after this. Thus a connection is known here before the peer can choose it.
    pub(crate) fn handle_incoming(&mut self, _now: Instant, connection: Connection) -> bool {
        let State::Choosing(choosing) = &mut self.state else { return false };
        // What comes after the peer's notification can't be what it chose.
        if self.peer_notification.is_some() || self.ours.iter().all(Candidate::is_proxy) {
            return false;
        }
        choosing.incoming.push_back(connection);
        if choosing.incoming.len() > MAX_INCOMING
            && let Some(oldest) = choosing.incoming.pop_front()
        {
            self.hang_up(oldest);
        }
        true
    }

    /// A connection was closed by its other end before it could be used. One that [`S5b::handle_incoming`] took is not what
    /// the peer chose; one to a proxy that was nominated will carry nothing; one that we chose shows that the peer has
    /// given up.
    pub(crate) fn handle_closed(&mut self, socket: SocketId) {
        if let State::Choosing(choosing) = &mut self.state {
            choosing.incoming.retain(|connection| connection.socket != socket);
            if let Own::Used(chosen) = &choosing.own
                && chosen.connection.socket == socket
            {
                self.lost = Some(socket);
            }
        }
        self.nominated_proxy_closed(socket);
    }

    /// The connections that wait to be used.
    pub(crate) fn waiting(&self) -> Vec<SocketId> {
        match &self.state {
            State::Choosing(Choosing { own, incoming, .. }) => {
                let chosen = match own {
                    Own::Used(chosen) => Some(&chosen.connection),
                    Own::Dialling(_) | Own::Error => None,
                };
                incoming.iter().chain(chosen).map(|connection| connection.socket).collect()
            }
            State::AwaitingActivation(chosen) | State::Activating(chosen) => vec![chosen.connection.socket],
            State::DiallingProxy { .. } | State::Open(_) | State::Over => Vec::new(),
        }
    }

    /// The proxy answered [`Output::Activate`].
    pub(crate) fn handle_activated(&mut self, _now: Instant, reply: Result<(), StanzaError>) {
        self.own_proxy_answered(reply);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if matches!(self.state, State::Open(_) | State::Over) {
            return;
        }
        if now < self.deadline {
            self.advance(now);
        } else {
            self.time_out(self.setup.timeout);
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match &self.state {
            State::Choosing(Choosing { own: Own::Dialling(dialling), .. }) => {
                dialling.poll_timeout().into_iter().chain([self.deadline]).min()
            }
            State::Open(_) | State::Over => None,
            _ => Some(self.deadline),
        }
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        Some(match self.outputs.pop_front()? {
            Pending::Info(transport) => Output::Info(transport.to_element()),
            Pending::Activate(proxy) => {
                let query = bytestreams::activate(&self.setup.sid, &self.setup.parties.peer);
                Output::Activate(proxy, query)
            }
            Pending::Dial(dial) => Output::Dial(dial),
            Pending::Abandon(attempt) => Output::Abandon(attempt),
            Pending::HangUp(socket) => Output::HangUp(socket),
            Pending::Open => Output::Open,
            Pending::Failed(error) => Output::Failed(error),
        })
    }

    /// What carries the bytes, once it is open.
    pub(crate) fn connection(&self) -> Option<(Connection, CandidateType)> {
        match &self.state {
            State::Open(chosen) => Some((chosen.connection, chosen.candidate.kind)),
            _ => None,
        }
    }

    /// It is not wanted any more: what is left of it is given up ([`Output::Abandon`], [`Output::HangUp`]). A connection
    /// that is open is whoever's took it.
    pub(crate) fn end(&mut self) {
        match mem::replace(&mut self.state, State::Over) {
            State::Choosing(choosing) => {
                match choosing.own {
                    Own::Dialling(dialling) => self.abandon_all(dialling.in_flight()),
                    Own::Used(chosen) => self.hang_up(chosen.connection),
                    Own::Error => {}
                }
                self.hang_up_all(choosing.incoming);
            }
            State::DiallingProxy { attempt, .. } => self.push(Pending::Abandon(attempt)),
            State::AwaitingActivation(chosen) | State::Activating(chosen) => self.hang_up(chosen.connection),
            state @ (State::Open(_) | State::Over) => self.state = state,
        }
    }

    // ---- steps -----------------------------------------------------------------------------

    /// Does whatever can be done by now.
    fn advance(&mut self, now: Instant) {
        self.dial(now);
        if self.dialling().is_some_and(|dialling| dialling.is_exhausted(now)) {
            self.decide(Own::Error, Notification::CandidateError);
        }
        self.nominate();
    }

    fn dial(&mut self, now: Instant) {
        loop {
            let attempt = Attempt(self.attempts);
            let Some(candidate) = self.dialling().and_then(|dialling| dialling.start(now, attempt)) else {
                return;
            };
            let attempt = self.next_attempt();
            let Setup { sid, parties, reach, connect_timeout, proxy_timeout, .. } = &self.setup;
            let dial = Dial {
                attempt,
                dst_addrs: parties.dst_addrs_at(&candidate, sid, self.dstaddr.as_deref()),
                timeout: if candidate.is_proxy() { *proxy_timeout } else { *connect_timeout },
                reach: *reach,
                host: candidate.host,
                port: candidate.port,
            };
            self.push(Pending::Dial(dial));
        }
    }

    /// XEP-0260 #connect: the first connection is the one.
    fn choose(&mut self, chosen: Chosen) {
        self.abandon_dialling();
        let notification = Notification::CandidateUsed(chosen.candidate.cid.clone());
        self.decide(Own::Used(chosen), notification);
    }

    fn decide(&mut self, own: Own, notification: Notification) {
        if let State::Choosing(choosing) = &mut self.state {
            choosing.own = own;
            self.say(notification);
        }
    }

    fn dialling(&mut self) -> Option<&mut Dialling> {
        match &mut self.state {
            State::Choosing(Choosing { own: Own::Dialling(dialling), .. }) => Some(dialling),
            _ => None,
        }
    }

    fn next_attempt(&mut self) -> Attempt {
        let attempt = Attempt(self.attempts);
        self.attempts += 1;
        attempt
    }

    /// The peer hears what it waits for, or else it would have to time out too.
    fn time_out(&mut self, timeout: Duration) {
        if self.dialling().is_some() {
            self.abandon_dialling();
            self.decide(Own::Error, Notification::CandidateError);
            // With this, the peer may have all that it needs to use a connection to us.
            self.nominate();
        }
        match self.state {
            State::Open(_) | State::Over => return,
            State::AwaitingActivation(_) | State::DiallingProxy { .. } | State::Activating(_) => {
                self.say(Notification::ProxyError);
            }
            State::Choosing(_) => {}
        }
        self.fail(Error::Timeout(Step::Transport, timeout));
    }

    fn fail_unconnected(&mut self, why: &str) {
        let text = format!("{why}{}", self.failures);
        self.fail(Error::Transport(TransportError::Unconnected(text)));
    }

    fn fail(&mut self, error: Error) {
        self.end();
        self.push(Pending::Failed(error));
    }

    fn say(&mut self, notification: Notification) {
        let sid = self.setup.sid.clone();
        self.push(Pending::Info(S5bTransport {
            sid,
            notification: Some(notification),
            ..S5bTransport::default()
        }));
    }

    fn abandon_dialling(&mut self) {
        let attempts: Vec<_> =
            self.dialling().into_iter().flat_map(|dialling| dialling.in_flight()).collect();
        self.abandon_all(attempts);
    }

    fn abandon_all(&mut self, attempts: impl IntoIterator<Item = Attempt>) {
        self.outputs.extend(attempts.into_iter().map(Pending::Abandon));
    }

    fn hang_up_all(&mut self, connections: VecDeque<Connection>) {
        self.outputs.extend(connections.into_iter().map(|connection| Pending::HangUp(connection.socket)));
    }

    fn hang_up(&mut self, connection: Connection) {
        self.push(Pending::HangUp(connection.socket));
    }

    fn push(&mut self, output: Pending) {
        self.outputs.push_back(output);
    }
}
