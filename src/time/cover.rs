//! Which stored roll-ups add up to a range.

use chrono::{DateTime, TimeDelta, Utc};

use super::instant::truncated;
use super::period::Period;
use super::range::TimeRange;
use super::zone::Zone;
use crate::{Error, Result};

const BUCKET: TimeDelta = TimeDelta::minutes(15);

/// A part of a range: a run of whole UTC periods of one kind, one or more of them.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Tile {
    /// The kind of the periods.
    pub period: Period,
    /// From the start of the first period to the end of the last.
    pub range: TimeRange,
}

/// Tiles a range exactly, without gap or overlap, by runs of whole periods of UTC.
///
/// The longest periods that fit stand in the middle and shorter ones at both ends, so there are at most seven tiles,
/// ascending: quarter hours, hours, days, months, days, hours, quarter hours. Roll-ups are kept by UTC periods; a day,
/// a month or an hour of any zone since 2000 is the sum of its tiles.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `start` or `end` if that bound of the range is not on a quarter
/// hour.
///
/// ```
/// use metertrail::time::{Period, Zone, cover};
///
/// // March in New York: from 05:00 on the first to 04:00, clocks being put forward, on the first of April.
/// let march = Period::Month.range_at("2026-03-15T12:00:00Z".parse().unwrap(), Zone::new("America/New_York")?);
/// let tiles = cover(march)?;
/// let periods: Vec<Period> = tiles.iter().map(|tile| tile.period).collect();
/// assert_eq!(periods, [Period::Hour, Period::Day, Period::Hour]);
/// assert_eq!(tiles[1].range.to_string(), "[2026-03-02T00:00:00Z, 2026-04-01T00:00:00Z)");
/// # Ok::<(), metertrail::Error>(())
/// ```
pub fn cover(range: TimeRange) -> Result<Vec<Tile>> {
    for (field, bound) in [("start", range.start()), ("end", range.end())] {
        if bucket_start(bound) != bound {
            return Err(Error::invalid(field, format!("must lie on a 15-minute boundary, is {bound:?}")));
        }
    }
    let mut tiles = Vec::new();
    lay(&mut tiles, range.start(), range.end(), &Period::ALL);
    Ok(tiles)
}

/// The start of the quarter hour of UTC that contains the instant: the key of the finest roll-up.
///
/// ```
/// use chrono::{DateTime, Utc};
/// use metertrail::time::bucket_start;
///
/// let instant: DateTime<Utc> = "2026-03-01T12:44:59.999999Z".parse().unwrap();
/// assert_eq!(bucket_start(instant).to_rfc3339(), "2026-03-01T12:30:00+00:00");
/// ```
pub fn bucket_start(instant: DateTime<Utc>) -> DateTime<Utc> {
    let seconds = truncated(instant).timestamp();
    let start = seconds - seconds.rem_euclid(BUCKET.num_seconds());
    DateTime::from_timestamp(start, 0).unwrap_or(instant)
}

/// Lays whole periods of the last of the given kinds into the middle, and shorter ones at both ends.
fn lay(tiles: &mut Vec<Tile>, start: DateTime<Utc>, end: DateTime<Utc>, periods: &[Period]) {
    let Some((&period, shorter)) = periods.split_last() else {
        return;
    };
    if start >= end {
        return;
    }
    let first = period.range_at(start, Zone::UTC);
    let from = if first.start() == start { start } else { first.end() };
    let last = period.range_at(end - TimeDelta::microseconds(1), Zone::UTC);
    let to = if last.end() == end { end } else { last.start() };
    if from < to {
        lay(tiles, start, from, shorter);
        tiles.push(Tile { period, range: TimeRange::from_checked(from, to) });
        lay(tiles, to, end, shorter);
    } else {
        lay(tiles, start, end, shorter);
    }
}
