//! What is done again and again: tasks, when they are due, and one run of one of them.

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::store::Fence;
use crate::{Error, Result};

/// Work that has to be done at intervals, by one process at a time.
///
/// A run may be begun again: after an error, after a crash, by another process while the one before still believes that it
/// is alone. So it must do what is left to do rather than what was left when it was due, and whatever cannot be taken back
/// has to be done by a step of a store that is shown the run's [`fence`](Run::fence).
///
/// ```
/// use std::time::Duration;
///
/// use metertrail::upkeep::{Run, Schedule, Upkeep, UpkeepTask};
/// use metertrail::{MemoryStore, Result};
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// /// Sends a summary every morning.
/// #[derive(Debug)]
/// struct Morning;
///
/// #[async_trait::async_trait]
/// impl UpkeepTask for Morning {
///     fn name(&self) -> &'static str {
///         "morning-summary"
///     }
///
///     fn schedule(&self) -> Schedule {
///         Schedule::every(Duration::from_secs(24 * 60 * 60)).offset(Duration::from_secs(7 * 60 * 60))
///     }
///
///     async fn run(&self, run: &Run) -> Result<u64> {
///         println!("good morning, it is {}", run.now());
///         Ok(1)
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let upkeep = Upkeep::builder(MemoryStore::new()).task(Morning).build()?;
/// let now = "2026-03-01T09:30:00Z".parse().unwrap();
/// let reports = upkeep.run_due(now).await;
/// let morning = reports.iter().find(|report| report.task.as_str() == "morning-summary").unwrap();
/// assert!(morning.outcome.is_success());
/// assert_eq!(morning.due_at.to_rfc3339(), "2026-03-01T07:00:00+00:00");
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[async_trait]
pub trait UpkeepTask: Debug + Send + Sync + 'static {
    /// Its name: what its steps are claimed under. It must be the same in all processes.
    fn name(&self) -> &'static str;

    /// When it is due.
    fn schedule(&self) -> Schedule;

    /// Does one step; says how many rows, or whatever it works on, it did.
    ///
    /// # Errors
    /// Whatever it meets. The step is tried again later.
    ///
    /// # Cancel safety
    /// The call is dropped when the run is not the task's any more, or takes too long.
    async fn run(&self, run: &Run) -> Result<u64>;
}

/// When a task is due: at every multiple of an interval, counted from the beginning of 1970 UTC, so that all processes mean
/// the same steps. Of steps that were missed only the latest is made up for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub struct Schedule {
    interval: Duration,
    offset: Duration,
    lease: Duration,
    time_limit: Duration,
}

impl Schedule {
    /// Due at every multiple of an interval, of at least a second. A run may take an hour; its lease is a minute, and is
    /// renewed while it goes on.
    pub fn every(interval: Duration) -> Self {
        Self {
            interval: interval.max(Duration::from_secs(1)),
            offset: Duration::ZERO,
            lease: Duration::from_secs(60),
            time_limit: Duration::from_secs(60 * 60),
        }
    }

    /// So much after each multiple.
    pub fn offset(mut self, offset: Duration) -> Self {
        self.offset = offset;
        self
    }

    /// After which time a run whose process has died is begun by another one; at least a second.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.lease = lease.max(Duration::from_secs(1));
        self
    }

    /// How long a run may take before it is given up as failed.
    pub fn time_limit(mut self, time_limit: Duration) -> Self {
        self.time_limit = time_limit;
        self
    }

    /// The latest step that is due.
    pub fn due_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let interval = micros(self.interval).max(1);
        let offset = micros(self.offset);
        let step = (now.timestamp_micros() - offset).div_euclid(interval);
        DateTime::from_timestamp_micros(step * interval + offset).unwrap_or(now)
    }

    /// How long until the next step is due.
    pub(super) fn until_next(&self, now: DateTime<Utc>) -> Duration {
        (self.due_at(now) + TimeDelta::microseconds(micros(self.interval)) - now).to_std().unwrap_or_default()
    }

    pub(super) fn lease_duration(&self) -> Duration {
        self.lease
    }

    pub(super) fn limit(&self) -> Duration {
        self.time_limit
    }

    /// How long to wait after an attempt failed: a minute, then twice as long each time, an hour at most.
    pub(super) fn retry_after(attempt: u32) -> TimeDelta {
        TimeDelta::minutes(1 << attempt.clamp(1, 7).saturating_sub(1)).min(TimeDelta::hours(1))
    }
}

/// In whole microseconds; a century at most, so that sums of some of them cannot overflow.
fn micros(duration: Duration) -> i64 {
    const CENTURY: i64 = 100 * 366 * 24 * 60 * 60 * 1_000_000;
    i64::try_from(duration.as_micros()).unwrap_or(CENTURY).min(CENTURY)
}

/// One run of a task: which step, and under which right.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) fence: Fence,
    pub(super) due_at: DateTime<Utc>,
    pub(super) now: DateTime<Utc>,
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) attempt: u32,
}

impl Run {
    /// The right to act, for steps of a store that cannot be taken back.
    pub fn fence(&self) -> &Fence {
        &self.fence
    }

    /// When the step was due.
    pub fn due_at(&self) -> DateTime<Utc> {
        self.due_at
    }

    /// The time at which the run began.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// The latest step that succeeded before: what came since is this run's work. `None` for the first.
    pub fn since(&self) -> Option<DateTime<Utc>> {
        self.since
    }

    /// Which attempt at the step it is, from 1.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// The error of a run that found that it is not its task's any more.
    pub fn lost(&self) -> Error {
        let message = format!("the task {} was taken over by another run", self.fence.task);
        Error::new(crate::ErrorKind::Unavailable, message)
    }
}
