//! Pictures of what came out, as SVG.

use std::path::Path;

use plotters::prelude::*;

/// One picture.
pub(crate) struct Plot {
    /// The file's name, without its ending.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// The corner without lines.
    pub(crate) legend: SeriesLabelPosition,
    pub(crate) lines: Vec<Line>,
}

/// One line of it.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (760, 440);
/// Told apart by everybody, and in grey.
const COLOURS: [RGBColor; 3] = [RGBColor(0, 90, 181), RGBColor(220, 50, 32), RGBColor(110, 110, 110)];
const FONT: (&str, u32) = ("sans-serif", 15);
const TITLE: (&str, u32) = ("sans-serif", 18);

/// Room above and below the points.
const MARGIN: f64 = 1.3;

/// Draws it, with both axes logarithmic: what is compared differs by orders of magnitude.
pub(crate) fn draw(plot: &Plot, folder: &Path) {
    let path = folder.join(plot.name).with_extension("svg");
    try_draw(plot, &path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    println!("{}", path.display());
}

fn try_draw(plot: &Plot, path: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (xs, ys) = (range(plot, |point| point.0, 1.0), range(plot, |point| point.1, MARGIN));
    let mut chart = ChartBuilder::on(&root)
        .caption(&plot.title, TITLE)
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(xs.log_scale(), ys.log_scale())?;
    chart.configure_mesh().x_desc(plot.x).y_desc(plot.y).label_style(FONT).light_line_style(WHITE).draw()?;
    for (line, colour) in plot.lines.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        let series = LineSeries::new(line.points.iter().copied(), style).point_size(3);
        let key = move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style);
        chart.draw_series(series)?.label(&line.name).legend(key);
    }
    let mut labels = chart.configure_series_labels();
    labels.position(plot.legend.clone()).background_style(WHITE.mix(0.8)).label_font(FONT);
    labels.border_style(BLACK.mix(0.3)).draw()?;
    root.present()?;
    Ok(())
}

/// From the least to the most, with some room.
fn range(plot: &Plot, coordinate: impl Fn(&(f64, f64)) -> f64, margin: f64) -> std::ops::Range<f64> {
    let all = || plot.lines.iter().flat_map(|line| line.points.iter().map(&coordinate));
    let (least, most) = (all().fold(f64::INFINITY, f64::min), all().fold(f64::MIN_POSITIVE, f64::max));
    least / margin..most * margin
}
