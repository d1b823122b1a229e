//! The clauses of [`AlertStore`] about checks, as cases of [`alert`](super::alert).

use rust_decimal::Decimal;

use super::alert::{at, label, ok, tenant};
use crate::alert::{QuotaUse, TenantCheck};
use crate::quota::{Allowed, Override, Quota, Window};
use crate::store::{AlertStore, Store};
use crate::time::{Period, TimeRange, Zone};
use crate::usage::{Cost, Latency, Outcome, Quantile, TokenUsage, UsageEvent, UsageMetrics};

/// So many events of a tenant, a second apart.
fn some_events(name: &str, from: i64, number: u32, outcome: Outcome, latency_ms: u64) -> Vec<UsageEvent> {
    let event = |second| {
        let occurred_at = at(from + i64::from(second));
        let mut event =
            UsageEvent::started(tenant(name), crate::usage::EventType::ChatMessage, outcome, occurred_at);
        event.latency = Some(Latency::saturating(std::time::Duration::from_millis(latency_ms)));
        event.tokens = ok(TokenUsage::total_only(10));
        event.cost = Some(ok(Cost::usd(Decimal::new(25, 2))));
        event
    };
    (0..number).map(event).collect()
}

fn day(offset: i64) -> TimeRange {
    Period::Day.range_at(at(offset * 86_400), Zone::UTC)
}

async fn keep(store: &(impl AlertStore + Store), events: Vec<UsageEvent>) {
    ok(store.append(&events, &[]).await);
}

async fn found(store: &impl AlertStore, check: &TenantCheck) -> Vec<(String, Decimal, Decimal)> {
    let breaches = ok(store.breaches(check, None, 100).await);
    breaches
        .into_iter()
        .map(|found| (found.tenant_id.to_string(), found.value.normalize(), found.reference.normalize()))
        .collect()
}

/// Clause 6: what a check finds is what the events say, rolled up or not, and no tenant at its bound.
pub async fn checks_find_what_the_events_say(store: &(impl AlertStore + Store)) {
    // Three days of one dollar each, then today: acme refused, failing and dear; bolt slow; corp at every bound.
    for offset in -3..0 {
        for name in ["acme", "bolt", "corp"] {
            keep(store, some_events(name, offset * 86_400, 4, Outcome::Success, 10)).await;
        }
        ok(store.roll_up(1_000).await);
    }
    keep(store, some_events("acme", 60, 9, Outcome::Success, 10)).await;
    ok(store.roll_up(1_000).await);
    keep(store, some_events("acme", 120, 1, Outcome::Failure, 10)).await;
    keep(store, some_events("acme", 180, 2, Outcome::QuotaExceeded, 1)).await;
    keep(store, some_events("bolt", 60, 98, Outcome::Success, 10)).await;
    keep(store, some_events("bolt", 200, 2, Outcome::Success, 9_000)).await;
    keep(store, some_events("corp", 60, 8, Outcome::Success, 10)).await;
    keep(store, some_events("corp", 900, 1, Outcome::QuotaExceeded, 1)).await;
    keep(store, some_events("late", 86_400, 50, Outcome::Failure, 60_000)).await;

    let refused = |more_than| TenantCheck::QuotaExceeded { range: day(0), more_than };
    let zero = Decimal::ZERO;
    let both = [("acme".to_owned(), Decimal::TWO, zero), ("corp".to_owned(), Decimal::ONE, zero)];
    assert_eq!(found(store, &refused(0)).await, both);
    assert_eq!(found(store, &refused(1)).await.len(), 1);
    assert_eq!(found(store, &refused(2)).await.len(), 0);
    let after = ok(store.breaches(&refused(0), Some(&tenant("acme")), 100).await);
    assert_eq!(after.len(), 1, "after a tenant");
    assert_eq!(ok(store.breaches(&refused(0), None, 1).await).len(), 1, "so many at most");

    let failing = |more_than, calls_min| TenantCheck::ErrorRate { range: day(0), more_than, calls_min };
    assert_eq!(found(store, &failing(999, 10)).await, [("acme".to_owned(), Decimal::TEN, zero)]);
    assert_eq!(found(store, &failing(1_000, 10)).await, []);
    assert_eq!(found(store, &failing(999, 11)).await, []);

    let mut sketch = crate::usage::LatencySketch::new();
    sketch.record(9_000_000);
    let slowest = sketch.quantile(Quantile::MAX).unwrap_or_default();
    let slow = |quantile, more_than_us, calls_min| TenantCheck::Latency {
        range: day(0),
        quantile,
        more_than_us,
        calls_min,
    };
    let bolt = [("bolt".to_owned(), Decimal::from_i128_with_scale(slowest.into(), 3).normalize(), zero)];
    assert_eq!(found(store, &slow(Quantile::P99, 5_000_000, 100)).await, bolt);
    assert_eq!(found(store, &slow(Quantile::P99, slowest - 1, 100)).await, bolt);
    assert_eq!(found(store, &slow(Quantile::P99, slowest, 100)).await, [], "at the bound");
    assert_eq!(found(store, &slow(Quantile::P95, 5_000_000, 100)).await, [], "two of a hundred");
    assert_eq!(found(store, &slow(Quantile::P99, 5_000_000, 101)).await, [], "too few");

    let dear = |times: i64, floor: i64, history_min| TenantCheck::Cost {
        range: day(0),
        history: vec![day(-4), day(-3), day(-2), day(-1)],
        times: times.into(),
        floor: floor.into(),
        history_min,
    };
    // acme: 12 × 0.25 = 3.00 today, bolt 25.00, corp 2.25; the mean of the three days with usage is 1.00.
    let names =
        async |check| found(store, &check).await.into_iter().map(|(name, ..)| name).collect::<Vec<_>>();
    assert_eq!(names(dear(2, 1, 3)).await, ["acme", "bolt", "corp"]);
    assert_eq!(names(dear(3, 1, 3)).await, ["bolt"], "acme is at the bound");
    assert_eq!(names(dear(2, 3, 3)).await, ["acme", "bolt"], "acme is at the floor");
    assert_eq!(names(dear(2, 1, 4)).await, [""; 0], "a history of three days");
    assert_eq!(found(store, &dear(24, 1, 1)).await, [("bolt".to_owned(), 25.into(), Decimal::ONE)]);

    let uneven = ok(TimeRange::new(at(1), at(900)));
    let refused = store.breaches(&TenantCheck::QuotaExceeded { range: uneven, more_than: 0 }, None, 1).await;
    assert_eq!(refused.err().as_ref().and_then(|error| error.field()), Some("start"));
}

/// Clause 6, of limits: own, else the plan's, in the tenant's zone.
pub async fn limits_are_the_tenants_own_else_the_plans(store: &(impl AlertStore + Store)) {
    let tokyo = ok(Zone::new("Asia/Tokyo"));
    // 100 tokens each, but east, most of whose events are of tomorrow in its zone (15:00 of UTC).
    for name in ["expired", "free", "none", "other", "own", "pro", "unlimited"] {
        keep(store, some_events(name, 60, 10, Outcome::Success, 10)).await;
    }
    keep(store, some_events("east", 60, 2, Outcome::Success, 10)).await;
    keep(store, some_events("east", 15 * 3_600, 9, Outcome::Success, 10)).await;
    ok(store.set_zone(&tenant("east"), Some(tokyo), at(0)).await);
    ok(store.set_plan(&tenant("pro"), Some(&label("pro")), at(0)).await);
    ok(store.set_plan(&tenant("none"), Some(&label("nobody knows it")), at(0)).await);
    let own = |allowed, window, expires_at| Override {
        quota: Quota::Tokens,
        window,
        allowed,
        expires_at,
        reason: None,
    };
    let day = Window::Day;
    for (name, own) in [
        ("own", own(Allowed::AtMost(105), day, None)),
        ("expired", own(Allowed::AtMost(1), day, Some(at(1)))),
        ("unlimited", own(Allowed::Unlimited, day, None)),
        ("other", own(Allowed::AtMost(10), Window::Month, None)),
    ] {
        ok(store.put_override(&tenant(name), &own, at(0)).await);
    }
    let check = |window, zone, percent| {
        let plans = vec![(None, 125), (Some(label("pro")), 1_000)];
        TenantCheck::QuotaUse(QuotaUse::new(
            (Quota::Tokens, window),
            (zone, Zone::UTC),
            plans,
            percent,
            at(3_600),
        ))
    };
    let names = async |check| {
        found(store, &check).await.into_iter().map(|(name, value, _)| (name, value)).collect::<Vec<_>>()
    };
    let at_80 = names(check(day, Zone::UTC, 80)).await;
    let expected = [
        ("expired", Decimal::from(80)),
        ("free", Decimal::from(80)),
        ("other", Decimal::from(80)),
        ("own", Decimal::new(952_381, 4)),
    ];
    assert_eq!(at_80, expected.map(|(name, value)| (name.to_owned(), value)));
    assert_eq!(names(check(day, Zone::UTC, 96)).await, []);
    assert_eq!(
        names(check(day, Zone::UTC, 10)).await.last().map(|(name, _)| name.clone()),
        Some("pro".to_owned())
    );
    assert_eq!(names(check(day, tokyo, 16)).await, [("east".to_owned(), Decimal::from(16))]);
    assert_eq!(names(check(day, tokyo, 17)).await, []);
    let monthly = names(check(Window::Month, Zone::UTC, 500)).await;
    assert_eq!(monthly, [("other".to_owned(), Decimal::from(1_000))]);
    let windows = ok(store.quota_windows(at(3_600)).await);
    assert_eq!(windows.zones, [tokyo]);
    assert_eq!(windows.windows.len(), 2, "{windows:?}");

    let calls = TenantCheck::QuotaUse(QuotaUse::new(
        (Quota::Cost, day),
        (Zone::UTC, Zone::UTC),
        vec![(None, 2_500_000_000)],
        100,
        at(3_600),
    ));
    assert_eq!(
        found(store, &calls).await.len(),
        5,
        "2.50 dollars each, by those without a plan of their own"
    );
    let metrics: UsageMetrics = ok(store.usage(&tenant("free"), &[self::day(0)]).await).remove(0);
    assert_eq!(Quota::Cost.used_in(&metrics), 2_500_000_000);
}
