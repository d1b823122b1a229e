//! The writers' chains: every batch there, each as it was signed, and its events in the trees as it lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};

use super::tenant::{Open, leaf_of};
use super::{Finding, Verifier, report::Findings};
use crate::audit::{BatchHeader, BatchRecord, Hash, ManifestEntry, TreeLeaf, WriterId};
use crate::store::AUDIT_READ_MAX;
use crate::usage::EventId;
use crate::{Result, TenantId};

/// Batches read at once: a batch may be large.
const PAGE: u32 = 64;

/// What the batches are held against.
pub(super) struct Known<'a> {
    /// The sizes of the trees that were sealed.
    pub(super) sizes: &'a BTreeMap<TenantId, u64>,
    /// Batches sealed before that were held against the trees by a former verification.
    pub(super) since: Option<DateTime<Utc>>,
    pub(super) now: DateTime<Utc>,
    pub(super) stale_after: Duration,
}

/// The end of the chain that is being walked along.
struct Chain {
    writer_id: WriterId,
    next: u64,
    previous: Option<Hash>,
    sealed_at: DateTime<Utc>,
}

impl Verifier {
    /// Looks at every batch; gives how many there are. What is left in `open` is in none.
    pub(super) async fn check_batches(
        &self,
        known: &Known<'_>,
        open: &mut Open,
        findings: &mut Findings,
    ) -> Result<u64> {
        let mut after = None;
        let mut chain: Option<Chain> = None;
        let mut count = 0;
        loop {
            let page = self.store.audit_batches(after, PAGE).await;
            let page = findings.readable(page)?.unwrap_or_default();
            let Some(last) = page.last() else {
                return Ok(count);
            };
            after = Some((last.writer_id, last.sequence));
            for batch in &page {
                count += 1;
                let opened = self.check_chain(batch, &mut chain, findings);
                if let Some((header, entries)) = opened {
                    self.check_entries(batch, &header, &entries, known, open, findings).await?;
                }
            }
        }
    }

    /// Whether a batch is what its writer signed, behind the one that it names.
    fn check_chain(
        &self,
        batch: &BatchRecord,
        chain: &mut Option<Chain>,
        findings: &mut Findings,
    ) -> Option<(BatchHeader, Vec<ManifestEntry>)> {
        let (writer_id, sequence) = (batch.writer_id, batch.sequence);
        let begun = chain.take().filter(|chain| chain.writer_id == writer_id);
        let mut end = begun.unwrap_or(Chain {
            writer_id,
            next: 0,
            previous: Some(Hash::ZERO),
            sealed_at: DateTime::UNIX_EPOCH,
        });
        if sequence > end.next {
            findings.add(Finding::MissingBatch { writer_id, sequence: end.next });
            end.previous = None;
        }
        let opened = batch.open().ok();
        let is_signed = self.writer_keys.is_empty() || batch.is_signed_by(&self.writer_keys);
        let follows = opened.as_ref().is_some_and(|(header, _)| {
            end.previous.is_none_or(|previous| previous == header.previous)
                && header.sealed_at >= end.sealed_at
        });
        if !is_signed || !follows {
            findings.add(Finding::BatchForged { writer_id, sequence });
        }
        let sealed_at = opened.as_ref().map_or(end.sealed_at, |(header, _)| header.sealed_at);
        *chain = Some(Chain {
            writer_id,
            next: sequence.saturating_add(1),
            previous: Some(batch.hash()),
            sealed_at,
        });
        opened
    }

    /// Whether the trees have the events that a batch lists, in its order, and the events that no tree has are there.
    async fn check_entries(
        &self,
        batch: &BatchRecord,
        header: &BatchHeader,
        entries: &[ManifestEntry],
        known: &Known<'_>,
        open: &mut Open,
        findings: &mut Findings,
    ) -> Result<()> {
        if known.since.is_some_and(|since| header.sealed_at < since) {
            return Ok(());
        }
        let keys: Vec<(TenantId, EventId)> =
            entries.iter().map(|entry| (entry.tenant_id.clone(), entry.event_id)).collect();
        let leaves = findings.readable(self.store.tree_leaves_by_key(&keys).await)?.unwrap_or_default();
        let leaves: BTreeMap<(TenantId, EventId), TreeLeaf> =
            leaves.into_iter().map(|(tenant_id, leaf)| ((tenant_id, leaf.event_id), leaf)).collect();
        let is_sealed = |entry: &ManifestEntry| {
            let leaf = leaves.get(&(entry.tenant_id.clone(), entry.event_id));
            leaf.is_some_and(|leaf| {
                known.sizes.get(&entry.tenant_id).is_some_and(|size| leaf.position < *size)
            })
        };
        let is_batch_sealed = entries.iter().any(is_sealed);
        let mut without_leaf: BTreeMap<(TenantId, EventId), Hash> = BTreeMap::new();
        for run in entries.chunk_by(|a, b| a.tenant_id == b.tenant_id) {
            let base = base_of(run, &leaves);
            let mut offset = 0;
            for entry in run {
                let key = (entry.tenant_id.clone(), entry.event_id);
                let (tenant_id, id) = (key.0.clone(), entry.event_id.as_uuid());
                if let Some(hash) = open.unlisted.remove(&(tenant_id.clone(), id))
                    && hash != Some(entry.leaf)
                {
                    findings.add(Finding::Edited { tenant_id: tenant_id.clone(), id });
                }
                let Some(leaf) = leaves.get(&key) else {
                    without_leaf.insert(key, entry.leaf);
                    continue;
                };
                if leaf.hash != entry.leaf {
                    findings.add(Finding::Edited { tenant_id: tenant_id.clone(), id });
                }
                if leaf.position.checked_sub(offset) != Some(base) {
                    findings.add(Finding::Reordered { tenant_id, id });
                }
                offset += 1;
                if is_sealed(entry)
                    && let Some(left) = open.unattested.get_mut(&entry.tenant_id)
                {
                    *left = left.saturating_sub(1);
                }
            }
        }
        if is_batch_sealed {
            report_vanished(&mut without_leaf, known, findings);
        } else {
            let age = known.now - header.sealed_at;
            if age.to_std().is_ok_and(|age| age > known.stale_after) {
                let (writer_id, sequence, sealed_at) = (batch.writer_id, batch.sequence, header.sealed_at);
                findings.add(Finding::Stale { writer_id, sequence, sealed_at });
            }
        }
        self.check_without_leaf(without_leaf, findings).await
    }

    /// Names the leaves of some tenants that no batch lists. Read once more, since as a rule there are none.
    pub(super) async fn name_unattested(
        &self,
        tenants: &BTreeSet<TenantId>,
        sizes: &BTreeMap<TenantId, u64>,
        findings: &mut Findings,
    ) -> Result<()> {
        let mut listed: BTreeSet<(TenantId, EventId)> = BTreeSet::new();
        let mut after = None;
        loop {
            let page = findings.readable(self.store.audit_batches(after, PAGE).await)?.unwrap_or_default();
            let Some(last) = page.last() else {
                break;
            };
            after = Some((last.writer_id, last.sequence));
            let entries = page.iter().filter_map(|batch| batch.open().ok()).flat_map(|(_, entries)| entries);
            let theirs = entries.filter(|entry| tenants.contains(&entry.tenant_id));
            listed.extend(theirs.map(|entry| (entry.tenant_id, entry.event_id)));
        }
        for tenant_id in tenants {
            let mut after = None;
            loop {
                let page = self.store.tree_leaves(tenant_id, after, AUDIT_READ_MAX).await;
                let page = findings.readable(page)?.unwrap_or_default();
                let Some(last) = page.last() else {
                    break;
                };
                after = Some(last.event_id);
                let size = sizes.get(tenant_id).copied().unwrap_or(0);
                let sealed = page.iter().filter(|leaf| leaf.position < size);
                for leaf in sealed.filter(|leaf| !listed.contains(&(tenant_id.clone(), leaf.event_id))) {
                    let (tenant_id, id) = (tenant_id.clone(), leaf.event_id.as_uuid());
                    findings.add(Finding::Unattested { tenant_id, id });
                }
            }
        }
        Ok(())
    }

    /// Events that no tree has: they must be there, as they were sealed.
    async fn check_without_leaf(
        &self,
        mut expected: BTreeMap<(TenantId, EventId), Hash>,
        findings: &mut Findings,
    ) -> Result<()> {
        if expected.is_empty() {
            return Ok(());
        }
        let keys: Vec<(TenantId, EventId)> = expected.keys().cloned().collect();
        let rows = findings.readable(self.store.audit_rows_by_key(&keys).await)?.unwrap_or_default();
        for row in rows {
            let key = (row.tenant_id.clone(), EventId::bound(row.id));
            if expected.remove(&key).is_some_and(|leaf| leaf_of(&row) != Some(leaf)) {
                findings.add(Finding::Edited { tenant_id: row.tenant_id, id: row.id });
            }
        }
        for (tenant_id, id) in expected.into_keys() {
            findings.add(Finding::Missing { tenant_id, id: id.as_uuid() });
        }
        Ok(())
    }
}

/// Tenants of a sealed batch that have no tree are named once, in place of all their events.
fn report_vanished(
    without_leaf: &mut BTreeMap<(TenantId, EventId), Hash>,
    known: &Known<'_>,
    findings: &mut Findings,
) {
    let vanished: BTreeSet<TenantId> = without_leaf
        .keys()
        .map(|(tenant_id, _)| tenant_id)
        .filter(|tenant_id| !known.sizes.contains_key(*tenant_id))
        .cloned()
        .collect();
    without_leaf.retain(|(tenant_id, _), _| !vanished.contains(tenant_id));
    for tenant_id in vanished {
        findings.add(Finding::MissingTenant { tenant_id });
    }
}

/// Where the run of a tenant's events in a batch begins in the tenant's tree: where most of them say that it does.
fn base_of(run: &[ManifestEntry], leaves: &BTreeMap<(TenantId, EventId), TreeLeaf>) -> u64 {
    let there = run.iter().filter_map(|entry| leaves.get(&(entry.tenant_id.clone(), entry.event_id)));
    let bases = (0..).zip(there).filter_map(|(offset, leaf)| leaf.position.checked_sub(offset));
    let mut bases: Vec<u64> = bases.collect();
    bases.sort_unstable();
    bases.get(bases.len() / 2).copied().unwrap_or_default()
}
