//! Clause 6: metrics are the sums of the events, to the unit.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::TimeDelta;
use rust_decimal::Decimal;

use super::model::Model;
use super::sample::{
    Dice, append_new, at, between, cost, event, events, full_event, latency_us, must, roll_up_all, tenant,
    the_day, usage,
};
use crate::store::Store;
use crate::usage::{
    COST_USD_MAX, EventType, MEASURE_MAX, Measure, Measures, Outcome, Quantile, TOKENS_PER_EVENT_MAX,
    TokenClass, TokenUsage, UsageEvent,
};

/// Each class of tokens is a sum of its own, and the total is the sum of the classes.
pub async fn tokens_are_counted_by_class(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut all = events(&acme, 9);
    for (event, (class, count)) in all.iter_mut().zip(TokenClass::ALL.into_iter().zip(1_u32..)) {
        event.tokens = must("making tokens", TokenUsage::NONE.with(class, count * 1_000));
    }
    all.push(full_event(&acme));
    append_new(store, &all).await;
    check(store, &all).await;
    let metrics = usage(store, &acme).await;
    for (class, count) in TokenClass::ALL.into_iter().zip(1..) {
        assert_eq!(metrics.tokens_of(class), count * 2_001, "{}", class.as_str());
    }
    assert_eq!(metrics.tokens_total(), 45 * 2_001);
}

/// Estimated tokens are counted among all and by themselves. An event that used tokens at no known cost is unpriced; one
/// that used none, or cost nothing, is not.
pub async fn estimates_and_unpriced_events_are_told_apart(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut all = events(&acme, 5);
    all[0].tokens = must("making tokens", TokenUsage::estimated(100, 7));
    all[1].tokens = TokenUsage::NONE.into_estimated();
    all[2].tokens = TokenUsage::NONE;
    all[3].cost = Some(cost(Decimal::ZERO));
    append_new(store, &all).await;
    check(store, &all).await;
    let metrics = usage(store, &acme).await;
    assert_eq!((metrics.tokens_estimated, metrics.tokens_total(), metrics.unpriced), (107, 137, 2));
}

/// Costs are decimal fractions down to the pico-dollar and up to the most that an event may cost; nothing is rounded.
pub async fn costs_are_summed_to_the_last_place(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let pico = Decimal::new(1, 12);
    let costs = [pico, pico, COST_USD_MAX, COST_USD_MAX - pico, Decimal::new(1, 1), Decimal::new(2, 1)];
    let mut all = events(&acme, 6);
    all.iter_mut().zip(costs).for_each(|(event, dollars)| event.cost = Some(cost(dollars)));
    append_new(store, &all).await;
    check(store, &all).await;
    let expected = Decimal::new(2_000_000_300_000_000_001, 12);
    assert_eq!(usage(store, &acme).await.cost, expected);
    roll_up_all(store).await;
    assert_eq!(usage(store, &acme).await.cost, expected, "rolled up");
}

/// The host's own quantities are summed by name, the greatest and the smallest, and those of zero.
pub async fn measures_are_summed_by_name(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut all = events(&acme, 4);
    let micro = Decimal::new(1, 6);
    for (event, amount) in all.iter_mut().zip([MEASURE_MAX, micro, MEASURE_MAX - micro, Decimal::ZERO]) {
        let measures = Measures::default().with("pages", amount).and_then(|some| some.with("Pages", micro));
        event.measures = must("making measures", measures);
    }
    let alone = Measures::default().with("seldom, \"quoted\" 'and' ünïcode", Decimal::ZERO);
    all[3].measures = must("making measures", alone);
    append_new(store, &all).await;
    check(store, &all).await;
    let pages = Measure::Custom(super::sample::label("pages"));
    assert_eq!(pages.of(&usage(store, &acme).await), MEASURE_MAX * Decimal::TWO);
    Model(&all).check_top(store, pages, the_day(), 10).await;
}

/// Every outcome and every type, built-in and custom, has its count.
pub async fn outcomes_and_types_are_counted(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut types = EventType::BUILT_IN.to_vec();
    for name in ["ocr_page", "a", "0", "-", "x.y-z_0", &"z".repeat(64)] {
        types.push(must("making an event type", EventType::custom(name)));
    }
    let mut all = Vec::new();
    for (position, event_type) in (1..).zip(&types) {
        for outcome in Outcome::ALL {
            let mut some = events(&acme, position);
            for event in &mut some {
                (event.event_type, event.outcome) = (event_type.clone(), outcome);
            }
            all.extend(some);
        }
    }
    append_new(store, &all).await;
    check(store, &all).await;
    let metrics = usage(store, &acme).await;
    assert_eq!((metrics.calls, metrics.abandoned, metrics.rate_limited), (275, 55, 55));
    assert_eq!(metrics.count_of(&types[9]), 20, "successes and abandoned ones");
}

/// Only successes and failures have a say in the latencies, and only where they were measured.
pub async fn latencies_are_those_of_successes_and_failures(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut all: Vec<UsageEvent> = Vec::new();
    let week_us = 7 * 24 * 3_600 * 1_000_000;
    for (position, outcome) in (0..).zip(Outcome::ALL) {
        for latency in [Some(0), Some(1), Some(127), Some(128), Some(850_000), Some(week_us), None] {
            let mut event = event(&acme, the_day().start() + TimeDelta::minutes(position));
            (event.outcome, event.latency) = (outcome, latency.map(latency_us));
            all.push(event);
        }
    }
    append_new(store, &all).await;
    check(store, &all).await;
    let metrics = usage(store, &acme).await;
    assert_eq!(metrics.latency.count(), 12);
    assert_eq!(metrics.latency_us_total, 2 * (1 + 127 + 128 + 850_000 + week_us));
    assert_eq!(metrics.latency.quantile(Quantile::P50), Some(127));
}

/// Tokens of many of the largest events, and their latencies, are beyond what 32 bits and a double hold.
pub async fn sums_beyond_32_bits_are_exact(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut all = events(&acme, 300);
    for (position, event) in (0_u64..).zip(&mut all) {
        event.tokens = must("making tokens", TokenUsage::total_only(TOKENS_PER_EVENT_MAX - position));
        event.latency = Some(latency_us(604_799_000_000 + position));
        event.cost = Some(cost(COST_USD_MAX - Decimal::new(i64::try_from(position).unwrap_or(0), 12)));
    }
    append_new(store, &all).await;
    check(store, &all).await;
    assert_eq!(usage(store, &acme).await.tokens_total(), 300 * TOKENS_PER_EVENT_MAX - 299 * 150);
}

/// Hundreds of events with anything in them, over two months, in many batches, some rolled up and some not.
pub async fn random_events_add_up_to_the_naive_sums(store: &Arc<dyn Store>) {
    let range = between(at("2026-02-27T00:00:00Z"), at("2026-03-03T00:00:00Z"));
    let mut dice = Dice::new(42);
    let tenants = ["acme", "globex", "initech", "umbrella"].map(tenant);
    let mut all = Vec::new();
    for round in 0..6 {
        for _ in 0..2 {
            let batch: Vec<UsageEvent> =
                (0..40).map(|number: usize| dice.event(&tenants[number % 4], range)).collect();
            append_new(store, &batch).await;
            all.extend(batch);
        }
        if round % 2 == 0 {
            must("roll_up", store.roll_up(3).await);
        }
    }
    check_in(store, &all, range).await;
}

async fn check(store: &Arc<dyn Store>, events: &[UsageEvent]) {
    check_in(store, events, the_day()).await;
}

/// All answers are the naive ones, before and after a roll-up.
async fn check_in(store: &Arc<dyn Store>, events: &[UsageEvent], range: crate::time::TimeRange) {
    Model(events).check(store, range).await;
    roll_up_all(store).await;
    Model(events).check(store, range).await;
}
