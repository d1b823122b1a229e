//! Clause 8: what is too much or lies askew is refused by name, and nothing is done.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::sample::{
    append, append_new, between, event, events, kept, must, refused, tenant, the_day, usage, usage_in,
};
use crate::store::{APPEND_EVENTS_MAX, Appended, Store, USAGE_PERIODS_MAX};
use crate::time::TimeRange;
use crate::usage::{Measure, TopConsumersQuery};

/// A batch of 10,000 events is taken.
pub async fn the_largest_batch_is_taken(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let number = i32::try_from(APPEND_EVENTS_MAX).unwrap_or(i32::MAX);
    let batch = events(&acme, number);
    append_new(store, &batch).await;
    assert_eq!(usage(store, &acme).await.calls, 10_000);
    assert!(append(store, &batch).await.iter().all(|appended| *appended == Appended::Duplicate));
    assert_eq!(usage(store, &acme).await.calls, 10_000);
}

/// One more is refused, all of it, though nothing else is wrong; the same events in two batches are taken.
pub async fn a_batch_that_is_too_large_is_refused_whole(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let number = i32::try_from(APPEND_EVENTS_MAX + 1).unwrap_or(i32::MAX);
    let batch = events(&acme, number);
    let error = refused("a batch of 10,001", store.append(&batch, &[]).await, &["batch"]);
    assert!(!error.is_transient());
    assert!(kept(store, &acme).await.is_empty() && usage(store, &acme).await.is_empty());
    append_new(store, &batch[..2]).await;
}

/// More than 10,000 periods are refused.
pub async fn too_many_periods_are_refused(store: &Arc<dyn Store>) {
    let periods = quarter_hours(USAGE_PERIODS_MAX + 1);
    refused("10,001 periods", store.usage(&tenant("acme"), &periods).await, &["periods"]);
}

/// 10,000 periods are answered.
pub async fn as_many_periods_as_allowed_are_answered(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let periods = quarter_hours(USAGE_PERIODS_MAX);
    let last = periods[USAGE_PERIODS_MAX - 1].start();
    append_new(store, &[event(&acme, the_day().start()), event(&acme, last)]).await;
    let usage = usage_in(store, &acme, &periods).await;
    assert_eq!((usage[0].calls, usage[USAGE_PERIODS_MAX - 1].calls), (1, 1));
    assert_eq!(usage.iter().map(|usage| usage.calls).sum::<u64>(), 2);
}

/// Periods ascend and share no instant.
pub async fn periods_that_overlap_or_descend_are_refused(store: &Arc<dyn Store>) {
    let day = the_day();
    let noon = day.start() + TimeDelta::hours(12);
    let (morning, afternoon) = (between(day.start(), noon), between(noon, day.end()));
    let overlapping = between(noon - TimeDelta::minutes(15), day.end());
    let acme = tenant("acme");
    for periods in
        [[morning, overlapping], [afternoon, morning], [morning, morning], [day, morning], [morning, day]]
    {
        refused(&format!("{periods:?}"), store.usage(&acme, &periods).await, &["periods"]);
    }
    assert_eq!(usage_in(store, &acme, &[morning, afternoon]).await.len(), 2);
}

/// Periods begin and end on a quarter hour.
pub async fn periods_off_the_quarter_hour_are_refused(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let good = between(the_day().start() - TimeDelta::minutes(15), the_day().start());
    for (bad, field) in askew() {
        for periods in [vec![bad], vec![good, bad]] {
            let answer = store.usage(&acme, &periods).await;
            refused(&format!("{periods:?}"), answer, &[field, "periods"]);
        }
    }
}

/// So do the ranges of top consumers and of the summary; the error says which end does not.
pub async fn ranges_off_the_quarter_hour_are_refused(store: &Arc<dyn Store>) {
    for (bad, field) in askew() {
        let query = must("making a query", TopConsumersQuery::new(Measure::Tokens, bad, 10));
        refused(&format!("top consumers in {bad}"), store.top_consumers(&query).await, &[field]);
        refused(&format!("the summary of {bad}"), store.summary(bad).await, &[field]);
    }
}

/// Ranges of which one end is off the quarter hour, and which.
fn askew() -> [(TimeRange, &'static str); 6] {
    let (start, end) = (the_day().start(), the_day().end());
    let moved = |instant: DateTime<Utc>, microseconds| instant + TimeDelta::microseconds(microseconds);
    [
        (between(moved(start, 1), end), "start"),
        (between(moved(start, 60_000_000), end), "start"),
        (between(moved(start, 899_999_999), end), "start"),
        (between(start, moved(end, -1)), "end"),
        (between(start, moved(end, 1)), "end"),
        (between(start, moved(end, 300_000_000)), "end"),
    ]
}

fn quarter_hours(number: usize) -> Vec<TimeRange> {
    let quarter = TimeDelta::minutes(15);
    let mut start = the_day().start();
    let mut next = || {
        let period = between(start, start + quarter);
        start += quarter;
        period
    };
    std::iter::repeat_with(&mut next).take(number).collect()
}
