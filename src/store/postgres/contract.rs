//! The trait's methods: each does its step in a transaction of its own.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use super::{PostgresStore, lease, query, quota, reconcile, transact};
use crate::page::{Page, PageSize};
use crate::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Override, Plan, Quota, Reconcile, Reconciliation, Returned,
    Settlement, Standing, TenantQuotas, Window,
};
use crate::store::{Appended, Store, check_batch, check_periods, check_range, check_reconcile};
use crate::text::Label;
use crate::time::{TimeRange, Zone};
use crate::usage::{Consumer, EventQuery, TopConsumersQuery, UsageEvent, UsageMetrics, UsageSummary};
use crate::{Error, ErrorKind, Result, TenantId};

#[async_trait]
impl Store for PostgresStore {
    async fn append(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>> {
        check_batch(batch)?;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        self.timed(self.append_checked(batch, settlements)).await
    }

    async fn roll_up(&self, steps_max: u32) -> Result<u64> {
        transact!(self, |transaction| query::roll_up(transaction, steps_max))
    }

    async fn usage(&self, tenant_id: &TenantId, periods: &[TimeRange]) -> Result<Vec<UsageMetrics>> {
        check_periods(periods)?;
        transact!(self, |transaction| query::usage(transaction, tenant_id, periods))
    }

    async fn top_consumers(&self, query: &TopConsumersQuery) -> Result<Vec<Consumer>> {
        check_range(query.range)?;
        transact!(self, |transaction| query::top_consumers(transaction, query))
    }

    async fn summary(&self, range: TimeRange) -> Result<UsageSummary> {
        check_range(range)?;
        transact!(self, |transaction| query::summary(transaction, range))
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<UsageEvent>> {
        transact!(self, |transaction| query::events(transaction, query))
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Vec<Granted>> {
        transact!(self, |transaction| lease::acquire(transaction, request))
    }

    async fn give_back(&self, returned: &[Returned]) -> Result<()> {
        transact!(self, |transaction| lease::give_back(transaction, returned))
    }

    async fn renew(&self, holders: &[(TenantId, HolderId)], expires_at: DateTime<Utc>) -> Result<Vec<u64>> {
        transact!(self, |transaction| lease::renew(transaction, holders, expires_at))
    }

    async fn standing(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        keys: &[LimitKey],
        now: DateTime<Utc>,
    ) -> Result<Vec<Standing>> {
        transact!(self, |transaction| lease::read_standings(transaction, tenant_id, holder, keys, now, false))
    }

    async fn tenant_quotas(&self, tenant_id: &TenantId) -> Result<TenantQuotas> {
        transact!(self, |transaction| quota::tenant_quotas(transaction, tenant_id))
    }

    async fn put_plan(&self, plan: &Plan) -> Result<()> {
        transact!(self, |transaction| quota::put_plan(transaction, plan))
    }

    async fn plans(&self) -> Result<Vec<Plan>> {
        transact!(self, |transaction| quota::plans(transaction))
    }

    async fn set_plan(&self, tenant_id: &TenantId, plan: Option<&Label>, now: DateTime<Utc>) -> Result<()> {
        transact!(self, |transaction| quota::set_plan(transaction, tenant_id, plan, now))
    }

    async fn set_zone(&self, tenant_id: &TenantId, zone: Option<Zone>, now: DateTime<Utc>) -> Result<()> {
        transact!(self, |transaction| quota::set_zone(transaction, tenant_id, zone, now))
    }

    async fn put_override(&self, tenant_id: &TenantId, own: &Override, now: DateTime<Utc>) -> Result<()> {
        transact!(self, |transaction| quota::put_override(transaction, tenant_id, own, now))
    }

    async fn remove_override(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        transact!(self, |transaction| quota::remove_override(transaction, tenant_id, quota, window, now))
    }

    async fn quota_changes(&self, since: DateTime<Utc>) -> Result<Vec<(TenantId, u64)>> {
        transact!(self, |transaction| quota::changes(transaction, since))
    }

    async fn reconcile(
        &self,
        tenant_id: &TenantId,
        range: TimeRange,
        mode: Reconcile,
    ) -> Result<Reconciliation> {
        check_reconcile(range)?;
        let report =
            transact!(self, |transaction| reconcile::reconcile(transaction, tenant_id, range, mode))?;
        if let Some(report) = report {
            return Ok(report);
        }
        self.roll_up(u32::MAX).await?;
        let behind = || Error::new(ErrorKind::Unavailable, "the journal is not folded yet: try again");
        let report =
            transact!(self, |transaction| reconcile::reconcile(transaction, tenant_id, range, mode))?;
        report.ok_or_else(behind)
    }

    async fn tenants(
        &self,
        range: TimeRange,
        after: Option<&TenantId>,
        page_size: PageSize,
    ) -> Result<Vec<TenantId>> {
        check_range(range)?;
        transact!(self, |transaction| reconcile::tenants(transaction, range, after, page_size))
    }
}
