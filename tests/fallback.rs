//! Where SOCKS5 finds no way (XEP-0260 #fallback): in-band bytestreams in the same session or a new one, or a clear error.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use jingle_xmlstream::{Candidates, Config, E2eStream, Error, PeerIncompatible, Reason, Transports};
use mock_server::Verdict;
use support::{
    World, attempt,
    s5b::{BlackHole, JINGLE_S5B, SOON, assert_flow, close, closed_port, is_unconnected, redirect},
    s5b_config, streams, talk, wire, within,
};
use xmpp_parsers::{
    minidom::Element,
    stanza_error::{DefinedCondition, ErrorType, StanzaError},
};

/// Up to the two words that end SOCKS5, of which neither waits for the other.
const NO_WAY: [&str; 12] = [
    "romeo> iq get disco#info",
    "juliet> iq result (disco#info)",
    "romeo> iq set jingle session-initiate",
    "juliet> iq result (session-initiate)",
    "juliet> iq set jingle session-accept",
    "romeo> iq result (session-accept)",
    "romeo> iq set jingle security-info",
    "juliet> iq result (security-info)",
    "juliet> iq set jingle transport-info candidate-error",
    "juliet> iq result (transport-info candidate-error)",
    "romeo> iq set jingle transport-info candidate-error",
    "romeo> iq result (transport-info candidate-error)",
];

fn only_s5b(config: Config) -> Config {
    config.transports(Transports::S5b)
}

fn in_band([romeos, juliets]: [&E2eStream; 2]) -> bool {
    [romeos, juliets].iter().all(|stream| stream.transport().unwrap().method() == "ibb")
}

/// Compares ladders in which the words that end SOCKS5, and their answers, come at any place.
#[track_caller]
fn assert_ladder_after_no_way(got: &[String], then: &[&str]) {
    let is_word = |line: &str| line.contains("candidate-error");
    let (words, rest): (Vec<_>, Vec<_>) = got.iter().cloned().partition(|line| is_word(line));
    let mut words: Vec<_> = words.iter().map(String::as_str).collect();
    let (mut expected_words, expected_rest): (Vec<_>, Vec<_>) = NO_WAY.iter().partition(|line| is_word(line));
    words.sort_unstable();
    expected_words.sort_unstable();
    assert_eq!(words, expected_words);
    assert_flow(&rest, &[&expected_rest, then].concat());
}

/// The ladder of XEP-0260 #fallback.
#[tokio::test]
async fn candidates_that_refuse_lead_to_in_band_bytestreams_in_the_same_session() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    world.server.intercept(redirect(closed_port().await));
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;

    for stream in [&romeos, &juliets] {
        let why = stream.info().negotiated.as_ref().unwrap().fallback.clone();
        assert!(why.is_some_and(|error| is_unconnected(&error)), "who asks is told why it is in band");
    }
    assert!(in_band([&romeos, &juliets]));
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    let ladder = world.ladder_of_the_session();
    let before_close: Vec<_> = ladder.into_iter().filter(|line| !line.contains("ibb close")).collect();
    assert_ladder_after_no_way(
        &before_close,
        &[
            "romeo> iq set jingle transport-replace",
            "juliet> iq result (transport-replace)",
            "juliet> iq set jingle transport-accept",
            "romeo> iq result (transport-accept)",
            "romeo> iq set ibb open",
            "juliet> iq result (ibb open)",
        ],
    );
    assert_eq!(world.sent("iq set jingle session-initiate"), 1);
}

#[tokio::test]
async fn candidates_that_say_nothing_cost_their_time_and_no_more() {
    let world = World::start().await;
    let hole = BlackHole::open().await;
    let config = || s5b_config().s5b(support::s5b(|s5b| s5b.connect_timeout = SOON));
    let (romeo, juliet) = world.pair_of(config(), config()).await;
    world.server.intercept(redirect(hole.addr));
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    assert!(in_band([&romeos, &juliets]));
    assert!(*hole.swallowed.borrow() >= 2, "both tried");
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
}

#[tokio::test]
async fn where_nobody_offers_a_candidate_the_stream_is_in_band() {
    let world = World::start().await;
    let config = || s5b_config().s5b(support::s5b(|s5b| s5b.candidates = Candidates::None));
    let (romeo, juliet) = world.pair_of(config(), config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    assert!(in_band([&romeos, &juliets]));
    talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn a_peer_that_does_not_announce_socks5_is_offered_in_band_bytestreams_at_once() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), support::config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    assert!(in_band([&romeos, &juliets]));
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    let ladder = world.ladder_of_the_session();
    let before_close: Vec<_> = ladder.into_iter().filter(|line| !line.contains("ibb close")).collect();
    assert_flow(
        &before_close,
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set jingle security-info",
            "juliet> iq result (security-info)",
            "romeo> iq set ibb open",
            "juliet> iq result (ibb open)",
        ],
    );
    let initiate = world.recorded("iq set jingle session-initiate").element;
    assert!(wire::content_child(&initiate, "transport", wire::JINGLE_IBB).is_some());
}

// ---- SOCKS5 or nothing ---------------------------------------------------------------------

#[tokio::test]
async fn without_a_way_socks5_alone_ends_with_an_error_that_says_what_was_tried() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(only_s5b(s5b_config()), s5b_config()).await;
    let nowhere = closed_port().await;
    world.server.intercept(redirect(nowhere));
    let (connected, accepted) = attempt(&romeo, &juliet).await;

    let error = connected.unwrap_err();
    assert!(is_unconnected(&error), "{error}");
    assert!(error.to_string().contains(&nowhere.to_string()), "{error}");
    assert_eq!(error.reason(), Reason::ConnectivityError);
    // Juliet may have heard of the end before she found out herself.
    let error = accepted.unwrap_err();
    assert_eq!(error.reason(), Reason::ConnectivityError, "{error}");
    assert_eq!(world.sent("iq set jingle transport-replace"), 0);
}

#[tokio::test]
async fn a_responder_with_socks5_alone_takes_nothing_else() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), only_s5b(s5b_config())).await;
    world.server.intercept(redirect(closed_port().await));
    let (connected, accepted) = attempt(&romeo, &juliet).await;
    for result in [connected, accepted] {
        let error = result.unwrap_err();
        assert_eq!(error.reason(), Reason::ConnectivityError, "{error}");
    }
    assert_eq!(world.sent("iq set ibb open"), 0);
}

#[tokio::test]
async fn socks5_alone_is_not_offered_to_a_peer_that_does_not_announce_it() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(only_s5b(s5b_config()), support::config()).await;
    let error = within(romeo.connect(&juliet.jid().unwrap())).await.unwrap_err();
    let Error::PeerIncompatible(PeerIncompatible::MissingFeature(feature)) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(feature, JINGLE_S5B);
    assert_eq!(world.sent("iq set jingle session-initiate"), 0);
}

/// Whoever gives up while both are connecting ends it for both, at once.
#[tokio::test]
async fn who_gives_up_while_connecting_ends_it_for_both() {
    let world = World::start().await;
    let mut hole = BlackHole::open().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    world.server.intercept(redirect(hole.addr));
    let peer = juliet.jid().unwrap();
    for _ in 0..2 {
        let before = *hole.swallowed.borrow();
        let connecting = tokio::spawn(romeo.connect(&peer));
        let accepting = tokio::spawn(within(juliet.accept()).await.unwrap().accept());
        within(hole.swallowed.wait_for(|swallowed| *swallowed >= before + 2)).await.unwrap();
        connecting.abort();
        let error = within(accepting).await.unwrap().unwrap_err();
        assert_eq!(error.reason(), Reason::Cancel, "{error}");
    }
    assert_eq!(world.sent("iq set jingle transport-replace"), 0);
}

// ---- a peer whose transport can't be replaced ----------------------------------------------

/// SOCKS5 finds no way, and what Romeo proposes instead fares as `verdict` says; Juliet accepts whatever comes.
async fn a_new_session_follows(replaced: impl Fn(&Element) -> Verdict + Send + 'static) {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    world.server.intercept(redirect(closed_port().await));
    world.server.intercept(move |_, stanza| match wire::action(stanza) {
        Some("transport-replace") => replaced(stanza),
        _ => Verdict::Deliver,
    });
    let (connected, (first, second)) = within(async {
        tokio::join!(romeo.connect(&juliet.jid().unwrap()), async {
            let first = juliet.accept().await.unwrap().accept().await;
            (first, juliet.accept().await.unwrap().accept().await)
        })
    })
    .await;
    assert_eq!(first.unwrap_err().reason(), Reason::ConnectivityError);
    let (mut romeos, mut juliets) = (connected.unwrap(), second.unwrap());
    assert!(in_band([&romeos, &juliets]));
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;

    assert_eq!(world.sent("iq set jingle transport-replace"), 1);
    let record = world.server.record();
    let offers: Vec<_> =
        record.iter().filter(|it| wire::action(&it.element) == Some("session-initiate")).collect();
    let [socks5, in_band] = offers.as_slice() else { panic!("{offers:?}") };
    assert!(wire::content_child(&socks5.element, "transport", JINGLE_S5B).is_some());
    assert!(wire::content_child(&in_band.element, "transport", wire::JINGLE_IBB).is_some());
}

#[tokio::test]
async fn where_a_transport_replace_is_refused_a_new_session_is_in_band() {
    a_new_session_follows(|_| {
        let condition = DefinedCondition::FeatureNotImplemented;
        Verdict::Bounce(StanzaError::new(ErrorType::Cancel, condition, "en", "what is that?"))
    })
    .await;
}

#[tokio::test]
async fn where_a_transport_replace_is_rejected_a_new_session_is_in_band() {
    // A transport that Juliet does not know, which she rejects in good form.
    a_new_session_follows(|stanza| {
        let unknown = String::from(stanza).replace(wire::JINGLE_IBB, "urn:example:carrier-pigeon:1");
        Verdict::Replace(unknown.parse().unwrap())
    })
    .await;
}

/// Once is enough: no peer is asked again and again.
#[tokio::test]
async fn a_second_session_that_fails_is_the_last() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    world.server.intercept(redirect(closed_port().await));
    let refused =
        |text: &str| StanzaError::new(ErrorType::Cancel, DefinedCondition::NotAcceptable, "en", text);
    world.server.intercept(move |_, stanza| match wire::action(stanza) {
        Some("transport-replace") => Verdict::Bounce(refused("no")),
        Some("session-initiate") if wire::content_child(stanza, "transport", wire::JINGLE_IBB).is_some() => {
            Verdict::Bounce(refused("not this either"))
        }
        _ => Verdict::Deliver,
    });
    let (connected, accepted) = attempt(&romeo, &juliet).await;
    let error = connected.unwrap_err();
    assert!(error.to_string().contains("not this either"), "{error}");
    accepted.unwrap_err();
    let record = world.server.record();
    let offers = record.iter().filter(|it| wire::action(&it.element) == Some("session-initiate")).count();
    assert_eq!(offers, 2);
}
