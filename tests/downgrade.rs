//! A server in the middle that rewrites what it carries: every attempt to weaken the encryption fails closed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use futures::future;
use jingle_xmlstream::{
    Config, E2eStream, Endpoint, Error, Fingerprint, Identity, PeerIncompatible, Reason, SecurityError,
    Transports, Trust,
};
use support::{
    JULIET, World, config, config_with, in_band, jid, plaintext_allowed,
    wire::{XTLS, alter_content, strip_feature},
    within,
};
use xmpp_parsers::minidom::Element;

const OFFER: &str = "session-initiate";
const ACCEPT: &str = "session-accept";

/// An intercept's change: another certificate is announced.
fn announce(identity: &Identity) -> impl Fn(&mut Element) + Send + 'static {
    let fingerprint = identity.fingerprint().to_string();
    move |content| {
        let security = content.get_child_mut("security", XTLS).unwrap();
        let announced = security.get_child_mut("fingerprint", XTLS).unwrap();
        announced.take_nodes();
        announced.append_text(fingerprint.clone());
    }
}

/// An intercept's change: no security at all.
fn strip(content: &mut Element) {
    content.remove_child("security", XTLS).unwrap();
}

/// An intercept's change: a method that nobody here speaks.
fn only_srp(content: &mut Element) {
    let security = content.get_child_mut("security", XTLS).unwrap();
    security.remove_child("method", XTLS).unwrap();
    security.append_child(support::element(&format!("<method xmlns='{XTLS}' name='srp'/>")));
}

fn own_fingerprint(identity: &Identity) -> Fingerprint {
    identity.fingerprint().clone()
}

/// What the other side gets when one side refuses.
#[track_caller]
fn assert_refused_for_security(result: Result<E2eStream, Error>) {
    let error = result.expect_err("the other side must not have a stream");
    assert_eq!(error.reason(), Reason::SecurityError, "{error}");
}

/// The same for who was refused in the handshake or behind it: its alert, its session-terminate and the end of the bytestream
/// come in any order, and mean one thing.
fn assert_refused_by_the_peer(result: Result<E2eStream, Error>) {
    assert_shape!(result, Err(Error::Security(SecurityError::PeerRefused(_))));
}

struct Couple {
    world: World,
    romeo: Endpoint,
    juliet: Endpoint,
    romeos: Identity,
    juliets: Identity,
}

impl Couple {
    async fn new() -> Self {
        Self::trusting(Trust::first_use(), Trust::first_use()).await
    }

    async fn trusting(romeo_trusts: Trust, juliet_trusts: Trust) -> Self {
        let world = World::start().await;
        let (romeos, juliets) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let (romeo, juliet) = world
            .pair_of(
                in_band(Config::new(romeos.clone(), romeo_trusts)),
                in_band(Config::new(juliets.clone(), juliet_trusts)),
            )
            .await;
        Self { world, romeo, juliet, romeos, juliets }
    }

    /// The attack is over: the two can talk, and nothing of it is left.
    async fn recovers(&self) {
        self.world.server.clear_intercepts();
        let (mut romeos, mut juliets) = support::streams(&self.romeo, &self.juliet).await;
        support::talk(&mut romeos, &mut juliets).await;
    }

    /// Juliet's user has not heard of the offers so far: the first that she gets is this one.
    async fn juliet_heard_of_nothing(&self) {
        self.world.server.clear_intercepts();
        let nurse = self.world.bot("nurse@capulet.lit/hall", config()).await;
        let (connected, offered) = within(future::join(nurse.connect(&jid(JULIET)), async {
            let incoming = self.juliet.accept().await.unwrap();
            (incoming.peer().clone(), incoming.accept().await.unwrap())
        }))
        .await;
        assert_eq!(offered.0, nurse.jid().unwrap());
        drop(connected.unwrap());
    }
}

#[tokio::test]
async fn a_rewritten_fingerprint_in_the_offer_is_found_by_the_responder() {
    let it = Couple::new().await;
    let attacker = Identity::generate().unwrap();
    it.world.server.intercept(alter_content(OFFER, announce(&attacker)));

    let (connected, accepted) = support::attempt(&it.romeo, &it.juliet).await;
    let Err(Error::Security(SecurityError::FingerprintMismatch { announced, presented })) = accepted else {
        panic!("{accepted:?}")
    };
    assert_eq!(announced, own_fingerprint(&attacker));
    assert_eq!(presented, own_fingerprint(&it.romeos));
    assert_refused_for_security(connected);
    it.world.wait_for("juliet> iq set jingle session-terminate security-error").await;
    it.recovers().await;
}

#[tokio::test]
async fn a_rewritten_fingerprint_in_the_accept_is_found_by_the_initiator() {
    let it = Couple::new().await;
    let attacker = Identity::generate().unwrap();
    it.world.server.intercept(alter_content(ACCEPT, announce(&attacker)));

    let (connected, accepted) = support::attempt(&it.romeo, &it.juliet).await;
    let Err(Error::Security(SecurityError::FingerprintMismatch { announced, presented })) = connected else {
        panic!("{connected:?}")
    };
    assert_eq!(announced, own_fingerprint(&attacker));
    assert_eq!(presented, own_fingerprint(&it.juliets));
    assert_refused_for_security(accepted);
    it.world.wait_for("romeo> iq set jingle session-terminate security-error").await;
    it.recovers().await;
}

#[tokio::test]
async fn rewritten_fingerprints_in_both_directions_are_found() {
    let it = Couple::new().await;
    let attacker = Identity::generate().unwrap();
    it.world.server.intercept(alter_content(OFFER, announce(&attacker)));
    it.world.server.intercept(alter_content(ACCEPT, announce(&attacker)));

    let (connected, accepted) = support::attempt(&it.romeo, &it.juliet).await;
    // The responder presents its certificate first, so the initiator is the first to see it.
    let Err(Error::Security(SecurityError::FingerprintMismatch { presented, .. })) = connected else {
        panic!("{connected:?}")
    };
    assert_eq!(presented, own_fingerprint(&it.juliets));
    assert_refused_for_security(accepted);
    it.recovers().await;
}

#[tokio::test]
async fn an_offer_stripped_of_its_security_is_refused_before_the_user_hears_of_it() {
    let it = Couple::new().await;
    it.world.server.intercept(alter_content(OFFER, strip));

    let connected = within(it.romeo.connect(&jid(JULIET))).await;
    let Err(Error::Terminated(refused)) = connected else { panic!("{connected:?}") };
    assert_eq!(refused.reason, Reason::SecurityError);
    assert!(refused.text.as_ref().is_some_and(|text| text.contains("encryption is required")), "{refused}");
    assert_eq!(it.world.count("juliet> iq set jingle session-terminate security-error"), 1);
    it.juliet_heard_of_nothing().await;
}

#[tokio::test]
async fn an_accept_stripped_of_its_security_ends_the_session() {
    let it = Couple::new().await;
    it.world.server.intercept(alter_content(ACCEPT, strip));

    let (connected, accepted) = support::attempt(&it.romeo, &it.juliet).await;
    assert_shape!(connected, Err(Error::Security(SecurityError::NotOffered)));
    assert_refused_for_security(accepted);
    it.world.wait_for("romeo> iq set jingle session-terminate security-error").await;
    assert_eq!(it.world.count("romeo> iq set ibb open"), 0, "not a byte was sent");
    it.recovers().await;
}

#[tokio::test]
async fn an_offer_or_an_accept_of_another_method_is_refused() {
    let it = Couple::new().await;
    let offer = it.world.server.intercept(alter_content(OFFER, only_srp));
    let connected = within(it.romeo.connect(&jid(JULIET))).await;
    let Err(Error::Terminated(refused)) = connected else { panic!("{connected:?}") };
    assert_eq!(refused.reason, Reason::SecurityError);
    assert!(refused.text.as_ref().is_some_and(|text| text.contains("x509 is required")), "{refused}");
    it.world.server.remove_intercept(offer);

    it.world.server.intercept(alter_content(ACCEPT, only_srp));
    let (connected, accepted) = support::attempt(&it.romeo, &it.juliet).await;
    assert_shape!(connected, Err(Error::Security(SecurityError::NoCommonMethod(methods))) if methods == "srp");
    assert_refused_for_security(accepted);
    it.recovers().await;
}

#[tokio::test]
async fn a_fingerprint_that_can_not_be_checked_is_none() {
    let it = Couple::new().await;
    it.world.server.intercept(alter_content(ACCEPT, |content| {
        let security = content.get_child_mut("security", XTLS).unwrap();
        let weak = format!("<fingerprint xmlns='{XTLS}' algo='md5'>00:11:22:33:44:55:66:77:88:99:AA:BB:CC:DD:EE:FF</fingerprint>");
        security.remove_child("fingerprint", XTLS).unwrap();
        security.append_child(support::element(&weak));
    }));
    let (connected, accepted) = support::attempt(&it.romeo, &it.juliet).await;
    assert_shape!(connected, Err(Error::Security(SecurityError::NoFingerprint)));
    assert_refused_for_security(accepted);
}

#[tokio::test]
async fn a_wrong_pin_is_an_error_on_either_side() {
    let stranger = own_fingerprint(&Identity::generate().unwrap());
    let pin_stranger = || Trust::pinned([own_fingerprint(&Identity::generate().unwrap())]);

    let it = Couple::trusting(Trust::pinned([stranger.clone()]), Trust::first_use()).await;
    let (connected, accepted) = support::attempt(&it.romeo, &it.juliet).await;
    let Err(Error::Security(SecurityError::NotPinned { presented, pinned })) = connected else {
        panic!("{connected:?}")
    };
    assert_eq!((presented, pinned), (own_fingerprint(&it.juliets), vec![stranger.to_string()]));
    assert_refused_by_the_peer(accepted);
    it.world.wait_for("romeo> iq set jingle session-terminate security-error").await;

    let it = Couple::trusting(Trust::first_use(), pin_stranger()).await;
    let (connected, accepted) = support::attempt(&it.romeo, &it.juliet).await;
    let Err(Error::Security(SecurityError::NotPinned { presented, .. })) = accepted else {
        panic!("{accepted:?}")
    };
    assert_eq!(presented, own_fingerprint(&it.romeos));
    // TLS 1.3: the initiator's handshake is complete before the responder judges, and yet it has no stream.
    assert_refused_by_the_peer(connected);
    it.world.wait_for("juliet> iq set jingle session-terminate security-error").await;
}

#[tokio::test]
async fn a_refusal_is_told_in_one_way_whatever_carries_it() {
    let direct = |config: Config| config.transports(Transports::Auto).s5b(support::s5b(|_| {}));
    for carried in [in_band, direct] {
        let pin_stranger = || Trust::pinned([own_fingerprint(&Identity::generate().unwrap())]);
        let world = World::start().await;
        for initiator_refuses in [true, false].repeat(5) {
            let (romeo_trusts, juliet_trusts) = match initiator_refuses {
                true => (pin_stranger(), Trust::first_use()),
                false => (Trust::first_use(), pin_stranger()),
            };
            let (romeo, juliet) =
                world.pair_of(carried(config_with(romeo_trusts)), carried(config_with(juliet_trusts))).await;
            let (connected, accepted) = support::attempt(&romeo, &juliet).await;
            let (refuser, refused) =
                if initiator_refuses { (connected, accepted) } else { (accepted, connected) };
            assert_shape!(refuser, Err(Error::Security(SecurityError::NotPinned { .. })));
            assert_refused_by_the_peer(refused);
            within(future::join(romeo.close(), juliet.close())).await;
        }
    }
}

#[tokio::test]
async fn the_right_pins_are_enough() {
    let world = World::start().await;
    let (romeos, juliets) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let pin =
        |whose: &str, identity: &Identity| Trust::pinned([]).pin_for(jid(whose), own_fingerprint(identity));
    let romeo_trusts = pin("juliet@capulet.lit", &juliets);
    let juliet_trusts = pin("romeo@montague.lit", &romeos);
    let (romeo, juliet) = world
        .pair_of(in_band(Config::new(romeos, romeo_trusts)), in_band(Config::new(juliets, juliet_trusts)))
        .await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn another_certificate_at_the_second_meeting_is_refused_and_names_both() {
    let it = Couple::new().await;
    let (romeos, juliets) = support::streams(&it.romeo, &it.juliet).await;
    let (closed, _) = within(future::join(romeos.close(), juliets.close())).await;
    closed.unwrap();

    // Somebody else on Juliet's account, such as her server.
    within(it.juliet.close()).await;
    within(it.world.server.wait_offline(&jid(JULIET))).await;
    let impostors = Identity::generate().unwrap();
    let impostor = it.world.bot(JULIET, in_band(Config::new(impostors.clone(), Trust::first_use()))).await;

    for _ in 0..2 {
        let (connected, accepted) = support::attempt(&it.romeo, &impostor).await;
        let Err(Error::Security(SecurityError::KeyChanged { peer, expected, presented })) = connected else {
            panic!("{connected:?}")
        };
        assert_eq!(peer.to_string(), "juliet@capulet.lit");
        assert_eq!(expected, [own_fingerprint(&it.juliets)]);
        assert_eq!(presented, own_fingerprint(&impostors));
        assert_refused_for_security(accepted);
    }
}

#[tokio::test]
async fn a_failed_handshake_is_no_first_use() {
    let it = Couple::new().await;
    let attacker = Identity::generate().unwrap();
    it.world.server.intercept(alter_content(OFFER, announce(&attacker)));
    let (connected, accepted) = support::attempt(&it.romeo, &it.juliet).await;
    assert!(connected.is_err() && accepted.is_err());
    it.recovers().await;
}

#[tokio::test]
async fn a_peer_that_does_not_announce_xtls_is_incompatible() {
    let it = Couple::new().await;
    it.world.server.intercept(strip_feature(XTLS));
    let connected = within(it.romeo.connect(&jid(JULIET))).await;
    assert_shape!(
        connected,
        Err(Error::PeerIncompatible(PeerIncompatible::MissingFeature(feature))) if feature == XTLS
    );
    assert_eq!(it.world.count("romeo> iq set jingle session-initiate"), 0);
}

/// Romeo and Juliet, of whom some allow plaintext.
async fn careless(romeo_is: bool, juliet_is: bool) -> (World, Endpoint, Endpoint) {
    let world = World::start().await;
    let config_of = |is_careless: bool| if is_careless { plaintext_allowed(config()) } else { config() };
    let (romeo, juliet) = world.pair_of(config_of(romeo_is), config_of(juliet_is)).await;
    (world, romeo, juliet)
}

#[tokio::test]
async fn two_who_allow_plaintext_still_encrypt_where_they_can() {
    let (world, romeo, juliet) = careless(true, true).await;
    let (romeos, _juliets) = support::streams(&romeo, &juliet).await;
    assert_eq!(romeos.info().tls.as_ref().unwrap().version(), "TLSv1.3");
    drop(world);
}

#[tokio::test]
async fn two_who_allow_plaintext_get_it_and_see_that_they_have_it() {
    for attack in ["disco", "offer"] {
        let (world, romeo, juliet) = careless(true, true).await;
        match attack {
            "disco" => world.server.intercept(strip_feature(XTLS)),
            _ => world.server.intercept(alter_content(OFFER, strip)),
        };
        let overheard = support::wire::eavesdrop(&world.server);
        let (connected, shown) = within(future::join(romeo.connect(&jid(JULIET)), async {
            let incoming = juliet.accept().await.unwrap();
            let shown = incoming.security().map(<[_]>::to_vec);
            (shown, incoming.accept().await.unwrap())
        }))
        .await;
        let (mut romeos, (shown, mut juliets)) = (connected.unwrap(), shown);
        assert_eq!(shown, None, "the responder is told before it accepts");
        support::talk(&mut romeos, &mut juliets).await;
        for stream in [&romeos, &juliets] {
            let negotiated = stream.info().negotiated.clone().unwrap();
            assert_eq!(negotiated.transport.method(), "ibb");
            assert!(stream.info().tls.is_none() && stream.peer().level().is_none());
        }
        let overheard = String::from_utf8_lossy(&overheard.lock().unwrap()).into_owned();
        assert!(overheard.contains("Wherefore art thou Romeo?"), "which is why it is dangerous");
    }
}

#[tokio::test]
async fn plaintext_needs_both() {
    // Only the initiator allows it: the responder refuses the offer.
    let (world, romeo, _juliet) = careless(true, false).await;
    world.server.intercept(strip_feature(XTLS));
    let connected = within(romeo.connect(&jid(JULIET))).await;
    let Err(Error::Terminated(refused)) = connected else { panic!("{connected:?}") };
    assert_eq!(refused.reason, Reason::SecurityError);

    // Only the responder allows it: the initiator does not even offer.
    let (world, romeo, _juliet) = careless(false, true).await;
    world.server.intercept(strip_feature(XTLS));
    let connected = within(romeo.connect(&jid(JULIET))).await;
    assert_shape!(connected, Err(Error::PeerIncompatible(PeerIncompatible::MissingFeature(_))));
}

#[tokio::test]
async fn an_offer_stripped_on_the_way_to_a_careless_responder_is_caught_by_the_initiator() {
    let (world, romeo, juliet) = careless(false, true).await;
    world.server.intercept(alter_content(OFFER, strip));
    let (connected, accepted) = support::attempt(&romeo, &juliet).await;
    assert_shape!(connected, Err(Error::Security(SecurityError::NotOffered)));
    assert_refused_for_security(accepted);
    assert_eq!(world.count("romeo> iq set ibb open"), 0, "not a byte was sent");
}

#[tokio::test]
async fn an_accept_stripped_on_the_way_to_a_careless_initiator_is_caught_by_the_responder() {
    let (world, romeo, juliet) = careless(true, false).await;
    world.server.intercept(alter_content(ACCEPT, strip));
    let (connected, accepted) = support::attempt(&romeo, &juliet).await;
    let refused = accepted.expect_err("the responder expects TLS, and gets a stream header");
    assert_eq!(refused.reason(), Reason::SecurityError, "{refused}");
    // To the initiator, who speaks plain XML, the responder's TLS is no XML.
    assert!(connected.is_err());
    world.wait_for("juliet> iq set jingle session-terminate security-error").await;
}

#[tokio::test]
async fn who_becomes_known_while_plaintext_is_negotiated_gets_none() {
    let known = jingle_xmlstream::KnownPeers::in_memory();
    let (romeos, juliets) = (config(), Config::new(Identity::generate().unwrap(), known.clone()));
    let world = World::start().await;
    let (romeo, juliet) =
        world.pair_of(in_band(plaintext_allowed(romeos)), in_band(plaintext_allowed(juliets))).await;
    world.server.intercept(strip_feature(XTLS));
    let (connected, accepted) = within(future::join(romeo.connect(&jid(JULIET)), async {
        let incoming = juliet.accept().await.unwrap();
        let fingerprint = own_fingerprint(&Identity::generate().unwrap());
        known.add(&incoming.peer().to_bare(), fingerprint, None).unwrap();
        incoming.accept().await
    }))
    .await;
    assert!(matches!(accepted, Err(Error::Security(SecurityError::NotOffered))), "{accepted:?}");
    assert_refused_for_security(connected);
}
