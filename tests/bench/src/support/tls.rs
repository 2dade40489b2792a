//! Mutual TLS as the library does it, without the library: TLS 1.3, X25519MLKEM768, certificates with P-256 keys that
//! sign themselves, no resumption.

use std::sync::Arc;

use rcgen::{CertifiedKey, KeyPair};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor, TlsConnector, TlsStream,
    rustls::{
        ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection,
        client::Resumption,
        crypto::{
            CryptoProvider,
            aws_lc_rs::{self, kx_group},
        },
        pki_types::{PrivateKeyDer, ServerName},
        server::WebPkiClientVerifier,
        version::TLS13,
    },
};

const NAME: &str = "juliet.example";

/// The settings of both ends, which know each other's certificate.
#[derive(Clone)]
pub struct Configs {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

impl Configs {
    /// With two new certificates.
    ///
    /// # Panics
    ///
    /// If the system has no randomness.
    #[must_use]
    pub fn generate() -> Self {
        let provider = Arc::new(CryptoProvider {
            kx_groups: vec![kx_group::X25519MLKEM768, kx_group::X25519, kx_group::SECP256R1],
            ..aws_lc_rs::default_provider()
        });
        let [clients, servers] = [0; 2].map(|_| certificate());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots(&clients), provider.clone());
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .with_client_cert_verifier(verifier.build().expect("a root"))
            .with_single_cert(vec![servers.cert.der().clone()], key(&servers))
            .expect("a certificate and its key");
        server.send_tls13_tickets = 0;
        let mut client = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .expect("the provider has TLS 1.3")
            .with_root_certificates(roots(&servers))
            .with_client_auth_cert(vec![clients.cert.der().clone()], key(&clients))
            .expect("a certificate and its key");
        client.resumption = Resumption::disabled();
        Self { client: Arc::new(client), server: Arc::new(server) }
    }

    /// Both ends of a TCP connection over loopback with TLS, the client's first.
    ///
    /// # Panics
    ///
    /// If loopback has no more ports.
    pub async fn connect(&self) -> (TlsStream<TcpStream>, TlsStream<TcpStream>) {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let dialling = TcpStream::connect(listener.local_addr().expect("its address"));
        let (dialled, taken) = tokio::join!(dialling, listener.accept());
        let (dialled, (taken, _)) = (dialled.expect("a connection"), taken.expect("a connection"));
        for end in [&dialled, &taken] {
            end.set_nodelay(true).expect("TCP_NODELAY");
        }
        let name = ServerName::try_from(NAME).expect("a name");
        let client = TlsConnector::from(self.client.clone()).connect(name, dialled);
        let server = TlsAcceptor::from(self.server.clone()).accept(taken);
        let (client, server) = tokio::join!(client, server);
        (client.expect("TLS, at the client").into(), server.expect("TLS, at the server").into())
    }

    /// One handshake in memory.
    ///
    /// # Panics
    ///
    /// If it fails.
    pub fn handshake(&self) {
        let name = ServerName::try_from(NAME).expect("a name");
        let mut client = ClientConnection::new(self.client.clone(), name).expect("a client");
        let mut server = ServerConnection::new(self.server.clone()).expect("a server");
        let mut wire = Vec::new();
        while client.is_handshaking() || server.is_handshaking() {
            wire.clear();
            client.write_tls(&mut wire).expect("memory");
            feed(&wire, |bytes| server.read_tls(bytes));
            server.process_new_packets().expect("the client's flight");
            wire.clear();
            server.write_tls(&mut wire).expect("memory");
            feed(&wire, |bytes| client.read_tls(bytes));
            client.process_new_packets().expect("the server's flight");
        }
    }
}

fn feed(mut wire: &[u8], mut read: impl FnMut(&mut &[u8]) -> std::io::Result<usize>) {
    while !wire.is_empty() {
        read(&mut wire).expect("memory");
    }
}

fn certificate() -> CertifiedKey<KeyPair> {
    rcgen::generate_simple_self_signed([NAME.to_owned()]).expect("randomness")
}

fn key(certificate: &CertifiedKey<KeyPair>) -> PrivateKeyDer<'static> {
    PrivateKeyDer::try_from(certificate.signing_key.serialize_der()).expect("a key")
}

fn roots(certificate: &CertifiedKey<KeyPair>) -> Arc<RootCertStore> {
    let mut roots = RootCertStore::empty();
    roots.add(certificate.cert.der().clone()).expect("a certificate");
    Arc::new(roots)
}
