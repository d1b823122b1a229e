//! The periods of the calendar.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::instant::clamped;
use super::month;
use super::range::TimeRange;
use super::span::Span;
use super::zone::Zone;
use crate::{Error, Result};

/// The most periods that [`Period::ranges`] answers with.
pub const PERIODS_MAX: usize = 10_000;

/// A kind of period of a zone's calendar. They sort from short to long.
///
/// - A **day** begins at the earliest instant whose local date is that day or a later one. So where midnight is skipped
///   the day begins when the clocks have been put forward, where midnight happens twice it begins at the first one, and
///   a day that a zone skips altogether (Pacific/Apia, 2011-12-30) has no period.
/// - A **month** begins with its first day.
/// - **Hours** and **quarter hours** are counted from the start of the day; the day's last one ends with the day. So a
///   day of 23 hours has 23 of them, and on the days on which Lord Howe changes its clocks by half an hour the last
///   hour is half an hour long.
///
/// Since 2000 all of them begin on a quarter hour of UTC in every zone, which is why roll-ups in UTC quarter hours
/// add up to all of them: see [`cover`](super::cover).
///
/// ```
/// use metertrail::time::{Period, Zone};
///
/// // The day on which Berlin puts its clocks forward.
/// let berlin = Zone::new("Europe/Berlin")?;
/// let day = Period::Day.range_at("2026-03-29T12:00:00Z".parse().unwrap(), berlin);
/// assert_eq!(day.to_string(), "[2026-03-28T23:00:00Z, 2026-03-29T22:00:00Z)");
/// assert_eq!(Period::Hour.ranges(day, berlin)?.len(), 23);
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Period {
    /// Fifteen minutes, counted from the start of the local day.
    #[serde(rename = "quarter_hourly")]
    QuarterHour,
    /// Sixty minutes, counted from the start of the local day.
    #[serde(rename = "hourly")]
    Hour,
    /// A local day, of 24 hours except where the clocks change.
    #[serde(rename = "daily")]
    Day,
    /// A local calendar month.
    #[serde(rename = "monthly")]
    Month,
}

impl Period {
    /// All kinds, from short to long.
    pub const ALL: [Self; 4] = [Self::QuarterHour, Self::Hour, Self::Day, Self::Month];

    /// The name in storage, JSON and SQL: `quarter_hourly`, `hourly`, `daily` or `monthly`.
    ///
    /// ```
    /// use metertrail::time::Period;
    ///
    /// assert_eq!(Period::Day.as_str(), "daily");
    /// assert_eq!("daily".parse::<Period>()?, Period::Day);
    /// assert_eq!("weekly".parse::<Period>().unwrap_err().field(), Some("period"));
    /// # Ok::<(), metertrail::Error>(())
    /// ```
    pub fn as_str(self) -> &'static str {
        match self {
            Self::QuarterHour => "quarter_hourly",
            Self::Hour => "hourly",
            Self::Day => "daily",
            Self::Month => "monthly",
        }
    }

    /// The one period of the zone's calendar that contains the instant.
    ///
    /// Time begins at [`TIME_MIN`](super::TIME_MIN) and ends at [`TIME_MAX`](super::TIME_MAX): the periods at these two
    /// are cut there, and an instant outside of them is taken for the nearest one inside.
    ///
    /// ```
    /// use metertrail::time::{Period, Zone};
    ///
    /// let instant = "2026-03-01T04:30:00Z".parse().unwrap();
    /// let month = Period::Month.range_at(instant, Zone::new("America/New_York")?);
    /// assert_eq!(month.to_string(), "[2026-02-01T05:00:00Z, 2026-03-01T05:00:00Z)");
    /// # Ok::<(), metertrail::Error>(())
    /// ```
    pub fn range_at(self, instant: DateTime<Utc>, zone: Zone) -> TimeRange {
        let instant = clamped(instant);
        let span = match self {
            Self::QuarterHour => part_at(instant, zone, TimeDelta::minutes(15)),
            Self::Hour => part_at(instant, zone, TimeDelta::hours(1)),
            Self::Day => day_at(instant, zone),
            Self::Month => month_at(instant, zone),
        };
        span.clipped()
    }

    /// All periods that have an instant in common with the range: whole, contiguous, ascending.
    ///
    /// The first may begin before the range and the last may end after it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `range` if there are more than [`PERIODS_MAX`].
    ///
    /// ```
    /// use metertrail::time::{Period, TIME_MAX, TIME_MIN, TimeRange, Zone};
    ///
    /// let noon = "2026-03-01T12:00:00Z".parse().unwrap();
    /// let range = TimeRange::new(noon, noon + chrono::TimeDelta::hours(24))?;
    /// let days = Period::Day.ranges(range, Zone::UTC)?;
    /// assert_eq!(days.len(), 2);
    /// assert_eq!(days[0].end(), days[1].start());
    ///
    /// let two_centuries = TimeRange::new(TIME_MIN, TIME_MAX)?;
    /// assert_eq!(Period::Day.ranges(two_centuries, Zone::UTC).unwrap_err().field(), Some("range"));
    /// # Ok::<(), metertrail::Error>(())
    /// ```
    pub fn ranges(self, range: TimeRange, zone: Zone) -> Result<Vec<TimeRange>> {
        let too_many = || {
            let rule = format!("must not have more than {PERIODS_MAX} {self} periods, is {range}");
            Err(Error::invalid("range", rule))
        };
        if self.fewest_in(range) > PERIODS_MAX {
            return too_many();
        }
        let mut ranges = Vec::new();
        let mut cursor = range.start();
        while cursor < range.end() {
            if ranges.len() == PERIODS_MAX {
                return too_many();
            }
            let period = self.range_at(cursor, zone);
            ranges.push(period);
            cursor = period.end();
        }
        Ok(ranges)
    }

    /// How many periods the range has at least, from its length alone.
    fn fewest_in(self, range: TimeRange) -> usize {
        let longest = match self {
            Self::QuarterHour => Duration::from_secs(900),
            Self::Hour => Duration::from_secs(3_600),
            Self::Day => Duration::from_secs(2 * 86_400),
            Self::Month => Duration::from_secs(32 * 86_400),
        };
        usize::try_from(range.duration().as_micros().div_ceil(longest.as_micros())).unwrap_or(usize::MAX)
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Period {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|period| period.as_str() == name);
        found.ok_or_else(|| Error::invalid("period", "must be quarter_hourly, hourly, daily or monthly"))
    }
}

fn month_at(instant: DateTime<Utc>, zone: Zone) -> Span {
    let date = zone.local(instant).date();
    // Two ahead and not one: at the second of two midnights the clocks show a day, or a month, that is over.
    Span::around(instant, month::index(date) + 2, |index| {
        zone.day_start(month::day(index, 1).unwrap_or(date))
    })
}

fn day_at(instant: DateTime<Utc>, zone: Zone) -> Span {
    let date = zone.local(instant).date();
    Span::around(instant, 2, |days| {
        let day = TimeDelta::try_days(days).and_then(|days| date.checked_add_signed(days));
        zone.day_start(day.unwrap_or(date))
    })
}

fn part_at(instant: DateTime<Utc>, zone: Zone, length: TimeDelta) -> Span {
    let day = day_at(instant, zone);
    let into = (instant - day.start).num_seconds() % length.num_seconds();
    let start = instant
        - TimeDelta::seconds(into)
        - TimeDelta::nanoseconds(i64::from(instant.timestamp_subsec_nanos()));
    Span { start, end: (start + length).min(day.end) }
}
