//! A store behind a shared pointer is a store.

use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::page::Page;
use crate::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Override, Plan, Quota, Settlement, Standing, TenantQuotas,
    Window,
};
use crate::store::{Appended, Store};
use crate::text::Label;
use crate::time::TimeRange;
use crate::usage::{Consumer, EventQuery, TopConsumersQuery, UsageEvent, UsageMetrics, UsageSummary};
use crate::{Result, TenantId};

#[async_trait]
impl<S: Store + ?Sized> Store for Arc<S> {
    async fn append(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>> {
        (**self).append(batch, settlements).await
    }

    async fn roll_up(&self, steps_max: u32) -> Result<u64> {
        (**self).roll_up(steps_max).await
    }

    async fn usage(&self, tenant_id: &TenantId, periods: &[TimeRange]) -> Result<Vec<UsageMetrics>> {
        (**self).usage(tenant_id, periods).await
    }

    async fn top_consumers(&self, query: &TopConsumersQuery) -> Result<Vec<Consumer>> {
        (**self).top_consumers(query).await
    }

    async fn summary(&self, range: TimeRange) -> Result<UsageSummary> {
        (**self).summary(range).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<UsageEvent>> {
        (**self).events(query).await
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Vec<Granted>> {
        (**self).acquire(request).await
    }

    async fn give_back(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        returned: &[(LimitKey, u64)],
    ) -> Result<()> {
        (**self).give_back(tenant_id, holder, returned).await
    }

    async fn standing(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        keys: &[LimitKey],
        now: DateTime<Utc>,
    ) -> Result<Vec<Standing>> {
        (**self).standing(tenant_id, holder, keys, now).await
    }

    async fn tenant_quotas(&self, tenant_id: &TenantId) -> Result<TenantQuotas> {
        (**self).tenant_quotas(tenant_id).await
    }

    async fn put_plan(&self, plan: &Plan) -> Result<()> {
        (**self).put_plan(plan).await
    }

    async fn plans(&self) -> Result<Vec<Plan>> {
        (**self).plans().await
    }

    async fn set_plan(&self, tenant_id: &TenantId, plan: Option<&Label>, now: DateTime<Utc>) -> Result<()> {
        (**self).set_plan(tenant_id, plan, now).await
    }

    async fn put_override(&self, tenant_id: &TenantId, own: &Override, now: DateTime<Utc>) -> Result<()> {
        (**self).put_override(tenant_id, own, now).await
    }

    async fn remove_override(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        (**self).remove_override(tenant_id, quota, window, now).await
    }

    async fn quota_changes(&self, since: DateTime<Utc>) -> Result<Vec<(TenantId, u64)>> {
        (**self).quota_changes(since).await
    }
}
