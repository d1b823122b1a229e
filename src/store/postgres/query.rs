//! Reading usage: roll-ups and what is not yet rolled up, in one snapshot a question.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::error::from_postgres;
use super::rows::{event, get, metrics, natural, period_of};
use super::sql;
use crate::page::{Cursor, Page};
use crate::time::{TimeRange, cover};
use crate::usage::{
    Consumer, EventId, EventQuery, Measure, Outcome, SUMMARY_EXCEEDED_MAX, TopConsumersQuery, UsageEvent,
    UsageMetrics, UsageSummary,
};
use crate::{Error, ErrorKind, Result, TenantId};

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Runs of roll-up periods that tile some ranges, as three arrays.
pub(super) struct Tiles {
    period_types: Vec<&'static str>,
    starts: Vec<DateTime<Utc>>,
    ends: Vec<DateTime<Utc>>,
}

impl Tiles {
    /// The tiles of adjacent ranges; runs of one period type that meet are joined.
    pub(super) fn of(ranges: &[TimeRange]) -> Result<Self> {
        let mut tiles = Self { period_types: Vec::new(), starts: Vec::new(), ends: Vec::new() };
        for range in ranges {
            for tile in cover(*range)? {
                tiles.push(tile.period.as_str(), tile.range);
            }
        }
        Ok(tiles)
    }

    pub(super) fn len(&self) -> usize {
        self.starts.len()
    }

    /// Adds other tiles behind these.
    pub(super) fn append(&mut self, mut others: Self) {
        self.period_types.append(&mut others.period_types);
        self.starts.append(&mut others.starts);
        self.ends.append(&mut others.ends);
    }

    fn push(&mut self, period_type: &'static str, range: TimeRange) {
        match (self.period_types.last(), self.ends.last_mut()) {
            (Some(last), Some(end)) if *last == period_type && *end == range.start() => *end = range.end(),
            _ => {
                self.period_types.push(period_type);
                self.starts.push(range.start());
                self.ends.push(range.end());
            }
        }
    }

    pub(super) fn parameters(&self) -> [Parameter<'_>; 3] {
        [
            (&self.period_types, Type::TEXT_ARRAY),
            (&self.starts, Type::TIMESTAMPTZ_ARRAY),
            (&self.ends, Type::TIMESTAMPTZ_ARRAY),
        ]
    }
}

pub(super) async fn roll_up(transaction: &Transaction<'_>, steps_max: u32) -> Result<u64> {
    let steps = i64::from(steps_max);
    let rows = transaction.query_typed(sql::ROLL_UP, &[(&steps, Type::INT8)]).await.map_err(from_postgres)?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Store, "the roll-up gave no answer"))?;
    natural(row, 0, get(row, 0)?)
}

pub(super) async fn usage(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    periods: &[TimeRange],
) -> Result<Vec<UsageMetrics>> {
    let (Some(first), Some(last)) = (periods.first(), periods.last()) else {
        return Ok(Vec::new());
    };
    let tiles = Tiles::of(periods)?;
    let (tenant, start, end) = (tenant_id.as_str(), first.start(), last.end());
    let bounds: [Parameter<'_>; 2] = [(&start, Type::TIMESTAMPTZ), (&end, Type::TIMESTAMPTZ)];
    let mut parameters: Vec<Parameter<'_>> = vec![(&tenant, Type::TEXT)];
    parameters.extend(tiles.parameters());
    parameters.extend(bounds);
    let rows = transaction.query_typed(sql::USAGE, &parameters).await.map_err(from_postgres)?;
    let mut usage = vec![UsageMetrics::default(); periods.len()];
    for row in &rows {
        let (period_start, metrics) = metrics(row)?;
        // A journal row between two periods that do not touch belongs to neither.
        if let Some(position) = period_of(periods, period_start) {
            usage[position].merge(&metrics);
        }
    }
    Ok(usage)
}

pub(super) async fn top_consumers(
    transaction: &Transaction<'_>,
    query: &TopConsumersQuery,
) -> Result<Vec<Consumer>> {
    let tiles = Tiles::of(&[query.range])?;
    let (start, end, limit) = (query.range.start(), query.range.end(), i64::from(query.limit));
    let rest: [Parameter<'_>; 3] =
        [(&start, Type::TIMESTAMPTZ), (&end, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
    let mut parameters = tiles.parameters().to_vec();
    parameters.extend(rest);
    let measure = match &query.measure {
        Measure::Custom(name) => name.as_str(),
        _ => "",
    };
    let statement = match &query.measure {
        Measure::Tokens => sql::TOP_CONSUMERS_BY_TOKENS,
        Measure::Cost => sql::TOP_CONSUMERS_BY_COST,
        Measure::Calls => sql::TOP_CONSUMERS_BY_CALLS,
        Measure::Errors => sql::TOP_CONSUMERS_BY_ERRORS,
        Measure::Custom(_) => {
            parameters.push((&measure, Type::TEXT));
            sql::TOP_CONSUMERS_BY_MEASURE
        }
    };
    let rows = transaction.query_typed(statement, &parameters).await.map_err(from_postgres)?;
    let consumer = |row| Ok(Consumer::new(TenantId::new(get::<&str>(row, 0)?)?, get::<Decimal>(row, 1)?));
    rows.iter().map(consumer).collect()
}

pub(super) async fn summary(transaction: &Transaction<'_>, range: TimeRange) -> Result<UsageSummary> {
    let tiles = Tiles::of(&[range])?;
    let exceeded_max = i64::try_from(SUMMARY_EXCEEDED_MAX).unwrap_or(i64::MAX);
    let (start, end) = (range.start(), range.end());
    let rest: [Parameter<'_>; 3] =
        [(&start, Type::TIMESTAMPTZ), (&end, Type::TIMESTAMPTZ), (&exceeded_max, Type::INT8)];
    let mut parameters = tiles.parameters().to_vec();
    parameters.extend(rest);
    let rows = transaction.query_typed(sql::SUMMARY, &parameters).await.map_err(from_postgres)?;
    let row = rows.first().ok_or_else(|| Error::new(ErrorKind::Store, "the summary has no row"))?;
    let at = |index: usize| get::<i64>(row, index).and_then(|count| natural(row, index, count));
    let mean = get::<Option<i64>>(row, 6)?.map(|mean| natural(row, 6, mean)).transpose()?;
    let refused = get::<Vec<String>>(row, 7)?.into_iter().zip(get::<Vec<i64>>(row, 8)?);
    let refused = refused.map(|(tenant, count)| Ok((TenantId::new(tenant)?, natural(row, 8, count)?)));
    Ok(UsageSummary {
        tenants: at(0)?,
        calls: at(1)?,
        failures: at(2)?,
        tokens: at(3)?,
        cost: get(row, 4)?,
        unpriced: at(5)?,
        latency_us_mean: mean,
        quota_exceeded: refused.collect::<Result<_>>()?,
    })
}

pub(super) async fn events(transaction: &Transaction<'_>, query: &EventQuery) -> Result<Page<UsageEvent>> {
    let fingerprint = query.fingerprint();
    let before = query.position()?.map(EventId::as_uuid);
    let tenant = query.tenant_id.as_str();
    let (start, end) = (query.range.start(), query.range.end());
    let lower = EventId::lower_bound(start);
    let upper = EventId::upper_bound(end).min(before.unwrap_or(Uuid::max()));
    // Names of event types are printable ASCII, so these bounds hold all of them.
    let (type_from, type_to) =
        query.event_type.as_ref().map_or(("", "\u{7f}"), |of| (of.as_str(), of.as_str()));
    let outcomes: Vec<&str> = Outcome::ALL
        .into_iter()
        .filter(|other| query.outcome.is_none_or(|only| only == *other))
        .map(Outcome::as_str)
        .collect();
    let size = usize::from(query.page_size.get());
    let limit = i64::from(query.page_size.get()) + 1;
    let parameters: [Parameter<'_>; 9] = [
        (&tenant, Type::TEXT),
        (&lower, Type::UUID),
        (&upper, Type::UUID),
        (&start, Type::TIMESTAMPTZ),
        (&end, Type::TIMESTAMPTZ),
        (&type_from, Type::TEXT),
        (&type_to, Type::TEXT),
        (&outcomes, Type::TEXT_ARRAY),
        (&limit, Type::INT8),
    ];
    let rows = transaction.query_typed(sql::EVENTS, &parameters).await.map_err(from_postgres)?;
    let items: Vec<UsageEvent> = rows.iter().take(size).map(event).collect::<Result<_>>()?;
    let last = items.last().filter(|_| rows.len() > size);
    let next = last.map(|event| Cursor::new(event.id().as_uuid().into_bytes(), fingerprint));
    Ok(Page { items, next })
}
