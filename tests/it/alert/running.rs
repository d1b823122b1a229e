//! Engines: many at once, that die, that are silenced, whose sinks fail.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures_util::future::join_all;
use metertrail::alert::{
    AlertEngine, AlertEngineBuilder, AlertSink, HealthRule, HealthSource, IncidentQuery, IncidentState,
    Level, Notification, NotificationKind, Reading, Silence, Timing,
};
use metertrail::store::AlertStore;
use metertrail::usage::{Outcome, UsageEvent};
use metertrail::{Error, ErrorKind, EventType, Result, Store};
use tokio::sync::Notify;

use super::{Failing, Inbox, Scripted, at, label, on_both_stores, tenant};

on_both_stores!(
    many_engines_tell_once,
    what_a_process_that_dies_took_up_is_taken_over,
    a_breach_fires_when_it_lasts_and_ends_when_it_is_calm,
    silences_delay_what_still_fires_when_they_end,
    what_cannot_be_delivered_is_a_dead_letter,
    a_rule_that_fails_changes_nothing_and_hinders_nobody,
    processes_have_incidents_of_their_own,
    incidents_of_a_rule_that_is_gone_end,
);

/// An engine with a rule and no others.
fn scripted<S: Store + AlertStore>(store: &Arc<S>, rule: &Scripted) -> AlertEngineBuilder {
    AlertEngine::builder(Arc::clone(store)).no_default_rules().rule(rule.clone())
}

async fn many_engines_tell_once<S: Store + AlertStore>(store: Arc<S>) {
    let inbox = Inbox::default();
    let engines: Vec<AlertEngine> = (0..8)
        .map(|_| {
            AlertEngine::builder(Arc::clone(&store)).sink(label("inbox"), inbox.clone()).build().unwrap()
        })
        .collect();
    let refused = |name: &str| {
        UsageEvent::new(tenant(name), EventType::ChatMessage, Outcome::QuotaExceeded, at(0)).unwrap()
    };
    let names: Vec<String> = (0..25).map(|number| format!("t-{number}")).collect();
    store.append(&names.iter().map(|name| refused(name)).collect::<Vec<_>>(), &[]).await.unwrap();
    while store.roll_up(1_000).await.unwrap() > 0 {}
    for second in [0, 1, 60, 61, 3_600] {
        let reports = join_all(engines.iter().map(|engine| engine.run(at(second)))).await;
        assert!(reports.iter().all(|report| report.as_ref().is_ok_and(|report| report.failed.is_empty())));
    }
    assert_eq!(inbox.kinds(), [NotificationKind::Firing; 25]);
    let tomorrow = 13 * 3_600;
    join_all(engines.iter().map(|engine| engine.run(at(tomorrow)))).await;
    join_all(engines.iter().map(|engine| engine.run(at(tomorrow + 60)))).await;
    assert_eq!((inbox.count(NotificationKind::Firing), inbox.count(NotificationKind::Resolved)), (25, 25));
    let resolved = IncidentQuery::new().state(IncidentState::Resolved);
    assert_eq!(engines[0].incidents(&resolved).await.unwrap().items.len(), 25);
    assert_eq!(engines[0].incidents(&IncidentQuery::new()).await.unwrap().items.len(), 25);
}

/// Never comes to its end, and says that it has begun.
#[derive(Clone, Debug, Default)]
struct Hanging(Arc<Notify>);

#[async_trait]
impl AlertSink for Hanging {
    async fn deliver(&self, _notification: &Notification, _now: DateTime<Utc>) -> Result<()> {
        self.0.notify_one();
        std::future::pending().await
    }
}

async fn what_a_process_that_dies_took_up_is_taken_over<S: Store + AlertStore>(store: Arc<S>) {
    let rule = Scripted::new(Timing::new());
    rule.say("acme", Level::Breach);
    let (hanging, inbox) = (Hanging::default(), Inbox::default());
    let dying = scripted(&store, &rule).sink(label("pager"), hanging.clone()).build().unwrap();
    let living = scripted(&store, &rule).sink(label("pager"), inbox.clone()).build().unwrap();
    tokio::select! {
        _ = dying.run(at(0)) => panic!("it came to its end"),
        () = hanging.0.notified() => {}
    }
    for second in [1, 60, 119] {
        assert_eq!(living.run(at(second)).await.unwrap().delivered, 0, "the lease lasts two minutes");
    }
    assert_eq!(living.run(at(121)).await.unwrap().delivered, 1);
    assert_eq!(living.run(at(300)).await.unwrap().delivered, 0);
    assert_eq!(inbox.arrived.lock().unwrap()[0].attempt, 2);
}

async fn a_breach_fires_when_it_lasts_and_ends_when_it_is_calm<S: Store + AlertStore>(store: Arc<S>) {
    let lasting = Duration::from_secs(120);
    let rule = Scripted::new(Timing::new().pending_for(lasting).resolve_after(lasting));
    let inbox = Inbox::default();
    let engine = scripted(&store, &rule).sink(label("pager"), inbox.clone()).build().unwrap();
    let run = async |second| engine.run(at(second)).await.unwrap();
    let state = async || {
        let page = engine.incidents(&IncidentQuery::new()).await.unwrap();
        page.items.first().map(|incident| incident.state)
    };
    rule.say("acme", Level::Near);
    assert_eq!((run(0).await.opened, state().await), (0, None), "near is no reason to open one");
    rule.say("acme", Level::Breach);
    assert_eq!((run(60).await.opened, state().await), (1, Some(IncidentState::Pending)));
    rule.say("acme", Level::Near);
    assert_eq!((run(120).await.withdrawn, state().await), (1, None), "it did not last");
    rule.say("acme", Level::Breach);
    run(180).await;
    assert_eq!((run(240).await.fired, inbox.kinds().len()), (0, 0));
    assert_eq!((run(300).await.fired, state().await), (1, Some(IncidentState::Firing)));
    assert_eq!(inbox.kinds(), [NotificationKind::Firing]);
    rule.say("acme", Level::Calm);
    assert_eq!(run(360).await.resolved, 0);
    rule.say("acme", Level::Near);
    assert_eq!(run(420).await.resolved, 0);
    rule.say("acme", Level::Calm);
    run(480).await;
    assert_eq!(run(540).await.resolved, 0, "it was calm for a minute");
    assert_eq!((run(600).await.resolved, state().await), (1, Some(IncidentState::Resolved)));
    assert_eq!(inbox.kinds(), [NotificationKind::Firing, NotificationKind::Resolved]);
    let incident = engine.incidents(&IncidentQuery::new()).await.unwrap().items.remove(0);
    assert_eq!(
        (incident.opened_at, incident.fired_at, incident.calm_since, incident.resolved_at),
        (at(180), Some(at(300)), Some(at(480)), Some(at(600)))
    );
    let error = engine.acknowledge(None, incident.id, &label("eve"), at(700)).await.unwrap_err();
    assert_eq!(error.field(), Some("incident_id"), "it is another tenant's");
}

async fn silences_delay_what_still_fires_when_they_end<S: Store + AlertStore>(store: Arc<S>) {
    let rule = Scripted::new(Timing::new());
    let inbox = Inbox::default();
    let engine = scripted(&store, &rule).sink(label("pager"), inbox.clone()).build().unwrap();
    let silence =
        Silence::new(at(0), at(600), label("moving"), label("ada")).unwrap().rule(label("scripted"));
    let other = Silence::new(at(0), at(9_000), label("other"), label("ada")).unwrap().tenant(tenant("corp"));
    engine.silence(&silence).await.unwrap();
    engine.silence(&other).await.unwrap();
    rule.say("acme", Level::Breach);
    rule.say("bolt", Level::Breach);
    rule.say("corp", Level::Breach);
    let report = engine.run(at(60)).await.unwrap();
    assert_eq!((report.fired, report.delivered), (3, 0));
    rule.say("bolt", Level::Calm);
    let report = engine.run(at(120)).await.unwrap();
    assert_eq!((report.resolved, report.delivered), (1, 0), "whose beginning was not told its end is not");
    assert_eq!(engine.run(at(540)).await.unwrap().delivered, 0);
    assert_eq!(engine.run(at(600)).await.unwrap().delivered, 1, "acme still fires");
    assert_eq!(inbox.arrived.lock().unwrap()[0].incident.tenant_id, Some(tenant("acme")));
    assert!(engine.end_silence(other.id, at(650)).await.unwrap());
    assert_eq!(engine.run(at(660)).await.unwrap().delivered, 1, "corp, whose silence was ended");
    assert_eq!(engine.run(at(720)).await.unwrap().delivered, 0);
    assert!(engine.silences(at(720)).await.unwrap().is_empty());
}

/// Fails until it is told not to.
#[derive(Clone, Debug, Default)]
struct Failable {
    works: Arc<AtomicBool>,
    attempts: Arc<AtomicU32>,
    for_good: bool,
}

#[async_trait]
impl AlertSink for Failable {
    async fn deliver(&self, _notification: &Notification, _now: DateTime<Utc>) -> Result<()> {
        self.attempts.fetch_add(1, Ordering::Relaxed);
        if self.works.load(Ordering::Relaxed) {
            return Ok(());
        }
        let kind = if self.for_good { ErrorKind::Store } else { ErrorKind::Unavailable };
        Err(Error::new(kind, "it is\0 down"))
    }
}

async fn what_cannot_be_delivered_is_a_dead_letter<S: Store + AlertStore>(store: Arc<S>) {
    let rule = Scripted::new(Timing::new());
    rule.say("acme", Level::Breach);
    let down = Failable::default();
    let gone = Failable { for_good: true, ..Failable::default() };
    let (second, minute) = (Duration::from_secs(8), Duration::from_secs(64));
    let engine = scripted(&store, &rule).sink(label("down"), down.clone()).sink(label("gone"), gone.clone());
    let engine = engine.retry(4, second, minute).build().unwrap();
    let mut dead = Vec::new();
    for step in 0..40 {
        let report = engine.run(at(step * 4)).await.unwrap();
        dead.extend((report.dead > 0).then_some((step * 4, report.dead)));
    }
    let tried = |sink: &Failable| sink.attempts.load(Ordering::Relaxed);
    assert_eq!((tried(&down), tried(&gone)), (4, 1));
    assert_eq!((dead.len(), dead[0]), (2, (0, 1)), "what is final is so at once");
    // Between the halves and the wholes of 8, 16 and 32 seconds later, each up to a step late.
    assert!((28..=72).contains(&dead[1].0), "{dead:?}");
    let letters = engine.dead_letters(None).await.unwrap();
    let of_sink = |letter: &metertrail::alert::DeadLetter| {
        (letter.key.sink.to_string(), letter.attempts, letter.error.clone())
    };
    let all: Vec<_> = letters.iter().map(of_sink).collect();
    assert_eq!(
        all,
        [("down".to_owned(), 4, "it is  down".to_owned()), ("gone".to_owned(), 1, "it is  down".to_owned())]
    );
    down.works.store(true, Ordering::Relaxed);
    assert!(engine.redrive(&letters[0].key, at(200)).await.unwrap());
    assert_eq!(engine.run(at(204)).await.unwrap().delivered, 1);
    assert_eq!(engine.dead_letters(None).await.unwrap().len(), 1);
    engine.test_fire("down", at(300)).await.unwrap();
    assert_eq!(engine.test_fire("gone", at(300)).await.unwrap_err().kind(), ErrorKind::Store);
    assert_eq!(engine.test_fire("no such", at(300)).await.unwrap_err().field(), Some("sink"));
    assert_eq!(engine.incidents(&IncidentQuery::new()).await.unwrap().items.len(), 1, "a test is none");
}

async fn a_rule_that_fails_changes_nothing_and_hinders_nobody<S: Store + AlertStore>(store: Arc<S>) {
    let (rule, mut other) = (Scripted::new(Timing::new()), Scripted::new(Timing::new()));
    other.name = label("other");
    rule.say("acme", Level::Breach);
    let engine = scripted(&store, &rule).rule(other.clone()).build().unwrap();
    assert_eq!(engine.run(at(0)).await.unwrap().fired, 1);
    for (second, how) in [(60, Failing::Error), (120, Failing::Panic)] {
        rule.fail(Some(how));
        other.say(&format!("t-{second}"), Level::Breach);
        let report = engine.run(at(second)).await.unwrap();
        assert_eq!((report.failed.len(), report.evaluated, report.fired, report.resolved), (1, 1, 1, 0));
    }
    let late = 2 * 86_400;
    let report = engine.run(at(late)).await.unwrap();
    assert_eq!(report.resolved, 0, "nor are incidents of it stale");
    rule.fail(None);
    assert_eq!(engine.run(at(late + 60)).await.unwrap().opened, 0, "the incident went on");
}

/// A source whose number is the test's.
#[derive(Clone, Debug, Default)]
struct Gauge(Arc<AtomicU32>);

#[async_trait]
impl HealthSource for Gauge {
    async fn readings(&self, _now: DateTime<Utc>) -> Result<Vec<Reading>> {
        Ok(vec![Reading::new("spool_bytes", self.0.load(Ordering::Relaxed))])
    }
}

async fn processes_have_incidents_of_their_own<S: Store + AlertStore>(store: Arc<S>) {
    let process = |name: &str| {
        let gauge = Gauge::default();
        let engine = AlertEngine::builder(Arc::clone(&store)).no_default_rules().instance(label(name));
        let engine = engine
            .rule(HealthRule::above(label("spool_deep"), "spool_bytes", 100))
            .rule(HealthRule::grows(label("spool_grows"), "spool_bytes"))
            .health(gauge.clone());
        (engine.build().unwrap(), gauge)
    };
    let ((one, one_gauge), (other, other_gauge)) = (process("one"), process("other"));
    let run = async |second| {
        let (one, other) = (one.run(at(second)).await.unwrap(), other.run(at(second)).await.unwrap());
        ((one.fired, one.resolved), (other.fired, other.resolved))
    };
    assert_eq!(run(0).await, ((0, 0), (0, 0)));
    one_gauge.0.store(101, Ordering::Relaxed);
    other_gauge.0.store(50, Ordering::Relaxed);
    assert_eq!(run(60).await, ((2, 0), (1, 0)), "one is deep, both grow");
    assert_eq!(run(120).await, ((0, 1), (0, 1)), "neither grows");
    one_gauge.0.store(100, Ordering::Relaxed);
    other_gauge.0.store(500, Ordering::Relaxed);
    assert_eq!(run(180).await, ((1, 1), (2, 0)), "a count that shrinks was begun anew");
    // The other dies, and is resolved in its absence, a day later.
    one_gauge.0.store(0, Ordering::Relaxed);
    for hour in 1..=24 {
        assert!(one.run(at(hour * 3_600)).await.unwrap().fired == 0);
    }
    assert_eq!(one.run(at(25 * 3_600)).await.unwrap().resolved, 2);
}

async fn incidents_of_a_rule_that_is_gone_end<S: Store + AlertStore>(store: Arc<S>) {
    let rule = Scripted::new(Timing::new());
    rule.say("acme", Level::Breach);
    let inbox = Inbox::default();
    let with = scripted(&store, &rule).sink(label("pager"), inbox.clone()).build().unwrap();
    let without = AlertEngine::builder(Arc::clone(&store)).no_default_rules();
    let without = without
        .sink(label("pager"), inbox.clone())
        .keep_resolved(Duration::from_secs(3_600))
        .build()
        .unwrap();
    for minute in 0..90 {
        with.run(at(minute * 60)).await.unwrap();
    }
    assert_eq!(without.run(at(24 * 3_600)).await.unwrap().resolved, 0, "it was looked at since");
    assert_eq!(without.run(at(26 * 3_600)).await.unwrap().resolved, 1);
    assert_eq!(inbox.kinds(), [NotificationKind::Firing, NotificationKind::Resolved]);
    assert_eq!(without.run(at(28 * 3_600)).await.unwrap().forgotten, 1);
    assert!(without.incidents(&IncidentQuery::new()).await.unwrap().items.is_empty());
}
