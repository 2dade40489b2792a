//! Instructions of fixed work, which do not depend on what else the machine does: a regression shows even where nothing
//! could be timed.

use std::{
    collections::BTreeMap,
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use crate::workloads::{self, Workload};

/// How much worse than the kept number is a failure.
const WORSE: f64 = 1.10;

/// How much better makes the kept number worth renewing.
const BETTER: f64 = 0.90;

/// What to count.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Keep what was counted as the numbers to compare with
    #[arg(long)]
    update: bool,
    /// Only these
    names: Vec<String>,
}

/// One process does the same work a number of times; two of them with different numbers give what once costs.
#[derive(Debug, clap::Args)]
pub(crate) struct Repeat {
    name: String,
    times: usize,
}

pub(crate) fn repeat(arguments: &Repeat) -> ExitCode {
    match workloads::all().into_iter().find(|workload| workload.name == arguments.name) {
        Some(workload) => {
            for _ in 0..arguments.times {
                std::hint::black_box((workload.work)());
            }
            ExitCode::SUCCESS
        }
        None => {
            eprintln!("there is no work called {:?}", arguments.name);
            ExitCode::from(2)
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    match compare(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("instructions were not counted: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether nothing got worse.
fn compare(arguments: &Arguments) -> io::Result<bool> {
    let mut kept = kept()?;
    let mut is_good = true;
    println!("{:32} {:>14} {:>14} {:>7}", "instructions for", "kept", "now", "ratio");
    for workload in workloads::all() {
        if !arguments.names.is_empty() && !arguments.names.contains(&workload.name) {
            continue;
        }
        let now = count(&workload)?;
        let before = kept.insert(workload.name.clone(), now);
        let ratio = before.map(|before| now as f64 / before.max(1) as f64);
        let verdict = match ratio {
            None if arguments.update => "new",
            None => "NO NUMBER IS KEPT (--update)",
            Some(ratio) if ratio > WORSE => "WORSE",
            Some(ratio) if ratio < BETTER => "better: --update",
            Some(_) => "",
        };
        is_good &= ratio.is_some_and(|ratio| ratio <= WORSE);
        let shown = |number: Option<u64>| number.map_or("-".to_owned(), |number| number.to_string());
        let ratio = ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.3}"));
        println!("{:32} {:>14} {now:>14} {ratio:>7} {verdict}", workload.name, shown(before));
    }
    if arguments.update {
        fs::write(file(), format!("{}\n", serde_json::to_string_pretty(&kept)?))?;
        return Ok(true);
    }
    Ok(is_good)
}

/// What once costs: what comes before and after the work is in both runs.
fn count(workload: &Workload) -> io::Result<u64> {
    let [few, many] = [1, 1 + workload.times];
    let difference = instructions(workload, many)?.saturating_sub(instructions(workload, few)?);
    Ok(difference / workload.times as u64)
}

fn instructions(workload: &Workload, times: usize) -> io::Result<u64> {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(env::current_exe()?)
        .args(["repeat", &workload.name, &times.to_string()])
        .output()
        .map_err(|error| io::Error::new(error.kind(), format!("valgrind: {error}")))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let collected = said.lines().find_map(|line| line.split_once("Collected :")?.1.trim().parse().ok());
    match collected {
        Some(collected) if output.status.success() => Ok(collected),
        _ => Err(io::Error::other(format!("{}: valgrind gave no number:\n{said}", workload.name))),
    }
}

fn kept() -> io::Result<BTreeMap<String, u64>> {
    match fs::read(file()) {
        Ok(text) => Ok(serde_json::from_slice(&text)?),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

fn file() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("instructions.json")
}
