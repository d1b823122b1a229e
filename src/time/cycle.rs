//! Billing cycles: periods counted from an anchor.

use std::num::NonZeroU16;

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};

use super::instant::{checked, clamped};
use super::month;
use super::range::TimeRange;
use super::span::Span;
use super::zone::Zone;
use crate::{Error, Result};

/// How long a billing cycle is, in the calendar of its zone.
///
/// ```
/// use metertrail::time::Every;
///
/// assert_eq!(serde_json::to_string(&Every::MONTH).unwrap(), r#"{"months":1}"#);
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    /// A number of local days.
    Days(NonZeroU16),
    /// A number of calendar months.
    Months(NonZeroU16),
}

impl Every {
    /// One month.
    pub const MONTH: Self = Self::Months(NonZeroU16::MIN);
}

/// Cycles of days or months from an anchor: the day of the month on which a subscription renews.
///
/// Each start is computed from the anchor and not from the start before it, so that nothing drifts: from an anchor on
/// January 31, cycles of a month begin on February 28 or 29, March 31, April 30. The anchor's local time of day is kept
/// when the clocks change; where that time is skipped the cycle begins at the first instant after the gap, where it
/// happens twice, at the earlier. The anchor itself always begins a cycle, and cycles reach back before it.
///
/// An anchor on a quarter hour gives ranges that [`cover`](super::cover) can tile; any other anchor does not. (The rare
/// exception: a time of day in a gap that does not begin on a quarter hour, such as 00:15 in St. John's until 2011.)
///
/// ```
/// use metertrail::time::{BillingCycle, Every, Zone};
///
/// let anchor = "2026-01-31T00:00:00Z".parse().unwrap();
/// let cycle = BillingCycle::new(anchor, Every::MONTH, Zone::UTC)?;
/// let range = cycle.range_at("2026-03-15T09:00:00Z".parse().unwrap());
/// assert_eq!(range.to_string(), "[2026-02-28T00:00:00Z, 2026-03-31T00:00:00Z)");
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "Parts")]
pub struct BillingCycle {
    anchor: DateTime<Utc>,
    every: Every,
    zone: Zone,
}

impl BillingCycle {
    /// Cycles from an anchor, which is truncated to microseconds, in the calendar of a zone.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `anchor` if it lies outside of
    /// [`TIME_MIN`](super::TIME_MIN) to [`TIME_MAX`](super::TIME_MAX).
    pub fn new(anchor: DateTime<Utc>, every: Every, zone: Zone) -> Result<Self> {
        checked("anchor", anchor).map(|anchor| Self { anchor, every, zone })
    }

    /// The start of the cycle that all others are counted from.
    pub fn anchor(&self) -> DateTime<Utc> {
        self.anchor
    }

    /// How long a cycle is.
    pub fn every(&self) -> Every {
        self.every
    }

    /// The zone in whose calendar the cycles are counted.
    pub fn zone(&self) -> Zone {
        self.zone
    }

    /// The one cycle that contains the instant, before the anchor or after it.
    ///
    /// As with [`Period::range_at`](super::Period::range_at), cycles are cut at [`TIME_MIN`](super::TIME_MIN) and
    /// [`TIME_MAX`](super::TIME_MAX), and an instant outside of them is taken for the nearest one inside.
    ///
    /// ```
    /// use std::num::NonZeroU16;
    ///
    /// use metertrail::time::{BillingCycle, Every, Zone};
    ///
    /// // Fortnights at nine in the morning, before and after Berlin puts its clocks forward.
    /// let anchor = "2026-03-20T08:00:00Z".parse().unwrap();
    /// let fortnight = Every::Days(NonZeroU16::new(14).unwrap());
    /// let cycle = BillingCycle::new(anchor, fortnight, Zone::new("Europe/Berlin")?)?;
    /// assert_eq!(cycle.range_at(anchor).to_string(), "[2026-03-20T08:00:00Z, 2026-04-03T07:00:00Z)");
    /// # Ok::<(), metertrail::Error>(())
    /// ```
    pub fn range_at(&self, instant: DateTime<Utc>) -> TimeRange {
        let instant = clamped(instant);
        let local = self.zone.local(self.anchor);
        let (anchor, time) = (local.date(), local.time());
        let date = self.zone.local(instant).date();
        let cycles = match self.every {
            Every::Days(days) => (date - anchor).num_days().div_euclid(i64::from(days.get())),
            Every::Months(months) => {
                (month::index(date) - month::index(anchor)).div_euclid(i64::from(months.get()))
            }
        };
        // Two ahead and not one: at the second of two midnights the clocks show a day that is over.
        Span::around(instant, cycles + 2, |cycle| self.start(cycle, anchor, time)).clipped()
    }

    fn start(&self, cycle: i64, anchor: NaiveDate, time: NaiveTime) -> DateTime<Utc> {
        if cycle == 0 {
            return self.anchor;
        }
        let date = match self.every {
            Every::Days(days) => TimeDelta::try_days(cycle * i64::from(days.get()))
                .and_then(|days| anchor.checked_add_signed(days)),
            Every::Months(months) => {
                month::day(month::index(anchor) + cycle * i64::from(months.get()), anchor.day())
            }
        };
        match date {
            Some(date) => self.zone.first_instant(date.and_time(time)),
            // Outside of chrono's calendar, and so far outside of the crate's.
            None if cycle < 0 => DateTime::<Utc>::MIN_UTC,
            None => DateTime::<Utc>::MAX_UTC,
        }
    }
}

/// A cycle as it comes in, not checked yet.
#[derive(Deserialize)]
struct Parts {
    anchor: DateTime<Utc>,
    every: Every,
    #[serde(default)]
    zone: Zone,
}

impl TryFrom<Parts> for BillingCycle {
    type Error = Error;

    fn try_from(parts: Parts) -> Result<Self> {
        Self::new(parts.anchor, parts.every, parts.zone)
    }
}
