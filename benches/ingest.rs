//! What ingest costs: exactly-once appends with roll-ups running beside them, compared with the fastest that Postgres
//! can do (`COPY` of the same rows into a bare table) and with the naive way (one `INSERT` an event).
//!
//! The ways take turns, round by round, on one private server that syncs to disk, so that whatever else the machine does
//! meets all of them; that is why this bench has a loop of its own and not criterion's, which measures one after the
//! other. Ratios are those of the medians. `METERTRAIL_BENCH_EVENTS` is the number of events of a round.

mod report;
mod workload;

use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use metertrail::store::Appended;
use metertrail::testing::postgres::{TestPostgres, TestPostgresOptions};
use metertrail::usage::ErrorMessage;
use metertrail::{
    Cost, FlushPolicy, Label, PostgresStore, Store, TokenClass, TokenSource, UsageEvent, UsageTracker,
};
use rust_decimal::Decimal;
use serde_json::Value;
use tokio::runtime::Builder;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use self::report::{Table, is_quick, median, number, ratio, thousands_per_second, verdict};
use self::workload::{Random, Tenants, event};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const TENANTS: u32 = 10_000;
/// At least so much of the rate of the bare `COPY`.
const COPY_SHARE_AIM: f64 = 0.25;
/// At least so many times the rate of the naive way, on one connection.
const NAIVE_FACTOR_AIM: f64 = 20.0;
/// At least so many events a second are rolled up.
const ROLL_UP_AIM: f64 = 150_000.0;
const ROLL_UP_STEPS: u32 = 50_000;
const TIMEOUT: Duration = Duration::from_secs(120);

const COLUMNS: &str = "tenant_id, id, \"timestamp\", event_type, outcome, tokens_input, tokens_cache_read, \
    tokens_cache_write, tokens_output, tokens_reasoning, tokens_audio_input, tokens_audio_cache_read, \
    tokens_audio_output, tokens_unclassified, tokens_estimated, latency_us, status_code, cost_usd, model, provider, \
    session_id, user_id, idempotency_key, measures, metadata, error_message";

/// How much is written in a round, and how often.
#[derive(Clone, Copy)]
struct Scale {
    rounds: usize,
    events: usize,
    naive_events: usize,
    drained_events: usize,
}

fn main() -> Outcome<()> {
    let scale = if is_quick() {
        Scale { rounds: 1, events: 2_000, naive_events: 100, drained_events: 2_000 }
    } else {
        let events = std::env::var("METERTRAIL_BENCH_EVENTS").ok().map(|count| count.parse()).transpose()?;
        let events = events.unwrap_or(100_000);
        Scale { rounds: 5, events, naive_events: 2_000, drained_events: 2 * events }
    };
    let options = TestPostgresOptions::new()
        .fsync(true)
        .setting("shared_buffers", "1GB")
        .setting("max_wal_size", "16GB")
        .setting("checkpoint_timeout", "30min");
    let server = TestPostgres::start(options)?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(run(&server, scale))
}

async fn run(server: &TestPostgres, scale: Scale) -> Outcome<()> {
    let database = server
        .database_from("migrated", async |url| PostgresStore::from_url(&url)?.migrate().await.map(drop))
        .await?;
    let mut bench = Bench::new(database.url()).await?;
    // Makes the partition of the day, which all events are of.
    let first = bench.events(1)?;
    bench.append_all(&first, 1, 1).await?;
    bench.drain(scale).await?;
    let title = format!("Ingest, {} rounds of {} events, medians", scale.rounds, scale.events);
    let columns = [
        "batch",
        "connections",
        "append",
        "of bare COPY",
        "of naive",
        "until rolled up",
        "tracker",
        "bare COPY",
        "naive",
    ];
    let mut table = Table::new(title, &columns);
    let (mut is_share_met, mut is_factor_met) = (true, true);
    for batch in [1_000, 10_000] {
        for connections in [1, 2, 4] {
            let mut times = Times::default();
            for _ in 0..scale.rounds {
                bench.round(scale, batch.min(scale.events), connections, &mut times).await?;
            }
            let (append, copy) = (median(&times.append), median(&times.copy));
            // The naive way writes fewer events: its time is scaled to the same number.
            let naive = median(&times.naive).mul_f64(number(scale.events) / number(scale.naive_events));
            let (share, factor) = (ratio(append, copy), ratio(append, naive));
            is_share_met &= share >= COPY_SHARE_AIM;
            is_factor_met &= connections > 1 || factor >= NAIVE_FACTOR_AIM;
            let rate = |time| thousands_per_second(scale.events, time);
            table.row(&[
                &batch,
                &connections,
                &rate(append),
                &format!("{share:.2}"),
                &format!("{factor:.0} ×"),
                &rate(median(&times.drained)),
                &rate(median(&times.tracker)),
                &rate(copy),
                &rate(naive),
            ]);
        }
    }
    table.print();
    println!("Aim: at least {COPY_SHARE_AIM} of the bare COPY everywhere: {}.", verdict(is_share_met));
    println!(
        "Aim: at least {NAIVE_FACTOR_AIM} × the naive way on one connection: {}.",
        verdict(is_factor_met)
    );
    Ok(())
}

/// How long each round took, by way.
#[derive(Default)]
struct Times {
    append: Vec<Duration>,
    drained: Vec<Duration>,
    tracker: Vec<Duration>,
    copy: Vec<Duration>,
    naive: Vec<Duration>,
}

struct Bench {
    store: PostgresStore,
    clients: Vec<Client>,
    tenants: Tenants,
    random: Random,
    clock_us: u64,
}

impl Bench {
    async fn new(url: &str) -> Outcome<Self> {
        let clients = try_join_all((0..4).map(|_| connect(url))).await?;
        clients[0]
            .batch_execute(
                "CREATE TABLE bare AS SELECT * FROM metertrail.tenant_usage_realtime WITH NO DATA; \
                 CREATE TABLE naive (LIKE metertrail.tenant_usage_realtime INCLUDING ALL)",
            )
            .await?;
        Ok(Self {
            store: PostgresStore::connect(url).await?.with_timeout(TIMEOUT),
            clients,
            tenants: Tenants::new(TENANTS)?,
            random: Random::new(1),
            clock_us: 0,
        })
    }

    /// New events, one a millisecond.
    fn events(&mut self, count: usize) -> Outcome<Vec<UsageEvent>> {
        let mut next = || {
            self.clock_us += 1_000;
            event(&self.tenants, &mut self.random, self.clock_us)
        };
        Ok((0..count).map(|_| next()).collect::<metertrail::Result<_>>()?)
    }

    async fn round(
        &mut self,
        scale: Scale,
        batch: usize,
        connections: usize,
        times: &mut Times,
    ) -> Outcome<()> {
        let events = self.events(scale.events)?;
        times.copy.push(self.copy(&events, batch, connections).await?);
        let (append, drained) = self.append(&events, batch, connections).await?;
        times.append.push(append);
        times.drained.push(drained);
        let events = self.events(scale.events)?;
        times.tracker.push(self.track(events, batch, connections).await?);
        let events = self.events(scale.naive_events)?;
        times.naive.push(self.insert(&events, connections).await?);
        self.clients[0].batch_execute("TRUNCATE bare; TRUNCATE naive").await?;
        Ok(())
    }

    /// Appends while the roll-up runs: the time until all is appended, and until all is rolled up.
    async fn append(
        &self,
        events: &[UsageEvent],
        batch: usize,
        connections: usize,
    ) -> Outcome<(Duration, Duration)> {
        let is_done = Arc::new(AtomicBool::new(false));
        let started = Instant::now();
        let roll_up = tokio::spawn(roll_up_until(self.store.clone(), Arc::clone(&is_done)));
        self.append_all(events, batch, connections).await?;
        let appended = started.elapsed();
        is_done.store(true, Ordering::Release);
        roll_up.await??;
        Ok((appended, started.elapsed()))
    }

    async fn append_all(&self, events: &[UsageEvent], batch: usize, connections: usize) -> Outcome<()> {
        let next = AtomicUsize::new(0);
        let batches: Vec<&[UsageEvent]> = events.chunks(batch).collect();
        let (next, batches) = (&next, &batches);
        try_join_all((0..connections).map(|_| async move {
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                let appended = self.store.append(batch, &[]).await?;
                assert!(appended.iter().all(|outcome| *outcome == Appended::New), "every event is new");
            }
            Outcome::Ok(())
        }))
        .await?;
        Ok(())
    }

    /// The same through a tracker, which rolls up as well: the time until all is written.
    async fn track(&self, events: Vec<UsageEvent>, batch: usize, connections: usize) -> Outcome<Duration> {
        let flush = FlushPolicy::default().with_events(batch).with_concurrency(connections);
        let buffer_events_max = u32::try_from(events.len())?.try_into()?;
        let tracker = UsageTracker::builder(self.store.clone())
            .flush(flush)
            .buffer_events_max(buffer_events_max)
            .start()?;
        let count = u64::try_from(events.len())?;
        let started = Instant::now();
        for event in events {
            drop(tracker.record(event));
        }
        let report = tracker.shutdown(TIMEOUT).await?;
        let elapsed = started.elapsed();
        assert_eq!(report.written, count, "every event is written once");
        while self.store.roll_up(ROLL_UP_STEPS).await? > 0 {}
        Ok(elapsed)
    }

    /// `COPY` into a table without keys, indexes and checks, a transaction a batch.
    async fn copy(&self, events: &[UsageEvent], batch: usize, connections: usize) -> Outcome<Duration> {
        let statement = format!("COPY bare ({COLUMNS}) FROM STDIN (FORMAT binary)");
        let types = types();
        let next = AtomicUsize::new(0);
        let batches: Vec<&[UsageEvent]> = events.chunks(batch).collect();
        let started = Instant::now();
        let (statement, types, next, batches) = (&statement, &types, &next, &batches);
        try_join_all(self.clients[..connections].iter().map(|client| async move {
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                let mut writer = pin!(BinaryCopyInWriter::new(client.copy_in(statement).await?, types));
                for event in *batch {
                    writer.as_mut().write(&Row::new(event)?.values()).await?;
                }
                writer.finish().await?;
            }
            Outcome::Ok(())
        }))
        .await?;
        Ok(started.elapsed())
    }

    /// A prepared `INSERT` and a commit an event.
    async fn insert(&self, events: &[UsageEvent], connections: usize) -> Outcome<Duration> {
        let places: Vec<String> = (1..=types().len()).map(|place| format!("${place}")).collect();
        let statement = format!("INSERT INTO naive ({COLUMNS}) VALUES ({})", places.join(", "));
        let clients = &self.clients[..connections];
        let statements = try_join_all(clients.iter().map(|client| client.prepare(&statement))).await?;
        let next = AtomicUsize::new(0);
        let next = &next;
        let started = Instant::now();
        try_join_all(clients.iter().zip(&statements).map(|(client, statement)| async move {
            while let Some(event) = events.get(next.fetch_add(1, Ordering::Relaxed)) {
                client.execute(statement, &Row::new(event)?.values()).await?;
            }
            Outcome::Ok(())
        }))
        .await?;
        Ok(started.elapsed())
    }

    /// How fast the roll-up alone drains what batches of 1,000 have left: into new rows, then into rows that are there.
    async fn drain(&mut self, scale: Scale) -> Outcome<()> {
        let columns = ["metrics rows", "events", "journal rows", "events/s", "journal rows/s"];
        let mut table = Table::new("Roll-up alone", &columns);
        let mut slowest = f64::INFINITY;
        for rows in ["new", "there", "there"] {
            let events = self.events(scale.drained_events)?;
            self.append_all(&events, 1_000, 2).await?;
            let mut steps = 0;
            let started = Instant::now();
            loop {
                match self.store.roll_up(ROLL_UP_STEPS).await? {
                    0 => break,
                    folded => steps += usize::try_from(folded)?,
                }
            }
            let elapsed = started.elapsed();
            slowest = slowest.min(number(events.len()) / elapsed.as_secs_f64());
            let rate = |count| thousands_per_second(count, elapsed);
            table.row(&[&rows, &events.len(), &steps, &rate(events.len()), &rate(steps)]);
        }
        table.print();
        println!("Aim: at least {ROLL_UP_AIM} events/s: {}.", verdict(slowest >= ROLL_UP_AIM));
        Ok(())
    }
}

async fn connect(url: &str) -> Outcome<Client> {
    let (client, connection) = Config::from_str(url)?.connect(NoTls).await?;
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// Rolls up until it is told that nothing more comes, and nothing is left.
async fn roll_up_until(store: PostgresStore, is_done: Arc<AtomicBool>) -> metertrail::Result<()> {
    loop {
        let was_done = is_done.load(Ordering::Acquire);
        if store.roll_up(ROLL_UP_STEPS).await? == 0 {
            if was_done {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// The types of [`COLUMNS`].
fn types() -> Vec<Type> {
    let mut types = vec![Type::TEXT, Type::UUID, Type::TIMESTAMPTZ, Type::TEXT, Type::TEXT];
    types.extend([const { Type::INT8 }; 9]);
    types.extend([Type::BOOL, Type::INT8, Type::INT2, Type::NUMERIC]);
    types.extend([const { Type::TEXT }; 5]);
    types.extend([Type::JSONB, Type::JSONB, Type::TEXT]);
    types
}

/// An event as a row, as anybody would write it.
struct Row<'a> {
    tenant_id: &'a str,
    id: Uuid,
    timestamp: DateTime<Utc>,
    event_type: &'a str,
    outcome: &'a str,
    tokens: [i64; 9],
    tokens_estimated: bool,
    latency_us: Option<i64>,
    status_code: Option<i16>,
    cost_usd: Option<Decimal>,
    labels: [Option<&'a str>; 5],
    measures: Option<Value>,
    metadata: Option<Value>,
    error_message: Option<&'a str>,
}

impl<'a> Row<'a> {
    /// The events of the workload have no measures and metadata.
    fn new(event: &'a UsageEvent) -> Outcome<Self> {
        let mut tokens = [0; 9];
        for (slot, class) in tokens.iter_mut().zip(TokenClass::ALL) {
            *slot = i64::try_from(event.tokens.get(class))?;
        }
        let labels =
            [&event.model, &event.provider, &event.session_id, &event.user_id, &event.idempotency_key];
        Ok(Self {
            tenant_id: event.tenant_id.as_str(),
            id: event.id().as_uuid(),
            timestamp: event.occurred_at(),
            event_type: event.event_type.as_str(),
            outcome: event.outcome.as_str(),
            tokens,
            tokens_estimated: event.tokens.source() == TokenSource::Estimated,
            latency_us: event.latency.map(|latency| i64::try_from(latency.as_micros())).transpose()?,
            status_code: event.status_code.map(|code| i16::try_from(code.as_u16())).transpose()?,
            cost_usd: event.cost.map(Cost::as_decimal),
            labels: labels.map(|label| label.as_ref().map(Label::as_str)),
            measures: None,
            metadata: None,
            error_message: event.error_message.as_ref().map(ErrorMessage::as_str),
        })
    }

    fn values(&self) -> [&(dyn ToSql + Sync); 26] {
        [
            &self.tenant_id,
            &self.id,
            &self.timestamp,
            &self.event_type,
            &self.outcome,
            &self.tokens[0],
            &self.tokens[1],
            &self.tokens[2],
            &self.tokens[3],
            &self.tokens[4],
            &self.tokens[5],
            &self.tokens[6],
            &self.tokens[7],
            &self.tokens[8],
            &self.tokens_estimated,
            &self.latency_us,
            &self.status_code,
            &self.cost_usd,
            &self.labels[0],
            &self.labels[1],
            &self.labels[2],
            &self.labels[3],
            &self.labels[4],
            &self.measures,
            &self.metadata,
            &self.error_message,
        ]
    }
}
