//! How streams end: closed by either side, dropped at any step, opened again, or with the endpoint.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt, future};
use jingle_xmlstream::{ApiMisuse, E2eStream, Error, Reason, Timeouts};
use mock_server::Target;
use support::{JULIET, ROMEO, World, body, message, milliseconds, within};
use xmpp_parsers::stanza::Stanza;

const TERMINATE: &str = "iq set jingle session-terminate success";

/// What passed after the stream was up.
fn ending(world: &World) -> Vec<String> {
    let up = "juliet> iq result (ibb open)";
    world.ladder_without_data().into_iter().skip_while(|line| line != up).skip(1).collect()
}

#[tokio::test]
async fn whoever_closes_the_bytestream_is_answered_and_the_session_ends_once() {
    for romeo_closes in [true, false] {
        let world = World::start().await;
        let (romeo, juliet) = world.usual_pair().await;
        let (romeos, juliets) = support::streams(&romeo, &juliet).await;
        let (closing, mut other) = if romeo_closes { (romeos, juliets) } else { (juliets, romeos) };

        let (closed, heard) = within(future::join(closing.close(), other.next())).await;
        closed.unwrap();
        assert!(heard.is_none(), "an orderly end is no error");
        within(other.close()).await.unwrap();

        let (closer, ended) = if romeo_closes { ("romeo", "juliet") } else { ("juliet", "romeo") };
        let ladder = ending(&world);
        let sent =
            |who: &str, what: &str| ladder.iter().filter(|line| **line == format!("{who}> {what}")).count();
        assert_eq!(
            (sent(closer, "iq set ibb close"), sent(ended, "iq set ibb close")),
            (1, 0),
            "{ladder:#?}"
        );
        assert_eq!(sent(ended, "iq result (ibb close)"), 1, "{ladder:#?}");
        assert_eq!(sent("romeo", TERMINATE) + sent("juliet", TERMINATE), 1, "{ladder:#?}");
        assert!(!ladder.iter().any(|line| line.contains("error")), "{ladder:#?}");
    }
}

#[tokio::test]
async fn both_may_close_at_the_same_time() {
    let world = World::start().await;
    // Long enough for the footers to cross.
    world.server.delay(Target::All, milliseconds(20), Duration::ZERO);
    let (romeo, juliet) = world.usual_pair().await;
    for _ in 0..5 {
        let (romeos, juliets) = support::streams(&romeo, &juliet).await;
        let (one, other) = within(future::join(romeos.close(), juliets.close())).await;
        one.unwrap();
        other.unwrap();
    }
    // Nothing of it is left over.
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn what_was_sent_before_the_close_still_arrives() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    for number in 0..500 {
        romeos.feed(message(&format!("good night {number}"))).await.unwrap();
    }
    let listen = async {
        let mut heard = Vec::new();
        while let Some(stanza) = juliets.next().await {
            heard.push(body(&stanza.unwrap()));
        }
        heard
    };
    let (closed, heard) = within(future::join(romeos.close(), listen)).await;
    closed.unwrap();
    assert_eq!(heard.len(), 500);
    assert_eq!(heard[499], "good night 499");
}

#[tokio::test]
async fn one_side_closes_and_the_other_answers_before_it_closes_too() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    juliets.send(message("three words, dear Romeo")).await.unwrap();
    within(SinkExt::<Stanza>::close(&mut romeos)).await.unwrap();

    assert_eq!(body(&within(romeos.next()).await.unwrap().unwrap()), "three words, dear Romeo");
    // What comes behind his goodbye he can't acknowledge, though he receives it.
    let end = within(juliets.next()).await;
    assert!(matches!(end, None | Some(Err(Error::Undelivered(_)))), "{end:?}");
    assert!(within(romeos.next()).await.is_none());
    let late = juliets.send(message("too late")).await;
    assert!(matches!(late, Err(Error::ApiMisuse(ApiMisuse::StreamClosed))), "{late:?}");
}

#[tokio::test]
async fn a_second_stream_on_the_same_session() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
    let first = romeos.info().id.clone();

    let (mut romeos, mut juliets) = reopen(romeos, juliets).await;
    support::talk(&mut romeos, &mut juliets).await;
    assert_ne!(romeos.info().id, first);
    assert_eq!(romeos.info().peer.as_ref().unwrap().to_string(), JULIET);

    let (closed, heard) = within(future::join(romeos.close(), juliets.next())).await;
    closed.unwrap();
    assert!(heard.is_none());
    within(juliets.close()).await.unwrap();
    assert_eq!(world.count("romeo> iq set jingle session-initiate"), 1);
    assert_eq!(world.count("romeo> iq set ibb open"), 1);
    let terminates = [format!("romeo> {TERMINATE}"), format!("juliet> {TERMINATE}")];
    assert_eq!(terminates.iter().map(|line| world.count(line)).sum::<usize>(), 1);
}

/// Romeo asks for another stream, Juliet follows when she hears that the first is closed.
async fn reopen(romeos: E2eStream, mut juliets: E2eStream) -> (E2eStream, E2eStream) {
    let again = async { romeos.finish().await.unwrap().reopen().await.unwrap() };
    let follow = async {
        assert!(juliets.next().await.is_none());
        juliets.finish().await.unwrap().reopen().await.unwrap()
    };
    within(future::join(again, follow)).await
}

#[tokio::test]
async fn a_kept_bytestream_that_is_dropped_ends_the_session() {
    let world = World::start().await;
    // Juliet does not look at hers any more, so that it takes these deadlines to get rid of her.
    let short = || support::config().timeouts(support::timeouts(|it| it.close = milliseconds(500)));
    let (romeo, juliet) = world.pair_of(short(), short()).await;
    let (romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    let finish = async {
        assert!(juliets.next().await.is_none());
        juliets.finish().await
    };
    let (kept, follower) = within(future::join(romeos.finish(), finish)).await;
    drop(kept.unwrap());
    world.wait_for("juliet> iq result (session-terminate success)").await;
    within(follower.unwrap().close()).await;
}

#[tokio::test]
async fn a_stream_that_is_dropped_is_closed_in_good_order() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    drop(romeos);
    assert!(within(juliets.next()).await.is_none());
    within(juliets.close()).await.unwrap();
    world.wait_for("juliet> iq result (session-terminate success)").await;
    support::assert_ladder(
        &ending(&world),
        &[
            "romeo> iq set ibb close",
            "juliet> iq result (ibb close)",
            "romeo> iq set jingle session-terminate success",
            "juliet> iq result (session-terminate success)",
        ],
    );
}

#[tokio::test]
async fn dropping_both_halves_is_dropping_the_stream_and_dropping_one_is_not() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let (romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    let (mut sender, receiver) = romeos.split();
    drop(receiver);
    sender.send(message("I can still talk")).await.unwrap();
    assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), "I can still talk");
    drop(sender);
    assert!(within(juliets.next()).await.is_none());
}

#[tokio::test]
async fn connecting_that_is_dropped_takes_the_offer_back() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let peer = support::jid(JULIET);
    tokio::select! {
        connected = romeo.connect(&peer) => panic!("nobody accepts, but {connected:?}"),
        () = world.wait_for("juliet> iq result (session-initiate)") => {}
    }
    world.wait_for("juliet> iq result (session-terminate cancel)").await;

    // Juliet's user does not even hear of it: the next that she gets is the next offer.
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn connecting_that_is_dropped_before_the_offer_says_nothing_more() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    world.server.delay(&support::jid::<jid::FullJid>(JULIET), milliseconds(100), Duration::ZERO);
    let peer = support::jid(JULIET);
    tokio::select! {
        connected = romeo.connect(&peer) => panic!("{connected:?}"),
        () = world.wait_for("romeo> iq get disco#info") => {}
    }
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
    assert_eq!(world.count("romeo> iq set jingle session-initiate"), 1);
}

#[tokio::test]
async fn an_incoming_that_is_dropped_is_declined() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let peer = support::jid(JULIET);
    let (connected, ()) =
        within(future::join(romeo.connect(&peer), async { drop(juliet.accept().await.unwrap()) })).await;
    let Err(Error::Terminated(terminated)) = connected else { panic!("{connected:?}") };
    assert_eq!(terminated.reason, Reason::Decline);
}

#[tokio::test]
async fn accepting_that_is_dropped_ends_the_session() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let peer = support::jid(JULIET);
    let accepting = async {
        let incoming = juliet.accept().await.unwrap();
        tokio::select! {
            _ = incoming.accept() => panic!("the stream can't be open yet"),
            () = world.wait_for("juliet> iq set jingle session-accept") => {}
        }
    };
    let (connected, ()) = within(future::join(romeo.connect(&peer), accepting)).await;
    let Err(Error::Terminated(terminated)) = connected else { panic!("{connected:?}") };
    assert_eq!(terminated.reason, Reason::Cancel);
}

#[tokio::test]
async fn an_offer_that_was_taken_back_can_not_be_accepted() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let peer = support::jid(JULIET);
    let incoming = tokio::select! {
        connected = romeo.connect(&peer) => panic!("{connected:?}"),
        incoming = within(juliet.accept()) => incoming.unwrap(),
    };
    world.wait_for("juliet> iq result (session-terminate cancel)").await;
    let accepted = within(incoming.accept()).await;
    let Err(Error::Terminated(terminated)) = accepted else { panic!("{accepted:?}") };
    assert_eq!(terminated.reason, Reason::Cancel);
}

#[tokio::test]
async fn closing_the_endpoint_closes_all_its_streams_in_good_order() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let mut juliets = Vec::new();
    let mut romeos = Vec::new();
    for _ in 0..3 {
        let (mut romeos_end, juliets_end) = support::streams(&romeo, &juliet).await;
        romeos_end.send(message("my last words")).await.unwrap();
        romeos.push(romeos_end);
        juliets.push(juliets_end);
    }
    let listen = juliets.into_iter().map(async |mut stream| {
        assert_eq!(body(&stream.next().await.unwrap().unwrap()), "my last words");
        assert!(stream.next().await.is_none());
        stream.close().await.unwrap();
    });
    within(future::join(romeo.close(), future::join_all(listen))).await;
    within(world.server.wait_offline(&support::jid(ROMEO))).await;

    assert_eq!(world.count("romeo> iq set ibb close"), 3);
    assert_eq!(world.count(&format!("romeo> {TERMINATE}")) + world.count(&format!("juliet> {TERMINATE}")), 3);
    for mut stream in romeos {
        assert!(within(stream.next()).await.is_none(), "its user sees an orderly end");
    }
}

#[tokio::test]
async fn closing_the_endpoint_takes_back_and_declines_what_is_not_open_yet() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    let nurse = world.bot("nurse@capulet.lit/hall", support::config()).await;
    // Romeo waits for Juliet, and the nurse for Romeo.
    let connecting = tokio::spawn(romeo.connect(&support::jid(JULIET)));
    let offering = tokio::spawn(nurse.connect(&support::jid(ROMEO)));
    world.wait_for("juliet> iq result (session-initiate)").await;
    let mut recorded = world.server.subscribe();
    while !world
        .ladder_between("nurse@capulet.lit", ROMEO)
        .contains(&"romeo> iq result (session-initiate)".into())
    {
        within(recorded.recv()).await.unwrap();
    }

    let begun = Instant::now();
    within(romeo.close()).await;
    assert!(begun.elapsed() < Timeouts::default().close / 2, "everybody answers at once");
    within(world.server.wait_offline(&support::jid(ROMEO))).await;
    let Err(Error::Terminated(refused)) = within(offering).await.unwrap() else { panic!("not refused") };
    assert!(matches!(refused.reason, Reason::Gone | Reason::Decline), "{refused}");
    assert!(within(connecting).await.unwrap().is_err());
    let taken_back = world.ladder_without_data().into_iter().any(|line| {
        line == "romeo> iq set jingle session-terminate gone"
            || line == "romeo> iq set jingle session-terminate cancel"
    });
    assert!(taken_back, "{:#?}", world.ladder_without_data());
    drop(juliet);
}
