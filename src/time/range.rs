//! From when until when.

use std::fmt;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::instant::checked;
use crate::{Error, Result};

/// A half-open range of time: its start belongs to it, its end does not.
///
/// Never empty, in whole microseconds, and inside of [`TIME_MIN`](super::TIME_MIN) to [`TIME_MAX`](super::TIME_MAX).
/// Ranges sort by start, then by end.
///
/// ```
/// use chrono::{DateTime, Utc};
/// use metertrail::time::TimeRange;
///
/// let start: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
/// let end: DateTime<Utc> = "2026-03-02T00:00:00Z".parse().unwrap();
/// let range = TimeRange::new(start, end)?;
/// assert!(range.contains(start) && !range.contains(end));
/// assert_eq!(range.duration().as_secs(), 86_400);
/// assert_eq!(range.to_string(), "[2026-03-01T00:00:00Z, 2026-03-02T00:00:00Z)");
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "Bounds")]
pub struct TimeRange {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

impl TimeRange {
    /// All time that the crate knows.
    pub const ALL: Self = Self { start: super::TIME_MIN, end: super::TIME_MAX };

    /// Checks and takes two bounds, each truncated to microseconds.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `start` or `end` if that bound lies outside of
    /// [`TIME_MIN`](super::TIME_MIN) to [`TIME_MAX`](super::TIME_MAX), and on `end` if it is not after the start.
    ///
    /// ```
    /// use metertrail::time::{TIME_MIN, TimeRange};
    ///
    /// let error = TimeRange::new(TIME_MIN, TIME_MIN).unwrap_err();
    /// assert_eq!(error.to_string(), "end: must be after start (2000-01-01T00:00:00Z)");
    /// ```
    pub fn new(start: DateTime<Utc>, end: DateTime<Utc>) -> Result<Self> {
        let (start, end) = (checked("start", start)?, checked("end", end)?);
        if start < end {
            Ok(Self { start, end })
        } else {
            Err(Error::invalid("end", format!("must be after start ({start:?})")))
        }
    }

    /// A range whose bounds the caller has checked already.
    pub(super) const fn from_checked(start: DateTime<Utc>, end: DateTime<Utc>) -> Self {
        Self { start, end }
    }

    /// The first instant of the range.
    pub fn start(&self) -> DateTime<Utc> {
        self.start
    }

    /// The first instant after the range.
    pub fn end(&self) -> DateTime<Utc> {
        self.end
    }

    /// Whether the instant lies in the range.
    pub fn contains(&self, instant: DateTime<Utc>) -> bool {
        self.start <= instant && instant < self.end
    }

    /// How long the range is.
    pub fn duration(&self) -> Duration {
        (self.end - self.start).to_std().unwrap_or_default()
    }
}

impl fmt::Display for TimeRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}, {:?})", self.start, self.end)
    }
}

/// A range as it comes in, not checked yet.
#[derive(Deserialize)]
struct Bounds {
    start: DateTime<Utc>,
    end: DateTime<Utc>,
}

impl TryFrom<Bounds> for TimeRange {
    type Error = Error;

    fn try_from(bounds: Bounds) -> Result<Self> {
        Self::new(bounds.start, bounds.end)
    }
}
