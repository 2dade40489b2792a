//! Against a small server on loopback that speaks as much XMPP as a connection needs.

use std::sync::Arc;

use futures::StreamExt;
use jid::Jid;
use sasl::common::ChannelBinding;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, duplex},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer},
        version::{TLS12, TLS13},
    },
};
use tokio_xmpp::{
    connect::ServerConnector,
    xmlstream::{StreamHeader, Timeouts, XmppStream, XmppStreamElement, initiate_stream},
};
use xmpp_parsers::ns;

use super::{Connector, DepthGuarded};

const DOMAIN: &str = "capulet.lit";

const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const MECHANISMS: &str =
    "<mechanisms xmlns='urn:ietf:params:xml:ns:xmpp-sasl'><mechanism>SCRAM-SHA-1</mechanism></mechanisms>";

/// What the server does with a connection.
#[derive(Clone, Copy, PartialEq)]
enum Script {
    StartTls,
    /// Has no `<starttls/>` among its features.
    WithoutStartTls,
    /// Answers `<starttls/>` with this.
    Answering(&'static str),
    Direct,
    Plaintext,
}

struct TestServer {
    port: u16,
    certificate: CertificateDer<'static>,
    /// What the server read before it sent its last features, or why it could not.
    task: JoinHandle<std::io::Result<String>>,
}

impl TestServer {
    async fn start(script: Script) -> Self {
        Self::with_tls(script, DOMAIN, &[&TLS12, &TLS13]).await
    }

    async fn with_tls(
        script: Script,
        certified: &str,
        versions: &[&'static tokio_rustls::rustls::SupportedProtocolVersion],
    ) -> Self {
        let own = rcgen::generate_simple_self_signed(vec![certified.to_owned()]).unwrap();
        let certificate = own.cert.der().clone();
        let key = PrivateKeyDer::try_from(own.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.clone()], key)
            .unwrap();
        if script == Script::Direct {
            config.alpn_protocols = vec![b"xmpp-client".to_vec()];
        }
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            let (tcp, _) = listener.accept().await?;
            serve(script, tcp, TlsAcceptor::from(Arc::new(config))).await
        });
        Self { port, certificate, task }
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        roots
    }
}

async fn serve(script: Script, mut tcp: TcpStream, tls: TlsAcceptor) -> std::io::Result<String> {
    match script {
        Script::Direct => return answer_header(&mut tls.accept(tcp).await?, MECHANISMS).await,
        Script::Plaintext | Script::WithoutStartTls => return answer_header(&mut tcp, MECHANISMS).await,
        Script::StartTls | Script::Answering(_) => answer_header(&mut tcp, STARTTLS).await?,
    };
    read_until(&mut tcp, "</starttls>").await?;
    let answer = if let Script::Answering(answer) = script { answer } else { PROCEED };
    tcp.write_all(answer.as_bytes()).await?;
    answer_header(&mut tls.accept(tcp).await?, MECHANISMS).await
}

async fn answer_header(
    io: &mut (impl AsyncRead + AsyncWrite + Unpin),
    feature: &str,
) -> std::io::Result<String> {
    // The XML declaration ends with `?>`, so the header's end is the first `>` behind `<stream:stream`.
    let mut header = read_until(io, "<stream:stream").await?;
    header += &read_until(io, ">").await?;
    io.write_all(server_header().as_bytes()).await?;
    io.write_all(format!("<stream:features>{feature}</stream:features>").as_bytes()).await?;
    io.flush().await?;
    Ok(header)
}

fn server_header() -> String {
    format!(
        "<?xml version='1.0'?><stream:stream xmlns='jabber:client' \
         xmlns:stream='http://etherx.jabber.org/streams' id='1' from='{DOMAIN}' version='1.0'>"
    )
}

async fn read_until(io: &mut (impl AsyncRead + Unpin), end: &str) -> std::io::Result<String> {
    let mut read = String::new();
    while !read.ends_with(end) {
        read.push(char::from(io.read_u8().await?));
    }
    Ok(read)
}

type Connected = (XmppStream<<Connector as ServerConnector>::Stream>, ChannelBinding);

async fn connect(connector: &Connector) -> Result<Connected, String> {
    let jid: Jid = "juliet@capulet.lit/balcony".parse().unwrap();
    let (pending, binding) = connector
        .connect(&jid, ns::JABBER_CLIENT, Timeouts::tight())
        .await
        .map_err(|error| error.to_string())?;
    let (features, stream) = pending.recv_features().await.map_err(|error| error.to_string())?;
    assert!(features.sasl_mechanisms.contains("SCRAM-SHA-1"));
    Ok((stream, binding))
}

fn refusal(result: Result<Connected, String>) -> String {
    match result {
        Ok(_) => panic!("the connection must not come up"),
        Err(error) => error,
    }
}

#[tokio::test]
async fn starttls_believes_the_given_roots_and_binds_to_the_connection() {
    let server = TestServer::start(Script::StartTls).await;
    let connector =
        Connector::starttls().server("127.0.0.1", server.port).roots(server.roots()).with_channel_binding();
    let (stream, binding) = connect(&connector).await.unwrap();

    assert!(matches!(binding, ChannelBinding::TlsExporter(data) if data.len() == 32 && data != [0; 32]));
    assert!(stream.get_stream().get_ref().get_ref().tcp().nodelay().unwrap());
    let header = server.task.await.unwrap().unwrap();
    assert!(header.contains("juliet@capulet.lit"), "within TLS the header says who we are: {header}");
}

#[tokio::test]
async fn an_unknown_certificate_is_refused_by_default() {
    let server = TestServer::start(Script::StartTls).await;
    // The platform's own roots, or a system without any.
    let error = refusal(connect(&Connector::default().server("127.0.0.1", server.port)).await);
    assert!(error.contains("UnknownIssuer") || error.contains("no trusted certificates"), "{error}");
}

#[tokio::test]
async fn a_certificate_from_another_root_is_refused() {
    let server = TestServer::start(Script::StartTls).await;
    let other = TestServer::start(Script::StartTls).await;
    let connector = Connector::starttls().server("127.0.0.1", server.port).roots(other.roots());
    let error = refusal(connect(&connector).await);
    assert!(error.contains("TLS with capulet.lit failed: invalid peer certificate"), "{error}");
    assert!(server.task.await.unwrap().is_err(), "the server got no stream header");
}

#[tokio::test]
async fn a_certificate_for_another_domain_is_refused() {
    let server = TestServer::with_tls(Script::StartTls, "montague.lit", &[&TLS13]).await;
    let connector = Connector::starttls().server("127.0.0.1", server.port).roots(server.roots());
    let error = refusal(connect(&connector).await);
    assert!(error.contains("not valid for name \"capulet.lit\""), "{error}");
}

#[tokio::test]
async fn any_certificate_is_accepted_where_the_user_dares() {
    for versions in [&[&TLS12], &[&TLS13]] {
        let server = TestServer::with_tls(Script::StartTls, "montague.lit", versions).await;
        let mut connector = Connector::starttls().server("127.0.0.1", server.port);
        connector.dangerous().accept_any_certificate();
        connect(&connector).await.unwrap();
    }
}

#[tokio::test]
async fn tls_1_2_is_good_enough_but_not_to_bind_to() {
    let server = TestServer::with_tls(Script::StartTls, DOMAIN, &[&TLS12]).await;
    let connector =
        Connector::starttls().server("127.0.0.1", server.port).roots(server.roots()).with_channel_binding();
    let (_, binding) = connect(&connector).await.unwrap();
    assert!(matches!(binding, ChannelBinding::None));
}

#[tokio::test]
async fn channel_binding_is_left_out_unless_asked_for() {
    let server = TestServer::start(Script::StartTls).await;
    let connector = Connector::starttls().server("127.0.0.1", server.port).roots(server.roots());
    let (_, binding) = connect(&connector).await.unwrap();
    assert!(matches!(binding, ChannelBinding::None));
}

#[tokio::test]
async fn direct_tls_starts_with_tls() {
    let server = TestServer::start(Script::Direct).await;
    let connector =
        Connector::direct_tls().server("127.0.0.1", server.port).roots(server.roots()).with_channel_binding();
    let (stream, binding) = connect(&connector).await.unwrap();
    assert!(matches!(binding, ChannelBinding::TlsExporter(_)));
    assert!(stream.get_stream().get_ref().get_ref().tcp().nodelay().unwrap());
}

#[tokio::test]
async fn a_server_without_starttls_is_refused() {
    let server = TestServer::start(Script::WithoutStartTls).await;
    let error = refusal(connect(&Connector::starttls().server("127.0.0.1", server.port)).await);
    assert!(error.contains("capulet.lit does not offer STARTTLS"), "{error}");
    let header = server.task.await.unwrap().unwrap();
    assert!(!header.contains("juliet"), "without TLS the header does not say who we are: {header}");
}

#[tokio::test]
async fn starttls_answered_with_anything_else_than_proceed_is_refused() {
    let answers = [
        ("<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>", "refused STARTTLS"),
        ("<message><body>stay</body></message>", "something else"),
        ("</stream:stream>", "disconnected"),
        ("<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/><iq/>", "plaintext behind <proceed/>"),
    ];
    for (answer, expected) in answers {
        let server = TestServer::start(Script::Answering(answer)).await;
        let connector = Connector::starttls().server("127.0.0.1", server.port).roots(server.roots());
        let error = refusal(connect(&connector).await);
        assert!(error.contains(expected), "{answer}: {error}");
    }
}

#[tokio::test]
async fn plaintext_works_where_the_user_dares() {
    let server = TestServer::start(Script::Plaintext).await;
    let mut connector = Connector::starttls().server("127.0.0.1", server.port);
    connector.dangerous().plaintext();
    let (stream, binding) = connect(&connector).await.unwrap();
    assert!(matches!(binding, ChannelBinding::None));
    assert!(stream.get_stream().get_ref().get_ref().tcp().nodelay().unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let connector = Connector::starttls().server("127.0.0.1", listener.local_addr().unwrap().port());
    let error = refusal(connect(&connector).await);
    assert!(error.contains("timed out after 30s: setting up the stream"), "{error}");
}

#[test]
fn certificates_are_loaded_once_for_all_clones_and_anew_for_other_ones() {
    let connector = Connector::starttls();
    assert!(Arc::ptr_eq(&connector.tls, &connector.clone().tls));
    let tls = Arc::clone(&connector.tls);
    assert!(!Arc::ptr_eq(&tls, &connector.roots(RootCertStore::empty()).tls));
}

#[tokio::test]
async fn tokio_xmpp_survives_a_hundred_thousand_nested_elements() {
    let levels = 100_000;
    let stanza = format!(
        "<message id='deep'>{}{}</message><message id='next'/></stream:stream>",
        "<a xmlns='urn:example'>".repeat(levels),
        "</a>".repeat(levels)
    );
    let (near, mut far) = duplex(64 * 1024);
    let server = tokio::spawn(async move {
        far.write_all(format!("{}<stream:features/>{stanza}", server_header()).as_bytes()).await.unwrap();
        far
    });

    let header = StreamHeader { to: Some(DOMAIN.into()), from: None, id: None };
    let pending =
        initiate_stream(DepthGuarded::new(near), ns::JABBER_CLIENT, header, Timeouts::tight()).await.unwrap();
    let (_, mut stream): (_, XmppStream<_>) = pending.recv_features().await.unwrap();

    let deep = next_message(&mut stream).await;
    assert_eq!(deep.id.unwrap().0, "deep");
    let mut depth = 1;
    let mut element = deep.payloads.first();
    while let Some(inner) = element {
        depth += 1;
        element = inner.children().next();
    }
    assert_eq!(depth, 128);
    assert_eq!(next_message(&mut stream).await.id.unwrap().0, "next");
    drop(server.await.unwrap());
}

async fn next_message<S>(stream: &mut XmppStream<S>) -> xmpp_parsers::message::Message
where
    S: tokio::io::AsyncBufRead + AsyncWrite + Unpin,
{
    match stream.next().await.unwrap().map(|element| element.into_read_error()) {
        Ok(Ok(XmppStreamElement::Stanza(tokio_xmpp::Stanza::Message(message)))) => message,
        other => panic!("not a message: {other:?}"),
    }
}
