//! Benchmarks: ours and each reference by turns, in one run on one machine, so that what is compared is ratios.

mod direct;
mod instructions;

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
    /// A direct stream, against the codec alone and against `tokio_xmpp::xmlstream` over the same kind of pipe.
    Direct(direct::Arguments),
    /// Counts the instructions of fixed work, with valgrind, and compares them with the numbers that are kept.
    Instructions(instructions::Arguments),
}

fn main() -> ExitCode {
    match Arguments::parse().what {
        What::Direct(arguments) => direct::run(&arguments),
        What::Instructions(arguments) => instructions::run(&arguments),
    }
}
