//! Candidates (XEP-0260 #exchange): what is offered, what may be dialled, and the DST.ADDRs that go with it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use jid::{FullJid, Jid};

use crate::{Candidates, session::Role};

/// What kind of address a candidate is (XEP-0260 #exchange).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CandidateType {
    /// A listener of the offering side's own, at an address of its own.
    Direct,
    /// The same behind a port-forward.
    Assisted,
    /// Reached through a tunnel, such as Teredo.
    Tunnel,
    /// A SOCKS5 relay (XEP-0065).
    Proxy,
}

impl CandidateType {
    /// As `type` says it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Assisted => "assisted",
            Self::Tunnel => "tunnel",
            Self::Proxy => "proxy",
        }
    }
}

impl fmt::Display for CandidateType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A candidate, own or the peer's, fit to be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) cid: String,
    /// An IP address without brackets, or a host name.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// The offering side's, or the proxy's.
    pub(crate) jid: Option<Jid>,
    pub(crate) priority: u32,
    pub(crate) kind: CandidateType,
}

/// A SOCKS5 relay that will work for us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Proxy {
    pub(crate) jid: Jid,
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// What we could offer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Gathered {
    /// Where our listener can be reached on this machine's own addresses.
    pub(crate) direct: Vec<SocketAddr>,
    /// Where it can be reached from outside, as the user says.
    pub(crate) external: Vec<SocketAddr>,
    pub(crate) proxies: Vec<Proxy>,
}

/// Which special addresses may be dialled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reach {
    pub(crate) loopback: bool,
    pub(crate) link_local: bool,
}

impl Reach {
    /// Whether a peer may make us connect there.
    pub(crate) fn admits(self, _address: IpAddr) -> bool {
        unimplemented!()
    }
}

/// Names an open TCP connection that somebody else holds for us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SocketId(pub(crate) u64);

/// A connection whose SOCKS5 negotiation is complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    pub(crate) socket: SocketId,
    pub(crate) local: SocketAddr,
    pub(crate) remote: SocketAddr,
}

/// Who the two are, for the DST.ADDRs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parties {
    pub(crate) own: FullJid,
    pub(crate) peer: FullJid,
    /// Our role in the Jingle session.
    pub(crate) role: Role,
}

/// The candidates to offer, most preferred first (XEP-0260 #exchange).
///
/// `offered` is what the peer offered before: no host and port of it is offered again, and no priority is the same.
pub(crate) fn own_candidates(
    _gathered: &Gathered,
    _policy: Candidates,
    _parties: &Parties,
    _offered: &[Candidate],
) -> Vec<Candidate> {
    unimplemented!()
}
