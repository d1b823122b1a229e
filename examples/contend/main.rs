//! Many processes against one tenant's hard limits on Postgres, some of them killed: try to break the promise.
//!
//! ```text
//! cargo run --release --example contend -- --processes 8 --limit 100000 --kill 3 --json
//! ```
//!
//! The program starts copies of itself. Each enforces random amounts of three quotas at once and records what was admitted,
//! and writes each admission into a log of its own at the moment it gets it. When nothing is left, or the copies are dead,
//! the logs are added up and compared with the limit and with what the store says.

mod child;
mod report;

use std::error::Error;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use metertrail::PostgresStore;

use crate::report::Report;

/// Many processes against one tenant's hard limits.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// How many processes.
    #[arg(long, default_value_t = 8)]
    processes: u32,
    /// The limit of each of the three quotas.
    #[arg(long, default_value_t = 100_000)]
    limit: u64,
    /// How many of the processes are killed (SIGKILL) while they are at work.
    #[arg(long, default_value_t = 0)]
    kill: u32,
    /// The database; a throw-away one if it is not given here or in `DATABASE_URL`. It is migrated.
    #[arg(long)]
    database_url: Option<String>,
    /// Asks the store for every operation instead of keeping slices.
    #[arg(long)]
    direct: bool,
    /// Prints the report as JSON.
    #[arg(long)]
    json: bool,
    /// The tenant; a new one by default.
    #[arg(long)]
    tenant: Option<String>,
    /// Set for the copies.
    #[arg(long, hide = true)]
    log: Option<PathBuf>,
}

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.log.clone() {
        Some(log) => child::run(&arguments, &log).await.map(|()| true),
        None => parent(arguments).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("contend: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn parent(mut arguments: Arguments) -> Outcome<bool> {
    if arguments.kill > arguments.processes || arguments.processes == 0 || arguments.limit == 0 {
        return Err("--processes and --limit must be at least 1, --kill at most --processes".into());
    }
    let url = arguments.database_url.take().or_else(|| std::env::var("DATABASE_URL").ok());
    let throw_away = match &url {
        Some(_) => None,
        None => Some(metertrail::testing::postgres::TestPostgres::start(
            metertrail::testing::postgres::TestPostgresOptions::new().fsync(true),
        )?),
    };
    let database = match &throw_away {
        Some(server) => Some(server.create_database(None).await?),
        None => None,
    };
    let url = match (&database, url) {
        (Some(database), _) => database.url().to_owned(),
        (None, Some(url)) => url,
        (None, None) => return Err("there is no database".into()),
    };
    let store = PostgresStore::from_url(&url)?;
    store.migrate().await?;
    arguments.database_url = Some(url);
    let tenant = arguments.tenant.clone().unwrap_or_else(|| format!("contend-{}", uuid_like()));
    arguments.tenant = Some(tenant);

    let logs = tempfile::tempdir()?;
    let started = Instant::now();
    let mut children = Vec::new();
    for index in 0..arguments.processes {
        children.push(start(&arguments, &logs.path().join(format!("{index}.log")))?);
    }
    let killed = kill_some(&arguments, &mut children, logs.path()).await?;
    let mut failed = 0;
    for child in &mut children {
        let status = tokio::task::block_in_place(|| child.wait())?;
        failed += u32::from(!status.success());
    }
    if failed != killed {
        return Err(format!("{failed} processes failed, {killed} were killed").into());
    }
    let report = Report::of(&arguments, &store, logs.path(), killed, started.elapsed()).await?;
    report.print(arguments.json)?;
    Ok(report.holds())
}

fn start(arguments: &Arguments, log: &std::path::Path) -> Outcome<Child> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("--limit").arg(arguments.limit.to_string()).arg("--log").arg(log);
    command.arg("--tenant").arg(arguments.tenant.as_deref().unwrap_or_default());
    command.arg("--database-url").arg(arguments.database_url.as_deref().unwrap_or_default());
    if arguments.direct {
        command.arg("--direct");
    }
    Ok(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?)
}

/// Kills processes one by one, each when a further part of the limit is gone.
async fn kill_some(arguments: &Arguments, children: &mut [Child], logs: &std::path::Path) -> Outcome<u32> {
    let mut killed = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    for (turn, child) in (1_u64..).zip(children.iter_mut().take(usize::try_from(arguments.kill)?)) {
        let threshold = arguments.limit / 10 * 8 * turn / (u64::from(arguments.kill) + 1);
        while report::admitted(logs)?.tokens < threshold && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        if child.try_wait()?.is_none() {
            child.kill()?;
            killed += 1;
        }
    }
    Ok(killed)
}

/// A name that no other run has.
fn uuid_like() -> String {
    metertrail::quota::HolderId::random().to_string()
}
