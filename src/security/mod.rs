//! Who is at the other end: the policy, apart from the TLS plumbing.
//!
//! A peer's certificate is accepted if, in this order, (1) it is the one that Jingle announced (with STARTTLS, none is), (2)
//! [`Trust`] has nothing against it, and (3) the TLS handshake proves that the peer holds its key. Where [`Trust`] alone
//! does not make it the peer's, (4) a shared secret or the bot's user has to. What all of that yields is a [`Peer`], of a
//! certain [`Level`].
//!
//! ```text
//!  Trust::check ──refused──► SecurityError
//!       │
//!       ├─ accepted: pinned, listed in KnownPeers, issued by an authority ─────────────────┐
//!       ├─ first use ──── a secret for this peer? ──no──► remembered ───────────────────────┤
//!       ├─ unproven  ──────────────┴──yes──► SASL SCRAM on the stream ──► marked verified ──┤
//!       └─ to be asked ────────────────────► Question ──► once, remembered, verified ───────┤
//!                                                                                           ▼
//!                                                              Level ≥ what is required ──► Peer
//! ```

mod authorities;
mod certificate;
pub(crate) mod code;
#[cfg(test)]
pub(crate) mod dice;
mod fingerprint;
mod folder;
mod identity;
mod known_peers;
mod options;
mod peer;
pub(crate) mod pubkeys;
mod question;
pub(crate) mod sasl;
mod secret;
pub(crate) mod tls_io;
mod trust;
mod verify;

pub use self::{
    authorities::Authorities,
    certificate::{Certificate, KeyPin},
    code::VerificationCode,
    fingerprint::{Fingerprint, FingerprintError, HashAlgo},
    identity::Identity,
    known_peers::{KnownCertificate, KnownPeers, PeerEvent, PeerEvents},
    options::{KeyExchange, TlsOptions},
    peer::{Level, Peer, Verification},
    question::{Question, Questions},
    secret::{Secret, WeakSecret},
    tls_io::TlsInfo,
    trust::Trust,
};
pub(crate) use self::{
    question::Answer,
    trust::{Proof, Standing},
    verify::Presented,
};
