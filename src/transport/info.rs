//! What users see of a transport.

use std::{fmt, net::SocketAddr};

use super::s5b::{S5b, candidate::CandidateType};

/// What carries the bytes of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TransportInfo {
    /// An in-band bytestream: stanzas through the servers (XEP-0261).
    #[non_exhaustive]
    Ibb {
        /// The largest block, in bytes before base64.
        block_size: u16,
    },
    /// A SOCKS5 bytestream: a TCP connection to the peer or to a proxy (XEP-0260).
    #[non_exhaustive]
    S5b {
        /// What kind of address was connected to, by whichever side.
        candidate: CandidateType,
        /// Our end of the TCP connection.
        local: SocketAddr,
        /// Its other end: the peer's or, with a [`CandidateType::Proxy`], the proxy's.
        remote: SocketAddr,
    },
}

impl TransportInfo {
    pub(super) fn of(s5b: &S5b) -> Option<Self> {
        let (connection, candidate) = s5b.connection()?;
        Some(Self::S5b { candidate, local: connection.local, remote: connection.remote })
    }

    /// The method's short name: `ibb` or `s5b`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        match self {
            Self::Ibb { .. } => "ibb",
            Self::S5b { .. } => "s5b",
        }
    }

    /// What kind of address was connected to; `None` for an in-band bytestream.
    #[must_use]
    pub fn candidate(&self) -> Option<CandidateType> {
        match self {
            Self::Ibb { .. } => None,
            Self::S5b { candidate, .. } => Some(*candidate),
        }
    }

    /// Whether the bytes go through a proxy (XEP-0065).
    pub(crate) fn is_relayed(&self) -> bool {
        self.candidate() == Some(CandidateType::Proxy)
    }
}

impl fmt::Display for TransportInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ibb { block_size } => write!(f, "ibb, blocks of {block_size} bytes"),
            Self::S5b { candidate, local, remote } => write!(f, "s5b, {candidate}, {local} to {remote}"),
        }
    }
}
