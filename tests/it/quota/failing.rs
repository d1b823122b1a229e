//! A store that goes down in mid-run, and answers that are lost.

use metertrail::quota::{Hold, Limit, Retry, Verdict, WhenUnavailable, Window};
use metertrail::testing::{Fault, FaultyStore, Method};
use metertrail::{Error, ErrorKind};

use super::*;

on_both_stores! {
    deny_refuses_and_does_not_call_it_the_quota,
    allow_allows_and_counts_it,
    units_at_hand_still_admit,
    one_limit_that_denies_is_enough,
    lost_answers_never_over_admit_and_units_are_found,
    a_tenant_whose_limits_cannot_be_read_has_the_default_plans_policies,
    units_that_could_not_be_given_back_are_not_sold_twice,
}

fn limit(amount: u64, when_unavailable: WhenUnavailable) -> Limit {
    Limit::hard(Quota::Tokens, Window::Day, amount, when_unavailable).unwrap()
}

fn faulty(bed: &Bed, catalogue: Catalogue) -> (FaultyStore, QuotaEnforcer) {
    let store = FaultyStore::from_arc(Arc::clone(&bed.store));
    let quotas = QuotaEnforcer::builder(store.clone(), catalogue)
        .clock(bed.clock.clone())
        .tick(None)
        .store_timeout(Duration::from_secs(2))
        .start()
        .unwrap();
    (store, quotas)
}

fn faults() -> [Fault; 4] {
    [Fault::unavailable(), Fault::lost_answer(), Fault::Hang, Fault::HangAfter]
}

async fn deny_refuses_and_does_not_call_it_the_quota(bed: Bed) {
    for fault in faults() {
        let (store, quotas) = faulty(&bed, catalogue([limit(100, WhenUnavailable::Deny)]));
        drop(quotas.tenant(&acme()).await.unwrap());
        store.always(Method::Acquire, fault.clone());
        let decision = quotas.enforce(&acme(), &Quota::Tokens, 20).await.unwrap();
        assert_eq!(
            (decision.verdict(), decision.retry()),
            (Verdict::Unavailable, Some(Retry::WhenAvailable))
        );
        assert!(!decision.is_allowed());
        let text = decision.to_string();
        assert!(text.contains("cannot be reached") && !text.contains("are used"), "{fault:?}: {text}");
        assert!(decision.into_hold().is_none());
        assert_eq!(quotas.allowed_unchecked(), 0);
        // More than the whole limit is still never.
        let never = quotas.enforce(&acme(), &Quota::Tokens, 101).await.unwrap();
        assert_eq!((never.verdict(), never.retry()), (Verdict::Refused, Some(Retry::Never)));
        store.heal();
        assert!(admits(&quotas, 100).await, "after {fault:?}");
        quotas.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}

async fn allow_allows_and_counts_it(bed: Bed) {
    let (store, quotas) = faulty(&bed, catalogue([limit(100, WhenUnavailable::Allow)]));
    drop(quotas.tenant(&acme()).await.unwrap());
    for (turn, fault) in (1_u64..).zip(faults()) {
        store.always(Method::Acquire, fault.clone());
        let decision = quotas.enforce(&acme(), &Quota::Tokens, 90).await.unwrap();
        assert!(decision.is_allowed(), "{fault:?}: {decision}");
        assert_eq!((decision.retry(), quotas.allowed_unchecked()), (None, turn));
        // What was there after all goes back with the hold.
        drop(decision);
    }
    store.heal();
    assert!(admits(&quotas, 100).await);
    assert_eq!(view(&quotas, &Quota::Tokens).await.held, 0);
}

async fn units_at_hand_still_admit(bed: Bed) {
    let (store, quotas) = faulty(&bed, catalogue([limit(1_000, WhenUnavailable::Deny)]));
    drop(hold(&quotas, 50).await.unwrap());
    for method in [Method::Acquire, Method::TenantQuotas, Method::QuotaChanges, Method::Standing] {
        store.always(method, Fault::unavailable());
    }
    let held = hold(&quotas, 50).await.unwrap();
    let refused = quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap();
    assert_eq!(refused.verdict(), Verdict::Unavailable);
    drop(held);
    assert!(admits(&quotas, 50).await);
    assert_eq!(quotas.quota_status(&acme()).await.unwrap_err().kind(), ErrorKind::Unavailable);
}

async fn one_limit_that_denies_is_enough(bed: Bed) {
    let calls = Limit::hard(Quota::ApiCalls, Window::Day, 10, WhenUnavailable::Allow).unwrap();
    let (store, quotas) = faulty(&bed, catalogue([calls, limit(100, WhenUnavailable::Deny)]));
    drop(quotas.tenant(&acme()).await.unwrap());
    store.always(Method::Acquire, Fault::unavailable());
    let both = [(Quota::ApiCalls, 1), (Quota::Tokens, 1)];
    let decision = quotas.enforce_multiple(&acme(), &both).await.unwrap();
    assert_eq!(decision.verdict(), Verdict::Unavailable);
    assert_eq!(decision.blocking().unwrap().quota, Quota::Tokens);
    assert!(quotas.enforce(&acme(), &Quota::ApiCalls, 1).await.unwrap().is_allowed());
    assert_eq!(quotas.allowed_unchecked(), 1);
}

async fn lost_answers_never_over_admit_and_units_are_found(bed: Bed) {
    let both = [0, 1].map(|_| faulty(&bed, catalogue([limit(1_000, WhenUnavailable::Deny)])));
    let mut dice = crate::ledger::Dice::printed("lost_answers");
    let lost = || Fault::FailAfter(Error::new(ErrorKind::Unavailable, "the answer was lost"));
    let mut held: Vec<Hold> = Vec::new();
    let mut sum = 0;
    for (store, quotas) in &both {
        drop(quotas.tenant(&acme()).await.unwrap());
        store.script(Method::Acquire, [lost()]);
    }
    for turn in 0..200_usize {
        let (store, quotas) = &both[turn % 2];
        match dice.below(4) {
            0 => store.script(Method::Acquire, [lost()]),
            1 => store.script(Method::Acquire, [Fault::unavailable()]),
            _ => {}
        }
        let amount = 1 + dice.below(20);
        if let Some(taken) = hold(quotas, amount).await {
            sum += amount;
            held.push(taken);
        }
        assert!(sum <= 1_000, "{sum} of 1,000 are held");
    }
    assert!(both.iter().all(|(store, _)| store.injected() > 5));
    for (store, _) in &both {
        store.heal();
    }
    drop(held);
    for (_, quotas) in &both {
        // Each finds what was lost on its way to it, by its next request, and the other gets it when it is given back.
        bed.clock.advance(Duration::from_secs(1));
        drop(hold(quotas, 900).await);
    }
    for (_, quotas) in &both {
        quotas.shutdown(Duration::from_secs(10)).await.unwrap();
    }
    assert!(admits(&bed.quotas(tokens(1_000)), 1_000).await);
}

async fn a_tenant_whose_limits_cannot_be_read_has_the_default_plans_policies(bed: Bed) {
    for (when_unavailable, verdict) in
        [(WhenUnavailable::Deny, Verdict::Unavailable), (WhenUnavailable::Allow, Verdict::Allowed)]
    {
        let (store, quotas) = faulty(&bed, catalogue([limit(100, when_unavailable)]));
        for fault in faults() {
            store.script(Method::TenantQuotas, [fault]);
            let decision = quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap();
            assert_eq!(decision.verdict(), verdict);
            assert!(!decision.to_string().contains("are used"), "{decision}");
        }
        let unchecked = if verdict == Verdict::Allowed { 4 } else { 0 };
        assert_eq!(quotas.allowed_unchecked(), unchecked);
        store.script(Method::TenantQuotas, [Fault::unavailable()]);
        let error = quotas.enforce(&acme(), &Quota::Embeddings, 1).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "the tenant's own plan may name it");
        // Nothing of it is kept: once the store is back the tenant's own limits count, whole.
        assert!(admits(&quotas, 100).await);
        assert!(!admits(&quotas, 101).await);
        quotas.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}

async fn units_that_could_not_be_given_back_are_not_sold_twice(bed: Bed) {
    for fault in faults() {
        bed.clock.advance(Duration::from_secs(24 * 60 * 60));
        let (store, quotas) = faulty(&bed, catalogue([limit(100, WhenUnavailable::Deny)]));
        let kept = hold(&quotas, 30).await.unwrap();
        drop(hold(&quotas, 50).await.unwrap());
        store.always(Method::GiveBack, fault.clone());
        assert_eq!(
            quotas.shutdown(Duration::from_secs(10)).await.unwrap_err().kind(),
            ErrorKind::Unavailable
        );
        let other = bed.quotas(tokens(100));
        assert!(!admits(&other, 71).await, "{fault:?}: 30 are held");
        drop(kept);
    }
}
