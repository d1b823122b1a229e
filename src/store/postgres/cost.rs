//! Other costs for events that are kept, and costs by model and provider.
//!
//! A change adds its difference to the rows of metrics of its periods, in the transaction that changes the event: metrics and
//! journal stay the sum of the events, whether what the event once added is folded in already or still in the journal. The
//! rows are locked before the events are, as a repair does it, so that two who change costs take turns.

use std::collections::{BTreeMap, HashSet};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::error::from_postgres;
use super::rows::{get, natural};
use super::{PostgresStore, sql, transact};
use crate::cost::{CostBy, CostChange, CostShare, CostSharesQuery};
use crate::store::{CostStore, Store, check_cost_changes};
use crate::text::Label;
use crate::time::{Period, Zone};
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result, TenantId};

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

#[async_trait]
impl CostStore for PostgresStore {
    async fn apply_costs(&self, tenant_id: &TenantId, changes: &[CostChange]) -> Result<Vec<bool>> {
        check_cost_changes(changes)?;
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        // What is still in the journal can leave a row of metrics below zero for a moment, which its checks refuse.
        self.roll_up(u32::MAX).await?;
        let applied = transact!(self, |transaction| apply(transaction, tenant_id, changes))?;
        Ok(changes.iter().map(|change| applied.contains(&change.event_id)).collect())
    }

    async fn cost_shares(&self, query: &CostSharesQuery) -> Result<Vec<CostShare>> {
        transact!(self, |transaction| shares(transaction, query))
    }
}

/// What changes add to one period.
#[derive(Default)]
struct Added {
    cost: Decimal,
    unpriced: i64,
    ceiling: Decimal,
}

async fn apply(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    changes: &[CostChange],
) -> Result<HashSet<EventId>> {
    let tenant = tenant_id.as_str();
    let (period_types, starts) = columns(&added(changes.iter()));
    let lock: [Parameter<'_>; 3] =
        [(&tenant, Type::TEXT), (&period_types, Type::TEXT_ARRAY), (&starts, Type::TIMESTAMPTZ_ARRAY)];
    transaction.query_typed(sql::LOCK_USAGE_METRICS, &lock).await.map_err(from_postgres)?;
    let applied = change_events(transaction, tenant, changes).await?;
    let added = added(changes.iter().filter(|change| applied.contains(&change.event_id)));
    let (period_types, starts) = columns(&added);
    let costs: Vec<Decimal> = added.values().map(|added| added.cost).collect();
    let unpriced: Vec<i64> = added.values().map(|added| added.unpriced).collect();
    let ceilings: Vec<Decimal> = added.values().map(|added| added.ceiling).collect();
    let parameters: [Parameter<'_>; 6] = [
        (&tenant, Type::TEXT),
        (&period_types, Type::TEXT_ARRAY),
        (&starts, Type::TIMESTAMPTZ_ARRAY),
        (&costs, Type::NUMERIC_ARRAY),
        (&unpriced, Type::INT8_ARRAY),
        (&ceilings, Type::NUMERIC_ARRAY),
    ];
    let behind = |error: tokio_postgres::Error| match error.code() {
        Some(&tokio_postgres::error::SqlState::CHECK_VIOLATION) => {
            Error::new(ErrorKind::Unavailable, "the journal is not folded yet: try again").with_source(error)
        }
        _ => from_postgres(error),
    };
    transaction.query_typed(sql::ADD_COSTS, &parameters).await.map_err(behind)?;
    Ok(applied)
}

/// Changes the events that still have the cost that they were told to have.
async fn change_events(
    transaction: &Transaction<'_>,
    tenant: &str,
    changes: &[CostChange],
) -> Result<HashSet<EventId>> {
    let ids: Vec<Uuid> = changes.iter().map(|change| change.event_id.as_uuid()).collect();
    let first = ids.iter().min().copied().unwrap_or_default();
    let last = ids.iter().max().copied().unwrap_or_default();
    let cost_from: Vec<Option<Decimal>> =
        changes.iter().map(|change| change.from.as_ref().map(|(cost, _)| cost.as_decimal())).collect();
    let version_from: Vec<Option<&str>> =
        changes.iter().map(|change| change.from.as_ref().map(|(_, version)| version.as_str())).collect();
    let cost_to: Vec<Decimal> = changes.iter().map(|change| change.to.0.as_decimal()).collect();
    let version_to: Vec<&str> = changes.iter().map(|change| change.to.1.as_str()).collect();
    let parameters: [Parameter<'_>; 8] = [
        (&tenant, Type::TEXT),
        (&first, Type::UUID),
        (&last, Type::UUID),
        (&ids, Type::UUID_ARRAY),
        (&cost_from, Type::NUMERIC_ARRAY),
        (&version_from, Type::TEXT_ARRAY),
        (&cost_to, Type::NUMERIC_ARRAY),
        (&version_to, Type::TEXT_ARRAY),
    ];
    let rows = transaction.query_typed(sql::APPLY_COSTS, &parameters).await.map_err(from_postgres)?;
    rows.iter().map(|row| EventId::from_uuid(get(row, 0)?)).collect()
}

/// What changes add to each period of UTC that their events are in.
fn added<'a>(
    changes: impl Iterator<Item = &'a CostChange>,
) -> BTreeMap<(&'static str, DateTime<Utc>), Added> {
    let mut added: BTreeMap<(&'static str, DateTime<Utc>), Added> = BTreeMap::new();
    for change in changes {
        // The id has the event's time to the millisecond, and periods begin on one.
        let at = change.event_id.millisecond();
        for period in Period::ALL {
            let start = period.range_at(at, Zone::UTC).start();
            let added = added.entry((period.as_str(), start)).or_default();
            added.cost += change.difference();
            added.unpriced -= i64::from(change.was_unpriced);
            added.ceiling -= change.ceiling;
        }
    }
    added
}

fn columns(
    added: &BTreeMap<(&'static str, DateTime<Utc>), Added>,
) -> (Vec<&'static str>, Vec<DateTime<Utc>>) {
    added.keys().copied().unzip()
}

async fn shares(transaction: &Transaction<'_>, query: &CostSharesQuery) -> Result<Vec<CostShare>> {
    let tenant = query.tenant_id.as_str();
    let (start, end) = (query.range.start(), query.range.end());
    let (lower, upper) = (EventId::lower_bound(start), EventId::upper_bound(end));
    let limit = i64::from(query.limit);
    let parameters: [Parameter<'_>; 6] = [
        (&tenant, Type::TEXT),
        (&lower, Type::UUID),
        (&upper, Type::UUID),
        (&start, Type::TIMESTAMPTZ),
        (&end, Type::TIMESTAMPTZ),
        (&limit, Type::INT8),
    ];
    let statement = match query.by {
        CostBy::Model => sql::COSTS_BY_MODEL,
        CostBy::Provider => sql::COSTS_BY_PROVIDER,
    };
    let rows = transaction.query_typed(statement, &parameters).await.map_err(from_postgres)?;
    let share = |row| {
        let name = get::<Option<&str>>(row, 0)?.map(|name| Label::new("name", name)).transpose()?;
        let at = |index| get::<i64>(row, index).and_then(|count| natural(row, index, count));
        Ok(CostShare::new(name, at(1)?, at(2)?, get(row, 3)?, at(4)?))
    };
    rows.iter().map(share).collect()
}
