//! What upkeep costs: five million events aggregated anew, and a day dropped beside a day deleted.
//!
//! The events lie on one day, of 1,000 tenants, written by SQL. `METERTRAIL_BENCH_EVENTS` changes their number.

mod report;

use std::time::{Duration, Instant};

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use metertrail::store::{ClaimRun, Claimed, DayDropped, DropDay, UpkeepStore};
use metertrail::testing::postgres::{TestPostgres, TestPostgresOptions};
use metertrail::{Label, Period, PostgresStore, Zone};
use tokio_postgres::Client;

use self::report::{Table, is_quick, median, verdict};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TENANTS: u32 = 1_000;
/// What is aimed at, in events a second.
const AIM: f64 = 500_000.0;

fn main() -> Outcome<()> {
    let events =
        std::env::var("METERTRAIL_BENCH_EVENTS").ok().map_or(Ok(5_000_000), |count| count.parse())?;
    let events = if is_quick() { 20_000 } else { events };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(events))
}

async fn run(events: u32) -> Outcome<()> {
    let options = TestPostgresOptions::new().fsync(true).setting("shared_buffers", "1GB");
    let server = TestPostgres::start(options.setting("max_wal_size", "8GB"))?;
    let database = server.create_database(None).await?;
    let store = PostgresStore::from_url(database.url())?.with_timeout(Duration::from_secs(600));
    store.migrate().await?;
    let (client, connection) = tokio_postgres::connect(database.url(), tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    let day: DateTime<Utc> = "2026-03-01T00:00:00Z".parse()?;

    let mut table = Table::new(
        format!("Upkeep of {events} events of {TENANTS} tenants in one day"),
        &["step", "time (s)", "events a second", "aim", ""],
    );
    write(&client, &store, day.date_naive(), events).await?;
    client.batch_execute("VACUUM (ANALYZE)").await?;
    let mut times = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let written = store.aggregate(Period::Day.range_at(day, Zone::UTC)).await?;
        times.push(begun.elapsed());
        println!("{written} roll-ups written in {:.2} s", begun.elapsed().as_secs_f64());
    }
    row(&mut table, events, "aggregate anew from events (median of three)", median(&times), Some(AIM));

    let other = day + TimeDelta::days(1);
    write(&client, &store, other.date_naive(), events).await?;
    let begun = Instant::now();
    drop_day(&store, day.date_naive()).await?;
    row(&mut table, events, "drop the day, looked at under the lock", begun.elapsed(), None);
    let begun = Instant::now();
    client.batch_execute("DELETE FROM metertrail.tenant_usage_realtime").await?;
    row(&mut table, events, "DELETE the same", begun.elapsed(), None);
    let begun = Instant::now();
    client.batch_execute("VACUUM metertrail.tenant_usage_realtime").await?;
    row(&mut table, events, "VACUUM after the DELETE", begun.elapsed(), None);
    table.print();
    Ok(())
}

fn row(table: &mut Table, events: u32, step: &str, time: Duration, aim: Option<f64>) {
    let rate = f64::from(events) / time.as_secs_f64();
    let aimed = aim.map_or(String::new(), |aim| format!("{aim:.0}"));
    let verdict = aim.map_or("", |aim| verdict(rate >= aim));
    table.row(&[&step, &format!("{:.2}", time.as_secs_f64()), &format!("{rate:.0}"), &aimed, &verdict]);
}

/// As an application's events are: of five types, mostly successes, with tokens, cost and latency.
async fn write(client: &Client, store: &PostgresStore, day: NaiveDate, events: u32) -> Outcome<()> {
    store.make_days(metertrail::store::DayTable::Usage, &[day]).await?;
    let statement = format!(
        "INSERT INTO metertrail.tenant_usage_realtime (tenant_id, id, \"timestamp\", event_type, outcome, tokens_input, \
            tokens_output, latency_us, cost_usd, model) \
         SELECT 'tenant-' || (number % {TENANTS}), \
            (left(metertrail.event_id_lower_bound(at)::text, 13) || '-7' || lpad(to_hex(number % 4096), 3, '0') || '-8' \
                || right(gen_random_uuid()::text, 16))::uuid, \
            at, (ARRAY['chat_message', 'embedding', 'search', 'api_call'])[1 + number % 4], \
            CASE WHEN number % 20 = 0 THEN 'failure' ELSE 'success' END, number % 2000, number % 500, \
            (random() ^ 4 * 5000000)::bigint, (number % 1000) / 1000000.0, 'gpt-4o' \
         FROM generate_series(1, {events}) AS number, \
            LATERAL (SELECT '{day}'::timestamp AT TIME ZONE 'UTC' + number * interval '86399 seconds' / {events} AS at) AS times"
    );
    client.batch_execute(&statement).await?;
    Ok(())
}

async fn drop_day(store: &PostgresStore, day: NaiveDate) -> Outcome<()> {
    let now = day.and_time(chrono::NaiveTime::MIN).and_utc() + TimeDelta::days(40);
    let label = Label::new("task", "bench")?;
    let lease_until = now + TimeDelta::hours(1);
    let claim = ClaimRun { task: label.clone(), due_at: now, now, lease_until, owner: label };
    let Claimed::Granted { fence, .. } = store.claim_run(&claim).await? else {
        return Err("the step was not granted".into());
    };
    let digest = store.day_digest(day).await?;
    let begun = Instant::now();
    let dropped = store.drop_day(&fence, &DropDay { day, digest, manifest: None, now }).await?;
    println!("{} events dropped, {:.2} s under the lock", digest.events, begun.elapsed().as_secs_f64());
    if dropped == DayDropped::Dropped {
        Ok(())
    } else {
        Err(format!("the day was not dropped: {dropped:?}").into())
    }
}
