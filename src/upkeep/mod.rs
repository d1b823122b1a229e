//! Upkeep: what has to be done again and again is done by one of any number of processes. Also all background work of the
//! crate, and the only place that spawns it.
//!
//! [`Upkeep`] has tasks: this crate's own and the host's ([`UpkeepTask`]). Each step of a task is claimed by a
//! compare-and-swap on the task's row, under a lease and a token that only grows; whoever dies or sleeps in mid-run is
//! followed by somebody else, and refused when it comes back. Every run is recorded.
//!
//! | task | when | what it does |
//! |---|---|---|
//! | `aggregate` | every minute | folds what was recorded into the metrics |
//! | `partitions` | every hour | makes day partitions ahead |
//! | `prune` | every hour | deletes what [`Retention`] says, old quota rows and records of runs |

mod builder;
mod export;
mod retention;
mod runner;
mod task;
mod tasks;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::audit::AuditEvent;
use crate::audit::writer::Writer;
use crate::quota::Keeper;
use crate::store::Store;
use crate::time::timer::Instant;
use crate::usage::UsageEvent;
use crate::usage::flusher::Flusher;
use crate::{Error, ErrorKind, Result};

pub use self::builder::UpkeepBuilder;
pub use self::export::export_usage;
#[cfg(feature = "archive")]
pub(crate) use self::export::{whole_pages, write_page};
pub use self::retention::{Keep, Retention};
pub use self::runner::{StepOutcome, StepReport, Upkeep, UpkeepHandle};
pub use self::task::{Run, Schedule, UpkeepTask};

use self::tasks::{Aggregation, Partitions, Pruning};
#[cfg(feature = "archive")]
pub(crate) use self::tasks::{droppable, first_kept};

/// The most steps of one call of [`Store::roll_up`], so that none holds its transaction for long.
const ROLL_UP_STEPS_MAX: u32 = 200_000;
/// A roll-up that takes longer is given up and tried again: the store may have hung.
const ROLL_UP_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Starts the background tasks of one tracker; gives the flusher's.
pub(crate) fn spawn(flusher: Flusher, roll_up: RollUp) -> Result<JoinHandle<Vec<UsageEvent>>> {
    let runtime = Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::Misuse, "a tracker must be started inside of a tokio runtime")
            .with_source(error)
    })?;
    runtime.spawn(roll_up.run());
    Ok(runtime.spawn(flusher.run()))
}

/// Starts the background task of one enforcer.
pub(crate) fn spawn_keeper(keeper: Keeper) -> Result<JoinHandle<()>> {
    let runtime = Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::Misuse, "an enforcer must be started inside of a tokio runtime")
            .with_source(error)
    })?;
    Ok(runtime.spawn(keeper.run()))
}

/// Starts the background tasks of one audit log; gives the writer's.
pub(crate) fn spawn_audit(
    writer: Writer,
    sealing: Option<impl Future<Output = ()> + Send + 'static>,
) -> Result<JoinHandle<Vec<AuditEvent>>> {
    let runtime = Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::Misuse, "an audit log must be started inside of a tokio runtime")
            .with_source(error)
    })?;
    if let Some(sealing) = sealing {
        runtime.spawn(sealing);
    }
    Ok(runtime.spawn(writer.run()))
}

/// Starts the upkeep of one process.
fn spawn_upkeep(upkeep: impl Future<Output = ()> + Send + 'static) -> Result<JoinHandle<()>> {
    let runtime = Handle::try_current().map_err(|error| {
        Error::new(ErrorKind::Misuse, "upkeep must be started inside of a tokio runtime").with_source(error)
    })?;
    Ok(runtime.spawn(upkeep))
}

/// Work for the processor, off the threads that others wait on.
#[cfg(feature = "archive")]
pub(crate) async fn compute<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| {
        Err(Error::new(ErrorKind::Misuse, "a computation ended early").with_source(error))
    })
}

/// Rolls up what was appended, at intervals, until the tracker stops.
#[derive(Debug)]
pub(crate) struct RollUp {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) interval: Duration,
    pub(crate) stop: watch::Receiver<Option<Instant>>,
}

impl RollUp {
    async fn run(mut self) {
        // The wait is ended by the stop, by its sender's end, or, as a rule, by the interval.
        while timeout(self.interval, self.stop.wait_for(Option::is_some)).await.is_err() {
            self.drain().await;
        }
    }

    /// Until nothing is left. What fails is tried again at the next interval: answers do not depend on it.
    async fn drain(&self) {
        loop {
            let step = AssertUnwindSafe(self.store.roll_up(ROLL_UP_STEPS_MAX)).catch_unwind();
            let done = timeout(ROLL_UP_TIMEOUT, step).await;
            match done.unwrap_or_else(|_| Ok(Err(overdue()))).unwrap_or_else(|_panic| Err(panicked())) {
                Ok(0) => return,
                Ok(_) => {}
                Err(error) => {
                    tracing::warn!(%error, "metertrail: rolling up failed, trying again later");
                    return;
                }
            }
            if self.stop.borrow().is_some() {
                return;
            }
        }
    }
}

fn overdue() -> Error {
    Error::new(ErrorKind::Unavailable, format!("the store did not roll up in {ROLL_UP_TIMEOUT:?}"))
}

fn panicked() -> Error {
    Error::new(ErrorKind::Store, "the store panicked while it rolled up")
}
