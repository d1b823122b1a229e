//! Time: the calendar of every zone against a scan of its clocks, cycles against naive counting.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::as_conversions)]

use std::collections::HashSet;
use std::num::NonZeroU16;
use std::sync::LazyLock;
use std::time::Duration;

use chrono::{
    DateTime, Datelike, Months, NaiveDate, NaiveDateTime, Offset, TimeDelta, TimeZone, Timelike, Utc,
};
use chrono_tz::{TZ_VARIANTS, Tz};
use metertrail::ErrorKind;
use metertrail::testing::ManualClock;
use metertrail::time::{
    BillingCycle, Clock, Every, PERIODS_MAX, Period, SystemClock, TIME_MAX, TIME_MIN, TimeRange, Zone,
    bucket_start, cover, truncated,
};
use proptest::prelude::*;

const MICROSECOND: TimeDelta = TimeDelta::microseconds(1);
const QUARTER: TimeDelta = TimeDelta::minutes(15);

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn zone(tz: Tz) -> Zone {
    Zone::new(tz.name()).unwrap()
}

fn range(start: &str, end: &str) -> TimeRange {
    TimeRange::new(at(start), at(end)).unwrap()
}

fn day(zone: &str, instant: &str) -> TimeRange {
    Period::Day.range_at(at(instant), Zone::new(zone).unwrap())
}

fn offset(tz: Tz, instant: DateTime<Utc>) -> i32 {
    tz.offset_from_utc_datetime(&instant.naive_utc()).fix().local_minus_utc()
}

/// When a zone's clocks are changed from 2000 to 2037, to the second.
fn changes(tz: Tz) -> Vec<DateTime<Utc>> {
    let (week, end) = (TimeDelta::weeks(1), at("2038-01-01T00:00:00Z"));
    let mut changes = Vec::new();
    let mut before = TIME_MIN;
    while before < end {
        let mut after = before + week;
        if offset(tz, before) != offset(tz, after) {
            let (mut low, old) = (before, offset(tz, before));
            while after - low > TimeDelta::seconds(1) {
                let middle = low + TimeDelta::seconds((after - low).num_seconds() / 2);
                if offset(tz, middle) == old {
                    low = middle;
                } else {
                    after = middle;
                }
            }
            changes.push(after);
        }
        before += week;
    }
    changes
}

/// One zone for each history of clocks since 2000 (most of the names are aliases), and its changes.
static HISTORIES: LazyLock<Vec<(Tz, Vec<DateTime<Utc>>)>> = LazyLock::new(|| {
    let mut seen = HashSet::new();
    let all = TZ_VARIANTS.iter().map(|tz| (*tz, changes(*tz)));
    all.filter(|(tz, changes)| {
        let offsets: Vec<_> = changes.iter().map(|change| (*change, offset(*tz, *change))).collect();
        seen.insert((offset(*tz, TIME_MIN), offsets))
    })
    .collect()
});

/// Where days start, found by looking at the clocks every quarter hour: whenever they show a date for the first time.
fn day_starts_by_scan(tz: Tz, from: DateTime<Utc>, to: DateTime<Utc>) -> Vec<DateTime<Utc>> {
    let date = |instant: DateTime<Utc>| instant.with_timezone(&tz).date_naive();
    let (mut starts, mut latest, mut instant) = (Vec::new(), date(from), from);
    while instant < to {
        if date(instant) > latest {
            latest = date(instant);
            starts.push(instant);
        }
        instant += QUARTER;
    }
    starts
}

fn assert_tiles(parts: &[TimeRange], whole: TimeRange) {
    assert_eq!(parts.first().unwrap().start(), whole.start());
    assert_eq!(parts.last().unwrap().end(), whole.end());
    for pair in parts.windows(2) {
        assert_eq!(pair[0].end(), pair[1].start(), "a gap or an overlap in {whole}");
    }
}

/// Any zone, and an instant that is often near one of its changes.
fn zone_and_instant() -> impl Strategy<Value = (Tz, DateTime<Utc>)> {
    (
        prop::sample::select(TZ_VARIANTS.as_slice()),
        any::<prop::sample::Index>(),
        -200_000_i64..200_000,
        0_i64..1_199_000_000,
    )
        .prop_map(|(tz, index, near, anywhere)| {
            let changes = changes(tz);
            let instant = if changes.is_empty() || near % 4 == 0 {
                TIME_MIN + TimeDelta::seconds(anywhere)
            } else {
                *index.get(&changes) + TimeDelta::seconds(near)
            };
            (tz, instant + TimeDelta::microseconds(near.rem_euclid(3)))
        })
}

#[test]
fn the_scan_finds_the_histories() {
    assert!(HISTORIES.len() > 100, "only {}", HISTORIES.len());
    let berlin = changes(Tz::Europe__Berlin);
    assert_eq!(berlin.len(), 2 * 38);
    assert_eq!(berlin[0], at("2000-03-26T01:00:00Z"));
    assert!(changes(Tz::UTC).is_empty());
}

#[test]
fn days_start_where_the_clocks_say_around_every_change_in_every_zone() {
    for (tz, changes) in HISTORIES.iter() {
        for change in changes {
            let from = bucket_start(*change) - TimeDelta::hours(30);
            let to = from + TimeDelta::hours(60);
            let expected = day_starts_by_scan(*tz, from, to);
            let days = Period::Day.ranges(TimeRange::new(from, to).unwrap(), zone(*tz)).unwrap();
            let starts: Vec<_> = days.iter().map(TimeRange::start).filter(|start| *start > from).collect();
            assert_eq!(starts, expected, "{tz} around {change}");
            assert!(starts.iter().all(|start| bucket_start(*start) == *start), "{tz} around {change}");
            assert!(days[0].start() <= from && days[days.len() - 1].end() >= to);
            assert_tiles(&days, TimeRange::new(days[0].start(), days[days.len() - 1].end()).unwrap());
        }
    }
}

#[test]
fn every_offset_since_2000_is_of_whole_quarter_hours() {
    for (tz, changes) in HISTORIES.iter() {
        for instant in changes.iter().chain([&TIME_MIN]) {
            assert_eq!(offset(*tz, *instant) % 900, 0, "{tz} at {instant}");
        }
    }
}

#[test]
fn hours_tile_the_day_of_every_change_in_every_zone() {
    for (tz, changes) in HISTORIES.iter() {
        for change in changes {
            let day = Period::Day.range_at(*change, zone(*tz));
            let hours = Period::Hour.ranges(day, zone(*tz)).unwrap();
            assert_tiles(&hours, day);
            let (last, others) = hours.split_last().unwrap();
            assert!(others.iter().all(|hour| hour.duration() == Duration::from_secs(3_600)), "{tz}, {day}");
            assert!(last.duration() <= Duration::from_secs(3_600), "{tz}, {day}");
        }
    }
}

#[test]
fn a_skipped_day_has_no_period() {
    // Samoa went from the 29th of December 2011 straight to the 31st.
    let before = day("Pacific/Apia", "2011-12-30T09:59:59.999999Z");
    assert_eq!(before, range("2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"));
    let after = day("Pacific/Apia", "2011-12-30T10:00:00Z");
    assert_eq!(after, range("2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"));
    let apia = Zone::new("Pacific/Apia").unwrap();
    let month = Period::Month.range_at(at("2011-12-15T00:00:00Z"), apia);
    assert_eq!(Period::Day.ranges(month, apia).unwrap().len(), 30);
}

#[test]
fn a_day_with_two_midnights_starts_at_the_first() {
    // At 00:01 on the 7th of November 2010 the clocks of St. John's went back to 23:01 on the 6th.
    let seventh = range("2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
    for instant in
        ["2010-11-07T02:30:00Z", "2010-11-07T02:45:00Z", "2010-11-07T03:30:00Z", "2010-11-08T03:29:59Z"]
    {
        assert_eq!(day("America/St_Johns", instant), seventh, "{instant}");
    }
    assert_eq!(day("America/St_Johns", "2010-11-07T02:29:59Z").end(), seventh.start());
}

#[test]
fn a_month_with_two_first_midnights_starts_at_the_first() {
    // At 00:01 on the 1st of November 2009 the clocks of St. John's went back to 23:01 on the 31st of October.
    let st_johns = Zone::new("America/St_Johns").unwrap();
    let november = range("2009-11-01T02:30:00Z", "2009-12-01T03:30:00Z");
    for instant in
        ["2009-11-01T02:30:00Z", "2009-11-01T02:45:00Z", "2009-11-01T03:29:59Z", "2009-11-15T00:00:00Z"]
    {
        assert_eq!(Period::Month.range_at(at(instant), st_johns), november, "{instant}");
    }
    assert_eq!(Period::Month.range_at(at("2009-11-01T02:29:59Z"), st_johns).end(), november.start());
}

#[test]
fn a_day_whose_midnight_is_skipped_starts_after_the_gap() {
    // São Paulo, 4th of November 2018: from 00:00 to 01:00, which is 03:00 UTC.
    let fourth = range("2018-11-04T03:00:00Z", "2018-11-05T02:00:00Z");
    assert_eq!(day("America/Sao_Paulo", "2018-11-04T12:00:00Z"), fourth);
    assert_eq!(day("America/Sao_Paulo", "2018-11-04T02:59:59Z").end(), fourth.start());
}

#[test]
fn the_last_hour_is_half_where_clocks_change_by_half_an_hour() {
    let lord_howe = Zone::new("Australia/Lord_Howe").unwrap();
    for (instant, minutes, hours) in
        [("2026-04-05T00:00:00Z", 24 * 60 + 30, 25), ("2026-10-04T00:00:00Z", 23 * 60 + 30, 24)]
    {
        let day = Period::Day.range_at(at(instant), lord_howe);
        assert_eq!(day.duration(), Duration::from_secs(minutes * 60));
        let ranges = Period::Hour.ranges(day, lord_howe).unwrap();
        assert_eq!(ranges.len(), hours);
        assert_eq!(ranges[hours - 1].duration(), Duration::from_secs(1_800));
    }
}

#[test]
fn local_hours_follow_the_local_day_and_not_utc() {
    let kathmandu = Zone::new("Asia/Kathmandu").unwrap();
    let hour = Period::Hour.range_at(at("2026-03-01T12:00:00Z"), kathmandu);
    assert_eq!(hour, range("2026-03-01T11:15:00Z", "2026-03-01T12:15:00Z"));
}

#[test]
fn time_has_a_first_and_a_last_period_in_every_zone() {
    for tz in TZ_VARIANTS {
        for period in Period::ALL {
            let (first, last) =
                (period.range_at(TIME_MIN, zone(tz)), period.range_at(TIME_MAX - MICROSECOND, zone(tz)));
            assert_eq!((first.start(), last.end()), (TIME_MIN, TIME_MAX), "{period} in {tz}");
            assert_eq!(period.range_at(DateTime::UNIX_EPOCH, zone(tz)), first);
            assert_eq!(period.range_at(DateTime::<Utc>::MIN_UTC, zone(tz)), first);
            assert_eq!(period.range_at(TIME_MAX, zone(tz)), last);
            assert_eq!(period.range_at(DateTime::<Utc>::MAX_UTC, zone(tz)), last);
            assert_eq!(TimeRange::new(first.start(), first.end()).unwrap(), first);
        }
    }
    let all = TimeRange::new(TIME_MIN, TIME_MAX).unwrap();
    assert_tiles(&Period::Month.ranges(all, Zone::UTC).unwrap(), all);
    assert_eq!(Period::Month.ranges(all, Zone::UTC).unwrap().len(), 2_400);
}

#[test]
fn too_many_periods_are_refused() {
    let start = at("2020-01-01T00:00:00Z");
    for (period, length) in [
        (Period::QuarterHour, QUARTER),
        (Period::Hour, TimeDelta::hours(1)),
        (Period::Day, TimeDelta::days(1)),
    ] {
        let most = start + length * i32::try_from(PERIODS_MAX).unwrap();
        let ranges = period.ranges(TimeRange::new(start, most).unwrap(), Zone::UTC).unwrap();
        assert_eq!(ranges.len(), PERIODS_MAX);
        let error = period.ranges(TimeRange::new(start, most + MICROSECOND).unwrap(), Zone::UTC).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("range")));
    }
}

#[test]
fn the_names_of_periods_are_the_same_everywhere() {
    for (period, name) in Period::ALL.into_iter().zip(["quarter_hourly", "hourly", "daily", "monthly"]) {
        assert_eq!(period.as_str(), name);
        assert_eq!(period.to_string(), name);
        assert_eq!(name.parse::<Period>().unwrap(), period);
        assert_eq!(serde_json::to_value(period).unwrap(), serde_json::json!(name));
        assert_eq!(serde_json::from_value::<Period>(serde_json::json!(name)).unwrap(), period);
    }
    for name in ["", "Daily", "day", "weekly"] {
        assert_eq!(name.parse::<Period>().unwrap_err().field(), Some("period"));
    }
    assert!(Period::ALL.is_sorted());
}

#[test]
fn a_range_is_checked_wherever_it_comes_from() {
    let (start, end) = (at("2026-01-01T00:00:00Z"), at("2026-01-02T00:00:00Z"));
    for (start, end, field) in [
        (start, start, "end"),
        (end, start, "end"),
        (start, start + TimeDelta::nanoseconds(999), "end"),
        (TIME_MIN - MICROSECOND, end, "start"),
        (start, TIME_MAX + MICROSECOND, "end"),
        (DateTime::<Utc>::MIN_UTC, end, "start"),
        (start, DateTime::<Utc>::MAX_UTC, "end"),
    ] {
        let error = TimeRange::new(start, end).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some(field)), "{start} to {end}");
        let json = serde_json::json!({ "start": start, "end": end });
        assert!(serde_json::from_value::<TimeRange>(json).is_err(), "{start} to {end}");
    }
    let range = TimeRange::new(start + TimeDelta::nanoseconds(1_999), end).unwrap();
    assert_eq!(range.start(), start + MICROSECOND);
    assert!(!range.contains(start) && range.contains(end - MICROSECOND) && !range.contains(end));
    let json = serde_json::to_string(&range).unwrap();
    assert_eq!(json, r#"{"start":"2026-01-01T00:00:00.000001Z","end":"2026-01-02T00:00:00Z"}"#);
    assert_eq!(serde_json::from_str::<TimeRange>(&json).unwrap(), range);
    assert!(TimeRange::new(TIME_MIN, TIME_MAX).is_ok());
}

#[test]
fn zones_are_looked_up_by_their_exact_name() {
    for tz in TZ_VARIANTS {
        let zone = Zone::new(tz.name()).unwrap();
        let json = serde_json::to_value(zone).unwrap();
        assert_eq!(json, serde_json::json!(tz.name()));
        assert_eq!(serde_json::from_value::<Zone>(json).unwrap(), zone);
        assert_eq!(zone.to_string().parse::<Zone>().unwrap(), zone);
    }
    assert_eq!(Zone::new("UTC").unwrap(), Zone::UTC);
    let long = "x".repeat(100_000);
    for name in ["", "europe/berlin", "Europe/Atlantis", "+02:00", "UTC\0", long.as_str()] {
        let error = Zone::new(name).unwrap_err();
        assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("zone")));
        assert!(error.to_string().len() < 200);
        assert!(serde_json::from_value::<Zone>(serde_json::json!(name)).is_err());
    }
    assert!(Zone::new("Europe/Atlantis").unwrap_err().to_string().contains("Europe/Atlantis"));
}

#[test]
fn buckets_start_on_quarter_hours_also_before_1970() {
    for (instant, start) in [
        ("2026-03-01T12:44:59.999999Z", "2026-03-01T12:30:00Z"),
        ("2026-03-01T12:45:00Z", "2026-03-01T12:45:00Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z"),
        ("1969-12-31T23:59:59.999999Z", "1969-12-31T23:45:00Z"),
        ("1969-12-31T23:45:00Z", "1969-12-31T23:45:00Z"),
        ("0001-01-01T00:14:00Z", "0001-01-01T00:00:00Z"),
        // A leap second belongs to the next day, for buckets and for truncation alike.
        ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00Z"),
    ] {
        assert_eq!(bucket_start(at(instant)), at(start), "{instant}");
    }
    assert_eq!(bucket_start(DateTime::<Utc>::MIN_UTC), DateTime::<Utc>::MIN_UTC);
    assert_eq!(truncated(at("1969-12-31T23:59:59.9999995Z")), at("1969-12-31T23:59:59.999999Z"));
    assert_eq!(truncated(at("2016-12-31T23:59:60.5Z")), at("2017-01-01T00:00:00.5Z"));
}

#[test]
fn a_cover_is_made_of_the_longest_periods_that_fit() {
    let covered = |start, end| -> Vec<_> {
        let tiles = cover(range(start, end)).unwrap();
        tiles.into_iter().map(|tile| (tile.period, tile.range)).collect()
    };
    assert_eq!(
        covered("2025-11-28T22:45:00Z", "2026-02-03T01:15:00Z"),
        [
            (Period::QuarterHour, range("2025-11-28T22:45:00Z", "2025-11-28T23:00:00Z")),
            (Period::Hour, range("2025-11-28T23:00:00Z", "2025-11-29T00:00:00Z")),
            (Period::Day, range("2025-11-29T00:00:00Z", "2025-12-01T00:00:00Z")),
            (Period::Month, range("2025-12-01T00:00:00Z", "2026-02-01T00:00:00Z")),
            (Period::Day, range("2026-02-01T00:00:00Z", "2026-02-03T00:00:00Z")),
            (Period::Hour, range("2026-02-03T00:00:00Z", "2026-02-03T01:00:00Z")),
            (Period::QuarterHour, range("2026-02-03T01:00:00Z", "2026-02-03T01:15:00Z")),
        ]
    );
    let all = TimeRange::new(TIME_MIN, TIME_MAX).unwrap();
    let tiles = cover(all).unwrap();
    assert_eq!((tiles.len(), tiles[0].period, tiles[0].range), (1, Period::Month, all));
    // Ninety minutes without a whole hour.
    let straddling = range("2026-01-01T00:15:00Z", "2026-01-01T01:45:00Z");
    assert_eq!(covered("2026-01-01T00:15:00Z", "2026-01-01T01:45:00Z"), [(Period::QuarterHour, straddling)]);
    for (start, end, field) in [
        ("2026-01-01T00:00:01Z", "2026-01-02T00:00:00Z", "start"),
        ("2026-01-01T00:00:00Z", "2026-01-02T00:00:00.000001Z", "end"),
    ] {
        assert_eq!(cover(range(start, end)).unwrap_err().field(), Some(field));
    }
}

#[test]
fn a_cycle_from_the_31st_does_not_drift() {
    let cycle = BillingCycle::new(at("2023-01-31T00:00:00Z"), Every::MONTH, Zone::UTC).unwrap();
    let mut instant = at("2022-10-31T00:00:00Z");
    let mut starts = Vec::new();
    while starts.len() < 18 {
        let range = cycle.range_at(instant);
        starts.push(range.start().format("%y-%m-%d").to_string());
        instant = range.end();
    }
    let expected = "22-10-31 22-11-30 22-12-31 23-01-31 23-02-28 23-03-31 23-04-30 23-05-31 23-06-30 23-07-31 23-08-31 \
                    23-09-30 23-10-31 23-11-30 23-12-31 24-01-31 24-02-29 24-03-31";
    assert_eq!(starts.join(" "), expected);
}

#[test]
fn a_cycle_keeps_its_time_of_day_across_gaps_and_overlaps() {
    let start = |anchor: &str, instant: &str| {
        let zone = Zone::new("America/New_York").unwrap();
        BillingCycle::new(at(anchor), Every::MONTH, zone).unwrap().range_at(at(instant)).start()
    };
    // 02:30 on the 8th; on the 8th of March 2026 there is no 02:30, the gap ends at 03:00 EDT.
    assert_eq!(start("2026-02-08T07:30:00Z", "2026-03-20T00:00:00Z"), at("2026-03-08T07:00:00Z"));
    assert_eq!(start("2026-02-08T07:30:00Z", "2026-04-20T00:00:00Z"), at("2026-04-08T06:30:00Z"));
    // 01:30 on the 1st; on the 1st of November 2026 it comes twice, first in EDT.
    assert_eq!(start("2026-10-01T05:30:00Z", "2026-11-20T00:00:00Z"), at("2026-11-01T05:30:00Z"));
    assert_eq!(start("2026-10-01T05:30:00Z", "2026-12-20T00:00:00Z"), at("2026-12-01T06:30:00Z"));
    // An anchor at the later of the two stays the start of its own cycle.
    assert_eq!(start("2026-11-01T06:30:00Z", "2026-11-01T06:30:00Z"), at("2026-11-01T06:30:00Z"));
    assert_eq!(start("2026-11-01T06:30:00Z", "2026-11-01T06:00:00Z"), at("2026-10-01T05:30:00Z"));
}

#[test]
fn a_cycle_is_checked_wherever_it_comes_from() {
    let cycle = BillingCycle::new(at("2026-01-31T10:00:00Z"), Every::MONTH, Zone::new("Asia/Tokyo").unwrap())
        .unwrap();
    let json = serde_json::to_value(cycle).unwrap();
    let expected = serde_json::json!({ "anchor": "2026-01-31T10:00:00Z", "every": { "months": 1 }, "zone": "Asia/Tokyo" });
    assert_eq!(json, expected);
    assert_eq!(serde_json::from_value::<BillingCycle>(json).unwrap(), cycle);
    for json in [
        r#"{"anchor":"1999-12-31T23:59:59Z","every":{"months":1},"zone":"UTC"}"#,
        r#"{"anchor":"2026-01-31T10:00:00Z","every":{"months":0},"zone":"UTC"}"#,
        r#"{"anchor":"2026-01-31T10:00:00Z","every":{"days":0},"zone":"UTC"}"#,
        r#"{"anchor":"2026-01-31T10:00:00Z","every":{"days":1},"zone":"Nowhere"}"#,
    ] {
        assert!(serde_json::from_str::<BillingCycle>(json).is_err(), "{json}");
    }
    let error = BillingCycle::new(TIME_MAX + MICROSECOND, Every::MONTH, Zone::UTC).unwrap_err();
    assert_eq!(error.field(), Some("anchor"));
}

#[test]
fn the_longest_cycles_from_any_anchor_are_cut_at_the_ends_of_time() {
    for every in [Every::Days(NonZeroU16::MAX), Every::Months(NonZeroU16::MAX)] {
        for anchor in [TIME_MIN, at("2026-07-01T00:00:00Z"), TIME_MAX] {
            let cycle = BillingCycle::new(anchor, every, Zone::UTC).unwrap();
            assert_eq!(cycle.range_at(DateTime::<Utc>::MIN_UTC).start(), TIME_MIN);
            assert_eq!(cycle.range_at(DateTime::<Utc>::MAX_UTC).end(), TIME_MAX);
        }
    }
}

#[test]
fn daily_cycles_skip_the_day_that_the_zone_skips() {
    let apia = Zone::new("Pacific/Apia").unwrap();
    let cycle = BillingCycle::new(at("2011-12-01T10:00:00Z"), Every::Days(NonZeroU16::MIN), apia).unwrap();
    let last_before = cycle.range_at(at("2011-12-30T09:59:59Z"));
    assert_eq!(last_before, range("2011-12-29T10:00:00Z", "2011-12-30T10:00:00Z"));
    assert_eq!(cycle.range_at(last_before.end()), range("2011-12-30T10:00:00Z", "2011-12-31T10:00:00Z"));
}

#[test]
fn cycles_from_midnight_start_at_the_first_of_two_midnights() {
    // The repeated 23:30 shows yesterday's date, or last month's, in a cycle that began at the first midnight.
    let st_johns = Zone::new("America/St_Johns").unwrap();
    let daily =
        BillingCycle::new(at("2010-11-01T02:30:00Z"), Every::Days(NonZeroU16::MIN), st_johns).unwrap();
    let seventh = range("2010-11-07T02:30:00Z", "2010-11-08T03:30:00Z");
    assert_eq!(daily.range_at(at("2010-11-07T03:00:00Z")), seventh);
    let monthly = BillingCycle::new(at("2009-10-01T02:30:00Z"), Every::MONTH, st_johns).unwrap();
    let november = range("2009-11-01T02:30:00Z", "2009-12-01T03:30:00Z");
    assert_eq!(monthly.range_at(at("2009-11-01T03:00:00Z")), november);
}

#[test]
fn the_system_clock_is_in_microseconds_and_measures_forward() {
    let now = SystemClock.now();
    assert!(now > at("2025-01-01T00:00:00Z") && now < TIME_MAX);
    assert_eq!(now.timestamp_subsec_nanos() % 1_000, 0);
    let readings: Vec<_> = (0..1_000).map(|_| SystemClock.monotonic()).collect();
    assert!(readings.is_sorted());
    assert!(readings[999] > readings[0]);
}

#[test]
fn the_manual_clock_jumps_back_but_does_not_measure_back() {
    let clock = ManualClock::new(at("2026-01-01T00:00:00.000000900Z"));
    let handle: Box<dyn Clock> = Box::new(clock.clone());
    assert_eq!(handle.now(), at("2026-01-01T00:00:00Z"));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| (0..250).for_each(|_| clock.advance(Duration::from_nanos(500))));
        }
    });
    assert_eq!(handle.now(), at("2026-01-01T00:00:00.000500Z"));
    assert_eq!(handle.monotonic(), Duration::from_micros(500));
    clock.set(at("2000-01-01T00:00:00Z"));
    assert_eq!((handle.now(), handle.monotonic()), (TIME_MIN, Duration::from_micros(500)));
    clock.advance(Duration::from_secs(1));
    assert_eq!(handle.now(), at("2000-01-01T00:00:01Z"));
    clock.advance(Duration::MAX);
    assert_eq!(handle.monotonic(), Duration::MAX);
    assert_eq!(handle.now(), truncated(DateTime::<Utc>::MAX_UTC));
}

/// The earliest instant that shows this local time, or else the next minute that exists: by trying one after the other.
fn resolve(tz: Tz, local: NaiveDateTime) -> DateTime<Utc> {
    if let Some(found) = tz.from_local_datetime(&local).earliest() {
        return found.to_utc();
    }
    let minute = local.with_second(0).unwrap().with_nanosecond(0).unwrap();
    let mut after = (1..3_000).map(|minutes| minute + TimeDelta::minutes(minutes));
    after.find_map(|local| tz.from_local_datetime(&local).earliest()).unwrap().to_utc()
}

fn assert_cycles(tz: Tz, anchor: DateTime<Utc>, every: Every, numbers: std::ops::RangeInclusive<i32>) {
    let local = anchor.with_timezone(&tz).naive_local();
    let naive = |number: i32| {
        let months = |months: u16| Months::new(number.unsigned_abs() * u32::from(months));
        let shifted = match every {
            _ if number == 0 => return anchor,
            Every::Days(days) => local + TimeDelta::days(i64::from(number) * i64::from(days.get())),
            Every::Months(every) if number > 0 => local.checked_add_months(months(every.get())).unwrap(),
            Every::Months(every) => local.checked_sub_months(months(every.get())).unwrap(),
        };
        resolve(tz, shifted)
    };
    let cycle = BillingCycle::new(anchor, every, zone(tz)).unwrap();
    for number in numbers {
        let (start, end) = (naive(number), naive(number + 1));
        // The cycle of a skipped day is empty, and cycles that reach over the ends of time are cut.
        if start == end || start < TIME_MIN || end > TIME_MAX {
            continue;
        }
        let expected = TimeRange::new(start, end).unwrap();
        for instant in [start, start + (end - start) / 2, end - MICROSECOND] {
            assert_eq!(
                cycle.range_at(instant),
                expected,
                "cycle {number} of {anchor} in {tz}, {every:?}, at {instant}"
            );
        }
    }
}

#[test]
fn cycles_from_the_31st_of_january_agree_with_naive_counting_for_four_years() {
    let zones = [
        Tz::UTC,
        Tz::America__New_York,
        Tz::Europe__Berlin,
        Tz::Asia__Kathmandu,
        Tz::Australia__Lord_Howe,
        Tz::America__St_Johns,
        Tz::Africa__Casablanca,
        Tz::Pacific__Apia,
        Tz::America__Havana,
    ];
    for tz in zones {
        for time in ["00:00:00", "00:15:00", "02:30:00", "12:00:00.000001", "23:59:59.999999"] {
            for year in [2008, 2023, 2024] {
                let local = format!("{year}-01-31T{time}").parse::<NaiveDateTime>().unwrap();
                assert_cycles(tz, resolve(tz, local), Every::MONTH, -24..=48);
            }
        }
    }
}

/// The first start of a UTC period of this kind at or after the instant, and the next one: by the calendar alone.
fn next_utc(period: Period, instant: DateTime<Utc>) -> (DateTime<Utc>, DateTime<Utc>) {
    let step = match period {
        Period::QuarterHour => QUARTER,
        Period::Hour => TimeDelta::hours(1),
        Period::Day => TimeDelta::days(1),
        Period::Month => {
            let date = instant.date_naive().with_day(1).unwrap();
            let midnight = |date: NaiveDate| date.and_hms_opt(0, 0, 0).unwrap().and_utc();
            let months = |n| midnight(date + Months::new(n));
            return if months(0) == instant { (months(0), months(1)) } else { (months(1), months(2)) };
        }
    };
    let (seconds, step_seconds) = (instant.timestamp(), step.num_seconds());
    let start = DateTime::from_timestamp(-(-seconds).div_euclid(step_seconds) * step_seconds, 0).unwrap();
    (start, start + step)
}

fn assert_cover(range: TimeRange) {
    let tiles = cover(range).unwrap();
    assert_tiles(&tiles.iter().map(|tile| tile.range).collect::<Vec<_>>(), range);
    assert!(tiles.len() <= 7);
    for (at, tile) in tiles.iter().enumerate() {
        for bound in [tile.range.start(), tile.range.end()] {
            assert_eq!(next_utc(tile.period, bound).0, bound, "{tile:?} is not of whole periods");
        }
        if let Some(longer) = Period::ALL.into_iter().find(|period| *period > tile.period) {
            let (_, end) = next_utc(longer, tile.range.start());
            assert!(end > tile.range.end(), "a whole {longer} period fits into {tile:?}");
        }
        let neighbours = (tiles[..at].last(), tiles.get(at + 1));
        if let (Some(before), Some(after)) = neighbours {
            assert!(
                before.period < tile.period || after.period < tile.period,
                "{tiles:?} do not rise and then fall"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_period_contains_its_instant_and_is_one(
        (tz, instant) in zone_and_instant(),
        period in prop::sample::select(Period::ALL.as_slice()),
        within in 0_i32..1_000,
    ) {
        let period_range = period.range_at(instant, zone(tz));
        prop_assert!(period_range.contains(instant));
        prop_assert_eq!(bucket_start(period_range.start()), period_range.start());
        let length = period_range.end() - period_range.start();
        for other in [
            period_range.start(),
            period_range.start() + MICROSECOND,
            period_range.start() + length / 1_000 * within,
            period_range.end() - MICROSECOND,
        ] {
            prop_assert_eq!(period.range_at(other, zone(tz)), period_range);
        }
        // All instants are before 2038, but some lie in the first period of time, which has none before it.
        prop_assert_eq!(period.range_at(period_range.end(), zone(tz)).start(), period_range.end());
        if period_range.start() > TIME_MIN {
            prop_assert_eq!(period.range_at(period_range.start() - MICROSECOND, zone(tz)).end(), period_range.start());
        }
    }

    #[test]
    fn longer_periods_are_unions_of_shorter_ones((tz, instant) in zone_and_instant()) {
        let zone = zone(tz);
        for pair in Period::ALL.windows(2) {
            let whole = pair[1].range_at(instant, zone);
            let parts = pair[0].ranges(whole, zone).unwrap();
            assert_tiles(&parts, whole);
            for part in &parts {
                prop_assert_eq!(pair[0].range_at(part.start(), zone), *part);
                prop_assert_eq!(pair[0].range_at(part.end() - MICROSECOND, zone), *part);
            }
        }
        let day = Period::Day.range_at(instant, zone);
        let quarters = Period::QuarterHour.ranges(day, zone).unwrap();
        prop_assert_eq!(quarters.len() as u64 * 900, day.duration().as_secs());
    }

    #[test]
    fn the_periods_of_a_range_cover_it_and_no_more(
        (tz, start) in zone_and_instant(),
        minutes in 1_i64..200_000,
        period in prop::sample::select(&[Period::Hour, Period::Day, Period::Month][..]),
    ) {
        let range = TimeRange::new(start, start + TimeDelta::minutes(minutes)).unwrap();
        let ranges = period.ranges(range, zone(tz)).unwrap();
        let (first, last) = (ranges[0], ranges[ranges.len() - 1]);
        assert_tiles(&ranges, TimeRange::new(first.start(), last.end()).unwrap());
        prop_assert!(first.contains(range.start()) && last.contains(range.end() - MICROSECOND));
    }

    #[test]
    fn days_and_months_of_any_zone_are_tiled_by_utc_periods((tz, instant) in zone_and_instant()) {
        for period in Period::ALL {
            assert_cover(period.range_at(instant, zone(tz)));
        }
    }

    #[test]
    fn any_range_of_quarter_hours_is_tiled(start in 0_i32..7_000_000, exponent in 0_u32..23, noise in 0_i32..4_000_000) {
        let length = 1 + noise % (1 << exponent);
        let start = TIME_MIN + QUARTER * start;
        let range = TimeRange::new(start, (start + QUARTER * length).min(TIME_MAX));
        prop_assume!(range.is_ok());
        assert_cover(range.unwrap());
    }

    #[test]
    fn cycles_agree_with_naive_counting(
        (tz, anchor) in zone_and_instant(),
        every in (1_u16..800, any::<bool>()).prop_map(|(n, days)| {
            let count = |n| NonZeroU16::new(n).unwrap();
            if days { Every::Days(count(n)) } else { Every::Months(count(1 + n % 26)) }
        }),
    ) {
        assert_cycles(tz, anchor, every, -8..=8);
    }
}
