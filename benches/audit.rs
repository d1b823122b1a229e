//! What sealing costs at the ingest of audit events, and how long the proof of one of a million takes.
//!
//! Sealed: hashed, signed, chained and appended by the crate. Not sealed: the same rows, copied in one transaction and
//! nothing else. The two take turns, batch by batch, on tables of the same shape.

mod report;

use std::pin::pin;
use std::time::{Duration, Instant};

use metertrail::audit::{
    Actor, AuditEvent, AuditLog, AuditSigningKey, ChatAudit, Origin, StaticKeys, UserAgent, WriterChain,
    prove,
};
use metertrail::store::AuditStore;
use metertrail::testing::postgres::{TestPostgres, TestPostgresOptions};
use metertrail::time::{Clock, SystemClock};
use metertrail::{Label, PostgresStore, TenantId};
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, NoTls};

use self::report::{Table, is_quick, median, ratio, thousands_per_second, verdict};

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

const BATCH: usize = 1_000;
const TENANTS: usize = 100;
/// How much slower sealing may make the writing of a batch.
const OVERHEAD_MAX: f64 = 1.25;
/// How many batches an epoch seals here.
const EPOCH_BATCHES: u32 = 10;
/// How many tenants there are besides the one whose event is proved.
const OTHERS: usize = 10_000;
const PROOF_MAX: Duration = Duration::from_millis(10);

fn main() -> Outcome<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let options = TestPostgresOptions::new().fsync(true).setting("shared_buffers", "1GB");
        let server = TestPostgres::start(options.setting("max_wal_size", "8GB"))?;
        let database = server.create_database(None).await?;
        let store = PostgresStore::from_url(database.url())?;
        store.migrate().await?;
        let (client, connection) = tokio_postgres::connect(database.url(), NoTls).await?;
        tokio::spawn(connection);
        sealing(&store, client).await?;
        proving(&store, if is_quick() { 2_000 } else { 1_000_000 }).await
    })
}

fn writer_key() -> Outcome<AuditSigningKey> {
    Ok(AuditSigningKey::from_seed("example.org/writer", [1; 32])?)
}

fn keys() -> Outcome<StaticKeys> {
    let writer = writer_key()?;
    Ok(StaticKeys::new().writer(writer).sealer(AuditSigningKey::from_seed("example.org/sealer", [2; 32])?))
}

fn events(count: usize, tenants: usize) -> Outcome<Vec<AuditEvent>> {
    let tenants =
        (0..tenants).map(|n| TenantId::new(format!("tenant-{n:04}"))).collect::<Result<Vec<_>, _>>()?;
    let said = ChatAudit::MessageReceived {
        session: Label::new("session", "s-1")?,
        characters: 120,
        attachments: 0,
    };
    let event = |tenant: &TenantId| {
        let mut event = AuditEvent::new(tenant.clone(), SystemClock.now(), Actor::user("u-71")?, &said)?;
        event.context = event.context.user_agent("Mozilla/5.0").request_id("r-1")?;
        Ok(event)
    };
    tenants.iter().cycle().take(count).map(event).collect()
}

/// One event of each of many tenants.
fn others() -> Outcome<Vec<AuditEvent>> {
    let said =
        ChatAudit::MessageReceived { session: Label::new("session", "s-1")?, characters: 1, attachments: 0 };
    let event = |n| {
        let tenant = TenantId::new(format!("other-{n:05}"))?;
        Ok(AuditEvent::new(tenant, SystemClock.now(), Actor::user("u-71")?, &said)?)
    };
    (0..OTHERS).map(event).collect()
}

async fn sealing(store: &PostgresStore, mut client: Client) -> Outcome<()> {
    let rounds: u32 = if is_quick() { 10 } else { 200 };
    client.batch_execute("CREATE TABLE public.bare (LIKE metertrail.audit_events INCLUDING ALL)").await?;
    let key = writer_key()?;
    let mut chain = WriterChain::new(Origin::default());
    let log = AuditLog::builder(store.clone()).keys(keys()?).seal_interval(None).start()?;
    let (mut sealed, mut bare, mut epochs) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let batch = events(BATCH, TENANTS)?;
        let started = Instant::now();
        let batch = chain.seal(batch, Some(&key), SystemClock.now())?;
        store.append_audit(&batch).await?;
        chain.advance(&batch);
        sealed.push(started.elapsed());
        let mut batch = events(BATCH, TENANTS)?;
        batch.sort_by(|a, b| a.tenant_id.cmp(&b.tenant_id));
        let started = Instant::now();
        copy(&mut client, &batch).await?;
        bare.push(started.elapsed());
        if round % EPOCH_BATCHES == 0 {
            let started = Instant::now();
            log.seal_epoch().await?;
            epochs.push(started.elapsed() / EPOCH_BATCHES);
        }
    }
    let (sealed, bare) = (median(&sealed), median(&bare));
    let overhead = ratio(bare, sealed);
    let mut table = Table::new(
        format!("Audit events in batches of {BATCH}, medians of {rounds} taking turns"),
        &["", "rate", "of the time without"],
    );
    table.row(&[&"rows only", &thousands_per_second(BATCH, bare), &"1.00"]);
    let cost = format!("{overhead:.2} (aim: at most {OVERHEAD_MAX}: {})", verdict(overhead <= OVERHEAD_MAX));
    table.row(&[&"sealed", &thousands_per_second(BATCH, sealed), &cost]);
    if !epochs.is_empty() {
        let whole = sealed + median(&epochs);
        let cost = format!("{:.2}", ratio(bare, whole));
        let name = format!("and its share of an epoch every {EPOCH_BATCHES} batches");
        table.row(&[&name, &thousands_per_second(BATCH, whole), &cost]);
    }
    table.print();
    Ok(())
}

/// The same rows, without a batch, a marker and a hash.
async fn copy(client: &mut Client, batch: &[AuditEvent]) -> Outcome<()> {
    const COLUMNS: &str = "COPY public.bare (tenant_id, id, \"timestamp\", event_type, action, result, metadata,
        error_message, schema_version, severity, actor_type, actor_id, target_type, target_id, ip, user_agent, request_id,
        trace_id, represents, personal) FROM STDIN (FORMAT binary)";
    let text = Type::TEXT;
    let types = [
        text.clone(),
        Type::UUID,
        Type::TIMESTAMPTZ,
        text.clone(),
        text.clone(),
        text.clone(),
        Type::JSONB,
        text.clone(),
        Type::INT4,
        text.clone(),
        text.clone(),
        text.clone(),
        text.clone(),
        text.clone(),
        text.clone(),
        text.clone(),
        text.clone(),
        text,
        Type::INT8,
        Type::JSONB,
    ];
    let transaction = client.transaction().await?;
    let mut writer = pin!(BinaryCopyInWriter::new(transaction.copy_in(COLUMNS).await?, &types));
    let (none, no_json): (Option<&str>, Option<serde_json::Value>) = (None, None);
    for event in batch {
        let metadata = event.metadata.as_map().map(|map| serde_json::Value::Object(map.clone()));
        let target =
            event.target.as_ref().map_or(("", ""), |target| (target.kind.as_str(), target.id.as_str()));
        let context = &event.context;
        let user_agent = context.user_agent.as_ref().map(UserAgent::as_str);
        let request_id = context.request_id.as_ref().map(Label::as_str);
        let row: [&(dyn ToSql + Sync); 20] = [
            &event.tenant_id.as_str(),
            &event.id().as_uuid(),
            &event.occurred_at(),
            &event.event_type.as_str(),
            &event.action.as_str(),
            &event.result.as_str(),
            &metadata,
            &none,
            &i32::from(event.schema_version),
            &event.severity.as_str(),
            &event.actor.kind.as_str(),
            &event.actor.id.as_str(),
            &target.0,
            &target.1,
            &none,
            &user_agent,
            &request_id,
            &none,
            &i64::from(event.represents),
            &no_json,
        ];
        writer.as_mut().write(&row).await?;
    }
    writer.finish().await?;
    transaction.commit().await?;
    Ok(())
}

async fn proving(store: &PostgresStore, count: usize) -> Outcome<()> {
    let log = AuditLog::builder(store.clone()).keys(keys()?).seal_interval(None).start()?;
    let batch =
        WriterChain::new(Origin::default()).seal(others()?, Some(&writer_key()?), SystemClock.now())?;
    store.append_audit(&batch).await?;
    log.seal_epoch().await?;
    let mut ids = Vec::new();
    let started = Instant::now();
    for _ in 0..count / BATCH {
        let batch = events(BATCH, 1)?;
        ids.extend(batch.first().map(|event| (event.tenant_id.clone(), event.id(), event.leaf())));
        let acks: Vec<_> = batch.into_iter().map(|event| log.record(event)).collect();
        for ack in acks {
            ack.await?;
        }
    }
    let written = started.elapsed();
    let started = Instant::now();
    log.seal_epoch().await?;
    let sealed = started.elapsed();
    let mut proofs = Vec::new();
    for (tenant, id, leaf) in ids.iter().step_by((ids.len() / 100).max(1)) {
        let started = Instant::now();
        let proof = prove(store, tenant, *id).await?.ok_or("there is no proof")?;
        if !proof.verify(leaf.clone()?) {
            return Err("a proof does not hold".into());
        }
        proofs.push(started.elapsed());
    }
    let proof = median(&proofs);
    let mut table = Table::new(
        format!("The proof of one of {count} events of a tenant among {OTHERS} others"),
        &["", ""],
    );
    table.row(&[&"written", &thousands_per_second(count, written)]);
    table.row(&[&"sealed into the tree", &thousands_per_second(count, sealed)]);
    let milliseconds = format!("{:.2} ms", proof.as_secs_f64() * 1_000.0);
    let aim = format!("{milliseconds} (aim: under 10 ms: {})", verdict(proof < PROOF_MAX));
    table.row(&[&"proof made and checked, median", &aim]);
    table.print();
    let left = log.shutdown(Duration::from_secs(10)).await?;
    if left.unwritten.is_empty() { Ok(()) } else { Err("events were left over".into()) }
}
