//! Acknowledged stanzas (XEP-0198 #acking): who promises what to whom, and what comes back.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::time::Duration;

use futures::{SinkExt, StreamExt, future, poll};
use jingle_xmlstream::{E2eStream, Error, PeerIncompatible, SmConfig};
use support::{
    World, body, config, limits, message,
    outages::{all_that_comes, both_acknowledge, close_sink, converse, sm, unacked, undelivered},
    streams, timeouts, within,
};
use tokio_xmpp::IqRequest;
use xmpp_parsers::ping::Ping;

/// Asks for an acknowledgement behind each stanza, so that a test need not wait for one.
fn eager() -> SmConfig {
    sm(|sm| sm.request_after = 1)
}

async fn pair() -> (World, E2eStream, E2eStream) {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(config().sm(eager()), config().sm(eager())).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    both_acknowledge(&mut romeos, &mut juliets).await;
    (world, romeos, juliets)
}

#[tokio::test]
async fn a_stanza_is_acknowledged_when_the_peers_bot_has_received_it_and_not_before() {
    let (_world, romeos, mut juliets) = pair().await;
    let receipt = within(romeos.send_with_receipt(message("Wherefore art thou Romeo?"))).await.unwrap();
    let mut receipt = std::pin::pin!(receipt);
    // A whole round trip later Juliet's side has it, and her bot does not.
    within(romeos.send_iq(IqRequest::Get(Ping.into()))).await.unwrap();
    assert!(poll!(receipt.as_mut()).is_pending());
    assert!(romeos.unacked() >= 1);

    assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), "Wherefore art thou Romeo?");
    within(receipt).await.unwrap();
    unacked(&romeos, 0).await;
}

#[tokio::test]
async fn send_acked_waits_for_the_peers_bot() {
    let (_world, romeos, mut juliets) = pair().await;
    let (sent, heard) = within(future::join(romeos.send_acked(message("Adieu!")), juliets.next())).await;
    sent.unwrap();
    assert_eq!(body(&heard.unwrap().unwrap()), "Adieu!");
}

#[tokio::test]
async fn two_bots_in_one_task_wait_for_each_others_acknowledgements_without_a_deadlock() {
    let (_world, mut romeos, mut juliets) = pair().await;
    converse(&mut romeos, &mut juliets, 0..100).await;
    let (romeo, juliet) = (romeos.sender(), juliets.sender());
    let (one, other, ..) = within(future::join4(
        romeo.send_acked(message("good night")),
        juliet.send_acked(message("good night")),
        romeos.next(),
        juliets.next(),
    ))
    .await;
    one.unwrap();
    other.unwrap();
}

/// The usual bot: it answers each stanza before it receives the next. Its answers' acknowledgements come behind what floods it.
#[tokio::test]
async fn a_bot_that_waits_to_send_still_hears_acknowledgements() {
    const COUNT: usize = 3000;
    let world = World::start().await;
    let bounded = || {
        config().limits(limits(|limits| {
            (limits.unacked_stanzas, limits.inbox_bytes, limits.outbox_bytes) = (500, 4096, 4096);
        }))
    };
    let (romeo, juliet) = world.pair_of(bounded(), bounded()).await;
    let (romeos, mut juliets) = streams(&romeo, &juliet).await;
    let echo = async {
        for _ in 0..COUNT {
            let stanza = juliets.next().await.unwrap().unwrap();
            juliets.send(stanza).await.unwrap();
        }
    };
    let (mut sender, mut receiver) = romeos.split();
    let flood = async {
        for number in 0..COUNT {
            sender.feed(message(&number.to_string())).await.unwrap();
        }
        sender.flush().await.unwrap();
    };
    let listen = async {
        for number in 0..COUNT {
            assert_eq!(body(&receiver.next().await.unwrap().unwrap()), number.to_string());
        }
    };
    within(future::join3(echo, flood, listen)).await;
}

#[tokio::test]
async fn who_sends_nothing_acknowledges_in_time_too() {
    let world = World::start().await;
    // Acknowledgements are asked for by time alone.
    let slow = || config().sm(sm(|sm| sm.request_within = Duration::from_millis(20)));
    let (romeo, juliet) = world.pair_of(slow(), slow()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    both_acknowledge(&mut romeos, &mut juliets).await;
    within(romeos.send(message("one"))).await.unwrap();
    within(juliets.next()).await.unwrap().unwrap();
    unacked(&romeos, 0).await;
}

#[tokio::test]
async fn so_many_unacknowledged_stanzas_and_no_more() {
    let world = World::start().await;
    let bounded = config().sm(eager()).limits(limits(|limits| limits.unacked_stanzas = 10));
    let (romeo, juliet) = world.pair_of(bounded, config()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    both_acknowledge(&mut romeos, &mut juliets).await;
    unacked(&romeos, 0).await;

    for number in 0..10 {
        within(romeos.send(message(&number.to_string()))).await.unwrap();
    }
    assert!(poll!(std::pin::pin!(romeos.send(message("10")))).is_pending(), "there is no room");
    assert_eq!(romeos.unacked(), 10);
    let (sent, ()) = within(future::join(romeos.send(message("10")), async {
        for number in 0..=10 {
            assert_eq!(body(&juliets.next().await.unwrap().unwrap()), number.to_string());
        }
    }))
    .await;
    sent.unwrap();
}

#[tokio::test]
async fn what_the_peers_bot_did_not_receive_comes_back_when_the_peer_closes() {
    let (_world, mut romeos, mut juliets) = pair().await;
    for number in 0..5 {
        within(romeos.send(message(&number.to_string()))).await.unwrap();
    }
    for _ in 0..2 {
        within(juliets.next()).await.unwrap().unwrap();
    }
    let (closed, (heard, end)) = future::join(within(juliets.close()), all_that_comes(&mut romeos)).await;
    closed.unwrap();
    assert_eq!(heard, Vec::<String>::new());
    let end = end.expect("not all was delivered");
    assert_eq!(undelivered(&end), ["2", "3", "4"]);
    let Error::Undelivered(undelivered) = &end else { unreachable!("it was one just now") };
    assert!(undelivered.cause().is_none(), "the end was orderly");
    assert!(within(romeos.next()).await.is_none());
}

#[tokio::test]
async fn an_orderly_end_waits_for_the_last_acknowledgements() {
    let (_world, mut romeos, mut juliets) = pair().await;
    for number in 0..100 {
        within(romeos.feed(message(&number.to_string()))).await.unwrap();
    }
    let (closed, (heard, end)) = future::join(within(romeos.close()), all_that_comes(&mut juliets)).await;
    closed.unwrap();
    assert!(end.is_none(), "{end:?}");
    assert_eq!(heard, (0..100).map(|number| number.to_string()).collect::<Vec<_>>());
}

/// The peer takes responsibility for what it has, as soon as it is done itself: nobody waits for a slow bot.
#[tokio::test]
async fn who_has_said_all_counts_as_received_what_is_in_its_inbox() {
    let (_world, mut romeos, mut juliets) = pair().await;
    within(romeos.send(message("three words"))).await.unwrap();
    close_sink(&mut romeos).await;
    let end = within(romeos.next()).await;
    assert!(end.is_none(), "all was acknowledged, but {end:?}");
    assert_eq!(body(&within(juliets.next()).await.unwrap().unwrap()), "three words");
    assert!(within(juliets.next()).await.is_none());
}

#[tokio::test]
async fn the_endpoints_close_says_what_was_not_delivered_as_well() {
    let world = World::start().await;
    let (romeo, juliet) = world.pair_of(config().sm(eager()), config().sm(eager())).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    both_acknowledge(&mut romeos, &mut juliets).await;
    within(romeos.send(message("Juliet?"))).await.unwrap();
    let ((), (_, end)) = future::join(within(juliet.close()), all_that_comes(&mut romeos)).await;
    assert_eq!(undelivered(&end.expect("not all was delivered")), ["Juliet?"]);
}

#[tokio::test]
async fn a_peer_that_was_cut_off_for_good_gives_back_all_in_order() {
    let world = World::start().await;
    let not_resumed = || config().sm(sm(|sm| sm.resumption = Duration::ZERO));
    let short = not_resumed().timeouts(timeouts(|timeouts| timeouts.block_ack = Duration::from_secs(3)));
    let (romeo, juliet) = world.pair_of(short, not_resumed()).await;
    let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
    both_acknowledge(&mut romeos, &mut juliets).await;
    unacked(&romeos, 0).await;

    world.server.intercept(support::wire::drop_if(|stanza| support::wire::is_ibb(stanza, "data")));
    for number in 0..3 {
        within(romeos.feed(message(&number.to_string()))).await.unwrap();
    }
    let (_, end) = all_that_comes(&mut romeos).await;
    let end = end.expect("the bytestream is dead");
    assert_eq!(undelivered(&end), ["0", "1", "2"]);
    let Error::Undelivered(undelivered) = &end else { unreachable!("it was one just now") };
    assert!(matches!(undelivered.cause(), Some(Error::Timeout(..))), "{end}");
}

#[tokio::test]
async fn with_a_peer_that_acknowledges_nothing_all_is_as_it_was() {
    let world = World::start().await;
    let without = config().sm(sm(|sm| sm.enabled = false));
    for (romeos, juliets) in [(config(), without.clone()), (without, config())] {
        let (romeo, juliet) = world.pair_of(romeos, juliets).await;
        let (mut romeos, mut juliets) = streams(&romeo, &juliet).await;
        support::talk(&mut romeos, &mut juliets).await;
        for stream in [&romeos, &juliets] {
            assert!(!stream.acknowledges());
            assert_eq!(stream.unacked(), 0);
            let refused = within(stream.send_acked(message("?"))).await.unwrap_err();
            let is_missing = matches!(
                &refused,
                Error::PeerIncompatible(PeerIncompatible::MissingFeature(feature)) if feature == "urn:xmpp:sm:3"
            );
            assert!(is_missing, "{refused}");
        }
        converse(&mut romeos, &mut juliets, 0..100).await;
        // What was not received is lost without a word, as ever.
        within(romeos.send(message("lost"))).await.unwrap();
        let (closed, (_, end)) = future::join(within(juliets.close()), all_that_comes(&mut romeos)).await;
        closed.unwrap();
        assert!(end.is_none(), "{end:?}");
        within(future::join(romeo.close(), juliet.close())).await;
    }
}
