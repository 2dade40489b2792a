//! A peer's certificate, and what it says.

use std::{fmt, str::FromStr, sync::Arc, time::SystemTime};

use jid::BareJid;
use tokio_rustls::rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;

pub(super) use self::content::{Content, date};
use super::fingerprint::{Fingerprint, FingerprintError};

mod content;

/// The longest certificate that is read: as much as a peer's certificates may take together, in bytes of DER. An
/// RSA-8192 one has 3 KB, a post-quantum one (ML-DSA-87) 8 KB.
pub(super) const MAX_CERTIFICATE_BYTES: usize = 32 * 1024;

/// A certificate, of a peer's or our own.
///
/// What it says about names and dates only counts where [`Trust`](super::Trust) says so: whoever holds the key could
/// have written it.
#[derive(Clone)]
pub struct Certificate(Arc<Inner>);

struct Inner {
    der: Box<[u8]>,
    fingerprint: Fingerprint,
    key: Option<KeyPin>,
    content: Result<Content, &'static str>,
}

impl Certificate {
    /// Of a certificate's DER. What can't be read has no key, and is nobody's.
    #[must_use]
    pub fn from_der(der: &[u8]) -> Self {
        let (key, content) = if der.len() > MAX_CERTIFICATE_BYTES {
            (None, Err("it is too long"))
        } else {
            (KeyPin::of_certificate(der), Content::read(der))
        };
        Self(Arc::new(Inner { der: der.into(), fingerprint: Fingerprint::of(der), key, content }))
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

    /// Until when it says that it is valid; `None` if it can't be read.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.content.as_ref().ok().map(Content::not_after)
    }

    /// What it says, or why that can't be read.
    pub(super) fn content(&self) -> Result<&Content, String> {
        self.0.content.as_ref().map_err(|why| (*why).to_owned())
    }

    /// Why it should not be believed at first sight: it is not valid now, or it names XMPP addresses and the
    /// peer's is not among them. Names and dates are its holder's own words there, so they prove nothing; but what they
    /// contradict can't be right.
    pub(crate) fn check_first_use(&self, peer: &BareJid, now: SystemTime) -> Result<(), String> {
        let content = self.content()?;
        content.check_dates(now)?;
        if content.names_xmpp_addresses() && !content.names_xmpp_address(peer) {
            return Err(content.not_for(peer));
        }
        Ok(())
    }
}

impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.der() == other.der()
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Certificate({})", self.fingerprint())
    }
}

/// A hash over a public key: SHA-256 over the SubjectPublicKeyInfo (as in RFC 7469 §2.4). It pins a key through
/// renewals of the certificate. It is written like a [`Fingerprint`].
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct KeyPin(Fingerprint);

impl KeyPin {
    /// Of the DER of a SubjectPublicKeyInfo.
    #[must_use]
    pub fn of(subject_public_key_info: &[u8]) -> Self {
        Self(Fingerprint::of(subject_public_key_info))
    }

    /// `None` if there is none to be found. The key is read by what TLS reads it with that the peer signs with, so that
    /// the two can't differ.
    fn of_certificate(der: &[u8]) -> Option<Self> {
        let der = CertificateDer::from(der);
        let certificate = EndEntityCert::try_from(&der).ok()?;
        Some(Self::of(&certificate.subject_public_key_info()))
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

#[cfg(test)]
mod tests;
