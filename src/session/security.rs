//! What `<security/>` says, and what follows from what it does not say.

use jid::FullJid;
use xmpp_parsers::minidom::Element;

use super::{Sessions, state::Announced};
use crate::{
    Fingerprint, Identity, SecurityError,
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
    /// Whether a session with this peer may go on in plaintext. Never where the user, or an earlier meeting, tells which
    /// certificate it has, or what it has to prove: both servers could make anybody look like a peer that does no XTLS.
    pub(super) fn allows_plaintext_with(&self, peer: &FullJid) -> bool {
        self.config.allow_plaintext && !self.config.tls.expects_proof_of(&peer.to_bare())
    }
}

/// Judges the `<security/>` of an offer or an accept. Everything but usable fingerprints fails closed.
pub(super) fn announced(
    security: Option<&Element>,
    allow_plaintext: bool,
) -> Result<Announced, SecurityError> {
    let Some(element) = security else {
        return if allow_plaintext { Ok(Announced::Nothing) } else { Err(SecurityError::NotOffered) };
    };
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
