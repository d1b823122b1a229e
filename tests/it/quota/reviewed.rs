//! What fresh eyes found.

use metertrail::quota::{Hold, Verdict};
use metertrail::testing::{Fault, FaultyStore, Method};
use metertrail::{Cost, Error, ErrorKind, TokenUsage, UsageEvent};

use super::*;

on_both_stores! {
    a_shutdown_that_ran_out_of_time_admits_nothing_and_can_be_repeated,
    other_plans_are_in_force_at_once,
    waiters_share_the_answer_that_the_store_is_down,
    units_of_an_event_that_may_be_written_are_not_sold_again,
    a_hold_of_a_window_before_the_operation_is_not_sold_again,
    an_abandoned_operation_is_charged_for_all_that_it_held,
    a_look_that_a_grant_overtook_changes_nothing,
}

fn faulty(bed: &Bed, catalogue: Catalogue) -> (FaultyStore, QuotaEnforcer) {
    let store = FaultyStore::from_arc(Arc::clone(&bed.store));
    let builder = QuotaEnforcer::builder(store.clone(), catalogue).clock(bed.clock.clone()).tick(None);
    (store, builder.store_timeout(Duration::from_secs(3)).start().unwrap())
}

async fn a_shutdown_that_ran_out_of_time_admits_nothing_and_can_be_repeated(bed: Bed) {
    let (store, quotas) = faulty(&bed, tokens(100));
    drop(hold(&quotas, 60).await.unwrap());
    store.always(Method::QuotaChanges, Fault::Hang);
    store.always(Method::GiveBack, Fault::Hang);
    let error = quotas.shutdown(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let error = quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ShutDown, "it admits after the shutdown");
    store.heal();
    quotas.shutdown(Duration::from_secs(10)).await.unwrap();
    assert!(admits(&bed.quotas(tokens(100)), 100).await, "units are stranded");
    assert_eq!(quotas.shutdown(Duration::from_secs(1)).await.unwrap_err().kind(), ErrorKind::ShutDown);
}

async fn other_plans_are_in_force_at_once(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    assert!(admits(&quotas, 100).await);
    quotas.replace_catalogue(tokens(10));
    assert!(!admits(&quotas, 11).await);
    drop(admitted_soon(&bed, &quotas, 10).await);
    // Tenants that are being resolved meanwhile do not stay on the plans of before.
    for turn in 0..50_u64 {
        let tenant = TenantId::new(format!("tenant {turn}")).unwrap();
        let asking = {
            let (quotas, tenant) = (quotas.clone(), tenant.clone());
            tokio::spawn(async move { quotas.enforce(&tenant, &Quota::Tokens, 1).await.map(drop) })
        };
        tokio::task::yield_now().await;
        let limit = if turn % 2 == 0 { 1_000 } else { 10 };
        quotas.replace_catalogue(tokens(limit));
        asking.await.unwrap().unwrap();
        let seen = quotas.check(&tenant, &Quota::Tokens, 1).await.unwrap().limits().remove(0);
        assert_eq!(seen.allowed, Allowed::AtMost(limit), "turn {turn}");
    }
}

async fn waiters_share_the_answer_that_the_store_is_down(bed: Bed) {
    let (store, quotas) = faulty(&bed, tokens(100));
    drop(quotas.tenant(&acme()).await.unwrap());
    store.always(Method::Acquire, Fault::Hang);
    let asked = std::time::Instant::now();
    let all = (0..20).map(|_| {
        let quotas = quotas.clone();
        tokio::spawn(async move { quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap().verdict() })
    });
    for asking in all.collect::<Vec<_>>() {
        assert_eq!(asking.await.unwrap(), Verdict::Unavailable);
    }
    assert!(asked.elapsed() < Duration::from_secs(20), "one after the other: {:?}", asked.elapsed());
}

async fn units_of_an_event_that_may_be_written_are_not_sold_again(bed: Bed) {
    let store = FaultyStore::from_arc(Arc::clone(&bed.store));
    let quotas = bed.quotas(tokens(100));
    let tracker =
        UsageTracker::builder(store.clone()).clock(bed.clock.clone()).quotas(&quotas).start().unwrap();
    // It is written and the answer lost; then the store refuses it for good.
    let refused = Fault::Fail(Error::new(ErrorKind::Store, "refused"));
    store.script(Method::Append, [Fault::lost_answer(), refused]);
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 60).await);
    let _ = operation.record_success(TokenUsage::total_only(60).unwrap()).await;
    assert!(!admits(&quotas, 41).await, "60 are used and were sold again");
    assert!(admits(&quotas, 40).await);
}

async fn a_hold_of_a_window_before_the_operation_is_not_sold_again(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    let late: Hold = hold(&quotas, 80).await.unwrap();
    bed.clock.advance(Duration::from_secs(24 * 60 * 60));
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(late);
    operation.record_success(TokenUsage::total_only(50).unwrap()).await.unwrap();
    // It counts where it began, and what it was admitted with stays taken.
    assert!(!admits(&quotas, 51).await, "50 of today are used");
    assert!(admits(&quotas, 50).await);
    bed.clock.set(noon());
    assert!(!admits(&bed.quotas(tokens(100)), 71).await, "at least 50 of yesterday are taken");
}

async fn an_abandoned_operation_is_charged_for_all_that_it_held(bed: Bed) {
    let pages = Quota::custom("pages").unwrap();
    let quotas = bed.quotas(catalogue([
        hard(Quota::Tokens, 100),
        hard(pages.clone(), 10),
        hard(Quota::Cost, 5_000_000_000),
    ]));
    let tracker = bed.tracker(&quotas);
    let amounts = [(Quota::Tokens, 50), (pages.clone(), 7), (Quota::Cost, 1_250_000_000)];
    let decision = quotas.enforce_multiple(&acme(), &amounts).await.unwrap();
    drop(tracker.track(&acme(), EventType::ChatMessage).hold(decision.into_hold()));
    assert!(tracker.shutdown(Duration::from_secs(10)).await.unwrap().unwritten.is_empty());
    for (quota, amount) in &amounts {
        assert_eq!(view(&quotas, quota).await.used, *amount, "{quota}");
    }
    let today = tracker.usage_today(&acme()).await.unwrap().metrics;
    assert_eq!((today.abandoned, today.cost), (1, "1.25".parse().unwrap()));
    let query = metertrail::EventQuery::new(acme(), metertrail::TimeRange::ALL);
    let event: UsageEvent = tracker.events(&query).await.unwrap().items.remove(0);
    assert_eq!(event.cost, Some(Cost::usd("1.25".parse().unwrap()).unwrap()));
}

async fn a_look_that_a_grant_overtook_changes_nothing(bed: Bed) {
    let quotas = bed.quotas(tokens(1_000_000));
    let looks = {
        let quotas = quotas.clone();
        tokio::spawn(async move {
            for _ in 0..100 {
                drop(quotas.quota_status(&acme()).await.unwrap());
            }
        })
    };
    let mut held = Vec::new();
    while !looks.is_finished() {
        held.extend(hold(&quotas, 100).await);
        if held.len() > 5_000 {
            held.clear();
        }
    }
    looks.await.unwrap();
    let taken: u64 = held.iter().map(|hold| hold.amount_of(&Quota::Tokens)).sum();
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!(seen.held, taken);
}
