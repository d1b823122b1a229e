//! Months as numbers, so that one can count with them.

use chrono::{Datelike, NaiveDate};

/// The months from the year 0 to the date's.
pub(super) fn index(date: NaiveDate) -> i64 {
    i64::from(date.year()) * 12 + i64::from(date.month0())
}

/// This day of the month, or the last day of a month that is too short for it; `None` outside of chrono's calendar.
pub(super) fn day(index: i64, day: u32) -> Option<NaiveDate> {
    let year = i32::try_from(index.div_euclid(12)).ok()?;
    let month = u32::try_from(index.rem_euclid(12) + 1).ok()?;
    (1..=day).rev().find_map(|day| NaiveDate::from_ymd_opt(year, month, day))
}
