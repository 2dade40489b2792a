//! Streams that lose their bytestream and go on over another one, in stopped time. The bytestreams are pipes, encrypted by
//! STARTTLS, and cut where a test says so.

mod world_tests;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::time::{Instant, sleep, timeout};
use tokio_xmpp::IqRequest;
use xmpp_parsers::{ping::Ping, stanza::Stanza};

use self::world_tests::*;
use super::{
    E2eStream, Reconnected, StreamEvent, accept, await_resume, buffered, initiate, resume, tests::message,
};
use crate::{Error, Identity, Limits, Reason, SecurityError, SignallingError, SmConfig, Terminated};

const ROMEO: &str = "romeo@montague.example/balcony";
const JULIET: &str = "juliet@capulet.example/chamber";

/// Far more than anything takes, and stopped time passes only when nothing moves.
const PATIENCE: Duration = Duration::from_secs(3600);

fn body(stanza: Option<Result<Stanza, Error>>) -> String {
    match stanza {
        Some(Ok(Stanza::Message(message))) => message.bodies[""].clone(),
        other => panic!("not a message: {other:?}"),
    }
}

fn bodies(stanzas: &[Stanza]) -> Vec<String> {
    let body = |stanza: &Stanza| match stanza {
        Stanza::Message(message) => message.bodies[""].clone(),
        other => panic!("not a message: {other:?}"),
    };
    stanzas.iter().map(body).collect()
}

async fn within<T>(work: impl Future<Output = T>) -> T {
    timeout(PATIENCE, work).await.expect("nothing moves any more")
}

/// Both sides say this much to each other, in turn and at once, then close; gives what was heard.
async fn converse(romeo: E2eStream, juliet: E2eStream) -> (Vec<String>, Vec<String>) {
    const SAID: usize = 6;
    async fn talk(mut stream: E2eStream, closes: bool) -> Vec<String> {
        let mut sender = stream.sender();
        let mut heard = Vec::new();
        for number in 0..SAID {
            within(sender.send(message(&number.to_string()))).await.unwrap();
            heard.push(body(within(stream.next()).await));
        }
        if !closes {
            while let Some(Ok(_)) = within(stream.next()).await {}
        }
        drop(sender);
        // Where the last farewell is cut, its sender is gone already, and nobody can tell whether all has arrived.
        drop(within(stream.close()).await);
        heard
    }
    let (one, other) = (tokio::spawn(talk(romeo, true)), tokio::spawn(talk(juliet, false)));
    (one.await.unwrap(), other.await.unwrap())
}

fn all() -> Vec<String> {
    (0..6).map(|number| number.to_string()).collect()
}

#[tokio::test(start_paused = true)]
async fn wherever_a_conversation_is_cut_everything_arrives_once_and_in_order() {
    // How much goes over the wire, and how much of that before the stream can be resumed. A signature may be a few bytes
    // longer another time.
    const SPARE: usize = 100;
    let world = World::new();
    let wire = Wire::default();
    let (romeo, juliet) = world.streams(&wire).await;
    sleep(Duration::from_secs(2)).await;
    let opened = wire.carried() + SPARE;
    assert_eq!(converse(romeo, juliet).await.0.len(), 6);
    let whole = wire.carried();
    assert!(whole > opened + 500, "{whole} of {opened}");

    for step in 0..60 {
        let at = opened + (whole - opened) * step / 60;
        let world = World::new();
        let wire = Wire::cut_after(at);
        // The second bytestream is cut on its way, too, wherever that is.
        *world.wires.lock().unwrap() = vec![Wire::cut_after(1000 + step * 97)];
        let (romeo, juliet) = world.streams(&wire).await;
        sleep(Duration::from_secs(2)).await;
        assert!(romeo.acknowledges() && juliet.acknowledges());
        let (romeos, juliets) = converse(romeo, juliet).await;
        assert_eq!((romeos, juliets), (all(), all()), "cut after {at} of {whole} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_tells_of_it_and_sends_wait() {
    let world = World::new();
    let wire = Wire::default();
    let (mut romeo, mut juliet) = world.streams(&wire).await;
    let (mut romeos, mut juliets) = (romeo.events(), juliet.events());
    within(romeo.send(message("first"))).await.unwrap();
    assert_eq!(body(juliet.next().await), "first");
    sleep(Duration::from_secs(5)).await;
    world.set_door(Door::Shut);
    wire.cut();
    assert!(matches!(within(romeos.next()).await, Some(StreamEvent::Suspended(Error::Transport(_)))));
    assert!(matches!(within(juliets.next()).await, Some(StreamEvent::Suspended(_))));
    assert!(timeout(Duration::from_secs(20), romeo.send(message("early"))).await.is_err(), "send waits");
    assert!(world.attempts() > 5, "{} attempts", world.attempts());
    world.set_door(Door::Open);
    within(romeo.send(message("after"))).await.unwrap();
    assert!(matches!(within(romeos.next()).await, Some(StreamEvent::Resumed(_))));
    assert_eq!(body(within(juliet.next()).await), "after");
    assert!(matches!(within(juliets.next()).await, Some(StreamEvent::Resumed(_))));
    drop(romeo);
    assert!(within(juliet.next()).await.is_none());
    assert!(within(romeos.next()).await.is_none(), "events end with the stream");
}

/// A stream on which something went both ways, with the way back shut and the bytestream cut; Romeo has said two things that
/// Juliet has not got.
async fn lost(world: &Arc<World>) -> (E2eStream, E2eStream, Wire) {
    let wire = Wire::default();
    let (mut romeo, mut juliet) = world.streams(&wire).await;
    within(romeo.send(message("first"))).await.unwrap();
    assert_eq!(body(within(juliet.next()).await), "first");
    sleep(Duration::from_secs(5)).await;
    assert_eq!(romeo.unacked(), 0);
    if *world.door.lock().unwrap() == Door::Open {
        world.set_door(Door::Shut);
    }
    wire.cut();
    romeo.feed(message("one")).now_or_never().unwrap().unwrap();
    romeo.feed(message("two")).now_or_never().unwrap().unwrap();
    (romeo, juliet, wire)
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_resumes_in_time_hands_everything_back_in_order() {
    let world = World::new();
    let (mut romeo, mut juliet, _wire) = lost(&world).await;
    let start = Instant::now();
    let error = within(romeo.next()).await.unwrap().unwrap_err();
    let Error::Undelivered(undelivered) = &error else { panic!("{error}") };
    assert_eq!(bodies(undelivered.stanzas()), ["one", "two"]);
    assert!(matches!(undelivered.cause(), Some(Error::NotResumed(_))), "{error}");
    assert_eq!(start.elapsed().as_secs(), 300);
    assert!(within(romeo.next()).await.is_none());
    let Err(Error::Undelivered(undelivered)) = within(romeo.close()).await else { panic!("closed") };
    assert_eq!(bodies(undelivered.stanzas()), ["one", "two"]);
    assert!(matches!(within(juliet.next()).await, Some(Err(Error::NotResumed(_)))));
    assert!(world.streams.lock().unwrap().is_empty(), "nobody finds it any more");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_peer_has_forgotten_ends_at_once() {
    let world = World::new();
    world.set_door(Door::Forgetful);
    let (romeo, _juliet, _wire) = lost(&world).await;
    let request = romeo.sender();
    let asking = tokio::spawn(async move { request.send_iq(IqRequest::Get(Ping.into())).await });
    let start = Instant::now();
    let (_, mut receiver) = romeo.split();
    let error = within(receiver.next()).await.unwrap().unwrap_err();
    let Error::Undelivered(undelivered) = &error else { panic!("{error}") };
    assert_eq!(bodies(undelivered.stanzas()), ["one", "two"]);
    let Some(Error::NotResumed(why)) = undelivered.cause() else { panic!("{error}") };
    assert!(matches!(&*why.why, Error::Terminated(Terminated { reason: Reason::Expired, .. })), "{error}");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(within(asking).await.unwrap().is_err());
    assert_eq!(world.attempts(), 1);
}

#[tokio::test(start_paused = true)]
async fn where_the_user_allowed_it_a_new_stream_takes_the_place_of_a_forgotten_one() {
    let sm = SmConfig { renew: true, ..SmConfig::default() };
    let world = World::with(sm, Limits::default());
    world.set_door(Door::Forgetful);
    let (mut romeo, _juliet, _wire) = lost(&world).await;
    let mut events = romeo.events();
    let undelivered = loop {
        match within(events.next()).await.unwrap() {
            StreamEvent::Renewed { undelivered, .. } => break undelivered,
            StreamEvent::Suspended(_) => {}
            StreamEvent::Resumed(_) => panic!("there is nothing to resume"),
        }
    };
    assert_eq!(bodies(undelivered.stanzas()), ["one", "two"]);
    within(romeo.send(message("anew"))).await.unwrap();
    let mut juliet = world.accepted.lock().unwrap().pop().unwrap();
    assert_eq!(body(within(juliet.next()).await), "anew");
    let closing = tokio::spawn(romeo.close());
    assert!(within(juliet.next()).await.is_none());
    within(juliet.close()).await.unwrap();
    within(closing).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_nobody_wants_handed_back_any_more_comes_back_in_the_error() {
    for closes in [false, true] {
        let world = World::with(SmConfig { renew: true, ..SmConfig::default() }, Limits::default());
        world.set_door(Door::Slow);
        let (mut romeo, _juliet, _wire) = lost(&world).await;
        let events = romeo.events();
        while world.attempts() < 2 {
            sleep(Duration::from_millis(10)).await;
        }
        // While the new stream is being opened, nobody looks any more.
        let end = if closes {
            within(romeo.close()).await.unwrap_err()
        } else {
            drop(events);
            within(romeo.next()).await.unwrap().unwrap_err()
        };
        let Error::Undelivered(undelivered) = end else { panic!("{end}") };
        assert_eq!(bodies(undelivered.stanzas()), ["one", "two"]);
    }
}

/// What a stream that was to be begun anew ended with, and after how many attempts.
async fn not_begun_anew(door: Door) -> (Arc<World>, Error) {
    let world = World::with(SmConfig { renew: true, ..SmConfig::default() }, Limits::default());
    world.set_door(door);
    let (mut romeo, _juliet, _wire) = lost(&world).await;
    let _watched = romeo.events();
    let Some(Err(Error::Undelivered(undelivered))) = within(romeo.next()).await else { panic!("no end") };
    assert_eq!(bodies(undelivered.stanzas()), ["one", "two"]);
    let Some(Error::NotResumed(why)) = undelivered.cause() else { panic!("{undelivered}") };
    (world, Error::clone(&why.why))
}

#[tokio::test(start_paused = true)]
async fn where_nobody_looks_at_what_would_be_handed_back_there_is_no_new_stream() {
    let world = World::with(SmConfig { renew: true, ..SmConfig::default() }, Limits::default());
    world.set_door(Door::Forgetful);
    let (mut romeo, _juliet, _wire) = lost(&world).await;
    let Some(Err(Error::Undelivered(undelivered))) = within(romeo.next()).await else { panic!("no end") };
    assert_eq!(bodies(undelivered.stanzas()), ["one", "two"]);
    assert!(world.accepted.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_waits_to_be_sent_goes_out_after_what_was_handed_back() {
    let world = World::with(SmConfig { renew: true, ..SmConfig::default() }, Limits::default());
    world.set_door(Door::Forgetful);
    let (romeo, _juliet, _wire) = lost(&world).await;
    let mut events = romeo.events();
    let mut sender = romeo.sender();
    let waiting = tokio::spawn(async move { sender.send(message("three")).await });
    let juliet = loop {
        sleep(Duration::from_millis(10)).await;
        if let Some(juliet) = world.accepted.lock().unwrap().pop() {
            break juliet;
        }
    };
    sleep(Duration::from_secs(30)).await;
    assert!(!waiting.is_finished(), "nobody has seen what was handed back");
    let handed_back = loop {
        if let StreamEvent::Renewed { undelivered, .. } = within(events.next()).await.unwrap() {
            break undelivered;
        }
    };
    assert_eq!(bodies(handed_back.stanzas()), ["one", "two"]);
    within(waiting).await.unwrap().unwrap();
    let mut juliet = juliet;
    assert_eq!(body(within(juliet.next()).await), "three");
}

#[tokio::test(start_paused = true)]
async fn a_new_stream_in_the_place_of_a_forgotten_one_is_not_begun_with_somebody_else() {
    let (world, why) = not_begun_anew(Door::Usurped).await;
    assert!(matches!(why, Error::Security(SecurityError::KeyChanged { .. })), "{why}");
    assert!(world.accepted.lock().unwrap().is_empty(), "not even a stream header was sent");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_want_a_new_stream_is_asked_once() {
    let (world, why) = not_begun_anew(Door::Unwilling).await;
    assert!(matches!(&why, Error::Terminated(why) if why.reason == Reason::Decline), "{why}");
    assert_eq!(world.attempts(), 2);
}

#[tokio::test(start_paused = true)]
async fn somebody_with_another_certificate_gets_nothing_and_ends_nothing() {
    let world = World::new();
    world.set_door(Door::Impostor);
    let (mut romeo, mut juliet, _wire) = lost(&world).await;
    sleep(Duration::from_secs(60)).await;
    assert!(world.attempts() > 3, "{}", world.attempts());
    assert!(romeo.next().now_or_never().is_none(), "it still waits");
    world.set_door(Door::Open);
    assert_eq!(body(within(juliet.next()).await), "one");
    assert_eq!(body(within(juliet.next()).await), "two");

    let world = World::new();
    world.set_door(Door::Impostor);
    let (mut romeo, _juliet, _wire) = lost(&world).await;
    let Some(Err(Error::Undelivered(undelivered))) = within(romeo.next()).await else { panic!("no end") };
    let Some(Error::NotResumed(why)) = undelivered.cause() else { panic!("{undelivered}") };
    assert!(matches!(&*why.why, Error::Security(SecurityError::KeyChanged { .. })), "{undelivered}");
}

#[tokio::test(start_paused = true)]
async fn an_initiator_with_another_certificate_does_not_get_the_stream() {
    let world = World::new();
    let (_romeo, mut juliet, _wire) = lost(&world).await;
    let id = world.streams.lock().unwrap().keys().next().unwrap().clone();
    let (ours, theirs) = pipe(&Wire::default(), true);
    let found = world.clone();
    let accepting = tokio::spawn(async move {
        await_resume(buffered(theirs), found.juliet(), |id| found.streams.lock().unwrap().get(id).cloned())
            .await
    });
    let thief = world.options(ROMEO, JULIET, &Identity::generate().unwrap());
    let what = super::machine::management::Resume { previd: id, h: 0 };
    let refused =
        within(resume(buffered(ours), thief, what, world.juliet.certificate().clone())).await.unwrap_err();
    assert!(matches!(refused, Error::NotResumed(_)), "{refused}");
    assert!(matches!(within(accepting).await.unwrap(), Err(Error::NotResumed(_))));
    world.set_door(Door::Open);
    assert_eq!(body(within(juliet.next()).await), "one");
}

#[tokio::test(start_paused = true)]
async fn a_responder_that_has_not_noticed_goes_on_over_the_new_bytestream() {
    let world = World::new();
    let wire = Wire::default();
    let (ours, theirs) = pipe(&wire, false);
    let (romeo, juliet) = tokio::join!(initiate(ours, world.romeo()), accept(theirs, world.juliet()));
    let (mut romeo, mut juliet) = (romeo.unwrap(), juliet.unwrap());
    within(romeo.send(message("first"))).await.unwrap();
    assert_eq!(body(within(juliet.next()).await), "first");
    sleep(Duration::from_secs(5)).await;
    let start = Instant::now();
    let mut events = juliet.events();
    wire.cut();
    within(romeo.send(message("second"))).await.unwrap();
    assert_eq!(body(within(juliet.next()).await), "second");
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(matches!(within(events.next()).await, Some(StreamEvent::Suspended(_))));
    assert!(matches!(within(events.next()).await, Some(StreamEvent::Resumed(_))));
    within(juliet.send(message("third"))).await.unwrap();
    assert_eq!(body(within(romeo.next()).await), "third");
}

#[tokio::test(start_paused = true)]
async fn whoever_cuts_each_bytestream_as_soon_as_it_is_there_does_not_keep_us_busy() {
    let world = World::new();
    let wires: Vec<_> = (0..10_000).map(|_| Wire::default()).collect();
    *world.wires.lock().unwrap() = wires.clone();
    let first = Wire::default();
    let (mut romeo, _juliet) = world.streams(&first).await;
    let mut events = romeo.events();
    sleep(Duration::from_secs(1)).await;
    first.cut();
    let mut resumed = 0;
    let cutting = async {
        loop {
            match events.next().await {
                Some(StreamEvent::Resumed(_)) => {
                    wires[resumed].cut();
                    resumed += 1;
                }
                Some(_) => {}
                None => panic!("it ended: {:?}", romeo.next().now_or_never()),
            }
        }
    };
    let _ = timeout(Duration::from_secs(60), cutting).await;
    assert!((5..20).contains(&resumed), "it was carried on {resumed} times in a minute");
}

/// The initiator's request to resume with this count, from a bytestream that it has given up since.
async fn ghost(world: &Arc<World>, h: u32) -> Result<Reconnected, Error> {
    let previd = world.streams.lock().unwrap().keys().next().unwrap().clone();
    let (ours, theirs) = pipe(&Wire::default(), true);
    let found = world.clone();
    tokio::spawn(async move {
        let find = |id: &str| found.streams.lock().unwrap().get(id).cloned();
        let _ = await_resume(buffered(theirs), found.juliet(), find).await;
    });
    let what = super::machine::management::Resume { previd, h };
    within(resume(buffered(ours), world.romeo(), what, world.juliet.certificate().clone())).await
}

#[tokio::test(start_paused = true)]
async fn a_request_to_resume_that_comes_late_does_not_harm_a_stream_that_goes_on() {
    let world = World::new();
    let (mut romeo, mut juliet) = world.streams(&Wire::default()).await;
    let mut events = [romeo.events(), juliet.events()];
    within(romeo.send(message("zero"))).await.unwrap();
    assert_eq!(body(within(juliet.next()).await), "zero", "from here on she counts");
    let sender = juliet.sender();
    let (acked, _) = within(async { tokio::join!(sender.send_acked(message("first")), romeo.next()) }).await;
    acked.unwrap();
    // It knows less than the stream does.
    let refused = ghost(&world, 0).await.unwrap_err();
    assert!(matches!(refused, Error::NotResumed(_)), "{refused}");
    sleep(Duration::from_secs(1)).await;
    assert!(events.iter_mut().all(|events| events.next().now_or_never().is_none()), "nobody noticed");
    // It knows as much, so that it may be the one that counts.
    within(juliet.send(message("second"))).await.unwrap();
    drop(ghost(&world, 1).await.unwrap());
    for events in &mut events {
        assert!(matches!(within(events.next()).await, Some(StreamEvent::Suspended(_))));
        assert!(matches!(within(events.next()).await, Some(StreamEvent::Resumed(_))));
    }
    assert_eq!(body(within(romeo.next()).await), "second");
    within(romeo.send(message("third"))).await.unwrap();
    assert_eq!(body(within(juliet.next()).await), "third");
}

#[tokio::test(start_paused = true)]
async fn a_close_while_suspended_tries_for_as_long_as_a_close_may_take() {
    let world = World::new();
    let (romeo, _juliet, _wire) = lost(&world).await;
    sleep(Duration::from_secs(1)).await;
    let start = Instant::now();
    let Err(Error::Undelivered(undelivered)) = within(romeo.close()).await else { panic!("closed") };
    assert_eq!(bodies(undelivered.stanzas()), ["one", "two"]);
    assert_eq!(start.elapsed().as_secs(), 10);

    let world = World::new();
    let (romeo, mut juliet, _wire) = lost(&world).await;
    sleep(Duration::from_secs(1)).await;
    let closing = tokio::spawn(romeo.close());
    sleep(Duration::from_secs(1)).await;
    world.set_door(Door::Open);
    assert_eq!(body(within(juliet.next()).await), "one");
    assert_eq!(body(within(juliet.next()).await), "two");
    assert!(within(juliet.next()).await.is_none());
    within(closing).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_while_suspended_delivers_if_there_is_time() {
    let world = World::new();
    let (romeo, mut juliet, _wire) = lost(&world).await;
    drop(romeo);
    sleep(Duration::from_secs(1)).await;
    world.set_door(Door::Open);
    assert_eq!(body(within(juliet.next()).await), "one");
    assert_eq!(body(within(juliet.next()).await), "two");
    assert!(within(juliet.next()).await.is_none());

    let world = World::new();
    let (romeo, _juliet, _wire) = lost(&world).await;
    drop(romeo);
    sleep(Duration::from_secs(30)).await;
    let attempts = world.attempts();
    sleep(Duration::from_secs(60)).await;
    assert_eq!(world.attempts(), attempts, "it gave up");
}

/// Two streams, and the session that carries Romeo's.
struct Scene {
    session: Arc<Session>,
    wire: Wire,
    romeo: E2eStream,
    juliet: E2eStream,
}

/// Something was said.
async fn scene(world: &Arc<World>, juliet_notices: bool) -> Scene {
    let (session, wire) = (Arc::new(Session::default()), Wire::default());
    let (ours, theirs) = pipe(&wire, juliet_notices);
    let (romeo, juliet) =
        tokio::join!(initiate(ours, world.romeo().carrier(session.clone())), accept(theirs, world.juliet()));
    let (mut romeo, mut juliet) = (romeo.unwrap(), juliet.unwrap());
    within(romeo.send(message("first"))).await.unwrap();
    assert_eq!(body(within(juliet.next()).await), "first");
    Scene { session, wire, romeo, juliet }
}

#[tokio::test(start_paused = true)]
async fn a_bytestream_that_stands_still_suspends_and_goes_on_as_the_same() {
    let world = World::new();
    let Scene { session, mut romeo, mut juliet, .. } = scene(&world, true).await;
    sleep(Duration::from_secs(5)).await;
    let mut events = romeo.events();
    session.stall(true);
    assert!(matches!(within(events.next()).await, Some(StreamEvent::Suspended(Error::Signalling(_)))));
    assert!(timeout(Duration::from_secs(20), romeo.send(message("early"))).await.is_err(), "send waits");
    session.stall(false);
    assert!(matches!(within(events.next()).await, Some(StreamEvent::Resumed(_))));
    within(romeo.send(message("second"))).await.unwrap();
    assert_eq!(body(within(juliet.next()).await), "second");
    assert_eq!(world.attempts(), 0);
    assert!(session.terminated.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_bytestream_that_fails_while_it_stands_still_does_not_show_as_resumed() {
    let world = World::new();
    let Scene { session, wire, mut romeo, mut juliet } = scene(&world, true).await;
    let mut events = romeo.events();
    session.stall(true);
    assert!(matches!(within(events.next()).await, Some(StreamEvent::Suspended(_))));
    *session.error.lock().unwrap() = Some(Error::Signalling(SignallingError::Rebound));
    session.stall(false);
    sleep(Duration::from_secs(1)).await;
    assert!(events.next().now_or_never().is_none(), "nothing gets through");
    wire.cut();
    assert!(matches!(within(events.next()).await, Some(StreamEvent::Resumed(_))));
    assert_eq!(world.attempts(), 1);
    within(romeo.send(message("second"))).await.unwrap();
    assert_eq!(body(within(juliet.next()).await), "second");
    assert!(events.next().now_or_never().is_none(), "and it is shown once");
}

#[tokio::test(start_paused = true)]
async fn the_session_of_a_lost_bytestream_ends_so_that_the_peer_notices() {
    let world = World::new();
    let Scene { session, wire, romeo: _romeo, juliet: _juliet } = scene(&world, false).await;
    sleep(Duration::from_secs(5)).await;
    wire.cut();
    sleep(Duration::from_secs(1)).await;
    assert_eq!(*session.terminated.lock().unwrap(), [Reason::ConnectivityError]);
}

#[tokio::test(start_paused = true)]
async fn a_stanza_is_acknowledged_when_the_peers_bot_has_received_it() {
    let world = World::new();
    let (romeo, mut juliet) = world.streams(&Wire::default()).await;
    let mut receipt = within(romeo.send_with_receipt(message("hello"))).await.unwrap();
    assert!(timeout(Duration::from_secs(30), &mut receipt).await.is_err());
    assert_eq!(romeo.unacked(), 1);
    assert_eq!(body(within(juliet.next()).await), "hello");
    within(receipt).await.unwrap();
    assert_eq!(romeo.unacked(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_peer_never_received_comes_back_when_it_closes() {
    let world = World::new();
    let (mut romeo, juliet) = world.streams(&Wire::default()).await;
    within(romeo.send(message("unread"))).await.unwrap();
    sleep(Duration::from_secs(5)).await;
    let closing = tokio::spawn(juliet.close());
    let Some(Err(Error::Undelivered(undelivered))) = within(romeo.next()).await else { panic!("closed") };
    assert_eq!(bodies(undelivered.stanzas()), ["unread"]);
    assert!(undelivered.cause().is_none());
    assert!(within(romeo.next()).await.is_none());
    let Err(Error::Undelivered(undelivered)) = within(romeo.close()).await else { panic!("closed") };
    assert_eq!(bodies(undelivered.stanzas()), ["unread"]);
    within(closing).await.unwrap().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_sender_waits_when_as_much_is_unacknowledged_as_may_be() {
    let limits = Limits { unacked_stanzas: 3, ..Limits::default() };
    let world = World::with(SmConfig::default(), limits);
    let (mut romeo, mut juliet) = world.streams(&Wire::default()).await;
    let mut sent = 0;
    while timeout(Duration::from_secs(5), romeo.send(message("more"))).await.is_ok() {
        sent += 1;
    }
    assert_eq!(sent, 3);
    for _ in 0..sent {
        assert_eq!(body(within(juliet.next()).await), "more");
    }
    within(romeo.send(message("more"))).await.unwrap();
}
