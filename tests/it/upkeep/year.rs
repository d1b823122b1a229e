//! A year of eight processes on one database, by a clock that the test moves.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use metertrail::archive::Archive;
use metertrail::store::{DayTable, RunStatus, Store, UpkeepStore};
use metertrail::time::{Period, TimeRange, Zone};
use metertrail::upkeep::{Keep, Retention, StepOutcome, Upkeep};
use metertrail::usage::Latency;
use metertrail::{
    Cost, EventQuery, EventType, Label, Outcome, PageSize, TenantId, TokenUsage, UsageEvent, UsageMetrics,
};
use rust_decimal::Decimal;

use crate::ledger::{self, Dice, count};

const CHILD: &str = "METERTRAIL_YEAR_CHILD";
const PROCESSES: usize = 8;
const TENANTS: u64 = 100;
const DAYS: i64 = 365;
const TASKS: [&str; 4] = ["aggregate", "archive", "partitions", "prune"];
/// Days of events that are in the database at most: those that are kept, today, and those that were made ahead.
const HOT_DAYS: i64 = 30 + 1 + 7;

fn begin() -> DateTime<Utc> {
    "2026-01-01T00:00:00Z".parse().unwrap()
}

/// A process of upkeep, which does what is due at each instant that it is told, and says what became of it.
struct Keeper {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Keeper {
    fn start(order: &str) -> Self {
        let name = format!(
            "{}::eight_processes_keep_a_year_exactly_once",
            module_path!().split_once("::").unwrap().1
        );
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &name, "--nocapture"])
            .env(CHILD, order)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, orders, answers }
    }

    fn tell(&mut self, now: DateTime<Utc>) {
        writeln!(self.orders, "{now}").unwrap();
    }

    /// The tasks that it did.
    fn answer(&mut self) -> Vec<String> {
        loop {
            let mut line = String::new();
            assert!(self.answers.read_line(&mut line).unwrap() > 0, "a process of upkeep ended");
            if let Some(done) = line.trim_end().strip_prefix("did:") {
                return done.split_whitespace().map(str::to_owned).collect();
            }
            assert!(!line.starts_with("failed:"), "{line}");
        }
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn keep_until_told(order: &str) {
    let (directory, url) = order.split_once('\n').unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Arc::new(ledger::store(url));
    let archive = Archive::local(directory).unwrap();
    let keep = Keep { quarter_hours_days: Some(40), hours_days: Some(60), ..Keep::default() };
    let upkeep = Upkeep::builder(Arc::clone(&store))
        .retention(Retention::new(keep).runs_days(500))
        .task(archive.archiving(store))
        .build()
        .unwrap();
    for line in std::io::stdin().lines() {
        let reports = runtime.block_on(upkeep.run_due(line.unwrap().parse().unwrap()));
        let mut done = Vec::new();
        for report in reports {
            match report.outcome {
                StepOutcome::Succeeded { .. } => done.push(report.task.to_string()),
                StepOutcome::Done | StepOutcome::Running { .. } => {}
                other => println!("failed: {} {other:?}", report.task),
            }
        }
        println!("did:{}", done.join(" "));
    }
}

/// What the tenants do in a day, and what they did before and is told only now.
fn events_of(day: i64, dice: &mut Dice) -> Vec<UsageEvent> {
    (0..60)
        .map(|number| {
            let back = if number % 20 == 0 { dice.below(25) as i64 } else { 0 };
            let day = (day - back).max(0);
            let at =
                begin() + TimeDelta::days(day) + TimeDelta::microseconds(dice.below(86_400_000_000) as i64);
            let tenant_id = TenantId::new(format!("tenant-{}", dice.below(TENANTS))).unwrap();
            let of = EventType::BUILT_IN[dice.below(4) as usize].clone();
            let outcome = Outcome::ALL[dice.below(5) as usize];
            let mut event = UsageEvent::new(tenant_id, of, outcome, at).unwrap();
            event.tokens = TokenUsage::reported(dice.below(2_000), dice.below(500)).unwrap();
            event.cost = Some(Cost::usd(Decimal::new(dice.below(1_000_000) as i64, 9)).unwrap());
            event.latency = Some(Latency::new(Duration::from_micros(dice.below(9_000_000))).unwrap());
            if number % 6 == 0 {
                event.idempotency_key = Some(Label::new("key", event.id().to_string()).unwrap());
            }
            event
        })
        .collect()
}

#[test]
fn eight_processes_keep_a_year_exactly_once() {
    if let Ok(order) = std::env::var(CHILD) {
        return keep_until_told(&order);
    }
    let begun = Instant::now();
    let mut dice = Dice::printed("a year");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(ledger::database());
    let directory = tempfile::tempdir().unwrap();
    let order = format!("{}\n{}", directory.path().display(), database.url());
    let mut keepers: Vec<Keeper> = (0..PROCESSES).map(|_| Keeper::start(&order)).collect();
    let (store, client) = (ledger::store(database.url()), runtime.block_on(ledger::client(database.url())));
    let mut log: Vec<UsageEvent> = Vec::new();
    for day in 0..DAYS {
        let today = (begin() + TimeDelta::days(day)).date_naive();
        runtime.block_on(async {
            if day > 0 {
                let days = store.days(DayTable::Usage).await.unwrap();
                let ahead: Vec<NaiveDate> = today.iter_days().take(7).collect();
                assert!(ahead.iter().all(|day| days.contains(day)), "not made ahead on {today}: {days:?}");
            }
            let events = events_of(day, &mut dice);
            store.append(&events, &[]).await.unwrap();
            log.extend(events);
        });
        // At a time of the day that is nobody's step.
        let now = begin() + TimeDelta::days(day) + TimeDelta::seconds(36_000 + dice.below(40_000) as i64);
        for keeper in &mut keepers {
            keeper.tell(now);
        }
        let mut done: Vec<String> = keepers.iter_mut().flat_map(Keeper::answer).collect();
        done.sort();
        assert_eq!(done, TASKS, "each step is done by one of the processes, on {today}");
        if day % 30 == 29 {
            runtime.block_on(check_bounds(&client, day));
        }
    }
    drop(keepers);
    runtime.block_on(async {
        check_runs(&store).await;
        check_totals(&store, directory.path(), &log).await;
    });
    println!("a year of {PROCESSES} processes: {} events in {:?}", log.len(), begun.elapsed());
}

/// What is hot is what the last days brought.
async fn check_bounds(client: &tokio_postgres::Client, day: i64) {
    let partitions =
        "SELECT count(*) FROM pg_inherits WHERE inhparent = 'metertrail.tenant_usage_realtime'::regclass";
    let partitions = count(client, partitions).await;
    assert!(partitions <= HOT_DAYS, "day {day}: {partitions} partitions");
    for (table, rows_max) in [
        ("tenant_usage_realtime", HOT_DAYS * 60),
        ("usage_idempotency_keys", HOT_DAYS * 10),
        ("usage_journal", 0),
        ("tenant_usage_metrics_quarter_hourly", 42 * 60),
        ("tenant_usage_metrics_hourly", 62 * 60),
        ("usage_restoring", 0),
    ] {
        let rows = count(client, &format!("SELECT count(*) FROM metertrail.{table}")).await;
        assert!(rows <= rows_max, "day {day}: {table} has {rows} rows");
    }
}

/// One run a step, at the first attempt, and all succeeded.
async fn check_runs(store: &impl UpkeepStore) {
    for task in TASKS {
        let runs = store.task_runs(&Label::new("task", task).unwrap(), 1_000).await.unwrap();
        assert_eq!(runs.len(), DAYS as usize, "{task}");
        assert!(runs.windows(2).all(|pair| pair[0].due_at > pair[1].due_at), "{task}: a step twice");
        let is_first =
            |run: &metertrail::store::TaskRun| run.status == RunStatus::Succeeded && run.attempt == 1;
        assert!(runs.iter().all(is_first), "{task}");
    }
    let archive = store.task_states().await.unwrap().remove(1);
    assert_eq!(archive.last_success_due_at, Some(archive.latest.due_at));
}

/// Every day and month of every tenant is what the log says, and every event is in one of the two places.
async fn check_totals(store: &metertrail::PostgresStore, directory: &Path, log: &[UsageEvent]) {
    let year = TimeRange::new(begin(), begin() + TimeDelta::days(DAYS)).unwrap();
    let archive = Archive::local(directory).unwrap();
    let mut expected: BTreeMap<(TenantId, Period, DateTime<Utc>), UsageMetrics> = BTreeMap::new();
    for event in log {
        for period in [Period::Day, Period::Month] {
            let start = period.range_at(event.occurred_at(), Zone::UTC).start();
            expected.entry((event.tenant_id.clone(), period, start)).or_default().add(event);
        }
    }
    let mut archived = 0;
    for number in 0..TENANTS {
        let tenant_id = TenantId::new(format!("tenant-{number}")).unwrap();
        for period in [Period::Day, Period::Month] {
            let periods = period.ranges(year, Zone::UTC).unwrap();
            let usage = store.usage(&tenant_id, &periods).await.unwrap();
            for (range, metrics) in periods.iter().zip(usage) {
                let sums = expected.remove(&(tenant_id.clone(), period, range.start())).unwrap_or_default();
                assert_eq!(metrics, sums, "{tenant_id} {range:?}");
            }
        }
        if number % 25 != 0 {
            continue;
        }
        // Event by event, of some.
        let mut events: Vec<_> = log.iter().filter(|event| event.tenant_id == tenant_id).cloned().collect();
        events.sort_by_key(|event| std::cmp::Reverse(event.id()));
        let query = EventQuery::new(tenant_id.clone(), year).page_size(PageSize::new(1_000).unwrap());
        let page = archive.events(store, &query).await.unwrap();
        assert_eq!(page.items, events);
        archived += events.len() - store.events(&query).await.unwrap().items.len();
    }
    assert!(expected.is_empty());
    assert!(archived > 0);
    let closed = store.closed_days(DayTable::Usage).await.unwrap();
    let mut in_files = closed.iter().map(|day| day.digest.events).sum::<u64>();
    for day in store.days(DayTable::Usage).await.unwrap() {
        in_files += store.day_digest(day).await.unwrap().events;
    }
    assert_eq!((in_files, closed.len() as i64), (log.len() as u64, DAYS - 1 - 30));
}
