//! What a decision costs, beside governor (keyed) and limitador (in memory) in one run, and what it takes on Postgres.
//!
//! ```text
//! cargo bench --features test-util --bench quota                # everything, about a minute
//! cargo bench --features test-util --bench quota -- memory      # only the comparison in memory
//! cargo bench --features test-util --bench quota -- postgres    # only Postgres, thrown away afterwards, fsync on
//! cargo bench --features test-util --bench quota -- --test      # whether it runs
//! perf record cargo bench --features test-util --bench quota -- memory profile id # or hold, handle
//! ```
//!
//! Prints Markdown. All contenders of a line take turns in short samples, so that a busy machine hits them alike: ratios
//! of a line's medians mean something, single times less.

mod memory;
mod peers;
mod postgres;
mod sample;

use std::error::Error;

/// What can go wrong here ends the bench.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |wanted: &str| arguments.iter().any(|argument| argument == wanted);
    let quick = has("--test");
    let everything = !has("memory") && !has("postgres");
    if everything || has("memory") {
        let profile = ["hold", "handle", "id"].into_iter().position(|way| has("profile") && has(way));
        memory::run(quick, profile.map_or(0, |way| way + 1))?;
    }
    if everything || has("postgres") {
        postgres::run(quick)?;
    }
    Ok(())
}
