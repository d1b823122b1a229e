//! Leasing slices of limits.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::{try_join, try_join3};
use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::append::{Failed, copy_in};
use super::error::from_postgres;
use super::query::Tiles;
use super::rows::{amounts_from_json, count, get, natural};
use super::sql;
use crate::quota::{AcquireRequest, Granted, HolderId, LimitKey, Returned, Settlement, Standing};
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
    let tenant = request.tenant_id.as_str();
    let is_first = request.slices.iter().any(|slice| slice.known_granted == 0);
    let ended_before = is_first.then(|| request.now - ENDED_KEPT);
    let keys: Vec<LimitKey> = request.slices.iter().map(|slice| slice.key.clone()).collect();
    let lock: [Parameter<'_>; 2] = [(&tenant, Type::TEXT), (&ended_before, Type::TIMESTAMPTZ)];
    // Sent together and done one after the other.
    let (_, standings) = try_join(
        async { transaction.query_typed(sql::LOCK_QUOTAS, &lock).await.map_err(from_postgres) },
        read_standings(transaction, &request.tenant_id, request.holder, &keys, request.now, request.reclaim),
    )
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

async fn grant(transaction: &Transaction<'_>, request: &AcquireRequest, granted: &[Granted]) -> Result<()> {
    let (tenant, holder) = (request.tenant_id.as_str(), request.holder.as_uuid());
    let slices = &request.slices;
    let quotas: Vec<&str> = slices.iter().map(|slice| slice.key.quota.as_str()).collect();
    let windows: Vec<&str> = slices.iter().map(|slice| slice.key.window.as_str()).collect();
    let starts: Vec<DateTime<Utc>> = slices.iter().map(|slice| slice.key.range.start()).collect();
    let ends: Vec<DateTime<Utc>> = slices.iter().map(|slice| slice.key.range.end()).collect();
    let units: Vec<i64> =
        granted.iter().map(|answer| count("granted", answer.granted)).collect::<Result<_>>()?;
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
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    holder: HolderId,
    keys: &[LimitKey],
    now: DateTime<Utc>,
    reclaim: bool,
) -> Result<Vec<Standing>> {
    let (short, long) = keys.iter().map(|key| key.range).partition(|range| check_range(*range).is_err());
    let (slices, mut used, used_shortly) = try_join3(
        read_slices(transaction, tenant_id, keys),
        read_usage(transaction, tenant_id, distinct(long)),
        read_usage_of_events(transaction, tenant_id, distinct(short)),
    )
    .await?;
    used.extend(used_shortly);
    let mut standings: Vec<Standing> = keys
        .iter()
        .map(|key| {
            let used = used.get(&key.range).map_or(0, |metrics| key.quota.used_in(metrics));
            Standing { used, holders: 1, ..Standing::default() }
        })
        .collect();
    for row in &slices {
        let position = usize::try_from(get::<i64>(row, 0)? - 1).unwrap_or(usize::MAX);
        let Some(standing) = standings.get_mut(position) else { continue };
        // Settled beyond what was granted can only be a hand in the table; it frees nothing.
        let leased = u64::try_from(get::<i64>(row, 4)?).unwrap_or(0);
        if get::<bool>(row, 1)? && get::<Uuid>(row, 2)? == holder.as_uuid() {
            standing.leased_here = leased;
            standing.granted_here = natural(row, 3, get(row, 3)?)?;
        } else if now < get::<DateTime<Utc>>(row, 5)? {
            standing.leased_elsewhere = standing.leased_elsewhere.saturating_add(leased);
            standing.holders += 1;
        } else if !reclaim {
            standing.forfeited = standing.forfeited.saturating_add(leased);
        }
    }
    Ok(standings)
}

fn distinct(mut ranges: Vec<TimeRange>) -> Vec<TimeRange> {
    ranges.sort_unstable_by_key(|range| (range.start(), range.end()));
    ranges.dedup();
    ranges
}

async fn read_slices(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    keys: &[LimitKey],
) -> Result<Vec<Row>> {
    let tenant = tenant_id.as_str();
    let quotas: Vec<&str> = keys.iter().map(|key| key.quota.as_str()).collect();
    let windows: Vec<&str> = keys.iter().map(|key| key.window.as_str()).collect();
    let starts: Vec<DateTime<Utc>> = keys.iter().map(|key| key.range.start()).collect();
    let ends: Vec<DateTime<Utc>> = keys.iter().map(|key| key.range.end()).collect();
    let parameters: [Parameter<'_>; 5] = [
        (&tenant, Type::TEXT),
        (&quotas, Type::TEXT_ARRAY),
        (&windows, Type::TEXT_ARRAY),
        (&starts, Type::TIMESTAMPTZ_ARRAY),
        (&ends, Type::TIMESTAMPTZ_ARRAY),
    ];
    transaction.query_typed(sql::QUOTA_SLICES, &parameters).await.map_err(from_postgres)
}

/// Usage in windows on quarter hours: from the roll-ups and the journal.
async fn read_usage(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    windows: Vec<TimeRange>,
) -> Result<HashMap<TimeRange, UsageMetrics>> {
    if windows.is_empty() {
        return Ok(HashMap::new());
    }
    let tenant = tenant_id.as_str();
    let mut positions: Vec<i64> = Vec::new();
    let mut tiles = Tiles::of(&[])?;
    for (position, window) in (1_i64..).zip(&windows) {
        let own = Tiles::of(&[*window])?;
        positions.extend(std::iter::repeat_n(position, own.len()));
        tiles.append(own);
    }
    let starts: Vec<DateTime<Utc>> = windows.iter().map(TimeRange::start).collect();
    let ends: Vec<DateTime<Utc>> = windows.iter().map(TimeRange::end).collect();
    let mut parameters: Vec<Parameter<'_>> = vec![(&tenant, Type::TEXT), (&positions, Type::INT8_ARRAY)];
    parameters.extend(tiles.parameters());
    let bounds: [Parameter<'_>; 2] = [(&starts, Type::TIMESTAMPTZ_ARRAY), (&ends, Type::TIMESTAMPTZ_ARRAY)];
    parameters.extend(bounds);
    let rows = transaction.query_typed(sql::QUOTA_USAGE, &parameters).await.map_err(from_postgres)?;
    rows.iter().map(|row| used_in_row(row, &windows)).collect()
}

/// Usage in shorter windows: from the events themselves.
async fn read_usage_of_events(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    windows: Vec<TimeRange>,
) -> Result<HashMap<TimeRange, UsageMetrics>> {
    let tenant = tenant_id.as_str();
    let mut used = HashMap::new();
    for (position, window) in (1_i64..).zip(&windows) {
        let (start, end) = (window.start(), window.end());
        let (lower, upper) = (EventId::lower_bound(start), EventId::upper_bound(end));
        let parameters: [Parameter<'_>; 6] = [
            (&tenant, Type::TEXT),
            (&lower, Type::UUID),
            (&upper, Type::UUID),
            (&start, Type::TIMESTAMPTZ),
            (&end, Type::TIMESTAMPTZ),
            (&position, Type::INT8),
        ];
        let rows = transaction.query_typed(sql::USAGE_OF_EVENTS, &parameters).await.map_err(from_postgres)?;
        for row in &rows {
            used.extend([used_in_row(row, &windows)?]);
        }
    }
    Ok(used)
}

/// What counts against limits, as a row of the two statements says it.
fn used_in_row(row: &Row, windows: &[TimeRange]) -> Result<(TimeRange, UsageMetrics)> {
    let position = usize::try_from(get::<i64>(row, 0)? - 1).unwrap_or(usize::MAX);
    let window = windows
        .get(position)
        .copied()
        .ok_or_else(|| Error::new(ErrorKind::Store, "an answer is about a window that was not asked for"))?;
    // A sum of many rows can be beyond any limit, but not beyond what stands for it.
    let at = |index: usize| get::<Decimal>(row, index).map(|sum| sum.to_u64().unwrap_or(u64::MAX));
    let mut metrics =
        UsageMetrics { successes: at(2)?, cost: get::<Decimal>(row, 5)?, ..UsageMetrics::default() };
    metrics.tokens.set(TokenClass::Unclassified, at(1)?);
    metrics.by_type = BTreeMap::from([(EventType::ChatMessage, at(3)?), (EventType::Embedding, at(4)?)]);
    for (name, amount) in amounts_from_json(get(row, 6)?)? {
        metrics.measures.insert(Label::new("measure", name)?, amount);
    }
    Ok((window, metrics))
}

pub(super) async fn give_back(transaction: &Transaction<'_>, returned: &[Returned]) -> Result<()> {
    let tenants: Vec<&str> = returned.iter().map(|told| told.tenant_id.as_str()).collect();
    let holders: Vec<Uuid> = returned.iter().map(|told| told.holder.as_uuid()).collect();
    let quotas: Vec<&str> = returned.iter().map(|told| told.key.quota.as_str()).collect();
    let windows: Vec<&str> = returned.iter().map(|told| told.key.window.as_str()).collect();
    let starts: Vec<DateTime<Utc>> = returned.iter().map(|told| told.key.range.start()).collect();
    let units: Vec<i64> = returned.iter().map(|told| count("total", told.total)).collect::<Result<_>>()?;
    let parameters: [Parameter<'_>; 6] = [
        (&tenants, Type::TEXT_ARRAY),
        (&holders, Type::UUID_ARRAY),
        (&quotas, Type::TEXT_ARRAY),
        (&windows, Type::TEXT_ARRAY),
        (&starts, Type::TIMESTAMPTZ_ARRAY),
        (&units, Type::INT8_ARRAY),
    ];
    lock_slices(transaction, &tenants, &holders).await?;
    transaction.query_typed(sql::RETURN_QUOTA_SLICES, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

async fn lock_slices(transaction: &Transaction<'_>, tenants: &[&str], holders: &[Uuid]) -> Result<()> {
    let parameters: [Parameter<'_>; 2] = [(&tenants, Type::TEXT_ARRAY), (&holders, Type::UUID_ARRAY)];
    transaction.query_typed(sql::LOCK_QUOTA_SLICES, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

pub(super) async fn renew(
    transaction: &Transaction<'_>,
    held: &[(TenantId, HolderId)],
    expires_at: DateTime<Utc>,
) -> Result<Vec<u64>> {
    let tenants: Vec<&str> = held.iter().map(|(tenant_id, _)| tenant_id.as_str()).collect();
    let holders: Vec<Uuid> = held.iter().map(|(_, holder)| holder.as_uuid()).collect();
    let parameters: [Parameter<'_>; 3] =
        [(&tenants, Type::TEXT_ARRAY), (&holders, Type::UUID_ARRAY), (&expires_at, Type::TIMESTAMPTZ)];
    lock_slices(transaction, &tenants, &holders).await?;
    transaction.query_typed(sql::RENEW_QUOTA_SLICES, &parameters).await.map_err(from_postgres)?;
    let rows = transaction
        .query_typed(sql::QUOTA_REVISIONS, &[(&tenants, Type::TEXT_ARRAY)])
        .await
        .map_err(from_postgres)?;
    rows.iter().map(|row| natural(row, 0, get(row, 0)?)).collect()
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
        writer
            .as_mut()
            .write(&[tenant, &batch_id, quota, window, start, holder, &count("amount", *amount)?])
            .await?;
    }
    writer.finish().await?;
    Ok(())
}
