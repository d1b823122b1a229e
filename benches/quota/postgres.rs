//! On a real Postgres that syncs to disk: what is enforced and settled on one hot tenant.

use std::sync::Arc;
use std::time::{Duration, Instant};

use metertrail::quota::{
    Catalogue, LIMIT_AMOUNT_MAX, Limit, Plan, Quota, QuotaEnforcer, WhenUnavailable, Window,
};
use metertrail::testing::postgres::{TestPostgres, TestPostgresOptions};
use metertrail::{EventType, PostgresStore, TenantId, TokenUsage, UsageTracker};
use tokio::runtime::Builder;
use tokio::task::JoinSet;

use crate::Outcome;
use crate::sample::ratio;

const CLIENTS: u32 = 20;
const TOKENS: u64 = 300;

/// How fast the clients go.
#[derive(Clone, Copy)]
enum Pace {
    /// All together so many a second, whether or not earlier ones are done.
    PerSecond(u32),
    /// Each as soon as it is done with the one before.
    Flat,
}

pub(crate) fn run(quick: bool) -> Outcome<()> {
    let server = TestPostgres::start(TestPostgresOptions::new().fsync(true))?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let time = if quick { Duration::from_millis(500) } else { Duration::from_secs(5) };
    println!("## On Postgres, fsync on: three quotas on one hot tenant, {CLIENTS} clients\n");
    println!("A commit of one row, one at a time: p50 {:?}.\n", runtime.block_on(commit(&server))?);
    println!(
        "`admitted` is from the call of `enforce_multiple` to its answer, `due` from when the request was due at its pace to \
         the answer, `settled` from due to the committed acknowledgement of the event that settles the hold. `trips` are \
         calls of the store for units.\n"
    );
    println!(
        "| mode | pace | admissions | a second | admitted p50 | p99 | due p50 | p99 | settled p50 | p99 | trips | trips per 1,000 |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|");
    let at_pace = Pace::PerSecond(1_000);
    for (direct, pace) in [(true, at_pace), (false, at_pace), (true, Pace::Flat), (false, Pace::Flat)] {
        let line = runtime.block_on(scene(&server, direct, pace, time))?;
        println!("{line}");
    }
    println!();
    Ok(())
}

async fn scene(server: &TestPostgres, direct: bool, pace: Pace, time: Duration) -> Outcome<String> {
    let database = server.create_database(None).await?;
    let store = PostgresStore::from_url(database.url())?;
    store.migrate().await?;
    let hard = |quota| Limit::hard(quota, Window::Month, LIMIT_AMOUNT_MAX, WhenUnavailable::Deny);
    let plan =
        Plan::new("bench", [hard(Quota::Tokens)?, hard(Quota::ApiCalls)?, hard(Quota::ChatMessages)?])?;
    let builder = QuotaEnforcer::builder(store.clone(), Catalogue::new(plan));
    let quotas = if direct { builder.direct() } else { builder }.start()?;
    let tracker = UsageTracker::builder(store).quotas(&quotas).start()?;
    let service = Arc::new(Service { quotas, tracker, tenant: TenantId::new("hot")? });

    // Plans, partitions, statements and connections are there before it counts.
    service.clients(pace, time / 5).await?;
    let trips = service.quotas.round_trips();
    let began = Instant::now();
    let mut calls = service.clients(pace, time).await?;
    let took = began.elapsed();
    let trips = service.quotas.round_trips() - trips;

    let admissions = u64::try_from(calls.len())?;
    let mut quantiles = |of: fn(&Call) -> Duration| {
        calls.sort_unstable_by_key(of);
        let at = |percent: usize| calls.get(calls.len() * percent / 100).map(of).unwrap_or_default();
        format!("{:.1?} | {:.1?}", at(50), at(99))
    };
    let line = format!(
        "| {} | {} | {admissions} | {} | {} | {} | {} | {trips} | {} |",
        if direct { "direct" } else { "slices" },
        match pace {
            Pace::PerSecond(rate) => format!("{rate} a second"),
            Pace::Flat => "closed loop".to_owned(),
        },
        u128::from(admissions) * 1_000 / took.as_millis().max(1),
        quantiles(|call| call.admitted),
        quantiles(|call| call.due),
        quantiles(|call| call.settled),
        ratio(trips.saturating_mul(1_000), admissions),
    );
    let limit = Duration::from_secs(30);
    let report = service.tracker.shutdown(limit).await?;
    if !report.unwritten.is_empty() || !report.rejected.is_empty() {
        return Err(format!("not everything was settled: {report:?}").into());
    }
    service.quotas.shutdown(limit).await?;
    Ok(line)
}

struct Service {
    quotas: QuotaEnforcer,
    tracker: UsageTracker,
    tenant: TenantId,
}

/// How long one request took.
struct Call {
    admitted: Duration,
    due: Duration,
    settled: Duration,
}

impl Service {
    async fn clients(self: &Arc<Self>, pace: Pace, time: Duration) -> Outcome<Vec<Call>> {
        let began = Instant::now();
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            clients.spawn(Arc::clone(self).client(client, pace, began, time));
        }
        let mut calls = Vec::new();
        while let Some(done) = clients.join_next().await {
            calls.append(&mut done??);
        }
        Ok(calls)
    }

    async fn client(
        self: Arc<Self>,
        client: u32,
        pace: Pace,
        began: Instant,
        time: Duration,
    ) -> Outcome<Vec<Call>> {
        let mut calls = Vec::new();
        let mut due = match pace {
            Pace::PerSecond(rate) => began + Duration::from_secs(1) * client / rate,
            Pace::Flat => began,
        };
        while due < began + time {
            tokio::time::sleep_until(due.into()).await;
            calls.push(self.call(due).await?);
            due = match pace {
                Pace::PerSecond(rate) => due + Duration::from_secs(1) * CLIENTS / rate,
                Pace::Flat => Instant::now(),
            };
        }
        Ok(calls)
    }

    async fn call(&self, due: Instant) -> Outcome<Call> {
        let amounts = [(Quota::Tokens, TOKENS), (Quota::ApiCalls, 1), (Quota::ChatMessages, 1)];
        let began = Instant::now();
        let decision = self.quotas.enforce_multiple(&self.tenant, &amounts).await?;
        let (admitted, answered) = (began.elapsed(), due.elapsed());
        if !decision.is_allowed() {
            return Err(format!("far from the limit: {decision}").into());
        }
        let operation = self.tracker.track(&self.tenant, EventType::ChatMessage).hold(decision.into_hold());
        operation.record_success(TokenUsage::reported(TOKENS, 0)?).await?;
        Ok(Call { admitted, due: answered, settled: due.elapsed() })
    }
}

/// What the machine's disk makes of the smallest transaction.
async fn commit(server: &TestPostgres) -> Outcome<Duration> {
    let (client, connection) = tokio_postgres::connect(server.url(), tokio_postgres::NoTls).await?;
    let connection = tokio::spawn(connection);
    client.batch_execute("CREATE TABLE one_row (id integer)").await?;
    let insert = client.prepare("INSERT INTO one_row VALUES (1)").await?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        client.execute(&insert, &[]).await?;
        times.push(began.elapsed());
    }
    times.sort_unstable();
    drop(client);
    connection.await??;
    Ok(times[times.len() / 2])
}
