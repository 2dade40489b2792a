//! A stanza costs the same at the end of a stream's life as at its beginning.

use bench_support::{
    bots, cpu,
    mock::{self, Mock},
};

use super::Outcome;
use crate::{
    rounds::Effort,
    servers::Skipped,
    streams::Pair,
    table::{Goal, Row},
};

/// A stream's life.
const PARTS: usize = 10;
const PART: usize = 1_000_000;

const BYTES: usize = 64;

/// What counts as the same.
const GOAL: f64 = 1.1;

/// Processor time of both ends by stanza, each part against the first; the row's rounds are the parts after it.
pub(super) async fn constant(effort: Effort) -> Result<Outcome, Skipped> {
    let mock = Mock::start();
    let mut pair = Pair::connect(|| mock.connector(), mock_server::PASSWORD, bots::direct_config).await;
    let (count, message) = (effort.count(PART), bots::message(BYTES));
    let mut costs = Vec::new();
    for part in 0..PARTS {
        let before = cpu::used(mock::THREADS);
        pair.goodput(&message, count).await;
        let cost = cpu::since(before, mock::THREADS).as_secs_f64() * 1e6 / count as f64;
        eprintln!("  stanzas {} to {}: {cost:.2} µs each", part * count, (part + 1) * count);
        costs.push(cost);
    }
    let name = format!("stanzas {count} to {}, CPU each", PARTS * count);
    let mut row = Row::new(name, "µs", Goal::AtMost(GOAL)).against("the first of them");
    let (first, later) = costs.split_first().expect("a life has parts");
    later.iter().for_each(|cost| row.push(*cost, *first));
    Ok(Outcome::of(vec![row]))
}
