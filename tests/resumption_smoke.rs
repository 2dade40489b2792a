//! Streams that outlive their bytestream, on a server that forgets sessions.

#![allow(clippy::unwrap_used, reason = "a test that panics has failed, as it should")]

mod support;

use futures::{SinkExt, StreamExt};
use jingle_xmlstream::{E2eStream, StreamEvent, StreamEvents};
use support::{JULIET, ROMEO, World, body, config, in_band, jid, message, streams, within};

async fn hears(stream: &mut E2eStream, what: &str) {
    assert_eq!(body(&within(stream.next()).await.unwrap().unwrap()), what);
}

async fn is_suspended_and_resumed(events: &mut StreamEvents) {
    let event = within(events.next()).await;
    assert!(matches!(event, Some(StreamEvent::Suspended(_))), "{event:?}");
    let event = within(events.next()).await;
    assert!(matches!(event, Some(StreamEvent::Resumed(Some(_)))), "{event:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_in_band_goes_on_after_the_server_threw_one_side_out() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(in_band(config()), in_band(config())).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    romeos.send(message("1")).await.unwrap();
    hears(&mut juliets, "1").await;
    juliets.send(message("2")).await.unwrap();
    hears(&mut romeos, "2").await;

    for (round, thrown_out) in [ROMEO, JULIET].into_iter().enumerate() {
        let (mut romeos_events, mut juliets_events) = (romeos.events(), juliets.events());
        assert!(world.server.cut(&jid(thrown_out)));
        let (one, other) = (format!("one {round}"), format!("other {round}"));
        let sent = async { tokio::try_join!(romeos.send(message(&one)), juliets.send(message(&other))) };
        within(sent).await.unwrap();
        is_suspended_and_resumed(&mut romeos_events).await;
        is_suspended_and_resumed(&mut juliets_events).await;
        hears(&mut juliets, &one).await;
        hears(&mut romeos, &other).await;
    }
    let (closed, seen) = within(async { tokio::join!(romeos.close(), juliets.next()) }).await;
    closed.unwrap();
    assert!(seen.is_none(), "{seen:?}");
}
