//! The end-to-end benchmarks: ours and each reference by turns, one table, and an exit code.

use std::{path::PathBuf, process::ExitCode};

use crate::{
    measures::{self, Measure},
    plots,
    rounds::{Effort, Size},
    table,
};

/// What to measure, and how thoroughly.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How often each is measured; the median counts.
    #[arg(long, default_value_t = 7)]
    rounds: usize,
    /// Only what has one of these names, or a name that begins with one.
    #[arg(long, num_args = 1.., value_name = "NAME")]
    only: Vec<String>,
    /// What takes minutes, too.
    #[arg(long)]
    slow: bool,
    /// Everything once and with little work, to see that the benchmarks work. Goals are shown, and do not count.
    #[arg(long)]
    quick: bool,
    /// A folder for pictures.
    #[arg(long, value_name = "FOLDER")]
    plots: Option<PathBuf>,
    /// Names what there is, and measures nothing.
    #[arg(long)]
    list: bool,
}

impl Arguments {
    fn wants(&self, measure: &Measure) -> bool {
        if self.only.is_empty() {
            return self.slow || !measure.slow;
        }
        self.only.iter().any(|name| measure.name.starts_with(name.as_str()))
    }

    fn effort(&self) -> Effort {
        if self.quick {
            Effort { rounds: 1, size: Size::Quick }
        } else {
            Effort { rounds: self.rounds, size: Size::Full }
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    if arguments.list {
        return list();
    }
    let wanted: Vec<_> = measures::ALL.iter().filter(|measure| arguments.wants(measure)).collect();
    if wanted.is_empty() {
        eprintln!("there is nothing with a name like {:?}; see --list", arguments.only);
        return ExitCode::FAILURE;
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let (mut rows, mut skipped, mut plots) = (Vec::new(), Vec::new(), Vec::new());
    for measure in wanted {
        eprintln!("measuring {}: {}", measure.name, measure.about);
        match runtime.block_on((measure.run)(arguments.effort())) {
            Ok(outcome) => {
                rows.extend(outcome.rows);
                plots.extend(outcome.plots);
            }
            Err(why) => skipped.push(format!("{} is skipped: {why}", measure.name)),
        }
    }
    table::print(&rows);
    skipped.iter().for_each(|line| println!("{line}"));
    if let Some(folder) = &arguments.plots {
        std::fs::create_dir_all(folder).expect("the folder for pictures can be made");
        plots.iter().for_each(|plot| plots::draw(plot, folder));
    }
    conclude(&rows, skipped.len(), arguments.quick)
}

fn list() -> ExitCode {
    for measure in measures::ALL {
        let slow = if measure.slow { " (slow)" } else { "" };
        println!("{:16}{}{slow}", measure.name, measure.about);
    }
    ExitCode::SUCCESS
}

fn conclude(rows: &[table::Row], skipped: usize, quick: bool) -> ExitCode {
    let missed: Vec<_> = rows.iter().filter(|row| !row.is_met()).collect();
    if missed.is_empty() && skipped == 0 && !rows.is_empty() {
        println!("\nall goals are met");
        return ExitCode::SUCCESS;
    }
    if skipped > 0 {
        println!("\n{skipped} measures were skipped, and their goals with them");
    }
    println!("\n{} of {} rows do not meet their goals", missed.len(), rows.len());
    if quick { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
