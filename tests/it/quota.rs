//! Quotas from the outside, on memory and on Postgres.

mod cancelling;
mod changing;
mod contending;
mod deciding;
mod failing;
mod mended;
mod moving;
mod reviewed;
mod settling;
mod windows;

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use metertrail::quota::{
    Allowed, Catalogue, Limit, LimitView, Override, Plan, Quota, QuotaEnforcer, QuotaEnforcerBuilder,
    WhenUnavailable, Window,
};
use metertrail::testing::ManualClock;
use metertrail::testing::postgres::TestDatabase;
use metertrail::{EventType, MemoryStore, Store, TenantId, UsageTracker};

use crate::ledger;

/// A `#[tokio::test]` on each store of an async function that takes a [`Bed`].
macro_rules! on_both_stores {
    ($($(#[$attribute:meta])* $name:ident,)*) => {
        mod memory {
            $($(#[$attribute])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::quota::Bed::memory()).await;
            })*
        }
        mod postgres {
            $($(#[$attribute])* #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::quota::Bed::postgres().await).await;
            })*
        }
    };
}
use on_both_stores;

/// A store, and a clock that stands still at noon of a Sunday.
struct Bed {
    store: Arc<dyn Store>,
    clock: ManualClock,
    database: Option<TestDatabase>,
}

impl Bed {
    fn memory() -> Self {
        Self { store: Arc::new(MemoryStore::new()), clock: ManualClock::new(noon()), database: None }
    }

    async fn postgres() -> Self {
        let database = ledger::database().await;
        let store = Arc::new(ledger::store(database.url()));
        Self { store, clock: ManualClock::new(noon()), database: Some(database) }
    }

    /// The store as another process has it: with connections of its own.
    fn other_store(&self) -> Arc<dyn Store> {
        match &self.database {
            Some(database) => Arc::new(ledger::store(database.url())),
            None => Arc::clone(&self.store),
        }
    }

    fn builder(&self, catalogue: Catalogue) -> QuotaEnforcerBuilder {
        QuotaEnforcer::builder(Arc::clone(&self.store), catalogue).clock(self.clock.clone()).tick(None)
    }

    fn quotas(&self, catalogue: Catalogue) -> QuotaEnforcer {
        self.builder(catalogue).start().unwrap()
    }

    fn tracker(&self, quotas: &QuotaEnforcer) -> UsageTracker {
        UsageTracker::builder(Arc::clone(&self.store))
            .clock(self.clock.clone())
            .quotas(quotas)
            .start()
            .unwrap()
    }
}

fn noon() -> DateTime<Utc> {
    at("2026-03-01T12:00:30Z")
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn hard(quota: Quota, amount: u64) -> Limit {
    Limit::hard(quota, Window::Day, amount, WhenUnavailable::Deny).unwrap()
}

fn plan(name: &str, limits: impl IntoIterator<Item = Limit>) -> Plan {
    Plan::new(name, limits).unwrap()
}

fn catalogue(limits: impl IntoIterator<Item = Limit>) -> Catalogue {
    Catalogue::new(plan("free", limits))
}

/// A catalogue of one hard limit on the day's tokens.
fn tokens(amount: u64) -> Catalogue {
    catalogue([hard(Quota::Tokens, amount)])
}

fn own(quota: Quota, window: Window, allowed: Allowed) -> Override {
    Override { quota, window, allowed, expires_at: None, reason: None }
}

/// How the tenant's limit on a quota stands: the first one that names it.
async fn view(quotas: &QuotaEnforcer, quota: &Quota) -> LimitView {
    let status = quotas.quota_status(&acme()).await.unwrap();
    status.limits.into_iter().find(|limit| &limit.quota == quota).unwrap()
}

/// Asks for tokens and keeps the hold, if it is allowed.
async fn hold(quotas: &QuotaEnforcer, amount: u64) -> Option<metertrail::quota::Hold> {
    quotas.enforce(&acme(), &Quota::Tokens, amount).await.unwrap().into_hold()
}

/// Whether an amount of tokens is admitted; if so it is given back at once.
async fn admits(quotas: &QuotaEnforcer, amount: u64) -> bool {
    quotas.enforce(&acme(), &Quota::Tokens, amount).await.unwrap().is_allowed()
}

/// Asks again until tokens are admitted, since a refusal is repeated for a moment without asking the store.
async fn admitted_soon(bed: &Bed, quotas: &QuotaEnforcer, amount: u64) -> metertrail::quota::Hold {
    for _ in 0..200 {
        if let Some(hold) = hold(quotas, amount).await {
            return hold;
        }
        bed.clock.advance(Duration::from_millis(100));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("{amount} tokens are never admitted: {:?}", view(quotas, &Quota::Tokens).await);
}
