//! Where the audit trail is kept: the [`AuditStore`] trait, which is a contract of its own.

use std::fmt::Debug;

use async_trait::async_trait;
use uuid::Uuid;

use crate::audit::{
    AuditEvent, AuditQuery, AuditState, BatchRecord, KeptNode, NewEpoch, SealedBatch, StoredEpoch, TreeLeaf,
    WriterId,
};
use crate::page::Page;
use crate::text::Label;
use crate::usage::EventId;
use crate::{Result, TenantId};

/// The most items that one call of a reading method of [`AuditStore`] gives or takes.
pub const AUDIT_READ_MAX: u32 = 10_000;

/// What became of a batch.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum BatchAppended {
    /// It is now kept.
    New,
    /// The same batch was already kept; nothing was done.
    Duplicate,
    /// Another batch is kept under its writer and sequence; nothing was done. Two processes write one chain: a copied
    /// machine, say.
    Conflict,
}

/// What became of the key of a person's data.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum KeyErased {
    /// It is gone.
    Erased,
    /// There was none.
    Absent,
    /// It must stay, for this reason.
    Held(Label),
}

/// An event as it is kept. What somebody else's hand left in the tables may not be readable as an event.
#[derive(Clone, Debug)]
pub struct AuditRow {
    /// The tenant that it is kept under.
    pub tenant_id: TenantId,
    /// The id that it is kept under.
    pub id: Uuid,
    /// The event, or why it cannot be read.
    pub event: Result<AuditEvent>,
}

/// Where the audit trail is kept. Each method is one atomic step and can be called again with the same arguments after an
/// error.
///
/// # Contract
/// Its cases are in `metertrail::testing::conformance::audit` (feature `test-util`).
///
/// 1. **Atomic.** A call does all of its work or none of it: the events of a batch become visible with the batch.
/// 2. **Durable.** What a successful call wrote survives a crash of the process (and of the store, unless it says that
///    it keeps things in memory only).
/// 3. **Idempotent.** A batch is kept once under (writer, sequence), an epoch once under its number.
/// 4. **Append only.** Nothing that a batch or an epoch wrote is ever changed, but for the current heads.
/// 5. **Faithful.** What is read back has the same canonical bytes; batches and epochs come back byte for byte.
/// 6. **Fresh.** A read that starts after an append has succeeded includes it.
/// 7. **Uninterested.** A store verifies nothing: that is for those who do not trust it.
/// 8. **Bounded.** Reading methods take a limit, of at most [`AUDIT_READ_MAX`]; a larger one counts as that.
///    [`audit_state`](Self::audit_state) alone is as large as there are tenants.
#[async_trait]
pub trait AuditStore: Debug + Send + Sync + 'static {
    /// Keeps a batch with its events, and notes that no epoch has sealed it yet.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) if the id of one of its events is taken; whatever the store meets.
    async fn append_audit(&self, batch: &SealedBatch) -> Result<BatchAppended>;

    /// Events of one tenant's trail, newest first (by id, descending), a page at a time.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `cursor` if it is not of this query; whatever the store meets.
    async fn audit_trail(&self, query: &AuditQuery) -> Result<Page<AuditEvent>>;

    /// The tenants that have events, in the byte order of their ids, after one of them.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn audit_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantId>>;

    /// A tenant's events in ascending order of their ids, after one of them.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn audit_rows(
        &self,
        tenant_id: &TenantId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRow>>;

    /// The events that there are under these keys, in any order.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn audit_rows_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<AuditRow>>;

    /// Batches in the order of their writers and sequences, after one of them.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn audit_batches(&self, after: Option<(WriterId, u64)>, limit: u32) -> Result<Vec<BatchRecord>>;

    /// Batches that no epoch has sealed yet, the oldest first; those of one writer in the order of its chain, without gaps.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn unsealed_batches(&self, limit: u32) -> Result<Vec<BatchRecord>>;

    /// Those of some batches that are noted as not sealed by any epoch yet, in any order.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn unsealed_among(&self, batches: &[(WriterId, u64)]) -> Result<Vec<(WriterId, u64)>>;

    /// Keeps an epoch, what it adds to the trees, and the new heads. Says whether it was kept: not, if its number is not the
    /// next one or one of its batches is sealed already, since somebody else sealed at the same time.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn append_epoch(&self, epoch: &NewEpoch) -> Result<bool>;

    /// Epochs from a number on, ascending.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn audit_epochs(&self, from: u64, limit: u32) -> Result<Vec<StoredEpoch>>;

    /// The latest epoch and all heads, in one snapshot.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn audit_state(&self) -> Result<AuditState>;

    /// Nodes of a level of a tenant's tree from a position on, ascending.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn tree_nodes(
        &self,
        tenant_id: &TenantId,
        level: u8,
        from: u64,
        limit: u32,
    ) -> Result<Vec<KeptNode>>;

    /// Leaves of a tenant's tree in ascending order of their events' ids, after one of these.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn tree_leaves(
        &self,
        tenant_id: &TenantId,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<TreeLeaf>>;

    /// The leaves of these events in their tenants' trees, in any order.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn tree_leaves_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<(TenantId, TreeLeaf)>>;

    /// The key of a person's data, as it was put.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<Option<Vec<u8>>>;

    /// Keeps a key for a person's data unless there is one; gives the one that is kept. Of two callers at once both are given
    /// the same.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn put_subject_key(&self, tenant_id: &TenantId, subject: &Label, key: &[u8]) -> Result<Vec<u8>>;

    /// Deletes the key of a person's data, unless it or all of the tenant's are held.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn erase_subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<KeyErased>;

    /// Places a legal hold on a person's data, or on everybody's of the tenant; without a reason, releases it.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn set_legal_hold(
        &self,
        tenant_id: &TenantId,
        subject: Option<&Label>,
        reason: Option<&Label>,
    ) -> Result<()>;
}

#[async_trait]
impl<S: AuditStore + ?Sized> AuditStore for std::sync::Arc<S> {
    async fn append_audit(&self, batch: &SealedBatch) -> Result<BatchAppended> {
        (**self).append_audit(batch).await
    }

    async fn audit_trail(&self, query: &AuditQuery) -> Result<Page<AuditEvent>> {
        (**self).audit_trail(query).await
    }

    async fn audit_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantId>> {
        (**self).audit_tenants(after, limit).await
    }

    async fn audit_rows(
        &self,
        tenant_id: &TenantId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        (**self).audit_rows(tenant_id, after, limit).await
    }

    async fn audit_rows_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<AuditRow>> {
        (**self).audit_rows_by_key(keys).await
    }

    async fn audit_batches(&self, after: Option<(WriterId, u64)>, limit: u32) -> Result<Vec<BatchRecord>> {
        (**self).audit_batches(after, limit).await
    }

    async fn unsealed_batches(&self, limit: u32) -> Result<Vec<BatchRecord>> {
        (**self).unsealed_batches(limit).await
    }

    async fn unsealed_among(&self, batches: &[(WriterId, u64)]) -> Result<Vec<(WriterId, u64)>> {
        (**self).unsealed_among(batches).await
    }

    async fn append_epoch(&self, epoch: &NewEpoch) -> Result<bool> {
        (**self).append_epoch(epoch).await
    }

    async fn audit_epochs(&self, from: u64, limit: u32) -> Result<Vec<StoredEpoch>> {
        (**self).audit_epochs(from, limit).await
    }

    async fn audit_state(&self) -> Result<AuditState> {
        (**self).audit_state().await
    }

    async fn tree_nodes(
        &self,
        tenant_id: &TenantId,
        level: u8,
        from: u64,
        limit: u32,
    ) -> Result<Vec<KeptNode>> {
        (**self).tree_nodes(tenant_id, level, from, limit).await
    }

    async fn tree_leaves(
        &self,
        tenant_id: &TenantId,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<TreeLeaf>> {
        (**self).tree_leaves(tenant_id, after, limit).await
    }

    async fn tree_leaves_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<(TenantId, TreeLeaf)>> {
        (**self).tree_leaves_by_key(keys).await
    }

    async fn subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<Option<Vec<u8>>> {
        (**self).subject_key(tenant_id, subject).await
    }

    async fn put_subject_key(&self, tenant_id: &TenantId, subject: &Label, key: &[u8]) -> Result<Vec<u8>> {
        (**self).put_subject_key(tenant_id, subject, key).await
    }

    async fn erase_subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<KeyErased> {
        (**self).erase_subject_key(tenant_id, subject).await
    }

    async fn set_legal_hold(
        &self,
        tenant_id: &TenantId,
        subject: Option<&Label>,
        reason: Option<&Label>,
    ) -> Result<()> {
        (**self).set_legal_hold(tenant_id, subject, reason).await
    }
}
