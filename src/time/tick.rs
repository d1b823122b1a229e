//! A clock for hot paths: the time as it was a moment ago, for the price of one load.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::clock::Clock;

/// The time in microseconds since 1970, as somebody last noted it; or read each time, if nobody does.
#[derive(Clone, Debug)]
pub(crate) enum Tick {
    /// Noted by a background task with [`note`](Self::note).
    Noted(Arc<AtomicI64>),
    /// Read from the clock each time.
    Read,
}

impl Tick {
    /// A tick that somebody will note.
    pub(crate) fn noted(clock: &dyn Clock) -> Self {
        Self::Noted(Arc::new(AtomicI64::new(clock.now().timestamp_micros())))
    }

    #[inline]
    pub(crate) fn now_us(&self, clock: &dyn Clock) -> i64 {
        match self {
            Self::Noted(tick) => tick.load(Ordering::Relaxed),
            Self::Read => clock.now().timestamp_micros(),
        }
    }

    pub(crate) fn note(&self, clock: &dyn Clock) {
        if let Self::Noted(tick) = self {
            tick.store(clock.now().timestamp_micros(), Ordering::Relaxed);
        }
    }
}
