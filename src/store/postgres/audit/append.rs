//! Writing batches and epochs.

use std::collections::BTreeSet;
use std::pin::pin;

use chrono::NaiveDate;
use tokio_postgres::Transaction;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::rows::{EVENT_TYPES, EventRow, NODE_TYPES, batch};
use crate::audit::{AuditEvent, NewEpoch, SealedBatch};
use crate::store::BatchAppended;
use crate::store::postgres::append::{Failed, copy_in};
use crate::store::postgres::error::from_postgres;
use crate::store::postgres::rows::get;
use crate::store::postgres::sql;
use crate::{Error, ErrorKind, Result, TenantId};

/// The days whose partitions some events need.
pub(super) fn days_of(events: &[AuditEvent]) -> BTreeSet<NaiveDate> {
    events.iter().map(|event| event.id().millisecond().date_naive()).collect()
}

/// The days of a batch that have no partition yet.
pub(super) async fn missing_days(
    transaction: &Transaction<'_>,
    events: &[AuditEvent],
) -> Result<BTreeSet<NaiveDate>> {
    let days: Vec<NaiveDate> = days_of(events).into_iter().collect();
    let missing = transaction
        .query_typed(sql::MISSING_AUDIT_PARTITIONS, &[(&days, Type::DATE_ARRAY)])
        .await
        .map_err(from_postgres)?;
    missing.iter().map(|row| get(row, 0)).collect()
}

/// Makes the partition of one day.
pub(in crate::store::postgres) async fn ensure_partition(
    transaction: &Transaction<'_>,
    day: NaiveDate,
) -> Result<()> {
    transaction
        .query_typed(sql::ENSURE_AUDIT_PARTITION, &[(&day, Type::DATE)])
        .await
        .map_err(from_postgres)?;
    Ok(())
}

/// Writes a batch with its events. A unique violation says that it, or one of its events, is there already; the transaction
/// is then lost.
pub(super) async fn insert_batch(transaction: &Transaction<'_>, sealed: &SealedBatch) -> Result<(), Failed> {
    let record = sealed.record();
    let (writer, sequence) = (record.writer_id.as_uuid(), signed(record.sequence)?);
    let sealed_at = sealed.sealed_at();
    let parameters: [(&(dyn ToSql + Sync), Type); 6] = [
        (&writer, Type::UUID),
        (&sequence, Type::INT8),
        (&record.header, Type::BYTEA),
        (&record.manifest, Type::BYTEA),
        (&record.signature, Type::BYTEA),
        (&sealed_at, Type::TIMESTAMPTZ),
    ];
    transaction.query_typed(sql::INSERT_AUDIT_BATCH, &parameters).await?;
    let mut copy = pin!(copy_in(transaction, sql::COPY_AUDIT_EVENTS, &EVENT_TYPES).await?);
    for event in sealed.events() {
        copy.as_mut().write(&EventRow::new(event).values()).await?;
    }
    copy.finish().await?;
    Ok(())
}

/// What a batch met that could not be written: itself, another one under its name, or the id of one of its events.
pub(super) async fn compare_batch(
    transaction: &Transaction<'_>,
    sealed: &SealedBatch,
) -> Result<BatchAppended> {
    let record = sealed.record();
    let (writer, sequence) = (record.writer_id.as_uuid(), signed(record.sequence)?);
    let rows = transaction
        .query_typed(sql::SELECT_AUDIT_BATCH, &[(&writer, Type::UUID), (&sequence, Type::INT8)])
        .await
        .map_err(from_postgres)?;
    match rows.first() {
        Some(row) if batch(row)? == *record => Ok(BatchAppended::Duplicate),
        Some(_) => Ok(BatchAppended::Conflict),
        None => Err(Error::new(ErrorKind::Conflict, "the id of an audit event is taken")),
    }
}

/// Writes an epoch; says whether it was the next one and all of its batches were unsealed. If not, the transaction is to be
/// rolled back.
pub(super) async fn insert_epoch(transaction: &Transaction<'_>, new: &NewEpoch) -> Result<bool> {
    let number = signed(new.epoch.number)?;
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&number, Type::INT8),
        (&new.epoch.record, Type::BYTEA),
        (&new.epoch.checkpoint, Type::TEXT),
        (&new.epoch.frontier, Type::BYTEA),
    ];
    let kept = transaction.query_typed(sql::INSERT_AUDIT_EPOCH, &parameters).await.map_err(from_postgres)?;
    if kept.is_empty() {
        return Ok(false);
    }
    let writers: Vec<Uuid> = new.batches.iter().map(|(writer, _)| writer.as_uuid()).collect();
    let sequences =
        new.batches.iter().map(|(_, sequence)| signed(*sequence)).collect::<Result<Vec<i64>>>()?;
    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
        [(&writers, Type::UUID_ARRAY), (&sequences, Type::INT8_ARRAY)];
    let unsealed =
        transaction.query_typed(sql::DELETE_AUDIT_UNSEALED, &parameters).await.map_err(from_postgres)?;
    if unsealed.len() != new.batches.len() {
        return Ok(false);
    }
    put_heads(transaction, new).await?;
    copy_nodes(transaction, new).await.map_err(Failed::into_error)?;
    Ok(true)
}

async fn put_heads(transaction: &Transaction<'_>, new: &NewEpoch) -> Result<()> {
    let tenants: Vec<&str> = new.heads.iter().map(|head| head.tenant_id.as_str()).collect();
    let sizes = new.heads.iter().map(|head| signed(head.frontier.size())).collect::<Result<Vec<i64>>>()?;
    let roots: Vec<&[u8]> = new.heads.iter().map(|head| &head.root.as_bytes()[..]).collect();
    let frontiers: Vec<Vec<u8>> = new.heads.iter().map(|head| head.frontier.to_bytes()).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 4] = [
        (&tenants, Type::TEXT_ARRAY),
        (&sizes, Type::INT8_ARRAY),
        (&roots, Type::BYTEA_ARRAY),
        (&frontiers, Type::BYTEA_ARRAY),
    ];
    transaction.query_typed(sql::PUT_AUDIT_HEADS, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

async fn copy_nodes(transaction: &Transaction<'_>, new: &NewEpoch) -> Result<(), Failed> {
    let mut copy = pin!(copy_in(transaction, sql::COPY_AUDIT_TREE, &NODE_TYPES).await?);
    for node in &new.nodes {
        let (tenant, level) = (node.tenant_id.as_str(), i16::from(node.kept.node.level));
        let position = signed(node.kept.node.position)?;
        let hash = &node.kept.node.hash.as_bytes()[..];
        let event = node.kept.event_id.map(crate::usage::EventId::as_uuid);
        copy.as_mut().write(&[&tenant, &level, &position, &hash, &event]).await?;
    }
    copy.finish().await?;
    Ok(())
}

/// A count that the database can keep.
pub(super) fn signed(count: u64) -> Result<i64> {
    i64::try_from(count).map_err(|_| Error::invalid("sequence", format!("must fit into 63 bits, is {count}")))
}

/// Keys as one array a column.
pub(super) fn columns(keys: &[(TenantId, crate::usage::EventId)]) -> (Vec<&str>, Vec<Uuid>) {
    keys.iter().map(|(tenant_id, id)| (tenant_id.as_str(), id.as_uuid())).unzip()
}
