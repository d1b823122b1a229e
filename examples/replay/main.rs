//! Replays a real LLM trace through enforcer and tracker, and compares what was read with what the store says afterwards.
//!
//! ```text
//! cargo run --release --example replay -- trace.csv --store postgres --database-url postgres://app@localhost/app
//! ```
//!
//! The trace is a CSV of `TIMESTAMP,ContextTokens,GeneratedTokens`, as in the Azure Public Dataset; times are UTC. Each row
//! is recorded as a successful chat message at its own time. Rows go round the tenants: row `i`, counted from 0, belongs to
//! tenant `RUN-(i mod N)`.
//!
//! Before, a row asks for its tokens. A tenant alone may use all; several may use a fair share of the trace each, so that
//! rows of those who have more are refused, unless `--limit` says otherwise.
//!
//! Each row carries the idempotency key `RUN/LINE`. Without `--run` each replay is a run of its own; with it, a second
//! replay of the same file finds every event already there, counts it as a duplicate, and changes nothing.
//!
//! With `--model`, each row is priced as one of that model, at the prices of its own time: the list prices that came with the
//! crate, or those of `--prices`, a file in the form of genai-prices. `cost_usd` is what the store says, and null if the price
//! is not known.
//!
//! It exits with another status than zero if a row is malformed or if the store disagrees. The file is read twice, first
//! to check it: nothing is recorded of one that has a malformed row.

mod admission;
mod database;
mod summary;
mod trace;

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use metertrail::cost::{PriceBook, PriceCatalogue, Prices};
use metertrail::quota::Decision;
use metertrail::{Ack, EventType, MemoryStore, Operation, Store, TenantId, UsageTracker};
use tokio::time::timeout;
use uuid::Uuid;

use crate::admission::{Admission, Refusals, TokenLimit, TraceClock};
use crate::database::Database;
use crate::summary::{StoreAnswer, Summary};
use crate::trace::{Hours, Request, Trace, hours_of, total_of};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

/// How many rows ask at the same time.
const UNDECIDED_MAX: usize = 64;
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
    /// How many tokens each tenant may use in all, or none [default: a fair share of the trace, if there are several]
    #[arg(long, value_name = "TOKENS")]
    limit: Option<TokenLimit>,
    /// The model that all events name, and are priced by
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// List prices in the form of genai-prices [default: those that came with the crate]
    #[arg(long, value_name = "PRICES.json", requires = "model")]
    prices: Option<PathBuf>,
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
    let limit = arguments.limit.map_or_else(|| TokenLimit::fair(&read, tenants.len()), Ok)?;
    // Declared before the tracker, so that a throw-away server outlives it.
    let database;
    let store: Arc<dyn Store> = match arguments.store {
        StoreName::Memory => Arc::new(MemoryStore::new()),
        StoreName::Postgres => {
            database = Database::find(arguments.database_url)?;
            Arc::new(database.store().await?)
        }
    };
    let clock = TraceClock::default();
    let admission = Admission::start(Arc::clone(&store), limit)?;
    admission.check_unused(&tenants).await?;
    let tracker = UsageTracker::builder(store).clock(clock.clone()).quotas(&admission.quotas);
    let tracker = match &arguments.model {
        Some(_) => tracker.prices(&price_book(arguments.prices.as_deref())?).start()?,
        None => tracker.start()?,
    };

    let bar = if arguments.json { ProgressBar::hidden() } else { progress_bar(read.events)? };
    let began = Instant::now();
    let mut replay = Replay {
        tracker: &tracker,
        clock,
        refusals: Refusals::default(),
        admitted: Hours::new(),
        csv: &arguments.csv,
        run: &run,
        tenants: &tenants,
        model: arguments.model.as_deref(),
        bar: &bar,
    };
    let duplicates = replay.record_all(&admission).await?;
    let report = tracker.shutdown(ACK_TIMEOUT).await?;
    admission.quotas.shutdown(ACK_TIMEOUT).await?;
    let took = began.elapsed();
    bar.finish_and_clear();
    if report.written + report.duplicates != read.events || !report.unwritten.is_empty() {
        return Err(format!("read {} events, but the tracker reports {report:?}", read.events).into());
    }

    let Replay { refusals, admitted, .. } = replay;
    let allowed = total_of(&admitted).events;
    let store = StoreAnswer::ask(&tracker, &tenants, &hours, &admitted).await?;
    let summary = Summary {
        read,
        duplicates,
        allowed,
        refused: read.events - allowed,
        refusals: refusals.into_vec(),
        run,
        cost_usd: Some(store.cost).filter(|_| store.unpriced == 0 && arguments.model.is_some()),
        store,
        seconds: took.as_secs_f64(),
        events_per_second: per_second(read.events, took)?,
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&summary)?);
    } else {
        print!("{summary}");
    }
    Ok(())
}

/// The list prices of a file, or those that came with the crate.
fn price_book(file: Option<&Path>) -> Result<PriceBook> {
    let Some(file) = file else { return Ok(PriceBook::bundled()?) };
    let json = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    Ok(PriceBook::new(Prices::new().catalogue(PriceCatalogue::from_json(&json)?)))
}

/// The tenants that have rows.
fn tenants(run: &str, tenants: NonZeroU32, events: u64) -> Result<Vec<TenantId>> {
    let tenants = u64::from(tenants.get()).min(events);
    Ok((0..tenants).map(|tenant| TenantId::new(format!("{run}-{tenant}"))).collect::<Result<_, _>>()?)
}

/// One way through the file.
struct Replay<'a> {
    tracker: &'a UsageTracker,
    clock: TraceClock,
    refusals: Refusals,
    /// What was admitted, hour by hour.
    admitted: Hours,
    csv: &'a Path,
    run: &'a str,
    tenants: &'a [TenantId],
    model: Option<&'a str>,
    bar: &'a ProgressBar,
}

impl Replay<'_> {
    /// Asks for every row, records it, and sees every acknowledgement: how many were duplicates.
    async fn record_all(&mut self, admission: &Admission) -> Result<u64> {
        let mut duplicates = 0;
        let mut waiting = VecDeque::with_capacity(UNACKNOWLEDGED_MAX);
        let rows = Trace::open(self.csv)?.zip(self.tenants.iter().cycle());
        let decisions = stream::iter(rows).map(|(request, tenant)| async move {
            let request: Request = request?;
            let decision = admission.ask(&request, tenant).await?;
            Ok::<_, Box<dyn Error>>((request, tenant, decision))
        });
        let mut decided = pin!(decisions.buffered(UNDECIDED_MAX));
        while let Some(row) = decided.next().await {
            let (request, tenant, decision) = row?;
            if waiting.len() == UNACKNOWLEDGED_MAX
                && let Some((line, ack)) = waiting.pop_front()
            {
                duplicates += self.acknowledged(line, ack).await?;
            }
            waiting.push_back((request.line, self.record(&request, tenant, decision)?));
        }
        for (line, ack) in waiting {
            duplicates += self.acknowledged(line, ack).await?;
        }
        Ok(duplicates)
    }

    /// What a service does after it asked: track and record.
    fn record(&mut self, request: &Request, tenant: &TenantId, decision: Decision) -> Result<Ack> {
        self.clock.set(request.at);
        self.refusals.note(request, tenant, &decision)?;
        let operation = self.operation(request, tenant)?;
        let Some(hold) = decision.into_hold() else {
            return Ok(operation.record_quota_exceeded());
        };
        trace::add(&mut self.admitted, request);
        Ok(operation.hold(hold).record_success(request.tokens))
    }

    fn operation(&self, request: &Request, tenant: &TenantId) -> Result<Operation> {
        let operation = self.tracker.track(tenant, EventType::ChatMessage);
        let operation = operation.idempotency_key(format!("{}/{}", self.run, request.line))?;
        Ok(match self.model {
            Some(model) => operation.model(model)?,
            None => operation,
        })
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
