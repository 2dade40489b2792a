//! `<transport/>` of SOCKS5 bytestreams (XEP-0260), and what goes in it.

use xmpp_parsers::minidom::Element;

use super::{jingle::Malformed, ns};

/// `<transport/>` of XEP-0260.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct S5bTransport {
    /// The id of the bytestream, 1 to [`MAX_SID`](super::jingle::MAX_SID) bytes. Required everywhere.
    pub(crate) sid: String,
    /// What the sender calculated for the proxies that it offers, if it says so.
    pub(crate) dstaddr: Option<String>,
    /// `mode='udp'`.
    pub(crate) udp: bool,
    /// At most [`MAX_CANDIDATES`]; those of unknown types are left out.
    pub(crate) candidates: Vec<S5bCandidate>,
    /// The notification, if it is one.
    pub(crate) notice: Option<Notice>,
}

/// Candidates in one `<transport/>`.
pub(crate) const MAX_CANDIDATES: usize = 64;

/// `<candidate/>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct S5bCandidate {
    pub(crate) cid: String,
    pub(crate) host: String,
    // COMPAT Psi: direct candidates without `jid` and `type`.
    pub(crate) jid: Option<String>,
    /// 1080 where nothing is said (XEP-0065).
    pub(crate) port: u16,
    pub(crate) priority: u32,
    pub(crate) type_: crate::transport::s5b::candidate::CandidateType,
}

/// What a transport-info tells about the negotiation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    CandidateUsed(String),
    CandidateError,
    Activated(String),
    // COMPAT Psi: with a cid, which XEP-0260's has not.
    ProxyError,
}

impl S5bTransport {
    /// Whether this is a SOCKS5 transport, readable or not.
    pub(crate) fn matches(element: &Element) -> bool {
        element.is("transport", ns::JINGLE_S5B)
    }

    pub(crate) fn parse(_element: &Element) -> Result<Self, Malformed> {
        unimplemented!()
    }

    pub(crate) fn to_element(&self) -> Element {
        unimplemented!()
    }
}
