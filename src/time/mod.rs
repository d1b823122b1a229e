//! Instants, ranges, calendar periods and billing cycles; the only place in the crate that reads a clock.
//!
//! Every instant is a `DateTime<Utc>` in whole microseconds, which is what Postgres keeps, and every range is half-open.
//! What a tenant calls a day or a month is decided here and nowhere else: [`Period`] for the calendar of a [`Zone`],
//! [`BillingCycle`] for cycles from an anchor, [`cover`] for the stored roll-ups that add up to a range.
//!
//! ```
//! use metertrail::time::{Clock, Period, SystemClock, Zone, cover};
//!
//! let zone = Zone::new("Asia/Kathmandu")?;
//! let today = Period::Day.range_at(SystemClock.now(), zone);
//! let hours = Period::Hour.ranges(today, zone)?;
//! assert_eq!(hours.len(), 24);
//! assert_eq!(hours[0].start(), today.start());
//!
//! // Kathmandu is 5:45 ahead of UTC, so its day begins and ends with quarter hours.
//! let tiles = cover(today)?;
//! assert_eq!(tiles[0].period, Period::QuarterHour);
//! # Ok::<(), metertrail::Error>(())
//! ```

mod clock;
mod cover;
mod cycle;
mod instant;
mod month;
mod period;
mod range;
mod span;
mod tick;
pub(crate) mod timer;
mod zone;

pub use self::clock::{Clock, SystemClock};
pub use self::cover::{Tile, bucket_start, cover};
pub use self::cycle::{BillingCycle, Every};
pub use self::instant::{TIME_MAX, TIME_MIN, truncated};
pub use self::period::{PERIODS_MAX, Period};
pub use self::range::TimeRange;
pub(crate) use self::tick::Tick;
pub use self::zone::Zone;
