//! The audit trail of a process.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::MemoryStore;
use crate::audit::tree::TreeNode;
use crate::audit::{
    AuditEvent, AuditQuery, AuditState, BatchRecord, Hash, KeptNode, NewEpoch, SealedBatch, StoredEpoch,
    TenantHead, TreeLeaf, WriterId,
};
use crate::page::{Cursor, Page};
use crate::store::{AuditRow, AuditStore, BatchAppended, KeyErased};
use crate::text::Label;
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result, TenantId};

/// Everything that a trail is made of, table by table. A trail that was exported is read into one of these, and a test that
/// tampers with a trail has its hands in it.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct AuditTables {
    /// The events.
    pub events: BTreeMap<(TenantId, EventId), AuditEvent>,
    /// The batches.
    pub batches: BTreeMap<(WriterId, u64), BatchRecord>,
    /// The batches that no epoch has sealed, by the time that they were written.
    pub unsealed: BTreeSet<(DateTime<Utc>, WriterId, u64)>,
    /// The epochs.
    pub epochs: BTreeMap<u64, StoredEpoch>,
    /// How the trees stand.
    pub heads: BTreeMap<TenantId, TenantHead>,
    /// The nodes of the trees by level and position.
    pub nodes: BTreeMap<(TenantId, u8, u64), (Hash, Option<EventId>)>,
    /// The leaves of the trees by their events.
    pub leaves: BTreeMap<(TenantId, EventId), TreeLeaf>,
    /// The keys of personal data.
    pub subject_keys: BTreeMap<(TenantId, Label), Vec<u8>>,
    /// Legal holds; those without a subject are on everybody of the tenant.
    pub holds: BTreeMap<(TenantId, Option<Label>), Label>,
}

impl AuditTables {
    fn append(&mut self, batch: &SealedBatch) -> Result<BatchAppended> {
        let record = batch.record();
        let key = (record.writer_id, record.sequence);
        if let Some(kept) = self.batches.get(&key) {
            let is_same = kept == record;
            return Ok(if is_same { BatchAppended::Duplicate } else { BatchAppended::Conflict });
        }
        let mut ids = BTreeSet::new();
        let mut is_new = |event: &AuditEvent| {
            let key = (event.tenant_id.clone(), event.id());
            !self.events.contains_key(&key) && ids.insert(key)
        };
        if let Some(taken) = batch.events().iter().find(|event| !is_new(event)) {
            return Err(Error::new(ErrorKind::Conflict, format!("the audit event {} is taken", taken.id())));
        }
        let entries =
            batch.events().iter().map(|event| ((event.tenant_id.clone(), event.id()), event.clone()));
        self.events.extend(entries);
        self.batches.insert(key, record.clone());
        self.unsealed.insert((batch.sealed_at(), record.writer_id, record.sequence));
        Ok(BatchAppended::New)
    }

    fn append_epoch(&mut self, epoch: &NewEpoch) -> bool {
        let next = self.epochs.last_key_value().map_or(0, |(number, _)| number + 1);
        let sealed: BTreeSet<(WriterId, u64)> = epoch.batches.iter().copied().collect();
        let is_sealed =
            |(_, writer, sequence): &(DateTime<Utc>, WriterId, u64)| sealed.contains(&(*writer, *sequence));
        if epoch.epoch.number != next
            || self.unsealed.iter().filter(|key| is_sealed(key)).count() < sealed.len()
        {
            return false;
        }
        self.epochs.insert(next, epoch.epoch.clone());
        self.heads.extend(epoch.heads.iter().map(|head| (head.tenant_id.clone(), head.clone())));
        for new in &epoch.nodes {
            let TreeNode { level, position, hash } = new.kept.node;
            self.nodes.insert((new.tenant_id.clone(), level, position), (hash, new.kept.event_id));
            if let Some(event_id) = new.kept.event_id {
                let leaf = TreeLeaf { position, hash, event_id };
                self.leaves.insert((new.tenant_id.clone(), event_id), leaf);
            }
        }
        self.unsealed.retain(|key| !is_sealed(key));
        true
    }

    fn trail(&self, query: &AuditQuery) -> Result<Page<AuditEvent>> {
        let newest = query.position()?.unwrap_or(EventId::MAX);
        let upper = Bound::Excluded((query.tenant_id.clone(), newest));
        let first = Bound::Included((query.tenant_id.clone(), EventId::MIN));
        let descending = self.events.range((first, upper)).rev().map(|(_, event)| event);
        let size = usize::from(query.page_size.get());
        let mut items: Vec<AuditEvent> =
            descending.filter(|event| query.matches(event)).take(size + 1).cloned().collect();
        let more = items.len() > size;
        items.truncate(size);
        let last = items.last().filter(|_| more);
        let next = last.map(|event| Cursor::new(event.id().as_uuid().into_bytes(), query.fingerprint()));
        Ok(Page { items, next })
    }

    fn rows(
        &self,
        tenant_id: &TenantId,
        after: EventId,
    ) -> impl Iterator<Item = (&(TenantId, EventId), &AuditEvent)> {
        let lower = Bound::Excluded((tenant_id.clone(), after));
        let upper = Bound::Included((tenant_id.clone(), EventId::MAX));
        self.events.range((lower, upper))
    }

    fn hold(&self, tenant_id: &TenantId, subject: &Label) -> Option<&Label> {
        let own = self.holds.get(&(tenant_id.clone(), Some(subject.clone())));
        own.or_else(|| self.holds.get(&(tenant_id.clone(), None)))
    }
}

fn row(((tenant_id, id), event): (&(TenantId, EventId), &AuditEvent)) -> AuditRow {
    AuditRow { tenant_id: tenant_id.clone(), id: id.as_uuid(), event: Ok(event.clone()) }
}

fn size(limit: u32) -> usize {
    usize::try_from(limit.min(crate::store::AUDIT_READ_MAX)).unwrap_or(usize::MAX)
}

impl MemoryStore {
    /// A store that has this trail, such as one that was exported.
    pub fn from_audit_tables(tables: AuditTables) -> Self {
        let store = Self::new();
        *store.audit_write() = tables;
        store
    }

    /// A copy of the whole trail.
    pub fn audit_tables(&self) -> AuditTables {
        self.audit_read().clone()
    }

    // No step below panics between two writes: the poison flag carries no information here.
    fn audit_read(&self) -> RwLockReadGuard<'_, AuditTables> {
        self.audit.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn audit_write(&self) -> RwLockWriteGuard<'_, AuditTables> {
        self.audit.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AuditStore for MemoryStore {
    async fn append_audit(&self, batch: &SealedBatch) -> Result<BatchAppended> {
        self.audit_write().append(batch)
    }

    async fn audit_trail(&self, query: &AuditQuery) -> Result<Page<AuditEvent>> {
        self.audit_read().trail(query)
    }

    async fn audit_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantId>> {
        let tables = self.audit_read();
        let mut tenants: Vec<TenantId> = Vec::new();
        let mut after = after.map(|after| (after.clone(), EventId::MAX));
        while tenants.len() < size(limit) {
            let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
            let Some(((tenant_id, _), _)) = tables.events.range((lower, Bound::Unbounded)).next() else {
                break;
            };
            tenants.push(tenant_id.clone());
            after = Some((tenant_id.clone(), EventId::MAX));
        }
        Ok(tenants)
    }

    async fn audit_rows(
        &self,
        tenant_id: &TenantId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        let tables = self.audit_read();
        let after = after.map_or(EventId::MIN, EventId::bound);
        Ok(tables.rows(tenant_id, after).take(size(limit)).map(row).collect())
    }

    async fn audit_rows_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<AuditRow>> {
        let tables = self.audit_read();
        Ok(keys.iter().filter_map(|key| tables.events.get_key_value(key)).map(row).collect())
    }

    async fn audit_batches(&self, after: Option<(WriterId, u64)>, limit: u32) -> Result<Vec<BatchRecord>> {
        let lower = after.map_or(Bound::Unbounded, Bound::Excluded);
        let tables = self.audit_read();
        Ok(tables
            .batches
            .range((lower, Bound::Unbounded))
            .take(size(limit))
            .map(|(_, batch)| batch.clone())
            .collect())
    }

    async fn unsealed_batches(&self, limit: u32) -> Result<Vec<BatchRecord>> {
        let tables = self.audit_read();
        let batches = tables
            .unsealed
            .iter()
            .filter_map(|(_, writer, sequence)| tables.batches.get(&(*writer, *sequence)));
        Ok(batches.take(size(limit)).cloned().collect())
    }

    async fn unsealed_among(&self, batches: &[(WriterId, u64)]) -> Result<Vec<(WriterId, u64)>> {
        let asked: BTreeSet<(WriterId, u64)> = batches.iter().copied().collect();
        let tables = self.audit_read();
        let noted = tables.unsealed.iter().map(|(_, writer_id, sequence)| (*writer_id, *sequence));
        Ok(noted.filter(|key| asked.contains(key)).collect())
    }

    async fn append_epoch(&self, epoch: &NewEpoch) -> Result<bool> {
        Ok(self.audit_write().append_epoch(epoch))
    }

    async fn audit_epochs(&self, from: u64, limit: u32) -> Result<Vec<StoredEpoch>> {
        Ok(self.audit_read().epochs.range(from..).take(size(limit)).map(|(_, epoch)| epoch.clone()).collect())
    }

    async fn audit_state(&self) -> Result<AuditState> {
        let tables = self.audit_read();
        let epoch = tables.epochs.last_key_value().map(|(_, epoch)| epoch.clone());
        Ok(AuditState { epoch, heads: tables.heads.values().cloned().collect() })
    }

    async fn tree_nodes(
        &self,
        tenant_id: &TenantId,
        level: u8,
        from: u64,
        limit: u32,
    ) -> Result<Vec<KeptNode>> {
        let tables = self.audit_read();
        let range = (tenant_id.clone(), level, from)..=(tenant_id.clone(), level, u64::MAX);
        let nodes = tables.nodes.range(range).take(size(limit));
        let kept =
            |((_, _, position), (hash, event_id)): (&(TenantId, u8, u64), &(Hash, Option<EventId>))| {
                KeptNode { node: TreeNode { level, position: *position, hash: *hash }, event_id: *event_id }
            };
        Ok(nodes.map(kept).collect())
    }

    async fn tree_leaves(
        &self,
        tenant_id: &TenantId,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<TreeLeaf>> {
        let lower = Bound::Excluded((tenant_id.clone(), after.unwrap_or(EventId::MIN)));
        let upper = Bound::Included((tenant_id.clone(), EventId::MAX));
        let tables = self.audit_read();
        Ok(tables.leaves.range((lower, upper)).take(size(limit)).map(|(_, leaf)| *leaf).collect())
    }

    async fn tree_leaves_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<(TenantId, TreeLeaf)>> {
        let tables = self.audit_read();
        let leaf = |key: &(TenantId, EventId)| Some((key.0.clone(), *tables.leaves.get(key)?));
        Ok(keys.iter().filter_map(leaf).collect())
    }

    async fn subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<Option<Vec<u8>>> {
        Ok(self.audit_read().subject_keys.get(&(tenant_id.clone(), subject.clone())).cloned())
    }

    async fn put_subject_key(&self, tenant_id: &TenantId, subject: &Label, key: &[u8]) -> Result<Vec<u8>> {
        let mut tables = self.audit_write();
        let kept = tables.subject_keys.entry((tenant_id.clone(), subject.clone()));
        Ok(kept.or_insert_with(|| key.to_vec()).clone())
    }

    async fn erase_subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<KeyErased> {
        let mut tables = self.audit_write();
        if let Some(reason) = tables.hold(tenant_id, subject) {
            return Ok(KeyErased::Held(reason.clone()));
        }
        let key = tables.subject_keys.remove(&(tenant_id.clone(), subject.clone()));
        Ok(if key.is_some() { KeyErased::Erased } else { KeyErased::Absent })
    }

    async fn set_legal_hold(
        &self,
        tenant_id: &TenantId,
        subject: Option<&Label>,
        reason: Option<&Label>,
    ) -> Result<()> {
        let mut tables = self.audit_write();
        let key = (tenant_id.clone(), subject.cloned());
        match reason {
            Some(reason) => tables.holds.insert(key, reason.clone()),
            None => tables.holds.remove(&key),
        };
        Ok(())
    }
}
