//! The contract of [`CostStore`] as cases. Each takes an **empty** store; [`all`] runs them one after the other.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;

use crate::cost::{
    CostBy, CostChange, CostShare, CostSharesQuery, OwnPrice, PriceBook, Prices, Reprice, reprice,
};
use crate::quota::{HolderId, LimitKey, Quota, Reconcile, Window};
use crate::store::{COST_CHANGES_MAX, CostStore};
use crate::text::Label;
use crate::time::{TIME_MIN, TimeRange};
use crate::usage::{
    Cost, EventType, Measure, Outcome, TokenClass, TokenUsage, TopConsumersQuery, UNPRICED_CEILING_MEASURE,
    UsageEvent,
};
use crate::{ErrorKind, TenantId};

/// Runs every case, each on a store of its own.
pub async fn all<S: CostStore>(mut empty_store: impl AsyncFnMut() -> S) {
    a_change_applies_once(&empty_store().await).await;
    reported_costs_are_left_alone(&empty_store().await).await;
    every_answer_follows(&empty_store().await).await;
    a_ceiling_goes_when_a_price_comes(&empty_store().await).await;
    changes_are_bounded(&empty_store().await).await;
    other_tenants_are_left_alone(&empty_store().await).await;
    a_repetition_after_a_change_is_a_duplicate(&empty_store().await).await;
    shares_are_ranked(&empty_store().await).await;
    changes_among_writers_are_exact(Arc::new(empty_store().await)).await;
}

fn ok<T>(result: crate::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

fn tenant(name: &str) -> TenantId {
    ok(TenantId::new(name))
}

fn label(text: &str) -> Label {
    ok(Label::new("label", text))
}

fn at(second: i64) -> DateTime<Utc> {
    TIME_MIN + TimeDelta::days(9_000) + TimeDelta::seconds(second)
}

fn day() -> TimeRange {
    ok(TimeRange::new(at(0), at(86_400)))
}

/// A million input tokens of a model.
fn event(second: i64, model: &str) -> UsageEvent {
    let mut event = ok(UsageEvent::new(tenant("acme"), EventType::ChatMessage, Outcome::Success, at(second)));
    event.tokens = ok(TokenUsage::reported(1_000_000, 0));
    event.model = Some(label(model));
    event
}

fn cost(dollars: i64) -> Cost {
    ok(Cost::usd(Decimal::from(dollars)))
}

fn priced(second: i64, dollars: i64) -> UsageEvent {
    let mut event = event(second, "m");
    event.cost = Some(cost(dollars));
    event.price_version = Some(label("old"));
    event
}

/// A book in which a million input tokens cost so much.
fn book(version: &str, dollars: i64) -> PriceBook {
    let price = ok(OwnPrice::builder(version)).per_million(TokenClass::Input, Decimal::from(dollars));
    PriceBook::new(Prices::new().own(ok(price.build())))
}

fn change(event: &UsageEvent, dollars: i64) -> CostChange {
    let price = book("new", dollars).price(event);
    let price = price.unwrap_or_else(|unpriced| panic!("{unpriced}"));
    CostChange::between(event, &price).unwrap_or_else(|| panic!("nothing changes"))
}

async fn kept(store: &impl CostStore, tenant_id: &TenantId) -> Vec<UsageEvent> {
    let mut events = ok(store.events(&crate::EventQuery::new(tenant_id.clone(), TimeRange::ALL)).await).items;
    events.reverse();
    events
}

async fn total(store: &impl CostStore) -> (Decimal, u64) {
    let usage = ok(store.usage(&tenant("acme"), &[day()]).await);
    (usage[0].cost, usage[0].unpriced)
}

/// A change is applied once, and only to what it was made from.
pub async fn a_change_applies_once(store: &impl CostStore) {
    let (acme, first, second) = (tenant("acme"), priced(1, 5), event(2, "m"));
    ok(store.append(&[first.clone(), second.clone()], &[]).await);
    assert_eq!(total(store).await, (Decimal::from(5), 1));
    let changes = [change(&first, 7), change(&second, 7)];
    assert_eq!(ok(store.apply_costs(&acme, &changes).await), [true, true]);
    assert_eq!(ok(store.apply_costs(&acme, &changes).await), [false, false], "told twice, applied once");
    assert_eq!(total(store).await, (Decimal::from(14), 0));
    ok(store.roll_up(u32::MAX).await);
    assert_eq!(total(store).await, (Decimal::from(14), 0));
    for event in kept(store, &acme).await {
        assert_eq!((event.cost, event.price_version), (Some(cost(7)), Some(label("new"))));
    }
    let stale = change(&first, 9);
    assert_eq!(ok(store.apply_costs(&acme, &[stale]).await), [false], "it was made from a cost that is gone");
    assert_eq!(ok(store.apply_costs(&acme, &[]).await), Vec::<bool>::new());
}

/// What a provider reported stays, and so does all else of an event.
pub async fn reported_costs_are_left_alone(store: &impl CostStore) {
    let mut reported = event(1, "m");
    reported.cost = Some(cost(3));
    ok(store.append(std::slice::from_ref(&reported), &[]).await);
    let forged = CostChange { from: None, ..change(&event(1, "m"), 7) };
    let forged = CostChange { event_id: reported.id(), ..forged };
    assert_eq!(ok(store.apply_costs(&tenant("acme"), &[forged]).await), [false]);
    let report = ok(reprice(store, &book("new", 7), &tenant("acme"), TimeRange::ALL, Reprice::Apply).await);
    assert_eq!((report.events, report.reported, report.changed), (1, 1, 0));
    assert_eq!(kept(store, &tenant("acme")).await, [reported]);
}

/// Periods, top consumers, summaries, limits and reconciling say what the events say.
pub async fn every_answer_follows(store: &impl CostStore) {
    let acme = tenant("acme");
    let events: Vec<UsageEvent> = (0..40)
        .map(|number| if number % 2 == 0 { priced(number * 997, 5) } else { event(number * 997, "m") })
        .collect();
    ok(store.append(&events[..20], &[]).await);
    ok(store.roll_up(u32::MAX).await);
    ok(store.append(&events[20..], &[]).await);

    let diff = ok(reprice(store, &book("new", 2), &acme, TimeRange::ALL, Reprice::DryRun).await);
    assert_eq!((diff.events, diff.changed, diff.applied), (40, 40, 0));
    assert_eq!((diff.cost_before, diff.cost_after), (Decimal::from(100), Decimal::from(80)));
    assert_eq!(total(store).await, (Decimal::from(100), 20), "a dry run changes nothing");
    let done = ok(reprice(store, &book("new", 2), &acme, TimeRange::ALL, Reprice::Apply).await);
    assert_eq!((done.changed, done.applied), (40, 40));
    let again = ok(reprice(store, &book("new", 2), &acme, TimeRange::ALL, Reprice::Apply).await);
    assert_eq!((again.changed, again.applied), (0, 0));

    assert_eq!(total(store).await, (Decimal::from(80), 0));
    let summary = ok(store.summary(day()).await);
    assert_eq!((summary.cost, summary.unpriced), (Decimal::from(80), 0));
    let top = ok(store.top_consumers(&ok(TopConsumersQuery::new(Measure::Cost, day(), 10))).await);
    assert_eq!(top[0].amount, Decimal::from(80));
    let key = LimitKey { quota: Quota::Cost, window: Window::Day, range: day() };
    let standing = ok(store.standing(&acme, HolderId::random(), &[key], at(0)).await);
    assert_eq!(standing[0].used, 80_000_000_000);
    let report = ok(store.reconcile(&acme, day(), Reconcile::DryRun).await);
    assert!(report.is_clean(), "{report:?}");
}

/// What counted at a ceiling counts by its price from then on.
pub async fn a_ceiling_goes_when_a_price_comes(store: &impl CostStore) {
    let mut unknown = event(1, "m");
    unknown.measures = ok(unknown.measures.with(UNPRICED_CEILING_MEASURE, Decimal::from(50)));
    unknown.measures = ok(unknown.measures.with("pages", Decimal::from(3)));
    ok(store.append(std::slice::from_ref(&unknown), &[]).await);
    let key = || LimitKey { quota: Quota::Cost, window: Window::Day, range: day() };
    let standing = ok(store.standing(&tenant("acme"), HolderId::random(), &[key()], at(0)).await);
    assert_eq!(standing[0].used, 50_000_000_000);
    assert_eq!(ok(store.apply_costs(&tenant("acme"), &[change(&unknown, 2)]).await), [true]);
    let standing = ok(store.standing(&tenant("acme"), HolderId::random(), &[key()], at(0)).await);
    assert_eq!(standing[0].used, 2_000_000_000);
    let event = kept(store, &tenant("acme")).await.remove(0);
    let measures: Vec<(&str, Decimal)> =
        event.measures.iter().map(|(name, amount)| (name.as_str(), amount)).collect();
    assert_eq!(measures, [("pages", Decimal::from(3))]);
    assert!(ok(store.reconcile(&tenant("acme"), day(), Reconcile::DryRun).await).is_clean());
}

/// Too many changes, and two for one event, are refused.
pub async fn changes_are_bounded(store: &impl CostStore) {
    let twice = vec![change(&event(1, "m"), 2); 2];
    let many: Vec<CostChange> =
        std::iter::repeat_with(|| change(&event(1, "m"), 2)).take(COST_CHANGES_MAX + 1).collect();
    for refused in [twice, many] {
        let error = store.apply_costs(&tenant("acme"), &refused).await.err();
        let (kind, field) = error.map(|error| (error.kind(), error.field().map(str::to_owned))).unzip();
        assert_eq!((kind, field.flatten().as_deref()), (Some(ErrorKind::InvalidInput), Some("changes")));
    }
}

/// A change of one tenant is none of another, though their events have one id.
pub async fn other_tenants_are_left_alone(store: &impl CostStore) {
    let acme = priced(1, 5);
    let mut other = acme.clone();
    other.tenant_id = tenant("bolt");
    ok(store.append(&[acme.clone(), other.clone()], &[]).await);
    assert_eq!(ok(store.apply_costs(&tenant("acme"), &[change(&acme, 7)]).await), [true]);
    assert_eq!(ok(store.apply_costs(&tenant("nobody"), &[change(&acme, 7)]).await), [false]);
    assert_eq!(kept(store, &tenant("bolt")).await, [other]);
}

/// A retry is the same event, whatever prices came in between.
pub async fn a_repetition_after_a_change_is_a_duplicate(store: &impl CostStore) {
    let first = priced(1, 5);
    ok(store.append(std::slice::from_ref(&first), &[]).await);
    ok(store.apply_costs(&tenant("acme"), &[change(&first, 7)]).await);
    assert_eq!(
        ok(store.append(std::slice::from_ref(&first), &[]).await),
        [crate::store::Appended::Duplicate]
    );
    assert_eq!(total(store).await, (Decimal::from(7), 0));
    let mut reported = first;
    reported.price_version = None;
    assert_eq!(ok(store.append(&[reported], &[]).await), [crate::store::Appended::Conflict]);
}

/// Shares come dearest first, equals by their names, those without one last.
pub async fn shares_are_ranked(store: &impl CostStore) {
    let mut events =
        [priced(1, 5), priced(2, 5), priced(3, 9), event(4, "unknown"), priced(5, 5), priced(6, 5)];
    for (event, (model, provider)) in
        events.iter_mut().zip([("b", "x"), ("B", "x"), ("a", "y"), ("c", "y"), ("b", "y")])
    {
        event.model = Some(label(model));
        event.provider = Some(label(provider));
    }
    events[5].model = None;
    ok(store.append(&events, &[]).await);
    let shares = async |by, range, limit| {
        ok(store.cost_shares(&ok(CostSharesQuery::new(tenant("acme"), range, by, limit))).await)
    };
    let share = |name: &str, calls, cost: i64, unpriced| {
        let name = Some(name).filter(|name| !name.is_empty()).map(label);
        CostShare::new(name, calls, calls * 1_000_000, Decimal::from(cost), unpriced)
    };
    assert_eq!(
        shares(CostBy::Model, TimeRange::ALL, 10).await,
        [
            share("b", 2, 10, 0),
            share("a", 1, 9, 0),
            share("B", 1, 5, 0),
            share("", 1, 5, 0),
            share("c", 1, 0, 1)
        ]
    );
    assert_eq!(
        shares(CostBy::Provider, TimeRange::ALL, 10).await,
        [share("y", 3, 14, 1), share("x", 2, 10, 0), share("", 1, 5, 0)]
    );
    assert_eq!(shares(CostBy::Model, TimeRange::ALL, 1).await, [share("b", 2, 10, 0)]);
    let second = ok(TimeRange::new(at(3), at(4)));
    assert_eq!(shares(CostBy::Model, second, 10).await, [share("a", 1, 9, 0)]);
}

/// Beside those who append and roll up, and several who price again, each cost counts once.
pub async fn changes_among_writers_are_exact(store: Arc<impl CostStore>) {
    let acme = tenant("acme");
    let events: Vec<UsageEvent> = (0..300).map(|number| priced(number * 61, 5)).collect();
    ok(store.append(&events[..100], &[]).await);
    let writers = async {
        for batch in events[100..].chunks(20) {
            ok(store.append(batch, &[]).await);
            ok(store.roll_up(10).await);
        }
    };
    let pricers = |dollars: i64| {
        let (store, acme) = (Arc::clone(&store), acme.clone());
        async move {
            for _ in 0..5 {
                // Two who change the same at once: what the one has done the other finds changed, or tries again.
                match reprice(&*store, &book("new", dollars), &acme, TimeRange::ALL, Reprice::Apply).await {
                    Err(error) if !error.is_transient() => panic!("{error:?}"),
                    _ => {}
                }
            }
        }
    };
    tokio::join!(writers, pricers(2), pricers(2));
    loop {
        match reprice(&*store, &book("new", 2), &acme, TimeRange::ALL, Reprice::Apply).await {
            Ok(report) => {
                assert_eq!(report.events, 300);
                break;
            }
            Err(error) => assert!(error.is_transient(), "{error:?}"),
        }
    }
    assert_eq!(total(&*store).await, (Decimal::from(600), 0));
    ok(store.roll_up(u32::MAX).await);
    assert_eq!(total(&*store).await, (Decimal::from(600), 0));
    let report = ok(store.reconcile(&acme, day(), Reconcile::DryRun).await);
    assert!(report.is_clean(), "{report:?}");
}
