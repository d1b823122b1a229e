//! The trait's methods: each takes a connection, does its step in a transaction, and gives the connection back.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use tokio_postgres::types::Type;

use super::error::from_postgres;
use super::{PostgresStore, query, quota, rows, sql};
use crate::page::Page;
use crate::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Override, Plan, Quota, Settlement, Standing, TenantQuotas,
    Window,
};
use crate::store::{Appended, Store, check_batch, check_periods, check_range};
use crate::text::Label;
use crate::time::TimeRange;
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
        self.timed(async {
            let mut lent = self.lend().await?;
            let transaction = self.begin(lent.client()?).await?;
            let steps = i64::from(steps_max);
            let rows = transaction
                .query_typed(sql::ROLL_UP, &[(&steps, Type::INT8)])
                .await
                .map_err(from_postgres)?;
            let row =
                rows.first().ok_or_else(|| Error::new(ErrorKind::Store, "the roll-up gave no answer"))?;
            let folded = rows::natural(row, 0, rows::get(row, 0)?)?;
            transaction.commit().await.map_err(from_postgres)?;
            lent.give_back();
            Ok(folded)
        })
        .await
    }

    async fn usage(&self, tenant_id: &TenantId, periods: &[TimeRange]) -> Result<Vec<UsageMetrics>> {
        check_periods(periods)?;
        self.timed(async {
            let mut lent = self.lend().await?;
            let transaction = self.begin(lent.client()?).await?;
            let answer = query::usage(&transaction, tenant_id, periods).await?;
            transaction.commit().await.map_err(from_postgres)?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn top_consumers(&self, query: &TopConsumersQuery) -> Result<Vec<Consumer>> {
        check_range(query.range)?;
        self.timed(async {
            let mut lent = self.lend().await?;
            let transaction = self.begin(lent.client()?).await?;
            let answer = query::top_consumers(&transaction, query).await?;
            transaction.commit().await.map_err(from_postgres)?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn summary(&self, range: TimeRange) -> Result<UsageSummary> {
        check_range(range)?;
        self.timed(async {
            let mut lent = self.lend().await?;
            let transaction = self.begin(lent.client()?).await?;
            let answer = query::summary(&transaction, range).await?;
            transaction.commit().await.map_err(from_postgres)?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<UsageEvent>> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let transaction = self.begin(lent.client()?).await?;
            let answer = query::events(&transaction, query).await?;
            transaction.commit().await.map_err(from_postgres)?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Vec<Granted>> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let transaction = self.begin(lent.client()?).await?;
            let answer = quota::acquire(&transaction, request).await?;
            transaction.commit().await.map_err(from_postgres)?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn give_back(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        returned: &[(LimitKey, u64)],
    ) -> Result<()> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let answer = quota::give_back(&***lent.client()?, tenant_id, holder, returned).await?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn standing(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        keys: &[LimitKey],
        now: DateTime<Utc>,
    ) -> Result<Vec<Standing>> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let transaction = self.begin(lent.client()?).await?;
            let answer = quota::read_standings(&transaction, tenant_id, holder, keys, now, false).await?;
            transaction.commit().await.map_err(from_postgres)?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn tenant_quotas(&self, tenant_id: &TenantId) -> Result<TenantQuotas> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let answer = quota::tenant_quotas(&***lent.client()?, tenant_id).await?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn put_plan(&self, plan: &Plan) -> Result<()> {
        self.timed(async {
            let mut lent = self.lend().await?;
            quota::put_plan(&***lent.client()?, plan).await?;
            lent.give_back();
            Ok(())
        })
        .await
    }

    async fn plans(&self) -> Result<Vec<Plan>> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let plans = quota::plans(&***lent.client()?).await?;
            lent.give_back();
            Ok(plans)
        })
        .await
    }

    async fn set_plan(&self, tenant_id: &TenantId, plan: Option<&Label>, now: DateTime<Utc>) -> Result<()> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let answer = quota::set_plan(&***lent.client()?, tenant_id, plan, now).await?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn put_override(&self, tenant_id: &TenantId, own: &Override, now: DateTime<Utc>) -> Result<()> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let transaction = self.begin(lent.client()?).await?;
            let answer = quota::put_override(&transaction, tenant_id, own, now).await?;
            transaction.commit().await.map_err(from_postgres)?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn remove_override(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let transaction = self.begin(lent.client()?).await?;
            let answer = quota::remove_override(&transaction, tenant_id, quota, window, now).await?;
            transaction.commit().await.map_err(from_postgres)?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }

    async fn quota_changes(&self, since: DateTime<Utc>) -> Result<Vec<(TenantId, u64)>> {
        self.timed(async {
            let mut lent = self.lend().await?;
            let answer = quota::changes(&***lent.client()?, since).await?;
            lent.give_back();
            Ok(answer)
        })
        .await
    }
}
