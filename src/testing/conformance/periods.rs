//! Clause 6 over time: every event counts in its period, whatever the zone.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use super::model::Model;
use super::sample::{
    Dice, all_time, append_new, at, between, event, events, must, roll_up_all, tenant, usage_in,
};
use crate::store::Store;
use crate::time::{Period, TIME_MAX, TIME_MIN, TimeRange, Zone};
use crate::usage::{UsageEvent, UsageMetrics};

/// Zones that are off the hour, change by half an hour or change at midnight, with a day on which they change.
const ODD_ZONES: [(&str, &str); 7] = [
    ("Asia/Kathmandu", "2026-03-01T12:00:00Z"),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00Z"),
    ("Australia/Lord_Howe", "2026-10-03T15:30:00Z"),
    ("America/St_Johns", "2026-03-08T05:30:00Z"),
    ("Pacific/Chatham", "2026-04-04T14:00:00Z"),
    ("Africa/Cairo", "2026-04-23T22:00:00Z"),
    ("Pacific/Apia", "2011-12-30T10:00:00Z"),
];

/// An event at the start of a period belongs to it, one at its end to the next, to the microsecond.
pub async fn periods_are_half_open(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let noon = at("2026-03-01T12:00:00Z");
    let microsecond = TimeDelta::microseconds(1);
    let quarter = TimeDelta::minutes(15);
    let instants = [noon - microsecond, noon, noon + quarter - microsecond, noon + quarter];
    let all: Vec<UsageEvent> = instants.iter().map(|instant| event(&acme, *instant)).collect();
    append_new(store, &all).await;
    let periods = [-1, 0, 1].map(|number| quarter_hours(noon, number, 1));
    for _ in 0..2 {
        let calls: Vec<u64> =
            usage_in(store, &acme, &periods).await.iter().map(|usage| usage.calls).collect();
        assert_eq!(calls, [1, 2, 1]);
        roll_up_all(store).await;
    }
}

/// Periods without events are answered too, each at its place; and those of a tenant that nobody knows.
pub async fn empty_periods_are_answered_in_order(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let start = at("2026-03-01T00:00:00Z");
    let days: Vec<TimeRange> =
        (0..31).map(|day| between(start + TimeDelta::days(day), start + TimeDelta::days(day + 1))).collect();
    let all: Vec<UsageEvent> =
        [3, 3, 4, 17, 30].into_iter().map(|day| event(&acme, start + TimeDelta::days(day))).collect();
    append_new(store, &all).await;
    check(store, &all, &days).await;
    let nobody = usage_in(store, &tenant("nobody"), &days).await;
    assert!(nobody.iter().all(UsageMetrics::is_empty), "a tenant that nobody knows has usage");
}

/// No periods, no answers.
pub async fn no_periods_have_no_answers(store: &Arc<dyn Store>) {
    append_new(store, &events(&tenant("acme"), 3)).await;
    assert_eq!(usage_in(store, &tenant("acme"), &[]).await, []);
}

/// Periods need not touch: what happened between them is in none.
pub async fn what_lies_between_periods_belongs_to_none(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let start = at("2026-03-01T00:00:00Z");
    let all: Vec<UsageEvent> =
        (0..400).map(|number| event(&acme, start + TimeDelta::minutes(number * 15 + 3))).collect();
    append_new(store, &all).await;
    // A quarter hour, six, a hundred and one, with gaps of one and of forty.
    let periods = [
        quarter_hours(start, 1, 1),
        quarter_hours(start, 3, 6),
        quarter_hours(start, 49, 101),
        quarter_hours(start, 150, 1),
        quarter_hours(start, 152, 200),
    ];
    check(store, &all, &periods).await;
    let calls: Vec<u64> = usage_in(store, &acme, &periods).await.iter().map(|usage| usage.calls).collect();
    assert_eq!(calls, [1, 6, 101, 1, 200]);
}

/// Days in zones whose offset is no whole hour, over a change of the clocks.
pub async fn days_of_odd_zones_are_exact(store: &Arc<dyn Store>) {
    check_zones(store, Period::Day, TimeDelta::days(3)).await;
}

/// Hours in such zones, down to those that are half an hour long.
pub async fn hours_of_odd_zones_are_exact(store: &Arc<dyn Store>) {
    check_zones(store, Period::Hour, TimeDelta::hours(14)).await;
}

/// A month is the sum of its days, hours and quarter hours, in any zone.
pub async fn months_are_the_sums_of_their_days(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut dice = Dice::new(6);
    let around = between(at("2026-03-28T00:00:00Z"), at("2026-05-05T00:00:00Z"));
    let all: Vec<UsageEvent> = (0..400).map(|_| dice.event(&acme, around)).collect();
    for batch in all.chunks(100) {
        append_new(store, batch).await;
        must("roll_up", store.roll_up(1).await);
    }
    for name in ["UTC", "Australia/Lord_Howe", "America/St_Johns"] {
        let zone = must("making a zone", Zone::new(name));
        let month = Period::Month.range_at(at("2026-04-15T00:00:00Z"), zone);
        let whole = usage_in(store, &acme, &[month]).await.remove(0);
        assert_eq!(whole, Model(&all).usage(&acme, month), "April in {name}");
        for period in [Period::Day, Period::Hour, Period::QuarterHour] {
            let parts = must("dividing a month", period.ranges(month, zone));
            let mut sum = UsageMetrics::default();
            usage_in(store, &acme, &parts).await.iter().for_each(|part| sum.merge(part));
            assert_eq!(sum, whole, "April in {name} as the sum of its {period} periods");
        }
    }
}

/// The first and the last instant that the crate knows are instants like all others.
pub async fn the_ends_of_time_are_counted(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let last = TIME_MAX - TimeDelta::milliseconds(1);
    let all = [event(&acme, TIME_MIN), event(&acme, last)];
    append_new(store, &all).await;
    let quarter = TimeDelta::minutes(15);
    let periods = [
        between(TIME_MIN, TIME_MIN + quarter),
        between(TIME_MIN + quarter, TIME_MAX - quarter),
        between(TIME_MAX - quarter, TIME_MAX),
    ];
    check(store, &all, &periods).await;
    assert_eq!(usage_in(store, &acme, &[all_time()]).await[0].calls, 2);
    let newest_first = [all[1].clone(), all[0].clone()];
    assert_eq!(super::sample::kept(store, &acme).await, newest_first);
}

/// For each odd zone, events all around its change and its periods there.
async fn check_zones(store: &Arc<dyn Store>, period: Period, around: TimeDelta) {
    for (number, (name, change)) in (0..).zip(ODD_ZONES) {
        let own = tenant(&format!("{number} {name}"));
        let zone = must("making a zone", Zone::new(name));
        let span = between(at(change) - around, at(change) + around);
        let periods = must("dividing a range", period.ranges(span, zone));
        let mut dice = Dice::new(number);
        let mut all: Vec<UsageEvent> = (0..60).map(|_| dice.event(&own, span)).collect();
        // And where it is most delicate: on both sides of each boundary.
        for boundary in periods.iter().take(12) {
            all.push(event(&own, boundary.start()));
            all.push(event(&own, boundary.start() - TimeDelta::microseconds(1)));
        }
        append_new(store, &all).await;
        check(store, &all, &periods).await;
    }
}

/// The naive sums of each period, before and after a roll-up.
async fn check(store: &Arc<dyn Store>, events: &[UsageEvent], periods: &[TimeRange]) {
    let Some(first) = events.first() else { return };
    let expected: Vec<UsageMetrics> =
        periods.iter().map(|period| Model(events).usage(&first.tenant_id, *period)).collect();
    for rolled_up in [false, true] {
        if rolled_up {
            roll_up_all(store).await;
        }
        let usage = usage_in(store, &first.tenant_id, periods).await;
        for ((usage, expected), period) in usage.iter().zip(&expected).zip(periods) {
            assert_eq!(usage, expected, "{period} of {:?}, rolled up: {rolled_up}", first.tenant_id);
        }
    }
}

fn quarter_hours(start: DateTime<Utc>, from: i32, number: i32) -> TimeRange {
    let from = start + TimeDelta::minutes(15) * from;
    between(from, from + TimeDelta::minutes(15) * number)
}
