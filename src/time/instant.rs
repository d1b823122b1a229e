//! The instants that the crate takes.

use chrono::{DateTime, TimeDelta, Utc};

use crate::{Error, Result};

/// The earliest instant that the crate takes: 2000-01-01T00:00:00Z.
///
/// ```
/// use metertrail::time::TIME_MIN;
///
/// assert_eq!(TIME_MIN.to_rfc3339(), "2000-01-01T00:00:00+00:00");
/// ```
pub const TIME_MIN: DateTime<Utc> = at_second(946_684_800);

/// The end of time for the crate, itself excluded: 2200-01-01T00:00:00Z.
///
/// ```
/// use metertrail::time::TIME_MAX;
///
/// assert_eq!(TIME_MAX.to_rfc3339(), "2200-01-01T00:00:00+00:00");
/// ```
pub const TIME_MAX: DateTime<Utc> = at_second(7_258_118_400);

/// The instant in whole microseconds, rounded down (towards the past, also before 1970).
///
/// A leap second, which chrono writes as 23:59:60, becomes the first second of the next day, as in Postgres.
///
/// ```
/// use chrono::{DateTime, Utc};
/// use metertrail::time::truncated;
///
/// let instant: DateTime<Utc> = "2026-03-01T12:00:00.123456789Z".parse().unwrap();
/// assert_eq!(truncated(instant).to_rfc3339(), "2026-03-01T12:00:00.123456+00:00");
/// ```
pub fn truncated(instant: DateTime<Utc>) -> DateTime<Utc> {
    DateTime::from_timestamp_micros(instant.timestamp_micros()).unwrap_or(instant)
}

/// The instant truncated, if it lies in `TIME_MIN..=TIME_MAX`.
pub(super) fn checked(field: &'static str, instant: DateTime<Utc>) -> Result<DateTime<Utc>> {
    let instant = truncated(instant);
    if (TIME_MIN..=TIME_MAX).contains(&instant) {
        Ok(instant)
    } else {
        Err(Error::invalid(field, format!("must lie in {TIME_MIN:?} to {TIME_MAX:?}, is {instant:?}")))
    }
}

/// The instant truncated and moved to the nearest one in `TIME_MIN..TIME_MAX`.
pub(super) fn clamped(instant: DateTime<Utc>) -> DateTime<Utc> {
    truncated(instant).clamp(TIME_MIN, TIME_MAX - TimeDelta::microseconds(1))
}

const fn at_second(second: i64) -> DateTime<Utc> {
    match DateTime::from_timestamp(second, 0) {
        Some(instant) => instant,
        None => DateTime::UNIX_EPOCH,
    }
}
