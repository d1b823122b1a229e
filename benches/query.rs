//! What questions cost over five million events of 10,000 tenants in 30 days, beside raw SQL over the events.
//!
//! The events are written by the crate's own append and rolled up; then every question is asked with nothing left in the
//! journal, and again with 100,000 events in it. `METERTRAIL_BENCH_EVENTS` changes the number of events.

mod report;
mod workload;

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use metertrail::testing::postgres::{TestPostgres, TestPostgresOptions};
use metertrail::usage::TopConsumersQuery;
use metertrail::{EventQuery, Measure, Period, PostgresStore, Store, TenantId, TimeRange, UsageEvent, Zone};

use self::report::{Table, is_quick, median, verdict};
use self::workload::{Random, Tenants, event};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const DAYS: u64 = 30;
const DAY_US: u64 = 24 * 60 * 60 * 1_000_000;
const TENANTS: u32 = 10_000;
const BATCH: usize = 10_000;
const UNDRAINED: u64 = 100_000;

fn main() -> Outcome<()> {
    let events =
        std::env::var("METERTRAIL_BENCH_EVENTS").ok().map_or(Ok(5_000_000), |count| count.parse())?;
    let events = if is_quick() { 20_000 } else { events };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(events))
}

async fn run(events: u64) -> Outcome<()> {
    let options = TestPostgresOptions::new().fsync(true).setting("shared_buffers", "1GB");
    let options = options.setting("max_wal_size", "8GB").setting("work_mem", "32MB");
    let server = TestPostgres::start(options)?;
    let database = server.create_database(None).await?;
    let store = PostgresStore::from_url(database.url())?;
    store.migrate().await?;
    let tenants = Tenants::new(TENANTS)?;

    let started = Instant::now();
    write(&store, &tenants, events, 0..DAYS * DAY_US, 1).await?;
    let written = started.elapsed();
    let started = Instant::now();
    while store.roll_up(200_000).await? > 0 {}
    println!(
        "{events} events written by two writers in {:.1} s, rolled up in {:.1} s",
        written.as_secs_f64(),
        started.elapsed().as_secs_f64()
    );
    let (client, connection) = tokio_postgres::connect(database.url(), tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("VACUUM (ANALYZE)").await?;

    let mut table = Table::new(
        format!("Questions over {events} events of {TENANTS} tenants in {DAYS} days (medians, ms)"),
        &["question", "rolled up", "with 100,000 events in the journal", "aim", ""],
    );
    let questions = questions(&tenants)?;
    let mut rolled_up = Vec::new();
    for question in &questions {
        rolled_up.push(time(|| ask(&store, &question.kind)).await?);
    }
    write(&store, &tenants, UNDRAINED.min(events), (DAYS - 1) * DAY_US..DAYS * DAY_US, 2).await?;
    for (question, drained) in questions.iter().zip(rolled_up) {
        let undrained = time(|| ask(&store, &question.kind)).await?;
        let is_met = question.aim.is_none_or(|aim| drained.max(undrained) <= aim);
        let aim = question.aim.map_or("none".to_owned(), |aim| aim.as_millis().to_string());
        table.row(&[
            &question.name,
            &milliseconds(drained),
            &milliseconds(undrained),
            &aim,
            &verdict(is_met),
        ]);
    }
    table.print();
    compare_with_raw_sql(&client, &store, &tenants).await
}

/// Writes events at random times of a stretch, by two writers.
async fn write(
    store: &PostgresStore,
    tenants: &Tenants,
    events: u64,
    stretch: std::ops::Range<u64>,
    seed: u64,
) -> Outcome<()> {
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..2 {
        let (store, tenants, stretch) = (store.clone(), tenants.clone(), stretch.clone());
        let mut random = Random::new(seed * 2 + writer);
        writers.spawn(async move {
            // As in life, time goes on: each batch lies in a short stretch after the one before.
            let batches = events.div_ceil(2).div_ceil(u64::try_from(BATCH)?);
            let step = (stretch.end - stretch.start) / batches;
            let mut left = events / 2;
            for batch in 0..batches {
                let from = stretch.start + batch * step;
                let size = left.min(u64::try_from(BATCH)?);
                left -= size;
                let mut make = |_| {
                    let start_us = from + random.below(step.max(1));
                    event(&tenants, &mut random, start_us)
                };
                let events: Vec<UsageEvent> = (0..size).map(&mut make).collect::<metertrail::Result<_>>()?;
                store.append(&events, &[]).await?;
            }
            Outcome::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}

struct Question {
    name: &'static str,
    kind: Kind,
    aim: Option<Duration>,
}

enum Kind {
    Usage(TenantId, Vec<TimeRange>),
    Top(TopConsumersQuery),
    Summary(TimeRange),
    Events(EventQuery),
}

fn questions(tenants: &Tenants) -> Outcome<Vec<Question>> {
    let kathmandu = Zone::new("Asia/Kathmandu")?;
    let first = chrono::DateTime::from_timestamp(1_767_225_600, 0).ok_or("no such time")?;
    let last_day = first + Duration::from_secs((DAYS - 1) * 24 * 60 * 60);
    let month = TimeRange::new(first, last_day + Duration::from_secs(24 * 60 * 60))?;
    let week = TimeRange::new(month.end() - Duration::from_secs(7 * 24 * 60 * 60), month.end())?;
    let noon = last_day + Duration::from_secs(12 * 60 * 60);
    let day = Period::Day.range_at(noon, Zone::UTC);
    let hottest = tenants.ids().first().ok_or("no tenants")?.clone();
    let median = tenants.ids().get(5_000).ok_or("no tenants")?.clone();
    let usage = |tenant: &TenantId, range, period: Period, zone| -> Outcome<Kind> {
        Ok(Kind::Usage(tenant.clone(), period.ranges(range, zone)?))
    };
    let top = |range| -> Outcome<Kind> { Ok(Kind::Top(TopConsumersQuery::new(Measure::Tokens, range, 10)?)) };
    let (small, large) = (Some(Duration::from_millis(5)), Some(Duration::from_millis(50)));
    let question = |name, kind, aim| Question { name, kind, aim };
    Ok(vec![
        question("today, hottest tenant", usage(&hottest, day, Period::Day, Zone::UTC)?, small),
        question("today, median tenant", usage(&median, day, Period::Day, Zone::UTC)?, small),
        question(
            "today in Kathmandu, hottest tenant",
            Kind::Usage(hottest.clone(), vec![Period::Day.range_at(noon, kathmandu)]),
            small,
        ),
        question("30 days by day, hottest tenant", usage(&hottest, month, Period::Day, Zone::UTC)?, small),
        question(
            "30 days by day in Kathmandu, hottest tenant",
            usage(&hottest, month, Period::Day, kathmandu)?,
            small,
        ),
        question("7 days by hour, hottest tenant", usage(&hottest, week, Period::Hour, Zone::UTC)?, small),
        question("top 10 of a day", top(day)?, large),
        question("top 10 of a calendar month", top(Period::Month.range_at(noon, Zone::UTC))?, large),
        question("top 10 of 30 single days", top(month)?, large),
        question("summary of a day", Kind::Summary(day), None),
        question("summary of a calendar month", Kind::Summary(Period::Month.range_at(noon, Zone::UTC)), None),
        question("page of 100 events, hottest tenant", Kind::Events(EventQuery::new(hottest, month)), small),
    ])
}

async fn ask(store: &PostgresStore, kind: &Kind) -> metertrail::Result<()> {
    match kind {
        Kind::Usage(tenant, periods) => store.usage(tenant, periods).await.map(drop),
        Kind::Top(query) => store.top_consumers(query).await.map(drop),
        Kind::Summary(range) => store.summary(*range).await.map(drop),
        Kind::Events(query) => store.events(query).await.map(drop),
    }
}

/// The median of some runs after a first one that does not count.
async fn time<F: Future<Output = metertrail::Result<()>>>(call: impl Fn() -> F) -> Outcome<Duration> {
    let runs = NonZeroUsize::new(if is_quick() { 3 } else { 21 }).ok_or("no runs")?;
    call().await?;
    let mut durations = Vec::new();
    for _ in 0..runs.get() {
        let started = Instant::now();
        call().await?;
        durations.push(started.elapsed());
    }
    Ok(median(&durations))
}

/// The same answers from the raw events, in the same run.
async fn compare_with_raw_sql(
    client: &tokio_postgres::Client,
    store: &PostgresStore,
    tenants: &Tenants,
) -> Outcome<()> {
    let hottest = tenants.ids().first().ok_or("no tenants")?.as_str().to_owned();
    let by_day = format!(
        "SELECT date_trunc('day', \"timestamp\"), count(*), sum(tokens_input + tokens_output), sum(cost_usd), \
         percentile_disc(0.95) WITHIN GROUP (ORDER BY latency_us) \
         FROM metertrail.tenant_usage_realtime WHERE tenant_id = '{hottest}' GROUP BY 1"
    );
    let top = "SELECT tenant_id, sum(tokens_input + tokens_output) FROM metertrail.tenant_usage_realtime \
               GROUP BY 1 ORDER BY 2 DESC LIMIT 10";
    let mut table =
        Table::new("Beside raw SQL over the events (ms)", &["question", "raw", "ours", "raw / ours"]);
    let ours = questions(tenants)?;
    for (name, sql, own) in [
        ("30 days by day, hottest tenant", by_day.as_str(), "30 days by day, hottest tenant"),
        ("top 10 of 30 single days", top, "top 10 of 30 single days"),
    ] {
        let started = Instant::now();
        client.batch_execute(sql).await?;
        let raw = started.elapsed();
        let question = ours.iter().find(|question| question.name == own).ok_or("no such question")?;
        let ours = time(|| ask(store, &question.kind)).await?;
        let ratio = format!("{:.0}", report::ratio(ours, raw));
        table.row(&[&name, &milliseconds(raw), &milliseconds(ours), &ratio]);
    }
    table.print();
    Ok(())
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.2}", duration.as_secs_f64() * 1_000.0)
}
