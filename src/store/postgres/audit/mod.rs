//! The audit trail in Postgres: each method takes a connection, does its step in a transaction, and gives it back.

pub(super) mod append;
mod exact;
mod read;
mod rows;

use std::collections::BTreeSet;
use std::sync::PoisonError;

use async_trait::async_trait;
use chrono::NaiveDate;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{IsolationLevel, Row, Transaction};
use uuid::Uuid;

use super::append::Failed;
use super::error::{from_postgres, is_for_a_missing_partition, is_unique_violation};
use super::loan::Loan;
use super::{PostgresStore, sql, transact};
use crate::audit::{
    AuditEvent, AuditQuery, AuditState, BatchRecord, KeptNode, NewEpoch, SealedBatch, StoredEpoch, TreeLeaf,
    WriterId,
};
use crate::page::Page;
use crate::store::{AUDIT_READ_MAX, AuditRow, AuditStore, BatchAppended, KeyErased};
use crate::text::Label;
use crate::usage::EventId;
use crate::{Result, TenantId};

/// Parameters of a statement with their types.
type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

impl PostgresStore {
    /// Keeps a sealed batch inside of the caller's own transaction, so that its events commit with the caller's rows or not
    /// at all. Only inserts: it waits for no tenant, however long the transaction stays open. The batch comes from
    /// [`AuditLog::seal_batch`](crate::audit::AuditLog::seal_batch).
    ///
    /// A partition that an event's day does not have yet is made on a connection of the store.
    ///
    /// # Errors
    /// [`Store`](crate::ErrorKind::Store) if the batch, or the id of one of its events, is kept already; whatever the
    /// database meets. The caller's transaction is then lost, as after any error in it.
    pub async fn append_audit_in(&self, transaction: &Transaction<'_>, batch: &SealedBatch) -> Result<()> {
        let missing = append::missing_days(transaction, batch.events()).await?;
        if !missing.is_empty() {
            self.timed(self.make_audit_partitions(missing)).await?;
        }
        append::insert_batch(transaction, batch).await.map_err(Failed::into_error)
    }

    async fn append_audit_once(&self, batch: &SealedBatch) -> Result<BatchAppended> {
        let mut missing = append::days_of(batch.events());
        {
            let seen = self.audit_days.lock().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|day| !seen.contains(day));
        }
        if !missing.is_empty() {
            self.make_audit_partitions(missing).await?;
        }
        let mut loan = Loan::default();
        let client = self.lend(&mut loan).await?;
        let transaction = self.begin(client).await?;
        match append::insert_batch(&transaction, batch).await {
            Ok(()) => {
                transaction.commit().await.map_err(from_postgres)?;
                loan.give_back();
                return Ok(BatchAppended::New);
            }
            Err(Failed::Database(error)) if is_unique_violation(&error) => {
                transaction.rollback().await.map_err(from_postgres)?;
            }
            Err(failed) => return Err(failed.into_error()),
        }
        let transaction = self.begin(client).await?;
        let met = append::compare_batch(&transaction, batch).await;
        transaction.commit().await.map_err(from_postgres)?;
        loan.give_back();
        met
    }

    /// One transaction a day: each holds its lock on the parent for a moment only.
    async fn make_audit_partitions(&self, days: BTreeSet<NaiveDate>) -> Result<()> {
        let mut loan = Loan::default();
        let client = self.lend(&mut loan).await?;
        for day in days {
            let transaction = self.begin(client).await?;
            append::ensure_partition(&transaction, day).await?;
            transaction.commit().await.map_err(from_postgres)?;
            self.audit_days.lock().unwrap_or_else(PoisonError::into_inner).insert(day);
        }
        loan.give_back();
        Ok(())
    }

    /// One statement in a transaction of its own.
    async fn ask(&self, statement: &str, parameters: Parameters<'_>) -> Result<Vec<Row>> {
        transact!(self, |transaction| async {
            transaction.query_typed(statement, parameters).await.map_err(from_postgres)
        })
    }
}

/// As many rows as are asked for, and no more than one call gives.
fn bounded(limit: u32) -> i64 {
    limit.min(AUDIT_READ_MAX).into()
}

#[async_trait]
impl AuditStore for PostgresStore {
    async fn append_audit(&self, batch: &SealedBatch) -> Result<BatchAppended> {
        self.timed(async {
            match self.append_audit_once(batch).await {
                // Retention dropped a partition that this process had seen.
                Err(error) if is_for_a_missing_partition(&error) => {
                    self.audit_days.lock().unwrap_or_else(PoisonError::into_inner).clear();
                    self.append_audit_once(batch).await
                }
                done => done,
            }
        })
        .await
    }

    async fn audit_trail(&self, query: &AuditQuery) -> Result<Page<AuditEvent>> {
        transact!(self, |transaction| read::trail(transaction, query))
    }

    async fn audit_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantId>> {
        let (after, limit) = (after.map_or("", TenantId::as_str), bounded(limit));
        let rows = self.ask(sql::AUDIT_TENANTS, &[(&after, Type::TEXT), (&limit, Type::INT8)]).await?;
        rows.iter().map(|row| TenantId::new(super::rows::get::<&str>(row, 0)?)).collect()
    }

    async fn audit_rows(
        &self,
        tenant_id: &TenantId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        let (tenant, after, limit) = (tenant_id.as_str(), after.unwrap_or(Uuid::nil()), bounded(limit));
        let parameters: Parameters<'_> = &[(&tenant, Type::TEXT), (&after, Type::UUID), (&limit, Type::INT8)];
        self.ask(sql::AUDIT_ROWS, parameters).await?.iter().map(rows::audit_row).collect()
    }

    async fn audit_rows_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<AuditRow>> {
        let (tenants, ids) = append::columns(keys);
        let parameters: Parameters<'_> = &[(&tenants, Type::TEXT_ARRAY), (&ids, Type::UUID_ARRAY)];
        self.ask(sql::AUDIT_ROWS_BY_KEY, parameters).await?.iter().map(rows::audit_row).collect()
    }

    async fn audit_batches(&self, after: Option<(WriterId, u64)>, limit: u32) -> Result<Vec<BatchRecord>> {
        let (writer, sequence) = match after {
            Some((writer, sequence)) => (writer.as_uuid(), append::signed(sequence)?),
            None => (Uuid::nil(), -1),
        };
        let limit = bounded(limit);
        let parameters: Parameters<'_> =
            &[(&writer, Type::UUID), (&sequence, Type::INT8), (&limit, Type::INT8)];
        self.ask(sql::AUDIT_BATCHES, parameters).await?.iter().map(rows::batch).collect()
    }

    async fn unsealed_batches(&self, limit: u32) -> Result<Vec<BatchRecord>> {
        let limit = bounded(limit);
        let rows = self.ask(sql::UNSEALED_AUDIT_BATCHES, &[(&limit, Type::INT8)]).await?;
        rows.iter().map(rows::batch).collect()
    }

    async fn unsealed_among(&self, batches: &[(WriterId, u64)]) -> Result<Vec<(WriterId, u64)>> {
        let writers: Vec<Uuid> = batches.iter().map(|(writer_id, _)| writer_id.as_uuid()).collect();
        let sequences =
            batches.iter().map(|(_, sequence)| append::signed(*sequence)).collect::<Result<Vec<i64>>>()?;
        let parameters: Parameters<'_> = &[(&writers, Type::UUID_ARRAY), (&sequences, Type::INT8_ARRAY)];
        self.ask(sql::UNSEALED_AUDIT_BATCHES_AMONG, parameters).await?.iter().map(rows::batch_key).collect()
    }

    async fn append_epoch(&self, epoch: &NewEpoch) -> Result<bool> {
        self.timed(async {
            let mut loan = Loan::default();
            let client = self.lend(&mut loan).await?;
            let transaction = self.begin(client).await?;
            let is_kept = append::insert_epoch(&transaction, epoch).await?;
            let ended = if is_kept { transaction.commit().await } else { transaction.rollback().await };
            ended.map_err(from_postgres)?;
            loan.give_back();
            Ok(is_kept)
        })
        .await
    }

    async fn audit_epochs(&self, from: u64, limit: u32) -> Result<Vec<StoredEpoch>> {
        let (from, limit) = (append::signed(from)?, bounded(limit));
        let rows = self.ask(sql::AUDIT_EPOCHS, &[(&from, Type::INT8), (&limit, Type::INT8)]).await?;
        rows.iter().map(rows::epoch).collect()
    }

    async fn audit_state(&self) -> Result<AuditState> {
        self.timed(async {
            let mut loan = Loan::default();
            let client = self.lend(&mut loan).await?;
            // One snapshot: an epoch that commits between the two statements must not be half seen.
            let transaction = client
                .build_transaction()
                .isolation_level(IsolationLevel::RepeatableRead)
                .read_only(true)
                .start()
                .await
                .map_err(from_postgres)?;
            let latest =
                transaction.query_typed(sql::LATEST_AUDIT_EPOCH, &[]).await.map_err(from_postgres)?;
            let heads = transaction.query_typed(sql::AUDIT_HEADS, &[]).await.map_err(from_postgres)?;
            transaction.commit().await.map_err(from_postgres)?;
            loan.give_back();
            let epoch = latest.first().map(rows::epoch).transpose()?;
            Ok(AuditState { epoch, heads: heads.iter().map(rows::head).collect::<Result<_>>()? })
        })
        .await
    }

    async fn tree_nodes(
        &self,
        tenant_id: &TenantId,
        level: u8,
        from: u64,
        limit: u32,
    ) -> Result<Vec<KeptNode>> {
        let (tenant, level) = (tenant_id.as_str(), i16::from(level));
        let (from, limit) = (append::signed(from)?, bounded(limit));
        let parameters: Parameters<'_> =
            &[(&tenant, Type::TEXT), (&level, Type::INT2), (&from, Type::INT8), (&limit, Type::INT8)];
        self.ask(sql::AUDIT_TREE_NODES, parameters).await?.iter().map(rows::node).collect()
    }

    async fn tree_leaves(
        &self,
        tenant_id: &TenantId,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<TreeLeaf>> {
        let (tenant, limit) = (tenant_id.as_str(), bounded(limit));
        let after = after.map_or(Uuid::nil(), EventId::as_uuid);
        let parameters: Parameters<'_> = &[(&tenant, Type::TEXT), (&after, Type::UUID), (&limit, Type::INT8)];
        let rows = self.ask(sql::AUDIT_TREE_LEAVES, parameters).await?;
        rows.iter().map(|row| rows::leaf(row).map(|(_, leaf)| leaf)).collect()
    }

    async fn tree_leaves_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<(TenantId, TreeLeaf)>> {
        let (tenants, ids) = append::columns(keys);
        let parameters: Parameters<'_> = &[(&tenants, Type::TEXT_ARRAY), (&ids, Type::UUID_ARRAY)];
        self.ask(sql::AUDIT_TREE_LEAVES_BY_KEY, parameters).await?.iter().map(rows::leaf).collect()
    }

    async fn subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<Option<Vec<u8>>> {
        let (tenant, subject) = (tenant_id.as_str(), subject.as_str());
        let rows = self.ask(sql::AUDIT_SUBJECT_KEY, &[(&tenant, Type::TEXT), (&subject, Type::TEXT)]).await?;
        rows.first().map(|row| super::rows::get(row, 0)).transpose()
    }

    async fn put_subject_key(&self, tenant_id: &TenantId, subject: &Label, key: &[u8]) -> Result<Vec<u8>> {
        transact!(self, |transaction| read::put_subject_key(transaction, tenant_id, subject, key))
    }

    async fn erase_subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<KeyErased> {
        transact!(self, |transaction| read::erase_subject_key(transaction, tenant_id, subject))
    }

    async fn set_legal_hold(
        &self,
        tenant_id: &TenantId,
        subject: Option<&Label>,
        reason: Option<&Label>,
    ) -> Result<()> {
        let (tenant, subject) = (tenant_id.as_str(), subject.map_or("", Label::as_str));
        let reason = reason.map(Label::as_str);
        let parameters: Parameters<'_> =
            &[(&tenant, Type::TEXT), (&subject, Type::TEXT), (&reason, Type::TEXT)];
        self.ask(sql::SET_AUDIT_HOLD, parameters).await.map(|_| ())
    }
}
