//! Peers that fall silent: those that are gone are found out, and those that are slow live.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::time::{Duration, Instant};

use futures::{FutureExt, SinkExt, StreamExt, future};
use jingle_xmlstream::{Config, Error, SmConfig, Step};
use support::{
    World, body, limits, message,
    outages::{all_that_comes, both_acknowledge, converse, resumed, sm, suspended},
    s5b_config, streams, timeouts, within,
};

const PROBE: Duration = Duration::from_millis(200);
const SILENCE: Duration = Duration::from_millis(800);

fn watchful(config: Config) -> Config {
    config.timeouts(timeouts(|timeouts| {
        timeouts.probe = PROBE;
        timeouts.silence = SILENCE;
        timeouts.keep_alive = PROBE / 2;
    }))
}

fn not_resumed() -> SmConfig {
    sm(|sm| sm.resumption = Duration::ZERO)
}

fn without() -> SmConfig {
    sm(|sm| sm.enabled = false)
}

fn is_silence(error: &Error) -> bool {
    matches!(error, Error::Timeout(Step::Silence, after) if *after == PROBE + SILENCE)
}

#[tokio::test]
async fn a_connection_that_died_without_a_word_is_found_out_and_the_stream_goes_on_over_another() {
    let world = World::start().await;
    let wires = world.wires();
    let (romeo, juliet) = world.pair_of(watchful(s5b_config()), watchful(s5b_config())).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    let (mut told_romeo, mut told_juliet) = (romeos.events(), juliets.events());
    both_acknowledge(&mut romeos, &mut juliets).await;
    let since = Instant::now();
    wires.unplug();

    // The one who finds out first may tell the other.
    let (one, other) = future::join(suspended(&mut told_romeo), suspended(&mut told_juliet)).await;
    assert!(is_silence(&one) || is_silence(&other), "{one}; {other}");
    assert!(since.elapsed() >= PROBE + SILENCE / 2, "not before it was asked");
    future::join(resumed(&mut told_romeo), resumed(&mut told_juliet)).await;
    converse(&mut romeos, &mut juliets, 0..100).await;
}

#[tokio::test]
async fn a_peer_without_stream_management_is_asked_with_a_ping() {
    let world = World::start().await;
    let wires = world.wires();
    let config = || watchful(s5b_config()).sm(without());
    let (romeo, juliet) = world.pair_of(config(), config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    support::talk(&mut romeos, &mut juliets).await;
    wires.unplug();
    let ((_, one), (_, other)) =
        future::join(all_that_comes(&mut romeos), all_that_comes(&mut juliets)).await;
    let (one, other) = (one.expect("it is dead"), other.expect("it is dead"));
    assert!(is_silence(&one) || is_silence(&other), "{one}; {other}");
}

#[tokio::test]
async fn a_stream_that_can_not_be_resumed_ends_with_the_silence_and_what_was_lost_in_it() {
    let world = World::start().await;
    let wires = world.wires();
    let romeos = watchful(s5b_config()).sm(not_resumed());
    let (romeo, juliet) = world.pair_of(romeos, s5b_config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    both_acknowledge(&mut romeos, &mut juliets).await;
    wires.unplug();
    within(romeos.send(message("Juliet?"))).await.unwrap();
    let (_, end) = all_that_comes(&mut romeos).await;
    match end.expect("it is dead") {
        Error::Undelivered(undelivered) => {
            assert!(undelivered.cause().is_some_and(is_silence), "{:?}", undelivered.cause());
            let lost: Vec<_> = undelivered.stanzas().iter().map(body).collect();
            assert_eq!(lost.last().map(String::as_str), Some("Juliet?"));
        }
        other => panic!("{other:?}"),
    }
}

/// Three times as long as a dead one would have had.
#[tokio::test]
async fn a_peer_whose_bot_does_not_receive_for_long_is_alive() {
    // More than all buffers of an in-band bytestream take.
    const SPEECHES: usize = 500;
    for management in [SmConfig::default(), without()] {
        let world = World::start().await;
        let config = || {
            let small = limits(|limits| {
                limits.inbox_bytes = 4096;
                limits.outbox_bytes = 4096;
            });
            watchful(support::config()).sm(management).limits(small)
        };
        let (romeo, juliet) = world.pair_of(config(), config()).await;
        let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
        let (mut told_romeo, mut told_juliet) = (romeos.events(), juliets.events());
        support::talk(&mut romeos, &mut juliets).await;
        let speech = "Parting is such sweet sorrow. ".repeat(100);
        let mut sender = romeos.sender();
        let said = speech.clone();
        let speaking = tokio::spawn(async move {
            for _ in 0..SPEECHES {
                sender.send(message(&said)).await.unwrap();
            }
        });
        // It is time itself that is tested here: nothing may happen in it.
        tokio::time::sleep(3 * (PROBE + SILENCE)).await;
        assert!(!speaking.is_finished(), "it waits for Juliet");
        for _ in 0..SPEECHES {
            assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), speech);
        }
        within(speaking).await.unwrap();
        for told in [&mut told_romeo, &mut told_juliet] {
            assert!(told.next().now_or_never().is_none());
        }
    }
}

#[tokio::test]
async fn two_that_have_nothing_to_say_are_alive() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(watchful(s5b_config()), watchful(support::config())).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    let (mut told_romeo, mut told_juliet) = (romeos.events(), juliets.events());
    // It is time itself that is tested here: nothing may happen in it.
    tokio::time::sleep(3 * (PROBE + SILENCE)).await;
    for told in [&mut told_romeo, &mut told_juliet] {
        assert!(told.next().now_or_never().is_none());
    }
    converse(&mut romeos, &mut juliets, 0..10).await;
}
