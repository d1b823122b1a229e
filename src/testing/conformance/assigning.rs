//! What tenants are assigned: plans and limits of their own come back as they were given.

#![allow(clippy::missing_panics_doc)]

use std::num::NonZeroU16;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::sample::{append_new, at, event, label, must, tenant};
use crate::TenantId;
use crate::quota::{
    Allowed, Enforcement, LIMIT_AMOUNT_MAX, Limit, Override, Plan, Quota, TenantQuotas, WhenUnavailable,
    Window,
};
use crate::store::Store;
use crate::time::{BillingCycle, Every, Zone};

/// When everything happens unless a case says otherwise.
fn noon() -> DateTime<Utc> {
    at("2026-03-01T12:00:30Z")
}

/// The plan comes back, and goes; a tenant that nobody assigned has none.
pub async fn a_plan_comes_back(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut revision = quotas(store, &acme).await.revision;
    assert_eq!(quotas(store, &acme).await, TenantQuotas { revision, ..TenantQuotas::default() });
    for plan in [Some(label("pro")), Some(label("Ünlimited ' \" %")), None] {
        must("set_plan", store.set_plan(&acme, plan.as_ref(), noon()).await);
        let seen = quotas(store, &acme).await;
        assert_eq!(seen.plan, plan);
        assert!(seen.revision > revision, "the revision does not grow: {seen:?}");
        revision = seen.revision;
    }
    assert_eq!(quotas(store, &tenant("globex")).await.plan, None);
}

/// The zone comes back, and goes, and the plan stays.
pub async fn a_zone_comes_back(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    must("set_plan", store.set_plan(&acme, Some(&label("pro")), noon()).await);
    let mut revision = quotas(store, &acme).await.revision;
    for name in [Some("Europe/Berlin"), Some("America/Argentina/ComodRivadavia"), None] {
        let zone = name.map(|name| must("making a zone", Zone::new(name)));
        must("set_zone", store.set_zone(&acme, zone, noon()).await);
        let seen = quotas(store, &acme).await;
        assert_eq!((seen.zone, seen.plan.clone()), (zone, Some(label("pro"))));
        assert!(seen.revision > revision, "the revision does not grow: {seen:?}");
        revision = seen.revision;
    }
    assert_eq!(quotas(store, &tenant("globex")).await.zone, None);
}

/// Overrides come back as they were given, one for each quota and kind of window, the latest; and go.
pub async fn overrides_come_back(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let zone = must("making a zone", Zone::new("Europe/Berlin"));
    let anchor = at("2026-01-31T10:15:00Z");
    let every = [Every::MONTH, Every::Days(NonZeroU16::MAX)];
    let cycles = every.map(|every| {
        let cycle = must("making a cycle", BillingCycle::new(anchor, every, zone));
        must("making a window", Window::cycle(cycle))
    });
    let windows = [Window::Minute, Window::Hour, Window::Day, Window::Month, cycles[0], Window::Lifetime];
    let mut expected = Vec::new();
    for (number, window) in (0_u32..).zip(windows) {
        expected.push(Override {
            quota: must("making a quota", Quota::custom(if number % 2 == 0 { "tokens" } else { "pages" })),
            window,
            allowed: if number == 2 { Allowed::Unlimited } else { Allowed::AtMost(u64::from(number) << 40) },
            expires_at: (number % 2 == 1).then(|| at("2026-03-04T05:06:07.089012Z")),
            reason: (number > 2).then(|| label("a trial, \"agreed\" with Ms. O'Neill")),
        });
    }
    let mut revision = 0;
    for own in &expected {
        must("put_override", store.put_override(&acme, own, noon()).await);
        let seen = quotas(store, &acme).await.revision;
        assert!(seen > revision, "the revision does not grow");
        revision = seen;
    }
    assert_overrides(store, &acme, &expected).await;
    expected[4].window = cycles[1];
    expected[4].allowed = Allowed::AtMost(0);
    must("put_override", store.put_override(&acme, &expected[4], noon()).await);
    assert_overrides(store, &acme, &expected).await;
    assert!(quotas(store, &tenant("globex")).await.overrides.is_empty());

    must("set_plan", store.set_plan(&acme, Some(&label("pro")), noon()).await);
    let gone = expected.remove(4);
    for there in [true, false] {
        let removed = store.remove_override(&acme, &gone.quota, gone.window, noon()).await;
        assert_eq!(must("remove_override", removed), there);
        assert_overrides(store, &acme, &expected).await;
    }
    let removed = store.remove_override(&tenant("globex"), &gone.quota, gone.window, noon()).await;
    assert!(!must("remove_override of a stranger", removed));
    assert_eq!(quotas(store, &acme).await.plan, Some(label("pro")), "the plan went with the override");
}

/// Plans come back as they were given, by name, the latest of each name.
pub async fn plans_come_back(store: &Arc<dyn Store>) {
    assert!(must("plans", store.plans().await).is_empty());
    let limit = |amount| {
        must("making a limit", Limit::hard(Quota::Tokens, Window::Day, amount, WhenUnavailable::Allow))
            .with_enforcement(Enforcement::Soft)
    };
    let unlimited = Limit::unlimited(must("making a quota", Quota::custom("gpu seconds")), Window::Lifetime);
    let plan = |name, limits: Vec<Limit>| must("making a plan", Plan::new(name, limits));
    let mut expected = vec![
        plan("Z", vec![]),
        plan("a", vec![limit(0), unlimited.clone()]),
        plan("Ünlimited ' \" %", vec![unlimited]),
    ];
    for plan in expected.iter().rev() {
        must("put_plan", store.put_plan(plan).await);
    }
    assert_eq!(must("plans", store.plans().await), expected);
    expected[1] = plan("a", vec![limit(LIMIT_AMOUNT_MAX)]);
    must("put_plan", store.put_plan(&expected[1]).await);
    assert_eq!(must("plans", store.plans().await), expected);
}

/// Who was changed since is told, with the revision of now.
pub async fn changes_are_told(store: &Arc<dyn Store>) {
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let second = |second| noon() + TimeDelta::seconds(second);
    append_new(store, &[event(&tenant("initech"), noon())]).await;
    assert!(must("quota_changes", store.quota_changes(second(-1_000)).await).is_empty());
    must("set_plan", store.set_plan(&acme, Some(&label("pro")), second(0)).await);
    let own = Override {
        quota: Quota::Tokens,
        window: Window::Day,
        allowed: Allowed::Unlimited,
        expires_at: None,
        reason: None,
    };
    must("put_override", store.put_override(&globex, &own, second(5)).await);
    for (since, changed) in [(-1, vec![&acme, &globex]), (0, vec![&acme, &globex]), (1, vec![&globex])] {
        let mut expected = Vec::new();
        for own in changed {
            expected.push((own.clone(), quotas(store, own).await.revision));
        }
        assert_eq!(told(store, second(since)).await, expected, "since second {since}");
    }
    must("remove", store.remove_override(&globex, &own.quota, own.window, second(9)).await);
    assert_eq!(told(store, second(6)).await, [(globex.clone(), quotas(store, &globex).await.revision)]);
    assert!(told(store, second(10)).await.is_empty());
}

async fn told(store: &Arc<dyn Store>, since: DateTime<Utc>) -> Vec<(TenantId, u64)> {
    let mut changes = must("quota_changes", store.quota_changes(since).await);
    changes.sort();
    changes
}

async fn quotas(store: &Arc<dyn Store>, own: &TenantId) -> TenantQuotas {
    must("tenant_quotas", store.tenant_quotas(own).await)
}

async fn assert_overrides(store: &Arc<dyn Store>, own: &TenantId, expected: &[Override]) {
    let sorted = |mut overrides: Vec<Override>| {
        overrides.sort_by_key(|own| (own.quota.clone(), own.window.as_str()));
        overrides
    };
    assert_eq!(sorted(quotas(store, own).await.overrides), sorted(expected.to_vec()));
}
