//! Many engines at random, whose processes die between taking a notification up and noting that it arrived; held against what
//! must be true of any of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use metertrail::alert::{
    AlertEngine, AlertSink, IncidentQuery, IncidentState, Level, Notification, NotificationKind, Timing,
};
use metertrail::page::PageSize;
use metertrail::store::AlertStore;
use metertrail::{Error, ErrorKind, Result, Store};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio::sync::Notify;
use uuid::Uuid;

use super::{Inbox, Scripted, at, label};

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Arrives,
    Fails,
    /// The process dies before anything arrived.
    DiesBefore,
    /// And after, but before that was noted.
    DiesAfter,
}

/// One step: how each tenant looks, which engines run, what becomes of attempts (in turn), and how long it is until the next.
#[derive(Clone, Debug)]
struct Step {
    levels: Vec<Level>,
    running: Vec<bool>,
    fates: Vec<Fate>,
    seconds: i64,
}

const TENANTS: usize = 4;
const ENGINES: usize = 4;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let level = prop_oneof![3 => Just(Level::Breach), 1 => Just(Level::Near), 2 => Just(Level::Calm)];
    let fate = prop_oneof![
        4 => Just(Fate::Arrives),
        1 => Just(Fate::Fails),
        1 => Just(Fate::DiesBefore),
        1 => Just(Fate::DiesAfter)
    ];
    let step = (
        proptest::collection::vec(level, TENANTS),
        proptest::collection::vec(any::<bool>(), ENGINES),
        proptest::collection::vec(fate, 1..6),
        1_i64..150,
    );
    let step = step.prop_map(|(levels, running, fates, seconds)| Step { levels, running, fates, seconds });
    proptest::collection::vec(step, 1..30)
}

/// The sink of one process.
#[derive(Clone, Debug)]
struct Fateful {
    inbox: Inbox,
    fates: Arc<Mutex<Vec<Fate>>>,
    /// How often each notification arrived and that was never noted.
    unnoted: Arc<Mutex<BTreeMap<Uuid, usize>>>,
    /// What arrived in this run, and is perhaps not noted if the process dies in it.
    in_this_run: Arc<Mutex<Vec<Uuid>>>,
    dies: Arc<Notify>,
}

#[async_trait]
impl AlertSink for Fateful {
    async fn deliver(&self, notification: &Notification, _now: DateTime<Utc>) -> Result<()> {
        let _on_its_way = self.inbox.begin(notification);
        tokio::task::yield_now().await;
        let fate = self.fates.lock().unwrap().pop().unwrap_or(Fate::Arrives);
        match fate {
            Fate::Fails => return Err(Error::new(ErrorKind::Unavailable, "it fails")),
            Fate::Arrives => {
                self.inbox.arrive(notification);
                self.in_this_run.lock().unwrap().push(notification.idempotency_id());
            }
            Fate::DiesBefore => self.die().await,
            Fate::DiesAfter => {
                self.inbox.arrive(notification);
                *self.unnoted.lock().unwrap().entry(notification.idempotency_id()).or_default() += 1;
                self.die().await;
            }
        }
        Ok(())
    }
}

impl Fateful {
    async fn die(&self) {
        self.dies.notify_one();
        std::future::pending::<()>().await;
    }
}

async fn play<S: Store + AlertStore>(store: Arc<S>, steps: &[Step]) {
    let rule = Scripted::new(
        Timing::new().pending_for(Duration::from_secs(60)).resolve_after(Duration::from_secs(60)),
    );
    let (inbox, fates, unnoted) =
        (Inbox::default(), Arc::default(), Arc::<Mutex<BTreeMap<Uuid, usize>>>::default());
    let processes: Vec<(AlertEngine, Fateful)> = (0..ENGINES)
        .map(|_| {
            let sink = Fateful {
                inbox: inbox.clone(),
                fates: Arc::clone(&fates),
                unnoted: Arc::clone(&unnoted),
                in_this_run: Arc::default(),
                dies: Arc::default(),
            };
            let engine = AlertEngine::builder(Arc::clone(&store)).no_default_rules().rule(rule.clone());
            let engine =
                engine.sink(label("pager"), sink.clone()).retry(1_000, Duration::ZERO, Duration::ZERO);
            (engine.build().unwrap(), sink)
        })
        .collect();
    let mut second = 0;
    let mut perhaps_unnoted = BTreeMap::new();
    for step in steps {
        for (number, level) in step.levels.iter().enumerate() {
            rule.say(&format!("t-{number}"), *level);
        }
        fates.lock().unwrap().clone_from(&step.fates);
        let running =
            processes.iter().zip(&step.running).filter(|(_, runs)| **runs).map(|(process, _)| process);
        let died = join_all(running.map(|(engine, sink)| async move {
            sink.in_this_run.lock().unwrap().clear();
            tokio::select! {
                report = engine.run(at(second)) => assert!(report.unwrap().failed.is_empty()),
                () = sink.dies.notified() => return std::mem::take(&mut *sink.in_this_run.lock().unwrap()),
            }
            Vec::new()
        }));
        for id in died.await.into_iter().flatten() {
            *perhaps_unnoted.entry(id).or_insert(0) += 1;
        }
        second += step.seconds;
        one_is_open_of_each(&*store).await;
    }
    // All is calm and nobody dies any more.
    for number in 0..TENANTS {
        rule.say(&format!("t-{number}"), Level::Calm);
    }
    fates.lock().unwrap().clear();
    for _ in 0..6 {
        second += 130;
        processes[0].0.run(at(second)).await.unwrap();
    }
    let all = IncidentQuery::new().page_size(PageSize::new(1_000).unwrap());
    let incidents = store.incidents(&all).await.unwrap().items;
    assert!(incidents.iter().all(|incident| incident.state == IncidentState::Resolved));
    let arrived = inbox.arrived.lock().unwrap();
    let unnoted = unnoted.lock().unwrap();
    for incident in &incidents {
        let of_kind =
            |kind| arrived.iter().filter(move |one| one.incident.id == incident.id && one.kind() == kind);
        for kind in [NotificationKind::Firing, NotificationKind::Resolved] {
            let ids: BTreeSet<Uuid> = of_kind(kind).map(Notification::idempotency_id).collect();
            assert_eq!(ids.len(), 1, "one id however often it is tried");
            let of =
                |all: &BTreeMap<Uuid, usize>| ids.first().and_then(|id| all.get(id)).copied().unwrap_or(0);
            let least = 1 + of(&unnoted);
            let most = least + of(&perhaps_unnoted);
            let count = of_kind(kind).count();
            assert!((least..=most).contains(&count), "{count} times, not {least} to {most}");
        }
        let place =
            |kind| arrived.iter().position(|one| one.incident.id == incident.id && one.kind() == kind);
        assert!(place(NotificationKind::Firing) < place(NotificationKind::Resolved));
    }
    let told: BTreeSet<_> = arrived.iter().map(|one| one.incident.id).collect();
    assert_eq!(told.len(), incidents.len(), "and of nothing else");
}

async fn one_is_open_of_each(store: &impl AlertStore) {
    let all = IncidentQuery::new().page_size(PageSize::new(1_000).unwrap());
    let incidents = store.incidents(&all).await.unwrap().items;
    let open: Vec<_> =
        incidents.iter().filter(|incident| incident.is_open()).map(|open| &open.tenant_id).collect();
    assert_eq!(open.iter().collect::<BTreeSet<_>>().len(), open.len(), "two are open of one tenant");
}

#[test]
fn at_random_in_memory() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 96, failure_persistence: None, ..Config::default() });
    let played = runner.run(&steps(), |steps| {
        runtime.block_on(play(Arc::new(metertrail::MemoryStore::new()), &steps));
        Ok(())
    });
    played.unwrap();
}

#[test]
fn at_random_on_postgres() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 8, failure_persistence: None, ..Config::default() });
    let played = runner.run(&steps(), |steps| {
        runtime.block_on(async {
            let database = crate::ledger::database().await;
            play(Arc::new(crate::ledger::store(database.url())), &steps).await;
        });
        Ok(())
    });
    played.unwrap();
}
