//! The writers' chains: every batch there, each as it was signed, and its events in the trees as it lists them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::tenant::{Open, leaf_of};
use super::{Finding, VerifiedState, Verifier, report::Findings};
use crate::audit::{AuditState, BatchHeader, BatchRecord, Hash, ManifestEntry, Origin, TreeLeaf, WriterId};
use crate::store::AUDIT_READ_MAX;
use crate::usage::EventId;
use crate::{Result, TenantId};

/// Batches read at once: a batch may be large.
const PAGE: u32 = 64;

/// A batch that could be read.
struct Opened {
    hash: Hash,
    header: BatchHeader,
    entries: Vec<ManifestEntry>,
}

/// What the batches are held against.
pub(super) struct Known<'a> {
    /// The sizes of the trees that were sealed.
    pub(super) sizes: &'a BTreeMap<TenantId, u64>,
    /// The name of the trail, if there is one to hold them against.
    pub(super) origin: Option<&'a Origin>,
    /// What a former verification saw: batches that had come to rest by then are not held against the trees again.
    pub(super) since: Option<&'a VerifiedState>,
    /// The batches that it saw before they had come to rest: they have to be there still.
    pub(super) recent: &'a BTreeMap<(WriterId, u64), Hash>,
    pub(super) now: DateTime<Utc>,
    pub(super) stale_after: Duration,
}

/// The batches that were written before a moment, in the order of their keys: if they are the same at two times, none was
/// changed, deleted or added in between.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
pub(super) struct Settled {
    pub(super) before: DateTime<Utc>,
    batches: u64,
    digest: Hash,
}

impl Settled {
    fn new(before: DateTime<Utc>) -> Self {
        Self { before, batches: 0, digest: Hash::ZERO }
    }

    fn add(&mut self, sealed_at: DateTime<Utc>, batch: Hash) {
        if sealed_at < self.before {
            self.batches += 1;
            self.digest = Hash::node(self.digest, batch);
        }
    }
}

/// A batch that no tree has.
#[derive(Clone, Debug)]
pub(super) struct Unsealed {
    pub(super) key: (WriterId, u64),
    sealed_at: DateTime<Utc>,
    /// One of its events, by which it is found in the trees once it is there.
    first: Option<(TenantId, EventId)>,
}

/// What was met along all batches.
#[derive(Clone, Debug)]
pub(super) struct Walked {
    pub(super) batches: u64,
    /// Those that had come to rest at the former verification.
    pub(super) settled_then: Settled,
    /// Those that have come to rest now.
    pub(super) settled: Settled,
    /// Those that have not, or that no tree has.
    pub(super) recent: BTreeMap<(WriterId, u64), Hash>,
    /// Those that had not at the former verification, and are still the same.
    seen_again: BTreeSet<(WriterId, u64)>,
    pub(super) unsealed: Vec<Unsealed>,
}

impl Walked {
    pub(super) fn new(then: Option<DateTime<Utc>>, now: DateTime<Utc>) -> Self {
        let then = then.unwrap_or(DateTime::UNIX_EPOCH);
        Self {
            batches: 0,
            settled_then: Settled::new(then),
            settled: Settled::new(now),
            recent: BTreeMap::new(),
            seen_again: BTreeSet::new(),
            unsealed: Vec::new(),
        }
    }

    fn add(&mut self, key: (WriterId, u64), sealed_at: DateTime<Utc>, hash: Hash) {
        self.settled_then.add(sealed_at, hash);
        self.settled.add(sealed_at, hash);
        if sealed_at >= self.settled.before {
            self.recent.insert(key, hash);
        }
    }

    /// Whether each batch that a former verification saw before it had come to rest is still there: nobody honest takes one
    /// away.
    pub(super) fn check_recent(&self, known: &Known<'_>, findings: &mut Findings) {
        for (writer_id, sequence) in known.recent.keys().filter(|key| !self.seen_again.contains(key)) {
            findings.add(Finding::MissingBatch { writer_id: *writer_id, sequence: *sequence });
        }
    }
}

/// Nothing was met.
impl Default for Walked {
    fn default() -> Self {
        Self::new(None, DateTime::UNIX_EPOCH)
    }
}

/// The end of the chain that is being walked along.
struct Chain {
    writer_id: WriterId,
    next: u64,
    previous: Option<Hash>,
    sealed_at: DateTime<Utc>,
}

impl Verifier {
    /// Looks at every batch. What is left in `open` is in none.
    pub(super) async fn check_batches(
        &self,
        known: &Known<'_>,
        walked: &mut Walked,
        open: &mut Open,
        findings: &mut Findings,
    ) -> Result<()> {
        let mut after = None;
        let mut chain: Option<Chain> = None;
        loop {
            let page = self.store.audit_batches(after, PAGE).await;
            let page = findings.readable(page)?.unwrap_or_default();
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = Some((last.writer_id, last.sequence));
            for batch in &page {
                walked.batches += 1;
                let (key, hash) = ((batch.writer_id, batch.sequence), batch.hash());
                if known.recent.get(&key) == Some(&hash) {
                    walked.seen_again.insert(key);
                }
                if let Some((header, entries)) = self.check_chain(batch, known, &mut chain, findings) {
                    walked.add(key, header.sealed_at, hash);
                    let batch = Opened { hash, header, entries };
                    self.check_entries(&batch, known, walked, open, findings).await?;
                }
            }
        }
    }

    /// Whether a batch is what its writer signed, behind the one that it names.
    fn check_chain(
        &self,
        batch: &BatchRecord,
        known: &Known<'_>,
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
                && known.origin.is_none_or(|origin| *origin == header.origin)
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
        batch: &Opened,
        known: &Known<'_>,
        walked: &mut Walked,
        open: &mut Open,
        findings: &mut Findings,
    ) -> Result<()> {
        let Opened { hash, header, entries } = batch;
        let batch = (header.writer_id, header.sequence);
        let was_seen = known.since.is_some_and(|since| since.has_seen(batch, header.sealed_at));
        if was_seen && !entries.iter().any(|entry| open.has(&entry.tenant_id, entry.event_id)) {
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
                open.new_leaves.remove(&(tenant_id.clone(), id));
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
                    && let Some(listed) = open.listed.get_mut(&entry.tenant_id)
                    && !listed.add(leaf.position)
                {
                    // Signed once, given up, and put there by hand: an event is in one batch.
                    let (writer_id, sequence) = batch;
                    findings.add(Finding::BatchForged { writer_id, sequence });
                }
            }
        }
        if is_batch_sealed {
            report_vanished(&mut without_leaf, known, findings);
        } else {
            let first = entries.first().map(|entry| (entry.tenant_id.clone(), entry.event_id));
            walked.unsealed.push(Unsealed { key: batch, sealed_at: header.sealed_at, first });
            walked.recent.insert(batch, *hash);
        }
        self.check_without_leaf(without_leaf, findings).await
    }

    /// Batches that no tree had: they must be waiting for a sealer, and not for too long. What was sealed meanwhile is fine.
    pub(super) async fn check_unsealed(
        &self,
        known: &Known<'_>,
        walked: &Walked,
        findings: &mut Findings,
    ) -> Result<()> {
        for part in walked.unsealed.chunks(1_000) {
            let keys: Vec<(WriterId, u64)> = part.iter().map(|batch| batch.key).collect();
            let waiting = findings.readable(self.store.unsealed_among(&keys).await)?.unwrap_or_default();
            let waiting: BTreeSet<(WriterId, u64)> = waiting.into_iter().collect();
            // Read behind the marks: an epoch takes the mark away and adds the leaves in one step.
            let firsts: Vec<(TenantId, EventId)> =
                part.iter().filter_map(|batch| batch.first.clone()).collect();
            let leaves = findings.readable(self.store.tree_leaves_by_key(&firsts).await)?.unwrap_or_default();
            // A leaf counts where an epoch has sealed it: one behind the tree may be anybody's.
            let sizes = if leaves.is_empty() {
                BTreeMap::new()
            } else {
                sizes_of(&findings.readable(self.store.audit_state().await)?.unwrap_or_default())
            };
            let is_in_tree = |(tenant_id, leaf): &(TenantId, TreeLeaf)| {
                sizes.get(tenant_id).is_some_and(|size| leaf.position < *size)
            };
            let leaves = leaves.into_iter().filter(is_in_tree);
            let sealed: BTreeSet<(TenantId, EventId)> =
                leaves.map(|(tenant_id, leaf)| (tenant_id, leaf.event_id)).collect();
            for batch in part {
                let is_sealed = batch.first.as_ref().is_some_and(|first| sealed.contains(first));
                let age = (known.now - batch.sealed_at).to_std().unwrap_or_default();
                if !is_sealed && (!waiting.contains(&batch.key) || age > known.stale_after) {
                    let ((writer_id, sequence), sealed_at) = (batch.key, batch.sealed_at);
                    findings.add(Finding::Stale { writer_id, sequence, sealed_at });
                }
            }
        }
        Ok(())
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

/// How many leaves the tree of each tenant has.
pub(super) fn sizes_of(state: &AuditState) -> BTreeMap<TenantId, u64> {
    state.heads.iter().map(|head| (head.tenant_id.clone(), head.frontier.size())).collect()
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
