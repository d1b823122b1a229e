//! Top consumers and the summary over all tenants.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::TimeDelta;
use rust_decimal::Decimal;

use super::model::Model;
use super::sample::{
    Dice, append_new, at, between, event, events, label, latency_us, must, roll_up_all, tenant, the_day,
};
use crate::store::Store;
use crate::time::TimeRange;
use crate::usage::{
    Measure, Measures, Outcome, SUMMARY_EXCEEDED_MAX, TokenUsage, TopConsumersQuery, UsageEvent, UsageSummary,
};

/// Who used most comes first, rolled up or not.
pub async fn top_consumers_come_in_order(store: &Arc<dyn Store>) {
    let mut all = Vec::new();
    for (position, name) in (0..).zip(["d", "a", "c", "e", "b"]) {
        all.extend(events(&tenant(name), (position * 3) % 5 + 1));
    }
    append_new(store, &all).await;
    check_rolling_up(store, &all, Measure::Tokens, the_day(), 10).await;
    assert_eq!(names(store, Measure::Tokens, 10).await, ["e", "a", "b", "c", "d"]);
}

/// Equals come in the byte order of their ids: no language's order, upper case before lower, `-` before `1` before `_`.
pub async fn top_consumers_that_tie_come_in_the_order_of_their_bytes(store: &Arc<dyn Store>) {
    let mut ids =
        ["b", "B", "a-1", "a1", "a_1", "a 1", "ä", "z", "é", "e", "日本", "\u{1F600}", "Z", "a"].to_vec();
    let all: Vec<UsageEvent> = ids.iter().flat_map(|id| events(&tenant(id), 1)).collect();
    append_new(store, &all).await;
    check_rolling_up(store, &all, Measure::Calls, the_day(), 1_000).await;
    ids.sort_unstable();
    assert_eq!(names(store, Measure::Calls, 1_000).await, ids);
    // The limit cuts among equals by the same order.
    assert_eq!(names(store, Measure::Calls, 3).await, ids[..3]);
}

/// A tenant that used nothing of the measure, or nothing in the range, is in no list.
pub async fn top_consumers_that_used_nothing_are_left_out(store: &Arc<dyn Store>) {
    let mut all = events(&tenant("tokens"), 2);
    let mut without = event(&tenant("no tokens"), the_day().start());
    without.tokens = TokenUsage::NONE;
    without.measures = must("making measures", Measures::default().with("pages", Decimal::ZERO));
    all.push(without);
    all.push(event(&tenant("another day"), the_day().end()));
    append_new(store, &all).await;
    for measure in measures() {
        check_rolling_up(store, &all, measure, the_day(), 10).await;
    }
    assert_eq!(names(store, Measure::Tokens, 10).await, ["tokens"]);
    assert!(names(store, Measure::Cost, 10).await.is_empty());
    assert!(names(store, Measure::Custom(label("pages")), 10).await.is_empty());
    assert!(names(store, Measure::Custom(label("unheard of")), 10).await.is_empty());
}

/// No list is longer than asked for, or than there are tenants.
pub async fn top_consumers_are_limited(store: &Arc<dyn Store>) {
    let mut all = Vec::new();
    for number in 0..25 {
        all.extend(events(&tenant(&format!("tenant-{number}")), number % 7 + 1));
    }
    append_new(store, &all).await;
    for limit in [1, 2, 7, 24, 25, 26, 1_000] {
        check_rolling_up(store, &all, Measure::Calls, the_day(), limit).await;
    }
}

/// Tokens, cost, calls, errors and any quantity of the host's, each with an order of its own.
pub async fn top_consumers_are_ranked_by_every_measure(store: &Arc<dyn Store>) {
    let mut dice = Dice::new(11);
    let tenants: Vec<_> = (0..12).map(|number| tenant(&format!("tenant-{number}"))).collect();
    let range = between(at("2026-02-20T00:15:00Z"), at("2026-03-20T23:45:00Z"));
    let mut all = Vec::new();
    for batch in 0..6 {
        let some: Vec<UsageEvent> = (0..60)
            .map(|_| dice.pick(&tenants).clone())
            .collect::<Vec<_>>()
            .iter()
            .map(|own| dice.event(own, range))
            .collect();
        append_new(store, &some).await;
        all.extend(some);
        if batch % 2 == 0 {
            roll_up_all(store).await;
        }
    }
    let inner = between(at("2026-02-25T10:30:00Z"), at("2026-03-11T05:15:00Z"));
    for measure in measures() {
        for range in [range, inner, the_day()] {
            Model(&all).check_top(store, measure.clone(), range, 5).await;
            check_rolling_up(store, &all, measure.clone(), range, 1_000).await;
        }
    }
}

/// Of a range in which nothing happened, the summary is empty and has no mean latency.
pub async fn a_summary_of_nothing_is_empty(store: &Arc<dyn Store>) {
    assert_eq!(must("summary", store.summary(the_day()).await), UsageSummary::default());
    append_new(store, &[event(&tenant("acme"), the_day().end())]).await;
    assert_eq!(must("summary", store.summary(the_day()).await), UsageSummary::default());
}

/// Tenants, calls, failures, tokens, cost, unpriced events and the mean latency, of the range and of all tenants.
pub async fn a_summary_has_all_tenants_of_its_range(store: &Arc<dyn Store>) {
    let mut dice = Dice::new(13);
    let mut all: Vec<UsageEvent> = (0..200)
        .map(|number| tenant(&format!("tenant-{}", number % 20)))
        .map(|own| dice.event(&own, between(at("2026-02-28T12:00:00Z"), at("2026-03-02T12:00:00Z"))))
        .collect();
    // Means are cut to whole microseconds: 1 + 2 is 1.
    for (name, latency) in [("mean", 1), ("mean", 2)] {
        let mut event = event(&tenant(name), at("2026-03-05T00:00:00Z"));
        event.latency = Some(latency_us(latency));
        all.push(event);
    }
    append_new(store, &all).await;
    let hour = between(at("2026-03-01T07:15:00Z"), at("2026-03-01T08:15:00Z"));
    let mean = between(at("2026-03-05T00:00:00Z"), at("2026-03-06T00:00:00Z"));
    for range in [the_day(), hour, mean, super::sample::all_time()] {
        Model(&all).check_summary(store, range).await;
    }
    assert_eq!(must("summary", store.summary(mean).await).latency_us_mean, Some(1));
    roll_up_all(store).await;
    for range in [the_day(), hour, mean, super::sample::all_time()] {
        Model(&all).check_summary(store, range).await;
    }
}

/// Those who were refused for their quota, most often first, and no more than 100 of them.
pub async fn a_summary_lists_who_was_refused_most_often(store: &Arc<dyn Store>) {
    let mut all = events(&tenant("never refused"), 4);
    for number in 0..120 {
        let own = tenant(&format!("tenant-{number}"));
        for refusal in 0..=(number % 9) {
            let mut event = event(&own, the_day().start() + TimeDelta::minutes(i64::from(refusal)));
            event.outcome = Outcome::QuotaExceeded;
            all.push(event);
        }
    }
    append_new(store, &all).await;
    Model(&all).check_summary(store, the_day()).await;
    roll_up_all(store).await;
    Model(&all).check_summary(store, the_day()).await;
    let listed = must("summary", store.summary(the_day()).await).quota_exceeded;
    assert_eq!((listed.len(), listed[0].1, listed[99].1), (SUMMARY_EXCEEDED_MAX, 9, 2));
}

fn measures() -> [Measure; 6] {
    [
        Measure::Tokens,
        Measure::Cost,
        Measure::Calls,
        Measure::Errors,
        Measure::Custom(label("pages")),
        Measure::Custom(label("gpu seconds")),
    ]
}

async fn names(store: &Arc<dyn Store>, measure: Measure, limit: u16) -> Vec<String> {
    let query = must("making a query", TopConsumersQuery::new(measure, the_day(), limit));
    let top = must("top_consumers", store.top_consumers(&query).await);
    top.into_iter().map(|consumer| consumer.tenant_id.as_str().to_owned()).collect()
}

async fn check_rolling_up(
    store: &Arc<dyn Store>,
    events: &[UsageEvent],
    measure: Measure,
    range: TimeRange,
    limit: u16,
) {
    Model(events).check_top(store, measure.clone(), range, limit).await;
    roll_up_all(store).await;
    Model(events).check_top(store, measure, range, limit).await;
}
