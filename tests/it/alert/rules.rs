//! The rules that come with the crate, each on events that it must and must not find.

use std::sync::Arc;
use std::time::Duration;

use metertrail::alert::{
    AggregationOverdue, AlertEngine, Incident, IncidentQuery, IncidentState, QuotaThresholds, SealOverdue,
    Severity, Timing, UnpricedShare,
};
use metertrail::audit::{Actor, AuditLog, KbAudit};
use metertrail::quota::{Catalogue, Limit, Plan, Quota, WhenUnavailable, Window};
use metertrail::store::{AlertStore, AuditStore};
use metertrail::testing::ManualClock;
use metertrail::usage::{Cost, Latency, Outcome, TokenUsage, UsageEvent};
use metertrail::{EventType, Store};
use rust_decimal::Decimal;

use super::{at, label, on_both_stores, tenant};

on_both_stores!(
    the_five_rules_of_the_mission,
    thresholds_of_a_limit,
    unpriced_operations_are_told,
    an_unsealed_trail_is_told,
);

fn event(name: &str, second: i64, outcome: Outcome, latency_ms: u64, cents: Option<i64>) -> UsageEvent {
    let mut event = UsageEvent::new(tenant(name), EventType::ChatMessage, outcome, at(second)).unwrap();
    event.latency = Some(Latency::new(Duration::from_millis(latency_ms)).unwrap());
    event.tokens = TokenUsage::total_only(100).unwrap();
    event.cost = cents.map(|cents| Cost::usd(Decimal::new(cents, 2)).unwrap());
    event
}

fn events(name: &str, number: i64, outcome: Outcome, latency_ms: u64, cents: i64) -> Vec<UsageEvent> {
    (0..number).map(|second| event(name, second, outcome, latency_ms, Some(cents))).collect()
}

async fn firing(engine: &AlertEngine) -> Vec<Incident> {
    let query = IncidentQuery::new().state(IncidentState::Firing);
    let mut firing = engine.incidents(&query).await.unwrap().items;
    firing.sort_by_key(|incident| {
        (incident.rule.clone(), incident.tenant_id.clone(), incident.subject.clone())
    });
    firing
}

async fn the_five_rules_of_the_mission<S: Store + AlertStore>(store: Arc<S>) {
    let engine = AlertEngine::builder(Arc::clone(&store)).build().unwrap();
    let day = 86_400;
    for earlier in 1..=3 {
        store.append(&[event("dear", -earlier * day, Outcome::Success, 10, Some(100))], &[]).await.unwrap();
        store.append(&[event("steady", -earlier * day, Outcome::Success, 10, Some(100))], &[]).await.unwrap();
    }
    store.roll_up(100_000).await.unwrap();
    assert_eq!(engine.run(at(0)).await.unwrap().fired, 0);
    for batch in [
        events("refused", 1, Outcome::QuotaExceeded, 1, 0),
        // One in a hundred is the 99th percentile's; two are slow here.
        events("slow", 98, Outcome::Success, 10, 0),
        events("slow", 2, Outcome::Success, 5_100, 0),
        events("swift", 99, Outcome::Success, 10, 0),
        events("swift", 1, Outcome::Success, 5_100, 0),
        // Six of a hundred, five of a hundred, all of nineteen.
        events("failing", 94, Outcome::Success, 10, 0),
        events("failing", 6, Outcome::Failure, 10, 0),
        events("sound", 95, Outcome::Success, 10, 0),
        events("sound", 5, Outcome::Failure, 10, 0),
        events("small", 19, Outcome::Failure, 10, 0),
        // 2.01 and 2.00 dollars, against a mean of one.
        events("dear", 3, Outcome::Success, 10, 67),
        events("steady", 4, Outcome::Success, 10, 50),
        events("new", 10, Outcome::Success, 10, 900),
    ] {
        store.append(&batch, &[]).await.unwrap();
    }
    engine.run(at(901)).await.unwrap();
    let found = firing(&engine).await;
    let name = |incident: &Incident| format!("{} {}", incident.rule, incident.tenant_id.as_ref().unwrap());
    assert_eq!(
        found.iter().map(name).collect::<Vec<_>>(),
        ["cost_anomaly dear", "high_error_rate failing", "high_latency slow", "quota_exceeded refused"]
    );
    let values =
        |at: usize| (found[at].value.normalize().to_string(), found[at].threshold.normalize().to_string());
    assert_eq!(values(0), ("2.01".to_owned(), "2".to_owned()));
    assert_eq!(values(1), ("6".to_owned(), "5".to_owned()));
    assert_eq!(found[2].threshold, Decimal::from(5_000));
    assert!((found[2].value - Decimal::from(5_100)).abs() <= Decimal::from(5_100 / 128 + 1));
    assert_eq!(values(3), ("1".to_owned(), "0".to_owned()));

    // Nobody rolls up. In memory there is nothing to be rolled up.
    let is_waiting = store.aggregation_backlog().await.unwrap().oldest.is_some();
    let overdue = async || {
        firing(&engine).await.iter().filter(|one| one.rule.as_str() == "aggregation_overdue").count()
    };
    engine.run(at(44 * 60)).await.unwrap();
    engine.run(at(50 * 60)).await.unwrap();
    assert_eq!(overdue().await, 0, "for less than half an hour after the quarter hour");
    engine.run(at(52 * 60)).await.unwrap();
    engine.run(at(57 * 60)).await.unwrap();
    assert_eq!(overdue().await, usize::from(is_waiting));
    while store.roll_up(100_000).await.unwrap() > 0 {}
    engine.run(at(59 * 60)).await.unwrap();
    assert_eq!(overdue().await, 0);
    engine.run(at(day)).await.unwrap();
    engine.run(at(day + 3_600)).await.unwrap();
    assert!(firing(&engine).await.is_empty(), "the day, and the last quarter hours, are over");
}

async fn thresholds_of_a_limit<S: Store + AlertStore>(store: Arc<S>) {
    let limit = |amount| Limit::hard(Quota::Tokens, Window::Day, amount, WhenUnavailable::Deny).unwrap();
    let catalogue = Catalogue::new(Plan::new("free", [limit(1_000)]).unwrap());
    let catalogue = catalogue.with(Plan::new("pro", [limit(10_000)]).unwrap()).unwrap();
    let rule = QuotaThresholds::new(catalogue).unwrap().timing(Timing::new());
    let engine = AlertEngine::builder(Arc::clone(&store)).no_default_rules().rule(rule).build().unwrap();
    store.set_plan(&tenant("pro"), Some(&label("pro")), at(0)).await.unwrap();
    store.append(&events("four", 4, Outcome::Success, 1, 0), &[]).await.unwrap();
    store.append(&events("eight", 8, Outcome::Success, 1, 0), &[]).await.unwrap();
    store.append(&events("pro", 60, Outcome::Success, 1, 0), &[]).await.unwrap();
    assert_eq!(engine.run(at(100)).await.unwrap().fired, 3);
    let shown = |incident: &Incident| {
        let subject = incident.subject.as_ref().unwrap();
        format!(
            "{} {subject} {} {}",
            incident.tenant_id.as_ref().unwrap(),
            incident.severity,
            incident.value.normalize()
        )
    };
    let found = firing(&engine).await;
    assert_eq!(
        found.iter().map(shown).collect::<Vec<_>>(),
        ["eight tokens/day 50 % info 80", "eight tokens/day 80 % warning 80", "pro tokens/day 50 % info 60"]
    );
    store
        .append(
            &[event("eight", 30, Outcome::Success, 1, None), event("eight", 31, Outcome::Success, 1, None)],
            &[],
        )
        .await
        .unwrap();
    assert_eq!(engine.run(at(160)).await.unwrap().fired, 1, "the hundredth per cent");
    assert_eq!(firing(&engine).await.iter().filter(|one| one.severity == Severity::Critical).count(), 1);
    assert_eq!(engine.run(at(12 * 3_600)).await.unwrap().resolved, 4, "the window is over");
}

async fn unpriced_operations_are_told<S: Store + AlertStore>(store: Arc<S>) {
    let rule = UnpricedShare::new().unwrap().timing(Timing::new());
    let engine = AlertEngine::builder(Arc::clone(&store)).no_default_rules().rule(rule).build().unwrap();
    store.append(&events("acme", 198, Outcome::Success, 1, 1), &[]).await.unwrap();
    store
        .append(
            &[event("acme", 0, Outcome::Success, 1, None), event("acme", 1, Outcome::Success, 1, None)],
            &[],
        )
        .await
        .unwrap();
    assert_eq!(engine.run(at(300)).await.unwrap().fired, 0, "two of two hundred are at the bound");
    store.append(&[event("bolt", 0, Outcome::Success, 1, None)], &[]).await.unwrap();
    assert_eq!(engine.run(at(360)).await.unwrap().fired, 1);
}

async fn an_unsealed_trail_is_told<S: Store + AlertStore + AuditStore>(store: Arc<S>) {
    let trail: Arc<dyn AuditStore> = Arc::<S>::clone(&store);
    let clock = ManualClock::new(at(0));
    let log = AuditLog::builder(Arc::clone(&trail)).clock(clock.clone()).seal_interval(None).start().unwrap();
    let rule = SealOverdue::new(trail).unwrap().timing(Timing::new());
    let overdue = AggregationOverdue::new().unwrap();
    let engine = AlertEngine::builder(store).no_default_rules().rule(overdue).rule(rule).build().unwrap();
    assert_eq!(engine.run(at(0)).await.unwrap().fired, 0);
    let record = KbAudit::ManualAdded { document: label("d"), bytes: 7 };
    let event = log.event(&tenant("acme"), Actor::user("u").unwrap(), &record).unwrap();
    log.record(event).await.unwrap();
    assert_eq!(engine.run(at(3_600)).await.unwrap().fired, 0);
    assert_eq!(engine.run(at(3_660)).await.unwrap().fired, 1);
    log.seal_epoch().await.unwrap();
    assert_eq!(engine.run(at(3_720)).await.unwrap().resolved, 1);
}
