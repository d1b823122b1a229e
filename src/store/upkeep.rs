//! What upkeep needs of a store: the [`UpkeepStore`] trait, which is a contract of its own.

use std::fmt;
use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};

use crate::text::Label;
use crate::time::{Period, TimeRange};
use crate::usage::{EventId, UsageEvent};
use crate::{Result, TenantId};

/// The most items that one call of a reading method of [`UpkeepStore`] gives.
pub const UPKEEP_READ_MAX: u32 = 10_000;

/// Asks for a step of a task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ClaimRun {
    /// The task.
    pub task: Label,
    /// The step: when it was due.
    pub due_at: DateTime<Utc>,
    /// Now, by the caller's clock.
    pub now: DateTime<Utc>,
    /// Until when the claim stands unless it is renewed.
    pub lease_until: DateTime<Utc>,
    /// Who asks, for people to read.
    pub owner: Label,
}

/// The right to do a step, until somebody else is given a greater token for the task.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Fence {
    /// The task.
    pub task: Label,
    /// Greater with every claim that was granted.
    pub token: u64,
}

/// What became of a claim.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Claimed {
    /// The caller does the step.
    Granted {
        /// What it shows when it acts.
        fence: Fence,
        /// How often the step was begun, this time included.
        attempt: u32,
        /// The latest step of the task that succeeded before.
        since: Option<DateTime<Utc>>,
    },
    /// The step was done, or a later one was done or begun.
    Done,
    /// Somebody holds the task until then.
    Running {
        /// When the lease ends, unless it is renewed.
        until: DateTime<Utc>,
    },
    /// The step failed, and is tried again then.
    Later {
        /// When.
        at: DateTime<Utc>,
    },
}

/// How a run ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum RunEnd {
    /// It did its work.
    Succeeded {
        /// When.
        at: DateTime<Utc>,
        /// On how many rows, or whatever the task counts.
        rows: u64,
    },
    /// It did not.
    Failed {
        /// When.
        at: DateTime<Utc>,
        /// Why.
        error: String,
        /// The same step is not begun again before.
        retry_at: DateTime<Utc>,
    },
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RunStatus {
    /// Begun and not ended.
    Running,
    /// Done.
    Succeeded,
    /// Ended by an error.
    Failed,
    /// Its lease ended, and somebody else took the task.
    Lost,
}

impl RunStatus {
    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Lost => "lost",
        }
    }
}

impl fmt::Display for RunStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One attempt at a step.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TaskRun {
    /// The task.
    pub task: Label,
    /// Under which token.
    pub token: u64,
    /// When the step was due.
    pub due_at: DateTime<Utc>,
    /// Which attempt at the step it was, from 1.
    pub attempt: u32,
    /// Who did it.
    pub owner: String,
    /// Where it stands.
    pub status: RunStatus,
    /// When it began.
    pub started_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// On how many rows it worked, if it succeeded.
    pub rows: Option<u64>,
    /// Why it failed.
    pub error: Option<String>,
}

impl TaskRun {
    /// A run that begins.
    pub fn begun(claim: &ClaimRun, token: u64, attempt: u32) -> Self {
        Self {
            task: claim.task.clone(),
            token,
            due_at: claim.due_at,
            attempt,
            owner: claim.owner.as_str().to_owned(),
            status: RunStatus::Running,
            started_at: claim.now,
            finished_at: None,
            rows: None,
            error: None,
        }
    }

    /// How late it began.
    pub fn lag(&self) -> std::time::Duration {
        (self.started_at - self.due_at).to_std().unwrap_or_default()
    }
}

/// How a task stands: its latest run, and its latest success.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct TaskState {
    /// The latest run.
    pub latest: TaskRun,
    /// Until when the latest run holds the task, while it is running.
    pub lease_until: Option<DateTime<Utc>>,
    /// When a failed step is tried again.
    pub retry_at: Option<DateTime<Utc>>,
    /// The latest step that succeeded: when it was due.
    pub last_success_due_at: Option<DateTime<Utc>>,
    /// When it succeeded.
    pub last_success_at: Option<DateTime<Utc>>,
}

impl TaskState {
    /// The state of a task whose latest run is this.
    pub fn of(latest: TaskRun) -> Self {
        Self { latest, lease_until: None, retry_at: None, last_success_due_at: None, last_success_at: None }
    }
}

/// A table that has a partition a UTC day.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DayTable {
    /// Usage events.
    Usage,
    /// Audit events.
    Audit,
}

impl DayTable {
    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::Audit => "audit",
        }
    }
}

/// What a day's events are told by: how many there are, and the sum of the last 60 bits of their ids, which are random.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub struct DayDigest {
    /// How many.
    pub events: u64,
    /// The sum.
    pub key_sum: u128,
}

impl DayDigest {
    /// Takes in one event.
    pub fn add(&mut self, id: EventId) {
        self.events += 1;
        self.key_sum += id.as_uuid().as_u128() & ((1 << 60) - 1);
    }
}

/// What closes a day.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DropDay {
    /// The day, of usage events.
    pub day: NaiveDate,
    /// What it must have.
    pub digest: DayDigest,
    /// The manifest of its archive with its SHA-256 in hexadecimal, if there is one.
    pub manifest: Option<(String, String)>,
    /// Now.
    pub now: DateTime<Utc>,
}

/// What became of a day that was to be dropped.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DayDropped {
    /// Its events are gone, and it is closed.
    Dropped,
    /// It has no partition.
    Gone,
    /// It has other events than was said: some came in meanwhile.
    Changed,
    /// It has events of a tenant whose usage is held.
    Held,
    /// The run is not the task's any more.
    Fenced,
}

/// What became of a day that was to be opened again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum DayOpened {
    /// All that was staged is there again.
    Opened,
    /// It is not closed.
    Open,
    /// What was staged is not what was dropped.
    Changed,
    /// The run is not the task's any more.
    Fenced,
}

/// A day that was dropped.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ClosedDay {
    /// The day.
    pub day: NaiveDate,
    /// Whether its events were restored since.
    pub is_restored: bool,
    /// What it had.
    pub digest: DayDigest,
    /// The manifest of its archive with its SHA-256 in hexadecimal, if there is one.
    pub manifest: Option<(String, String)>,
    /// When it was closed.
    pub closed_at: DateTime<Utc>,
    /// Until when it stays, if it was restored.
    pub kept_until: Option<DateTime<Utc>>,
}

impl ClosedDay {
    /// A day that is dropped now.
    pub fn dropped(drop: &DropDay) -> Self {
        Self {
            day: drop.day,
            is_restored: false,
            digest: drop.digest,
            manifest: drop.manifest.clone(),
            closed_at: drop.now,
            kept_until: None,
        }
    }
}

/// How long something is kept: from an instant on, or another one for tenants on some plans.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeepFrom {
    /// For everybody else.
    pub instant: DateTime<Utc>,
    /// For tenants on these plans.
    pub by_plan: Vec<(Label, DateTime<Utc>)>,
}

/// Something that is deleted when it is old.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Prune {
    /// Roll-ups of one kind of period that began before.
    Metrics(Period, KeepFrom),
    /// Events of days before. Where nobody keeps a day, dropping it costs less.
    Events(KeepFrom),
    /// Slices of windows that have ended, and what was settled into them.
    QuotaRows {
        /// Before when.
        ended_before: DateTime<Utc>,
    },
    /// Records of runs that ended before.
    Runs {
        /// Before when.
        finished_before: DateTime<Utc>,
    },
}

/// What upkeep needs of a store. Each method is one atomic step and can be called again with the same arguments after an
/// error.
///
/// # Contract
/// Its cases are in `metertrail::testing::conformance::upkeep` (feature `test-util`).
///
/// 1. **One at a time.** Of any number of callers one is granted a step of a task; while its lease stands nobody is granted
///    any step of that task. A step that succeeded is not granted again, nor an earlier one.
/// 2. **Fenced.** Each grant has a greater token. What is done under an earlier one is refused and changes nothing.
/// 3. **Late or never.** A step whose holder let its lease end, or failed, is granted again to whoever asks.
/// 4. **Nothing is lost.** A day is dropped only if it has exactly what the caller says, at the moment in which it is
///    dropped; what is appended to it afterwards is refused as invalid input on `occurred_at`, and never counted twice.
/// 5. **Answers stay.** Dropping, pruning events, restoring and aggregating anew change no sum of any period; pruning
///    roll-ups changes none of a longer period.
/// 6. **Held.** While a tenant's usage is held, none of its events is dropped, pruned or erased.
/// 7. **Bounded.** Reading methods give [`UPKEEP_READ_MAX`] items at most; pruning about as many rows as it is told.
#[async_trait]
pub trait UpkeepStore: Debug + Send + Sync + 'static {
    /// Claims a step of a task.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn claim_run(&self, claim: &ClaimRun) -> Result<Claimed>;

    /// Prolongs a run's lease; says whether the task is still the run's.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn renew_run(&self, fence: &Fence, lease_until: DateTime<Utc>) -> Result<bool>;

    /// Notes how a run ended; says whether the task was still the run's.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn finish_run(&self, fence: &Fence, end: &RunEnd) -> Result<bool>;

    /// How each task stands that was ever begun, by name.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn task_states(&self) -> Result<Vec<TaskState>>;

    /// The latest runs of a task, newest first.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn task_runs(&self, task: &Label, limit: u32) -> Result<Vec<TaskRun>>;

    /// Makes room for events of these days where there is none; says for how many. Closed days stay closed.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn make_days(&self, table: DayTable, days: &[NaiveDate]) -> Result<u64>;

    /// The days that have room for events, ascending.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn days(&self, table: DayTable) -> Result<Vec<NaiveDate>>;

    /// What a day of usage has.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn day_digest(&self, day: NaiveDate) -> Result<DayDigest>;

    /// The events of a day, in the order of tenants and ids, after one of them.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn day_events(
        &self,
        day: NaiveDate,
        after: Option<(&TenantId, EventId)>,
        limit: u32,
    ) -> Result<Vec<UsageEvent>>;

    /// Drops the events of a day with their idempotency keys, and closes the day.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn drop_day(&self, fence: &Fence, drop: &DropDay) -> Result<DayDropped>;

    /// Notes that the archive of a dropped day has something else, since a tenant's events were erased from it; says whether
    /// it was noted: not, if the run is not the task's any more, or the day is not dropped with the digest of that manifest.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn replace_archive(&self, fence: &Fence, before_sha256: &str, after: &DropDay) -> Result<bool>;

    /// The days that were dropped, ascending.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn closed_days(&self, table: DayTable) -> Result<Vec<ClosedDay>>;

    /// Stages events of a closed day. They are not seen, nor counted, before the day is opened.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn stage_events(&self, events: &[UsageEvent]) -> Result<()>;

    /// Forgets what was staged of a day.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn unstage_day(&self, day: NaiveDate) -> Result<()>;

    /// Opens a closed day with what was staged, which must be what was dropped; it is not to be dropped again before an
    /// instant.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn open_day(&self, fence: &Fence, day: NaiveDate, kept_until: DateTime<Utc>) -> Result<DayOpened>;

    /// Deletes what is old, about so many rows; says how many. Fewer than that are left when it is below `rows_max`.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn prune(&self, prune: &Prune, rows_max: u32) -> Result<u64>;

    /// Aggregates the UTC days that a range touches anew from their events, for all tenants; says how many roll-ups it
    /// wrote. Days whose events are gone are left as they are.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn aggregate(&self, range: TimeRange) -> Result<u64>;

    /// Holds a tenant's usage, for a reason; without one, releases it.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn set_usage_hold(&self, tenant_id: &TenantId, reason: Option<&Label>) -> Result<()>;

    /// The tenants whose usage is held, with the reasons.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn usage_holds(&self) -> Result<Vec<(TenantId, Label)>>;

    /// Erases all usage of a tenant that is in the store: events, roll-ups, keys; says how many rows. Its quotas stay.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the tenant's usage is held; whatever the store meets.
    async fn erase_usage(&self, tenant_id: &TenantId) -> Result<u64>;
}
