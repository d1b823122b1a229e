//! Windows that move: zones and anchors of tenants; and what the upkeep of many tenants costs.

use metertrail::quota::Returned;
use metertrail::testing::{Call, Method, SpyStore};
use metertrail::time::{BillingCycle, Every};
use metertrail::{TokenUsage, Zone};

use super::*;

on_both_stores! {
    a_tenant_has_a_zone_of_its_own,
    an_override_brings_its_own_anchor,
    a_window_that_moved_does_not_sell_leased_units_again,
    a_change_by_a_clock_that_is_late_is_followed,
    many_tenants_are_looked_after_in_one_call,
    nobody_is_admitted_after_the_shutdown,
}

async fn a_tenant_has_a_zone_of_its_own(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    let record = async |amount| {
        let operation = tracker.track(&acme(), EventType::ChatMessage);
        operation.record_success(TokenUsage::total_only(amount).unwrap()).await.unwrap();
    };
    record(70).await;
    let tokyo = Zone::new("Asia/Tokyo").unwrap();
    for (zone, end, used) in [
        (None, "2026-03-02T00:00:00Z", 70),
        (Some(tokyo), "2026-03-01T15:00:00Z", 70),
        (Some(Zone::new("Pacific/Kiritimati").unwrap()), "2026-03-02T10:00:00Z", 70),
        (None, "2026-03-02T00:00:00Z", 70),
    ] {
        quotas.set_zone(&acme(), zone).await.unwrap();
        let seen = view(&quotas, &Quota::Tokens).await;
        assert!(admits(&quotas, 30).await && !admits(&quotas, 31).await, "{zone:?}");
        assert_eq!((seen.resets_at(), seen.used), (Some(at(end)), used), "{zone:?}");
        let other = quotas.enforce(&TenantId::new("globex").unwrap(), &Quota::Tokens, 100).await.unwrap();
        assert!(other.is_allowed(), "another tenant's zone");
        bed.clock.advance(Duration::from_secs(1));
    }
    // Three hours later it is tomorrow in Tokyo, and there nothing is used.
    bed.clock.advance(Duration::from_secs(3 * 60 * 60));
    assert!(!admits(&quotas, 31).await);
    quotas.set_zone(&acme(), Some(tokyo)).await.unwrap();
    assert!(admits(&quotas, 100).await);
}

async fn an_override_brings_its_own_anchor(bed: Bed) {
    let cycle =
        |anchor| Window::cycle(BillingCycle::new(at(anchor), Every::MONTH, Zone::UTC).unwrap()).unwrap();
    let (tenth, twentieth) = (cycle("2026-01-10T00:00:00Z"), cycle("2026-01-20T00:00:00Z"));
    let limit = Limit::hard(Quota::Tokens, tenth, 100, WhenUnavailable::Deny).unwrap();
    let quotas = bed.quotas(catalogue([limit]));
    let resets_at = async || view(&quotas, &Quota::Tokens).await.resets_at();
    assert_eq!(resets_at().await, Some(at("2026-03-10T00:00:00Z")));
    quotas.set_custom_quota(&acme(), &own(Quota::Tokens, twentieth, Allowed::AtMost(50))).await.unwrap();
    assert_eq!(resets_at().await, Some(at("2026-03-20T00:00:00Z")));
    assert!(admits(&quotas, 50).await && !admits(&quotas, 51).await);
    assert!(quotas.remove_custom_quota(&acme(), &Quota::Tokens, tenth).await.unwrap());
    assert_eq!(resets_at().await, Some(at("2026-03-10T00:00:00Z")));
}

async fn a_window_that_moved_does_not_sell_leased_units_again(bed: Bed) {
    let (here, there) = (bed.quotas(tokens(100)), bed.quotas(tokens(100)));
    let held = hold(&there, 60).await.unwrap();
    here.set_zone(&acme(), Some(Zone::new("Asia/Tokyo").unwrap())).await.unwrap();
    assert!(!admits(&here, 41).await, "60 are held in the old window");
    assert!(admits(&here, 40).await);
    drop(held);
    drop(admitted_soon(&bed, &here, 100).await);
}

async fn a_change_by_a_clock_that_is_late_is_followed(bed: Bed) {
    let here = bed.quotas(tokens(100));
    assert!(admits(&here, 100).await);
    // Its clock is two hours late: who asks for the changes of the last minute does not hear of it.
    let late = ManualClock::new(noon() - chrono::TimeDelta::hours(2));
    let there = QuotaEnforcer::builder(Arc::clone(&bed.store), tokens(100)).clock(late).start().unwrap();
    there.set_custom_quota(&acme(), &own(Quota::Tokens, Window::Day, Allowed::AtMost(10))).await.unwrap();
    // Whoever is used says every ten seconds that it answers for its slices, and is told.
    crate::ledger::until("the cut is followed", async || {
        bed.clock.advance(Duration::from_millis(500));
        !admits(&here, 11).await
    })
    .await;
    assert!(admits(&here, 10).await);
}

async fn many_tenants_are_looked_after_in_one_call(bed: Bed) {
    let spy = SpyStore::from_arc(Arc::clone(&bed.store));
    let quotas =
        QuotaEnforcer::builder(spy.clone(), tokens(100)).clock(bed.clock.clone()).tick(None).start().unwrap();
    let mut held = Vec::new();
    for tenant in 0..300 {
        let tenant = TenantId::new(format!("tenant {tenant}")).unwrap();
        held.push(quotas.enforce(&tenant, &Quota::Tokens, 10).await.unwrap().into_hold().unwrap());
    }
    spy.clear();
    // All are idle and hold units.
    bed.clock.advance(Duration::from_secs(11));
    crate::ledger::until("all are renewed", async || spy.count(Method::Renew) > 0).await;
    assert_eq!(spy.count(Method::Renew), 1);
    let renewed: Vec<usize> = spy
        .calls()
        .iter()
        .filter_map(|call| if let Call::Renew(held) = call { Some(held.len()) } else { None })
        .collect();
    assert_eq!(renewed, [300]);
    drop(held);
    let given_back = || -> Vec<Returned> {
        let calls = spy.calls();
        calls
            .into_iter()
            .filter_map(|call| if let Call::GiveBack(all) = call { Some(all) } else { None })
            .flatten()
            .collect()
    };
    crate::ledger::until("all is given back", async || given_back().len() >= 300).await;
    assert!(given_back().iter().all(|told| told.total == 10));
    assert!(
        spy.count(Method::GiveBack) <= 2,
        "a drop can fall into two rounds, not into {}",
        spy.count(Method::GiveBack)
    );
    assert_eq!(spy.count(Method::Acquire), 0);
}

async fn nobody_is_admitted_after_the_shutdown(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let handle = quotas.tenant(&acme()).await.unwrap();
    assert!(admits(&quotas, 1).await);
    quotas.shutdown(Duration::from_secs(10)).await.unwrap();
    for tenant in [acme(), TenantId::new("globex").unwrap()] {
        let error = quotas.enforce(&tenant, &Quota::Tokens, 1).await.unwrap_err();
        assert_eq!(error.kind(), metertrail::ErrorKind::ShutDown);
    }
    assert!(handle.try_hold(&[(Quota::Tokens, 1)]).is_none());
    assert!(handle.enforce(&[(Quota::Tokens, 1)]).await.is_err());
}
