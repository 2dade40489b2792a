//! SOCKS5 bytestreams (XEP-0065) as a Jingle transport (XEP-0260): the negotiation, sans-IO.

pub(crate) mod candidate;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use jid::Jid;
use xmpp_parsers::{minidom::Element, stanza_error::StanzaError};

use self::candidate::{Candidate, CandidateType, Connection, Parties, Reach, SocketId};
use crate::{Candidates, Error, wire::s5b::S5bTransport};

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
    /// For the whole; `None` where the stream goes on without it (a move).
    pub(crate) timeout: Option<Duration>,
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

/// One negotiation, from both sides' candidates to a connection.
#[derive(Debug)]
pub(crate) struct S5b {
    _setup: Setup,
}

impl S5b {
    /// Both `<transport/>`s are known: connecting begins.
    ///
    /// `ours` are the candidates that we offered, or will with [`S5b::offer_late`]. `theirs` is the peer's `<transport/>`.
    pub(crate) fn new(
        _now: Instant,
        setup: Setup,
        _ours: Vec<Candidate>,
        _theirs: &S5bTransport,
    ) -> Result<Self, String> {
        Ok(Self { _setup: setup })
    }

    /// Sends our candidates now, in a transport-info (XEP-0260 #exchange).
    pub(crate) fn offer_late(&mut self) {
        unimplemented!()
    }

    /// A transport-info of the peer's; what to answer.
    pub(crate) fn handle_info(
        &mut self,
        _now: Instant,
        _info: &S5bTransport,
    ) -> Result<(), Box<StanzaError>> {
        unimplemented!()
    }

    /// What became of an attempt of ours.
    pub(crate) fn handle_dialed(
        &mut self,
        _now: Instant,
        _attempt: Attempt,
        _result: Result<Connection, String>,
    ) {
        unimplemented!()
    }

    /// The DST.ADDRs that those who connect to our listener for this bytestream may ask for, in lower case.
    pub(crate) fn dst_addrs(&self) -> Vec<String> {
        unimplemented!()
    }

    /// Somebody connected to our listener and asked for one of [`S5b::dst_addrs`]; false if it is refused.
    pub(crate) fn handle_incoming(&mut self, _now: Instant, _connection: Connection) -> bool {
        unimplemented!()
    }

    /// The proxy answered [`Output::Activate`].
    pub(crate) fn handle_activated(&mut self, _now: Instant, _reply: Result<(), StanzaError>) {
        unimplemented!()
    }

    pub(crate) fn handle_timeout(&mut self, _now: Instant) {
        unimplemented!()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        unimplemented!()
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        unimplemented!()
    }

    /// What carries the bytes, once it is open.
    pub(crate) fn connection(&self) -> Option<(Connection, CandidateType)> {
        unimplemented!()
    }

    /// It is not wanted any more: what is left of it is given up ([`Output::Abandon`], [`Output::HangUp`]). A connection
    /// that is open is whoever's took it.
    pub(crate) fn end(&mut self) {
        unimplemented!()
    }

    /// The transport's name for logs and users.
    pub(crate) fn describe(local: SocketAddr, remote: SocketAddr) -> String {
        format!("{local} - {remote}")
    }
}
