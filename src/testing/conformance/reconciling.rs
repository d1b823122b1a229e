//! Reconciling: of a store that nobody's hand was in nothing is found, and what does not follow is found and mended.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::{DateTime, TimeDelta, Utc};
use tokio::task::JoinSet;

use super::model::Model;
use super::sample::{
    Dice, append_among_others, append_new, at, between, event, events, must, refused, roll_up_all,
    roll_up_among_others, tenant, the_day,
};
use crate::TenantId;
use crate::page::PageSize;
use crate::quota::{
    AcquireRequest, Drift, HolderId, LimitKey, Quota, RECONCILE_DAYS_MAX, Reconcile, Reconciliation,
    Returned, Settlement, SliceName, SliceRequest, Window,
};
use crate::store::Store;
use crate::time::{TimeRange, Zone};
use crate::usage::{TokenUsage, UsageEvent};

fn noon() -> DateTime<Utc> {
    at("2026-03-01T12:00:30Z")
}

fn key(quota: Quota) -> LimitKey {
    LimitKey { quota, window: Window::Day, range: Window::Day.range_at(noon(), Zone::UTC) }
}

/// March and the days around it.
fn spring() -> TimeRange {
    between(at("2026-02-15T06:15:00Z"), at("2026-04-03T00:00:00Z"))
}

async fn reconcile(
    store: &Arc<dyn Store>,
    own: &TenantId,
    range: TimeRange,
    mode: Reconcile,
) -> Reconciliation {
    let report = reconcile_among_others(store, own, range, mode).await;
    assert_eq!((&report.tenant_id, report.range, report.mode), (own, range, mode));
    report
}

/// Reconciles although others are at work.
async fn reconcile_among_others(
    store: &Arc<dyn Store>,
    own: &TenantId,
    range: TimeRange,
    mode: Reconcile,
) -> Reconciliation {
    let mut tries = 0;
    loop {
        match store.reconcile(own, range, mode).await {
            Err(error) if error.is_transient() && tries < 200 => tries += 1,
            result => return must("reconcile", result),
        }
    }
}

async fn assert_clean(store: &Arc<dyn Store>, own: &TenantId, range: TimeRange) {
    for mode in [Reconcile::DryRun, Reconcile::Repair] {
        let report = reconcile(store, own, range, mode).await;
        assert!(report.is_clean() && report.unverifiable_total == 0, "{report:?}");
    }
}

/// Leases units of a limit to a holder.
async fn lease(store: &Arc<dyn Store>, own: &TenantId, holder: HolderId, key: &LimitKey, amount: u64) {
    let slice = SliceRequest {
        key: key.clone(),
        allowed: 1_000_000,
        known_granted: 0,
        need: amount,
        want: amount,
        unrecorded: 0,
        binding: true,
    };
    let request = AcquireRequest {
        tenant_id: own.clone(),
        holder,
        now: noon(),
        expires_at: noon() + TimeDelta::seconds(30),
        reclaim: false,
        all_or_none: false,
        slices: vec![slice],
    };
    assert_eq!(must("acquire", store.acquire(&request).await)[0].granted, amount);
}

/// Appends an event that used so many tokens, and settles as many units as told.
async fn settle(
    store: &Arc<dyn Store>,
    own: &TenantId,
    holder: HolderId,
    key: &LimitKey,
    used: u64,
    settled: u64,
) {
    let mut event = event(own, noon());
    event.tokens = must("making tokens", TokenUsage::total_only(used));
    let settlement = Settlement { event: 0, holder, key: key.clone(), amount: settled };
    must("append", store.append(&[event], &[settlement]).await);
}

/// Whatever was recorded, rolled up or not, or in part, nothing is found; and a repair that has nothing to do changes no
/// answer.
pub async fn what_nobody_touched_has_no_drift(store: &Arc<dyn Store>) {
    let tenants = ["acme", "globex", "initech"].map(tenant);
    let mut dice = Dice::new(8);
    let mut all: Vec<UsageEvent> = Vec::new();
    for round in 0..6 {
        let batch: Vec<UsageEvent> =
            (0..60).map(|number| dice.event(&tenants[number % 3], spring())).collect();
        append_new(store, &batch).await;
        all.extend(batch);
        if round % 2 == 1 {
            must("roll_up", store.roll_up(7).await);
        }
        for own in &tenants {
            assert_clean(store, own, spring()).await;
            assert_clean(store, own, the_day()).await;
        }
    }
    roll_up_all(store).await;
    assert_clean(store, &tenants[0], spring()).await;
    assert_clean(store, &tenant("hooli"), spring()).await;
    Model(&all).check(store, the_day()).await;
    Model(&all).check_summary(store, spring()).await;
}

/// While others append and roll up nothing is found, and every event counts once.
pub async fn repairs_among_writers_find_and_lose_nothing(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let stopped = Arc::new(AtomicBool::new(false));
    let mut others = JoinSet::new();
    for other in 0..3 {
        let (store, stopped, acme) = (Arc::clone(store), Arc::clone(&stopped), acme.clone());
        others.spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                if other == 0 {
                    roll_up_among_others(&store, 3).await;
                } else {
                    let report = reconcile_among_others(&store, &acme, the_day(), Reconcile::Repair).await;
                    assert!(report.is_clean(), "{report:?}");
                }
                tokio::task::yield_now().await;
            }
        });
    }
    let all = events(&acme, 240);
    let mut writers = JoinSet::new();
    for part in all.chunks(80) {
        let (store, part) = (Arc::clone(store), part.to_vec());
        writers.spawn(async move {
            for batch in part.chunks(4) {
                append_among_others(&store, batch).await;
            }
        });
    }
    writers.join_all().await;
    stopped.store(true, Ordering::Relaxed);
    others.join_all().await;
    Model(&all).check(store, the_day()).await;
    assert_clean(store, &acme, the_day()).await;
}

/// More given back and settled than was granted is found; a dry run changes nothing, a repair mends it, and the next finds
/// nothing. Other slices and other tenants stay as they are.
pub async fn more_settled_than_granted_is_found_and_mended(store: &Arc<dyn Store>) {
    let (acme, globex) = (tenant("acme"), tenant("globex"));
    let holders = [HolderId::random(), HolderId::random(), HolderId::random()];
    let tokens = key(Quota::Tokens);
    for own in [&acme, &globex] {
        for holder in holders {
            lease(store, own, holder, &tokens, 100).await;
        }
        settle(store, own, holders[0], &tokens, 150, 150).await;
        settle(store, own, holders[1], &tokens, 30, 30).await;
        let returned =
            Returned { tenant_id: own.clone(), holder: holders[1], key: tokens.clone(), total: 90 };
        must("give_back", store.give_back(&[returned]).await);
        settle(store, own, holders[2], &tokens, 40, 40).await;
    }
    let slice = |holder| SliceName {
        quota: Quota::Tokens,
        window: "day".to_owned(),
        window_start: tokens.range.start(),
        holder,
    };
    let over = |holder, returned, settled| {
        format!("{:?}", Drift::OverSettled { slice: slice(holder), granted: 100, returned, settled })
    };
    let mut expected = [over(holders[0], 0, 150), over(holders[1], 90, 30)];
    expected.sort();
    for mode in [Reconcile::DryRun, Reconcile::DryRun, Reconcile::Repair] {
        let report = reconcile(store, &acme, the_day(), mode).await;
        let mut found: Vec<String> = report.drifts.iter().map(|drift| format!("{drift:?}")).collect();
        found.sort();
        assert_eq!((found, report.drifts_total), (expected.to_vec(), 2), "{mode:?}");
    }
    assert_clean(store, &acme, the_day()).await;
    let mut standings = Vec::new();
    for holder in holders {
        let seen = store.standing(&acme, holder, std::slice::from_ref(&tokens), noon()).await;
        standings.extend(
            must("standing", seen).iter().map(|seen| (seen.used, seen.leased_here, seen.granted_here)),
        );
    }
    assert_eq!(standings, [(220, 0, 100), (220, 0, 100), (220, 60, 100)]);
    assert_eq!(
        reconcile(store, &globex, the_day(), Reconcile::DryRun).await.drifts_total,
        2,
        "another tenant"
    );
}

/// Tenants come in the byte order of their ids, those of the range, each on one page.
pub async fn tenants_come_a_page_at_a_time(store: &Arc<dyn Store>) {
    let names = ["B", "a", "acme", "acme-2", "ä b"];
    let day_before = between(the_day().start() - TimeDelta::days(1), the_day().start());
    for (position, name) in names.iter().enumerate().rev() {
        append_new(store, &events(&tenant(name), 3)).await;
        if position % 2 == 0 {
            append_new(store, &[event(&tenant(name), day_before.start())]).await;
        }
        if position == 2 {
            roll_up_all(store).await;
        }
    }
    let expected: Vec<TenantId> = names.into_iter().map(tenant).collect();
    for size in [1, 2, 4, 5, 1_000] {
        assert_eq!(all_tenants(store, the_day(), size).await, expected, "pages of {size}");
    }
    let others = [&expected[0], &expected[2], &expected[4]].map(Clone::clone);
    assert_eq!(all_tenants(store, day_before, 2).await, others);
    let after = must("tenants", store.tenants(the_day(), Some(&tenant("ab")), PageSize::default()).await);
    assert_eq!(after, expected[2..], "after one that is not there");
}

async fn all_tenants(store: &Arc<dyn Store>, range: TimeRange, size: u16) -> Vec<TenantId> {
    let page_size = must("making a page size", PageSize::new(size));
    let mut all: Vec<TenantId> = Vec::new();
    for _ in 0..100 {
        let page = must("tenants", store.tenants(range, all.last(), page_size).await);
        assert!(page.len() <= usize::from(size), "a page of {size} has {}", page.len());
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
    panic!("the pages never end");
}

/// Ranges off the quarter hour and ranges that are too long are refused.
pub async fn ranges_that_cannot_be_reconciled_are_refused(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let day = the_day();
    let second = TimeDelta::seconds(1);
    let (late, early) = (between(day.start() + second, day.end()), between(day.start(), day.end() - second));
    for (bad, field) in [(late, "start"), (early, "end")] {
        for mode in [Reconcile::DryRun, Reconcile::Repair] {
            refused(&format!("{bad}"), store.reconcile(&acme, bad, mode).await, &[field]);
        }
        refused(&format!("tenants in {bad}"), store.tenants(bad, None, PageSize::default()).await, &[field]);
    }
    let days = |days| between(day.start(), day.start() + TimeDelta::days(days));
    let longest = i64::from(RECONCILE_DAYS_MAX);
    let too_long = between(day.start(), days(longest).end() + TimeDelta::minutes(15));
    refused(
        "a range that is too long",
        store.reconcile(&acme, too_long, Reconcile::DryRun).await,
        &["range"],
    );
    assert_clean(store, &acme, days(longest)).await;
}
