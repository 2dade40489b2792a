//! Benchmarks: ours and each reference by turns, in one run on one machine, so that what is compared is ratios.

mod bare;
mod instructions;
mod measures;
mod plots;
mod relay;
mod rounds;
mod run;
mod servers;
mod simulate;
mod streams;
mod table;
mod workloads;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks of jingle-xmlstream.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Runs the end-to-end benchmarks, and says whether the goals are met.
    Run(run::Arguments),
    /// Counts the instructions of fixed work, with valgrind, and compares them with the numbers that are kept.
    Instructions(instructions::Arguments),
    /// Does one of those works so many times, and nothing else.
    #[command(hide = true)]
    Repeat(instructions::Repeat),
    /// Shows what the window of in-band bytestreams reaches on simulated paths.
    Simulate(simulate::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().what {
        What::Run(arguments) => run::run(&arguments),
        What::Instructions(arguments) => instructions::run(&arguments),
        What::Repeat(arguments) => instructions::repeat(&arguments),
        What::Simulate(arguments) => simulate::run(&arguments),
    }
}
