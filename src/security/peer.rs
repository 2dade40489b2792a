//! Who the peer of a stream is, and how far that is shown.

use std::fmt;

use jid::Jid;

use super::{certificate::Certificate, fingerprint::Fingerprint};

/// Who is at the other end of a stream, as far as is known at the moment of asking; see
/// [`E2eStream::peer`](crate::E2eStream::peer).
#[derive(Clone, Debug)]
pub struct Peer {
    jid: Option<Jid>,
    verified: Option<(Certificate, Verification)>,
}

impl Peer {
    pub(crate) fn new(jid: Option<Jid>, verified: Option<(Certificate, Verification)>) -> Self {
        Self { jid, verified }
    }

    /// Its address, if known.
    #[must_use]
    pub fn jid(&self) -> Option<&Jid> {
        self.jid.as_ref()
    }

    /// The certificate that it proved to hold the key of; `None` without encryption.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.verified.as_ref().map(|(certificate, _)| certificate)
    }

    /// The SHA-256 fingerprint of its certificate; `None` without encryption.
    #[must_use]
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        self.certificate().map(Certificate::fingerprint)
    }

    /// What shows that the certificate is the peer's; `None` without encryption.
    #[must_use]
    pub fn verification(&self) -> Option<Verification> {
        self.verified.as_ref().map(|(_, verification)| *verification)
    }

    /// How much that is worth; `None` without encryption.
    #[must_use]
    pub fn level(&self) -> Option<Level> {
        self.verification().map(Verification::level)
    }
}

/// What shows that a certificate is the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Verification {
    /// Nothing was known about the peer. Where Jingle announced the certificate, the servers could have changed that.
    FirstUse,
    /// The peer presented the same one before, and nothing has shown yet that it was the peer.
    Known,
    /// The bot's user said yes when asked ([`Question`](super::Question)), without having compared anything.
    Accepted,
    /// The user pinned it ([`Trust::pinned`](super::Trust::pinned)).
    Pinned,
    /// An authority that the user trusts issued it for this address (RFC 6120 §13.7).
    Authority,
    /// The peer proved that it knows the shared secret, bound to this TLS connection or to an earlier one with the same
    /// key.
    Secret,
    /// People compared the verification code, now or at an earlier meeting.
    Code,
    /// The user compared the fingerprint, and said so in [`KnownPeers`](super::KnownPeers).
    Compared,
}

impl Verification {
    /// How much it is worth.
    #[must_use]
    pub fn level(self) -> Level {
        match self {
            Self::FirstUse => Level::FirstUse,
            Self::Known | Self::Accepted => Level::Known,
            Self::Pinned | Self::Authority | Self::Secret | Self::Code | Self::Compared => Level::Verified,
        }
    }

    /// A word for it: how [`KnownPeers`](super::KnownPeers) writes it, and programs may.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstUse => "first-use",
            Self::Known => "known",
            Self::Accepted => "accepted",
            Self::Pinned => "pinned",
            Self::Authority => "authority",
            Self::Secret => "secret",
            Self::Code => "code",
            Self::Compared => "compared",
        }
    }
}

impl fmt::Display for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FirstUse => "first use",
            Self::Known => "known from before",
            Self::Accepted => "accepted by the user",
            Self::Pinned => "pinned",
            Self::Authority => "issued by a trusted authority",
            Self::Secret => "shared secret",
            Self::Code => "verification code",
            Self::Compared => "fingerprint compared by the user",
        })
    }
}

/// How much it is worth, what shows that a certificate is the peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Nothing but the first sight: who only listens on the way learns nothing, but whoever controls a server may be in
    /// between.
    FirstUse,
    /// It is whoever was there before, or whom the user let in.
    Known,
    /// It is the peer.
    Verified,
}

impl Level {
    /// `first-use`, `known` or `verified`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FirstUse => "first-use",
            Self::Known => "known",
            Self::Verified => "verified",
        }
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
