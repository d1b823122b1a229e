//! Writes an audit trail, verifies it, lays hands on it by SQL, and shows what each is found as:
//! `cargo run --all-features --example audit_verify [-- --database-url URL]`.
//!
//! Without a URL it takes a throw-away Postgres. With one it needs a database that may be spoilt: it makes the schema
//! `metertrail` there and tampers with it. It exits with an error if a hand is not found, or an untouched trail accused.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use metertrail::audit::{
    Actor, AuditEvent, AuditLog, AuditSigningKey, Checkpoint, Erasure, KbAudit, PersonalData, SecurityAudit,
    StaticKeys, Verifier, VerifyReport, export_trail, prove, read_trail,
};
use metertrail::store::AuditStore;
use metertrail::testing::postgres::{TestDatabase, TestPostgres};
use metertrail::time::{Clock, SystemClock};
use metertrail::{Label, MemoryStore, PostgresStore, TenantId};
use tokio_postgres::{Client, NoTls};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[derive(Parser)]
struct Arguments {
    /// A database that may be spoilt.
    #[arg(long)]
    database_url: Option<String>,
}

/// What a hand does, and as what it must be found by somebody who has the public keys and the last checkpoint.
struct Hand {
    what: &'static str,
    sql: String,
    found_as: &'static [&'static str],
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let throw_away = match arguments.database_url {
        Some(_) => None,
        None => Some(TestPostgres::shared()?.create_database(None).await?),
    };
    let url = arguments.database_url.as_deref().or(throw_away.as_ref().map(TestDatabase::url));
    let url = url.ok_or("there is no database")?.to_owned();
    let store = PostgresStore::from_url(&url)?;
    store.migrate().await?;

    let keys = StaticKeys::new()
        .writer(AuditSigningKey::generate("example.org/writer")?)
        .sealer(AuditSigningKey::generate("example.org/sealer")?);
    let verifier = verifier_of(store.clone(), &keys)?;
    let log = AuditLog::builder(store.clone()).keys(keys.clone()).seal_interval(None).start()?;
    let (events, checkpoint) = write(&log).await?;
    println!("{checkpoint}");

    let verifier = verifier.anchor(checkpoint.clone());
    let clean = verifier.full(SystemClock.now()).await?;
    expect("an untouched trail", &clean, &[])?;
    let proof = prove(&store, &events[0].tenant_id, events[0].id()).await?.ok_or("there is no proof")?;
    if !proof.verify(events[0].leaf()?) {
        return Err("the proof of an event does not hold".into());
    }
    println!(
        "proof of one event: {} + {} + {} hashes",
        proof.in_tree.len(),
        proof.in_epoch.len(),
        proof.in_log.len()
    );
    offline(&store, &keys, &checkpoint).await?;

    let client = superuser(&url).await?;
    for hand in hands(&events) {
        client.batch_execute(&format!("BEGIN; {}; COMMIT", hand.sql)).await?;
        expect(hand.what, &verifier.full(SystemClock.now()).await?, hand.found_as)?;
        restore(&client).await?;
    }
    expect("the trail, put back as it was", &verifier.full(SystemClock.now()).await?, &[])?;

    let erased = log
        .erase_subject(&TenantId::new("globex")?, &Label::new("subject", "p-1")?, Actor::system("example")?)
        .await?;
    if erased != (Erasure::Erased { had_key: true }) {
        return Err(format!("the person was not forgotten: {erased:?}").into());
    }
    let reread = log.trail(&log.last_days(&TenantId::new("globex")?, 1)?).await?;
    let kept = reread.items.iter().find(|event| !event.personal.is_empty()).ok_or("the event is gone")?;
    if log.open_personal(kept, "email").await?.is_some() {
        return Err("what was erased can be read".into());
    }
    expect("after a lawful erasure", &verifier.full(SystemClock.now()).await?, &[])?;
    let report = log.shutdown(Duration::from_secs(10)).await?;
    if report.unwritten.is_empty() { Ok(()) } else { Err("events were left over".into()) }
}

fn tenant() -> Result<TenantId> {
    Ok(TenantId::new("acme-corp")?)
}

/// Some events in two epochs; what is written in the tables of this moment is kept for [`restore`].
async fn write(log: &AuditLog) -> Result<(Vec<AuditEvent>, Checkpoint)> {
    let acme = tenant()?;
    let mut events = Vec::new();
    for number in 0..40 {
        let document = Label::new("document", format!("d-{number}"))?;
        let record = KbAudit::Uploaded { document, bytes: 1_000 + number, chunks: None };
        events.push(log.event(&acme, Actor::user("u-71")?, &record)?);
    }
    let failed = SecurityAudit::AuthFailed { method: "password".into(), reason: "wrong".into() };
    let email = PersonalData::new("p-1", "ada@example.org")?;
    events.push(
        log.event(&TenantId::new("globex")?, Actor::user("u-9")?, &failed)?.with_personal("email", email)?,
    );
    let mut checkpoint = None;
    for part in events.chunks(30) {
        let acks: Vec<_> = part.iter().map(|event| log.record(event.clone())).collect();
        for ack in acks {
            ack.await?;
        }
        checkpoint = log.seal_epoch().await?;
    }
    Ok((events, checkpoint.ok_or("nothing was sealed")?))
}

fn verifier_of(store: impl AuditStore, keys: &StaticKeys) -> Result<Verifier> {
    use metertrail::audit::AuditKeys;
    let writer = keys.writer_key()?.ok_or("there is no writer's key")?;
    let sealer = keys.sealer_key()?.ok_or("there is no sealer's key")?;
    println!("verify with {} and {}", writer.verifying_key(), sealer.verifying_key());
    Ok(Verifier::new(store).writer_key(writer.verifying_key()).sealer_key(sealer.verifying_key()))
}

/// The same verification from files, without the database.
async fn offline(store: &PostgresStore, keys: &StaticKeys, checkpoint: &Checkpoint) -> Result<()> {
    let directory = std::env::temp_dir().join(format!("metertrail-audit-{}", std::process::id()));
    let exported = export_trail(store, &directory).await?;
    let copy = Arc::new(MemoryStore::from_audit_tables(read_trail(&directory)?));
    std::fs::remove_dir_all(&directory)?;
    let report = verifier_of(copy, keys)?.anchor(checkpoint.clone()).full(SystemClock.now()).await?;
    println!("exported {exported:?}");
    expect("an export, offline", &report, &[])
}

/// A connection on which the guards are off, and a copy of all tables.
async fn superuser(url: &str) -> Result<Client> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    client.batch_execute("SET session_replication_role = replica").await?;
    for table in TABLES {
        let copy = format!("CREATE TEMPORARY TABLE old_{table} AS TABLE metertrail.{table}");
        client.batch_execute(&copy).await?;
    }
    Ok(client)
}

const TABLES: [&str; 6] =
    ["audit_events", "audit_batches", "audit_unsealed", "audit_epochs", "audit_heads", "audit_tree"];

async fn restore(client: &Client) -> Result<()> {
    for table in TABLES {
        let back = format!(
            "DELETE FROM metertrail.{table}; INSERT INTO metertrail.{table} SELECT * FROM pg_temp.old_{table}"
        );
        client.batch_execute(&back).await?;
    }
    Ok(())
}

fn hands(events: &[AuditEvent]) -> Vec<Hand> {
    let (one, other) = (events[10].id(), events[11].id());
    let all = TABLES.map(|table| format!("DELETE FROM metertrail.{table}")).join("; ");
    let hand = |what, sql, found_as| Hand { what, sql, found_as };
    vec![
        hand(
            "an edited event",
            format!("UPDATE metertrail.audit_events SET result = 'failure' WHERE id = '{one}'"),
            &["edited"],
        ),
        hand(
            "a deleted event",
            format!("DELETE FROM metertrail.audit_events WHERE id = '{one}'"),
            &["missing"],
        ),
        hand(
            "an event that nobody sealed",
            "INSERT INTO metertrail.audit_events (tenant_id, id, \"timestamp\", event_type, action, result)
                SELECT 'acme-corp', overlay(id::text PLACING 'ffff' FROM 33)::uuid, \"timestamp\", event_type, action, result
                FROM metertrail.audit_events LIMIT 1"
                .to_owned(),
            &["forged"],
        ),
        hand(
            "two events in each other's place",
            format!(
                "UPDATE metertrail.audit_tree SET position = position + 1000 WHERE event_id IN ('{one}', '{other}');
                UPDATE metertrail.audit_tree SET position = 11 WHERE event_id = '{one}';
                UPDATE metertrail.audit_tree SET position = 10 WHERE event_id = '{other}'"
            ),
            &["reordered", "tree_altered"],
        ),
        hand(
            "a tenant that never was",
            ["audit_events", "audit_heads", "audit_tree"]
                .map(|table| format!("DELETE FROM metertrail.{table} WHERE tenant_id = 'globex'"))
                .join("; "),
            &["missing_tenant", "tenants_altered"],
        ),
        hand("a trail that never was", all, &["log_truncated"]),
    ]
}

/// Prints what was found, and fails if it is not what must be.
fn expect(what: &str, report: &VerifyReport, found_as: &[&str]) -> Result<()> {
    let mut codes: Vec<&str> = report.findings.iter().map(metertrail::audit::Finding::code).collect();
    codes.dedup();
    println!("{what}: {} events, {} findings {codes:?}", report.events, report.findings_total);
    for finding in report.findings.iter().take(3) {
        println!("    {finding}");
    }
    if codes == found_as { Ok(()) } else { Err(format!("{what}: expected {found_as:?}").into()) }
}
