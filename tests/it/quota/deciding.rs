//! What is admitted, what is refused, and what the decision says.

use metertrail::quota::{
    Allowed, Enforcement, LIMIT_AMOUNT_MAX, Limit, LimitSource, Quota, Retry, Verdict, WhenUnavailable,
    Window,
};
use metertrail::{ErrorKind, TenantId, TokenUsage};
use rust_decimal::Decimal;

use super::*;

on_both_stores! {
    a_refusal_names_all_that_is_exceeded,
    bad_input_is_refused_and_takes_nothing,
    more_than_the_whole_limit_is_never,
    a_refusal_of_one_of_three_takes_nothing_of_any,
    a_soft_limit_allows_and_says_so,
    a_shadow_limit_allows_and_says_nothing,
    unlimited_is_unlimited_and_counted,
    two_windows_of_one_quota_both_count,
    a_decision_explains_itself,
    a_check_takes_nothing,
    the_status_tells_every_limit,
    limits_come_from_override_plan_and_default,
    a_tenant_handle_decides_as_the_enforcer_does,
    nothing_is_allowed_by_a_limit_of_zero,
    after_the_shutdown_nothing_is_admitted,
}

async fn bad_input_is_refused_and_takes_nothing(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let (token, call) = (Quota::Tokens, Quota::ApiCalls);
    let cases = [
        (vec![(token.clone(), 0)], "amount"),
        (vec![(call.clone(), 1)], "quota"),
        (vec![(token.clone(), 1), (call, 1)], "quota"),
        (vec![(token.clone(), 1), (token.clone(), 1)], "quotas"),
        (vec![(token.clone(), 1), (Quota::custom("pages").unwrap(), 1)], "quota"),
    ];
    let handle = quotas.tenant(&acme()).await.unwrap();
    for warm in [false, true] {
        for (amounts, field) in &cases {
            let error = quotas.enforce_multiple(&acme(), amounts).await.unwrap_err();
            assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some(*field)), "{amounts:?}");
            let error = handle.enforce(amounts).await.unwrap_err();
            assert_eq!(error.field(), Some(*field), "{amounts:?}, by the handle");
            assert!(handle.try_enforce(amounts).is_none(), "{amounts:?}");
        }
        assert_eq!(view(&quotas, &token).await.held, 0, "warm: {warm}");
        drop(hold(&quotas, 10).await.unwrap());
    }
    assert!(admits(&quotas, 100).await);
    for error in [
        quotas.check(&acme(), &token, 0).await.unwrap_err(),
        quotas.check(&acme(), &Quota::Cost, 1).await.unwrap_err(),
        quotas.assign_plan(&acme(), Some("gold")).await.unwrap_err(),
        Limit::hard(token.clone(), Window::Day, LIMIT_AMOUNT_MAX + 1, WhenUnavailable::Deny).unwrap_err(),
        quotas
            .set_custom_quota(&acme(), &own(token.clone(), Window::Day, Allowed::AtMost(u64::MAX)))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
    assert!(quotas.custom_quotas(&acme()).await.unwrap().is_empty());
}

async fn more_than_the_whole_limit_is_never(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    for amount in [101, 1 << 50, u64::MAX] {
        let decision = quotas.enforce(&acme(), &Quota::Tokens, amount).await.unwrap();
        assert_eq!((decision.verdict(), decision.retry()), (Verdict::Refused, Some(Retry::Never)));
        assert!(decision.to_string().contains("more than the whole limit"), "{decision}");
        assert!(!decision.to_string().contains("again"), "{decision}");
    }
    assert!(admits(&quotas, 100).await);
}

async fn a_refusal_of_one_of_three_takes_nothing_of_any(bed: Bed) {
    let limits = [hard(Quota::Tokens, 100), hard(Quota::ApiCalls, 2), hard(Quota::ChatMessages, 50)];
    let quotas = bed.quotas(catalogue(limits));
    let amounts =
        |tokens, calls| [(Quota::Tokens, tokens), (Quota::ApiCalls, calls), (Quota::ChatMessages, 50)];
    let held = quotas.enforce(&acme(), &Quota::ApiCalls, 1).await.unwrap().into_hold();
    for _ in 0..5 {
        let decision = quotas.enforce_multiple(&acme(), &amounts(100, 2)).await.unwrap();
        assert_eq!(decision.blocking().unwrap().quota, Quota::ApiCalls, "{decision}");
        assert!(decision.into_hold().is_none());
    }
    assert_eq!(view(&quotas, &Quota::Tokens).await.held, 0);
    let all = quotas.enforce_multiple(&acme(), &amounts(100, 1)).await.unwrap();
    assert!(all.is_allowed(), "{all}");
    let held_of = |quota| all.limits().into_iter().find(|limit| limit.quota == quota).unwrap().remaining;
    assert_eq!(held_of(Quota::Tokens), Some(0));
    drop((held, all));
    quotas.shutdown(Duration::from_secs(10)).await.unwrap();
}

async fn a_soft_limit_allows_and_says_so(bed: Bed) {
    let soft = hard(Quota::Tokens, 100).with_enforcement(Enforcement::Soft);
    let quotas = bed.quotas(catalogue([soft]));
    let tracker = bed.tracker(&quotas);
    for (amount, passed) in [(100, false), (1, true), (500, true), (u64::MAX, true)] {
        let decision = quotas.enforce(&acme(), &Quota::Tokens, amount).await.unwrap();
        assert!(decision.is_allowed(), "{amount}: {decision}");
        assert_eq!(decision.passed().count(), usize::from(passed), "{amount}");
        if amount == 100 {
            let operation = tracker.track(&acme(), EventType::ChatMessage).hold(decision.into_hold());
            operation.record_success(TokenUsage::total_only(150).unwrap()).await.unwrap();
        }
    }
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.held, seen.remaining), (150, 0, Some(0)));
}

async fn a_shadow_limit_allows_and_says_nothing(bed: Bed) {
    let shadow = hard(Quota::Tokens, 100).with_enforcement(Enforcement::Shadow);
    let quotas = bed.quotas(catalogue([shadow]));
    for amount in [100, 101, u64::MAX] {
        let decision = quotas.enforce(&acme(), &Quota::Tokens, amount).await.unwrap();
        assert!(decision.is_allowed() && decision.passed().count() == 0, "{amount}: {decision}");
    }
}

async fn unlimited_is_unlimited_and_counted(bed: Bed) {
    let quotas = bed.quotas(catalogue([Limit::unlimited(Quota::Tokens, Window::Day)]));
    let tracker = bed.tracker(&quotas);
    let decision = quotas.enforce(&acme(), &Quota::Tokens, u64::MAX).await.unwrap();
    assert!(decision.is_allowed());
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(decision.into_hold());
    operation.record_success(TokenUsage::total_only(7_000_000_000_u64).unwrap()).await.unwrap();
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.remaining, seen.percentage()), (7_000_000_000, None, Decimal::ZERO));
    assert!(!seen.is_exceeded());
}

async fn two_windows_of_one_quota_both_count(bed: Bed) {
    let minute = Limit::hard(Quota::Tokens, Window::Minute, 60, WhenUnavailable::Deny).unwrap();
    let quotas = bed.quotas(catalogue([hard(Quota::Tokens, 100), minute]));
    let _first = hold(&quotas, 60).await.unwrap();
    let refused = quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap();
    assert_eq!(refused.blocking().unwrap().window, Window::Minute, "{refused}");
    bed.clock.advance(Duration::from_secs(60));
    let _second = hold(&quotas, 40).await.unwrap();
    let refused = quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap();
    assert_eq!(refused.blocking().unwrap().window, Window::Day, "{refused}");
}

async fn a_decision_explains_itself(bed: Bed) {
    let quotas = bed.quotas(catalogue([hard(Quota::Tokens, 200), hard(Quota::ApiCalls, 10)]));
    let tracker = bed.tracker(&quotas);
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 50).await);
    operation.record_success(TokenUsage::total_only(50).unwrap()).await.unwrap();
    let other = bed.quotas(catalogue([hard(Quota::Tokens, 200), hard(Quota::ApiCalls, 10)]));
    let _elsewhere = hold(&other, 60).await.unwrap();
    let _held = hold(&quotas, 20).await.unwrap();
    let amounts = [(Quota::ApiCalls, 1), (Quota::Tokens, 100)];
    let refused = quotas.enforce_multiple(&acme(), &amounts).await.unwrap();
    assert_eq!(refused.verdict(), Verdict::Refused);
    assert_eq!(refused.limits().len(), 2);
    let blocking = refused.blocking().unwrap().clone();
    assert_eq!((blocking.quota.clone(), blocking.window), (Quota::Tokens, Window::Day));
    assert_eq!(blocking.source, LimitSource::Plan(metertrail::Label::new("plan", "free").unwrap()));
    assert_eq!((blocking.enforcement, blocking.allowed), (Enforcement::Hard, Allowed::AtMost(200)));
    assert_eq!((blocking.used, blocking.remaining), (50, Some(70)));
    // What is at hand here and there is no hold, and yet it is leased.
    assert_eq!((blocking.held, blocking.elsewhere), (20, 60));
    assert_eq!(blocking.percentage(), Decimal::new(650, 1));
    let midnight = at("2026-03-02T00:00:00Z");
    assert_eq!((blocking.resets_at(), refused.retry()), (Some(midnight), Some(Retry::At(midnight))));
    assert_eq!(
        refused.to_string(),
        "refused: 50 of 200 tokens by day are used, 80 are held or leased, 100 were asked for; again from 2026-03-02 00:00:00 UTC"
    );
    let allowed = quotas.enforce(&acme(), &Quota::Tokens, 70).await.unwrap();
    assert_eq!((allowed.to_string().as_str(), allowed.retry()), ("allowed", None));
    assert!(allowed.blocking().is_none());
}

async fn a_check_takes_nothing(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    for _ in 0..10 {
        assert!(quotas.check(&acme(), &Quota::Tokens, 100).await.unwrap().is_allowed());
    }
    let _held = hold(&quotas, 60).await.unwrap();
    for (amount, allowed) in [(40, true), (41, false)] {
        let look = quotas.check(&acme(), &Quota::Tokens, amount).await.unwrap();
        assert_eq!(look.is_allowed(), allowed, "{amount}: {look}");
        assert_eq!(look.blocking().is_none(), allowed);
        assert!(look.into_hold().is_none());
    }
    assert!(admits(&quotas, 40).await);
}

async fn the_status_tells_every_limit(bed: Bed) {
    let limits = [hard(Quota::Tokens, 200), hard(Quota::ApiCalls, 1), hard(Quota::Embeddings, 5)];
    let quotas = bed.quotas(catalogue(limits));
    let tracker = bed.tracker(&quotas);
    let status = quotas.quota_status(&acme()).await.unwrap();
    assert_eq!((status.plan.as_str(), status.limits.len(), status.any_exceeded), ("free", 3, false));
    tracker
        .track(&acme(), EventType::ChatMessage)
        .record_success(TokenUsage::total_only(50).unwrap())
        .await
        .unwrap();
    let _held = hold(&quotas, 30).await.unwrap();
    let status = quotas.quota_status(&acme()).await.unwrap();
    let numbers = status.limits.iter().map(|limit| (limit.used, limit.held, limit.remaining));
    assert_eq!(
        numbers.collect::<Vec<_>>(),
        [(50, 30, Some(120)), (1, 0, Some(0)), (0, 0, Some(5))],
        "{status:#?}"
    );
    assert!(status.any_exceeded);
    assert_eq!(status.limits[0].percentage(), Decimal::new(400, 1));
    assert_eq!(status.limits[0].resets_at(), Some(at("2026-03-02T00:00:00Z")));
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["limits"][0]["quota"], "tokens");
}

async fn limits_come_from_override_plan_and_default(bed: Bed) {
    let default = plan("free", [hard(Quota::Tokens, 100), hard(Quota::ApiCalls, 10)]);
    let pro = plan("pro", [hard(Quota::Tokens, 1_000)]);
    let quotas = bed.quotas(Catalogue::new(default).with(pro).unwrap());
    let label = |name| metertrail::Label::new("plan", name).unwrap();
    assert_eq!(view(&quotas, &Quota::Tokens).await.source, LimitSource::Plan(label("free")));
    quotas.assign_plan(&acme(), Some("pro")).await.unwrap();
    assert_eq!(view(&quotas, &Quota::Tokens).await.source, LimitSource::Plan(label("pro")));
    assert_eq!(view(&quotas, &Quota::ApiCalls).await.source, LimitSource::Default(label("free")));
    assert!(admits(&quotas, 1_000).await);
    let custom = own(Quota::Tokens, Window::Day, Allowed::AtMost(5_000));
    quotas.set_custom_quota(&acme(), &custom).await.unwrap();
    assert_eq!(quotas.custom_quotas(&acme()).await.unwrap(), [custom]);
    assert_eq!(view(&quotas, &Quota::Tokens).await.source, LimitSource::Override);
    drop(admitted_soon(&bed, &quotas, 5_000).await);
    assert!(!admits(&quotas, 5_001).await);
    let stranger = TenantId::new("globex").unwrap();
    assert!(!quotas.enforce(&stranger, &Quota::Tokens, 101).await.unwrap().is_allowed());
    for removed in [true, false] {
        let answer = quotas.remove_custom_quota(&acme(), &Quota::Tokens, Window::Day).await.unwrap();
        assert_eq!(answer, removed);
    }
    drop(admitted_soon(&bed, &quotas, 1_000).await);
    assert!(!admits(&quotas, 1_001).await);
    quotas.assign_plan(&acme(), None).await.unwrap();
    drop(admitted_soon(&bed, &quotas, 100).await);
    assert!(!admits(&quotas, 101).await);
}

async fn a_tenant_handle_decides_as_the_enforcer_does(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let handle = quotas.tenant(&acme()).await.unwrap();
    let ask = |amount| [(Quota::Tokens, amount)];
    assert!(handle.try_enforce(&ask(1)).is_none(), "nothing is at hand yet");
    let first = handle.enforce(&ask(60)).await.unwrap();
    assert!(first.is_allowed());
    assert!(!handle.enforce(&ask(41)).await.unwrap().is_allowed());
    assert!(!admits(&quotas, 41).await);
    drop(first);
    assert!(handle.try_enforce(&ask(60)).is_some_and(|decision| decision.is_allowed()));
    let custom = own(Quota::Tokens, Window::Day, Allowed::AtMost(10));
    quotas.set_custom_quota(&acme(), &custom).await.unwrap();
    assert!(handle.try_enforce(&ask(1)).is_none(), "by limits that changed");
    assert!(!handle.enforce(&ask(11)).await.unwrap().is_allowed());
}

async fn nothing_is_allowed_by_a_limit_of_zero(bed: Bed) {
    let quotas = bed.quotas(tokens(0));
    let decision = quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap();
    assert_eq!((decision.verdict(), decision.retry()), (Verdict::Refused, Some(Retry::Never)));
    assert_eq!(view(&quotas, &Quota::Tokens).await.percentage(), Decimal::ONE_HUNDRED);
}

async fn after_the_shutdown_nothing_is_admitted(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let handle = quotas.tenant(&acme()).await.unwrap();
    drop(hold(&quotas, 50).await.unwrap());
    quotas.shutdown(Duration::from_secs(10)).await.unwrap();
    assert_eq!(quotas.shutdown(Duration::ZERO).await.unwrap_err().kind(), ErrorKind::ShutDown);
    let error = quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ShutDown);
    assert!(handle.try_enforce(&[(Quota::Tokens, 1)]).is_none());
    assert!(handle.enforce(&[(Quota::Tokens, 1)]).await.is_err());
    assert!(admits(&bed.quotas(tokens(100)), 100).await);
}

async fn a_refusal_names_all_that_is_exceeded(bed: Bed) {
    let limits = [hard(Quota::Tokens, 100), hard(Quota::ApiCalls, 10), hard(Quota::ChatMessages, 1)];
    let quotas = bed.quotas(catalogue(limits));
    let ask = async |tokens, calls, chats| {
        let amounts = [(Quota::Tokens, tokens), (Quota::ApiCalls, calls), (Quota::ChatMessages, chats)];
        quotas.enforce_multiple(&acme(), &amounts).await.unwrap()
    };
    let held = ask(90, 1, 1).await;
    assert!(held.is_allowed() && held.exceeded().next().is_none());
    for (asked, exceeded) in [
        ((11, 1, 1), vec![Quota::Tokens, Quota::ChatMessages]),
        ((10, 10, 1), vec![Quota::ApiCalls, Quota::ChatMessages]),
        ((10, 9, 1), vec![Quota::ChatMessages]),
    ] {
        let refused = ask(asked.0, asked.1, asked.2).await;
        let named: Vec<Quota> = refused.exceeded().map(|limit| limit.quota).collect();
        assert!(!refused.is_allowed() && named.contains(&refused.blocking().unwrap().quota), "{refused}");
        assert_eq!(named, exceeded, "{asked:?}");
    }
}
