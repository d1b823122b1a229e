//! Windows that roll over, and clocks that jump.

use metertrail::quota::{Limit, WhenUnavailable, Window};
use metertrail::{TokenUsage, Zone};

use super::*;

on_both_stores! {
    a_minute_rolls_over,
    a_day_of_23_hours_rolls_over_at_local_midnight,
    a_day_of_25_hours_rolls_over_at_local_midnight,
    a_hold_settles_in_its_own_window,
    clocks_that_jump_never_over_admit,
}

async fn a_minute_rolls_over(bed: Bed) {
    let minute = Limit::hard(Quota::Tokens, Window::Minute, 100, WhenUnavailable::Deny).unwrap();
    let quotas = bed.quotas(catalogue([minute]));
    for _ in 0..4 {
        let _held = hold(&quotas, 100).await.unwrap();
        assert!(!admits(&quotas, 1).await);
        bed.clock.advance(Duration::from_millis(29_999));
        assert!(!admits(&quotas, 1).await, "within the minute");
        bed.clock.advance(Duration::from_millis(1));
        assert!(admits(&quotas, 100).await, "in the next minute");
        bed.clock.advance(Duration::from_secs(30));
    }
}

async fn a_day_of_23_hours_rolls_over_at_local_midnight(bed: Bed) {
    // In Berlin the day begins at 23:00 UTC, and the next one, after the change, at 22:00 UTC.
    bed.clock.set(at("2026-03-28T23:00:00Z"));
    let zone = Zone::new("Europe/Berlin").unwrap();
    let quotas = bed.builder(tokens(100)).zone(zone).start().unwrap();
    let _held = hold(&quotas, 100).await.unwrap();
    bed.clock.set(at("2026-03-29T21:59:59.999999Z"));
    let refused = quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap();
    assert_eq!(refused.blocking().unwrap().resets_at(), Some(at("2026-03-29T22:00:00Z")), "{refused}");
    bed.clock.set(at("2026-03-29T22:00:00Z"));
    assert!(admits(&quotas, 100).await);
}

async fn a_day_of_25_hours_rolls_over_at_local_midnight(bed: Bed) {
    // The hour from two to three in the night comes twice: both belong to the same day, and what is used in the first
    // counts in the second.
    bed.clock.set(at("2026-10-25T00:30:00Z"));
    let zone = Zone::new("Europe/Berlin").unwrap();
    let quotas = bed.builder(tokens(100)).zone(zone).start().unwrap();
    let _held = hold(&quotas, 100).await.unwrap();
    for instant in ["2026-10-25T01:30:00Z", "2026-10-25T22:00:00Z", "2026-10-25T22:59:59.999999Z"] {
        bed.clock.set(at(instant));
        let refused = quotas.enforce(&acme(), &Quota::Tokens, 1).await.unwrap();
        assert_eq!(refused.blocking().unwrap().resets_at(), Some(at("2026-10-25T23:00:00Z")), "{refused}");
    }
    bed.clock.set(at("2026-10-25T23:00:00Z"));
    assert!(admits(&quotas, 100).await);
}

async fn a_hold_settles_in_its_own_window(bed: Bed) {
    let quotas = bed.quotas(tokens(100));
    let tracker = bed.tracker(&quotas);
    let operation = tracker.track(&acme(), EventType::ChatMessage).hold(hold(&quotas, 80).await);
    bed.clock.advance(Duration::from_secs(24 * 60 * 60));
    let _tomorrow = hold(&quotas, 100).await.unwrap();
    operation.record_success(TokenUsage::total_only(50).unwrap()).await.unwrap();
    let seen = view(&quotas, &Quota::Tokens).await;
    assert_eq!((seen.used, seen.held, seen.remaining), (0, 100, Some(0)));
    assert!(!admits(&quotas, 1).await, "what was given back of yesterday was sold today");
    bed.clock.set(noon());
    let seen = view(&bed.quotas(tokens(100)), &Quota::Tokens).await;
    assert_eq!((seen.used, seen.elsewhere), (50, 30), "yesterday");
}

async fn clocks_that_jump_never_over_admit(bed: Bed) {
    let minute = Limit::hard(Quota::Tokens, Window::Minute, 100, WhenUnavailable::Deny).unwrap();
    let quotas = [0, 1].map(|_| bed.quotas(catalogue([minute.clone()])));
    let mut dice = crate::ledger::Dice::printed("clocks_that_jump_never_over_admit");
    let mut held = Vec::new();
    let mut sums = [0_u64; 5];
    for turn in 0..300 {
        let window = dice.below(5) as usize;
        bed.clock.set(noon() + chrono::TimeDelta::minutes(window as i64));
        let amount = 1 + dice.below(30);
        if let Some(taken) = hold(&quotas[turn % 2], amount).await {
            sums[window] += amount;
            held.push(taken);
        }
        assert!(sums.iter().all(|sum| *sum <= 100), "more than the limit is held: {sums:?}");
    }
    assert!(sums.iter().all(|sum| *sum >= 50), "hardly anything was admitted: {sums:?}");
}
