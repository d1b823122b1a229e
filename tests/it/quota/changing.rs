//! Limits that change, and limits that come late.

use metertrail::quota::{Limit, Window};
use metertrail::{Label, TokenUsage};

use super::*;

on_both_stores! {
    another_enforcer_follows_within_moments,
    a_limit_below_what_is_used_refuses_and_heals,
    an_override_that_expired_is_not_in_force,
    a_quota_in_mid_window_starts_from_what_was_used,
    a_change_keeps_holds_and_usage,
}

/// Looks until it holds. Changes are followed about once a second; the machine may be busy.
async fn soon(bed: &Bed, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = std::time::Instant::now();
    crate::ledger::until(what, async || {
        // A refusal is repeated for a moment of this clock.
        bed.clock.advance(Duration::from_millis(50));
        holds().await
    })
    .await;
    assert!(started.elapsed() < Duration::from_secs(8), "{what}: only after {:?}", started.elapsed());
}

async fn another_enforcer_follows_within_moments(bed: Bed) {
    let of = || Catalogue::new(plan("free", [hard(Quota::Tokens, 100)]));
    let of = || of().with(plan("pro", [hard(Quota::Tokens, 1_000)])).unwrap();
    let (here, there) = (bed.quotas(of()), bed.quotas(of()));
    assert!(!admits(&there, 101).await);
    here.set_custom_quota(&acme(), &own(Quota::Tokens, Window::Day, Allowed::AtMost(200))).await.unwrap();
    let look = here.check(&acme(), &Quota::Tokens, 200).await.unwrap();
    assert!(look.is_allowed(), "at once by the one who changed it");
    soon(&bed, "a raise is followed", async || admits(&there, 200).await).await;
    here.set_custom_quota(&acme(), &own(Quota::Tokens, Window::Day, Allowed::AtMost(10))).await.unwrap();
    soon(&bed, "a cut is followed", async || !admits(&there, 11).await).await;
    assert!(here.remove_custom_quota(&acme(), &Quota::Tokens, Window::Day).await.unwrap());
    soon(&bed, "a removal is followed", async || admits(&there, 100).await).await;
    here.assign_plan(&acme(), Some("pro")).await.unwrap();
    soon(&bed, "a plan is followed", async || admits(&there, 1_000).await).await;
    here.set_custom_quota(&acme(), &own(Quota::Tokens, Window::Day, Allowed::Unlimited)).await.unwrap();
    soon(&bed, "unlimited is followed", async || admits(&there, 1_000_000_000).await).await;
}

async fn a_limit_below_what_is_used_refuses_and_heals(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 80).await);
    operation.record_success(TokenUsage::total_only(80).unwrap()).await.unwrap();
    for allowed in [50, 80] {
        let custom = own(Quota::Tokens, Window::Day, Allowed::AtMost(allowed));
        quotas.set_custom_quota(&acme(), &custom).await.unwrap();
        assert!(!admits(&quotas, 1).await, "by a limit of {allowed}");
        let seen = view(&quotas, &Quota::Tokens).await;
        assert_eq!((seen.used, seen.remaining, seen.is_exceeded()), (80, Some(0), true));
    }
    quotas.set_custom_quota(&acme(), &own(Quota::Tokens, Window::Day, Allowed::AtMost(81))).await.unwrap();
    drop(admitted_soon(&bed, &quotas, 1).await);
    assert!(!admits(&quotas, 2).await);
}

async fn an_override_that_expired_is_not_in_force(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let mut custom = own(Quota::Tokens, Window::Day, Allowed::AtMost(500));
    custom.expires_at = Some(noon() + chrono::TimeDelta::seconds(60));
    custom.reason = Some(Label::new("reason", "a trial").unwrap());
    quotas.set_custom_quota(&acme(), &custom).await.unwrap();
    assert!(admits(&quotas, 500).await);
    bed.clock.advance(Duration::from_micros(59_999_999));
    assert!(admits(&quotas, 500).await);
    bed.clock.advance(Duration::from_micros(1));
    assert!(!admits(&quotas, 101).await);
    drop(admitted_soon(&bed, &quotas, 100).await);
    assert!(!admits(&bed.quotas(tokens(100)), 101).await);
    assert_eq!(quotas.custom_quotas(&acme()).await.unwrap(), [custom], "expired ones are listed");
    // One that was over before it was given.
    let mut past = own(Quota::Tokens, Window::Day, Allowed::Unlimited);
    past.expires_at = Some(noon());
    quotas.set_custom_quota(&acme(), &past).await.unwrap();
    assert!(!admits(&quotas, 101).await);
}

async fn a_quota_in_mid_window_starts_from_what_was_used(bed: Bed) {
    let before = bed.quotas(tokens(1_000));
    let tracker = bed.tracker(&before);
    for _ in 0..7 {
        let operation = tracker.track(&acme(), EventType::Embedding).hold(hold(&before, 10).await);
        operation.record_success(TokenUsage::total_only(10).unwrap()).await.unwrap();
    }
    let embeddings = hard(Quota::Embeddings, 8);
    let month = Limit::hard(Quota::Tokens, Window::Month, 75, metertrail::quota::WhenUnavailable::Deny);
    let after = bed.quotas(catalogue([embeddings, month.unwrap()]));
    assert_eq!(
        (view(&after, &Quota::Embeddings).await.used, view(&after, &Quota::Tokens).await.used),
        (7, 70)
    );
    assert!(!admits(&after, 6).await && admits(&after, 5).await);
    let ask = async |amount| after.enforce(&acme(), &Quota::Embeddings, amount).await.unwrap().is_allowed();
    assert!(!ask(2).await && ask(1).await);
}

async fn a_change_keeps_holds_and_usage(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 60).await);
    quotas.set_custom_quota(&acme(), &own(Quota::Tokens, Window::Day, Allowed::AtMost(120))).await.unwrap();
    assert!(!admits(&quotas, 61).await, "the hold is out");
    operation.record_success(TokenUsage::total_only(20).unwrap()).await.unwrap();
    let left = admitted_soon(&bed, &quotas, 100).await;
    assert_eq!(view(&quotas, &Quota::Tokens).await.used, 20);
    drop(left);
    assert!(!admits(&quotas, 101).await);
}

/// The mission's own test of quotas, word for word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metrics_row_put_in_by_hand_is_respected() {
    let bed = Bed::postgres().await;
    let client = crate::ledger::client(bed.database.as_ref().unwrap().url()).await;
    client
        .batch_execute(
            "INSERT INTO tenant_usage_metrics (tenant_id, period_type, total_tokens_used, quota_limit)
             VALUES ('test', 'daily', 9999, 10000)",
        )
        .await
        .unwrap();
    // The row is of today by the clock of the database.
    let quotas = QuotaEnforcer::start(Arc::clone(&bed.store), tokens(10_000)).unwrap();
    let test = TenantId::new("test").unwrap();
    let decision = quotas.enforce(&test, &Quota::Tokens, 2).await.unwrap();
    assert!(!decision.is_allowed(), "{decision}");
    assert_eq!(decision.blocking().unwrap().used, 9_999);
    assert!(quotas.enforce(&test, &Quota::Tokens, 1).await.unwrap().is_allowed());
    assert!(admits(&quotas, 10_000).await, "another tenant's row");
}
