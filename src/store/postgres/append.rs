//! Writing events, each exactly once.
//!
//! A batch is first copied in, as if all of it were new: the fastest way there is. If one event is not new after all, the
//! key of its row refuses the whole transaction, and the batch is written again the careful way. Both ways write, in one
//! transaction, the events, the keys that callers gave, and the journal rows that the roll-up folds.

use std::collections::BTreeSet;
use std::pin::pin;

use chrono::NaiveDate;
use tokio_postgres::Transaction;
use tokio_postgres::binary_copy::BinaryCopyInWriter;
use tokio_postgres::types::Type;
use uuid::{NoContext, Timestamp, Uuid};

use super::error::from_postgres;
use super::rows::{EVENT_TYPES, EventRow, JOURNAL_TYPES, JournalRow, get};
use super::sql;
use crate::usage::{UsageDelta, UsageEvent};
use crate::{Error, Result};

/// The days whose partitions a batch needs.
pub(super) fn days_of(batch: &[UsageEvent]) -> BTreeSet<NaiveDate> {
    batch.iter().map(|event| event.id().millisecond().date_naive()).collect()
}

/// The days of a batch that have no partition yet.
pub(super) async fn missing_days(
    transaction: &Transaction<'_>,
    batch: &[UsageEvent],
) -> Result<BTreeSet<NaiveDate>> {
    let days: Vec<NaiveDate> = days_of(batch).into_iter().collect();
    let missing = transaction
        .query_typed(sql::MISSING_USAGE_PARTITIONS, &[(&days, Type::DATE_ARRAY)])
        .await
        .map_err(from_postgres)?;
    missing.iter().map(|row| get(row, 0)).collect()
}

/// Makes the partition of one day.
pub(super) async fn ensure_partition(transaction: &Transaction<'_>, day: NaiveDate) -> Result<()> {
    transaction
        .query_typed(sql::ENSURE_USAGE_PARTITION, &[(&day, Type::DATE)])
        .await
        .map_err(from_postgres)?;
    Ok(())
}

/// Copies in a batch of distinct events as if all were new. A unique violation says that one is not; the transaction is
/// then lost.
pub(super) async fn append_new(transaction: &Transaction<'_>, batch: &[UsageEvent]) -> Result<(), Failed> {
    let mut events: Vec<&UsageEvent> = batch.iter().collect();
    events.sort_unstable_by(|a, b| (&a.tenant_id, a.id()).cmp(&(&b.tenant_id, b.id())));
    copy_keys(transaction, &events).await?;
    copy_events(transaction, &events).await?;
    copy_journal(transaction, &events).await
}

async fn copy_keys(transaction: &Transaction<'_>, events: &[&UsageEvent]) -> Result<(), Failed> {
    let mut keyed: Vec<(&str, &str, Uuid)> = events
        .iter()
        .filter_map(|event| {
            Some((event.tenant_id.as_str(), event.idempotency_key.as_ref()?.as_str(), event.id().as_uuid()))
        })
        .collect();
    if keyed.is_empty() {
        return Ok(());
    }
    keyed.sort_unstable();
    let types = [Type::TEXT, Type::TEXT, Type::UUID];
    let mut writer = pin!(copy_in(transaction, sql::COPY_IDEMPOTENCY_KEYS, &types).await?);
    for (tenant, key, id) in &keyed {
        writer.as_mut().write(&[tenant, key, id]).await?;
    }
    writer.finish().await?;
    Ok(())
}

async fn copy_events(transaction: &Transaction<'_>, events: &[&UsageEvent]) -> Result<(), Failed> {
    let mut writer = pin!(copy_in(transaction, sql::COPY_EVENTS, &EVENT_TYPES).await?);
    for event in events {
        writer.as_mut().write(&EventRow::new(event)?.values()).await?;
    }
    writer.finish().await?;
    Ok(())
}

/// Notes what new events add up to, for the roll-up. The batch's id is new at every attempt, of which one commits.
pub(super) async fn copy_journal(
    transaction: &Transaction<'_>,
    events: &[&UsageEvent],
) -> Result<(), Failed> {
    let Some(last) = events.last() else {
        return Ok(());
    };
    let seconds = u64::try_from(last.occurred_at().timestamp()).unwrap_or(0);
    let batch_id = Uuid::new_v7(Timestamp::from_unix(NoContext, seconds, 0));
    let mut writer = pin!(copy_in(transaction, sql::COPY_JOURNAL, &JOURNAL_TYPES).await?);
    for delta in UsageDelta::of(events.iter().copied()) {
        writer.as_mut().write(&JournalRow::new(&delta, batch_id)?.values()).await?;
    }
    writer.finish().await?;
    Ok(())
}

pub(super) async fn copy_in(
    transaction: &Transaction<'_>,
    statement: &str,
    types: &[Type],
) -> Result<BinaryCopyInWriter, Failed> {
    Ok(BinaryCopyInWriter::new(transaction.copy_in(statement).await?, types))
}

/// A failure that still has the database's own error, which tells whether another way is left.
pub(super) enum Failed {
    Database(tokio_postgres::Error),
    Other(Error),
}

impl Failed {
    pub(super) fn into_error(self) -> Error {
        match self {
            Self::Database(error) => from_postgres(error),
            Self::Other(error) => error,
        }
    }
}

impl From<tokio_postgres::Error> for Failed {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error)
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}
