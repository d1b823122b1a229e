//! What once did not hold.

use metertrail::quota::{Enforcement, Limit, Retry, WhenUnavailable, Window};
use metertrail::testing::{Fault, FaultyStore, Method};
use metertrail::{Error, ErrorKind, TokenUsage};

use super::*;

on_both_stores! {
    a_clock_days_ahead_does_not_forget_what_is_held,
    a_soft_limit_without_slices_does_not_refuse,
    a_check_of_a_soft_limit_allows,
    a_check_of_more_than_the_whole_limit_says_never,
    a_handle_does_not_admit_by_an_expired_override,
    a_rejected_event_gives_its_units_back,
    a_lost_grant_is_given_back_at_shutdown,
    a_live_hold_of_an_idle_tenant_is_not_reclaimed,
    a_live_hold_without_slices_is_not_reclaimed,
    a_change_while_others_wait_is_no_error,
    a_refusal_without_slices_names_the_limit_that_is_short,
    a_request_for_nothing_is_bad_input,
    a_change_leaves_all_units_to_be_had_at_once,
    a_jump_forth_and_back_strands_nothing,
}

async fn a_clock_days_ahead_does_not_forget_what_is_held(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let _held = hold(&quotas, 100).await.unwrap();
    bed.clock.set(noon() + chrono::TimeDelta::days(3));
    drop(hold(&quotas, 1).await.unwrap());
    bed.clock.set(noon());
    assert!(!admits(&bed.quotas(tokens(100)), 1).await, "100 of 100 are held");
}

async fn a_soft_limit_without_slices_does_not_refuse(bed: Bed) {
    let soft = hard(Quota::Tokens, 10).with_enforcement(Enforcement::Soft);
    let quotas = bed.builder(catalogue([soft, hard(Quota::ApiCalls, 10)])).direct().start().unwrap();
    let amounts = [(Quota::Tokens, 11), (Quota::ApiCalls, 1)];
    let decision = quotas.enforce_multiple(&acme(), &amounts).await.unwrap();
    assert!(decision.is_allowed(), "{decision}");
}

async fn a_check_of_a_soft_limit_allows(bed: Bed) {
    for enforcement in [Enforcement::Soft, Enforcement::Shadow] {
        let quotas = bed.quotas(catalogue([hard(Quota::Tokens, 10).with_enforcement(enforcement)]));
        assert!(quotas.enforce(&acme(), &Quota::Tokens, 11).await.unwrap().is_allowed());
        assert!(quotas.check(&acme(), &Quota::Tokens, 11).await.unwrap().is_allowed(), "{enforcement:?}");
    }
}

async fn a_check_of_more_than_the_whole_limit_says_never(bed: Bed) {
    let look = bed.quotas(tokens(10)).check(&acme(), &Quota::Tokens, 11).await.unwrap();
    assert_eq!(look.retry(), Some(Retry::Never));
}

async fn a_handle_does_not_admit_by_an_expired_override(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let mut custom = own(Quota::Tokens, Window::Day, Allowed::AtMost(500));
    custom.expires_at = Some(noon() + chrono::TimeDelta::seconds(60));
    quotas.set_custom_quota(&acme(), &custom).await.unwrap();
    let handle = quotas.tenant(&acme()).await.unwrap();
    drop(handle.enforce(&[(Quota::Tokens, 500)]).await.unwrap());
    bed.clock.advance(Duration::from_secs(61));
    let decision = handle.enforce(&[(Quota::Tokens, 400)]).await.unwrap();
    assert!(!decision.is_allowed(), "400 of 100");
}

async fn a_rejected_event_gives_its_units_back(bed: Bed) {
    let store = FaultyStore::from_arc(Arc::clone(&bed.store));
    let quotas = bed.quotas(tokens(100));
    let tracker =
        UsageTracker::builder(store.clone()).clock(bed.clock.clone()).quotas(&quotas).start().unwrap();
    store.poison(|_| true, Error::invalid("event", "is poison"));
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 60).await);
    operation.record_success(TokenUsage::total_only(90).unwrap()).await.unwrap_err();
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.held, seen.remaining), (0, 0, Some(100)), "{seen:?}");
}

async fn a_lost_grant_is_given_back_at_shutdown(bed: Bed) {
    let store = FaultyStore::from_arc(Arc::clone(&bed.store));
    let quotas = QuotaEnforcer::builder(store.clone(), tokens(100))
        .clock(bed.clock.clone())
        .tick(None)
        .start()
        .unwrap();
    store.script(Method::Acquire, [Fault::FailAfter(Error::new(ErrorKind::Unavailable, "lost"))]);
    assert!(!admits(&quotas, 60).await);
    quotas.shutdown(Duration::from_secs(10)).await.unwrap();
    assert!(admits(&bed.quotas(tokens(100)), 100).await, "60 are stranded");
}

/// Holds 60 of 100 in one process for a minute, in which the other would reclaim what is not renewed.
async fn is_not_reclaimed(bed: &Bed, quotas: &QuotaEnforcer) {
    let _held = hold(quotas, 60).await.unwrap();
    let other = bed.builder(tokens(100)).reclaim().start().unwrap();
    for _ in 0..12 {
        bed.clock.advance(Duration::from_secs(5));
        // Two rounds of upkeep: they are about a second apart.
        let round = std::time::Instant::now() + Duration::from_millis(2_100);
        crate::ledger::until("upkeep had its turn", async || std::time::Instant::now() > round).await;
        assert!(!admits(&other, 41).await, "60 of 100 are held by a live process");
    }
}

async fn a_live_hold_of_an_idle_tenant_is_not_reclaimed(bed: Bed) {
    is_not_reclaimed(&bed, &bed.quotas(tokens(100))).await;
}

async fn a_live_hold_without_slices_is_not_reclaimed(bed: Bed) {
    is_not_reclaimed(&bed, &bed.builder(tokens(100)).direct().start().unwrap()).await;
}

async fn a_change_while_others_wait_is_no_error(bed: Bed) {
    let store = FaultyStore::from_arc(Arc::clone(&bed.store));
    let quotas = QuotaEnforcer::builder(store.clone(), tokens(100))
        .clock(bed.clock.clone())
        .tick(None)
        .start()
        .unwrap();
    drop(quotas.tenant(&acme()).await.unwrap());
    store.script(Method::Acquire, [Fault::Delay(Duration::from_millis(700))]);
    let mut waiting = Vec::new();
    for _ in 0..2 {
        let quotas = quotas.clone();
        waiting.push(tokio::spawn(async move { quotas.enforce(&acme(), &Quota::Tokens, 10).await }));
    }
    crate::ledger::until("the first is asking", async || store.injected() == 1).await;
    let custom = own(Quota::Tokens, Window::Day, Allowed::AtMost(200));
    quotas.set_custom_quota(&acme(), &custom).await.unwrap();
    for task in waiting {
        let decision = task.await.unwrap();
        assert!(decision.as_ref().is_ok_and(metertrail::quota::Decision::is_allowed), "{decision:?}");
    }
}

async fn a_jump_forth_and_back_strands_nothing(bed: Bed) {
    let minute = Limit::hard(Quota::Tokens, Window::Minute, 100, WhenUnavailable::Deny).unwrap();
    let quotas = bed.quotas(catalogue([minute]));
    drop(hold(&quotas, 100).await.unwrap());
    bed.clock.set(noon() + chrono::TimeDelta::minutes(1));
    let _held = hold(&quotas, 100).await.unwrap();
    bed.clock.set(noon());
    assert!(admits(&quotas, 100).await, "nothing of the first minute is used or held");
}

async fn a_refusal_without_slices_names_the_limit_that_is_short(bed: Bed) {
    let limits = [hard(Quota::Tokens, 100), hard(Quota::ApiCalls, 2)];
    let quotas = bed.builder(catalogue(limits)).direct().start().unwrap();
    let _held = quotas.enforce(&acme(), &Quota::ApiCalls, 1).await.unwrap();
    let amounts = [(Quota::Tokens, 100), (Quota::ApiCalls, 2)];
    let refused = quotas.enforce_multiple(&acme(), &amounts).await.unwrap();
    assert_eq!(refused.blocking().unwrap().quota, Quota::ApiCalls, "{refused}");
}

async fn a_request_for_nothing_is_bad_input(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let error = quotas.enforce_multiple(&acme(), &[]).await.unwrap_err();
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("quotas")));
    assert!(quotas.tenant(&acme()).await.unwrap().try_enforce(&[]).is_none());
}

async fn a_change_leaves_all_units_to_be_had_at_once(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    drop(hold(&quotas, 100).await.unwrap());
    let custom = own(Quota::Tokens, Window::Day, Allowed::AtMost(200));
    quotas.set_custom_quota(&acme(), &custom).await.unwrap();
    assert!(admits(&quotas, 200).await, "nothing is used or held");
}
