//! A direct stream against tokio-xmpp's own XML stream over mutual TLS, and against its own codec: goodput by size of body, and
//! a ping.

use std::time::Instant;

use bench_support::{bots, mock::Mock};
use jingle_xmlstream::internals::codec::Codec;
use xmpp_parsers::stanza::Stanza;

use super::Outcome;
use crate::{
    bare::Bare,
    rounds::{self, Effort},
    servers::Skipped,
    streams::Pair,
    table::{Goal, Row},
};

/// Size of the body, how many of them are about a second's work, and the goal.
const SIZES: [(usize, usize, f64); 4] =
    [(64, 80_000, 1.0), (1024, 60_000, 1.0), (16 * 1024, 8_000, 2.0), (64 * 1024, 2_000, 2.0)];

const PINGS: usize = 3_000;
const PING_BYTES: usize = 64;

/// Of what the codec alone does.
const OF_THE_CODEC: f64 = 0.9;

/// Our ping may take so much longer.
const PING_GOAL: f64 = 1.25;

/// Messages a second, in one direction.
pub(super) async fn goodput(effort: Effort) -> Result<Outcome, Skipped> {
    let mock = Mock::start();
    let mut ours = pair(&mock).await;
    let mut bare = Bare::connect().await;
    let mut rows = Vec::new();
    for (bytes, full, goal) in SIZES {
        let (count, message) = (effort.count(full), bots::message(bytes));
        let mut row = Row::new(format!("direct, {bytes} B"), "messages/s", Goal::AtLeast(goal))
            .against("xmlstream over mutual TLS");
        effort
            .by_turns(
                async || ours.goodput(&message, count).await,
                async || bare.goodput(&message, count).await,
                |ours, bare| row.push(ours, bare),
            )
            .await;
        rows.push(row);
    }
    Ok(Outcome::of(rows))
}

/// The same, against what one thread takes to write and read the XML in memory.
pub(super) async fn codec(effort: Effort) -> Result<Outcome, Skipped> {
    let mock = Mock::start();
    let mut ours = pair(&mock).await;
    let mut rows = Vec::new();
    for (bytes, full, _) in SIZES {
        let (count, message) = (effort.count(full), bots::message(bytes));
        let stanza = Stanza::from(message.clone());
        let mut row = Row::new(format!("direct, {bytes} B"), "messages/s", Goal::AtLeast(OF_THE_CODEC))
            .against("the codec alone");
        effort
            .by_turns(
                async || ours.goodput(&message, count).await,
                async || round_trips(&stanza, count),
                |ours, codec| row.push(ours, codec),
            )
            .await;
        rows.push(row);
    }
    Ok(Outcome::of(rows))
}

/// How many a second are written and read again.
fn round_trips(stanza: &Stanza, count: usize) -> f64 {
    let mut codec = Codec::new();
    let begun = Instant::now();
    for _ in 0..count {
        assert_eq!(codec.round_trip(stanza), Ok(1), "it is read as it was written");
    }
    rounds::rate(count, begun)
}

/// There and back.
pub(super) async fn ping(effort: Effort) -> Result<Outcome, Skipped> {
    let mock = Mock::start();
    let mut ours = pair(&mock).await;
    let mut bare = Bare::connect().await;
    let (count, message) = (effort.count(PINGS), bots::message(PING_BYTES));
    let mut row =
        Row::new("direct, ping", "µs", Goal::AtMost(PING_GOAL)).against("xmlstream over mutual TLS");
    let microseconds = |took: std::time::Duration| took.as_secs_f64() * 1e6;
    effort
        .by_turns(
            async || microseconds(ours.ping(&message, count).await),
            async || microseconds(bare.ping(&message, count).await),
            |ours, bare| row.push(ours, bare),
        )
        .await;
    Ok(Outcome::of(vec![row]))
}

async fn pair(mock: &Mock) -> Pair {
    Pair::connect(|| mock.connector(), mock_server::PASSWORD, bots::direct_config).await
}
