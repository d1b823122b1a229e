//! Which tenants stand out: one set-based statement a check.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::Value;
use tokio_postgres::types::Type;
use tokio_postgres::{Row, Transaction};

use super::super::query::Tiles;
use super::super::rows::{get, misread, natural};
use super::super::sql;
use super::{Parameter, ask, signed};
use crate::alert::{Breach, QuotaUse, QuotaWindows, TenantCheck};
use crate::quota::Window;
use crate::text::Label;
use crate::time::{TimeRange, Zone};
use crate::usage::{LatencySketch, Quantile};
use crate::{Error, Result, TenantId};

/// Which part of the answer a statement gives.
#[derive(Clone, Copy)]
struct Part<'a> {
    after: &'a str,
    limit: i64,
}

pub(super) async fn breaches(
    transaction: &Transaction<'_>,
    check: &TenantCheck,
    after: &str,
    limit: i64,
) -> Result<Vec<Breach>> {
    let part = Part { after, limit };
    match check {
        TenantCheck::QuotaExceeded { range, more_than } => {
            let more_than = signed("more_than", *more_than)?;
            let rest: [Parameter<'_>; 1] = [(&more_than, Type::INT8)];
            let rows = in_range(transaction, sql::ALERT_QUOTA_EXCEEDED, *range, part, &rest).await?;
            rows.iter().map(|row| breach(row, get::<i64>(row, 1)?.into(), Decimal::ZERO)).collect()
        }
        TenantCheck::ErrorRate { range, more_than, calls_min } => {
            let (more_than, calls_min) = (i64::from(*more_than), signed("calls_min", *calls_min)?);
            let rest: [Parameter<'_>; 2] = [(&more_than, Type::INT8), (&calls_min, Type::INT8)];
            let rows = in_range(transaction, sql::ALERT_ERROR_RATES, *range, part, &rest).await?;
            let rate = |row| {
                let (failures, finished) = (get::<i64>(row, 1)?, get::<i64>(row, 2)?);
                let rate = Decimal::from(failures) * Decimal::ONE_HUNDRED / Decimal::from(finished.max(1));
                breach(row, rate.round_dp(4), Decimal::ZERO)
            };
            rows.iter().map(rate).collect()
        }
        TenantCheck::Latency { range, quantile, more_than_us, calls_min } => {
            latencies(transaction, *range, (*quantile, *more_than_us, *calls_min), part).await
        }
        TenantCheck::Cost { range, history, times, floor, history_min } => {
            let bounds = (*times, *floor, i64::from(*history_min));
            costs(transaction, *range, history, bounds, part).await
        }
        TenantCheck::QuotaUse(quota_use) => quota_uses(transaction, quota_use, part).await,
    }
}

fn breach(row: &Row, value: Decimal, reference: Decimal) -> Result<Breach> {
    Ok(Breach::new(TenantId::new(get::<&str>(row, 0)?)?, value, reference))
}

/// Asks a statement whose first seven parameters are the tiles of a range, the range, and the part that is wanted.
async fn in_range(
    transaction: &Transaction<'_>,
    statement: &str,
    range: TimeRange,
    part: Part<'_>,
    rest: &[Parameter<'_>],
) -> Result<Vec<Row>> {
    let tiles = Tiles::of(&[range])?;
    let (start, end) = (range.start(), range.end());
    let common: [Parameter<'_>; 4] = [
        (&start, Type::TIMESTAMPTZ),
        (&end, Type::TIMESTAMPTZ),
        (&part.after, Type::TEXT),
        (&part.limit, Type::INT8),
    ];
    let mut parameters = tiles.parameters().to_vec();
    parameters.extend(common);
    parameters.extend_from_slice(rest);
    ask(transaction, statement, &parameters).await
}

async fn latencies(
    transaction: &Transaction<'_>,
    range: TimeRange,
    (quantile, more_than_us, calls_min): (Quantile, u64, u64),
    part: Part<'_>,
) -> Result<Vec<Breach>> {
    let (permille, calls_min) = (i64::from(quantile.permille()), signed("calls_min", calls_min)?);
    let first_above = first_element_above(more_than_us);
    let rest: [Parameter<'_>; 3] =
        [(&permille, Type::INT8), (&first_above, Type::INT8), (&calls_min, Type::INT8)];
    let rows = in_range(transaction, sql::ALERT_LATENCIES, range, part, &rest).await?;
    let slowest = |row| {
        let sketch = LatencySketch::from_packed(&get::<Vec<i64>>(row, 1)?)?;
        let us = sketch.quantile(quantile).unwrap_or_default();
        breach(row, Decimal::from_i128_with_scale(us.into(), 3), Decimal::ZERO)
    };
    rows.iter().map(slowest).collect()
}

/// The least element of a sketch whose bin stands for a latency above this one. A bin stands for its middle.
fn first_element_above(us: u64) -> i64 {
    let mut alone = LatencySketch::new();
    alone.record(us);
    let is_above = alone.quantile(Quantile::MAX).is_some_and(|middle| middle > us);
    let bin = i64::from(LatencySketch::bin(us)) + i64::from(!is_above);
    bin << 40
}

async fn costs(
    transaction: &Transaction<'_>,
    range: TimeRange,
    history: &[TimeRange],
    (times, floor, history_min): (Decimal, Decimal, i64),
    part: Part<'_>,
) -> Result<Vec<Breach>> {
    let ranges: Vec<TimeRange> = std::iter::once(range).chain(history.iter().copied()).collect();
    let mut positions: Vec<i64> = Vec::new();
    let mut all_tiles = Tiles::of(&[])?;
    for (position, range) in (0..).zip(&ranges) {
        let own = Tiles::of(&[*range])?;
        positions.extend(std::iter::repeat_n(position, own.len()));
        all_tiles.append(own);
    }
    let starts: Vec<DateTime<Utc>> = ranges.iter().map(TimeRange::start).collect();
    let ends: Vec<DateTime<Utc>> = ranges.iter().map(TimeRange::end).collect();
    let mut parameters: Vec<Parameter<'_>> = vec![(&positions, Type::INT8_ARRAY)];
    parameters.extend(all_tiles.parameters());
    let rest: [Parameter<'_>; 7] = [
        (&starts, Type::TIMESTAMPTZ_ARRAY),
        (&ends, Type::TIMESTAMPTZ_ARRAY),
        (&part.after, Type::TEXT),
        (&part.limit, Type::INT8),
        (&times, Type::NUMERIC),
        (&floor, Type::NUMERIC),
        (&history_min, Type::INT8),
    ];
    parameters.extend(rest);
    let rows = ask(transaction, sql::ALERT_COSTS, &parameters).await?;
    let cost = |row| {
        let (history, ranges) = (get::<Decimal>(row, 2)?, get::<i64>(row, 3)?);
        breach(row, get(row, 1)?, (history / Decimal::from(ranges.max(1))).round_dp(9))
    };
    rows.iter().map(cost).collect()
}

async fn quota_uses(transaction: &Transaction<'_>, check: &QuotaUse, part: Part<'_>) -> Result<Vec<Breach>> {
    let definition = serde_json::to_value(check.window)
        .map_err(|error| Error::invalid("window", "cannot be written as JSON").with_source(error))?;
    let plans: Vec<&str> =
        check.plans.iter().map(|(plan, _)| plan.as_ref().map_or("", Label::as_str)).collect();
    let units: Vec<i64> =
        check.plans.iter().map(|(_, units)| signed("limit", *units)).collect::<Result<_>>()?;
    let percent = i64::from(check.percent);
    let rest: [Parameter<'_>; 9] = [
        (&check.quota.as_str(), Type::TEXT),
        (&check.window.as_str(), Type::TEXT),
        (&definition, Type::JSONB),
        (&check.zone.as_str(), Type::TEXT),
        (&check.default_zone.as_str(), Type::TEXT),
        (&plans, Type::TEXT_ARRAY),
        (&units, Type::INT8_ARRAY),
        (&percent, Type::INT8),
        (&check.now, Type::TIMESTAMPTZ),
    ];
    let rows = in_range(transaction, sql::ALERT_QUOTA_USE, check.range, part, &rest).await?;
    let used = |row| {
        let (used, limit) = (get::<Decimal>(row, 1)?, natural(row, 2, get(row, 2)?)?);
        let share = used * Decimal::ONE_HUNDRED / Decimal::from(limit.max(1));
        breach(row, share.round_dp(4), limit.into())
    };
    rows.iter().map(used).collect()
}

pub(super) async fn quota_windows(transaction: &Transaction<'_>, now: DateTime<Utc>) -> Result<QuotaWindows> {
    let zones = ask(transaction, sql::ALERT_QUOTA_ZONES, &[]).await?;
    let zones = zones.iter().map(|row| Zone::new(get::<&str>(row, 0)?)).collect::<Result<_>>()?;
    let windows = ask(transaction, sql::ALERT_QUOTA_WINDOWS, &[(&now, Type::TIMESTAMPTZ)]).await?;
    let window = |row| {
        let window: Window = serde_json::from_value(get::<Value>(row, 1)?)
            .map_err(|error| misread("a limit's window cannot be read").with_source(error))?;
        Ok((get::<&str>(row, 0)?.parse()?, window))
    };
    Ok(QuotaWindows::new(zones, windows.iter().map(window).collect::<Result<_>>()?))
}
