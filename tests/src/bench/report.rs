//! What was measured: a table for the terminal, and everything in one JSON file.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Value, json};

use super::bars::{BARS, Bar};
use super::growth::Growth;
use super::machine::Machine;
use super::plan::Plan;
use super::plot;
use super::rounds::{Series, median};
use super::stage::SETTINGS;
use crate::binaries::target_folder;

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "is", content = "why")]
enum Verdict {
    /// It cleared its bar.
    Ok,
    /// It did not.
    Missed,
    /// There is our figure, and nothing to compare it with.
    Alone,
    /// It was not measured.
    NotMeasured(String),
    /// Something went wrong on the way.
    Failed(String),
}

impl Verdict {
    fn text(&self) -> String {
        match self {
            Self::Ok => "ok".to_owned(),
            Self::Missed => "MISSED".to_owned(),
            Self::Alone => "no peer".to_owned(),
            Self::NotMeasured(why) => format!("not measured: {why}"),
            Self::Failed(why) => format!("FAILED: {why}"),
        }
    }

    fn is_good(&self) -> bool {
        matches!(self, Self::Ok | Self::Alone | Self::NotMeasured(_))
    }
}

/// A row that was measured, or was to be.
#[derive(Clone, Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    bar: Bar,
    ours: Option<f64>,
    other: Option<f64>,
    verdict: Verdict,
    /// Each round of what was compared.
    rounds: Value,
}

impl Row {
    fn ratio(&self) -> Option<f64> {
        Some(self.ours? / self.other.filter(|other| *other > 0.0)?)
    }
}

/// All that a run has measured so far.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    machine: Machine,
    setup: Value,
    rows: Vec<Row>,
    /// How figures grow.
    pub(super) growth: Growth,
    /// Sections that were broken off.
    broken_off: BTreeMap<&'static str, String>,
}

impl Report {
    pub(super) fn new(plan: &Plan) -> Self {
        let settings: BTreeMap<&str, &str> = SETTINGS.into_iter().collect();
        let setup = json!({
            "settings": settings,
            "rounds": plan.rounds(),
            "seconds": plan.round().as_secs(),
            "quick": plan.arguments.quick,
            "load": "wrk, one thread, on the same machine",
            "postgresql": "private, on the same machine, fsync on",
        });
        let rows = BARS.iter().filter(|bar| plan.wants(bar.name)).map(|bar| Row {
            bar: *bar,
            ours: None,
            other: None,
            verdict: Verdict::Failed("it was not its turn".to_owned()),
            rounds: Value::Null,
        });
        let (machine, rows) = (Machine::look(), rows.collect());
        Self { machine, setup, rows, growth: Growth::default(), broken_off: BTreeMap::new() }
    }

    /// Notes a row of two series of rounds; errors in any of them fail it.
    pub(super) fn compare(
        &mut self,
        name: &str,
        ours: &Series,
        other: Option<&Series>,
        figure: impl Fn(&Series) -> f64,
    ) {
        let errors = std::iter::once(ours).chain(other).find_map(Series::errors);
        self.note(name, figure(ours), other.map(figure));
        let Some(row) = self.row(name) else { return };
        row.rounds = json!({ "ours": ours, "other": other });
        if let Some(errors) = errors {
            row.verdict = Verdict::Failed(format!("{errors:?}"));
        } else if row.ours == Some(0.0) || row.other == Some(0.0) {
            row.verdict = Verdict::Failed("no answers at all".to_owned());
        }
    }

    /// Notes a row by the medians of its rounds.
    pub(super) fn rounds(&mut self, name: &str, ours: Vec<f64>, other: Option<Vec<f64>>) {
        self.note(name, median(ours.clone()), other.clone().map(median));
        let Some(row) = self.row(name) else { return };
        row.rounds = json!({ "ours": ours, "other": other });
    }

    /// Notes a row of plain figures.
    pub(super) fn note(&mut self, name: &str, ours: f64, other: Option<f64>) {
        let Some(row) = self.row(name) else { return };
        (row.ours, row.other) = (Some(ours), other);
        row.verdict = match row.bar.limit.is_kept(ours, other) {
            Some(true) => Verdict::Ok,
            Some(false) => Verdict::Missed,
            None => Verdict::Alone,
        };
    }

    /// Notes why a row has no figures.
    pub(super) fn not_measured(&mut self, name: &str, why: &str) {
        if let Some(row) = self.row(name) {
            row.verdict = Verdict::NotMeasured(why.to_owned());
        }
    }

    /// Notes that something went wrong with a row.
    pub(super) fn fail(&mut self, name: &str, why: &str) {
        if let Some(row) = self.row(name) {
            row.verdict = Verdict::Failed(why.to_owned());
        }
    }

    /// Notes that a section ended early: its rows without figures have failed.
    pub(super) fn break_off(&mut self, section: &'static str, rows: &[&str], why: &str) {
        self.broken_off.insert(section, why.to_owned());
        for name in rows {
            if self.row(name).is_some_and(|row| row.ours.is_none()) {
                self.fail(name, "broken off");
            }
        }
    }

    /// Whether nothing was missed and nothing went wrong.
    pub(super) fn is_good(&self) -> bool {
        self.broken_off.is_empty() && self.rows.iter().all(|row| row.verdict.is_good())
    }

    pub(super) fn print(&self) {
        println!("\n{}\n", self.machine);
        let heading = ["row", "what", "unit", "ours", "other", "ratio", "bar", "against", ""];
        let mut lines = vec![heading.map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        for line in aligned(&lines) {
            println!("{line}");
        }
        self.growth.print();
    }

    /// Writes `bench/report.json` and `bench/plot.svg` in the target folder.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let folder = target_folder().join("bench");
        std::fs::create_dir_all(&folder)?;
        let write = |name: &str, text: String| -> anyhow::Result<PathBuf> {
            let path = folder.join(name);
            std::fs::write(&path, text)?;
            Ok(path)
        };
        let report = write("report.json", serde_json::to_string_pretty(self)?)?;
        println!("\n{}", report.display());
        match plot::svg(&self.growth.create) {
            Some(plot) => println!("{}", write("plot.svg", plot)?.display()),
            // One of a run before does not belong to this report.
            None => drop(std::fs::remove_file(folder.join("plot.svg"))),
        }
        Ok(())
    }

    fn row(&mut self, name: &str) -> Option<&mut Row> {
        self.rows.iter_mut().find(|row| row.bar.name == name)
    }
}

fn cells(row: &Row) -> [String; 9] {
    let figure = |figure: Option<f64>| figure.map_or_else(|| "-".to_owned(), number);
    let ratio = row.ratio().map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.2}"));
    [
        row.bar.name.to_owned(),
        row.bar.what.to_owned(),
        row.bar.unit.to_owned(),
        figure(row.ours),
        figure(row.other),
        ratio,
        row.bar.limit.text(),
        row.bar.against.to_owned(),
        row.verdict.text(),
    ]
}

/// Four digits that mean something.
pub(super) fn number(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.3}"),
    }
}

/// Columns of equal width; those with figures stand to the right.
pub(super) fn aligned<const N: usize>(lines: &[[String; N]]) -> Vec<String> {
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
    let widths: Vec<usize> = (0..N).map(|column| width(column).unwrap_or(0)).collect();
    let is_figure = |text: &str| text == "-" || text.parse::<f64>().is_ok();
    let figures: Vec<bool> = (0..N)
        .map(|column| lines.iter().skip(1).all(|line| is_figure(&line[column])) && lines.len() > 1)
        .collect();
    let line = |line: &[String; N]| {
        let cells = line.iter().enumerate().map(|(column, text)| match figures[column] {
            true => format!("{text:>width$}", width = widths[column]),
            false => format!("{text:<width$}", width = widths[column]),
        });
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    lines.iter().map(line).collect()
}
