//! A plot of throughput and of the 99th percentile over connections, as SVG.

use std::fmt::Write;

use super::growth::OfConnections;
use super::report::number;
use super::rounds::Series;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 340.0;
/// The drawing area of one panel, and where the panels begin.
const PANEL: (f64, f64) = (330.0, 220.0);
const LEFTS: [f64; 2] = [70.0, 490.0];
const TOP: f64 = 50.0;
/// Lines across each panel.
const STEPS: u32 = 4;

const OURS: (&str, &str) = ("holdfast", "#1a5fb4");
const PEER: (&str, &str) = ("peer", "#8a8a8a");

/// One panel: what it shows of each run.
struct Panel {
    left: f64,
    title: &'static str,
    figure: fn(&Series) -> f64,
}

/// The plot; `None` if there is nothing to plot.
pub(super) fn svg(points: &[OfConnections]) -> Option<String> {
    if points.len() < 2 {
        return None;
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\" fill=\"#333\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    let panels = [
        Panel { left: LEFTS[0], title: "creates per second", figure: Series::rate },
        Panel { left: LEFTS[1], title: "99th percentile (ms)", figure: Series::p99_ms },
    ];
    for panel in &panels {
        // Writing to a string cannot fail.
        let _ = draw(&mut svg, panel, points);
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn draw(svg: &mut String, panel: &Panel, points: &[OfConnections]) -> std::fmt::Result {
    let runs = points.iter().flat_map(|point| std::iter::once(&point.ours).chain(&point.peer));
    let top = round_up(runs.map(panel.figure).fold(0.0, f64::max));
    let (left, bottom, right) = (panel.left, TOP + PANEL.1, panel.left + PANEL.0);
    let x = |index: usize| left + PANEL.0 * index as f64 / (points.len() - 1) as f64;
    let y = |figure: f64| bottom - PANEL.1 * figure / top;
    writeln!(
        svg,
        "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">{}</text>",
        TOP - 16.0,
        panel.title
    )?;
    for step in 0..=STEPS {
        let figure = top * f64::from(step) / f64::from(STEPS);
        let (at, label) = (y(figure), if step == 0 { "0".to_owned() } else { number(figure) });
        writeln!(
            svg,
            "<path d=\"M{left} {at:.1}H{right}\" stroke=\"#ddd\"/>\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            left - 8.0,
            at + 4.0
        )?;
    }
    for (index, point) in points.iter().enumerate() {
        let (at, below, label) = (x(index), bottom + 18.0, point.connections);
        writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{label}</text>")?;
    }
    let (middle, below) = (left + PANEL.0 / 2.0, bottom + 38.0);
    writeln!(svg, "<text x=\"{middle}\" y=\"{below}\" text-anchor=\"middle\">connections</text>")?;
    let ours = points.iter().enumerate().map(|(i, point)| (x(i), y((panel.figure)(&point.ours))));
    let peer = points.iter().enumerate();
    let peer = peer.filter_map(|(i, point)| Some((x(i), y((panel.figure)(point.peer.as_ref()?)))));
    line(svg, PEER, right, TOP - 16.0, &peer.collect::<Vec<_>>())?;
    line(svg, OURS, right - 50.0, TOP - 16.0, &ours.collect::<Vec<_>>())
}

/// A line with its points, and its name where the legend is.
fn line(
    svg: &mut String,
    (name, colour): (&str, &str),
    right: f64,
    above: f64,
    points: &[(f64, f64)],
) -> std::fmt::Result {
    if points.is_empty() {
        return Ok(());
    }
    let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
        path.join(" ")
    )?;
    for (x, y) in points {
        writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>")?;
    }
    writeln!(
        svg,
        "<text x=\"{right}\" y=\"{above}\" text-anchor=\"end\" fill=\"{colour}\">{name}</text>"
    )
}

/// The next figure of which a quarter is easily read: 1, 2, 4 or 8 times a power of ten.
fn round_up(figure: f64) -> f64 {
    if figure <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(figure.log10().floor());
    let steps = [1.0, 2.0, 4.0, 8.0].into_iter().map(|step| step * power);
    steps.into_iter().find(|step| *step >= figure).unwrap_or(10.0 * power)
}

#[cfg(test)]
mod tests {
    use super::super::wrk::Run;
    use super::*;

    #[test]
    fn an_axis_ends_at_a_figure_that_is_easily_read() {
        assert_eq!(
            [0.0, 1.0, 37.0, 81.0, 15_000.0].map(round_up),
            [1.0, 1.0, 40.0, 100.0, 20_000.0]
        );
    }

    #[test]
    fn a_plot_has_a_line_for_each_side_and_none_without_points() {
        assert_eq!(svg(&[]), None);
        let of = |requests| Series {
            runs: vec![Run { requests, seconds: 1.0, p99_ms: 2.0, ..Run::default() }],
        };
        let point = |connections| OfConnections { connections, ours: of(9), peer: Some(of(5)) };
        let plot = svg(&[point(1), point(4)]).unwrap();
        assert_eq!(plot.matches("<polyline").count(), 4);
    }
}
