//! Medians, and tables in Markdown that can be pasted into `docs/benchmarks.md`.
#![allow(dead_code, reason = "each bench uses a part")]

use std::fmt::Display;
use std::time::Duration;

/// Whether this is only to show that the bench runs: `cargo bench -- --test`, and `cargo test --benches`.
pub(crate) fn is_quick() -> bool {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    has("--test") || !has("--bench")
}

/// The middle one; of an even number the lower of the two in the middle. Zero of none.
pub(crate) fn median(durations: &[Duration]) -> Duration {
    let mut sorted = durations.to_vec();
    sorted.sort_unstable();
    sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default()
}

/// A count as a number to calculate with.
pub(crate) fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// How many a second, in thousands with one decimal place.
pub(crate) fn thousands_per_second(count: usize, time: Duration) -> String {
    format!("{:.1} k/s", number(count) / time.as_secs_f64() / 1_000.0)
}

/// How many times faster than the other, for the same work.
pub(crate) fn ratio(time: Duration, other: Duration) -> f64 {
    other.as_secs_f64() / time.as_secs_f64()
}

/// Whether an aim is met, in a word.
pub(crate) fn verdict(is_met: bool) -> &'static str {
    match (is_quick(), is_met) {
        (true, _) => "not measured",
        (false, true) => "met",
        (false, false) => "**missed**",
    }
}

/// A table, printed as Markdown.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: impl Into<String>, columns: &[&str]) -> Self {
        let head = columns.iter().map(ToString::to_string).collect();
        let rule = columns.iter().map(|_| "---".to_owned()).collect();
        Self { title: title.into(), rows: vec![head, rule] }
    }

    pub(crate) fn row(&mut self, cells: &[&dyn Display]) {
        self.rows.push(cells.iter().map(ToString::to_string).collect());
    }

    pub(crate) fn print(&self) {
        println!("\n### {}\n", self.title);
        if is_quick() {
            println!("(Only to show that it runs: the figures mean nothing.)\n");
        }
        for row in &self.rows {
            println!("| {} |", row.join(" | "));
        }
        println!();
    }
}
