//! Streams without XTLS: STARTTLS on the XML stream takes its place where the user said so, and plaintext never does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use jingle_xmlstream::{Encryption, Endpoint, Error, PeerIncompatible, Reason};
use support::{
    World, assert_ladder, config, plaintext_allowed,
    wire::{XTLS, alter_content, content_child, eavesdrop, strip_feature},
};

async fn pair(romeos: Encryption, juliets: Encryption) -> (World, Endpoint, Endpoint) {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(config().encryption(romeos), config().encryption(juliets)).await;
    (world, romeo, juliet)
}

/// A stream comes about, is encrypted and authenticated, and nobody on the way reads what is said.
async fn assert_encrypted(world: &World, romeo: &Endpoint, juliet: &Endpoint) {
    let overheard = eavesdrop(&world.server);
    let (mut romeos, mut juliets) = support::streams(romeo, juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
    for stream in [&romeos, &juliets] {
        assert!(stream.info().tls.is_some(), "{:?}", stream.info());
    }
    let overheard = String::from_utf8_lossy(&overheard.lock().unwrap()).into_owned();
    assert!(!overheard.is_empty() && !overheard.contains("Wherefore"), "{overheard}");
}

fn offers_xtls(world: &World) -> bool {
    content_child(&world.recorded("iq set jingle session-initiate").element, "security", XTLS).is_some()
}

#[tokio::test]
async fn starttls_takes_the_place_of_xtls() {
    let (world, romeo, juliet) = pair(Encryption::Starttls, Encryption::Starttls).await;
    assert_encrypted(&world, &romeo, &juliet).await;
    assert!(!offers_xtls(&world));
    assert_ladder(
        &world.ladder_without_data(),
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set ibb open",
            "juliet> iq result (ibb open)",
        ],
    );
}

#[tokio::test]
async fn a_peer_that_announces_xtls_gets_it() {
    let (world, romeo, juliet) = pair(Encryption::XtlsOrStarttls, Encryption::Xtls).await;
    assert_encrypted(&world, &romeo, &juliet).await;
    assert!(offers_xtls(&world));
}

#[tokio::test]
async fn a_responder_that_prefers_starttls_does_xtls_for_those_who_offer_it() {
    let (world, romeo, juliet) = pair(Encryption::Xtls, Encryption::Starttls).await;
    assert_encrypted(&world, &romeo, &juliet).await;
    assert!(offers_xtls(&world));
}

#[tokio::test]
async fn a_peer_that_announces_no_xtls_is_offered_a_stream_with_starttls() {
    let (world, romeo, juliet) = pair(Encryption::XtlsOrStarttls, Encryption::XtlsOrStarttls).await;
    world.server.intercept(strip_feature(XTLS));
    assert_encrypted(&world, &romeo, &juliet).await;
    assert!(!offers_xtls(&world));
}

#[tokio::test]
async fn an_accept_without_xtls_leads_to_starttls() {
    let (world, romeo, juliet) = pair(Encryption::XtlsOrStarttls, Encryption::XtlsOrStarttls).await;
    // As if the responder had not understood it.
    world.server.intercept(alter_content("session-initiate", |content| {
        content.remove_child("security", XTLS).unwrap();
    }));
    assert_encrypted(&world, &romeo, &juliet).await;
}

#[tokio::test]
async fn who_wants_xtls_takes_no_offer_without_it() {
    let (_world, romeo, _juliet) = pair(Encryption::Starttls, Encryption::Xtls).await;
    let connected = support::within(romeo.connect(&support::jid(support::JULIET))).await;
    let Err(Error::Terminated(refused)) = connected else { panic!("{connected:?}") };
    assert_eq!(refused.reason, Reason::SecurityError);
}

#[tokio::test]
async fn who_wants_xtls_makes_no_offer_without_it() {
    let (world, romeo, _juliet) = pair(Encryption::Xtls, Encryption::Starttls).await;
    world.server.intercept(strip_feature(XTLS));
    let connected = support::within(romeo.connect(&support::jid(support::JULIET))).await;
    assert_shape!(
        connected,
        Err(Error::PeerIncompatible(PeerIncompatible::MissingFeature(feature))) if feature == XTLS
    );
}

#[tokio::test]
async fn careless_as_they_are_they_get_starttls_and_no_plaintext() {
    let world = World::start().await;
    let careless = || plaintext_allowed(config().encryption(Encryption::XtlsOrStarttls));
    let (romeo, juliet) = world.pair_of(careless(), careless()).await;
    world.server.intercept(strip_feature(XTLS));
    assert_encrypted(&world, &romeo, &juliet).await;
}
