//! The stretch of time that a limit counts over.

use std::fmt;

use chrono::{DateTime, Duration, Utc};
use serde::{Deserialize, Serialize};

use crate::time::{BillingCycle, Period, TIME_MAX, TIME_MIN, TimeRange, Zone, bucket_start};
use crate::{Error, Result};

/// The stretch of time that a limit counts over: half-open, computed from the calendar or an anchor each time, so that
/// there is nothing to reset.
///
/// ```
/// use metertrail::quota::Window;
/// use metertrail::Zone;
///
/// let noon = "2026-03-15T12:00:30Z".parse().unwrap();
/// assert_eq!(Window::Day.range_at(noon, Zone::UTC).to_string(), "[2026-03-15T00:00:00Z, 2026-03-16T00:00:00Z)");
/// assert_eq!(Window::Minute.range_at(noon, Zone::UTC).to_string(), "[2026-03-15T12:00:00Z, 2026-03-15T12:01:00Z)");
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Window {
    /// A minute of the clock.
    Minute,
    /// An hour, in the tenant's zone.
    Hour,
    /// A day, in the tenant's zone.
    Day,
    /// A calendar month, in the tenant's zone.
    Month,
    /// A cycle from an anchor, made by [`Window::cycle`].
    Cycle(BillingCycle),
    /// All time.
    Lifetime,
}

impl Window {
    /// A billing cycle, whose anchor must lie on a quarter hour so that recorded usage can be added up to it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `anchor`.
    pub fn cycle(cycle: BillingCycle) -> Result<Self> {
        if bucket_start(cycle.anchor()) != cycle.anchor() {
            return Err(Error::invalid(
                "anchor",
                format!("must lie on a quarter hour, is {}", cycle.anchor()),
            ));
        }
        Ok(Self::Cycle(cycle))
    }

    /// The window that an instant lies in.
    pub fn range_at(self, instant: DateTime<Utc>, zone: Zone) -> TimeRange {
        match self {
            Self::Minute => minute(instant),
            Self::Hour => Period::Hour.range_at(instant, zone),
            Self::Day => Period::Day.range_at(instant, zone),
            Self::Month => Period::Month.range_at(instant, zone),
            Self::Cycle(cycle) => cycle.range_at(instant),
            Self::Lifetime => TimeRange::ALL,
        }
    }

    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Month => "month",
            Self::Cycle(_) => "cycle",
            Self::Lifetime => "lifetime",
        }
    }
}

fn minute(instant: DateTime<Utc>) -> TimeRange {
    let instant = instant.clamp(TIME_MIN, TIME_MAX - Duration::minutes(1));
    let start = DateTime::from_timestamp(instant.timestamp().div_euclid(60) * 60, 0).unwrap_or(TIME_MIN);
    TimeRange::new(start, start + Duration::minutes(1)).unwrap_or(TimeRange::ALL)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
