//! Handshakes between Romeo, the initiator, and Juliet, the responder, and what an attacker between them gets.

use tokio::io::{AsyncReadExt, BufStream, DuplexStream, duplex};
use tokio_rustls::rustls::{
    HandshakeKind,
    crypto::aws_lc_rs::Ticketer,
    server::ServerSessionMemoryCache,
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{super::identity::fixture, *};
use crate::{
    error::{SecurityError, TransportError},
    reason::Reason,
    security::{HashAlgo, Identity, Standing, Trust, Verification},
};

mod certificates;
mod versions;

const BUFFER_BYTES: usize = 64 * 1024;

/// What Romeo and Juliet are set up with, and what each knows of the other.
struct Parties {
    /// Romeo's.
    of_juliet: Expectation,
    /// Juliet's.
    of_romeo: Expectation,
}

type Outcome<IO> = Result<Secured<IO>, Error>;

impl Parties {
    /// Each has announced its certificate to the other, and trusts the other's at first use.
    fn new(romeo: Identity, juliet: Identity) -> Self {
        let announced = |identity: &Identity| Announced::ByJingle(vec![identity.fingerprint().clone()]);
        let expect = |peer: &str, announced: Announced, ours: Identity| Expectation {
            peer: peer.parse().unwrap(),
            announced,
            options: TlsOptions::new(ours, Trust::first_use()),
        };
        let (by_romeo, by_juliet) = (announced(&romeo), announced(&juliet));
        let of_juliet = expect("juliet@capulet.lit", by_juliet, romeo);
        let of_romeo = expect("romeo@montague.lit", by_romeo, juliet);
        Self { of_juliet, of_romeo }
    }

    fn generated() -> Self {
        Self::new(Identity::generate().unwrap(), Identity::generate().unwrap())
    }

    fn romeo(&self) -> &Identity {
        &self.of_juliet.options.identity
    }

    fn juliet(&self) -> &Identity {
        &self.of_romeo.options.identity
    }

    async fn meet(&self) -> (Outcome<DuplexStream>, Outcome<DuplexStream>) {
        let (left, right) = duplex(BUFFER_BYTES);
        tokio::join!(connect(left, self.of_juliet.clone()), accept(right, self.of_romeo.clone()))
    }
}

fn standing<IO>(secured: &Secured<IO>) -> Standing {
    secured.connection.presented.standing()
}

/// The error in it, which must be of the security kind.
fn security<IO>(outcome: Outcome<IO>) -> SecurityError {
    match outcome {
        Err(error @ Error::Security(_)) if error.reason() != Reason::SecurityError => panic!("{error}"),
        Err(Error::Security(error)) => error,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the handshake succeeded"),
    }
}

fn refused_by_peer() -> SecurityError {
    SecurityError::PeerRefused(Some("certificate_unknown".to_owned()))
}

/// The error of the first read.
async fn first_read(mut stream: Secured<DuplexStream>) -> Error {
    error_from_io(&stream.io.read_u8().await.unwrap_err())
}

#[tokio::test]
async fn both_sides_are_verified_and_the_stream_is_post_quantum_tls_1_3() {
    let parties = Parties::generated();
    let (romeo, juliet) = parties.meet().await;
    let (mut romeo, mut juliet) = (romeo.unwrap(), juliet.unwrap());

    let shown = "TLSv1.3 TLS13_AES_256_GCM_SHA384 X25519MLKEM768";
    assert_eq!(
        (romeo.connection.tls.to_string(), juliet.connection.tls.to_string()),
        (shown.to_owned(), shown.to_owned())
    );
    assert_eq!(romeo.connection.presented.certificate(), parties.juliet().certificate());
    assert_eq!(juliet.connection.presented.certificate(), parties.romeo().certificate());
    assert_eq!(romeo.connection.tls.peer_fingerprint(), juliet.connection.tls.own_fingerprint());
    assert_eq!(standing(&juliet), Standing::FirstUse);

    romeo.io.write_all(b"wherefore").await.unwrap();
    romeo.io.flush().await.unwrap();
    let mut heard = [0; 9];
    juliet.io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"wherefore");
    juliet.io.write_all(b"what's in").await.unwrap();
    juliet.io.flush().await.unwrap();
    romeo.io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"what's in");
}

#[tokio::test]
async fn older_peers_keys_work() {
    for name in ["p256", "ed25519", "rsa2048"] {
        for parties in [
            Parties::new(fixture(name), Identity::generate().unwrap()),
            Parties::new(Identity::generate().unwrap(), fixture(name)),
        ] {
            let (romeo, juliet) = parties.meet().await;
            assert!(romeo.is_ok() && juliet.is_ok(), "{name}: {romeo:?} {juliet:?}");
        }
    }
}

#[tokio::test]
async fn gajims_and_kaas_fingerprints_are_understood() {
    let gajim = fixture("rsa2048");
    let colons = gajim.fingerprint().to_string();
    let sha1 = Fingerprint::of_with(HashAlgo::Sha1, gajim.certificate_der()).to_string();
    let bare = sha1.replace(':', "").to_lowercase();
    for (algo, text) in [(None, colons), (Some("sha1"), bare)] {
        let mut parties = Parties::new(Identity::generate().unwrap(), gajim.clone());
        parties.of_juliet.announced = Announced::ByJingle(vec![Fingerprint::announced(algo, &text).unwrap()]);
        let (romeo, juliet) = parties.meet().await;
        assert!(romeo.is_ok() && juliet.is_ok(), "{text}");
    }
}

#[tokio::test]
async fn a_responder_with_another_certificate_than_announced_is_refused() {
    let mut parties = Parties::generated();
    let announced = Fingerprint::of(b"what the server made of it");
    parties.of_juliet.announced = Announced::ByJingle(vec![announced.clone()]);
    let (romeo, juliet) = parties.meet().await;
    let presented = parties.juliet().fingerprint().clone();
    assert_eq!(security(romeo), SecurityError::FingerprintMismatch { announced, presented });
    assert_eq!(security(juliet), refused_by_peer());
}

#[tokio::test]
async fn an_initiator_with_another_certificate_than_announced_is_refused_and_hears_of_it_at_its_first_read() {
    let mut parties = Parties::generated();
    let announced = Fingerprint::of(b"what the server made of it");
    parties.of_romeo.announced = Announced::ByJingle(vec![announced.clone()]);
    let (romeo, juliet) = parties.meet().await;
    let presented = parties.romeo().fingerprint().clone();
    assert_eq!(security(juliet), SecurityError::FingerprintMismatch { announced, presented });
    let error = first_read(romeo.unwrap()).await;
    assert_eq!(security::<()>(Err(error)), refused_by_peer());
}

#[tokio::test]
async fn who_announced_nothing_is_refused() {
    let mut parties = Parties::generated();
    parties.of_juliet.announced = Announced::ByJingle(vec![]);
    assert_eq!(security(parties.meet().await.0), SecurityError::NoFingerprint);
}

#[tokio::test]
async fn who_is_not_pinned_is_refused_on_either_side() {
    let pin = Fingerprint::of(b"the pinned certificate");
    let mut parties = Parties::generated();
    parties.of_juliet.options.trust = Trust::pinned([pin.clone()]);
    let presented = parties.juliet().fingerprint().clone();
    let expected = SecurityError::NotPinned { presented, pinned: vec![pin.to_string()] };
    assert_eq!(security(parties.meet().await.0), expected);

    let mut parties = Parties::generated();
    parties.of_romeo.options.trust = Trust::pinned([pin.clone()]);
    let presented = parties.romeo().fingerprint().clone();
    let expected = SecurityError::NotPinned { presented, pinned: vec![pin.to_string()] };
    assert_eq!(security(parties.meet().await.1), expected);
}

#[tokio::test]
async fn the_same_certificate_is_known_the_second_time_and_another_is_refused() {
    let mut parties = Parties::generated();
    let trust = parties.of_juliet.options.trust.clone();
    let first = parties.meet().await.0.unwrap();
    assert_eq!(standing(&first), Standing::FirstUse);
    trust.settle(&first.connection.presented, None).unwrap();
    assert_eq!(standing(&parties.meet().await.0.unwrap()), Standing::Accepted(Verification::Known));

    // The attacker is the server: it announces its own certificate in Juliet's name.
    let expected = vec![parties.juliet().fingerprint().clone()];
    let mallory = Identity::generate().unwrap();
    let presented = mallory.fingerprint().clone();
    parties.of_juliet.announced = Announced::ByJingle(vec![presented.clone()]);
    parties.of_romeo.options.identity = mallory;
    let peer = parties.of_juliet.peer.clone();
    assert_eq!(security(parties.meet().await.0), SecurityError::KeyChanged { peer, expected, presented });
}

/// An identity that presents one certificate and signs with another one's key.
fn impostor(certificate: &Identity, key: &Identity) -> Arc<SingleCertAndKey> {
    let chain = certificate.certified_key().cert.clone();
    Arc::new(SingleCertAndKey::from(CertifiedKey::new(chain, Arc::clone(&key.certified_key().key))))
}

#[tokio::test]
async fn to_present_a_certificate_without_its_key_gains_nothing_and_leaves_no_trace() {
    let parties = Parties::generated();
    let mallory = Identity::generate().unwrap();

    let (left, right) = duplex(BUFFER_BYTES);
    let mut config = responder_config(Arc::new(parties.of_romeo.clone())).unwrap();
    config.cert_resolver = impostor(parties.juliet(), &mallory);
    let (romeo, _) = tokio::join!(
        connect(left, parties.of_juliet.clone()),
        TlsAcceptor::from(Arc::new(config)).accept(right)
    );
    assert!(matches!(security(romeo), SecurityError::BadCertificate(text) if text.contains("BadSignature")));

    let (left, right) = duplex(BUFFER_BYTES);
    let mut config = initiator_config(Arc::new(parties.of_juliet.clone())).unwrap();
    config.client_auth_cert_resolver = impostor(parties.romeo(), &mallory);
    let (_, juliet) = tokio::join!(raw_connect(config, left), accept(right, parties.of_romeo.clone()));
    assert!(matches!(security(juliet), SecurityError::BadCertificate(text) if text.contains("BadSignature")));

    let (romeo, juliet) = parties.meet().await;
    assert_eq!(standing(&romeo.unwrap()), Standing::FirstUse);
    assert_eq!(standing(&juliet.unwrap()), Standing::FirstUse);
}

async fn raw_connect(
    config: impl Into<Arc<ClientConfig>>,
    io: DuplexStream,
) -> io::Result<tokio_rustls::client::TlsStream<DuplexStream>> {
    let name = ServerName::from(std::net::IpAddr::from(Ipv4Addr::UNSPECIFIED));
    TlsConnector::from(config.into()).connect(name, io).await
}

#[tokio::test]
async fn an_initiator_without_a_certificate_is_refused() {
    let parties = Parties::generated();
    let provider = provider(&parties.of_juliet.options).unwrap();
    let expectation = Arc::new(parties.of_juliet.clone());
    let verifier = Verifier::new(expectation, provider.signature_verification_algorithms);
    let anonymous = with_versions(ClientConfig::builder_with_provider(provider), Versions::Tls13)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();

    let (left, right) = duplex(BUFFER_BYTES);
    let (romeo, juliet) = tokio::join!(raw_connect(anonymous, left), accept(right, parties.of_romeo.clone()));
    assert_eq!(security(juliet), SecurityError::BadCertificate("none was presented".to_owned()));
    let error = error_from_io(&romeo.unwrap().read_u8().await.unwrap_err());
    let expected = SecurityError::PeerRefused(Some("certificate_required".to_owned()));
    assert_eq!(security::<()>(Err(error)), expected);
}

#[tokio::test]
async fn a_responder_judges_each_connection_of_an_initiator_that_would_resume() {
    let mut parties = Parties::generated();
    let mut config = initiator_config(Arc::new(parties.of_juliet.clone())).unwrap();
    config.resumption = Resumption::in_memory_sessions(16);
    let config = Arc::new(config);
    for _ in 0..2 {
        let (left, right) = duplex(BUFFER_BYTES);
        let (romeo, juliet) =
            tokio::join!(raw_connect(Arc::clone(&config), left), accept(right, parties.of_romeo.clone()));
        // What Juliet says would bring the tickets along.
        let (mut romeo, mut juliet) = (romeo.unwrap(), juliet.unwrap());
        juliet.io.write_u8(1).await.unwrap();
        juliet.io.flush().await.unwrap();
        romeo.read_u8().await.unwrap();
        assert_eq!(romeo.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(romeo.get_ref().1.tls13_tickets_received(), 0);
    }
    parties.of_romeo.options.trust = Trust::pinned([]);
    let (left, right) = duplex(BUFFER_BYTES);
    let (_, juliet) = tokio::join!(raw_connect(config, left), accept(right, parties.of_romeo.clone()));
    assert!(matches!(security(juliet), SecurityError::NotPinned { .. }));
}

#[tokio::test]
async fn an_initiator_judges_each_connection_to_a_responder_that_would_resume() {
    let mut parties = Parties::generated();
    let mut config = responder_config(Arc::new(parties.of_romeo.clone())).unwrap();
    config.send_tls13_tickets = 4;
    config.ticketer = Ticketer::new().unwrap();
    config.session_storage = ServerSessionMemoryCache::new(16);
    let acceptor = TlsAcceptor::from(Arc::new(config));
    for trust in [Trust::first_use(), Trust::pinned([])] {
        parties.of_juliet.options.trust = trust.clone();
        let (left, right) = duplex(BUFFER_BYTES);
        let (romeo, juliet) = tokio::join!(connect(left, parties.of_juliet.clone()), acceptor.accept(right));
        match romeo {
            Ok(mut romeo) => {
                let mut juliet = juliet.unwrap();
                juliet.write_u8(1).await.unwrap();
                juliet.flush().await.unwrap();
                romeo.io.read_u8().await.unwrap();
            }
            refused => assert!(matches!(security(refused), SecurityError::NotPinned { .. })),
        }
    }
}

#[tokio::test]
async fn the_alert_gets_through_a_bytestream_that_gathers_what_is_written() {
    let mut parties = Parties::generated();
    parties.of_romeo.options.trust = Trust::pinned([]);
    let (left, right) = duplex(BUFFER_BYTES);
    let (romeo, juliet) = tokio::join!(
        connect(left, parties.of_juliet.clone()),
        accept(BufStream::new(right), parties.of_romeo.clone())
    );
    assert!(matches!(security(juliet), SecurityError::NotPinned { .. }));
    let error = first_read(romeo.unwrap()).await;
    assert_eq!(security::<()>(Err(error)), refused_by_peer());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_the_alert_does_not_hold_up_the_error() {
    let parties = Parties::generated();
    let (mut left, right) = duplex(1);
    let garbage = async {
        left.write_all(b"<stream:stream>").await.unwrap_err();
        left
    };
    let answer = accept(BufStream::new(right), parties.of_romeo.clone());
    let (_left, juliet) = tokio::join!(garbage, answer);
    assert!(matches!(juliet, Err(Error::PeerMisbehaved(PeerMisbehaved::Tls(_)))), "{juliet:?}");
}

#[tokio::test]
async fn a_bytestream_that_ends_is_a_failure_of_the_transport() {
    let parties = Parties::generated();
    let (left, right) = duplex(BUFFER_BYTES);
    drop(left);
    let error = accept(right, parties.of_romeo.clone()).await.unwrap_err();
    assert!(matches!(error, Error::Transport(TransportError::Io(_))), "{error}");
}

#[test]
fn an_error_from_the_layer_below_passes_through() {
    let below = Error::from(SecurityError::NotOffered);
    assert_eq!(security::<()>(Err(error_from_io(&below.into_io()))), SecurityError::NotOffered);
}

#[tokio::test]
async fn a_handshake_may_run_in_a_task_of_its_own() {
    let parties = Parties::generated();
    let (left, right) = duplex(BUFFER_BYTES);
    let responder = tokio::spawn(async move { accept(right, parties.of_romeo).await.is_ok() });
    let initiator = tokio::spawn(async move { connect(left, parties.of_juliet).await.is_ok() });
    assert!(initiator.await.unwrap() && responder.await.unwrap());
}
