//! Every step has a deadline of its own, names itself when that passes, and cleans up on the wire.

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
use jingle_xmlstream::{
    Config, E2eStream, Endpoint, Error, Reason, SignallingError, Step, Timeouts, TransportError,
};
use support::{
    JULIET, ROMEO, World, config, element, jid,
    mallory::Mallory,
    message, milliseconds,
    outages::{both_acknowledge, both_resumed, sm, unacked},
    plaintext_allowed, timeouts,
    wire::{DISCO_INFO, XTLS, action, drop_if, is_ibb, strip_feature},
    within,
};
use tokio_xmpp::{IqRequest, IqResponse};
use xmpp_parsers::{presence::Presence, stanza_error::DefinedCondition};

/// The deadline of the step that is tested; the others keep theirs, of ten seconds and more.
const SHORT: Duration = Duration::from_millis(400);

/// A bot whose streams end with their bytestream.
fn unmanaged() -> Config {
    config().sm(sm(|sm| sm.enabled = false))
}

fn hurried(change: impl FnOnce(&mut Timeouts)) -> Config {
    config().timeouts(timeouts(change))
}

#[track_caller]
fn assert_timeout<T: std::fmt::Debug>(result: Result<T, Error>, step: Step) {
    match result {
        Err(Error::Timeout(late, after)) => assert_eq!((late, after), (step, SHORT)),
        other => panic!("{step:?} is over, but {other:?}"),
    }
}

async fn connect(bot: &Endpoint, to: &str) -> Result<E2eStream, Error> {
    within(bot.connect(&jid(to))).await
}

#[tokio::test]
async fn without_a_server_connecting_fails_after_a_while() {
    let world = World::start().await;
    world.server.refuse(true);
    let own = jid::<jid::Jid>(ROMEO);
    let impatient = hurried(|it| it.online = SHORT);
    let (romeo, _events) = Endpoint::login(own, mock_server::PASSWORD, world.connector(), impatient);
    assert_timeout(connect(&romeo, JULIET).await, Step::Online);
}

#[tokio::test]
async fn a_peer_that_does_not_answer_service_discovery() {
    let world = World::start().await;
    let (romeo, _juliet) = world.pair_of(hurried(|it| it.disco = SHORT), config()).await;
    world.server.intercept(drop_if(|stanza| stanza.has_child("query", DISCO_INFO)));
    assert_timeout(connect(&romeo, JULIET).await, Step::Disco);
    assert_eq!(world.count("romeo> iq set jingle session-initiate"), 0);
}

#[tokio::test]
async fn a_peer_that_does_not_acknowledge_the_offer() {
    let world = World::start().await;
    let (romeo, _juliet) = world.pair_of(hurried(|it| it.jingle_ack = SHORT), config()).await;
    world.server.intercept(drop_if(|stanza| action(stanza) == Some("session-initiate")));
    assert_timeout(connect(&romeo, JULIET).await, Step::JingleAck);
    world.wait_for("romeo> iq set jingle session-terminate timeout").await;
}

#[tokio::test]
async fn a_peer_whose_user_does_not_decide() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(hurried(|it| it.accept = SHORT), config()).await;
    assert_timeout(connect(&romeo, JULIET).await, Step::Accept);
    world.wait_for("juliet> iq result (session-terminate timeout)").await;
    // Juliet's user comes too late, and gets what is offered now.
    let (connected, accepted) = support::attempt(&romeo, &juliet).await;
    support::talk(&mut connected.unwrap(), &mut accepted.unwrap()).await;
}

#[tokio::test]
async fn an_own_user_who_does_not_decide() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(config(), hurried(|it| it.decision = SHORT)).await;
    let refused = connect(&romeo, JULIET).await;
    assert_shape!(refused, Err(Error::Terminated(terminated)) if terminated.reason == Reason::Timeout);

    let peer = jid(JULIET);
    let (_, late) = within(future::join(romeo.connect(&peer), async {
        let incoming = juliet.accept().await.unwrap();
        world.wait_for_times(2, "romeo> iq result (session-terminate timeout)").await;
        incoming.accept().await
    }))
    .await;
    assert_timeout(late, Step::Decision);
}

#[tokio::test]
async fn a_bytestream_that_is_not_opened() {
    const REASONS: [Reason; 2] = [Reason::ConnectivityError, Reason::FailedTransport];
    let world = World::start().await;
    let short = || hurried(|it| it.transport = SHORT);
    let (romeo, juliet) = world.pair_of(short(), short()).await;
    world.server.intercept(drop_if(|stanza| is_ibb(stanza, "open")));
    let (connected, accepted) = support::attempt(&romeo, &juliet).await;
    for result in [connected, accepted] {
        match result {
            // The one who gave up first has told the other.
            Err(Error::Terminated(terminated)) => {
                assert!(REASONS.contains(&terminated.reason), "{terminated}")
            }
            // Data right behind `<open/>` came to a bytestream that nobody has opened.
            Err(Error::Transport(TransportError::Refused(refusal))) => {
                assert_eq!(refusal.defined_condition, DefinedCondition::ItemNotFound);
            }
            own => assert_timeout(own, Step::Transport),
        }
    }
    // Either may be the first to give up.
    within(async {
        let told = |line: &String| {
            REASONS.iter().any(|reason| line.contains(&format!("session-terminate {}", reason.name())))
        };
        while !world.ladder_without_data().iter().any(told) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_handshake_whose_bytes_are_lost() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(hurried(|it| it.tls = SHORT), config()).await;
    world.server.intercept(drop_if(|stanza| is_ibb(stanza, "data")));
    let (connected, accepted) = support::attempt(&romeo, &juliet).await;
    assert_timeout(connected, Step::Tls);
    assert_shape!(accepted, Err(Error::Terminated(terminated)) if terminated.reason == Reason::Timeout);
    world.wait_for("juliet> iq result (session-terminate timeout)").await;
}

#[tokio::test]
async fn an_initiator_that_sends_no_stream_header() {
    let world = World::start().await;
    let hurried = hurried(|it| (it.stream_header, it.close) = (SHORT, SHORT));
    let juliet = world.bot(JULIET, plaintext_allowed(hurried)).await;
    let mallory = Mallory::new(&world, JULIET).await;
    let accepting = tokio::spawn(async move { juliet.accept().await.unwrap().accept().await });
    mallory.open("silence").await;
    assert_timeout(within(accepting).await.unwrap(), Step::StreamHeader);
    mallory.heard("<connection-timeout").await;
    mallory.heard_action("session-terminate timeout").await;
}

#[tokio::test]
async fn a_responder_whose_stream_header_is_lost() {
    let world = World::start().await;
    let hurried = hurried(|it| (it.stream_header, it.close) = (SHORT, SHORT));
    let (romeo, juliet) = world.pair_of(plaintext_allowed(hurried), plaintext_allowed(config())).await;
    world.server.intercept(strip_feature(XTLS));
    world.server.intercept(drop_if(|stanza| is_ibb(stanza, "data")));
    let (connected, accepted) = support::attempt(&romeo, &juliet).await;
    assert_timeout(connected, Step::StreamHeader);
    assert!(accepted.is_err());
    world.wait_for("romeo> iq set jingle session-terminate timeout").await;
}

#[tokio::test]
async fn data_that_is_not_acknowledged() {
    let world = World::start().await;
    let hurried = unmanaged().timeouts(timeouts(|it| it.block_ack = SHORT));
    let (romeo, juliet) = world.pair_of(hurried, unmanaged()).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    world.server.intercept(drop_if(|stanza| is_ibb(stanza, "data")));
    let _ = romeos.send(message("does anybody hear me?")).await;
    let ended = within(romeos.next()).await.unwrap();
    assert_timeout(ended, Step::BlockAck);
    let heard = within(juliets.next()).await.unwrap();
    assert_shape!(heard, Err(Error::Terminated(terminated)) if terminated.reason == Reason::Timeout);
    world.wait_for("juliet> iq result (session-terminate timeout)").await;
}

#[tokio::test]
async fn a_close_that_is_not_answered() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(hurried(|it| it.close = SHORT), config()).await;
    let (romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    world.server.intercept(drop_if(|stanza| is_ibb(stanza, "data")));
    assert_timeout(within(romeos.close()).await, Step::Close);
    // She need not wait for him to carry the stream on.
    let heard = within(juliets.next()).await.unwrap();
    assert_shape!(heard, Err(Error::Terminated(terminated)) if terminated.reason == Reason::Gone);
    world.wait_for("juliet> iq result (session-terminate gone)").await;
}

#[tokio::test]
async fn closing_the_endpoint_with_a_silent_peer_takes_its_time_and_no_longer() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(hurried(|it| it.close = SHORT), config()).await;
    let _streams = support::streams(&romeo, &juliet).await;
    world.server.intercept(drop_if(|stanza| stanza.name() == "iq"));
    let begun = Instant::now();
    within(romeo.close()).await;
    assert!(begun.elapsed() >= SHORT, "it tried");
    assert!(begun.elapsed() < 10 * SHORT, "{:?}", begun.elapsed());
    within(world.server.wait_offline(&jid(ROMEO))).await;
    assert!(
        world
            .ladder_without_data()
            .iter()
            .any(|line| line.starts_with("romeo> iq set jingle session-terminate"))
    );
}

#[tokio::test]
async fn a_request_on_the_stream_that_nobody_answers() {
    let question = || IqRequest::Get(element("<question xmlns='urn:example'/>"));
    // Romeo does not wait longer.
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(hurried(|it| it.iq = SHORT), config()).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    assert_timeout(within(romeos.send_iq(question())).await, Step::Iq);
    within(juliets.next()).await.unwrap().unwrap();
    support::talk(&mut romeos, &mut juliets).await;

    // Juliet's end answers for her.
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(config(), hurried(|it| it.iq_unanswered = SHORT)).await;
    let (romeos, _juliets) = support::streams(&romeo, &juliet).await;
    let reply = within(romeos.send_iq(question())).await;
    assert_shape!(
        reply,
        Ok(IqResponse::Error(error)) if error.defined_condition == DefinedCondition::ServiceUnavailable
    );
}

/// XEP-0166 #session-terminate: presence that says so, and no sign of life for ten seconds after.
#[tokio::test]
async fn a_peer_whose_presence_says_that_it_is_gone() {
    let world = World::start().await;
    let (romeo, mut events) = world.bot_with_events(ROMEO, unmanaged()).await;
    let juliet = world.bot(JULIET, unmanaged()).await;
    juliet.send_presence(Presence::available()).await.unwrap();
    romeo.send_presence(Presence::available()).await.unwrap();
    support::next_stanza(&mut events).await;
    let (mut romeos, _juliets) = support::streams(&romeo, &juliet).await;

    world.server.refuse(true);
    world.server.cut(&jid(JULIET));
    let ended = within(romeos.next()).await;
    assert_shape!(ended, Some(Err(Error::Signalling(SignallingError::PeerGone))));
}

/// Its user is invisible, say: the session ends all the same, and what it carried goes on over another.
#[tokio::test]
async fn a_peer_that_only_seems_to_be_gone_keeps_its_stream() {
    let world = World::start().await;
    let (romeo, mut events) = world.bot_with_events(ROMEO, config()).await;
    let juliet = world.bot(JULIET, config()).await;
    juliet.send_presence(Presence::available()).await.unwrap();
    romeo.send_presence(Presence::available()).await.unwrap();
    support::next_stanza(&mut events).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    both_acknowledge(&mut romeos, &mut juliets).await;
    unacked(&romeos, 0).await;
    unacked(&juliets, 0).await;

    let (mut romeo_sees, mut juliet_sees) = (romeos.events(), juliets.events());
    juliet.send_presence(Presence::unavailable()).await.unwrap();
    within(both_resumed(&mut romeo_sees, &mut juliet_sees)).await;
    support::talk(&mut romeos, &mut juliets).await;
}

#[tokio::test]
async fn a_lost_session_with_the_server_ends_unmanaged_streams_on_both_sides_and_a_new_one_can_follow() {
    for mine in [true, false] {
        let world = World::start().await;
        let (romeo, juliet) = world.pair_of(unmanaged(), unmanaged()).await;
        let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
        let request = romeos.send_iq(IqRequest::Get(element("<question xmlns='urn:example'/>")));
        let cut = async {
            juliets.next().await.unwrap().unwrap();
            world.server.cut(&jid(if mine { ROMEO } else { JULIET }));
        };
        let (unanswered, ()) = within(future::join(request, cut)).await;
        assert!(unanswered.is_err());

        let ends = [within(romeos.next()).await.unwrap(), within(juliets.next()).await.unwrap()];
        let [romeo_heard, juliet_heard] = ends;
        let (lost, told) = if mine { (romeo_heard, juliet_heard) } else { (juliet_heard, romeo_heard) };
        assert_shape!(lost, Err(Error::Signalling(SignallingError::Rebound)));
        assert_shape!(told, Err(Error::Terminated(terminated)) if terminated.reason == Reason::ConnectivityError);

        let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
        support::talk(&mut romeos, &mut juliets).await;
    }
}

#[tokio::test]
async fn a_slow_server_is_no_dead_one() {
    let world = World::start().await;
    // A round trip takes half as long as the deadline of a block.
    let patient = || hurried(|it| it.block_ack = 4 * SHORT);
    let (romeo, juliet) = world.pair_of(patient(), patient()).await;
    let (mut romeos, mut juliets) = support::streams(&romeo, &juliet).await;
    world.server.delay(&jid::<jid::FullJid>(JULIET), SHORT, SHORT);
    for _ in 0..2 {
        support::talk(&mut romeos, &mut juliets).await;
    }
    world.server.delay(&jid::<jid::FullJid>(JULIET), milliseconds(0), milliseconds(0));
    let (closed, _) = within(future::join(romeos.close(), juliets.close())).await;
    closed.unwrap();
}
