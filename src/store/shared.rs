//! A store behind a shared pointer is a store.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};

use crate::cost::{CostChange, CostShare, CostSharesQuery};
use crate::store::{
    ClaimRun, Claimed, ClosedDay, CostStore, DayDigest, DayDropped, DayOpened, DayTable, DropDay, Fence,
    Prune, RunEnd, Store, TaskRun, TaskState, UpkeepStore,
};
use crate::text::Label;
use crate::time::TimeRange;
use crate::usage::{EventId, UsageEvent};
use crate::{Result, TenantId};

impl<S: Store + ?Sized> Store for Arc<S> {
    crate::delegate_store!(|shared| **shared);
}

#[async_trait]
impl<S: CostStore + ?Sized> CostStore for Arc<S> {
    async fn apply_costs(&self, tenant_id: &TenantId, changes: &[CostChange]) -> Result<Vec<bool>> {
        (**self).apply_costs(tenant_id, changes).await
    }

    async fn cost_shares(&self, query: &CostSharesQuery) -> Result<Vec<CostShare>> {
        (**self).cost_shares(query).await
    }
}

#[async_trait]
impl<S: UpkeepStore + ?Sized> UpkeepStore for Arc<S> {
    async fn claim_run(&self, claim: &ClaimRun) -> Result<Claimed> {
        (**self).claim_run(claim).await
    }

    async fn renew_run(&self, fence: &Fence, lease_until: DateTime<Utc>) -> Result<bool> {
        (**self).renew_run(fence, lease_until).await
    }

    async fn finish_run(&self, fence: &Fence, end: &RunEnd) -> Result<bool> {
        (**self).finish_run(fence, end).await
    }

    async fn task_states(&self) -> Result<Vec<TaskState>> {
        (**self).task_states().await
    }

    async fn task_runs(&self, task: &Label, limit: u32) -> Result<Vec<TaskRun>> {
        (**self).task_runs(task, limit).await
    }

    async fn make_days(&self, table: DayTable, days: &[NaiveDate]) -> Result<u64> {
        (**self).make_days(table, days).await
    }

    async fn days(&self, table: DayTable) -> Result<Vec<NaiveDate>> {
        (**self).days(table).await
    }

    async fn day_digest(&self, day: NaiveDate) -> Result<DayDigest> {
        (**self).day_digest(day).await
    }

    async fn day_events(
        &self,
        day: NaiveDate,
        after: Option<(&TenantId, EventId)>,
        limit: u32,
    ) -> Result<Vec<UsageEvent>> {
        (**self).day_events(day, after, limit).await
    }

    async fn drop_day(&self, fence: &Fence, drop: &DropDay) -> Result<DayDropped> {
        (**self).drop_day(fence, drop).await
    }

    async fn replace_archive(&self, fence: &Fence, before_sha256: &str, after: &DropDay) -> Result<bool> {
        (**self).replace_archive(fence, before_sha256, after).await
    }

    async fn closed_days(&self, table: DayTable) -> Result<Vec<ClosedDay>> {
        (**self).closed_days(table).await
    }

    async fn stage_events(&self, events: &[UsageEvent]) -> Result<()> {
        (**self).stage_events(events).await
    }

    async fn unstage_day(&self, day: NaiveDate) -> Result<()> {
        (**self).unstage_day(day).await
    }

    async fn open_day(&self, fence: &Fence, day: NaiveDate, kept_until: DateTime<Utc>) -> Result<DayOpened> {
        (**self).open_day(fence, day, kept_until).await
    }

    async fn prune(&self, prune: &Prune, rows_max: u32) -> Result<u64> {
        (**self).prune(prune, rows_max).await
    }

    async fn aggregate(&self, range: TimeRange) -> Result<u64> {
        (**self).aggregate(range).await
    }

    async fn set_usage_hold(&self, tenant_id: &TenantId, reason: Option<&Label>) -> Result<()> {
        (**self).set_usage_hold(tenant_id, reason).await
    }

    async fn usage_holds(&self) -> Result<Vec<(TenantId, Label)>> {
        (**self).usage_holds().await
    }

    async fn erase_usage(&self, tenant_id: &TenantId) -> Result<u64> {
        (**self).erase_usage(tenant_id).await
    }
}
