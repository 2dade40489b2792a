//! In-band bytestreams through a real server that is near or far: the window that adapts against those that do not.

use std::{net::SocketAddr, time::Duration};

use bench_support::bots;
use jingle_xmlstream::{Config, IbbConfig, Transports};

use super::Outcome;
use crate::{
    plots::{Line, Plot},
    relay::Relay,
    rounds::Effort,
    servers::{Brand, Limited, PASSWORD, Server, Skipped},
    streams::Pair,
    table::{Goal, Row, Spread},
};
use plotters::chart::SeriesLabelPosition;

/// What every other program does.
pub(super) const NAIVE: (u16, usize) = (4096, 1);

/// Settings of the block size and of the window, NAIVE first.
const FIXED: [(u16, usize); 9] =
    [NAIVE, (4096, 4), (4096, 16), (4096, 64), (16384, 16), (65535, 1), (65535, 4), (65535, 16), (65535, 64)];

/// Round trips between the bots that are added, in milliseconds.
const ROUND_TRIPS: [u64; 4] = [0, 10, 50, 200];

/// The one that is to show what waiting costs.
const FAR: u64 = 50;

const OF_THE_BEST: f64 = 0.9;
const OF_THE_NAIVE: f64 = 20.0;

const BYTES: usize = 4096;

/// Enough to begin to learn the rate of a path with.
const PROBE: usize = 30;

/// How often at least, and at most, what a path carries is learned from what it carried. A window that adapts starts small: with
/// 200 ms it takes seconds until it is large, and what passes in less than a round trip says nothing about the rate.
const PROBES: [usize; 2] = [3, 12];

/// By how much more than before has to pass for another probe.
const MORE: f64 = 1.25;

/// How long a single measurement takes, about.
const SECONDS: f64 = 1.0;

/// How often each fixed one is tried, to find the best.
const TRIALS: usize = 2;

/// One setting, with a stream of its own.
struct Variant {
    name: String,
    adapts: bool,
    pair: Pair,
    /// As much as passes in the time of a measurement.
    count: usize,
    megabytes: Vec<f64>,
}

impl Variant {
    async fn connect(server: &Server, at: SocketAddr, fixed: Option<(u16, usize)>, effort: Effort) -> Self {
        let mut pair = Pair::connect(|| server.connector_at(at), PASSWORD, || config(fixed)).await;
        let name = fixed.map_or("adaptive".to_owned(), |(block, window)| format!("{block} x {window}"));
        let (mut count, [least, most], seconds) =
            if effort.is_quick() { (5, [1, 1], 0.1) } else { (PROBE, PROBES, SECONDS) };
        for probe in 1..=most {
            let before = count;
            count = (pair.goodput(&bots::message(BYTES), before).await * seconds) as usize + 1;
            if probe >= least && (count as f64) < MORE * before as f64 {
                break;
            }
        }
        Self { name, adapts: fixed.is_none(), pair, count, megabytes: Vec::new() }
    }

    /// What is carried by a stream that is busy: each was idle while the others were measured. How long a window takes to grow is
    /// not in it, so as much goes ahead of one that adapts; a fixed one has nothing to learn but what TCP has forgotten.
    async fn measure(&mut self) -> f64 {
        let ahead = if self.adapts { self.count } else { self.count / 4 };
        self.pair.goodput(&bots::message(BYTES), ahead).await;
        let rate = self.pair.goodput(&bots::message(BYTES), self.count).await;
        let megabytes = rate * BYTES as f64 / 1e6;
        self.megabytes.push(megabytes);
        megabytes
    }

    fn median(&self) -> f64 {
        Spread::of(self.megabytes.iter().copied()).median
    }
}

/// What came out for one path.
struct Path {
    round_trip: u64,
    adaptive: Variant,
    fixed: Vec<Variant>,
    /// Which of the fixed ones is held against the adaptive one.
    best: usize,
    /// What each of these carried in one round.
    rounds: Vec<Round>,
}

/// Megabytes a second.
struct Round {
    adaptive: f64,
    best: f64,
    naive: f64,
}

impl Path {
    async fn measure(server: &Server, round_trip: u64, effort: Effort) -> Self {
        // Each bot's way is delayed in both directions.
        let relay = Relay::start(server.address(), Duration::from_millis(round_trip) / 4).await;
        let at = if round_trip == 0 { server.address() } else { relay.address() };
        let mut adaptive = Variant::connect(server, at, None, effort).await;
        let mut fixed = Vec::new();
        for setting in FIXED {
            fixed.push(Variant::connect(server, at, Some(setting), effort).await);
        }
        // The best one is found before it is compared: the luckiest of many is not the best.
        for _ in 0..TRIALS.min(effort.rounds) {
            for variant in fixed.iter_mut().chain([&mut adaptive]) {
                variant.measure().await;
            }
        }
        let by_median = |(_, one): &(usize, &Variant), (_, other): &(usize, &Variant)| {
            one.median().total_cmp(&other.median())
        };
        let best = fixed.iter().enumerate().max_by(by_median).map(|(best, _)| best);
        let mut path = Self {
            round_trip,
            adaptive,
            fixed,
            best: best.expect("there are fixed ones"),
            rounds: Vec::new(),
        };
        if round_trip == 0 || round_trip == FAR {
            for round in 0..effort.rounds {
                path.compare(round).await;
            }
        }
        path
    }

    /// One after the other; who is first in one round is last in the next.
    async fn compare(&mut self, round: usize) {
        let Self { adaptive, fixed, best, rounds, .. } = self;
        let (ours, reference) = if round.is_multiple_of(2) {
            let ours = adaptive.measure().await;
            (ours, fixed[*best].measure().await)
        } else {
            let reference = fixed[*best].measure().await;
            (adaptive.measure().await, reference)
        };
        rounds.push(Round { adaptive: ours, best: reference, naive: fixed[0].measure().await });
    }

    fn best(&self) -> &Variant {
        &self.fixed[self.best]
    }

    fn naive(&self) -> &Variant {
        &self.fixed[0]
    }

    fn row(
        &self,
        brand: Brand,
        reference: &Variant,
        carried: fn(&Round) -> f64,
        against: &'static str,
        goal: f64,
    ) -> Row {
        let path = format!("{brand:?}, {} ms", self.round_trip);
        let mut row = Row::new(format!("IBB, {path} ({})", reference.name), "MB/s", Goal::AtLeast(goal))
            .against(against);
        self.rounds.iter().for_each(|round| row.push(round.adaptive, carried(round)));
        row
    }

    async fn close(self) {
        futures::future::join_all(self.fixed.into_iter().map(|variant| variant.pair.close())).await;
        self.adaptive.pair.close().await;
    }
}

/// The settings of both bots; those of the library, where none are given.
pub(super) fn config(fixed: Option<(u16, usize)>) -> Config {
    let mut ibb = IbbConfig::default();
    if let Some((block_size, window)) = fixed {
        ibb.block_size = block_size;
        ibb.fixed_window = Some(window);
        ibb.receive_buffer = ibb.receive_buffer.max(usize::from(block_size) * window);
    }
    bots::config().transports(Transports::Ibb).ibb(ibb)
}

pub(super) async fn paths(effort: Effort, brand: Brand) -> Result<Outcome, Skipped> {
    let server = Server::start(brand, Limited::No).await?;
    let mut paths = Vec::new();
    for round_trip in ROUND_TRIPS.into_iter().filter(|ms| !effort.is_quick() || *ms == 0 || *ms == FAR) {
        paths.push(Path::measure(&server, round_trip, effort).await);
    }
    let mut rows = Vec::new();
    for path in paths.iter().filter(|path| !path.rounds.is_empty()) {
        rows.push(path.row(brand, path.best(), |round| round.best, "the best fixed window", OF_THE_BEST));
        if path.round_trip == FAR {
            rows.push(path.row(
                brand,
                path.naive(),
                |round| round.naive,
                "one block in flight",
                OF_THE_NAIVE,
            ));
        }
    }
    let plots =
        if brand == Brand::Ejabberd { vec![by_window(&paths), by_round_trip(&paths)] } else { Vec::new() };
    futures::future::join_all(paths.into_iter().map(Path::close)).await;
    Ok(Outcome { rows, plots })
}

fn by_window(paths: &[Path]) -> Plot {
    let far = paths.iter().find(|path| path.round_trip == FAR).expect("the far one was measured");
    let of_block = |block: u16| {
        let fixed = FIXED.iter().zip(&far.fixed).filter(|((of, _), _)| *of == block);
        let points = fixed.map(|((_, window), variant)| (*window as f64, variant.median())).collect();
        Line { name: format!("fixed window, blocks of {block}"), points }
    };
    let adaptive = far.adaptive.median();
    Plot {
        name: "goodput-by-window",
        title: format!("IBB through ejabberd, {FAR} ms round trip added"),
        x: "blocks in flight",
        y: "MB/s",
        legend: SeriesLabelPosition::LowerRight,
        lines: vec![
            Line { name: "adaptive".to_owned(), points: vec![(1.0, adaptive), (64.0, adaptive)] },
            of_block(4096),
            of_block(65535),
        ],
    }
}

fn by_round_trip(paths: &[Path]) -> Plot {
    let line = |name: &str, median: fn(&Path) -> f64| {
        // Nothing is 0 ms away: what the server and the programs take is about a millisecond.
        let points = paths.iter().map(|path| ((path.round_trip + 1) as f64, median(path)));
        Line { name: name.to_owned(), points: points.collect() }
    };
    Plot {
        name: "goodput-by-round-trip",
        title: "IBB through ejabberd".to_owned(),
        x: "round trip between the bots, ms",
        y: "MB/s",
        legend: SeriesLabelPosition::LowerLeft,
        lines: vec![
            line("adaptive", |path| path.adaptive.median()),
            line("the best fixed window of each path", |path| path.best().median()),
            line("one block of 4096 in flight", |path| path.naive().median()),
        ],
    }
}
