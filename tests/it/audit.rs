//! The audit trail from the outside, on memory and on Postgres.

mod administration;
mod conformance;
mod exporting;
mod failing;
mod incremental;
mod killing;
mod pattern;
mod personal;
mod postgres;
mod random;
mod schemas;
mod tampering;
mod tree;
mod vectors;
mod writing;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use metertrail::audit::{
    Actor, AuditEvent, AuditLog, AuditLogBuilder, AuditSigningKey, KbAudit, StaticKeys, Verifier,
    VerifyReport, WrappingKey,
};
use metertrail::store::AuditStore;
use metertrail::testing::ManualClock;
use metertrail::testing::postgres::TestDatabase;
use metertrail::time::Clock;
use metertrail::{Label, MemoryStore, TenantId};

use crate::ledger;

/// A `#[tokio::test]` on each store of an async function that takes a [`Bed`].
macro_rules! on_both_stores {
    ($($name:ident,)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::audit::Bed::memory()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::audit::Bed::postgres().await).await;
            })*
        }
    };
}
use on_both_stores;

const MINUTE: Duration = Duration::from_secs(60);

/// A store, and a clock that stands still at noon of a Sunday.
struct Bed {
    store: Arc<dyn AuditStore>,
    memory: Option<Arc<MemoryStore>>,
    database: Option<TestDatabase>,
    clock: ManualClock,
}

impl Bed {
    fn memory() -> Self {
        let memory = Arc::new(MemoryStore::new());
        let store: Arc<dyn AuditStore> = Arc::<MemoryStore>::clone(&memory);
        Self { store, memory: Some(memory), database: None, clock: ManualClock::new(noon()) }
    }

    async fn postgres() -> Self {
        let database = ledger::database().await;
        let store = Arc::new(ledger::store(database.url()));
        Self { store, memory: None, database: Some(database), clock: ManualClock::new(noon()) }
    }

    /// A log with the usual keys, which seals only when it is told to.
    fn builder(&self) -> AuditLogBuilder {
        AuditLog::builder(Arc::clone(&self.store)).clock(self.clock.clone()).keys(keys()).seal_interval(None)
    }

    fn log(&self) -> AuditLog {
        self.builder().start().unwrap()
    }

    /// A verifier with the usual public keys.
    fn verifier(&self) -> Verifier {
        Verifier::new(Arc::clone(&self.store))
            .writer_key(writer_key().verifying_key())
            .sealer_key(sealer_key().verifying_key())
    }

    async fn verified(&self) -> VerifyReport {
        self.verifier().full(self.clock.now()).await.unwrap()
    }
}

fn writer_key() -> AuditSigningKey {
    AuditSigningKey::from_seed("example.org/writer", [1; 32]).unwrap()
}

fn sealer_key() -> AuditSigningKey {
    AuditSigningKey::from_seed("example.org/sealer", [2; 32]).unwrap()
}

fn keys() -> StaticKeys {
    StaticKeys::new().writer(writer_key()).sealer(sealer_key()).wrapping(WrappingKey::from_bytes([3; 32]))
}

fn noon() -> DateTime<Utc> {
    "2026-03-01T12:00:30Z".parse().unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn label(text: &str) -> Label {
    Label::new("label", text).unwrap()
}

fn ada() -> Actor {
    Actor::user("u-71").unwrap()
}

/// An event that is so many seconds after noon.
fn uploaded(name: &str, second: i64) -> AuditEvent {
    let record = KbAudit::Uploaded { document: label(&format!("d-{second}")), bytes: 1_000, chunks: Some(3) };
    AuditEvent::new(tenant(name), noon() + TimeDelta::seconds(second), ada(), &record).unwrap()
}

/// The codes of the findings, each once.
fn codes(report: &VerifyReport) -> Vec<&'static str> {
    let mut codes: Vec<&'static str> = report.findings.iter().map(metertrail::audit::Finding::code).collect();
    codes.sort_unstable();
    codes.dedup();
    codes
}

/// Keeps all of the events, one batch for each slice.
async fn keep(log: &AuditLog, batches: &[Vec<AuditEvent>]) {
    for batch in batches {
        let acks: Vec<_> = batch.iter().map(|event| log.record(event.clone())).collect();
        for ack in acks {
            ack.await.unwrap();
        }
    }
}
