//! Where the time comes from.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chrono::{DateTime, Utc};

use super::instant::TIME_MAX;

/// A source of time.
///
/// Two readings, because one clock cannot do both: [`now`](Clock::now) names an instant and may be set back by whoever
/// sets the machine's clock; [`monotonic`](Clock::monotonic) measures and names nothing.
///
/// ```
/// use std::time::Duration;
///
/// use chrono::{DateTime, Utc};
/// use metertrail::time::{Clock, TIME_MIN};
///
/// /// Always the first instant of the year 2000.
/// #[derive(Debug)]
/// struct Stopped;
///
/// impl Clock for Stopped {
///     fn now(&self) -> DateTime<Utc> {
///         TIME_MIN
///     }
///
///     fn monotonic(&self) -> Duration {
///         Duration::ZERO
///     }
/// }
///
/// let clock: Box<dyn Clock> = Box::new(Stopped);
/// assert_eq!(clock.now(), TIME_MIN);
/// ```
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall-clock time, truncated to microseconds. It may go back between two calls.
    fn now(&self) -> DateTime<Utc>;

    /// The time since an arbitrary origin, which is fixed for the life of the process. It never goes back.
    ///
    /// Latency is the difference of two readings.
    fn monotonic(&self) -> Duration;
}

/// The clocks of the operating system.
///
/// All values of this type, in one process, share one origin of [`monotonic`](Clock::monotonic).
///
/// ```
/// use metertrail::time::{Clock, SystemClock, truncated};
///
/// let before = SystemClock.monotonic();
/// let now = SystemClock.now();
/// assert_eq!(now, truncated(now));
/// assert!(SystemClock.monotonic() >= before);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Clock for SystemClock {
    fn now(&self) -> DateTime<Utc> {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => {
                let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
                return DateTime::from_timestamp(seconds, since.subsec_micros() * 1_000).unwrap_or(TIME_MAX);
            }
            // Before 1970: rounded away from the epoch, so that truncation is towards the past there too.
            Err(error) => i64::try_from(error.duration().as_nanos().div_ceil(1_000)).map(|micros| -micros),
        };
        micros.ok().and_then(DateTime::from_timestamp_micros).unwrap_or(TIME_MAX)
    }

    fn monotonic(&self) -> Duration {
        let origin = *ORIGIN;
        Instant::now().saturating_duration_since(origin)
    }
}
