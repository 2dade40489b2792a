//! The window of in-band bytestreams on simulated paths: a table of what it reaches, and the picture in the manual.

use std::{error::Error, path::PathBuf, process::ExitCode, time::Duration};

use jingle_xmlstream::internals::simulator::{
    Rule, Scenario,
    grid::{Cell, ONE_BLOCK, RATES, ROUND_TRIPS, WATCHED},
};
use plotters::prelude::*;

/// What to do with what comes out.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Write the picture into this folder, too.
    #[arg(long)]
    plots: Option<PathBuf>,
}

const OURS: Rule = Rule::Adaptive(8 * 1024 * 1024);

/// What is drawn, and as what.
const RULES: [(Rule, &str, RGBColor); 5] = [
    (ONE_BLOCK, "1 × 4096", RGBColor(150, 150, 150)),
    (Rule::Fixed { window: 16, block: 4096 }, "16 × 4096", RGBColor(230, 159, 0)),
    (Rule::Fixed { window: 16, block: 65535 }, "16 × 65535", RGBColor(86, 180, 233)),
    (Rule::Fixed { window: 128, block: 65535 }, "128 × 65535", RGBColor(0, 114, 178)),
    (OURS, "adaptive", RGBColor(213, 94, 0)),
];

pub(crate) fn run(arguments: &Arguments) -> ExitCode {
    let met = print_table();
    if let Some(folder) = &arguments.plots {
        let file = folder.join("ibb-window.svg");
        if let Err(error) = draw(&file) {
            eprintln!("{}: {error}", file.display());
            return ExitCode::FAILURE;
        }
        println!("{}", file.display());
    }
    if met { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether all goals are met.
fn print_table() -> bool {
    println!("Goodput in kB/s over {} s of virtual time, the beginning included.", WATCHED.as_secs());
    println!(
        "Waits: how long another stanza of the bot takes, in s; of one block of 4096 bytes in flight, and ours.\n"
    );
    println!(
        "round trip  server    best fixed            goodput     ours  ratio  of one   wait   ours  ratio  goal"
    );
    let cells: Vec<Cell> = ROUND_TRIPS
        .iter()
        .flat_map(|round_trip| RATES.map(|rate| Cell::measure(Duration::from_millis(*round_trip), rate)))
        .collect();
    cells.iter().for_each(print);
    cells.iter().all(Cell::is_met)
}

fn print(cell: &Cell) {
    let Rule::Fixed { window, block } = cell.best else { return };
    let best = format!("{window} × {block}");
    println!(
        "{:>7} ms {:>7} kB/s  {best:<12} {:>15.1} {:>8.1} {:>6.2} {:>7.2} {:>6.2} {:>6.2} {:>6.2}  {}",
        cell.round_trip.as_millis(),
        cell.rate / 1e3,
        cell.best_goodput / 1e3,
        cell.goodput / 1e3,
        cell.goodput / cell.best_goodput,
        cell.goodput / cell.one_block_goodput,
        cell.one_block_wait,
        cell.wait,
        cell.wait / cell.one_block_wait,
        if cell.is_met() { "met" } else { "NOT MET" },
    );
}

/// Goodput through a fast server, and what others wait behind a slow one, by round trip.
fn draw(file: &PathBuf) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(file, (900, 380)).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(450);
    let goodput = |round_trip, rule| {
        let watched = Duration::from_secs(60);
        let scenario = Scenario::new(round_trip, 50e6, rule, watched);
        scenario.run().goodput(0, Duration::from_secs(30), watched) / 1e6
    };
    let wait = |round_trip, rule| {
        let scenario = Scenario {
            other_stanzas: Some(Duration::from_millis(1370)),
            ..Scenario::new(round_trip, 3e3, rule, WATCHED)
        };
        scenario.run().mean_wait()
    };
    panel(&left, "Goodput, MB/s, server with 50 MB/s", 0.005..60.0, goodput)?;
    panel(&right, "Another stanza takes, s, server with 3 kB/s", 0.5..4000.0, wait)?;
    area.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend, plotters::coord::Shift>,
    title: &str,
    range: std::ops::Range<f64>,
    measure: impl Fn(Duration, Rule) -> f64,
) -> Result<(), Box<dyn Error>> {
    const ROUND_TRIPS: [u64; 8] = [5, 10, 20, 50, 100, 200, 300, 400];
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 15))
        .margin(8)
        .x_label_area_size(36)
        .y_label_area_size(46)
        .build_cartesian_2d((5.0..400.0).log_scale(), range.log_scale())?;
    chart.configure_mesh().disable_mesh().x_desc("round trip, ms").draw()?;
    for (rule, name, color) in RULES {
        let width = if rule == OURS { 4 } else { 2 };
        let style = color.stroke_width(width);
        let points = ROUND_TRIPS.map(|ms| (ms as f64, measure(Duration::from_millis(ms), rule).max(1e-3)));
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE)
        .draw()?;
    Ok(())
}
