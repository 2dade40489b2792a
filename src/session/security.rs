//! What `<security/>` says, and what follows from what it does not say.

use jid::FullJid;
use xmpp_parsers::minidom::Element;

use super::{
    Sessions,
    state::{Announced, Precondition},
};
use crate::{
    Config, Encryption, Fingerprint, Identity, SecurityError,
    wire::xtls::{FingerprintElement, METHOD_X509, Security},
};

/// The `<security/>` of an offer or an accept: our certificate, and the one method there is.
pub(super) fn announcement(identity: &Identity) -> Element {
    let fingerprint = identity.fingerprint();
    let wire = FingerprintElement {
        algo: Some(fingerprint.algo().wire_name().to_owned()),
        text: fingerprint.to_string(),
    };
    Security { fingerprints: vec![wire], methods: vec![METHOD_X509.to_owned()] }.into_element()
}

/// The `<security/>` of a security-info: the method that the initiator chose.
pub(super) fn choice() -> Element {
    Security { fingerprints: Vec::new(), methods: vec![METHOD_X509.to_owned()] }.into_element()
}

/// Whether a security-info says something that we understand and can do.
pub(super) fn is_understood(element: &Element) -> bool {
    Security::parse(element).is_ok_and(|security| security.methods.iter().any(|method| method == METHOD_X509))
}

/// Whether a `<security/>` can be read, if it is one of XTLS.
pub(super) fn check(element: &Element) -> Result<(), String> {
    if Security::matches(element) {
        Security::parse(element).map_err(|malformed| malformed.to_string())?;
    }
    Ok(())
}

impl Sessions {
    /// What becomes of a session with this peer whose offer or accept has no `<security/>`.
    ///
    /// Plaintext never, where the user, or an earlier meeting, tells which certificate the peer has, or what it has to prove:
    /// both servers could make anybody look like a peer that does no XTLS. With STARTTLS they gain nothing by it: it is required, and judged by
    /// the same trust.
    pub(super) fn without_security(&self, peer: &FullJid) -> Result<Announced, SecurityError> {
        let Config { encryption, tls, allow_plaintext, .. } = &self.config;
        match encryption {
            Encryption::XtlsOrStarttls | Encryption::Starttls => Ok(Announced::Starttls),
            Encryption::Xtls if *allow_plaintext && !tls.expects_proof_of(&peer.to_bare()) => {
                Ok(Announced::Nothing)
            }
            Encryption::Xtls => Err(SecurityError::NotOffered),
        }
    }

    /// What we offer to a peer of whom service discovery says whether it does XTLS.
    pub(super) fn precondition(&self, peer_does_xtls: bool) -> Precondition {
        match (self.config.encryption, peer_does_xtls) {
            (Encryption::Xtls | Encryption::XtlsOrStarttls, true) => Precondition::Xtls,
            (Encryption::XtlsOrStarttls, false) | (Encryption::Starttls, _) => Precondition::Starttls,
            (Encryption::Xtls, false) => Precondition::Plaintext,
        }
    }
}

/// Judges the `<security/>` of an offer or an accept; `without` is what it means that there is none. Everything but usable
/// fingerprints fails closed.
pub(super) fn announced(
    security: Option<&Element>,
    without: Result<Announced, SecurityError>,
) -> Result<Announced, SecurityError> {
    let Some(element) = security else { return without };
    // Another precondition than XTLS is one that we can't meet.
    if !Security::matches(element) {
        return Err(SecurityError::NoCommonMethod(element.ns()));
    }
    let wire =
        Security::parse(element).map_err(|malformed| SecurityError::BadCertificate(malformed.to_string()))?;
    if !wire.methods.is_empty() && !wire.methods.iter().any(|method| method == METHOD_X509) {
        return Err(SecurityError::NoCommonMethod(wire.methods.join(", ")));
    }
    let usable = |wire: &FingerprintElement| Fingerprint::announced(wire.algo.as_deref(), &wire.text).ok();
    let fingerprints: Vec<_> = wire.fingerprints.iter().filter_map(usable).collect();
    if fingerprints.is_empty() {
        return Err(SecurityError::NoFingerprint);
    }
    Ok(Announced::Fingerprints(fingerprints))
}
