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
    /// Its certificate's fingerprints, in `<security/>`. Several are of the same certificate, with several hashes, so
    /// all of them must match; and one there must be.
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
/// Names, issuers and dates in the certificate count as far as [`Trust`](super::Trust) says. Where a certificate is
/// pinned or known they do not: what is trusted then is this one certificate, for as long as the user trusts it, and
/// a date that passes would only teach people to accept new ones.
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

    /// The same in TLS 1.2, where that is allowed. Else it is not offered, and never asked about; were it, this would
    /// be the end of it.
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

    use super::{
        super::{HashAlgo, Identity, KnownPeers, Secret, Trust, Verification, identity::fixture},
        *,
    };

    fn certificate() -> Certificate {
        fixture("p256").certificate().clone()
    }

    fn expectation(announced: Vec<Fingerprint>, trust: Trust) -> Expectation {
        Expectation {
            peer: "juliet@capulet.lit".parse().unwrap(),
            announced: Announced::ByJingle(announced),
            options: TlsOptions::new(Identity::generate().unwrap(), trust),
        }
    }

    /// What becomes of the certificate in a handshake.
    fn confirm(expectation: &Expectation) -> Result<Standing, SecurityError> {
        let chain = [CertificateDer::from(certificate().der().to_vec())];
        let before = expectation.check(&certificate(), &[]);
        let after = expectation.confirm(&chain).map(|presented| presented.standing());
        assert_eq!(before, after, "the two checks differ");
        after
    }

    #[test]
    fn every_announced_fingerprint_must_match() {
        let sha256 = certificate().fingerprint().clone();
        let sha512 = Fingerprint::of_with(HashAlgo::Sha512, certificate().der());
        let wrong = Fingerprint::of_with(HashAlgo::Sha512, b"another certificate");
        let both = expectation(vec![sha256.clone(), sha512.clone()], Trust::first_use());
        assert_eq!(confirm(&both), Ok(Standing::FirstUse));

        let one_is_wrong = expectation(vec![sha256, wrong.clone()], Trust::first_use());
        // The two that are shown are of the same hash, so that they can be compared.
        let refused = SecurityError::FingerprintMismatch { announced: wrong, presented: sha512 };
        assert_eq!(confirm(&one_is_wrong), Err(refused));
    }

    #[test]
    fn nothing_announced_is_nothing_verified_even_if_pinned() {
        let silent = expectation(vec![], Trust::pinned([certificate().fingerprint().clone()]));
        assert_eq!(confirm(&silent), Err(SecurityError::NoFingerprint));
    }

    #[test]
    fn starttls_announces_nothing_and_the_rest_holds() {
        let mut silent = expectation(vec![], Trust::pinned([certificate().fingerprint().clone()]));
        silent.announced = Announced::Nothing;
        assert_eq!(confirm(&silent), Ok(Standing::Accepted(Verification::Pinned)));
        silent.options.trust = Trust::pinned([]);
        assert!(matches!(confirm(&silent), Err(SecurityError::NotPinned { .. })));
    }

    #[test]
    fn what_was_announced_is_not_trusted_for_that() {
        let announced = vec![certificate().fingerprint().clone()];
        let announced = expectation(announced, Trust::pinned([]));
        assert!(matches!(confirm(&announced), Err(SecurityError::NotPinned { .. })));
    }

    #[test]
    fn a_shared_secret_lets_a_stranger_in_that_still_has_to_prove_it() {
        let announced = vec![certificate().fingerprint().clone()];
        let mut strict = expectation(announced, Trust::strict(KnownPeers::in_memory()));
        assert!(matches!(confirm(&strict), Err(SecurityError::NotListed { .. })));
        strict.options = strict.options.secret(Secret::generate().unwrap());
        assert_eq!(confirm(&strict), Ok(Standing::Unproven));
    }

    #[test]
    fn to_confirm_a_certificate_leaves_no_trace() {
        let first = expectation(vec![certificate().fingerprint().clone()], Trust::first_use());
        assert_eq!(confirm(&first), Ok(Standing::FirstUse));
        assert_eq!(confirm(&first), Ok(Standing::FirstUse));
    }

    #[test]
    fn no_certificate_is_nobodys() {
        let first = expectation(vec![certificate().fingerprint().clone()], Trust::first_use());
        let refused = SecurityError::BadCertificate("none was presented".to_owned());
        assert_eq!(first.confirm(&[]).map(drop), Err(refused));
    }

    #[test]
    fn a_chain_that_is_too_long_is_refused() {
        let first = expectation(vec![certificate().fingerprint().clone()], Trust::first_use());
        let algorithms = aws_lc_rs::default_provider().signature_verification_algorithms;
        let verifier = Verifier::new(Arc::new(first), algorithms);
        let certificate = certificate();
        let fitting = CertificateDer::from(vec![0; MAX_CERTIFICATE_BYTES - certificate.der().len()]);
        let one_more = CertificateDer::from(vec![0; 1]);
        assert!(verifier.judge(certificate.der(), std::slice::from_ref(&fitting)).is_ok());
        assert!(verifier.judge(certificate.der(), &[fitting, one_more]).is_err());
    }
}
