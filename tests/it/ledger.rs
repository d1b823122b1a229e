//! The books of a database, told by plain SQL over the events: what the store's answers are held against.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use chrono::{DateTime, Utc};
use metertrail::testing::postgres::{TestDatabase, TestPostgres};
use metertrail::time::{Period, TimeRange, Zone};
use metertrail::usage::{TokenClass, UsageMetrics};
use metertrail::{PostgresStore, Result, Store, TenantId};
use rust_decimal::Decimal;
use tokio::time::{Instant, timeout};
use tokio_postgres::{Client, NoTls, Row};

/// A database of one's own, migrated.
pub(crate) async fn database() -> TestDatabase {
    let migrate = async |url: String| {
        let store = PostgresStore::from_url(&url)?;
        store.migrate().await?;
        drop(store);
        // The template must have no connections: the pool's are closed by its drop, but not at once.
        let admin = client(TestPostgres::shared()?.url()).await;
        let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        let name = url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).nth(1)).unwrap_or_default();
        until("nobody is connected to the template", async || {
            admin.query_one(others, &[&name]).await.unwrap().get::<_, i64>(0) == 0
        })
        .await;
        Ok(())
    };
    TestPostgres::shared().unwrap().database_from("ledger", migrate).await.unwrap()
}

/// A database of one's own with nothing in it.
pub(crate) async fn empty_database() -> TestDatabase {
    TestPostgres::shared().unwrap().create_database(None).await.unwrap()
}

pub(crate) fn store(url: &str) -> PostgresStore {
    PostgresStore::from_url(url).unwrap()
}

pub(crate) async fn client(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

pub(crate) async fn count(client: &Client, statement: &str) -> i64 {
    client.query_one(statement, &[]).await.unwrap().get(0)
}

/// Fails the test instead of hanging it.
pub(crate) async fn within<T>(what: &str, limit: Duration, work: impl Future<Output = T>) -> T {
    timeout(limit, work).await.unwrap_or_else(|_| panic!("not within {limit:?}: {what}"))
}

/// Looks again and again until it holds, for 30 seconds at most.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Tries as the tracker does: what is transient is tried again, 100 times at most.
pub(crate) async fn persistently<T, F>(mut call: impl FnMut() -> F) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let mut tries = 0;
    loop {
        match call().await {
            Err(error) if error.is_transient() && tries < 100 => tries += 1,
            other => return other,
        }
    }
}

pub(crate) async fn roll_up_all(store: &dyn Store) -> u64 {
    let mut folded = 0;
    loop {
        match persistently(|| store.roll_up(1_000)).await.unwrap() {
            0 => return folded,
            more => folded += more,
        }
    }
}

/// Waits until the sessions of others (of killed processes, say) have ended, committed or not.
pub(crate) async fn until_alone(client: &Client) {
    let others = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> \
                  pg_backend_pid() AND backend_type = 'client backend'";
    until("the other sessions end", async || count(client, others).await == 0).await;
}

/// Pseudo-random numbers from a seed that a failing test prints.
#[derive(Clone, Debug)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Seeded by `METERTRAIL_SEED`, else by chance; says which.
    pub(crate) fn printed(test: &str) -> Self {
        let given = std::env::var("METERTRAIL_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed = given.unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        println!("{test}: METERTRAIL_SEED={seed}");
        Self(seed)
    }

    /// `SplitMix64`.
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(last as u64 + 1) as usize;
            items.swap(last, other);
        }
    }
}

/// What one period of one tenant adds up to.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Sums {
    /// In the order of [`COUNTS`].
    pub(crate) counts: Vec<i64>,
    pub(crate) cost: Decimal,
}

const TOKENS: &str = "(tokens_input + tokens_cache_read + tokens_cache_write + tokens_output + tokens_reasoning + \
    tokens_audio_input + tokens_audio_cache_read + tokens_audio_output + tokens_unclassified)";

const COUNTS: &str = "count(*), count(*) FILTER (WHERE outcome = 'success'), count(*) FILTER (WHERE outcome = 'failure'), \
    count(*) FILTER (WHERE outcome = 'rate_limited'), count(*) FILTER (WHERE outcome = 'quota_exceeded'), \
    count(*) FILTER (WHERE outcome = 'abandoned'), count(*) FILTER (WHERE event_type = 'chat_message' AND outcome IN ('success', 'abandoned')), \
    count(*) FILTER (WHERE event_type = 'embedding' AND outcome IN ('success', 'abandoned')), sum(TOKENS)::bigint, sum(tokens_input)::bigint, \
    sum(tokens_output)::bigint, sum(tokens_cache_read)::bigint, \
    coalesce(sum(TOKENS) FILTER (WHERE tokens_estimated), 0)::bigint, \
    count(*) FILTER (WHERE cost_usd IS NULL AND TOKENS > 0), \
    coalesce(sum(latency_us) FILTER (WHERE outcome IN ('success', 'failure')), 0)::bigint, \
    count(latency_us) FILTER (WHERE outcome IN ('success', 'failure'))";

fn sums_of(metrics: &UsageMetrics) -> Sums {
    let counts = [
        metrics.calls,
        metrics.successes,
        metrics.failures,
        metrics.rate_limited,
        metrics.quota_exceeded,
        metrics.abandoned,
        metrics.count_of(&metertrail::EventType::ChatMessage),
        metrics.count_of(&metertrail::EventType::Embedding),
        metrics.tokens_total(),
        metrics.tokens_of(TokenClass::Input),
        metrics.tokens_of(TokenClass::Output),
        metrics.tokens_of(TokenClass::CacheRead),
        metrics.tokens_estimated,
        metrics.unpriced,
        metrics.latency_us_total,
        metrics.latency.count(),
    ];
    Sums { counts: counts.map(|count| i64::try_from(count).unwrap()).to_vec(), cost: metrics.cost }
}

type Books = BTreeMap<(String, DateTime<Utc>), Sums>;

fn sums_in(row: &Row) -> ((String, DateTime<Utc>), Sums) {
    let last = row.len() - 1;
    let counts = (2..last).map(|index| row.get(index)).collect();
    ((row.get(0), row.get(1)), Sums { counts, cost: row.get(last) })
}

async fn books_of_events(client: &Client, period: Period) -> Books {
    let local = "\"timestamp\" AT TIME ZONE 'UTC'";
    let start = match period {
        Period::QuarterHour => format!("date_bin('15 minutes', {local}, '2000-01-01')"),
        Period::Hour => format!("date_trunc('hour', {local})"),
        Period::Day => format!("date_trunc('day', {local})"),
        Period::Month => format!("date_trunc('month', {local})"),
    };
    let counts = COUNTS.replace("TOKENS", TOKENS);
    let statement = format!(
        "SELECT tenant_id, {start} AT TIME ZONE 'UTC', {counts}, coalesce(sum(cost_usd), 0) \
         FROM metertrail.tenant_usage_realtime GROUP BY 1, 2"
    );
    client.query(&statement, &[]).await.unwrap().iter().map(sums_in).collect()
}

async fn books_of_roll_ups(client: &Client, period: Period) -> Books {
    let statement = "SELECT tenant_id, period_start, api_calls_total, api_calls_success, api_calls_failure, \
        rate_limited_count, quota_exceeded_count, abandoned_count, chat_messages_sent, embeddings_generated, \
        total_tokens_used, tokens_input, tokens_output, tokens_cache_read, tokens_estimated, unpriced_count, \
        latency_us_total, latency_count, estimated_cost_usd \
        FROM metertrail.tenant_usage_metrics WHERE period_type = $1";
    client.query(statement, &[&period.as_str()]).await.unwrap().iter().map(sums_in).collect()
}

/// What the store says: of every quarter hour and hour of the days in which something is expected, of every day of their
/// months, and of all the months from the first to the last.
async fn books_of_store(store: &PostgresStore, expected: &Books, period: Period) -> Books {
    let around = match period {
        Period::QuarterHour | Period::Hour => Period::Day,
        Period::Day | Period::Month => Period::Month,
    };
    let mut ranges: BTreeSet<(&str, TimeRange)> = BTreeSet::new();
    let mut spans: BTreeMap<&str, TimeRange> = BTreeMap::new();
    for (tenant, start) in expected.keys() {
        let range = around.range_at(*start, Zone::UTC);
        ranges.insert((tenant, range));
        let span = spans.entry(tenant).or_insert(range);
        *span = TimeRange::new(span.start().min(range.start()), span.end().max(range.end())).unwrap();
    }
    if period == Period::Month {
        ranges = spans.into_iter().collect();
    }
    let mut books = Books::new();
    for (tenant, range) in ranges {
        let periods = period.ranges(range, Zone::UTC).unwrap();
        let usage = store.usage(&TenantId::new(tenant).unwrap(), &periods).await.unwrap();
        for (range, metrics) in periods.iter().zip(&usage).filter(|(_, metrics)| !metrics.is_empty()) {
            books.insert((tenant.to_owned(), range.start()), sums_of(metrics));
        }
    }
    books
}

fn compare(when: &str, period: Period, expected: &Books, actual: &Books) {
    for (key, sums) in expected {
        assert_eq!(actual.get(key), Some(sums), "{when}, {period}, {key:?}");
    }
    assert_eq!(
        actual.len(),
        expected.len(),
        "{when}: something is counted in a {period} period without events"
    );
}

/// Holds the store's answers and the tables against the events: nothing twice, every sum right in every kind of period,
/// before and after all is rolled up. To be called when nobody writes any more. Gives the number of events.
pub(crate) async fn check_books(url: &str) -> i64 {
    let client = client(url).await;
    let store = store(url);
    for twice in [
        "SELECT count(*) FROM (SELECT FROM metertrail.tenant_usage_realtime GROUP BY tenant_id, id HAVING count(*) > 1) AS twice",
        "SELECT count(*) FROM (SELECT FROM metertrail.tenant_usage_realtime WHERE idempotency_key IS NOT NULL \
         GROUP BY tenant_id, idempotency_key HAVING count(*) > 1) AS twice",
        "SELECT count(*) FROM metertrail.tenant_usage_realtime AS event FULL JOIN metertrail.usage_idempotency_keys AS claim \
         ON event.tenant_id = claim.tenant_id AND event.id = claim.event_id AND event.idempotency_key = claim.idempotency_key \
         WHERE (event.id IS NULL) OR (claim.event_id IS NULL AND event.idempotency_key IS NOT NULL)",
    ] {
        assert_eq!(count(&client, twice).await, 0, "{twice}");
    }
    for when in ["before the roll-up", "after it"] {
        for period in Period::ALL {
            let expected = books_of_events(&client, period).await;
            compare(when, period, &expected, &books_of_store(&store, &expected, period).await);
            if when == "after it" {
                compare("in the roll-ups", period, &expected, &books_of_roll_ups(&client, period).await);
            }
        }
        roll_up_all(&store).await;
    }
    assert_eq!(count(&client, "SELECT count(*) FROM metertrail.usage_journal").await, 0);
    count(&client, "SELECT count(*) FROM metertrail.tenant_usage_realtime").await
}
