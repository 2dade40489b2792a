//! E2e XML streams that are encrypted by STARTTLS over TCP connections on loopback, with honest peers and with somebody in
//! between.
#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may fail")]

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use futures::{SinkExt as _, StreamExt as _};
use jingle_xmlstream::{
    ApiMisuse, E2eStream, Error, Identity, KnownPeers, Level, PeerIncompatible, Secret, SecurityError, Step,
    StreamOptions, Timeouts, TlsOptions, Trust,
    security::Verification,
    stream::{accept, initiate},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor, TlsConnector,
    rustls::{
        self, ClientConfig, DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime},
        server::danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use tokio_xmpp::Stanza;
use xmpp_parsers::{
    jid::Jid,
    message::{Lang, Message},
};

const ROMEO: &str = "romeo@montague.example/orchard";
const JULIET: &str = "juliet@capulet.example/balcony";

const SECRET: &str = "gallop apace you fiery footed steeds 7731";
const OTHER_SECRET: &str = "come civil night thou sober suited matron 4";

const OFFER: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'><required/></starttls>";
const STARTTLS: &str = "<starttls xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const PROCEED: &str = "<proceed xmlns='urn:ietf:params:xml:ns:xmpp-tls'/>";
const HEADER: &str =
    "<stream:stream xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";

fn jid(text: &str) -> Jid {
    text.parse().unwrap()
}

fn tls(trust: impl Into<Trust>) -> TlsOptions {
    TlsOptions::new(Identity::generate().unwrap(), trust)
}

fn first_use() -> TlsOptions {
    tls(Trust::first_use())
}

fn with_secret(secret: &str) -> TlsOptions {
    first_use().secret(Secret::new(secret).unwrap())
}

fn romeo(options: TlsOptions) -> StreamOptions {
    StreamOptions::new().local(jid(ROMEO)).peer(jid(JULIET)).starttls(options)
}

fn juliet(options: TlsOptions) -> StreamOptions {
    StreamOptions::new().local(jid(JULIET)).starttls(options)
}

async fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
    (ours.unwrap(), theirs.unwrap().0)
}

type Outcome = Result<E2eStream, Error>;

async fn meet(romeo: StreamOptions, juliet: StreamOptions) -> (Outcome, Outcome) {
    let (ours, theirs) = sockets().await;
    within(async { tokio::join!(initiate(ours, romeo), accept(theirs, juliet)) }).await
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.unwrap()
}

fn security(outcome: Outcome) -> SecurityError {
    match outcome.unwrap_err() {
        Error::Security(error) => error,
        other => panic!("no security error: {other}"),
    }
}

async fn say(from: &mut E2eStream, to: &mut E2eStream, body: &str) {
    let message = Message::chat(None).with_body(Lang::new(), body.to_owned());
    from.send(Stanza::Message(message)).await.unwrap();
    let Stanza::Message(heard) = within(to.next()).await.unwrap().unwrap() else { panic!("not a message") };
    assert_eq!(heard.bodies.values().next().unwrap(), body);
}

/// Reads until this has come.
async fn read_until(io: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let mut buffer = [0; 1024];
        let count = within(io.read(&mut buffer)).await.unwrap();
        assert!(count > 0, "it ends after {text}");
        text.push_str(std::str::from_utf8(&buffer[..count]).unwrap());
    }
    text
}

/// Somebody between the two, with a connection to each.
struct Between {
    to_romeo: TcpStream,
    to_juliet: TcpStream,
}

/// Both talk to somebody in between, who does this.
async fn meet_through<F>(
    romeo: StreamOptions,
    juliet: StreamOptions,
    between: impl FnOnce(Between) -> F,
) -> (Outcome, Outcome)
where
    F: Future<Output = ()> + Send + 'static,
{
    let ((ours, to_romeo), (to_juliet, theirs)) = (sockets().await, sockets().await);
    tokio::spawn(between(Between { to_romeo, to_juliet }));
    within(async { tokio::join!(initiate(ours, romeo), accept(theirs, juliet)) }).await
}

impl Between {
    /// Passes on both headers and the features, these changed.
    async fn pass_features(&mut self, change: impl Fn(&str) -> String) {
        let header = read_until(&mut self.to_romeo, "version='1.0'>").await;
        self.to_juliet.write_all(header.as_bytes()).await.unwrap();
        let answer = read_until(&mut self.to_juliet, "</stream:features>").await;
        self.to_romeo.write_all(change(&answer).as_bytes()).await.unwrap();
    }

    async fn pass_starttls(&mut self, behind: &str) {
        let request = read_until(&mut self.to_romeo, STARTTLS).await + behind;
        self.to_juliet.write_all(request.as_bytes()).await.unwrap();
    }

    async fn pass_proceed(&mut self, behind: &str) {
        let agreement = read_until(&mut self.to_juliet, PROCEED).await + behind;
        self.to_romeo.write_all(agreement.as_bytes()).await.unwrap();
    }

    async fn pass_all(mut self) {
        let _ = copy_bidirectional(&mut self.to_romeo, &mut self.to_juliet).await;
    }
}

#[tokio::test]
async fn two_strangers_meet_and_know_each_other_from_then_on() {
    let (of_romeo, of_juliet) = (first_use(), first_use());
    for seen in [Verification::FirstUse, Verification::Known] {
        let (ours, theirs) = meet(romeo(of_romeo.clone()), juliet(of_juliet.clone())).await;
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        assert_eq!((ours.peer().verification(), theirs.peer().verification()), (Some(seen), Some(seen)));
        assert_eq!(theirs.peer().jid(), Some(&jid(ROMEO)), "her options do not say who it is");
        let (at_romeo, at_juliet) = (ours.info().tls.clone().unwrap(), theirs.info().tls.clone().unwrap());
        assert_eq!(at_romeo.own_fingerprint(), at_juliet.peer_fingerprint());
        assert_eq!(at_romeo.peer_fingerprint(), at_juliet.own_fingerprint());
        assert_eq!(at_romeo.version(), "TLSv1.3");
        assert_eq!(ours.info().id, theirs.info().id);
        say(&mut ours, &mut theirs, "Ah me!").await;
        say(&mut theirs, &mut ours, "She speaks!").await;
        within(ours.close()).await.unwrap();
    }
}

#[tokio::test]
async fn a_changed_key_is_refused_whoever_has_it() {
    let (of_romeo, of_juliet) = (first_use(), first_use());
    let (ours, theirs) = meet(romeo(of_romeo.clone()), juliet(of_juliet.clone())).await;
    drop((ours.unwrap(), theirs.unwrap()));

    let (ours, theirs) = meet(romeo(of_romeo), juliet(first_use())).await;
    assert!(matches!(security(ours), SecurityError::KeyChanged { .. }));
    assert!(theirs.is_err());

    // Somebody else claims to be Romeo.
    let (ours, theirs) = meet(romeo(first_use()), juliet(of_juliet)).await;
    assert!(matches!(security(theirs), SecurityError::KeyChanged { .. }));
    assert!(matches!(security(ours), SecurityError::PeerRefused(_)));
}

#[tokio::test]
async fn a_pinned_certificate_is_enough_and_no_other_is() {
    let identity = Identity::generate().unwrap();
    let pinning = |identity: &Identity| tls(Trust::pinned([identity.fingerprint().clone()]));
    let hers = TlsOptions::new(identity.clone(), Trust::first_use());
    let (ours, theirs) = meet(romeo(pinning(&identity)), juliet(hers.clone())).await;
    assert_eq!(ours.unwrap().peer().level(), Some(Level::Verified));
    theirs.unwrap();

    let other = Identity::generate().unwrap();
    let (ours, theirs) = meet(romeo(pinning(&other)), juliet(hers)).await;
    assert!(matches!(security(ours), SecurityError::NotPinned { .. }));
    assert!(theirs.is_err());
}

#[tokio::test]
async fn who_is_not_known_well_enough_gets_no_stream() {
    let (ours, theirs) = meet(romeo(first_use().require(Level::Known)), juliet(first_use())).await;
    let (required, reached) = match security(ours) {
        SecurityError::Insufficient { required, reached, .. } => (required, reached),
        other => panic!("{other}"),
    };
    assert_eq!((required, reached), (Level::Known, Level::FirstUse));
    // Her stream was up before he had judged her.
    assert!(within(theirs.unwrap().next()).await.unwrap().is_err());
}

#[tokio::test]
async fn nothing_but_the_negotiation_goes_over_the_wire_in_the_clear() {
    let (seen_by, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let (ours, theirs) = meet_through(romeo(first_use()), juliet(first_use()), async move |mut between| {
        between.pass_features(str::to_owned).await;
        between.pass_starttls("").await;
        between.pass_proceed("").await;
        let (mut of_romeo, mut of_juliet) = (between.to_romeo.into_split(), between.to_juliet.into_split());
        let back = tokio::spawn(async move { tokio::io::copy(&mut of_juliet.0, &mut of_romeo.1).await });
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = of_romeo.0.read(&mut buffer).await {
            seen_by.send(buffer[..count].to_vec()).unwrap();
            of_juliet.1.write_all(&buffer[..count]).await.unwrap();
        }
        back.abort();
    })
    .await;
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    say(&mut ours, &mut theirs, "O that I were a glove upon that hand").await;
    let mut wire = Vec::new();
    while let Ok(bytes) = seen.try_recv() {
        wire.extend(bytes);
    }
    let wire = String::from_utf8_lossy(&wire);
    assert!(!wire.contains("glove") && !wire.contains("<message") && !wire.contains("<stream:stream"));
}

#[tokio::test]
async fn a_stream_can_be_finished_and_another_opened_inside_of_the_same_tls() {
    let (ours, theirs) = meet(romeo(with_secret(SECRET)), juliet(with_secret(SECRET))).await;
    let (ours, theirs) =
        within(async { tokio::join!(ours.unwrap().finish(), theirs.unwrap().finish()) }).await;
    let reopened = async { tokio::join!(ours.unwrap().reopen(), theirs.unwrap().reopen()) };
    let (ours, theirs) = within(reopened).await;
    let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
    assert_eq!(theirs.peer().verification(), Some(Verification::Secret));
    assert!(ours.info().tls.is_some());
    say(&mut ours, &mut theirs, "Parting is such sweet sorrow").await;
}

/// Juliet knows Romeo's name from the header before TLS only, which anybody can write.
#[tokio::test]
async fn who_gave_a_name_in_the_clear_has_to_repeat_it_inside_of_tls() {
    let change =
        |header: &str| header.replace("<stream:stream", "<stream:stream from='mercutio@verona.example'");
    let (ours, theirs) = meet_through(
        StreamOptions::new().peer(jid(JULIET)).starttls(first_use()),
        juliet(first_use()),
        async move |mut between: Between| {
            let header = read_until(&mut between.to_romeo, "version='1.0'>").await;
            between.to_juliet.write_all(change(&header).as_bytes()).await.unwrap();
            let _ = copy_bidirectional(&mut between.to_romeo, &mut between.to_juliet).await;
        },
    )
    .await;
    let Err(Error::Stream(refusal)) = theirs else { panic!("{theirs:?}") };
    assert!(refusal.text.unwrap().contains("say again who the stream is from"));
    assert!(ours.is_err());
}

/// Nobody has to answer when it does not matter any more.
#[tokio::test]
async fn a_question_ends_with_its_stream() {
    let (trust, mut questions) = Trust::ask(KnownPeers::in_memory());
    let (ours, theirs) = sockets().await;
    let asked = async {
        let mut question = questions.next().await.unwrap();
        question.cancelled().await;
    };
    let gone = async { accept(theirs, juliet(first_use())).await.unwrap().close().await };
    let (outcome, (), _) =
        within(async { tokio::join!(initiate(ours, romeo(tls(trust))), asked, gone) }).await;
    assert!(outcome.is_err());
}

#[tokio::test]
async fn an_initiator_has_to_know_whom_it_wants() {
    let (ours, _theirs) = sockets().await;
    let error = initiate(ours, StreamOptions::new().starttls(first_use())).await.unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::Config(_))), "{error}");
}

#[tokio::test]
async fn an_offer_that_was_removed_on_the_way_is_missed() {
    let (ours, theirs) = meet_through(romeo(first_use()), juliet(first_use()), async |mut between| {
        between.pass_features(|answer| answer.replace(OFFER, "")).await;
        between.pass_all().await;
    })
    .await;
    assert_eq!(security(ours), SecurityError::StarttlsNotOffered { offered: "nothing".to_owned() });
    assert!(theirs.is_err());
}

#[tokio::test]
async fn where_only_one_side_has_it_there_is_no_stream() {
    let plain = |local, peer| StreamOptions::new().local(jid(local)).peer(jid(peer));
    let (ours, theirs) = meet(romeo(first_use()), plain(JULIET, ROMEO)).await;
    assert!(matches!(security(ours), SecurityError::StarttlsNotOffered { .. }));
    // She had nothing to wait for.
    assert!(within(theirs.unwrap().next()).await.unwrap().is_err());

    let (ours, theirs) = meet(plain(ROMEO, JULIET), juliet(first_use())).await;
    let error = ours.unwrap_err();
    let required = PeerIncompatible::MandatoryFeature("starttls".to_owned());
    assert!(matches!(&error, Error::PeerIncompatible(feature) if *feature == required), "{error}");
    assert!(theirs.is_err());
}

#[tokio::test]
async fn what_is_slipped_in_before_tls_is_noticed() {
    let injected = "<message><body>psst</body></message>";
    let (ours, theirs) = meet_through(romeo(first_use()), juliet(first_use()), async move |mut between| {
        between.pass_features(str::to_owned).await;
        between.pass_starttls(injected).await;
        between.pass_all().await;
    })
    .await;
    assert!(security(theirs).to_string().contains("36 bytes in the clear behind it"));
    assert!(ours.is_err());

    let (ours, theirs) = meet_through(romeo(first_use()), juliet(first_use()), async move |mut between| {
        between.pass_features(str::to_owned).await;
        between.pass_starttls("").await;
        between.pass_proceed(injected).await;
        between.pass_all().await;
    })
    .await;
    assert!(security(ours).to_string().contains("36 bytes in the clear behind it"));
    assert!(theirs.is_err());
}

/// A responder by hand, who answers `<starttls/>` with this.
async fn answered(answer: &str, options: StreamOptions) -> (Outcome, TcpStream) {
    let (ours, mut theirs) = sockets().await;
    let initiating = tokio::spawn(initiate(ours, options));
    let features = format!("{HEADER}<stream:features>{OFFER}</stream:features>");
    theirs.write_all(features.as_bytes()).await.unwrap();
    read_until(&mut theirs, STARTTLS).await;
    theirs.write_all(answer.as_bytes()).await.unwrap();
    (within(initiating).await.unwrap(), theirs)
}

#[tokio::test]
async fn a_refusal_of_starttls_is_told() {
    let failure = "<failure xmlns='urn:ietf:params:xml:ns:xmpp-tls'/></stream:stream>";
    let (outcome, mut theirs) = answered(failure, romeo(first_use())).await;
    assert_eq!(security(outcome), SecurityError::StarttlsFailed("<failure/>".to_owned()));
    let mut last = String::new();
    within(theirs.read_to_string(&mut last)).await.unwrap();
    assert_eq!(last, "</stream:stream>");
}

#[tokio::test]
async fn a_responder_that_agrees_and_says_no_more_is_left() {
    let mut timeouts = Timeouts::default();
    timeouts.tls = Duration::from_millis(50);
    let (outcome, _theirs) = answered(PROCEED, romeo(first_use()).timeouts(timeouts)).await;
    assert!(matches!(outcome, Err(Error::Timeout(Step::Tls, _))));
}

#[tokio::test]
async fn a_responder_that_agrees_and_does_no_tls_is_left() {
    let (ours, mut theirs) = sockets().await;
    let initiating = tokio::spawn(initiate(ours, romeo(first_use())));
    let features = format!("{HEADER}<stream:features>{OFFER}</stream:features>");
    theirs.write_all(features.as_bytes()).await.unwrap();
    read_until(&mut theirs, STARTTLS).await;
    theirs.write_all(PROCEED.as_bytes()).await.unwrap();
    // The ClientHello.
    within(theirs.read_u8()).await.unwrap();
    theirs.write_all(HEADER.as_bytes()).await.unwrap();
    let error = within(initiating).await.unwrap().unwrap_err();
    assert!(matches!(error, Error::PeerMisbehaved(_)), "{error}");
}

#[tokio::test]
async fn a_shared_secret_verifies_strangers() {
    let (of_romeo, of_juliet) = (with_secret(SECRET), with_secret(SECRET));
    // The second time the certificates are enough.
    for _ in 0..2 {
        let (ours, theirs) = meet(romeo(of_romeo.clone()), juliet(of_juliet.clone())).await;
        let (mut ours, mut theirs) = (ours.unwrap(), theirs.unwrap());
        for peer in [ours.peer(), theirs.peer()] {
            assert_eq!(peer.verification(), Some(Verification::Secret));
            assert_eq!(peer.level(), Some(Level::Verified));
        }
        say(&mut ours, &mut theirs, "Ah me!").await;
        within(ours.close()).await.unwrap();
    }
}

#[tokio::test]
async fn a_strict_policy_lets_those_in_who_know_the_secret() {
    let strict = || tls(Trust::strict(KnownPeers::in_memory()));
    let secret = || Secret::new(SECRET).unwrap();
    let (ours, theirs) = meet(romeo(strict().secret(secret())), juliet(strict().secret(secret()))).await;
    assert_eq!(ours.unwrap().peer().verification(), Some(Verification::Secret));
    theirs.unwrap();
    let (ours, theirs) = meet(romeo(strict()), juliet(first_use())).await;
    assert!(matches!(security(ours), SecurityError::NotListed { .. }));
    assert!(theirs.is_err());
}

#[tokio::test]
async fn a_secret_that_only_one_side_has_is_missed() {
    let (ours, theirs) = meet(romeo(with_secret(SECRET)), juliet(first_use())).await;
    assert!(
        matches!(security(ours), SecurityError::SecretNotOffered { offered, .. } if offered == "no SASL")
    );
    assert!(within(theirs.unwrap().next()).await.unwrap().is_err());

    let (ours, theirs) = meet(romeo(first_use()), juliet(with_secret(SECRET))).await;
    assert!(matches!(security(ours), SecurityError::SecretMissing { .. }));
    assert!(theirs.is_err());
}

#[tokio::test]
async fn another_secret_is_refused_and_nobody_is_remembered() {
    let (of_romeo, of_juliet) = (with_secret(SECRET), with_secret(OTHER_SECRET));
    let (ours, theirs) = meet(romeo(of_romeo.clone()), juliet(of_juliet)).await;
    assert!(matches!(security(ours), SecurityError::SecretMismatch { .. }));
    assert!(matches!(security(theirs), SecurityError::SecretMismatch { .. }));
    // With another certificate, which would be refused if the first had been remembered.
    let (ours, _theirs) = meet(romeo(of_romeo), juliet(with_secret(SECRET))).await;
    ours.unwrap();
}

#[tokio::test]
async fn a_proof_of_the_secret_can_not_be_passed_on_through_two_tls_connections() {
    let (ours, theirs) =
        meet_through(romeo(with_secret(SECRET)), juliet(with_secret(SECRET)), async |mut between| {
            between.pass_features(str::to_owned).await;
            between.pass_starttls("").await;
            between.pass_proceed("").await;
            let nameless = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
            let (client, server) = Anybody::configs();
            // She sees everything, and passes it on as it is.
            let (to_romeo, to_juliet) = tokio::join!(
                TlsAcceptor::from(server).accept(between.to_romeo),
                TlsConnector::from(client).connect(nameless, between.to_juliet)
            );
            let _ = copy_bidirectional(&mut to_romeo.unwrap(), &mut to_juliet.unwrap()).await;
        })
        .await;
    let error = security(theirs);
    assert!(matches!(error, SecurityError::ChannelBinding { .. }), "{error}");
    security(ours);
}

/// Believes everybody: whoever is in between does not care.
#[derive(Debug)]
struct Anybody;

impl Anybody {
    fn configs() -> (Arc<ClientConfig>, Arc<ServerConfig>) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        let chain = vec![certificate.der().clone()];
        let key = || PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = || Arc::new(aws_lc_rs::default_provider());
        let client = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Self))
            .with_client_auth_cert(chain.clone(), key())
            .unwrap();
        let server = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_client_cert_verifier(Arc::new(Self))
            .with_single_cert(chain, key())
            .unwrap();
        (Arc::new(client), Arc::new(server))
    }

    fn schemes() -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// What both kinds of verifier have to say about signatures.
macro_rules! any_signature {
    () => {
        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, rustls::Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            Self::schemes()
        }
    };
}

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    any_signature!();
}

impl ClientCertVerifier for Anybody {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    any_signature!();
}
