//! Candidates (XEP-0260 #exchange): what they are, and who may be connected to.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use jid::{FullJid, Jid};

use super::offer;
use crate::{
    Candidates,
    session::Role,
    wire::s5b::{S5bCandidate, S5bTransport},
};

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

    /// The type preference (XEP-0260 #exchange, "Defined Types").
    pub(super) fn preference(self) -> u32 {
        match self {
            Self::Direct => 126,
            Self::Assisted => 120,
            Self::Tunnel => 110,
            Self::Proxy => 10,
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

impl Candidate {
    /// Its address, unless its host is a name.
    pub(super) fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    pub(super) fn place(&self) -> Place {
        Place::new(&self.host, self.port)
    }

    pub(super) fn is_proxy(&self) -> bool {
        self.kind == CandidateType::Proxy
    }

    pub(crate) fn to_wire(&self) -> S5bCandidate {
        S5bCandidate {
            cid: self.cid.clone(),
            host: self.host.clone(),
            jid: self.jid.as_ref().map(ToString::to_string),
            port: self.port,
            priority: self.priority,
            type_: self.kind,
        }
    }
}

/// A host and port, so that two ways of writing them are the same.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Address(IpAddr, u16),
    Name(String, u16),
}

impl Place {
    pub(super) fn new(host: &str, port: u16) -> Self {
        match host.parse::<IpAddr>() {
            Ok(address) => Self::Address(address.to_canonical(), port),
            Err(_) => Self::Name(host.trim_end_matches('.').to_lowercase(), port),
        }
    }
}

impl TryFrom<&S5bCandidate> for Candidate {
    type Error = &'static str;

    fn try_from(wire: &S5bCandidate) -> Result<Self, Self::Error> {
        if wire.cid.is_empty() {
            return Err("a candidate without cid");
        }
        if wire.host.is_empty() {
            return Err("a candidate without host");
        }
        if wire.port == 0 {
            return Err("a candidate with port 0");
        }
        Ok(Self {
            cid: wire.cid.clone(),
            host: without_brackets(&wire.host).to_owned(),
            port: wire.port,
            // It takes no part in the choice, so an unreadable one does no harm.
            jid: wire.jid.as_ref().and_then(|jid| jid.parse().ok()),
            priority: wire.priority,
            kind: wire.type_,
        })
    }
}

/// `[2001:db8::1]`, as URIs write it, is `2001:db8::1`.
fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// The candidates in a peer's `<transport/>`. Those that can't be used, and those that repeat a cid, are left out.
pub(crate) fn candidates_of(transport: &S5bTransport) -> Vec<Candidate> {
    let mut candidates: Vec<Candidate> = Vec::with_capacity(transport.candidates.len());
    for candidate in transport.candidates.iter().filter_map(|wire| Candidate::try_from(wire).ok()) {
        if candidates.iter().all(|known| known.cid != candidate.cid) {
            candidates.push(candidate);
        }
    }
    candidates
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
    /// For addresses that no peer named.
    pub(crate) const EVERYWHERE: Self = Self { loopback: true, link_local: true };

    /// The same as [`Reach::admits`], as far as it can be seen before a name is resolved.
    pub(crate) fn admits_host(self, host: &str) -> bool {
        without_brackets(host).parse().map_or(true, |address| self.admits(address))
    }

    /// Whether a peer may make us connect there.
    ///
    /// A peer that names an address makes us connect to it from where we are: to services of this machine, and of its
    /// link, that trust whoever can reach them. Private networks are admitted, because bots on one network are a use of
    /// direct candidates.
    pub(crate) fn admits(self, address: IpAddr) -> bool {
        // `::ffff:127.0.0.1` goes where 127.0.0.1 goes.
        match address.to_canonical() {
            IpAddr::V4(address) if address.is_loopback() => self.loopback,
            IpAddr::V4(address) if address.is_link_local() => self.link_local,
            // 0.0.0.0/8 is "this network" (RFC 1122 §3.2.1.3); Linux takes 0.0.0.0 for itself.
            IpAddr::V4(address) => {
                address.octets()[0] != 0 && !address.is_multicast() && !address.is_broadcast()
            }
            IpAddr::V6(address) if address.is_loopback() => self.loopback,
            IpAddr::V6(address) if address.is_unicast_link_local() => self.link_local,
            IpAddr::V6(address) => !address.is_unspecified() && !address.is_multicast(),
        }
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
    gathered: &Gathered,
    policy: Candidates,
    parties: &Parties,
    offered: &[Candidate],
) -> Vec<Candidate> {
    // XEP-0260 #security-sharing: what shows where we are is shown as far as the user allows it.
    let (addresses, proxies) = match policy {
        Candidates::All | Candidates::AfterAccept => {
            (offer::addresses(gathered, parties), offer::proxies(gathered))
        }
        Candidates::ProxyOnly => (Vec::new(), offer::proxies(gathered)),
        Candidates::None => (Vec::new(), Vec::new()),
    };
    offer::candidates(addresses, proxies, parties.role, offered)
}

/// Our candidates, if the peer has not seen them yet, after it told us its own (XEP-0260 #exchange): without those hosts
/// and ports, and with priorities that are none of those.
pub(crate) fn own_candidates_after(
    ours: Vec<Candidate>,
    parties: &Parties,
    offered: &[Candidate],
) -> Vec<Candidate> {
    offer::without(ours, parties.role, offered)
}
