//! Replays a real LLM trace through the tracker, and compares what was read with what the store says afterwards.
//!
//! ```text
//! cargo run --release --example replay -- trace.csv --store postgres --database-url postgres://app@localhost/app
//! ```
//!
//! The trace is a CSV of `TIMESTAMP,ContextTokens,GeneratedTokens`, as in the Azure Public Dataset; times are UTC. Each row
//! is recorded as a successful chat message at its own time. Rows go round the tenants: row `i`, counted from 0, belongs to
//! tenant `RUN-(i mod N)`.
//!
//! Each row carries the idempotency key `RUN/LINE`. Without `--run` each replay is a run of its own; with it, a second
//! replay of the same file finds every event already there, counts it as a duplicate, and changes nothing.
//!
//! It exits with another status than zero if a row is malformed or if the store disagrees. The file is read twice, first
//! to check it: nothing is recorded of one that has a malformed row.

mod database;
mod summary;
mod trace;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use metertrail::{Ack, EventType, Label, MemoryStore, Outcome, TenantId, UsageEvent, UsageTracker};
use tokio::time::timeout;
use uuid::Uuid;

use crate::database::Database;
use crate::summary::{StoreAnswer, Summary};
use crate::trace::{Request, Trace, hours_of, total_of};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// How many events may be on their way to the store: the reading waits for the oldest of them.
const UNACKNOWLEDGED_MAX: usize = 8_192;
/// The longest wait for one acknowledgement.
const ACK_TIMEOUT: Duration = Duration::from_secs(60);

/// Replays a trace of LLM requests and checks that the store counts every token of it.
#[derive(Debug, Parser)]
#[command(name = "replay")]
struct Arguments {
    /// The trace: TIMESTAMP,ContextTokens,GeneratedTokens
    csv: PathBuf,
    /// Where the events are kept
    #[arg(long, value_enum, default_value_t = StoreName::Memory)]
    store: StoreName,
    /// The Postgres, which is migrated [default: that of the variable `DATABASE_URL`]
    #[arg(long, value_name = "URL")]
    database_url: Option<String>,
    /// Among how many tenants the rows go round
    #[arg(long, value_name = "N", default_value = "1")]
    tenants: NonZeroU32,
    /// The model that all events name
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// The name of the run: replayed again, the same file with the same options counts nothing twice [default: a new one]
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// Print one JSON object and no progress bar
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum StoreName {
    Memory,
    Postgres,
}

#[tokio::main]
async fn main() -> ExitCode {
    match replay(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", Chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn replay(arguments: Arguments) -> Result<()> {
    if arguments.database_url.is_some() && matches!(arguments.store, StoreName::Memory) {
        return Err("--database-url goes with --store postgres".into());
    }
    let hours = hours_of(&arguments.csv)?;
    let read = total_of(&hours);
    let run = arguments.run.clone().unwrap_or_else(|| format!("replay-{}", Uuid::now_v7().simple()));
    let tenants = tenants(&run, arguments.tenants, read.events)?;
    let model = arguments.model.as_ref().map(|model| Label::new("model", model)).transpose()?;
    // Declared before the tracker, so that a throw-away server outlives it.
    let database;
    let tracker = match arguments.store {
        StoreName::Memory => UsageTracker::start(MemoryStore::new())?,
        StoreName::Postgres => {
            database = Database::find(arguments.database_url)?;
            UsageTracker::start(database.store().await?)?
        }
    };

    let bar = if arguments.json { ProgressBar::hidden() } else { progress_bar(read.events)? };
    let began = Instant::now();
    let replay =
        Replay { tracker: &tracker, csv: &arguments.csv, run: &run, tenants: &tenants, model, bar: &bar };
    let duplicates = replay.record_all().await?;
    let report = tracker.shutdown(ACK_TIMEOUT).await?;
    let took = began.elapsed();
    bar.finish_and_clear();
    if report.written + report.duplicates != read.events || !report.unwritten.is_empty() {
        return Err(format!("read {} events, but the tracker reports {report:?}", read.events).into());
    }

    let summary = Summary {
        run,
        read,
        duplicates,
        allowed: read.events,
        refused: 0,
        cost_usd: None,
        seconds: took.as_secs_f64(),
        events_per_second: per_second(read.events, took)?,
        store: StoreAnswer::ask(&tracker, &tenants, &hours).await?,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print!("{summary}");
    }
    Ok(())
}

/// The tenants that have rows.
fn tenants(run: &str, tenants: NonZeroU32, events: u64) -> Result<Vec<TenantId>> {
    let tenants = u64::from(tenants.get()).min(events);
    Ok((0..tenants).map(|tenant| TenantId::new(format!("{run}-{tenant}"))).collect::<Result<_, _>>()?)
}

/// One way through the file.
struct Replay<'a> {
    tracker: &'a UsageTracker,
    csv: &'a Path,
    run: &'a str,
    tenants: &'a [TenantId],
    model: Option<Label>,
    bar: &'a ProgressBar,
}

impl Replay<'_> {
    /// Records every row and sees every acknowledgement: how many were duplicates.
    async fn record_all(&self) -> Result<u64> {
        let mut duplicates = 0;
        let mut waiting = VecDeque::with_capacity(UNACKNOWLEDGED_MAX);
        for (request, tenant) in Trace::open(self.csv)?.zip(self.tenants.iter().cycle()) {
            let request = request?;
            if waiting.len() == UNACKNOWLEDGED_MAX
                && let Some((line, ack)) = waiting.pop_front()
            {
                duplicates += self.acknowledged(line, ack).await?;
            }
            waiting.push_back((request.line, self.tracker.record(self.event(&request, tenant)?)));
        }
        for (line, ack) in waiting {
            duplicates += self.acknowledged(line, ack).await?;
        }
        Ok(duplicates)
    }

    fn event(&self, request: &Request, tenant: &TenantId) -> Result<UsageEvent> {
        let &Request { line, at, tokens } = request;
        let mut event = UsageEvent::new(tenant.clone(), EventType::ChatMessage, Outcome::Success, at)?;
        event.tokens = tokens;
        event.model.clone_from(&self.model);
        event.idempotency_key = Some(Label::new("run", format!("{}/{line}", self.run))?);
        Ok(event)
    }

    async fn acknowledged(&self, line: u64, ack: Ack) -> Result<u64> {
        let place = format!("{}:{line}", self.csv.display());
        match timeout(ACK_TIMEOUT, ack).await {
            Ok(Ok(recorded)) => {
                self.bar.inc(1);
                Ok(recorded.duplicate.into())
            }
            Ok(Err(error)) => Err(format!("{place} was not recorded: {}", Chain(&error)).into()),
            Err(_) => {
                let health = self.tracker.health();
                let cause = health.last_error.map(|error| Chain(&error).to_string()).unwrap_or_default();
                Err(format!("{place} was not recorded in {ACK_TIMEOUT:?}: {cause}").into())
            }
        }
    }
}

fn progress_bar(events: u64) -> Result<ProgressBar> {
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} events, {per_sec}, {eta} to go")?;
    Ok(ProgressBar::new(events).with_style(style))
}

fn per_second(events: u64, took: Duration) -> Result<u64> {
    let per_second = u128::from(events) * 1_000_000 / took.as_micros().max(1);
    Ok(per_second.try_into()?)
}

/// An error and its causes.
struct Chain<'a>(&'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
