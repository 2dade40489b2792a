//! A thousand streams in one process: what they take while nothing happens, and while little does.

use std::process::{Command, Stdio};

use bench_support::mock::Mock;
use serde_json::Value;

use super::Outcome;
use crate::{
    plots::{Line, Plot},
    rounds::Effort,
    servers::Skipped,
    table::{Goal, Row},
};
use plotters::chart::SeriesLabelPosition;

const STREAMS: usize = 1_000;

/// For what grows with streams.
const STEPS: [usize; 4] = [1, 10, 100, STREAMS];

/// Once in 30 s each end says that it is still there, which is part of what idle streams cost.
const WATCHED_SECONDS: usize = 30;

/// For each end of a stream, beyond what TLS and sockets allocate.
const MEMORY_GOAL_KIB: f64 = 40.0;

/// Of a core, that idle streams may take together: a space each in 30 s, and what can't be told from noise.
const IDLE_GOAL_PERCENT: f64 = 1.0;

/// A stanza on one of many streams may cost so much more than on one of few.
const LINEAR: f64 = 1.25;

/// What a process of many streams found out.
struct Found(Value);

impl Found {
    fn number(&self, key: &str) -> f64 {
        self.0.get(key).and_then(Value::as_f64).unwrap_or(f64::NAN)
    }

    /// For each end.
    fn kib(&self, key: &str) -> f64 {
        self.number(key) / (2.0 * self.number("opened")) / 1024.0
    }

    fn microseconds_by_stanza(&self) -> f64 {
        self.number("trickle_cpu_seconds") * 1e6 / self.number("trickle_stanzas")
    }
}

pub(super) async fn thousand(effort: Effort) -> Result<Outcome, Skipped> {
    let seconds = if effort.is_quick() { 1 } else { WATCHED_SECONDS };
    let most = effort.count(STREAMS);
    let steps: &[usize] = if effort.is_quick() { &[1, most] } else { &STEPS };
    let tls = hold("tls", most, seconds)?;
    let ibb = hold("ibb", most, seconds)?;
    let steps = steps.iter().map(|count| hold("direct", *count, seconds));
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let ([one, ..], [.., fewer, many]) = (&steps[..], &steps[..]) else {
        unreachable!("there are at least two steps");
    };

    let mut rows = Vec::new();
    for (name, found) in [("S5B direct", many), ("IBB", &ibb)] {
        rows.push(opened(name, found, most));
        // In-band bytestreams have no sockets of their own, and the same TLS.
        for (when, key) in
            [("idle", "idle_bytes"), ("with a trickle", "trickle_bytes"), ("after a talk", "talked_bytes")]
        {
            let beyond = found.kib(key) - tls.kib("idle_bytes");
            rows.push(memory(&format!("memory of an end, {name}, {when}"), beyond));
        }
    }
    rows.push(idle(one, many, seconds));
    rows.push(linear(fewer, many));
    Ok(Outcome { rows, plots: vec![plot(&steps, &tls)] })
}

fn plot(steps: &[Found], tls: &Found) -> Plot {
    let line = |name: &str, bytes: &dyn Fn(&Found) -> f64| {
        let points = steps.iter().map(|found| (found.number("opened"), bytes(found) / 1024.0 / 1024.0));
        Line { name: name.to_owned(), points: points.collect() }
    };
    let of_tls = tls.number("idle_bytes") / tls.number("opened");
    Plot {
        name: "memory-by-streams",
        title: "Memory of both ends of so many streams in one process".to_owned(),
        x: "streams",
        y: "MiB",
        legend: SeriesLabelPosition::UpperLeft,
        lines: vec![
            line("with a trickle", &|found| found.number("trickle_bytes")),
            line("idle", &|found| found.number("idle_bytes")),
            line("of it, TLS and sockets", &|found| found.number("opened") * of_tls),
        ],
    }
}

fn opened(name: &str, found: &Found, asked: usize) -> Row {
    let took = found.number("burst_seconds");
    let mut row = Row::new(format!("{asked} at once, {name} ({took:.1} s)"), "streams", Goal::AtLeast(1.0))
        .against("asked for");
    row.push(found.number("opened"), asked as f64);
    row
}

fn memory(name: &str, kib: f64) -> Row {
    let mut row = Row::new(name, "KiB", Goal::AtMost(1.0)).against("allowed beyond TLS and sockets");
    row.push(kib, MEMORY_GOAL_KIB);
    row
}

fn idle(one: &Found, many: &Found, seconds: usize) -> Row {
    let percent = |found: &Found| found.number("idle_cpu_seconds") * 100.0 / seconds as f64;
    let mut row = Row::new("CPU of idle streams, beyond that of one", "% of a core", Goal::AtMost(1.0))
        .against("allowed as noise");
    row.push(percent(many) - percent(one), IDLE_GOAL_PERCENT);
    row
}

fn linear(fewer: &Found, many: &Found) -> Row {
    let name = format!("CPU by stanza, a trickle on {}", many.number("opened"));
    let mut row = Row::new(name, "µs", Goal::AtMost(LINEAR)).against("a trickle on a tenth of them");
    row.push(many.microseconds_by_stanza(), fewer.microseconds_by_stanza());
    row
}

/// In a process of its own.
fn hold(what: &str, count: usize, seconds: usize) -> Result<Found, Skipped> {
    let mock = Mock::start();
    let runner = std::env::current_exe().expect("a program knows where it is");
    let program = runner.with_file_name(format!("scale{}", std::env::consts::EXE_SUFFIX));
    if !program.is_file() {
        build()?;
    }
    let output = Command::new(&program)
        .args([what, &count.to_string(), &seconds.to_string(), &mock.server.addr().to_string()])
        .stderr(Stdio::inherit())
        .output()
        .expect("a program that was found can be started");
    let line = String::from_utf8_lossy(&output.stdout);
    let found = serde_json::from_str(&line)
        .map_err(|_| Skipped(format!("{} {what} {count}: {}", program.display(), output.status)))?;
    eprintln!("  {count} {what}: {found}");
    Ok(Found(found))
}

/// `cargo run` builds only the runner.
fn build() -> Result<(), Skipped> {
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    let mut command = Command::new(env!("CARGO"));
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    let built = command.args(["build", "--locked", "--bin", "scale", "--profile", profile]).status();
    match built {
        Ok(status) if status.success() => Ok(()),
        _ => Err(Skipped("the program that holds the streams can't be built".to_owned())),
    }
}
