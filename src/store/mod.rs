//! Where usage is kept: the [`Store`] trait, which is a contract, and the stores of this crate.
//!
//! Write your own by implementing the trait and running the conformance suite of
//! `metertrail::testing::conformance` (feature `test-util`) on it; `examples/custom_store.rs` is one.

mod alert;
mod audit;
mod cost;
#[doc(hidden)]
pub mod delegate;
mod delegate_audit;
mod memory;
#[cfg(feature = "postgres")]
mod postgres;
mod reconcile;
mod shared;
mod upkeep;

use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};

use crate::page::{Page, PageSize};
use crate::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Override, Plan, Quota, RECONCILE_DAYS_MAX, Reconcile,
    Reconciliation, Returned, Settlement, Standing, TenantQuotas, Window,
};
use crate::text::Label;
use crate::time::{TimeRange, Zone};
use crate::usage::{Consumer, EventQuery, TopConsumersQuery, UsageEvent, UsageMetrics, UsageSummary};
use crate::{Error, Result, TenantId};

pub use self::alert::{
    ALERT_BATCH_MAX, AlertStore, EvaluationTurn, OpenIncidents, SILENCES_MAX, check_changes,
    check_tenant_check,
};
pub use self::audit::{AUDIT_READ_MAX, AuditRow, AuditStore, BatchAppended, KeyErased};
pub use self::cost::{COST_CHANGES_MAX, CostStore, check_cost_changes};
pub use self::memory::{AuditTables, MemoryStore};
#[cfg(feature = "postgres")]
pub use self::postgres::{Migrated, PostgresStore};
pub use self::reconcile::{ReconciledPage, reconcile_page};
pub use self::upkeep::{
    ClaimRun, Claimed, ClosedDay, DayDigest, DayDropped, DayOpened, DayTable, DropDay, Fence, KeepFrom,
    Prune, RunEnd, RunStatus, TaskRun, TaskState, UPKEEP_READ_MAX, UpkeepStore,
};

/// The most events that one call of [`Store::append`] takes.
pub const APPEND_EVENTS_MAX: usize = 10_000;
/// The most periods that one call of [`Store::usage`] takes.
pub const USAGE_PERIODS_MAX: usize = 10_000;

/// What became of one event of a batch.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Appended {
    /// It was not known and is now kept and counted.
    New,
    /// The same event was already kept and counted; nothing was done.
    Duplicate,
    /// Its id or idempotency key belongs to an event with another payload; nothing was done.
    Conflict,
}

/// Where usage is kept. Each method is one atomic step and can be called again with the same arguments after an error.
///
/// # Contract
/// Each sentence has a case in the conformance suite.
///
/// 1. **Atomic.** A call does all of its work or none of it.
/// 2. **Durable.** What a successful call wrote survives a crash of the process (and of the store, unless it says that
///    it keeps things in memory only).
/// 3. **Idempotent.** An event counts once, however often it is appended, in one batch, in several, by several callers
///    at once.
/// 4. **First wins.** A second event with the same (tenant, id) or the same (tenant, idempotency key) whose payload
///    differs ([`UsageEvent::same_payload`]) is a conflict: the first stays as it is and the rest of the batch is kept.
/// 5. **Fresh.** A read that starts after an append has succeeded includes its events; no other call is needed between.
/// 6. **Exact.** Metrics are the sum of the events, to the unit, in every period; percentiles are those of
///    [`LatencySketch`](crate::LatencySketch).
/// 7. **Separate.** No answer about one tenant depends on another tenant's events.
/// 8. **Bounded.** More than [`APPEND_EVENTS_MAX`] events or [`USAGE_PERIODS_MAX`] periods, and periods or ranges of
///    metrics that do not begin and end on a quarter hour, are refused as invalid input; nothing is done.
/// 9. **Errors.** A call that may succeed when repeated fails as transient ([`Error::is_transient`]), any other does not.
/// 10. **Cancel safe.** A dropped call has done all of its work or none of it.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// Keeps and counts events; the answer has one entry for each, in the order given. An empty batch is allowed.
    ///
    /// Settlements of events that are [`New`](Appended::New) are done in the same step: their units stop to be leased in
    /// the moment in which the event begins to count. Those of other events are left undone.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `batch` if it is too large; whatever the store meets.
    async fn append(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>>;

    /// Folds what appends have left to do later, at most about `steps_max` steps (a step is one tenant's part of one
    /// batch), and says how many it did; zero means that nothing is left. Answers do not change by it, only their cost.
    /// Safe to run in any number of places at once.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn roll_up(&self, steps_max: u32) -> Result<u64>;

    /// What the events of one tenant add up to in each of these periods, in the order given, whether there are any or
    /// not. The periods ascend and do not overlap.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `periods` if there are too many, they overlap or do not ascend,
    /// on `start` or `end` if one does not begin or end on a quarter hour; whatever the store meets.
    async fn usage(&self, tenant_id: &TenantId, periods: &[TimeRange]) -> Result<Vec<UsageMetrics>>;

    /// The tenants that used most, most first, equals in the byte order of their ids; those that used nothing are left
    /// out.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `start` or `end` of a range that does not begin and end on a
    /// quarter hour; whatever the store meets.
    async fn top_consumers(&self, query: &TopConsumersQuery) -> Result<Vec<Consumer>>;

    /// What all tenants did together in a range.
    ///
    /// # Errors
    /// As [`top_consumers`](Self::top_consumers).
    async fn summary(&self, range: TimeRange) -> Result<UsageSummary>;

    /// Events of one tenant, newest first (by id, descending), a page at a time. Pages overlap nowhere, and what was
    /// there when the first page was read is on one of them.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `cursor` if it is not of this query; whatever the store
    /// meets.
    async fn events(&self, query: &EventQuery) -> Result<Page<UsageEvent>>;

    /// Leases units of some limits of one tenant to a holder; the answers are in the order of the request's slices. What is
    /// granted follows from [`Standing::grant`] alone, so that at every grant used + leased + forfeited ≤ limit. Requests
    /// of one tenant take turns. With `all_or_none`, nothing is granted unless every need is met. Units leased in a window
    /// that [`overlaps`](LimitKey::overlaps) count as leased elsewhere.
    ///
    /// # Errors
    /// Whatever the store meets. A request that may have been done is made again as it is: units that were granted and did
    /// not arrive are found by `known_granted`.
    async fn acquire(&self, request: &AcquireRequest) -> Result<Vec<Granted>>;

    /// Takes units back, of any tenants and holders. Told twice, or in the wrong order, it counts once.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn give_back(&self, returned: &[Returned]) -> Result<()>;

    /// Notes that holders answer for all their slices of these tenants until then; never shortens it. Gives the present
    /// revision of each tenant's quotas, in the order given: whoever knows an older one resolves the limits anew.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn renew(&self, holders: &[(TenantId, HolderId)], expires_at: DateTime<Utc>) -> Result<Vec<u64>>;

    /// How some limits of a tenant stand, in the order given. Changes nothing and waits for nobody.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn standing(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        keys: &[LimitKey],
        now: DateTime<Utc>,
    ) -> Result<Vec<Standing>>;

    /// The tenant's plan and its own limits.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn tenant_quotas(&self, tenant_id: &TenantId) -> Result<TenantQuotas>;

    /// Keeps a plan, in place of one of the same name.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn put_plan(&self, plan: &Plan) -> Result<()>;

    /// The plans that are kept, by name.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn plans(&self) -> Result<Vec<Plan>>;

    /// Puts a tenant on a plan, or takes it off.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn set_plan(&self, tenant_id: &TenantId, plan: Option<&Label>, now: DateTime<Utc>) -> Result<()>;

    /// Gives a tenant a zone of its own, whose days and months its windows mean, or takes it away.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn set_zone(&self, tenant_id: &TenantId, zone: Option<Zone>, now: DateTime<Utc>) -> Result<()>;

    /// Gives a tenant a limit of its own, in place of one for the same quota and kind of window.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn put_override(&self, tenant_id: &TenantId, own: &Override, now: DateTime<Utc>) -> Result<()>;

    /// Takes a tenant's own limit away; says whether there was one.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn remove_override(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
        now: DateTime<Utc>,
    ) -> Result<bool>;

    /// The tenants whose plan or limits changed since, by the clocks of those who changed them, with the revision that
    /// [`tenant_quotas`](Self::tenant_quotas) gives now.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn quota_changes(&self, since: DateTime<Utc>) -> Result<Vec<(TenantId, u64)>>;

    /// Compares what is kept of one tenant with what it follows from, and mends it if told to. Every period of UTC (quarter
    /// hour, hour, day, month) that lies in the range as a whole is held against its events; a month needs a range of a
    /// month. All slices of the tenant are held against the rules that slices follow, whatever their windows.
    ///
    /// Of a store that nobody's hand was in nothing is found, whoever appends, rolls up, acquires and settles meanwhile. A
    /// repair changes nothing but what it reports; afterwards all answers about these periods are those of the events, and
    /// a second repair finds nothing. Events that are appended meanwhile count once. Periods whose events are gone are
    /// reported as unverifiable and left as they are.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `start` or `end` if the range does not begin and end on a quarter
    /// hour, on `range` if it is longer than [`RECONCILE_DAYS_MAX`]; whatever the store
    /// meets.
    async fn reconcile(
        &self,
        tenant_id: &TenantId,
        range: TimeRange,
        mode: Reconcile,
    ) -> Result<Reconciliation>;

    /// Tenants of which the store has usage in a range, in the byte order of their ids: those after the one given, as many
    /// as fit on a page. What comes in between two pages may be missed.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `start` or `end` of a range that does not begin and end on a
    /// quarter hour; whatever the store meets.
    async fn tenants(
        &self,
        range: TimeRange,
        after: Option<&TenantId>,
        page_size: PageSize,
    ) -> Result<Vec<TenantId>>;
}

/// Refuses a batch that is too large; for stores.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `batch`.
pub fn check_batch(batch: &[UsageEvent]) -> Result<()> {
    if batch.len() > APPEND_EVENTS_MAX {
        let rule = format!("must not have more than {APPEND_EVENTS_MAX} events, has {}", batch.len());
        return Err(Error::invalid("batch", rule));
    }
    Ok(())
}

/// Refuses periods that are too many, overlap, do not ascend or do not lie on quarter hours; for stores.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `periods`, `start` or `end`.
pub fn check_periods(periods: &[TimeRange]) -> Result<()> {
    if periods.len() > USAGE_PERIODS_MAX {
        let rule = format!("must not be more than {USAGE_PERIODS_MAX}, are {}", periods.len());
        return Err(Error::invalid("periods", rule));
    }
    if periods.windows(2).any(|pair| pair[0].end() > pair[1].start()) {
        return Err(Error::invalid("periods", "must ascend and not overlap"));
    }
    periods.iter().try_for_each(|period| check_range(*period))
}

/// Refuses a range that cannot be reconciled in one call; for stores.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `start`, `end` or `range`.
pub fn check_reconcile(range: TimeRange) -> Result<()> {
    check_range(range)?;
    if range.end() - range.start() > TimeDelta::days(RECONCILE_DAYS_MAX.into()) {
        return Err(Error::invalid("range", format!("must not be longer than {RECONCILE_DAYS_MAX} days")));
    }
    Ok(())
}

/// Refuses a range that does not begin and end on a quarter hour; for stores.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `start` or `end`.
pub fn check_range(range: TimeRange) -> Result<()> {
    let aligned = |instant| crate::time::bucket_start(instant) == instant;
    let refused = |field, instant| Error::invalid(field, format!("must lie on a quarter hour, is {instant}"));
    if !aligned(range.start()) {
        return Err(refused("start", range.start()));
    }
    if !aligned(range.end()) {
        return Err(refused("end", range.end()));
    }
    Ok(())
}
