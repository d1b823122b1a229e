//! Where incidents are kept: the [`AlertStore`] trait, which is a contract of its own.

use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::alert::{
    AggregationBacklog, Attempted, Breach, Change, DeadLetter, Incident, IncidentId, IncidentQuery,
    Notification, NotificationKey, QuotaWindows, Silence, SilenceId, TenantCheck,
};
use crate::page::Page;
use crate::text::Label;
use crate::{Result, TenantId};

/// The most items that one call of a method of [`AlertStore`] gives or takes.
pub const ALERT_BATCH_MAX: u32 = 1_000;
/// The most silences that [`AlertStore::silences`] gives: those that end last.
pub const SILENCES_MAX: u32 = 1_000;

/// The turn of one evaluation of a rule. Of two evaluations of a scope the later has the greater generation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EvaluationTurn {
    /// What is evaluated: a rule, or a rule on one process.
    pub scope: String,
    /// Counts the turns of the scope.
    pub generation: u64,
}

/// Whose open incidents, in the order of their tenants and ids, those of no tenant first.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum OpenIncidents {
    /// Those of a rule.
    OfRule(Label),
    /// Those of which no rule said anything since.
    NotObservedSince(DateTime<Utc>),
}

/// Where incidents and their notifications are kept, and what rules are told about all tenants at once. Each method is one
/// atomic step and can be called again with the same arguments after an error.
///
/// # Contract
/// Its cases are in `metertrail::testing::conformance::alert` (feature `test-util`).
///
/// 1. **Atomic.** A call does all of its work or none of it: the notifications of a change become visible with the change.
/// 2. **Durable.** What a successful call wrote survives a crash of the process (and of the store, unless it says that
///    it keeps things in memory only).
/// 3. **One open.** Of one tenant and [`fingerprint`](Incident::fingerprint) at most one incident is not resolved.
/// 4. **In turn.** Nothing is changed by an evaluation of whose scope a later turn was begun, nor an incident whose revision
///    is not the expected one.
/// 5. **One at a time.** A notification that is claimed is claimed by nobody else until its lease has ended, and settled only
///    by the claim that holds it. The one that tells the end of an incident is claimed only when the one that tells its
///    beginning, to the same sink, is neither waiting nor on its way.
/// 6. **Exact.** A check finds the tenants past its bound and no other ones, by the events of which an append has succeeded.
/// 7. **Bounded.** Methods that take a limit give at most [`ALERT_BATCH_MAX`]; a larger one counts as that.
#[async_trait]
pub trait AlertStore: Debug + Send + Sync + 'static {
    /// The tenants that a check finds, in the byte order of their ids, after one of them.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `start` or `end` of a range that does not begin and end on a
    /// quarter hour; whatever the store meets.
    async fn breaches(
        &self,
        check: &TenantCheck,
        after: Option<&TenantId>,
        limit: u32,
    ) -> Result<Vec<Breach>>;

    /// What limits there are beside those of plans; those of tenants' own that have expired by then are left out.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn quota_windows(&self, now: DateTime<Utc>) -> Result<QuotaWindows>;

    /// What has been appended and not yet been aggregated.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn aggregation_backlog(&self) -> Result<AggregationBacklog>;

    /// Begins an evaluation of a scope, unless another one was begun less than the interval before. One that seems to have
    /// been begun more than an interval after `now` was so by a clock that is wrong, and is no hindrance.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn begin_evaluation(
        &self,
        scope: &str,
        now: DateTime<Utc>,
        interval: TimeDelta,
    ) -> Result<Option<EvaluationTurn>>;

    /// Incidents that are not resolved, after the one of this tenant and id.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn open_incidents(
        &self,
        which: &OpenIncidents,
        after: Option<(Option<&TenantId>, IncidentId)>,
        limit: u32,
    ) -> Result<Vec<Incident>>;

    /// Makes changes, and writes down the notifications that they ask for, due at once. Says of each change whether it was
    /// made: not, if the turn is over, the incident is not as expected, or another one of the kind is open. Without a turn
    /// only the incident decides. A notification that there is already stays as it is. When an incident is resolved, nobody
    /// is reminded of it any more.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `changes` if there are more than [`ALERT_BATCH_MAX`]; whatever the
    /// store meets.
    async fn change_incidents(
        &self,
        turn: Option<&EvaluationTurn>,
        changes: &[Change],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>>;

    /// A page of incidents, newest first.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `cursor` if it is not of this query; whatever the store meets.
    async fn incidents(&self, query: &IncidentQuery) -> Result<Page<Incident>>;

    /// Notes who has taken up an incident that is not resolved; the first one stays. Gives the incident, if there is one.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn acknowledge(
        &self,
        tenant_id: Option<&TenantId>,
        id: IncidentId,
        by: &Label,
        now: DateTime<Utc>,
    ) -> Result<Option<Incident>>;

    /// Keeps a silence, in place of one of the same id.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn put_silence(&self, silence: &Silence) -> Result<()>;

    /// Ends a silence before its time; says whether it was in force or still to come.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn end_silence(&self, id: SilenceId, now: DateTime<Utc>) -> Result<bool>;

    /// The silences that are in force or still to come, those that end last first; at most [`SILENCES_MAX`].
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn silences(&self, now: DateTime<Utc>) -> Result<Vec<Silence>>;

    /// Takes notifications to these sinks that are due, the longest due first, for as long as the lease lasts. Each counts
    /// as an attempt.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn claim_notifications(
        &self,
        sinks: &[Label],
        claim_id: Uuid,
        now: DateTime<Utc>,
        leased_until: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Notification>>;

    /// Notes what became of an attempt, if the claim still holds it, and says whether it did.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn settle_notification(
        &self,
        key: &NotificationKey,
        claim_id: Uuid,
        attempted: &Attempted,
        now: DateTime<Utc>,
    ) -> Result<bool>;

    /// Notifications that were given up, in the order of their keys, after one of them.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn dead_letters(&self, after: Option<&NotificationKey>, limit: u32) -> Result<Vec<DeadLetter>>;

    /// Has a notification that was given up tried anew, from the first attempt; says whether there was such a one.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn redrive(&self, key: &NotificationKey, now: DateTime<Utc>) -> Result<bool>;

    /// Forgets incidents that were resolved before this instant, with their notifications, and silences that ended before it;
    /// at most so many of each. Says how many incidents.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn forget_incidents(&self, resolved_before: DateTime<Utc>, limit: u32) -> Result<u64>;
}

/// Refuses changes that are too many; for stores.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `changes`.
pub fn check_changes(changes: &[Change]) -> Result<()> {
    if u32::try_from(changes.len()).is_ok_and(|count| count <= ALERT_BATCH_MAX) {
        return Ok(());
    }
    Err(crate::Error::invalid("changes", format!("must not be more than {ALERT_BATCH_MAX}")))
}

/// Refuses a check over ranges that do not begin and end on a quarter hour; for stores.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `start`, `end` or `periods`.
pub fn check_tenant_check(check: &TenantCheck) -> Result<()> {
    match check {
        TenantCheck::QuotaExceeded { range, .. }
        | TenantCheck::ErrorRate { range, .. }
        | TenantCheck::Latency { range, .. } => super::check_range(*range),
        TenantCheck::QuotaUse(quota_use) => super::check_range(quota_use.range),
        TenantCheck::Cost { range, history, .. } => {
            super::check_range(*range)?;
            super::check_periods(history)
        }
    }
}
