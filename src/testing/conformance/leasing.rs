//! Leases over time: holders answer for theirs, many at a time; windows that moved still count what is out of them.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::quota::{give_back, key, noon, standing_at, take};
use super::sample::{at, label, must, tenant};
use crate::TenantId;
use crate::quota::{HolderId, LimitKey, Quota, Standing, Window};
use crate::store::Store;
use crate::time::{BillingCycle, Every, Zone};

fn second(second: i64) -> DateTime<Utc> {
    noon() + TimeDelta::seconds(second)
}

async fn renew(
    store: &Arc<dyn Store>,
    held: &[(&TenantId, HolderId)],
    expires_at: DateTime<Utc>,
) -> Vec<u64> {
    let held: Vec<(TenantId, HolderId)> =
        held.iter().map(|(own, holder)| ((*own).clone(), *holder)).collect();
    let revisions = must("renew", store.renew(&held, expires_at).await);
    assert_eq!(revisions.len(), held.len(), "one answer for each holder");
    revisions
}

/// Holders of several tenants are renewed together, with all their slices; others are not, and nobody's time gets shorter.
pub async fn holders_are_renewed_together(store: &Arc<dyn Store>) {
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let (one, other) = (HolderId::random(), HolderId::random());
    let (day, month) = (key(Quota::Tokens, Window::Day), key(Quota::ApiCalls, Window::Month));
    for (own, holder) in [(&acme, one), (&acme, other), (&globex, one)] {
        for key in [&day, &month] {
            assert_eq!(take(store, own, holder, key, 100, 0, 20).await.granted, 20);
        }
    }
    assert!(renew(store, &[], second(60)).await.is_empty());
    renew(store, &[(&acme, one), (&tenant("initech"), one)], second(60)).await;
    renew(store, &[(&acme, one), (&acme, other)], second(20)).await;
    let stranger = HolderId::random();
    for (own, now, leased, forfeited) in [
        (&acme, 29, 40, 0),
        (&acme, 30, 20, 20),
        (&acme, 59, 20, 20),
        (&acme, 60, 0, 40),
        (&globex, 30, 0, 20),
    ] {
        for key in [&day, &month] {
            let seen = standing_at(store, own, stranger, key, second(now)).await;
            assert_eq!((seen.leased_elsewhere, seen.forfeited), (leased, forfeited), "{own} second {now}");
        }
    }
    let own = standing_at(store, &acme, one, &day, second(59)).await;
    assert_eq!((own.leased_here, own.granted_here), (20, 20), "a renewal grants nothing");
}

/// A renewal tells how the tenants' quotas were changed, in the order asked for.
pub async fn a_renewal_tells_revisions(store: &Arc<dyn Store>) {
    let (acme, globex, initech) = (tenant("acme"), tenant("globex"), tenant("initech"));
    let holder = HolderId::random();
    for _ in 0..3 {
        must("set_plan", store.set_plan(&acme, Some(&label("pro")), noon()).await);
    }
    must("set_plan", store.set_plan(&globex, Some(&label("pro")), noon()).await);
    take(store, &initech, holder, &key(Quota::Tokens, Window::Day), 100, 0, 1).await;
    let held = [(&globex, holder), (&initech, holder), (&acme, holder), (&globex, HolderId::random())];
    let mut expected = Vec::new();
    for (own, _) in held {
        expected.push(must("tenant_quotas", store.tenant_quotas(own).await).revision);
    }
    assert!(expected[2] > expected[0] && expected[0] > expected[1], "{expected:?}");
    assert_eq!(renew(store, &held, second(60)).await, expected);
}

/// Units of several tenants are given back together.
pub async fn units_of_several_tenants_are_given_back_together(store: &Arc<dyn Store>) {
    let holder = HolderId::random();
    let day = key(Quota::Tokens, Window::Day);
    let tenants = [tenant("acme"), tenant("globex"), tenant("initech")];
    let mut returned = Vec::new();
    for (own, total) in tenants.iter().zip([10, 20, 30]) {
        assert_eq!(take(store, own, holder, &day, 100, 0, 50).await.granted, 50);
        returned.push(crate::quota::Returned { tenant_id: own.clone(), holder, key: day.clone(), total });
    }
    must("give_back", store.give_back(&returned).await);
    for (own, leased) in tenants.iter().zip([40, 30, 20]) {
        assert_eq!(standing_at(store, own, holder, &day, noon()).await.leased_here, leased, "{own}");
    }
}

/// When a zone or an anchor changes, the new windows lie across the old: what is leased of those is not to be had of these.
pub async fn units_leased_in_an_overlapping_window_count(store: &Arc<dyn Store>) {
    let (acme, holder) = (tenant("acme"), HolderId::random());
    let zone = must("making a zone", Zone::new("Asia/Tokyo"));
    let cycle = |anchor| {
        let cycle = must("making a cycle", BillingCycle::new(at(anchor), Every::MONTH, Zone::UTC));
        let window = must("making a window", Window::cycle(cycle));
        LimitKey { quota: Quota::Tokens, window, range: window.range_at(noon(), Zone::UTC) }
    };
    let day = key(Quota::Tokens, Window::Day);
    let moved_day = LimitKey { range: Window::Day.range_at(noon(), zone), ..day.clone() };
    for (old, new) in
        [(day.clone(), moved_day), (cycle("2026-01-10T00:00:00Z"), cycle("2026-01-20T06:15:00Z"))]
    {
        assert_ne!(old.range, new.range);
        assert_eq!(take(store, &acme, holder, &old, 100, 0, 60).await.granted, 60);
        // The same holder too: it is another window, whose units it does not have at hand.
        for asking in [holder, HolderId::random()] {
            let seen = standing_at(store, &acme, asking, &new, noon()).await;
            let Standing { leased_here, leased_elsewhere, granted_here, .. } = seen;
            assert_eq!((leased_here, leased_elsewhere, granted_here), (0, 60, 0), "{new:?}");
            assert_eq!(take(store, &acme, asking, &new, 100, 0, 41).await.granted, 0, "{new:?}");
        }
        give_back(store, &acme, holder, &old, 20).await;
        assert_eq!(take(store, &acme, HolderId::random(), &new, 100, 0, 60).await.granted, 60);
    }
    // What only touches does not overlap, nor does another kind of window or another quota.
    let tomorrow = LimitKey { range: Window::Day.range_at(day.range.end(), Zone::UTC), ..day };
    for other in [tomorrow, key(Quota::Tokens, Window::Hour), key(Quota::ApiCalls, Window::Day)] {
        assert_eq!(take(store, &acme, holder, &other, 100, 0, 100).await.granted, 100, "{other:?}");
    }
}
