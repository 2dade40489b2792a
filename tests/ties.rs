//! Both want a stream with each other at the same time (XEP-0166 #def-action-ties).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops where something is wrong"
)]

mod support;

use std::time::Duration;

use futures::future;
use jingle_xmlstream::{E2eStream, Endpoint, Error};
use mock_server::Target;
use support::{JULIET, ROMEO, World, jid, milliseconds, wire, within};

const ROUNDS: usize = 20;

/// Long enough for the offers to cross on a busy machine.
const DELAY: Duration = Duration::from_millis(40);

async fn both_connect(
    romeo: &Endpoint,
    juliet: &Endpoint,
) -> (Result<E2eStream, Error>, Result<E2eStream, Error>) {
    within(future::join(romeo.connect(&jid(JULIET)), juliet.connect(&jid(ROMEO)))).await
}

fn lines(world: &World, part: &str) -> Vec<String> {
    let passed = |line: &String| line.contains(part) && !line.ends_with("[dropped]");
    world.ladder_without_data().into_iter().filter(passed).collect()
}

#[tokio::test]
async fn offers_that_cross_become_one_stream_that_both_get() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    world.server.intercept(wire::cross("session-initiate"));
    let mut initiated_by_romeo = 0;
    for _ in 0..ROUNDS {
        world.server.clear_record();
        let (romeos, juliets) = both_connect(&romeo, &juliet).await;
        let (mut romeos, mut juliets) = (romeos.unwrap(), juliets.unwrap());
        assert_eq!(romeos.info().id, juliets.info().id, "the same stream");
        support::talk(&mut romeos, &mut juliets).await;

        let ladder = world.ladder_without_data();
        assert_eq!(lines(&world, "iq set jingle session-initiate").len(), 2, "{ladder:#?}");
        assert_eq!(lines(&world, "iq error conflict tie-break (session-initiate)").len(), 1, "{ladder:#?}");
        assert_eq!(lines(&world, "iq set jingle session-accept").len(), 1, "{ladder:#?}");
        assert_eq!(lines(&world, "session-terminate").len(), 0, "{ladder:#?}");
        // XEP-0166: the lower sid overrules.
        let offers: Vec<_> = world
            .server
            .record()
            .into_iter()
            .filter(|it| &*it.name == "iq set jingle session-initiate" && it.outcome.is_delivered())
            .collect();
        let lower = offers.iter().min_by_key(|it| sid(&it.element)).unwrap();
        let accept = world.recorded("iq set jingle session-accept");
        assert_eq!(sid(&accept.element), sid(&lower.element));
        assert_eq!(accept.to, lower.from);
        initiated_by_romeo += usize::from(lower.from.as_str() == ROMEO);

        let (one, other) = within(future::join(romeos.close(), juliets.close())).await;
        one.unwrap();
        other.unwrap();
    }
    // The sids are random: that one side wins all rounds happens once in 500,000 runs.
    assert!((1..ROUNDS).contains(&initiated_by_romeo), "{initiated_by_romeo} of {ROUNDS}");
}

fn sid(stanza: &xmpp_parsers::minidom::Element) -> String {
    stanza.get_child("jingle", support::wire::JINGLE).unwrap().attr("sid").unwrap().to_owned()
}

/// However much later the second one begins, each gets a stream: the same, or each its own.
#[tokio::test]
async fn whoever_begins_later_gets_a_stream_too() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    world.server.delay(Target::All, DELAY, Duration::ZERO);
    let mut ties = 0;
    for later in (0..=300).step_by(30).map(milliseconds) {
        world.server.clear_record();
        let started_later = async {
            tokio::time::sleep(later).await;
            juliet.connect(&jid(ROMEO)).await
        };
        let attempts = within(future::join(romeo.connect(&jid(JULIET)), started_later));
        // Where no offers cross, there are two, and somebody has to accept them.
        let (romeos, juliets) = tokio::select! {
            attempts = attempts => attempts,
            never = future::join(accept_all(&romeo), accept_all(&juliet)) => panic!("{never:?}"),
        };
        let (romeos, juliets) = (romeos.unwrap(), juliets.unwrap());
        let same = romeos.info().id == juliets.info().id;
        let tie_breaks = lines(&world, "tie-break").len();
        assert_eq!(same, tie_breaks == 1, "{later:?}: {:#?}", world.ladder_without_data());
        ties += tie_breaks;
        let _ = within(future::join(romeos.close(), juliets.close())).await;
    }
    assert!(ties > 0, "with no offset at all, the offers cross");
}

/// Accepts whatever comes, and keeps it open.
async fn accept_all(bot: &Endpoint) -> Vec<E2eStream> {
    let mut accepted = Vec::new();
    loop {
        let Some(incoming) = bot.accept().await else { return accepted };
        // One that is taken back meanwhile is no failure.
        accepted.extend(incoming.accept().await.ok());
    }
}

#[tokio::test]
async fn a_tie_whose_winner_is_dropped_ends_for_both() {
    let world = World::start().await;
    let (romeo, juliet) = world.usual_pair().await;
    world.server.intercept(wire::cross("session-initiate"));
    let tie_break = async {
        let mut recorded = world.server.subscribe();
        while lines(&world, "tie-break").is_empty() {
            let _ = within(recorded.recv()).await;
        }
    };
    let mut juliets = Box::pin(juliet.connect(&jid(ROMEO)));
    tokio::select! {
        connected = romeo.connect(&jid(JULIET)) => panic!("{connected:?}"),
        connected = &mut juliets => panic!("{connected:?}"),
        () = tie_break => {}
    }
    let alone = within(juliets).await;
    assert!(matches!(alone, Err(Error::Terminated(_))), "{alone:?}");
    let (romeos, juliets) = both_connect(&romeo, &juliet).await;
    support::talk(&mut romeos.unwrap(), &mut juliets.unwrap()).await;
}
