//! `<transport/>` before both sides agree on it: what we offer, and what the peer proposes.

use std::time::Instant;

use xmpp_parsers::{minidom::Element, stanza_error::StanzaError};

use super::{
    Ibb, Transport, ibb,
    s5b::{
        self, S5b, Setup,
        candidate::{Candidate, CandidateType, Connection, SocketId, candidates_of, own_candidates_after},
    },
};
use crate::{
    Config, Transports,
    wire::{errors, s5b::S5bTransport},
};

#[cfg(test)]
mod tests;

/// Connections to our listener that may wait for the peer's answer to an offer.
const MAX_EARLY: usize = 8;

/// What we offer.
#[derive(Debug)]
pub(crate) enum Offer {
    Ibb(ibb::Offer),
    S5b(Box<S5bOffer>),
}

/// A SOCKS5 bytestream that we offer.
#[derive(Debug)]
pub(crate) struct S5bOffer {
    setup: Setup,
    ours: Vec<Candidate>,
    candidates: When,
    /// A peer may connect before its answer gets here.
    early: Vec<Connection>,
    /// What the peer offered before its answer.
    theirs: S5bTransport,
}

/// An answer that does not fit the offer.
#[derive(Debug)]
pub(crate) struct Unfit {
    pub(crate) what: String,
    /// The connections that came for the offer, which nobody needs any more.
    pub(crate) early: Vec<Connection>,
}

/// When the peer learns our candidates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    WithTheOffer,
    OnceAccepted,
}

/// What the peer proposes, and we understand.
#[derive(Debug)]
pub(crate) enum Proposal {
    Ibb(ibb::Offer),
    S5b(S5bTransport),
}

impl Offer {
    /// The method's short name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Ibb(_) => "ibb",
            Self::S5b(_) => "s5b",
        }
    }

    /// The `<transport/>` of the session-initiate or transport-replace.
    pub(crate) fn to_element(&self) -> Element {
        match self {
            Self::Ibb(offer) => offer.to_element(),
            Self::S5b(offer) => offer.to_element(),
        }
    }

    /// The name by which peers address the bytestream apart from the session.
    pub(crate) fn bytestream_sid(&self) -> Option<&str> {
        match self {
            Self::Ibb(offer) => Some(offer.sid()),
            Self::S5b(_) => None,
        }
    }

    pub(crate) fn s5b_mut(&mut self) -> Option<&mut S5bOffer> {
        match self {
            Self::Ibb(_) => None,
            Self::S5b(offer) => Some(offer),
        }
    }

    /// The peer agreed with this `<transport/>`: what begins now.
    pub(crate) fn accepted(
        self,
        answer: &Element,
        now: Instant,
        config: &Config,
    ) -> Result<Transport, Unfit> {
        match self {
            Self::Ibb(offer) => {
                let agreed = offer.narrowed(answer).map_err(|what| Unfit { what, early: Vec::new() })?;
                let ibb = Ibb::open(agreed, now, &config.ibb, &config.timeouts);
                Ok(Transport::Ibb(Box::new(ibb)))
            }
            Self::S5b(offer) => Ok(Transport::S5b(Box::new(offer.accepted(answer, now)?))),
        }
    }
}

impl S5bOffer {
    pub(crate) fn new(setup: Setup, ours: Vec<Candidate>, candidates: When) -> Self {
        let theirs = S5bTransport { sid: setup.sid.clone(), ..S5bTransport::default() };
        Self { setup, ours, candidates, early: Vec::new(), theirs }
    }

    pub(crate) fn dst_addrs(&self) -> Vec<String> {
        self.setup.parties.dst_addrs(&self.setup.sid)
    }

    /// Somebody connected to our listener; false if there are too many of those, or no address of ours is offered.
    pub(crate) fn handle_incoming(&mut self, connection: Connection) -> bool {
        let offered = self.ours.iter().any(|candidate| candidate.kind != CandidateType::Proxy);
        let fits = offered && self.early.len() < MAX_EARLY;
        if fits {
            self.early.push(connection);
        }
        fits
    }

    /// A transport-info before the peer's answer, with candidates (XEP-0166 #session-negotiation); what to answer.
    ///
    /// There is nothing to be notified of, as nobody knows yet whether the offer will be accepted.
    pub(crate) fn handle_info(&mut self, info: S5bTransport) -> Result<(), Box<StanzaError>> {
        if info.sid != self.setup.sid {
            return Err(Box::new(errors::item_not_found("there is no bytestream with this sid")));
        }
        if info.unsupported {
            return Err(Box::new(errors::unsupported_info()));
        }
        if info.notification.is_some() {
            return Err(Box::new(errors::out_of_order()));
        }
        let added = self.theirs.add_candidates(info);
        added.map_err(|malformed| Box::new(errors::bad_request(malformed.to_string())))
    }

    /// The connections that came.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = SocketId> {
        self.early.iter().map(|connection| connection.socket)
    }

    /// A connection that came was closed by its other end.
    pub(crate) fn handle_closed(&mut self, socket: SocketId) {
        self.early.retain(|connection| connection.socket != socket);
    }

    /// The connections that came, for an offer that is taken back.
    pub(crate) fn take_early(&mut self) -> Vec<Connection> {
        std::mem::take(&mut self.early)
    }

    fn to_element(&self) -> Element {
        match self.candidates {
            When::WithTheOffer => s5b::transport(&self.setup, &self.ours).to_element(),
            When::OnceAccepted => s5b::transport(&self.setup, &[]).to_element(),
        }
    }

    fn accepted(mut self, answer: &Element, now: Instant) -> Result<S5b, Unfit> {
        let early = self.take_early();
        match self.negotiate(answer, now) {
            Ok(mut s5b) => {
                for connection in early {
                    s5b.handle_incoming(now, connection);
                }
                Ok(s5b)
            }
            Err(what) => Err(Unfit { what, early }),
        }
    }

    fn negotiate(mut self, answer: &Element, now: Instant) -> Result<S5b, String> {
        let theirs = self.all_of_theirs(answer)?;
        match self.candidates {
            When::WithTheOffer => S5b::new(now, self.setup, self.ours, &theirs),
            When::OnceAccepted => {
                let ours = own_candidates_after(self.ours, &self.setup.parties, &candidates_of(&theirs));
                let mut s5b = S5b::new(now, self.setup, ours, &theirs)?;
                s5b.offer_late();
                Ok(s5b)
            }
        }
    }

    /// What the peer answers, and what it said before.
    fn all_of_theirs(&mut self, answer: &Element) -> Result<S5bTransport, String> {
        if !S5bTransport::matches(answer) {
            return Err(format!("the transport {}, which was not offered", answer.ns()));
        }
        let mut theirs = S5bTransport::parse(answer).map_err(|malformed| malformed.to_string())?;
        let mut before = std::mem::take(&mut self.theirs);
        // An answer may repeat them.
        before.candidates.retain(|early| theirs.candidates.iter().all(|known| known.cid != early.cid));
        if !before.candidates.is_empty() {
            theirs.add_candidates(before).map_err(|malformed| malformed.to_string())?;
        }
        Ok(theirs)
    }
}

impl Proposal {
    /// Whether a `<transport/>` can be read, if its method is known here.
    pub(crate) fn check(transport: &Element) -> Result<(), String> {
        if S5bTransport::matches(transport) {
            S5bTransport::parse(transport).map_err(|malformed| malformed.to_string())?;
        }
        ibb::Offer::check(transport)
    }

    /// Judges a `<transport/>` that the peer proposes; `None` if the method is unknown here, or not wanted.
    pub(crate) fn from_peer(transport: &Element, config: &Config) -> Option<Result<Self, String>> {
        if config.transports != Transports::Ibb && S5bTransport::matches(transport) {
            let parsed = S5bTransport::parse(transport).map_err(|malformed| malformed.to_string());
            return Some(parsed.and_then(|wire| match wire.udp {
                true => Err("mode='udp', which is no stream of bytes".to_owned()),
                false => Ok(Self::S5b(wire)),
            }));
        }
        if config.transports == Transports::S5b {
            return None;
        }
        ibb::Offer::from_peer(transport, &config.ibb).map(|offer| offer.map(Self::Ibb))
    }

    /// The methods that [`Proposal::from_peer`] takes, for a person.
    pub(crate) fn known(config: &Config) -> &'static str {
        match config.transports {
            Transports::Auto => "s5b, ibb",
            Transports::Ibb => "ibb",
            Transports::S5b => "s5b",
        }
    }

    /// The name by which the peer addresses the bytestream apart from the session.
    pub(crate) fn bytestream_sid(&self) -> Option<&str> {
        match self {
            Self::Ibb(offer) => Some(offer.sid()),
            Self::S5b(_) => None,
        }
    }
}
