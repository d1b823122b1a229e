//! One of the spans that a rising sequence of starts cuts time into.

use chrono::{DateTime, Utc};

use super::instant::{TIME_MAX, TIME_MIN};
use super::range::TimeRange;

/// Two bounds, which unlike a [`TimeRange`]'s may lie outside of the crate's range of time.
#[derive(Clone, Copy)]
pub(super) struct Span {
    pub(super) start: DateTime<Utc>,
    pub(super) end: DateTime<Utc>,
}

impl Span {
    /// The span around the instant, searched downwards from an index whose start is after the instant.
    ///
    /// Starts may repeat (a day that a zone skips starts when the next one does): such an empty span is never found.
    pub(super) fn around(instant: DateTime<Utc>, after: i64, start: impl Fn(i64) -> DateTime<Utc>) -> Self {
        let mut index = after;
        let mut span = Self { start: start(after), end: start(after) };
        while span.start > instant {
            index -= 1;
            span = Self { start: start(index), end: span.start };
        }
        span
    }

    /// The part of the span inside of the crate's range of time, of which the caller knows that there is one.
    pub(super) fn clipped(self) -> TimeRange {
        TimeRange::from_checked(self.start.max(TIME_MIN), self.end.min(TIME_MAX))
    }
}
