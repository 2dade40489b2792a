//! Mutual TLS 1.3 over the negotiated bytestream (`jingle-xtls` #proto): the initiator is the TLS client, the
//! responder the TLS server.

use std::{fmt, io, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        self, AlertDescription, CertificateError, ClientConfig, CommonState, ConfigBuilder, ConfigSide,
        ProtocolVersion, ServerConfig, WantsVerifier, WantsVersions,
        client::Resumption,
        crypto::{
            CryptoProvider,
            aws_lc_rs::{self, kx_group},
        },
        pki_types::ServerName,
        server::NoServerSessionStorage,
        sign::SingleCertAndKey,
        version::TLS13,
    },
};

pub(crate) use super::verify::Expectation;
use super::{
    fingerprint::Fingerprint,
    identity::Identity,
    verify::{PeerVerified, Verifier},
};
use crate::error::{Error, PeerMisbehaved, SecurityError};

/// How long the alert that tells the peer of a failed handshake may take to be written. The failure is reported
/// after that all the same: a peer that stops reading must not turn it into a timeout.
const ALERT_DEADLINE: Duration = Duration::from_secs(2);

/// An encrypted bytestream, and who is at the other end of it.
#[derive(Debug)]
pub(crate) struct Secured<IO> {
    pub(crate) io: TlsStream<IO>,
    pub(crate) peer: PeerVerified,
    pub(crate) tls: TlsInfo,
}

/// Runs the handshake as the Jingle initiator, who is the TLS client.
///
/// In TLS 1.3 this ends before the responder has judged our certificate. Its refusal comes with the first read;
/// [`error_from_io`] understands it. Sets no deadline. Cancel safe in that nothing is remembered of a
/// handshake that is dropped; the bytestream is lost with it.
///
/// # Errors
///
/// [`Error::Security`] if the responder is not who it should be, or refused us in the handshake;
/// [`PeerMisbehaved::Tls`] for other failures of TLS; [`Error::Transport`] for those of the bytestream.
pub(crate) async fn connect<IO>(
    io: IO,
    identity: &Identity,
    expectation: Expectation,
) -> Result<Secured<IO>, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let expectation = Arc::new(expectation);
    let config = initiator_config(identity, Arc::clone(&expectation))?;
    // The responder has no name, and an address is never sent to it.
    let nameless = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
    match TlsConnector::from(Arc::new(config)).connect(nameless, io).into_fallible().await {
        Ok(stream) => Secured::new(stream.into(), identity, &expectation),
        Err((error, io)) => Err(failed(&error, io).await),
    }
}

/// Runs the handshake as the Jingle responder, who is the TLS server and demands the initiator's certificate.
///
/// Sets no deadline. Cancel safe like [`connect`].
///
/// # Errors
///
/// As those of [`connect`].
pub(crate) async fn accept<IO>(
    io: IO,
    identity: &Identity,
    expectation: Expectation,
) -> Result<Secured<IO>, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let expectation = Arc::new(expectation);
    let config = responder_config(identity, Arc::clone(&expectation))?;
    match TlsAcceptor::from(Arc::new(config)).accept(io).into_fallible().await {
        Ok(stream) => Secured::new(stream.into(), identity, &expectation),
        Err((error, io)) => Err(failed(&error, io).await),
    }
}

impl<IO> Secured<IO> {
    fn new(io: TlsStream<IO>, identity: &Identity, expectation: &Expectation) -> Result<Self, Error> {
        let (_, connection) = io.get_ref();
        let certificate = connection.peer_certificates().and_then(<[_]>::first);
        let certificate = certificate.ok_or_else(no_certificate)?;
        let peer = expectation.confirm(certificate)?;
        let tls = TlsInfo::new(connection, identity, &peer)?;
        Ok(Self { io, peer, tls })
    }
}

/// How a stream is encrypted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsInfo {
    version: &'static str,
    cipher_suite: &'static str,
    key_exchange: &'static str,
    own_fingerprint: Fingerprint,
    peer_fingerprint: Fingerprint,
}

impl TlsInfo {
    fn new(connection: &CommonState, identity: &Identity, peer: &PeerVerified) -> Result<Self, Error> {
        let incomplete = || PeerMisbehaved::Tls("the handshake did not agree on TLS 1.3".to_owned());
        let version = match connection.protocol_version() {
            Some(ProtocolVersion::TLSv1_3) => "TLSv1.3",
            _ => return Err(incomplete().into()),
        };
        let cipher_suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let key_exchange = connection.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
        Ok(Self {
            version,
            cipher_suite: cipher_suite.ok_or_else(incomplete)?,
            key_exchange: key_exchange.ok_or_else(incomplete)?,
            own_fingerprint: identity.fingerprint().clone(),
            peer_fingerprint: peer.fingerprint().clone(),
        })
    }

    /// The protocol version, `TLSv1.3`.
    #[must_use]
    pub fn version(&self) -> &'static str {
        self.version
    }

    /// The cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    #[must_use]
    pub fn cipher_suite(&self) -> &'static str {
        self.cipher_suite
    }

    /// The key exchange group: `X25519MLKEM768` is safe against the quantum computers to come, others are not.
    #[must_use]
    pub fn key_exchange(&self) -> &'static str {
        self.key_exchange
    }

    /// The SHA-256 fingerprint of our own certificate.
    #[must_use]
    pub fn own_fingerprint(&self) -> &Fingerprint {
        &self.own_fingerprint
    }

    /// The SHA-256 fingerprint of the peer's certificate.
    #[must_use]
    pub fn peer_fingerprint(&self) -> &Fingerprint {
        &self.peer_fingerprint
    }
}

impl fmt::Display for TlsInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.version, self.cipher_suite, self.key_exchange)
    }
}

/// What an error of a [`Secured`] stream means; also for those that come when it is read or written later.
pub(crate) fn error_from_io(error: &io::Error) -> Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(tls) => error_from_tls(tls),
        None => Error::io(error),
    }
}

fn error_from_tls(error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(CertificateError::Other(other)) => {
            match other.0.downcast_ref::<SecurityError>() {
                Some(ours) => ours.clone().into(),
                None => SecurityError::BadCertificate(other.to_string()).into(),
            }
        }
        rustls::Error::InvalidCertificate(other) => SecurityError::BadCertificate(other.to_string()).into(),
        rustls::Error::NoCertificatesPresented => no_certificate().into(),
        rustls::Error::AlertReceived(alert) => match refusal(*alert) {
            Some(text) => SecurityError::PeerRefused(Some(text.to_owned())).into(),
            None => PeerMisbehaved::Tls(format!("the peer ended it with the alert {alert:?}")).into(),
        },
        other => PeerMisbehaved::Tls(other.to_string()).into(),
    }
}

fn no_certificate() -> SecurityError {
    SecurityError::BadCertificate("none was presented".to_owned())
}

/// The name of an alert that is about our certificate (RFC 8446 §6.2).
fn refusal(alert: AlertDescription) -> Option<&'static str> {
    Some(match alert {
        AlertDescription::BadCertificate => "bad_certificate",
        AlertDescription::UnsupportedCertificate => "unsupported_certificate",
        AlertDescription::CertificateRevoked => "certificate_revoked",
        AlertDescription::CertificateExpired => "certificate_expired",
        AlertDescription::CertificateUnknown => "certificate_unknown",
        AlertDescription::UnknownCA => "unknown_ca",
        AlertDescription::AccessDenied => "access_denied",
        AlertDescription::CertificateRequired => "certificate_required",
        _ => return None,
    })
}

/// Sees that the alert leaves a bytestream that gathers what is written.
async fn failed<IO: AsyncWrite + Unpin>(error: &io::Error, mut io: IO) -> Error {
    // Whether it arrives changes nothing: the handshake has failed.
    let _ = tokio::time::timeout(ALERT_DEADLINE, io.flush()).await;
    error_from_io(error)
}

/// Of our own, never the process's default: what the bot chose for its other connections may be weaker.
fn provider() -> CryptoProvider {
    CryptoProvider {
        // Post-quantum first; the others for peers that lack it.
        kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
        ..aws_lc_rs::default_provider()
    }
}

fn tls13_only<Side: ConfigSide>(
    builder: ConfigBuilder<Side, WantsVersions>,
) -> Result<ConfigBuilder<Side, WantsVerifier>, Error> {
    builder.with_protocol_versions(&[&TLS13]).map_err(|error| error_from_tls(&error))
}

// Each session has a configuration of its own, without tickets or a session cache: a resumed TLS session would skip
// the certificate verifier, and with it the pins.

fn initiator_config(identity: &Identity, expectation: Arc<Expectation>) -> Result<ClientConfig, Error> {
    let provider = Arc::new(provider());
    let verifier = Verifier::new(expectation, provider.signature_verification_algorithms);
    let mut config = tls13_only(ClientConfig::builder_with_provider(provider))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
    // Other crates in the bot may switch compression on; a certificate is not worth a decompressor's risks.
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(config)
}

fn responder_config(identity: &Identity, expectation: Arc<Expectation>) -> Result<ServerConfig, Error> {
    let provider = Arc::new(provider());
    let verifier = Verifier::new(expectation, provider.signature_verification_algorithms);
    let mut config = tls13_only(ServerConfig::builder_with_provider(provider))?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity.certified_key())));
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(config)
}

#[cfg(test)]
mod tests;
