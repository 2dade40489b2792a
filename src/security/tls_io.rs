//! Mutual TLS over a bytestream (`jingle-xtls` #proto): the initiator is the TLS client, the responder the TLS server.
//! TLS 1.3, and 1.2 only where the user allowed it.

use std::{fmt, io, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        ClientConfig, CommonState, ConfigBuilder, ConfigSide, ProtocolVersion, ServerConfig,
        SupportedProtocolVersion, WantsVerifier, WantsVersions,
        client::Resumption,
        crypto::{
            CryptoProvider,
            aws_lc_rs::{self, kx_group},
        },
        pki_types::ServerName,
        server::NoServerSessionStorage,
        sign::SingleCertAndKey,
        version::{TLS12, TLS13},
    },
};
use zeroize::Zeroizing;

pub(crate) use self::failure::error_from_io;
use self::{failure::error_from_tls, flights::Flights};
pub(crate) use super::verify::{Announced, Expectation};
use super::{
    code::CodeKey,
    fingerprint::Fingerprint,
    options::{KeyExchange, TlsOptions, Versions},
    sasl::Binding,
    verify::{Presented, Verifier},
};
use crate::error::{ApiMisuse, Error, PeerMisbehaved, Step};

mod failure;
mod flights;

/// How long the alert that tells the peer of a failed handshake may take to be written. The failure is reported
/// after that all the same: a peer that stops reading must not turn it into a timeout.
const ALERT_DEADLINE: Duration = Duration::from_secs(2);

/// RFC 9266 §2. With TLS 1.2 it wants the extended master secret (§4), without which the handshake fails here, and no
/// renegotiation, which rustls does not have.
const CHANNEL_BINDING: &[u8] = b"EXPORTER-Channel-Binding";

/// What verification codes are made from. RFC 5705 §4 leaves labels that begin with `EXPERIMENTAL` to private use.
const VERIFICATION_CODE: &[u8] = b"EXPERIMENTAL jingle-xmlstream verification code";

/// An encrypted bytestream, and who is at the other end of it.
#[derive(Debug)]
pub(crate) struct Secured<IO> {
    pub(crate) io: TlsStream<Flights<IO>>,
    pub(crate) connection: Connection,
}

/// What a handshake yields besides the encryption.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    pub(crate) presented: Presented,
    pub(crate) tls: TlsInfo,
    pub(crate) binding: Binding,
    pub(crate) code_key: CodeKey,
}

/// Runs the handshake as the Jingle initiator, who is the TLS client.
///
/// In TLS 1.3 this ends before the responder has judged our certificate. Its refusal comes with the first read;
/// [`error_from_io`] understands it. The last flight leaves with whatever is written next. Sets no deadline. Cancel safe in that nothing is remembered of a
/// handshake that is dropped; the bytestream is lost with it.
///
/// # Errors
///
/// [`Error::Security`] if the responder is not who it should be, or refused us in the handshake;
/// [`PeerMisbehaved::Tls`] for other failures of TLS; [`ApiMisuse::Config`] without any key exchange group;
/// [`Error::Transport`] for those of the bytestream.
pub(crate) async fn connect<IO>(io: IO, expectation: Expectation) -> Result<Secured<IO>, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let expectation = Arc::new(expectation);
    let config = initiator_config(Arc::clone(&expectation))?;
    // The responder has no name, and an address is never sent to it.
    let nameless = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
    match TlsConnector::from(Arc::new(config)).connect(nameless, Flights::new(io)).into_fallible().await {
        Ok(mut stream) => {
            stream.get_mut().0.pass();
            Secured::new(stream.into(), &expectation)
        }
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
pub(crate) async fn accept<IO>(io: IO, expectation: Expectation) -> Result<Secured<IO>, Error>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let expectation = Arc::new(expectation);
    let config = responder_config(Arc::clone(&expectation))?;
    match TlsAcceptor::from(Arc::new(config)).accept(Flights::new(io)).into_fallible().await {
        Ok(mut stream) => {
            stream.get_mut().0.finish().await.map_err(|error| error_from_io(&error))?;
            Secured::new(stream.into(), &expectation)
        }
        Err((error, io)) => Err(failed(&error, io).await),
    }
}

/// Gives a handshake, by [`connect`] or [`accept`], so much time.
///
/// # Errors
///
/// [`Error::Timeout`] of [`Step::Tls`], and those of the handshake.
pub(crate) async fn in_time<IO>(
    limit: Duration,
    handshake: impl Future<Output = Result<Secured<IO>, Error>>,
) -> Result<Secured<IO>, Error> {
    let in_time = tokio::time::timeout(limit, handshake).await;
    let secured = in_time.map_err(|_| Error::Timeout(Step::Tls, limit))??;
    tracing::info!(tls = %secured.connection.tls, "TLS is up");
    Ok(secured)
}

impl<IO> Secured<IO> {
    fn new(io: TlsStream<Flights<IO>>, expectation: &Expectation) -> Result<Self, Error> {
        let (_, connection) = io.get_ref();
        let presented = expectation.confirm(connection.peer_certificates().unwrap_or_default())?;
        let tls = TlsInfo::new(connection, &expectation.options, &presented)?;
        let binding = Binding(export(&io, CHANNEL_BINDING)?);
        let code_key = CodeKey(export(&io, VERIFICATION_CODE)?);
        Ok(Self { io, connection: Connection { presented, tls, binding, code_key } })
    }
}

/// 32 bytes that both ends of this TLS connection know and nobody else (RFC 8446 §7.5).
fn export<IO>(io: &TlsStream<IO>, label: &[u8]) -> Result<Zeroizing<[u8; 32]>, Error> {
    let mut exported = Zeroizing::new([0; 32]);
    let context = Some(&[][..]);
    match io {
        TlsStream::Client(io) => io.get_ref().1.export_keying_material(&mut exported[..], label, context),
        TlsStream::Server(io) => io.get_ref().1.export_keying_material(&mut exported[..], label, context),
    }
    .map_err(|error| error_from_tls(&error))?;
    Ok(exported)
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
    fn new(connection: &CommonState, options: &TlsOptions, presented: &Presented) -> Result<Self, Error> {
        let incomplete =
            || PeerMisbehaved::Tls("the handshake agreed on nothing that was offered".to_owned());
        let version = match (connection.protocol_version(), options.versions) {
            (Some(ProtocolVersion::TLSv1_3), _) => "TLSv1.3",
            (Some(ProtocolVersion::TLSv1_2), Versions::Tls12AndTls13) => "TLSv1.2",
            _ => return Err(incomplete().into()),
        };
        let cipher_suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let key_exchange = connection.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
        Ok(Self {
            version,
            cipher_suite: cipher_suite.ok_or_else(incomplete)?,
            key_exchange: key_exchange.ok_or_else(incomplete)?,
            own_fingerprint: options.identity.fingerprint().clone(),
            peer_fingerprint: presented.certificate().fingerprint().clone(),
        })
    }

    /// The protocol version: `TLSv1.3`, or `TLSv1.2` if
    /// [`Dangerous::allow_tls12`](crate::config::Dangerous::allow_tls12) was called and the peer has nothing newer.
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

/// Sees that the alert leaves a bytestream that gathers what is written.
async fn failed<IO: AsyncRead + AsyncWrite + Unpin>(error: &io::Error, mut io: Flights<IO>) -> Error {
    io.pass();
    // Whether it arrives changes nothing: the handshake has failed.
    let _ = tokio::time::timeout(ALERT_DEADLINE, io.flush()).await;
    error_from_io(error)
}

/// Of our own, never the process's default: what the bot chose for its other connections may be weaker.
fn provider(options: &TlsOptions) -> Result<Arc<CryptoProvider>, Error> {
    let group = |group: &KeyExchange| match group {
        KeyExchange::X25519MlKem768 => kx_group::X25519MLKEM768,
        KeyExchange::MlKem768 => kx_group::MLKEM768,
        KeyExchange::X25519 => kx_group::X25519,
        KeyExchange::Secp256r1 => kx_group::SECP256R1,
        KeyExchange::Secp384r1 => kx_group::SECP384R1,
    };
    if options.key_exchange.is_empty() {
        let what = "TlsOptions::key_exchange (or Config's) names no group, so that no TLS is possible: name one, or \
                    leave it out";
        return Err(ApiMisuse::Config(what.to_owned()).into());
    }
    let kx_groups = options.key_exchange.iter().map(group).collect();
    Ok(Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() }))
}

fn with_versions<Side: ConfigSide>(
    builder: ConfigBuilder<Side, WantsVersions>,
    versions: Versions,
) -> Result<ConfigBuilder<Side, WantsVerifier>, Error> {
    let versions: &[&SupportedProtocolVersion] = match versions {
        Versions::Tls13 => &[&TLS13],
        Versions::Tls12AndTls13 => &[&TLS13, &TLS12],
    };
    builder.with_protocol_versions(versions).map_err(|error| error_from_tls(&error))
}

// Each session has a configuration of its own, without tickets or a session cache: a resumed TLS session would skip
// the certificate verifier, and with it the pins.

fn initiator_config(expectation: Arc<Expectation>) -> Result<ClientConfig, Error> {
    let provider = provider(&expectation.options)?;
    let versions = expectation.options.versions;
    let key = SingleCertAndKey::from(expectation.options.identity.certified_key());
    let verifier = Verifier::new(expectation, provider.signature_verification_algorithms);
    let mut config = with_versions(ClientConfig::builder_with_provider(provider), versions)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(key));
    config.resumption = Resumption::disabled();
    config.require_ems = true;
    config.enable_sni = false;
    // Other crates in the bot may switch compression on; a certificate is not worth a decompressor's risks.
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(config)
}

fn responder_config(expectation: Arc<Expectation>) -> Result<ServerConfig, Error> {
    let provider = provider(&expectation.options)?;
    let versions = expectation.options.versions;
    let key = SingleCertAndKey::from(expectation.options.identity.certified_key());
    let verifier = Verifier::new(expectation, provider.signature_verification_algorithms);
    let mut config = with_versions(ServerConfig::builder_with_provider(provider), versions)?
        .with_client_cert_verifier(Arc::new(verifier))
        .with_cert_resolver(Arc::new(key));
    // With it, and with rustls' ticketer, which makes none, TLS 1.2 resumes nothing either.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.require_ems = true;
    config.send_tls13_tickets = 0;
    config.cert_compressors = Vec::new();
    config.cert_decompressors = Vec::new();
    Ok(config)
}

#[cfg(test)]
mod tests;
