//! SASL on the e2e stream (RFC 6120 §6), without IO: SCRAM bound to the TLS connection, by the rsasl crate, and
//! EXTERNAL.
//!
//! rsasl computes and compares; what comes from the peer is read by [`messages`] first, because rsasl panics on some
//! of it, and believes too much of the rest.

use std::fmt;

use jid::BareJid;
use rsasl::prelude::{ChannelBindingCallback, Registry};
use zeroize::Zeroizing;

use crate::error::SecurityError;

mod initiator;
mod keys;
mod messages;
mod responder;
#[cfg(test)]
mod tests;

pub(crate) use self::{initiator::Initiator, responder::Responder};

/// A mechanism, the strongest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    ScramSha512Plus,
    ScramSha256Plus,
    External,
}

impl Mechanism {
    pub(crate) const ALL: [Self; 3] = [Self::ScramSha512Plus, Self::ScramSha256Plus, Self::External];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::ScramSha512Plus => "SCRAM-SHA-512-PLUS",
            Self::ScramSha256Plus => "SCRAM-SHA-256-PLUS",
            Self::External => "EXTERNAL",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mechanism| mechanism.name() == name)
    }

    pub(crate) fn is_scram(self) -> bool {
        self != Self::External
    }
}

/// The name of the one channel binding (RFC 9266).
pub(crate) const TLS_EXPORTER: &str = "tls-exporter";

/// What the exporter of this TLS connection gives for channel binding (RFC 9266): 32 bytes.
#[derive(Clone)]
pub(crate) struct Binding(pub(crate) Zeroizing<[u8; 32]>);

impl ChannelBindingCallback for Binding {
    fn get_cb_data(&self, name: &str) -> Option<&[u8]> {
        (name == TLS_EXPORTER).then_some(self.0.as_slice())
    }
}

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binding(…)")
    }
}

/// What the responder says to what came.
#[derive(Debug)]
pub(crate) enum Reply {
    Challenge(Vec<u8>),
    /// What goes into `<success/>`.
    Success(Option<Vec<u8>>),
}

/// Why the responder says `<failure/>`: the condition on the wire (RFC 6120 §6.5), and what it means for us.
#[derive(Debug)]
pub(crate) struct Refusal {
    pub(crate) condition: &'static str,
    pub(crate) error: SecurityError,
}

impl Refusal {
    /// What goes into the `<text/>` of `<failure/>`, if anything: SCRAM's word for it (RFC 5802 §7), from which
    /// [`Initiator::failure`] knows an attack from a typing error.
    pub(crate) fn text(&self) -> Option<&'static str> {
        match self.error {
            SecurityError::ChannelBinding { .. } => Some(CHANNEL_BINDINGS_DONT_MATCH),
            SecurityError::SecretMismatch { .. } => Some(INVALID_PROOF),
            _ => None,
        }
    }
}

/// RFC 5802 §7, server-error-value: the proof is for another connection.
const CHANNEL_BINDINGS_DONT_MATCH: &str = "channel-bindings-dont-match";
/// RFC 5802 §7, server-error-value: the proof was made with another secret.
const INVALID_PROOF: &str = "invalid-proof";

/// The mechanisms without `-PLUS` are left out: nothing may select them.
static SCRAM_PLUS: [rsasl::prelude::Mechanism; 2] =
    [rsasl::mechanisms::scram::SCRAM_SHA256_PLUS, rsasl::mechanisms::scram::SCRAM_SHA512_PLUS];

fn registry() -> Registry {
    Registry::with_mechanisms(&SCRAM_PLUS)
}

fn error(peer: &BareJid, why: impl Into<String>) -> SecurityError {
    SecurityError::Sasl { peer: peer.clone(), why: why.into() }
}
