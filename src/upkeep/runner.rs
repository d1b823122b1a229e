//! The upkeep of one process: claims what is due, does it while it holds it, and says what became of it.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::FutureExt;
use futures_util::future::join_all;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::{Run, UpkeepBuilder, UpkeepTask};
use crate::store::{ClaimRun, Claimed, Fence, RunEnd, Store, TaskRun, TaskState, UpkeepStore};
use crate::text::Label;
use crate::time::{Clock, timer};
use crate::{Error, ErrorKind, Result};

/// A process looks again after this time at the latest, whatever its clock said before.
const LOOK_MAX: Duration = Duration::from_secs(30);
const LOOK_MIN: Duration = Duration::from_millis(100);

/// The crate's housekeeping: what is due is done by one of any number of processes.
///
/// Drive it as you like. [`start`](Self::start) does it in the background of this process; [`run_due`](Self::run_due) does what
/// is due at an instant and returns, for a host with a scheduler of its own; [`run_task`](Self::run_task) does one task now,
/// as an operator or a cron call asks for it. All three may be mixed, in any number of processes.
///
/// ```
/// use metertrail::upkeep::Upkeep;
/// use metertrail::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let upkeep = Upkeep::builder(MemoryStore::new()).build()?;
/// let now = "2026-03-01T09:30:00Z".parse().unwrap();
/// assert!(upkeep.run_due(now).await.iter().all(|report| report.outcome.is_success()));
/// // Each step is done once, whoever asks.
/// assert!(upkeep.run_due(now).await.iter().all(|report| report.outcome.is_done()));
///
/// let states = upkeep.states().await?;
/// let aggregation = states.iter().find(|state| state.latest.task.as_str() == "aggregate").unwrap();
/// assert_eq!(aggregation.last_success_due_at, Some(now));
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct Upkeep {
    pub(super) store: Arc<dyn UpkeepStore>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) owner: Label,
    pub(super) tasks: Arc<[Planned]>,
    /// Steps that are known to be done, so that nobody need be asked again.
    pub(super) done: Arc<Mutex<BTreeMap<Label, DateTime<Utc>>>>,
}

/// A task under its checked name.
#[derive(Clone, Debug)]
pub(super) struct Planned {
    pub(super) name: Label,
    pub(super) task: Arc<dyn UpkeepTask>,
}

/// What became of one step of one task in this process.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct StepReport {
    /// The task.
    pub task: Label,
    /// When the step was due.
    pub due_at: DateTime<Utc>,
    /// What became of it.
    pub outcome: StepOutcome,
}

/// What became of a step.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum StepOutcome {
    /// This process did it.
    Succeeded {
        /// On how many rows, or whatever the task counts.
        rows: u64,
    },
    /// This process tried and failed.
    Failed(Error),
    /// This process began it, and another one took it over.
    Lost,
    /// It was done before, here or elsewhere.
    Done,
    /// Somebody else is at the task.
    Running {
        /// When its lease ends, unless it is renewed.
        until: DateTime<Utc>,
    },
    /// It failed before and is tried again later.
    Later {
        /// When.
        at: DateTime<Utc>,
    },
    /// The store could not be asked.
    Unclaimed(Error),
}

impl StepOutcome {
    /// Whether this process did it.
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Succeeded { .. })
    }

    /// Whether it was done before.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// Why it could not be done, if it could not.
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Failed(error) | Self::Unclaimed(error) => Some(error),
            _ => None,
        }
    }
}

/// Upkeep that goes on in the background until it is told to stop, or dropped.
#[derive(Debug)]
pub struct UpkeepHandle {
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: tokio::task::JoinHandle<()>,
}

impl UpkeepHandle {
    /// Stops after the steps that are being done; those that take longer than the time given are left to others.
    ///
    /// # Cancel safety
    /// Dropped, the background stops all the same.
    pub async fn shutdown(self, limit: Duration) {
        let _ = self.stop.send(true);
        let abort = self.task.abort_handle();
        if timeout(limit, self.task).await.is_err() {
            abort.abort();
        }
    }
}

impl Upkeep {
    /// Settings of the upkeep of a store.
    pub fn builder<S: Store + UpkeepStore>(store: S) -> UpkeepBuilder {
        UpkeepBuilder::new(store)
    }

    /// Does what is due at an instant, the tasks beside each other; gives what became of the latest due step of each, in the
    /// order in which they were added.
    ///
    /// # Cancel safety
    /// Dropped in mid-run, a step is begun anew by whoever asks when its lease has ended.
    pub async fn run_due(&self, now: DateTime<Utc>) -> Vec<StepReport> {
        join_all(self.tasks.iter().map(|planned| self.step(planned, planned.due_at(now), now))).await
    }

    /// Does one task now, whether or not it is due: for an operator, or a cron call.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `task` if there is none of this name.
    ///
    /// # Cancel safety
    /// As [`run_due`](Self::run_due).
    pub async fn run_task(&self, task: &str, now: DateTime<Utc>) -> Result<StepReport> {
        let unknown = || Error::invalid("task", format!("must be one of the upkeep's, is {task:?}"));
        let planned = self.tasks.iter().find(|planned| planned.name.as_str() == task).ok_or_else(unknown)?;
        Ok(self.step(planned, now, now).await)
    }

    /// Does a task now that is not one of the upkeep's: something that is done once, and not by two at a time.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `task` if its name is none.
    ///
    /// # Cancel safety
    /// As [`run_due`](Self::run_due).
    pub async fn run_once(&self, task: impl UpkeepTask, now: DateTime<Utc>) -> Result<StepReport> {
        let planned = Planned { name: Label::new("task", task.name())?, task: Arc::new(task) };
        Ok(self.step(&planned, now, now).await)
    }

    /// How each task stands that was ever begun, in any process.
    ///
    /// # Errors
    /// Whatever the store meets.
    ///
    /// # Cancel safety
    /// Dropped, nothing was done.
    pub async fn states(&self) -> Result<Vec<TaskState>> {
        self.store.task_states().await
    }

    /// The latest runs of a task, in any process, newest first.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `task` if it cannot be a name; whatever the store meets.
    ///
    /// # Cancel safety
    /// Dropped, nothing was done.
    pub async fn runs(&self, task: &str, limit: u32) -> Result<Vec<TaskRun>> {
        self.store.task_runs(&Label::new("task", task)?, limit).await
    }

    /// Does what is due in the background of this process, until the handle says otherwise.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) outside of a tokio runtime.
    pub fn start(&self) -> Result<UpkeepHandle> {
        let (stop, stopped) = watch::channel(false);
        let this = self.clone();
        let task = super::spawn_upkeep(async move { this.keep(stopped).await })?;
        Ok(UpkeepHandle { stop, task })
    }

    /// Each task at its own times, so that a long one makes no other wait.
    async fn keep(self, stopped: watch::Receiver<bool>) {
        join_all(self.tasks.iter().map(|planned| self.keep_one(planned, stopped.clone()))).await;
    }

    async fn keep_one(&self, planned: &Planned, mut stopped: watch::Receiver<bool>) {
        loop {
            let now = self.clock.now();
            let report = self.step(planned, planned.due_at(now), now).await;
            if let Some(error) = report.outcome.error() {
                tracing::warn!(task = %report.task, %error, "metertrail: a step of upkeep failed");
            }
            let until = |instant: DateTime<Utc>| (instant - self.clock.now()).to_std().unwrap_or_default();
            let wait = match report.outcome {
                StepOutcome::Running { until: instant } | StepOutcome::Later { at: instant } => {
                    until(instant)
                }
                _ => planned.task.schedule().until_next(self.clock.now()),
            };
            // Ended by the stop, by the handle's end, or, as a rule, by the time.
            let wait = wait.clamp(LOOK_MIN, LOOK_MAX);
            if timeout(wait, stopped.wait_for(|stopped| *stopped)).await.is_ok() {
                return;
            }
        }
    }

    /// One step of one task, if this process is given it.
    async fn step(&self, planned: &Planned, due_at: DateTime<Utc>, now: DateTime<Utc>) -> StepReport {
        let outcome = self.outcome_of(planned, due_at, now).await;
        if matches!(outcome, StepOutcome::Succeeded { .. } | StepOutcome::Done) {
            let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
            let known = done.entry(planned.name.clone()).or_insert(due_at);
            *known = due_at.max(*known);
        }
        StepReport { task: planned.name.clone(), due_at, outcome }
    }

    async fn outcome_of(&self, planned: &Planned, due_at: DateTime<Utc>, now: DateTime<Utc>) -> StepOutcome {
        let known = self.done.lock().unwrap_or_else(PoisonError::into_inner).get(&planned.name).copied();
        if known.is_some_and(|known| due_at <= known) {
            return StepOutcome::Done;
        }
        let schedule = planned.task.schedule();
        let claim = ClaimRun {
            task: planned.name.clone(),
            due_at,
            now,
            lease_until: later(now, schedule.lease_duration()),
            owner: self.owner.clone(),
        };
        match self.store.claim_run(&claim).await {
            Ok(Claimed::Granted { fence, attempt, since }) => {
                self.hold(planned, Run { fence, due_at, now, since, attempt }).await
            }
            Ok(Claimed::Done) => StepOutcome::Done,
            Ok(Claimed::Running { until }) => StepOutcome::Running { until },
            Ok(Claimed::Later { at }) => StepOutcome::Later { at },
            Err(error) => StepOutcome::Unclaimed(error),
        }
    }

    /// Runs a task while its lease is renewed beside it; whichever ends first ends both.
    async fn hold(&self, planned: &Planned, run: Run) -> StepOutcome {
        let schedule = planned.task.schedule();
        let begun = self.clock.monotonic();
        let elapsed = || self.clock.monotonic().saturating_sub(begun);
        let work = timeout(schedule.limit(), AssertUnwindSafe(planned.task.run(&run)).catch_unwind());
        let result = tokio::select! {
            biased;
            done = work => match done {
                Ok(Ok(result)) => result,
                Ok(Err(_panic)) => Err(Error::new(ErrorKind::Misuse, "the task panicked")),
                Err(_) => {
                    let message = format!("the task did not end in {:?}", schedule.limit());
                    Err(Error::new(ErrorKind::Unavailable, message))
                }
            },
            () = self.until_lost(&run.fence, schedule.lease_duration(), || later(run.now, elapsed())) => {
                return StepOutcome::Lost;
            }
        };
        let at = later(run.now, elapsed());
        let end = match &result {
            Ok(rows) => RunEnd::Succeeded { at, rows: *rows },
            Err(error) => {
                let retry_at = at + super::Schedule::retry_after(run.attempt);
                RunEnd::Failed { at, error: told(error), retry_at }
            }
        };
        // What was done stays done if that cannot be noted: the step is then done again when the lease has ended.
        match (self.store.finish_run(&run.fence, &end).await, result) {
            (Ok(false), _) => StepOutcome::Lost,
            (_, Err(error)) | (Err(error), Ok(_)) => StepOutcome::Failed(error),
            (Ok(true), Ok(rows)) => StepOutcome::Succeeded { rows },
        }
    }

    /// Renews a lease three times in its length; ends when it is somebody else's, or could not be renewed in time.
    async fn until_lost(&self, fence: &Fence, lease: Duration, now: impl Fn() -> DateTime<Utc>) {
        let mut ends = timer::after(lease);
        while !timer::is_over(ends) {
            sleep(lease / 3).await;
            let asked = timer::after(lease);
            let renewed = timeout(lease / 3, self.store.renew_run(fence, later(now(), lease))).await;
            match renewed {
                Ok(Ok(true)) => ends = asked,
                Ok(Ok(false)) => return,
                Ok(Err(_)) | Err(_) => {}
            }
        }
    }
}

impl Planned {
    fn due_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        self.task.schedule().due_at(now)
    }
}

fn later(now: DateTime<Utc>, by: Duration) -> DateTime<Utc> {
    TimeDelta::from_std(by).ok().and_then(|by| now.checked_add_signed(by)).unwrap_or(crate::time::TIME_MAX)
}

/// An error with its causes, for the record.
fn told(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}
