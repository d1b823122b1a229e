//! Leasing slices of limits, and what tenants were assigned.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::pin::pin;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{GenericClient, Row, Transaction};
use uuid::Uuid;

use super::append::{Failed, copy_in};
use super::error::from_postgres;
use super::query;
use super::rows::{amounts_from_json, get, natural};
use super::sql;
use crate::quota::{
    AcquireRequest, Allowed, Granted, HolderId, Limit, LimitKey, Override, Plan, Quota, Settlement, Standing,
    TenantQuotas, Window,
};
use crate::store::{Appended, check_range};
use crate::text::Label;
use crate::time::TimeRange;
use crate::usage::{EventId, EventType, TokenClass, UsageEvent, UsageMetrics};
use crate::{Error, ErrorKind, Result, TenantId};

/// Slices of a window are kept so long after its end: holds may still be settled into them.
const ENDED_KEPT: TimeDelta = TimeDelta::days(1);

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Leases units. The tenant's row is locked for it; whoever waits sees what the one before did.
pub(super) async fn acquire(transaction: &Transaction<'_>, request: &AcquireRequest) -> Result<Vec<Granted>> {
    lock(transaction, &request.tenant_id).await?;
    let tenant = request.tenant_id.as_str();
    transaction
        .query_typed(sql::FOLD_QUOTA_SETTLEMENTS, &[(&tenant, Type::TEXT)])
        .await
        .map_err(from_postgres)?;
    if request.slices.iter().any(|slice| slice.known_granted == 0) {
        let long_ago = request.now - ENDED_KEPT;
        transaction
            .query_typed(sql::PRUNE_QUOTA_SLICES, &[(&tenant, Type::TEXT), (&long_ago, Type::TIMESTAMPTZ)])
            .await
            .map_err(from_postgres)?;
    }
    let keys: Vec<LimitKey> = request.slices.iter().map(|slice| slice.key.clone()).collect();
    let standings =
        read_standings(transaction, &request.tenant_id, request.holder, &keys, request.now, request.reclaim)
            .await?;
    let answers = request
        .slices
        .iter()
        .zip(standings)
        .map(|(slice, standing)| Granted { standing, granted: standing.grant(slice) })
        .collect();
    let granted = Granted::all_or_none(request, answers);
    grant(transaction, request, &granted).await?;
    Ok(granted)
}

async fn lock(transaction: &Transaction<'_>, tenant_id: &TenantId) -> Result<()> {
    let tenant = tenant_id.as_str();
    let parameters: [Parameter<'_>; 1] = [(&tenant, Type::TEXT)];
    let found = transaction.query_typed(sql::LOCK_QUOTA_TENANT, &parameters).await.map_err(from_postgres)?;
    if found.is_empty() {
        transaction.query_typed(sql::MAKE_QUOTA_TENANT, &parameters).await.map_err(from_postgres)?;
        transaction.query_typed(sql::LOCK_QUOTA_TENANT, &parameters).await.map_err(from_postgres)?;
    }
    Ok(())
}

async fn grant(transaction: &Transaction<'_>, request: &AcquireRequest, granted: &[Granted]) -> Result<()> {
    let (tenant, holder) = (request.tenant_id.as_str(), request.holder.as_uuid());
    let slices = &request.slices;
    let quotas: Vec<&str> = slices.iter().map(|slice| slice.key.quota.as_str()).collect();
    let windows: Vec<&str> = slices.iter().map(|slice| slice.key.window.as_str()).collect();
    let starts: Vec<DateTime<Utc>> = slices.iter().map(|slice| slice.key.range.start()).collect();
    let ends: Vec<DateTime<Utc>> = slices.iter().map(|slice| slice.key.range.end()).collect();
    let units: Vec<i64> = granted.iter().map(|answer| signed(answer.granted)).collect::<Result<_>>()?;
    let parameters: [Parameter<'_>; 8] = [
        (&tenant, Type::TEXT),
        (&holder, Type::UUID),
        (&request.expires_at, Type::TIMESTAMPTZ),
        (&quotas, Type::TEXT_ARRAY),
        (&windows, Type::TEXT_ARRAY),
        (&starts, Type::TIMESTAMPTZ_ARRAY),
        (&ends, Type::TIMESTAMPTZ_ARRAY),
        (&units, Type::INT8_ARRAY),
    ];
    transaction.query_typed(sql::GRANT_QUOTA_SLICES, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

/// How limits stand. Slices are read before usage: what an event moves from the one to the other in between counts twice
/// for a moment, and never not at all.
pub(super) async fn read_standings(
    client: &Transaction<'_>,
    tenant_id: &TenantId,
    holder: HolderId,
    keys: &[LimitKey],
    now: DateTime<Utc>,
    reclaim: bool,
) -> Result<Vec<Standing>> {
    let tenant = tenant_id.as_str();
    let quotas: Vec<&str> = keys.iter().map(|key| key.quota.as_str()).collect();
    let windows: Vec<&str> = keys.iter().map(|key| key.window.as_str()).collect();
    let starts: Vec<DateTime<Utc>> = keys.iter().map(|key| key.range.start()).collect();
    let parameters: [Parameter<'_>; 4] = [
        (&tenant, Type::TEXT),
        (&quotas, Type::TEXT_ARRAY),
        (&windows, Type::TEXT_ARRAY),
        (&starts, Type::TIMESTAMPTZ_ARRAY),
    ];
    let rows = client.query_typed(sql::QUOTA_SLICES, &parameters).await.map_err(from_postgres)?;
    let mut standings = vec![Standing { holders: 1, ..Standing::default() }; keys.len()];
    for row in &rows {
        let key = (get::<&str>(row, 0)?, get::<&str>(row, 1)?, get::<DateTime<Utc>>(row, 2)?);
        let position =
            keys.iter().position(|own| (own.quota.as_str(), own.window.as_str(), own.range.start()) == key);
        let Some(standing) = position.and_then(|position| standings.get_mut(position)) else { continue };
        let granted = natural(row, 4, get(row, 4)?)?;
        // Settled beyond what was granted can only be a hand in the table; it frees nothing.
        let leased = u64::try_from(get::<i64>(row, 5)?).unwrap_or(0);
        if get::<Uuid>(row, 3)? == holder.as_uuid() {
            standing.leased_here = leased;
            standing.granted_here = granted;
        } else if now < get::<DateTime<Utc>>(row, 6)? {
            standing.leased_elsewhere = standing.leased_elsewhere.saturating_add(leased);
            standing.holders += 1;
        } else if !reclaim {
            standing.forfeited = standing.forfeited.saturating_add(leased);
        }
    }
    let mut used: HashMap<TimeRange, UsageMetrics> = HashMap::new();
    for (key, standing) in keys.iter().zip(&mut standings) {
        if let Entry::Vacant(entry) = used.entry(key.range) {
            entry.insert(used_in(client, tenant_id, key.range).await?);
        }
        standing.used = used.get(&key.range).map_or(0, |metrics| key.quota.used_in(metrics));
    }
    Ok(standings)
}

/// Usage in a window: from the roll-ups and the journal, or for a shorter window from the events themselves.
async fn used_in(client: &Transaction<'_>, tenant_id: &TenantId, range: TimeRange) -> Result<UsageMetrics> {
    if check_range(range).is_ok() {
        let usage = query::usage(client, tenant_id, &[range]).await?;
        return Ok(usage.into_iter().next().unwrap_or_default());
    }
    let tenant = tenant_id.as_str();
    let (start, end) = (range.start(), range.end());
    let (lower, upper) = (EventId::lower_bound(start), EventId::upper_bound(end));
    let parameters: [Parameter<'_>; 5] = [
        (&tenant, Type::TEXT),
        (&lower, Type::UUID),
        (&upper, Type::UUID),
        (&start, Type::TIMESTAMPTZ),
        (&end, Type::TIMESTAMPTZ),
    ];
    let rows = client.query_typed(sql::USAGE_OF_EVENTS, &parameters).await.map_err(from_postgres)?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Store, "the events have no sum"))?;
    let at = |index: usize| get::<i64>(row, index).and_then(|count| natural(row, index, count));
    let mut metrics =
        UsageMetrics { successes: at(1)?, cost: get::<Decimal>(row, 4)?, ..UsageMetrics::default() };
    metrics.tokens.set(TokenClass::Unclassified, at(0)?);
    metrics.by_type = BTreeMap::from([(EventType::ChatMessage, at(2)?), (EventType::Embedding, at(3)?)]);
    for (name, amount) in amounts_from_json(get(row, 5)?)? {
        metrics.measures.insert(Label::new("measure", name)?, amount);
    }
    Ok(metrics)
}

pub(super) async fn give_back(
    client: &impl GenericClient,
    tenant_id: &TenantId,
    holder: HolderId,
    returned: &[(LimitKey, u64)],
) -> Result<()> {
    let (tenant, holder) = (tenant_id.as_str(), holder.as_uuid());
    let quotas: Vec<&str> = returned.iter().map(|(key, _)| key.quota.as_str()).collect();
    let windows: Vec<&str> = returned.iter().map(|(key, _)| key.window.as_str()).collect();
    let starts: Vec<DateTime<Utc>> = returned.iter().map(|(key, _)| key.range.start()).collect();
    let units: Vec<i64> = returned.iter().map(|(_, units)| signed(*units)).collect::<Result<_>>()?;
    let parameters: [Parameter<'_>; 6] = [
        (&tenant, Type::TEXT),
        (&holder, Type::UUID),
        (&quotas, Type::TEXT_ARRAY),
        (&windows, Type::TEXT_ARRAY),
        (&starts, Type::TIMESTAMPTZ_ARRAY),
        (&units, Type::INT8_ARRAY),
    ];
    client.query_typed(sql::RETURN_QUOTA_SLICES, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

/// Notes which units the new events of a batch used up; summed, so that a batch has one row for each slice.
pub(super) async fn copy_settlements(
    transaction: &Transaction<'_>,
    batch: &[UsageEvent],
    appended: &[Appended],
    settlements: &[Settlement],
    batch_id: Uuid,
) -> Result<(), Failed> {
    let mut sums: BTreeMap<(&str, &str, &str, DateTime<Utc>, Uuid), u64> = BTreeMap::new();
    for settlement in
        settlements.iter().filter(|settlement| appended.get(settlement.event) == Some(&Appended::New))
    {
        let Some(event) = batch.get(settlement.event) else { continue };
        let LimitKey { quota, window, range } = &settlement.key;
        let key = (
            event.tenant_id.as_str(),
            quota.as_str(),
            window.as_str(),
            range.start(),
            settlement.holder.as_uuid(),
        );
        let sum = sums.entry(key).or_default();
        *sum = sum.saturating_add(settlement.amount);
    }
    if sums.is_empty() {
        return Ok(());
    }
    let types = [Type::TEXT, Type::UUID, Type::TEXT, Type::TEXT, Type::TIMESTAMPTZ, Type::UUID, Type::INT8];
    let mut writer = pin!(copy_in(transaction, sql::COPY_QUOTA_SETTLEMENTS, &types).await?);
    for ((tenant, quota, window, start, holder), amount) in &sums {
        writer.as_mut().write(&[tenant, &batch_id, quota, window, start, holder, &signed(*amount)?]).await?;
    }
    writer.finish().await?;
    Ok(())
}

pub(super) async fn tenant_quotas(client: &impl GenericClient, tenant_id: &TenantId) -> Result<TenantQuotas> {
    let tenant = tenant_id.as_str();
    let parameters: [Parameter<'_>; 1] = [(&tenant, Type::TEXT)];
    // The revision is read first: a change in between leaves it too old, and is followed a moment later.
    let rows = client.query_typed(sql::QUOTA_TENANT, &parameters).await.map_err(from_postgres)?;
    let mut quotas = TenantQuotas::default();
    if let Some(row) = rows.first() {
        quotas.plan = get::<Option<&str>>(row, 0)?.map(|plan| Label::new("plan", plan)).transpose()?;
        quotas.revision = natural(row, 1, get(row, 1)?)?;
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
        Allowed::AtMost(amount) => Some(signed(amount)?),
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

fn signed(amount: u64) -> Result<i64> {
    i64::try_from(amount).map_err(|_| Error::invalid("amount", format!("must fit into 63 bits, is {amount}")))
}
