//! TLS towards the server: which certificates are believed, and what SASL binds to.

use std::{io, sync::Arc};

use sasl::common::ChannelBinding;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, ProtocolVersion, RootCertStore, SignatureScheme,
        client::{
            Resumption,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use super::{error::ConnectError, stream::PromptTcp};

/// XEP-0368 §3: what direct TLS announces, for servers that share a port with other protocols.
const ALPN: &[u8] = b"xmpp-client";

/// RFC 9266 §4.2: label and length of `tls-exporter`.
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";
const EXPORTER_LENGTH: usize = 32;

/// Whose certificates a server may have.
#[derive(Clone, Debug)]
pub(super) enum Certificates {
    /// Those that the operating system trusts.
    Platform,
    /// Those that chain up to one of these.
    Roots(Arc<RootCertStore>),
    /// Any at all.
    Any,
}

/// Builds the settings. Reads the operating system's certificates from disk if they are needed, which may take long.
pub(super) fn client_config(certificates: Certificates, direct: bool) -> Result<ClientConfig, ConnectError> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(ConnectError::TlsSettings)?;
    let builder = match certificates {
        Certificates::Platform => builder.with_root_certificates(platform_roots()?),
        Certificates::Roots(roots) => builder.with_root_certificates(roots),
        Certificates::Any => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AnyCertificate(provider)))
        }
    };
    let mut config = builder.with_no_client_auth();
    // A resumed session would not verify the certificate again.
    config.resumption = Resumption::disabled();
    if direct {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(config)
}

fn platform_roots() -> Result<RootCertStore, ConnectError> {
    let loaded = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    if roots.is_empty() {
        let why = loaded.errors.first().map_or("none installed".to_owned(), ToString::to_string);
        return Err(ConnectError::NoRoots(why));
    }
    Ok(roots)
}

/// Encrypts the connection, and verifies that the other end holds a certificate for `domain`.
pub(super) async fn handshake(
    config: Arc<ClientConfig>,
    domain: &str,
    tcp: PromptTcp,
) -> Result<TlsStream<PromptTcp>, ConnectError> {
    let name = server_name(domain)?;
    TlsConnector::from(config)
        .connect(name, tcp)
        .await
        .map_err(|source| ConnectError::TlsHandshake { domain: domain.to_owned(), source })
}

fn server_name(domain: &str) -> Result<ServerName<'static>, ConnectError> {
    let bad = || ConnectError::BadDomain(domain.to_owned());
    // RFC 7622 §3.2: an IPv6 address is in brackets in a JID, and in none in a certificate.
    let bare = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(domain);
    if bare.parse::<std::net::IpAddr>().is_ok() {
        return ServerName::try_from(bare.to_owned()).map_err(|_| bad());
    }
    let ascii = idna::domain_to_ascii(bare).map_err(|_| bad())?;
    ServerName::try_from(ascii).map_err(|_| bad())
}

/// What SASL's -PLUS mechanisms bind to: `tls-exporter` (RFC 9266), which is sound in TLS 1.3 only.
pub(super) fn channel_binding(tls: &TlsStream<PromptTcp>) -> Result<ChannelBinding, ConnectError> {
    let (_, connection) = tls.get_ref();
    if connection.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        return Ok(ChannelBinding::None);
    }
    connection
        .export_keying_material(vec![0; EXPORTER_LENGTH], EXPORTER_LABEL, None)
        .map(ChannelBinding::TlsExporter)
        .map_err(|error| ConnectError::ChannelBinding(io::Error::other(error)))
}

/// Believes every certificate, but still has the server prove that it holds the key.
#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
