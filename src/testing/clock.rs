//! A clock that stands still until it is told otherwise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

use crate::time::{Clock, truncated};

/// A [`Clock`] for tests: it moves only when the test moves it.
///
/// Clones are handles of one clock, so that a test keeps one and gives the other away.
///
/// ```
/// use std::time::Duration;
///
/// use chrono::{DateTime, Utc};
/// use metertrail::testing::ManualClock;
/// use metertrail::time::Clock;
///
/// let midnight: DateTime<Utc> = "2026-03-01T00:00:00Z".parse().unwrap();
/// let clock = ManualClock::new(midnight);
/// let handle = clock.clone();
/// handle.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().to_rfc3339(), "2026-03-01T00:01:00+00:00");
/// assert_eq!(clock.monotonic(), Duration::from_secs(60));
///
/// // Somebody sets the machine's clock back: that moves the wall clock only.
/// handle.set(midnight);
/// assert_eq!(clock.now(), midnight);
/// assert_eq!(clock.monotonic(), Duration::from_secs(60));
/// ```
#[derive(Clone, Debug)]
pub struct ManualClock {
    hands: Arc<Mutex<Hands>>,
}

/// Kept to the nanosecond, so that many short advances add up.
#[derive(Debug)]
struct Hands {
    now: DateTime<Utc>,
    monotonic: Duration,
}

impl ManualClock {
    /// A clock that shows this instant and whose monotonic reading is zero.
    pub fn new(start: DateTime<Utc>) -> Self {
        Self { hands: Arc::new(Mutex::new(Hands { now: start, monotonic: Duration::ZERO })) }
    }

    /// Sets the wall clock, forward or back, as an operator or NTP would. The monotonic reading stays what it is.
    pub fn set(&self, instant: DateTime<Utc>) {
        self.hands().now = instant;
    }

    /// Lets time pass: both readings move on by this much. Each stops at the greatest value of its type.
    pub fn advance(&self, by: Duration) {
        let mut hands = self.hands();
        let later = TimeDelta::from_std(by).ok().and_then(|by| hands.now.checked_add_signed(by));
        hands.now = later.unwrap_or(DateTime::<Utc>::MAX_UTC);
        hands.monotonic = hands.monotonic.saturating_add(by);
    }

    fn hands(&self) -> MutexGuard<'_, Hands> {
        // No code that can panic runs under the lock, so a poisoned lock still guards whole values.
        self.hands.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for ManualClock {
    fn now(&self) -> DateTime<Utc> {
        truncated(self.hands().now)
    }

    fn monotonic(&self) -> Duration {
        self.hands().monotonic
    }
}
