//! Holds and what becomes of them.

use metertrail::usage::{EventQuery, Outcome, TokenSource};
use metertrail::{TimeRange, TokenUsage};

use super::*;

on_both_stores! {
    hold_50_settle_500,
    what_was_not_used_goes_back,
    both_styles_count_once,
    a_failure_gives_all_back,
    a_failure_that_used_something_pays_for_it,
    an_abandoned_operation_pays_its_estimate,
    cancel_refunds,
    a_dropped_hold_goes_back,
    a_duplicate_pays_once,
}

async fn hold_50_settle_500(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 50).await);
    let ack = operation.record_success(TokenUsage::total_only(500).unwrap());
    // Before the store has it as well as afterwards.
    assert!(!admits(&quotas, 1).await);
    ack.await.unwrap();
    assert!(!admits(&quotas, 1).await);
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.held, seen.remaining), (500, 0, Some(0)));
    assert!(!admits(&bed.quotas(tokens(100)), 1).await);
    assert!(!admits(&bed.quotas(tokens(500)), 1).await);
    assert!(admits(&bed.quotas(tokens(501)), 1).await);
}

async fn what_was_not_used_goes_back(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 100).await);
    let ack = operation.record_success(TokenUsage::total_only(30).unwrap());
    let rest = hold(&quotas, 70).await.unwrap();
    ack.await.unwrap();
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.held, seen.remaining), (30, 70, Some(0)));
    drop(rest);
    assert!(!admits(&quotas, 71).await);
}

async fn both_styles_count_once(bed: Bed) {
    let quotas = bed.quotas(catalogue([hard(Quota::Tokens, 1_000), hard(Quota::ApiCalls, 100)]));
    let tracker = bed.tracker(&quotas);
    let amounts = [(Quota::Tokens, 10), (Quota::ApiCalls, 1)];
    for turn in 1..=10_u64 {
        let decision = quotas.enforce_multiple(&acme(), &amounts).await.unwrap();
        let operation = tracker.track(&acme(), EventType::ChatMessage);
        if turn % 2 == 0 {
            let operation = operation.hold(decision.into_hold());
            operation.record_success(TokenUsage::total_only(7).unwrap()).await.unwrap();
        } else {
            // Enforce, work, track: the hold is dropped and the record counts by itself.
            drop(decision);
            operation.record_success(TokenUsage::total_only(7).unwrap()).await.unwrap();
        }
        let seen = view(&quotas, &Quota::Tokens).await;
        assert_eq!((seen.used, seen.held, seen.remaining), (7 * turn, 0, Some(1_000 - 7 * turn)));
        assert_eq!(view(&quotas, &Quota::ApiCalls).await.used, turn);
    }
    assert!(!admits(&quotas, 931).await && admits(&quotas, 930).await);
}

async fn a_failure_gives_all_back(bed: Bed) {
    let quotas = bed.quotas(catalogue([hard(Quota::Tokens, 100), hard(Quota::ApiCalls, 1)]));
    let tracker = bed.tracker(&quotas);
    let amounts = [(Quota::Tokens, 100), (Quota::ApiCalls, 1)];
    for _ in 0..3 {
        let decision = quotas.enforce_multiple(&acme(), &amounts).await.unwrap();
        assert!(decision.is_allowed(), "{decision}");
        let operation = tracker.track(&acme(), EventType::ChatMessage).hold(decision.into_hold());
        operation.record_failure("the provider is down", metertrail::Actual::new()).await.unwrap();
        assert_eq!(view(&quotas, &Quota::Tokens).await.held, 0);
    }
}

async fn a_failure_that_used_something_pays_for_it(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 100).await);
    operation.record_failure("cut off", TokenUsage::total_only(40).unwrap()).await.unwrap();
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.held, seen.remaining), (40, 0, Some(60)));
}

async fn an_abandoned_operation_pays_its_estimate(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    drop(tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 40).await));
    let estimate = TokenUsage::total_only(25).unwrap();
    drop(tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 40).await).estimate(estimate));
    assert!(!admits(&quotas, 36).await && admits(&quotas, 35).await);
    // An acknowledged event behind them: they are written.
    tracker.track(&acme(), EventType::Search).record_rate_limit().await.unwrap();
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.held), (65, 0));
    let query = EventQuery::new(acme(), TimeRange::ALL).outcome(Outcome::Abandoned);
    let events = tracker.events(&query).await.unwrap().items;
    assert_eq!(events.iter().map(|event| event.tokens.total()).sum::<u64>(), 65);
    assert!(events.iter().all(|event| event.tokens.source() == TokenSource::Estimated), "{events:?}");
}

async fn cancel_refunds(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    for _ in 0..3 {
        tracker.track(&acme(), EventType::ChatMessage).hold(Some(hold(&quotas, 100).await.unwrap())).cancel();
    }
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.held, seen.remaining), (0, 0, Some(100)));
    let _refused = tracker
        .track(&acme(), EventType::ChatMessage)
        .hold(Some(hold(&quotas, 100).await.unwrap()))
        .session_id("")
        .unwrap_err();
    assert!(admits(&quotas, 100).await, "by a setter that refused");
}

async fn a_dropped_hold_goes_back(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let mut held = Vec::new();
    for amount in [30, 30, 40] {
        held.push(hold(&quotas, amount).await);
    }
    assert!(held.iter().all(Option::is_some));
    assert_eq!(view(&quotas, &Quota::Tokens).await.held, 100);
    assert_eq!(held[2].as_ref().unwrap().amount_of(&Quota::Tokens), 40);
    drop(held);
    assert_eq!(view(&quotas, &Quota::Tokens).await.held, 0);
    assert!(admits(&quotas, 100).await);
}

async fn a_duplicate_pays_once(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    for turn in 0..3 {
        let held = hold(&quotas, 60).await;
        assert_eq!(held.is_some(), turn == 0);
        let held = match held {
            Some(held) => held,
            None => hold(&quotas, 40).await.unwrap(),
        };
        let operation =
            tracker.track(&acme(), EventType::ChatMessage).hold(Some(held)).idempotency_key("job 1").unwrap();
        let recorded = operation.record_success(TokenUsage::total_only(60).unwrap()).await.unwrap();
        assert_eq!(recorded.duplicate, turn > 0);
        let seen = view(&quotas, &Quota::Tokens).await;
        assert_eq!((seen.used, seen.held), (60, 0), "turn {turn}");
    }
    assert!(admits(&quotas, 40).await);
}
