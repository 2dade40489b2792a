//! What is verified in a handshake, and in which order; the proof that it held.

use std::{sync::Arc, time::SystemTime};

use jid::BareJid;
use tokio_rustls::rustls::{
    self, CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};

use super::{
    certificate::{Certificate, MAX_CERTIFICATE_BYTES},
    fingerprint::Fingerprint,
    options::{TlsOptions, Versions},
    trust::Standing,
};
use crate::error::SecurityError;

/// What is known about the peer before the handshake.
#[derive(Clone, Debug)]
pub(crate) struct Expectation {
    /// Whom we are connected to, as the servers say, or for want of those the peer itself.
    pub(crate) peer: BareJid,
    pub(crate) announced: Announced,
    /// Whose certificates the user accepts.
    pub(crate) options: TlsOptions,
}

/// What the peer announced before the handshake.
#[derive(Clone, Debug)]
pub(crate) enum Announced {
    /// Its certificate's fingerprints, in `<security/>`. Several are of the same certificate, with several hashes, so all
    /// of them must match; and one there must be.
    ByJingle(Vec<Fingerprint>),
    /// STARTTLS announces nothing.
    Nothing,
}

impl Expectation {
    /// Changes nothing.
    fn check(
        &self,
        certificate: &Certificate,
        intermediates: &[CertificateDer<'_>],
    ) -> Result<Standing, SecurityError> {
        self.check_announced(certificate.der())?;
        let has_secret = self.options.secret_of(&self.peer).is_some();
        self.options.trust.check(&self.peer, certificate, intermediates, has_secret, SystemTime::now())
    }

    /// The check once more, after a complete handshake: what it yields shows that the peer holds the key.
    pub(super) fn confirm(&self, chain: &[CertificateDer<'_>]) -> Result<Presented, SecurityError> {
        let Some((end_entity, intermediates)) = chain.split_first() else {
            return Err(SecurityError::BadCertificate("none was presented".to_owned()));
        };
        let certificate = Certificate::from_der(end_entity);
        let standing = self.check(&certificate, intermediates)?;
        Ok(Presented { peer: self.peer.clone(), certificate, standing })
    }

    /// `jingle-xtls` #proto: the certificate in the handshake is the one whose fingerprint was exchanged.
    fn check_announced(&self, der: &[u8]) -> Result<(), SecurityError> {
        let Announced::ByJingle(announced) = &self.announced else { return Ok(()) };
        if announced.is_empty() {
            return Err(SecurityError::NoFingerprint);
        }
        match announced.iter().find(|announced| !announced.matches_der(der)) {
            None => Ok(()),
            Some(announced) => Err(SecurityError::FingerprintMismatch {
                announced: announced.clone(),
                presented: Fingerprint::of_with(announced.algo(), der),
            }),
        }
    }
}

/// The peer holds the key of this certificate, which it announced and which nothing speaks against. Whether it is the
/// peer's, [`Trust::settle`](super::Trust) says. There is no other way to get one than a handshake in which all of that
/// held.
#[derive(Clone, Debug)]
pub(crate) struct Presented {
    peer: BareJid,
    certificate: Certificate,
    standing: Standing,
}

impl Presented {
    /// Who it says it is.
    pub(crate) fn peer(&self) -> &BareJid {
        &self.peer
    }

    pub(crate) fn certificate(&self) -> &Certificate {
        &self.certificate
    }

    pub(crate) fn standing(&self) -> Standing {
        self.standing
    }
}

/// Asks the [`Expectation`] in the middle of the handshake, on either side of it.
///
/// Names, issuers and dates in the certificate count as far as [`Trust`](super::Trust) says. Where a certificate is pinned or
/// known they do not: what is trusted then is this one certificate, for as long as the user trusts it, and a date that passes
/// would only teach people to accept new ones.
#[derive(Debug)]
pub(super) struct Verifier {
    expectation: Arc<Expectation>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Verifier {
    pub(super) fn new(expectation: Arc<Expectation>, algorithms: WebPkiSupportedAlgorithms) -> Self {
        Self { expectation, algorithms }
    }

    fn judge(&self, end_entity: &[u8], others: &[CertificateDer<'_>]) -> Result<(), rustls::Error> {
        let bytes = others.iter().fold(end_entity.len(), |bytes, other| bytes.saturating_add(other.len()));
        let verdict = if bytes > MAX_CERTIFICATE_BYTES {
            let excess = format!("the certificates have {bytes} bytes, more than {MAX_CERTIFICATE_BYTES}");
            Err(SecurityError::BadCertificate(excess))
        } else {
            self.expectation.check(&Certificate::from_der(end_entity), others).map(drop)
        };
        // Inside rustls' error our own comes back out of the handshake whole. The peer is told certificate_unknown,
        // and nothing of what we expected.
        verdict.map_err(|error| CertificateError::Other(OtherError(Arc::new(error))).into())
    }

    /// Whether the peer holds the key of the certificate that was judged.
    fn verify_possession(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    /// The same in TLS 1.2, where that is allowed. Else it is not offered, and never asked about; were it, this would be the
    /// end of it.
    fn verify_possession_tls12(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        match self.expectation.options.versions {
            Versions::Tls12AndTls13 => {
                verify_tls12_signature(message, certificate, signature, &self.algorithms)
            }
            Versions::Tls13 => Err(rustls::Error::General("TLS 1.2 is not allowed".to_owned())),
        }
    }
}

/// The initiator's view: the responder is the TLS server.
impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_possession_tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_possession(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The responder's view: the initiator is the TLS client, and must present a certificate, as rustls demands of a
/// verifier that does not say otherwise.
impl ClientCertVerifier for Verifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.judge(end_entity, intermediates)?;
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_possession_tls12(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.verify_possession(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::crypto::aws_lc_rs;

    use super::*;
    use crate::security::HashAlgo;

    const CERTIFICATE: &[u8] = b"a certificate";

    fn expectation(announced: Vec<Fingerprint>, trust: Trust) -> Expectation {
        Expectation { peer: "juliet@capulet.lit".parse().unwrap(), announced, trust }
    }

    #[test]
    fn every_announced_fingerprint_must_match() {
        let sha256 = Fingerprint::of(CERTIFICATE);
        let sha512 = Fingerprint::of_with(HashAlgo::Sha512, CERTIFICATE);
        let wrong = Fingerprint::of_with(HashAlgo::Sha512, b"another certificate");
        let both = expectation(vec![sha256.clone(), sha512.clone()], Trust::first_use());
        assert_eq!(both.check(CERTIFICATE), Ok(Verification::FirstUse));

        let one_is_wrong = expectation(vec![sha256, wrong.clone()], Trust::first_use());
        // The two that are shown are of the same hash, so that they can be compared.
        let refused = SecurityError::FingerprintMismatch { announced: wrong, presented: sha512 };
        assert_eq!(one_is_wrong.check(CERTIFICATE), Err(refused.clone()));
        assert_eq!(one_is_wrong.confirm(CERTIFICATE), Err(refused));
    }

    #[test]
    fn nothing_announced_is_nothing_verified_even_if_pinned() {
        let silent = expectation(vec![], Trust::pinned([Fingerprint::of(CERTIFICATE)]));
        assert_eq!(silent.check(CERTIFICATE), Err(SecurityError::NoFingerprint));
        assert_eq!(silent.confirm(CERTIFICATE), Err(SecurityError::NoFingerprint));
    }

    #[test]
    fn what_was_announced_is_not_trusted_for_that() {
        let announced = expectation(vec![Fingerprint::of(CERTIFICATE)], Trust::pinned([]));
        assert!(matches!(announced.check(CERTIFICATE), Err(SecurityError::NotPinned { .. })));
    }

    #[test]
    fn a_first_use_is_remembered_when_confirmed() {
        let first = expectation(vec![Fingerprint::of(CERTIFICATE)], Trust::first_use());
        assert_eq!(first.check(CERTIFICATE), Ok(Verification::FirstUse));
        assert_eq!(first.check(CERTIFICATE), Ok(Verification::FirstUse));
        let verified = first.confirm(CERTIFICATE).unwrap();
        assert_eq!(verified.verification(), Verification::FirstUse);
        assert_eq!(verified.fingerprint(), &Fingerprint::of(CERTIFICATE));
        assert_eq!(first.check(CERTIFICATE), Ok(Verification::Known));
    }

    #[test]
    fn a_chain_that_is_too_long_is_refused() {
        let first = expectation(vec![Fingerprint::of(CERTIFICATE)], Trust::first_use());
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        let verifier = Verifier::new(Arc::new(first), algorithms);
        let fitting = CertificateDer::from(vec![0; MAX_CERTIFICATE_BYTES - CERTIFICATE.len()]);
        let one_more = CertificateDer::from(vec![0; 1]);
        assert!(verifier.judge(CERTIFICATE, std::slice::from_ref(&fitting)).is_ok());
        assert!(verifier.judge(CERTIFICATE, &[fitting, one_more]).is_err());
    }
}
