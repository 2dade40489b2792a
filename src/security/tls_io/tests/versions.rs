//! Versions of TLS, and key exchange groups.

use super::{super::failure::TOO_OLD, *};

impl Parties {
    /// Both speak TLS 1.2, too.
    fn allow_tls12(mut self) -> Self {
        self.of_juliet.options.allow_tls12();
        self.of_romeo.options.allow_tls12();
        self
    }
}

/// Romeo's configuration, or Juliet's, for TLS 1.2 alone.
macro_rules! only_tls12 {
    ($config:ident, $expectation:expr) => {{
        let expectation = Arc::new($expectation.clone());
        let provider = provider(&expectation.options).unwrap();
        let key = Arc::new(SingleCertAndKey::from(expectation.options.identity.certified_key()));
        let verifier = Arc::new(Verifier::new(expectation, provider.signature_verification_algorithms));
        let builder = $config::builder_with_provider(provider).with_protocol_versions(&[&TLS12]).unwrap();
        (builder, verifier, key)
    }};
}

fn tls12_initiator(expectation: &Expectation) -> ClientConfig {
    let (builder, verifier, key) = only_tls12!(ClientConfig, expectation);
    builder.dangerous().with_custom_certificate_verifier(verifier).with_client_cert_resolver(key)
}

fn tls12_responder(expectation: &Expectation) -> ServerConfig {
    let (builder, verifier, key) = only_tls12!(ServerConfig, expectation);
    builder.with_client_cert_verifier(verifier).with_cert_resolver(key)
}

/// What the error says about TLS.
fn tls_error<IO>(outcome: Outcome<IO>) -> String {
    match outcome {
        Err(Error::PeerMisbehaved(PeerMisbehaved::Tls(text))) => text,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the handshake succeeded"),
    }
}

/// A ClientHello that knows nothing newer than TLS 1.2 (RFC 5246 §7.4.1.2), nor the extended master secret, in its record.
fn tls12_client_hello() -> Vec<u8> {
    let extensions: &[u8] = &[
        0, 10, 0, 4, 0, 2, 0, 23, // supported_groups: secp256r1
        0, 11, 0, 2, 1, 0, // ec_point_formats: uncompressed
        0, 13, 0, 4, 0, 2, 4, 3, // signature_algorithms: ecdsa_secp256r1_sha256
    ];
    let mut hello = vec![3, 3]; // TLS 1.2
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    hello.extend([0, 2, 0xC0, 0x2B]); // ECDHE-ECDSA-AES128-GCM-SHA256
    hello.extend([1, 0]); // no compression
    hello.extend([0, u8::try_from(extensions.len()).unwrap()]);
    hello.extend(extensions);
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);
    record
}

#[tokio::test]
async fn an_initiator_that_knows_nothing_newer_than_tls_1_2_is_refused() {
    let parties = Parties::generated();
    let (mut left, right) = duplex(BUFFER_BYTES);
    left.write_all(&tls12_client_hello()).await.unwrap();
    let error = accept(right, parties.of_romeo.clone()).await.unwrap_err();
    assert_eq!(error.to_string(), format!("the peer broke the protocol: TLS: {TOO_OLD}"));
    assert_eq!(error.reason(), Reason::SecurityError);
    let mut alert = Vec::new();
    left.read_to_end(&mut alert).await.unwrap();
    assert_eq!(alert, [21, 3, 3, 0, 2, 2, 70], "a fatal protocol_version");
}

#[tokio::test]
async fn a_peer_with_tls_1_2_alone_is_refused_on_either_side_and_the_error_says_what_to_do() {
    let parties = Parties::generated().allow_tls12();
    let strict = Parties::new(parties.romeo().clone(), parties.juliet().clone());

    let (left, right) = duplex(BUFFER_BYTES);
    let acceptor = TlsAcceptor::from(Arc::new(tls12_responder(&parties.of_romeo)));
    let (romeo, _) = tokio::join!(connect(left, strict.of_juliet.clone()), acceptor.accept(right));
    let text = tls_error(romeo);
    assert!(text.contains("TLS 1.3 was expected") && text.contains("allow_tls12"), "{text}");

    let (left, right) = duplex(BUFFER_BYTES);
    let old = tls12_initiator(&parties.of_juliet);
    let (_, juliet) = tokio::join!(raw_connect(old, left), accept(right, strict.of_romeo.clone()));
    assert_eq!(tls_error(juliet), TOO_OLD);
}

#[tokio::test]
async fn a_peer_with_tls_1_2_alone_is_served_where_that_is_allowed_and_it_shows() {
    let parties = Parties::generated().allow_tls12();
    let (left, right) = duplex(BUFFER_BYTES);
    let acceptor = TlsAcceptor::from(Arc::new(tls12_responder(&parties.of_romeo)));
    let (romeo, juliet) = tokio::join!(connect(left, parties.of_juliet.clone()), acceptor.accept(right));
    juliet.unwrap();
    let romeo = romeo.unwrap();
    assert_eq!(romeo.connection.presented.certificate(), parties.juliet().certificate());
    let tls = romeo.connection.tls.to_string();
    assert_eq!(tls, "TLSv1.2 TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 X25519");

    let (left, right) = duplex(BUFFER_BYTES);
    let old = tls12_initiator(&parties.of_juliet);
    let (romeo, juliet) = tokio::join!(raw_connect(old, left), accept(right, parties.of_romeo.clone()));
    romeo.unwrap();
    let juliet = juliet.unwrap();
    assert_eq!(juliet.connection.presented.certificate(), parties.romeo().certificate());
    assert_eq!(juliet.connection.tls.version(), "TLSv1.2");
}

/// RFC 7627, without which the exporter binds nothing in TLS 1.2 (RFC 9266 §4).
#[tokio::test]
async fn where_tls_1_2_is_allowed_it_needs_the_extended_master_secret() {
    let parties = Parties::generated().allow_tls12();
    let (mut left, right) = duplex(BUFFER_BYTES);
    left.write_all(&tls12_client_hello()).await.unwrap();
    left.shutdown().await.unwrap();
    let text = tls_error(accept(right, parties.of_romeo.clone()).await);
    assert!(text.contains("extended master secret") && text.contains("update it"), "{text}");
}

#[tokio::test]
async fn where_tls_1_2_is_allowed_tls_1_3_is_still_what_two_of_us_speak() {
    let (romeo, juliet) = Parties::generated().allow_tls12().meet().await;
    assert_eq!(romeo.unwrap().connection.tls.version(), "TLSv1.3");
    assert_eq!(juliet.unwrap().connection.tls.version(), "TLSv1.3");
}

#[tokio::test]
async fn in_tls_1_2_too_a_certificate_without_its_key_gains_nothing() {
    let parties = Parties::generated().allow_tls12();
    let mallory = Identity::generate().unwrap();

    let (left, right) = duplex(BUFFER_BYTES);
    let mut config = tls12_responder(&parties.of_romeo);
    config.cert_resolver = impostor(parties.juliet(), &mallory);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let (romeo, _) = tokio::join!(connect(left, parties.of_juliet.clone()), acceptor.accept(right));
    assert!(matches!(security(romeo), SecurityError::BadCertificate(text) if text.contains("BadSignature")));

    let (left, right) = duplex(BUFFER_BYTES);
    let mut config = tls12_initiator(&parties.of_juliet);
    config.client_auth_cert_resolver = impostor(parties.romeo(), &mallory);
    let (_, juliet) = tokio::join!(raw_connect(config, left), accept(right, parties.of_romeo.clone()));
    assert!(matches!(security(juliet), SecurityError::BadCertificate(text) if text.contains("BadSignature")));
}

#[tokio::test]
async fn in_tls_1_2_too_nothing_is_resumed() {
    let parties = Parties::generated().allow_tls12();
    let mut config = tls12_initiator(&parties.of_juliet);
    config.resumption = Resumption::in_memory_sessions(16);
    let config = Arc::new(config);
    for _ in 0..2 {
        let (left, right) = duplex(BUFFER_BYTES);
        let initiator = raw_connect(Arc::clone(&config), left);
        let (romeo, juliet) = tokio::join!(initiator, accept(right, parties.of_romeo.clone()));
        juliet.unwrap();
        assert_eq!(romeo.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn the_verifier_takes_no_tls_1_2_where_it_is_not_allowed() {
    // Whatever the configuration around it says.
    let parties = Parties::generated();
    let (left, right) = duplex(BUFFER_BYTES);
    let acceptor = TlsAcceptor::from(Arc::new(tls12_responder(&parties.of_romeo)));
    let old = tls12_initiator(&parties.of_juliet);
    let (romeo, _) = tokio::join!(raw_connect(old, left), acceptor.accept(right));
    assert!(romeo.unwrap_err().to_string().contains("TLS 1.2 is not allowed"));
}

#[tokio::test]
async fn what_is_exported_is_the_same_at_both_ends_and_another_in_each_connection() {
    let newer = Parties::generated();
    let older = Parties::generated().allow_tls12();
    let mut seen = Vec::new();
    for _ in 0..2 {
        let (romeo, juliet) = newer.meet().await;
        let (romeo, juliet) = (romeo.unwrap().connection, juliet.unwrap().connection);
        assert_eq!((&romeo.binding.0, &romeo.code_key.0), (&juliet.binding.0, &juliet.code_key.0));
        seen.extend([romeo.binding.0, romeo.code_key.0]);

        // The other end is rustls alone here; that both agree on what RFC 5705 makes of it is shown by asking it.
        let (left, right) = duplex(BUFFER_BYTES);
        let old = tls12_initiator(&older.of_juliet);
        let (romeo, juliet) = tokio::join!(raw_connect(old, left), accept(right, older.of_romeo.clone()));
        let (romeo, juliet) = (romeo.unwrap(), juliet.unwrap().connection);
        for (label, ours) in [(CHANNEL_BINDING, juliet.binding.0), (VERIFICATION_CODE, juliet.code_key.0)] {
            let theirs = romeo.get_ref().1.export_keying_material([0; 32], label, Some(&[])).unwrap();
            assert_eq!(*ours, theirs);
            seen.push(ours);
        }
    }
    for (position, one) in seen.iter().enumerate() {
        assert!(seen.iter().skip(position + 1).all(|other| other != one));
    }
}

#[tokio::test]
async fn a_peer_without_post_quantum_key_exchange_is_served_and_it_shows() {
    let mut parties = Parties::generated();
    parties.of_romeo.options = parties.of_romeo.options.clone().key_exchange([KeyExchange::X25519]);
    let (romeo, juliet) = parties.meet().await;
    assert_eq!(romeo.unwrap().connection.tls.key_exchange(), "X25519");
    assert_eq!(juliet.unwrap().connection.tls.key_exchange(), "X25519");
}

#[tokio::test]
async fn every_key_exchange_group_works() {
    for (group, name) in [
        (KeyExchange::X25519MlKem768, "X25519MLKEM768"),
        (KeyExchange::MlKem768, "MLKEM768"),
        (KeyExchange::X25519, "X25519"),
        (KeyExchange::Secp256r1, "secp256r1"),
        (KeyExchange::Secp384r1, "secp384r1"),
    ] {
        let mut parties = Parties::generated();
        parties.of_juliet.options = parties.of_juliet.options.clone().key_exchange([group]);
        parties.of_romeo.options = parties.of_romeo.options.clone().key_exchange([group]);
        let (romeo, juliet) = parties.meet().await;
        juliet.unwrap();
        assert_eq!(romeo.unwrap().connection.tls.key_exchange(), name);
    }
}

#[tokio::test]
async fn without_a_common_key_exchange_group_both_are_told_so() {
    let mut parties = Parties::generated();
    parties.of_juliet.options = parties.of_juliet.options.clone().key_exchange([KeyExchange::X25519]);
    parties.of_romeo.options = parties.of_romeo.options.clone().key_exchange([KeyExchange::Secp384r1]);
    let (romeo, juliet) = parties.meet().await;
    for text in [tls_error(romeo), tls_error(juliet)] {
        assert!(text.contains("key exchange group") && text.contains("TlsOptions::key_exchange"), "{text}");
    }
}

#[tokio::test]
async fn without_any_key_exchange_group_no_handshake_is_begun() {
    let mut parties = Parties::generated();
    parties.of_juliet.options = parties.of_juliet.options.clone().key_exchange([]);
    let (romeo, juliet) = parties.meet().await;
    let error = romeo.map(drop).unwrap_err();
    assert!(matches!(error, Error::ApiMisuse(ApiMisuse::Config(_))), "{error}");
    assert!(
        error.to_string().starts_with("TlsOptions::key_exchange (or Config's) names no group"),
        "{error}"
    );
    assert!(matches!(juliet, Err(Error::Transport(_))), "{juliet:?}");
}
