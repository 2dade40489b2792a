//! Benchmarks: ours and each reference by turns, in one run on one machine, so that what is compared is ratios.

mod instructions;
mod simulate;

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
    /// Counts the instructions of fixed work, with valgrind, and compares them with the numbers that are kept.
    Instructions(instructions::Arguments),
    /// Shows what the window of in-band bytestreams reaches on simulated paths.
    Simulate(simulate::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().what {
        What::Instructions(arguments) => instructions::run(&arguments),
        What::Simulate(arguments) => simulate::run(&arguments),
    }
}
