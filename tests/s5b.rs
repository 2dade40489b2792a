//! SOCKS5 bytestreams (XEP-0260) over real sockets on loopback, negotiated through the mock server.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::{net::Ipv4Addr, time::Duration};

use futures::{SinkExt, StreamExt};
use jingle_xmlstream::{CandidateType, Candidates, Config, E2eStream, Endpoint, Reason};
use mock_server::Verdict;
use support::{
    JULIET, ROMEO, World, body, jid, message,
    s5b::{self, alter_candidates, assert_flow, candidates, close, ends, set_attr},
    s5b_config, streams, talk, wire, within,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

fn showing(candidates: Candidates) -> Config {
    support::config()
        .transports(jingle_xmlstream::Transports::Auto)
        .s5b(support::s5b(|s5b| s5b.candidates = candidates))
}

#[track_caller]
fn assert_direct(streams: [&E2eStream; 2]) {
    for stream in streams {
        assert_eq!(stream.transport().unwrap().candidate(), Some(CandidateType::Direct));
    }
    let [(one, other), (others, ones)] = streams.map(ends);
    assert_eq!((one, other), (ones, others), "they are two ends of one connection");
}

/// The first ladder of XEP-0260 #protocol, where either side can connect to the other.
#[tokio::test]
async fn both_connect_and_the_initiators_candidate_is_nominated() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    // Else Romeo would perhaps not try any more what can't be nominated.
    let mut juliets_word = world.hold(JULIET, "candidate-used");
    let ((mut romeos, mut juliets), ()) = tokio::join!(streams(&romeo, &juliet), async {
        juliets_word.caught().await;
        world.wait_for("juliet> iq result (transport-info candidate-used)").await;
        juliets_word.release();
    });

    assert_direct([&romeos, &juliets]);
    let offered = world.candidates_in("iq set jingle session-initiate");
    assert_eq!(ends(&juliets).1.port(), offered[0].port);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    assert_flow(
        &world.ladder_of_the_session(),
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set jingle security-info",
            "juliet> iq result (security-info)",
            "romeo> iq set jingle transport-info candidate-used",
            "juliet> iq result (transport-info candidate-used)",
            "juliet> iq set jingle transport-info candidate-used",
            "romeo> iq result (transport-info candidate-used)",
        ],
    );
    assert!(world.sent("iq set jingle session-terminate success") >= 1);
    assert_eq!(world.sent("iq set ibb open"), 0);
}

#[tokio::test]
async fn an_initiator_without_candidates_connects_to_the_responder() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(showing(Candidates::None), s5b_config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;

    assert_direct([&romeos, &juliets]);
    assert!(world.candidates_in("iq set jingle session-initiate").is_empty());
    assert_eq!(ends(&romeos).1.port(), world.candidates_in("iq set jingle session-accept")[0].port);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    assert_flow(
        &world.ladder_of_the_session(),
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set jingle security-info",
            "juliet> iq result (security-info)",
            "romeo> iq set jingle transport-info candidate-used",
            "juliet> iq result (transport-info candidate-used)",
            "juliet> iq set jingle transport-info candidate-error",
            "romeo> iq result (transport-info candidate-error)",
        ],
    );
}

#[tokio::test]
async fn a_responder_without_candidates_connects_to_the_initiator() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), showing(Candidates::None)).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;

    assert_direct([&romeos, &juliets]);
    assert!(world.candidates_in("iq set jingle session-accept").is_empty());
    assert_eq!(ends(&juliets).1.port(), world.candidates_in("iq set jingle session-initiate")[0].port);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    assert_flow(
        &world.ladder_of_the_session(),
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set jingle security-info",
            "juliet> iq result (security-info)",
            "juliet> iq set jingle transport-info candidate-used",
            "romeo> iq result (transport-info candidate-used)",
            "romeo> iq set jingle transport-info candidate-error",
            "juliet> iq result (transport-info candidate-error)",
        ],
    );
}

/// XEP-0260 #complete: of candidates with the same priority, the one that the initiator chose is nominated.
#[tokio::test]
async fn of_equal_candidates_the_initiators_choice_wins_on_both_sides() {
    let world = World::start().await;
    // As Juliet's are known when Romeo's come, either side can be shown the own priority on the other's.
    let (romeo, juliet) = world.pair_of(showing(Candidates::AfterAccept), s5b_config()).await;
    let (first, seconds) = streams(&romeo, &juliet).await;
    close(first, seconds).await;
    let priority = |name| world.candidates_in(name)[0].priority;
    let romeos_own = priority("iq set jingle transport-info candidate");
    let juliets_own = priority("iq set jingle session-accept");
    assert_ne!(romeos_own, juliets_own);
    world.server.clear_record();
    world.server.intercept(alter_candidates(move |route, candidate| {
        let to_romeo = route.to == jid::<jid::Jid>(ROMEO);
        set_attr(candidate, "priority", if to_romeo { romeos_own } else { juliets_own });
    }));

    let mut romeos_word = world.hold(ROMEO, "candidate-used");
    let ((mut romeos, mut juliets), ()) = tokio::join!(streams(&romeo, &juliet), async {
        romeos_word.caught().await;
        world.wait_for("juliet> iq set jingle transport-info candidate-used").await;
        romeos_word.release();
    });
    assert_direct([&romeos, &juliets]);
    let juliets_candidate = &world.candidates_in("iq set jingle session-accept")[0];
    assert_eq!(juliets_candidate.priority, romeos_own, "the test altered it");
    assert_eq!(ends(&romeos).1.port(), juliets_candidate.port);
    talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn candidates_of_an_initiator_that_waits_are_sent_when_the_peer_has_accepted() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(showing(Candidates::AfterAccept), showing(Candidates::None)).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;

    assert_direct([&romeos, &juliets]);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    assert!(world.candidates_in("iq set jingle session-initiate").is_empty());
    assert_eq!(world.candidates_in("iq set jingle transport-info candidate").len(), 1);
    assert_flow(
        &world.ladder_of_the_session(),
        &[
            "romeo> iq get disco#info",
            "juliet> iq result (disco#info)",
            "romeo> iq set jingle session-initiate",
            "juliet> iq result (session-initiate)",
            "juliet> iq set jingle session-accept",
            "romeo> iq result (session-accept)",
            "romeo> iq set jingle security-info",
            "juliet> iq result (security-info)",
            "romeo> iq set jingle transport-info candidate",
            "juliet> iq result (transport-info candidate)",
            "juliet> iq set jingle transport-info candidate-used",
            "romeo> iq result (transport-info candidate-used)",
            "romeo> iq set jingle transport-info candidate-error",
            "juliet> iq result (transport-info candidate-error)",
        ],
    );
}

/// An address outside, from which a port is forwarded to Romeo's listener; his own is out of reach.
#[tokio::test]
async fn through_a_port_forward() {
    let world = World::start().await;
    let forward = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let outside = forward.local_addr().unwrap();
    let free = s5b::closed_port().await.port();
    let config = s5b_config().s5b(support::s5b(|s5b| {
        s5b.external = vec![outside];
        s5b.ports = free..=free.saturating_add(50);
    }));
    let (romeo, juliet) = world.pair_of(config, showing(Candidates::None)).await;
    let nowhere = s5b::closed_port().await;
    let (learn, listener) = watch::channel(0);
    world.server.intercept(alter_candidates(move |_, candidate| {
        if candidate.attr("type") == Some("direct") {
            learn.send_replace(candidate.attr("port").unwrap().parse().unwrap());
            set_attr(candidate, "port", nowhere.port());
        }
    }));
    let forwarding = tokio::spawn(async move {
        let (mut from_outside, _) = forward.accept().await.unwrap();
        let port: u16 = *listener.borrow();
        let mut inside = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        copy_bidirectional(&mut from_outside, &mut inside).await.unwrap();
    });
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;

    for stream in [&romeos, &juliets] {
        assert_eq!(stream.transport().unwrap().candidate(), Some(CandidateType::Assisted));
    }
    assert_eq!(ends(&juliets).1, outside);
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    within(forwarding).await.unwrap();
}

/// XEP-0260 #security-sharing.
#[tokio::test]
async fn who_declines_has_shown_no_address() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(showing(Candidates::AfterAccept), s5b_config()).await;
    let (connected, ()) = within(async {
        tokio::join!(romeo.connect(&jid(JULIET)), async {
            juliet.accept().await.unwrap().decline(Reason::Decline);
        })
    })
    .await;
    connected.unwrap_err();
    world.wait_for("romeo> iq result (session-terminate decline)").await;
    for recorded in world.server.record() {
        let xml = String::from(&*recorded.element);
        assert!(!xml.contains("<candidate") && !xml.contains("127.0.0.1"), "{xml}");
    }
}

#[tokio::test]
async fn over_ipv6() {
    let Some(address) = s5b::ipv6_loopback().await else { return };
    let world = World::start().await;
    let config = || s5b_config().s5b(support::s5b(|s5b| s5b.bind = vec![address]));
    let (romeo, juliet) = world.pair_of(config(), config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    assert_direct([&romeos, &juliets]);
    assert_eq!(ends(&romeos).0.ip(), address);
    assert_eq!(world.candidates_in("iq set jingle session-initiate")[0].host, "::1");
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
}

#[tokio::test]
async fn two_streams_at_a_time_share_the_listeners_port() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), showing(Candidates::None)).await;
    let peer = jid(JULIET);
    let (connected, others_connected, accepted) =
        within(async { tokio::join!(romeo.connect(&peer), romeo.connect(&peer), accept_two(&juliet)) }).await;
    let mut romeos = [connected.unwrap(), others_connected.unwrap()];
    let mut juliets = accepted;

    let ports: Vec<_> = world
        .server
        .record()
        .iter()
        .filter(|recorded| *recorded.name == *"iq set jingle session-initiate")
        .map(|recorded| candidates(&recorded.element)[0].port)
        .collect();
    assert_eq!(ports.len(), 2);
    assert_eq!(ports[0], ports[1]);
    // Which is whose is a matter of the connections' ends.
    juliets.sort_by_key(|stream| ends(stream).0 != ends(&romeos[0]).1);
    for (romeos, juliets) in romeos.iter_mut().zip(&mut juliets) {
        assert_direct([romeos, juliets]);
        assert_eq!(ends(romeos).0.port(), ports[0]);
        talk(romeos, juliets).await;
    }
}

/// Accepts two offers, both of which are there before either is answered.
async fn accept_two(bot: &Endpoint) -> Vec<E2eStream> {
    let (one, other) = (bot.accept().await.unwrap(), bot.accept().await.unwrap());
    let (one, other) = tokio::join!(one.accept(), other.accept());
    vec![one.unwrap(), other.unwrap()]
}

/// The server is gone for both; they go on, and close in good order.
#[tokio::test]
async fn the_stream_outlives_the_server() {
    let world = World::start().await;
    // So long a session-terminate waits for the server to come back.
    let config =
        || s5b_config().timeouts(support::timeouts(|timeouts| timeouts.close = Duration::from_secs(2)));
    let (romeo, juliet) = world.pair_of(config(), config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    world.server.refuse(true);
    for bot in [ROMEO, JULIET] {
        assert!(world.server.cut(&jid(bot)));
    }
    talk(&mut romeos, &mut juliets).await;
    let overheard = world.server.record().len();
    for number in 0..100 {
        romeos.send(message(&number.to_string())).await.unwrap();
        assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), number.to_string());
    }
    assert_eq!(world.server.record().len(), overheard, "nobody is there");
    close(romeos, juliets).await;
}

/// The same where only one of them has lost it, and comes back.
#[tokio::test]
async fn the_stream_outlives_a_session_with_the_server() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    assert!(world.server.cut(&jid(JULIET)));
    talk(&mut romeos, &mut juliets).await;
    within(world.server.wait_online(&jid(JULIET))).await;
    talk(&mut romeos, &mut juliets).await;
    // A session that came anew can have a stream of its own.
    within(juliet.online()).await.unwrap();
    let (mut others, mut juliets_other) = streams(&romeo, &juliet).await;
    talk(&mut others, &mut juliets_other).await;
    talk(&mut romeos, &mut juliets).await;
    close(romeos, juliets).await;
    close(others, juliets_other).await;
}

/// What the server can see of a stream on a socket is how it was negotiated.
#[tokio::test]
async fn no_stanza_goes_over_the_server() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(s5b_config(), s5b_config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    world.wait_for("juliet> iq result (security-info)").await;
    world.server.intercept(|_, stanza| match wire::action(stanza) {
        Some("session-terminate") => Verdict::Deliver,
        _ if stanza.attr("type") == Some("set") => panic!("{stanza:?}"),
        _ => Verdict::Deliver,
    });
    for _ in 0..10 {
        talk(&mut romeos, &mut juliets).await;
    }
    let data = world.server.record().iter().filter(|recorded| recorded.name.contains("ibb")).count();
    assert_eq!(data, 0);
}
