//! What tenants were assigned: plans, zones and limits of their own.

use chrono::{DateTime, Utc};
use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row, Transaction};

use super::error::from_postgres;
use super::rows::{count, get, natural};
use super::sql;
use crate::quota::{Allowed, Limit, Override, Plan, Quota, TenantQuotas, Window};
use crate::text::Label;
use crate::time::Zone;
use crate::{Error, ErrorKind, Result, TenantId};

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

pub(super) async fn tenant_quotas(client: &impl GenericClient, tenant_id: &TenantId) -> Result<TenantQuotas> {
    let tenant = tenant_id.as_str();
    let parameters: [Parameter<'_>; 1] = [(&tenant, Type::TEXT)];
    // The revision is read first: a change in between leaves it too old, and is followed a moment later.
    let rows = client.query_typed(sql::QUOTA_TENANT, &parameters).await.map_err(from_postgres)?;
    let mut quotas = TenantQuotas::default();
    if let Some(row) = rows.first() {
        quotas.plan = get::<Option<&str>>(row, 0)?.map(|plan| Label::new("plan", plan)).transpose()?;
        quotas.revision = natural(row, 1, get(row, 1)?)?;
        quotas.zone = get::<Option<&str>>(row, 2)?.map(Zone::new).transpose()?;
    }
    let rows = client.query_typed(sql::QUOTA_OVERRIDES, &parameters).await.map_err(from_postgres)?;
    quotas.overrides = rows.iter().map(read_override).collect::<Result<_>>()?;
    Ok(quotas)
}

fn read_override(row: &Row) -> Result<Override> {
    let window = serde_json::from_value(get::<Value>(row, 1)?).map_err(|error| {
        Error::new(ErrorKind::Store, "a limit's window cannot be read").with_source(error)
    })?;
    let amount = get::<Option<i64>>(row, 2)?.map(|amount| natural(row, 2, amount)).transpose()?;
    Ok(Override {
        quota: get::<&str>(row, 0)?.parse()?,
        window,
        allowed: amount.map_or(Allowed::Unlimited, Allowed::AtMost),
        expires_at: get(row, 3)?,
        reason: get::<Option<&str>>(row, 4)?.map(|reason| Label::new("reason", reason)).transpose()?,
    })
}

pub(super) async fn put_plan(client: &impl GenericClient, plan: &Plan) -> Result<()> {
    let limits = serde_json::to_value(plan.limits())
        .map_err(|error| Error::invalid("limits", "cannot be written as JSON").with_source(error))?;
    let name = plan.name().as_str();
    let parameters: [Parameter<'_>; 2] = [(&name, Type::TEXT), (&limits, Type::JSONB)];
    client.query_typed(sql::PUT_QUOTA_PLAN, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

pub(super) async fn plans(client: &impl GenericClient) -> Result<Vec<Plan>> {
    let rows = client.query_typed(sql::QUOTA_PLANS, &[]).await.map_err(from_postgres)?;
    let plan = |row| {
        let limits: Vec<Limit> = serde_json::from_value(get::<Value>(row, 1)?).map_err(|error| {
            Error::new(ErrorKind::Store, "a plan's limits cannot be read").with_source(error)
        })?;
        Plan::new(get::<&str>(row, 0)?, limits)
    };
    rows.iter().map(plan).collect()
}

pub(super) async fn set_plan(
    client: &impl GenericClient,
    tenant_id: &TenantId,
    plan: Option<&Label>,
    now: DateTime<Utc>,
) -> Result<()> {
    let (tenant, plan) = (tenant_id.as_str(), plan.map(Label::as_str));
    let parameters: [Parameter<'_>; 3] =
        [(&tenant, Type::TEXT), (&plan, Type::TEXT), (&now, Type::TIMESTAMPTZ)];
    client.query_typed(sql::SET_QUOTA_PLAN, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

pub(super) async fn set_zone(
    client: &impl GenericClient,
    tenant_id: &TenantId,
    zone: Option<Zone>,
    now: DateTime<Utc>,
) -> Result<()> {
    let (tenant, zone) = (tenant_id.as_str(), zone.as_ref().map(Zone::as_str));
    let parameters: [Parameter<'_>; 3] =
        [(&tenant, Type::TEXT), (&zone, Type::TEXT), (&now, Type::TIMESTAMPTZ)];
    client.query_typed(sql::SET_QUOTA_ZONE, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

pub(super) async fn put_override(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    own: &Override,
    now: DateTime<Utc>,
) -> Result<()> {
    touch(transaction, tenant_id, now).await?;
    let window = serde_json::to_value(own.window)
        .map_err(|error| Error::invalid("window", "cannot be written as JSON").with_source(error))?;
    let amount = match own.allowed {
        Allowed::AtMost(amount) => Some(count("limit", amount)?),
        Allowed::Unlimited => None,
    };
    let (tenant, quota, window_type) = (tenant_id.as_str(), own.quota.as_str(), own.window.as_str());
    let reason = own.reason.as_ref().map(Label::as_str);
    let parameters: [Parameter<'_>; 7] = [
        (&tenant, Type::TEXT),
        (&quota, Type::TEXT),
        (&window_type, Type::TEXT),
        (&window, Type::JSONB),
        (&amount, Type::INT8),
        (&own.expires_at, Type::TIMESTAMPTZ),
        (&reason, Type::TEXT),
    ];
    transaction.query_typed(sql::PUT_QUOTA_OVERRIDE, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

pub(super) async fn remove_override(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    quota: &Quota,
    window: Window,
    now: DateTime<Utc>,
) -> Result<bool> {
    touch(transaction, tenant_id, now).await?;
    let (tenant, quota, window_type) = (tenant_id.as_str(), quota.as_str(), window.as_str());
    let parameters: [Parameter<'_>; 3] =
        [(&tenant, Type::TEXT), (&quota, Type::TEXT), (&window_type, Type::TEXT)];
    let removed =
        transaction.query_typed(sql::REMOVE_QUOTA_OVERRIDE, &parameters).await.map_err(from_postgres)?;
    Ok(!removed.is_empty())
}

async fn touch(transaction: &Transaction<'_>, tenant_id: &TenantId, now: DateTime<Utc>) -> Result<()> {
    let tenant = tenant_id.as_str();
    let parameters: [Parameter<'_>; 2] = [(&tenant, Type::TEXT), (&now, Type::TIMESTAMPTZ)];
    transaction.query_typed(sql::TOUCH_QUOTA_TENANT, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

pub(super) async fn changes(
    client: &impl GenericClient,
    since: DateTime<Utc>,
) -> Result<Vec<(TenantId, u64)>> {
    let rows = client
        .query_typed(sql::QUOTA_CHANGES, &[(&since, Type::TIMESTAMPTZ)])
        .await
        .map_err(from_postgres)?;
    rows.iter()
        .map(|row| Ok((TenantId::new(get::<&str>(row, 0)?)?, natural(row, 1, get(row, 1)?)?)))
        .collect()
}
