//! Who is at the other end: the policy, apart from the TLS plumbing.
//!
//! A peer's certificate is accepted if, in this order, (1) it is the one that Jingle announced, (2) [`Trust`] accepts
//! it for the peer's bare JID, and (3) the TLS handshake proves that the peer holds its key. A
//! [`PeerVerified`] is the proof that all three held.

mod fingerprint;
mod identity;
pub(crate) mod tls_io;
mod trust;
mod verify;

pub use self::{
    fingerprint::{Fingerprint, FingerprintError, HashAlgo},
    identity::Identity,
    tls_io::TlsInfo,
    trust::{Trust, Verification},
    verify::PeerVerified,
};
