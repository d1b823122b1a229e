//! Alerts from the outside, on memory and on Postgres.

mod random;
mod rules;
mod running;
#[cfg(all(feature = "email", feature = "webhook"))]
mod sinks;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use metertrail::alert::{
    AlertRule, AlertSink, AlertView, Level, Notification, NotificationKind, Observation, Severity, Timing,
};
use metertrail::{Error, ErrorKind, Label, MemoryStore, Result, TenantId};
use uuid::Uuid;

use crate::ledger;

/// A `#[tokio::test]` on each store of an async function that takes an `Arc` of a store.
macro_rules! on_both_stores {
    ($($name:ident,)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(std::sync::Arc::new(metertrail::MemoryStore::new())).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let database = crate::ledger::database().await;
                super::$name(std::sync::Arc::new(crate::ledger::store(database.url()))).await;
            })*
        }
    };
}
use on_both_stores;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract_of_alert_stores() {
    metertrail::testing::conformance::alert::all(async || MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_contract_of_alert_stores() {
    let mut databases = Vec::new();
    metertrail::testing::conformance::alert::all(async || {
        databases.push(ledger::database().await);
        ledger::store(databases.last().unwrap().url())
    })
    .await;
}

fn label(text: &str) -> Label {
    Label::new("label", text).unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// So many seconds after noon of a Sunday.
fn at(second: i64) -> DateTime<Utc> {
    "2026-03-01T12:00:00Z".parse::<DateTime<Utc>>().unwrap() + TimeDelta::seconds(second)
}

/// Says of each tenant what it is told to say.
#[derive(Clone, Debug)]
struct Scripted {
    name: Label,
    timing: Timing,
    levels: Arc<Mutex<BTreeMap<TenantId, Level>>>,
    fails: Arc<Mutex<Option<Failing>>>,
}

#[derive(Clone, Copy, Debug)]
enum Failing {
    Error,
    Panic,
}

impl Scripted {
    fn new(timing: Timing) -> Self {
        Self { name: label("scripted"), timing, levels: Arc::default(), fails: Arc::default() }
    }

    fn say(&self, name: &str, level: Level) {
        self.levels.lock().unwrap_or_else(PoisonError::into_inner).insert(tenant(name), level);
    }

    fn fail(&self, how: Option<Failing>) {
        *self.fails.lock().unwrap() = how;
    }
}

#[async_trait]
impl AlertRule for Scripted {
    fn name(&self) -> &Label {
        &self.name
    }

    fn severity(&self) -> Severity {
        Severity::Warning
    }

    fn unit(&self) -> &'static str {
        "degrees"
    }

    fn timing(&self) -> Timing {
        self.timing
    }

    async fn observe(&self, _view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let fails = *self.fails.lock().unwrap();
        match fails {
            Some(Failing::Error) => return Err(Error::new(ErrorKind::Unavailable, "it cannot see")),
            Some(Failing::Panic) => panic!("it was told to"),
            None => {}
        }
        let levels = self.levels.lock().unwrap_or_else(PoisonError::into_inner);
        let observation = |(tenant_id, level): (&TenantId, &Level)| {
            Observation::new(*level, 7.into(), 5.into()).tenant(tenant_id.clone())
        };
        Ok(levels.iter().map(observation).collect())
    }
}

/// What arrived, in order; shared by the sinks of all engines. It fails a test in which one notification is on its way twice.
#[derive(Clone, Debug, Default)]
struct Inbox {
    arrived: Arc<Mutex<Vec<Notification>>>,
    on_their_way: Arc<Mutex<BTreeSet<Uuid>>>,
}

impl Inbox {
    fn kinds(&self) -> Vec<NotificationKind> {
        self.arrived.lock().unwrap().iter().map(Notification::kind).collect()
    }

    fn count(&self, kind: NotificationKind) -> usize {
        self.kinds().into_iter().filter(|other| *other == kind).count()
    }

    /// Until what is given is dropped, it is on its way.
    fn begin(&self, notification: &Notification) -> OnItsWay {
        let id = notification.idempotency_id();
        assert!(self.on_their_way.lock().unwrap().insert(id), "{id} is on its way twice");
        OnItsWay { id, all: Arc::clone(&self.on_their_way) }
    }

    fn arrive(&self, notification: &Notification) {
        self.arrived.lock().unwrap().push(notification.clone());
    }
}

struct OnItsWay {
    id: Uuid,
    all: Arc<Mutex<BTreeSet<Uuid>>>,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[async_trait]
impl AlertSink for Inbox {
    async fn deliver(&self, notification: &Notification, _now: DateTime<Utc>) -> Result<()> {
        let _on_its_way = self.begin(notification);
        tokio::task::yield_now().await;
        self.arrive(notification);
        tokio::task::yield_now().await;
        Ok(())
    }
}
