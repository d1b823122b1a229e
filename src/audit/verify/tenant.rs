//! One tenant: its tree as it was sealed, and its events as they are in the tree.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::{Finding, Verifier, report::Findings};
use crate::audit::tree::{Frontier, TILE_LEVELS, TreeNode};
use crate::audit::{Hash, TenantHead, TreeLeaf};
use crate::store::{AUDIT_READ_MAX, AuditRow};
use crate::usage::EventId;
use crate::{Result, TenantId};

/// Events that no leaf was found for as yet, with the hashes of their leaves: they are in a batch that is not sealed, or
/// nobody's.
pub(super) type Unlisted = BTreeMap<(TenantId, Uuid), Option<Hash>>;

/// What is found on the way and can be judged only at the end.
#[derive(Debug, Default)]
pub(super) struct Open {
    pub(super) unlisted: Unlisted,
    /// The last leaf of each tenant that has some behind the tree that was sealed: of an epoch that came meanwhile, or of
    /// nobody.
    pub(super) ahead: BTreeMap<TenantId, u64>,
    /// Which sealed leaves of each tenant a batch has listed.
    pub(super) listed: BTreeMap<TenantId, Listed>,
    /// The leaves that a tree has gained since a former verification and that no batch has listed yet.
    pub(super) new_leaves: BTreeSet<(TenantId, Uuid)>,
}

impl Open {
    /// Whether something is known of an event that its batch has to say.
    pub(super) fn has(&self, tenant_id: &TenantId, id: EventId) -> bool {
        let key = (tenant_id.clone(), id.as_uuid());
        self.new_leaves.contains(&key) || self.unlisted.contains_key(&key)
    }
}

/// One bit for each leaf of a tree: whether a batch has listed it.
#[derive(Debug)]
pub(super) struct Listed {
    bits: Vec<u64>,
    left: u64,
}

impl Listed {
    fn new(leaves: u64) -> Self {
        let words = usize::try_from(leaves.div_ceil(64)).unwrap_or(usize::MAX);
        Self { bits: vec![0; words], left: leaves }
    }

    /// Notes that a batch lists a leaf; says whether it is the first that does.
    pub(super) fn add(&mut self, position: u64) -> bool {
        let word = usize::try_from(position / 64).ok().and_then(|word| self.bits.get_mut(word));
        let Some(word) = word else {
            return true;
        };
        let bit = 1 << (position % 64);
        let is_first = *word & bit == 0;
        *word |= bit;
        self.left = self.left.saturating_sub(u64::from(is_first));
        is_first
    }

    /// How many leaves no batch has listed.
    pub(super) fn left(&self) -> u64 {
        self.left
    }
}

/// How far a former verification came.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Since<'a> {
    /// The tree that was seen to be whole: that of now must be a continuation of it.
    pub(super) tree: Option<&'a Frontier>,
    /// Events with greater ids are looked at, and leaves behind that tree; without it, everything.
    pub(super) id: Option<Uuid>,
}

/// The leaves of a tree that were read, from a place on.
struct Leaves {
    from: u64,
    size: u64,
    hashes: Vec<(Hash, Option<EventId>)>,
}

impl Leaves {
    fn has(&self, leaf: &TreeLeaf) -> bool {
        let index = leaf.position.checked_sub(self.from).and_then(|index| usize::try_from(index).ok());
        let there = index.and_then(|index| self.hashes.get(index));
        there == Some(&(leaf.hash, Some(leaf.event_id)))
    }
}

impl Verifier {
    /// Looks at one tenant; gives how many events were held against a leaf.
    pub(super) async fn check_tenant(
        &self,
        tenant_id: &TenantId,
        head: Option<&TenantHead>,
        since: Since<'_>,
        open: &mut Open,
        findings: &mut Findings,
    ) -> Result<u64> {
        let leaves = match head {
            Some(head) => self.check_tree(head, since, findings).await?,
            None => Leaves { from: 0, size: 0, hashes: Vec::new() },
        };
        let older = self.check_older(tenant_id, &leaves, since, findings).await?;
        let Merged { checked, met } = self.merge(tenant_id, &leaves, since, open, findings).await?;
        let read = u64::try_from(leaves.hashes.len()).unwrap_or(u64::MAX);
        open.listed.insert(tenant_id.clone(), Listed::new(leaves.size));
        if leaves.hashes.iter().any(|(_, id)| id.is_none()) || (since.id.is_none() && met != read) {
            // A leaf that has a place and no event, or the other way round.
            findings.add(Finding::TreeAltered { tenant_id: tenant_id.clone() });
        }
        if since.id.is_some() {
            let ids = leaves.hashes.iter().filter_map(|(_, id)| *id);
            open.new_leaves.extend(ids.map(|id| (tenant_id.clone(), id.as_uuid())));
        }
        Ok(older + checked)
    }

    /// Whether the leaves add up to the root that was sealed, and the kept nodes to what proofs are made of.
    async fn check_tree(
        &self,
        head: &TenantHead,
        since: Since<'_>,
        findings: &mut Findings,
    ) -> Result<Leaves> {
        let (tenant_id, size) = (&head.tenant_id, head.frontier.size());
        let mut frontier = since.tree.filter(|_| since.id.is_some()).cloned().unwrap_or_default();
        let from = frontier.size();
        let seen = since.tree.map_or(0, Frontier::size);
        let mut continues = true;
        let mut leaves = Leaves { from, size, hashes: Vec::new() };
        let mut inner: Vec<TreeNode> = Vec::new();
        while frontier.size() < size {
            let next = frontier.size();
            let page = self.store.tree_nodes(tenant_id, 0, next, AUDIT_READ_MAX).await;
            let page = findings.readable(page)?.unwrap_or_default();
            for kept in page {
                // A gap: what is behind it has no place of its own any more.
                if kept.node.position != frontier.size() || frontier.size() >= size {
                    break;
                }
                leaves.hashes.push((kept.node.hash, kept.event_id));
                frontier.push(kept.node.hash, |node| {
                    if node.level > 0 {
                        inner.push(node);
                    }
                });
                continues &=
                    since.tree.is_none_or(|tree| tree.size() != frontier.size() || *tree == frontier);
            }
            if frontier.size() == next {
                break;
            }
        }
        if frontier.size() < size || seen > size {
            let found = frontier.size().min(size);
            findings.add(Finding::TruncatedTail {
                tenant_id: tenant_id.clone(),
                sealed: seen.max(size),
                found,
            });
        } else if !continues
            || frontier.root() != head.root
            || !self.has_nodes(tenant_id, &inner, findings).await?
        {
            findings.add(Finding::TreeAltered { tenant_id: tenant_id.clone() });
        }
        Ok(leaves)
    }

    async fn has_nodes(
        &self,
        tenant_id: &TenantId,
        expected: &[TreeNode],
        findings: &mut Findings,
    ) -> Result<bool> {
        let mut by_level: BTreeMap<u8, Vec<TreeNode>> = BTreeMap::new();
        for node in expected {
            by_level.entry(node.level).or_default().push(*node);
        }
        for (level, nodes) in by_level.into_iter().filter(|(level, _)| level % TILE_LEVELS == 0) {
            let mut rest = nodes.as_slice();
            while let Some(first) = rest.first() {
                let page = self.store.tree_nodes(tenant_id, level, first.position, AUDIT_READ_MAX).await;
                let page = findings.readable(page)?.unwrap_or_default();
                let matching = rest.iter().zip(&page).take_while(|(node, kept)| **node == kept.node).count();
                if matching == 0 || (matching < rest.len() && matching < page.len()) {
                    return Ok(false);
                }
                rest = rest.get(matching..).unwrap_or_default();
            }
        }
        Ok(true)
    }

    /// Events that were sealed since, and whose ids are older than those that are looked at one by one.
    async fn check_older(
        &self,
        tenant_id: &TenantId,
        leaves: &Leaves,
        since: Since<'_>,
        findings: &mut Findings,
    ) -> Result<u64> {
        let Some(bound) = since.id else {
            return Ok(0);
        };
        let older = leaves
            .hashes
            .iter()
            .filter_map(|(hash, id)| Some((id.filter(|id| id.as_uuid() <= bound)?, *hash)));
        let older: BTreeMap<Uuid, Hash> = older.map(|(id, hash)| (id.as_uuid(), hash)).collect();
        let keys: Vec<(TenantId, EventId)> =
            older.keys().map(|id| (tenant_id.clone(), EventId::bound(*id))).collect();
        let mut missing = older.clone();
        for part in keys.chunks(1_000) {
            let rows = self.store.audit_rows_by_key(part).await;
            for row in findings.readable(rows)?.unwrap_or_default() {
                missing.remove(&row.id);
                if leaf_of(&row) != older.get(&row.id).copied() {
                    findings.add(Finding::Edited { tenant_id: tenant_id.clone(), id: row.id });
                }
            }
        }
        for id in missing.into_keys() {
            findings.add(Finding::Missing { tenant_id: tenant_id.clone(), id });
        }
        Ok(u64::try_from(older.len()).unwrap_or(u64::MAX))
    }

    /// Walks along the events and the leaves of the tree, both in the order of ids.
    async fn merge(
        &self,
        tenant_id: &TenantId,
        leaves: &Leaves,
        since: Since<'_>,
        open: &mut Open,
        findings: &mut Findings,
    ) -> Result<Merged> {
        let mut rows = Pages::new(since.id);
        let mut sealed = Pages::new(since.id);
        let mut merged = Merged::default();
        let mut last_row = None;
        loop {
            if rows.needs_more() {
                let page = self.store.audit_rows(tenant_id, rows.after, AUDIT_READ_MAX).await;
                rows.fill(findings.readable(page)?.unwrap_or_default(), |row| row.id);
            }
            if sealed.needs_more() {
                let after = sealed.after.map(EventId::bound);
                let page = self.store.tree_leaves(tenant_id, after, AUDIT_READ_MAX).await;
                sealed.fill(findings.readable(page)?.unwrap_or_default(), |leaf| leaf.event_id.as_uuid());
            }
            let row_id = rows.peek().map(|row| row.id);
            let leaf_id = sealed.peek().map(|leaf| leaf.event_id.as_uuid());
            let take_row = row_id.is_some_and(|row| leaf_id.is_none_or(|leaf| row <= leaf));
            let take_leaf = leaf_id.is_some_and(|leaf| row_id.is_none_or(|row| leaf <= row));
            let row = rows.next_if(take_row);
            let leaf = sealed.next_if(take_leaf);
            if row.is_none() && leaf.is_none() {
                return Ok(merged);
            }
            merged.checked += u64::from(row.is_some() && leaf.is_some());
            merged.met += u64::from(leaf.as_ref().is_some_and(|leaf| leaf.position < leaves.size));
            if let Some(row) = &row
                && last_row.replace(row.id) == Some(row.id)
            {
                // Two rows under one key: somebody dropped the key, and one of them is nobody's.
                findings.add(Finding::Forged { tenant_id: tenant_id.clone(), id: row.id });
            }
            check_pair(tenant_id, row, leaf, leaves, open, findings);
        }
    }
}

/// What walking along a tenant's events and leaves came to.
#[derive(Default)]
struct Merged {
    /// Events that were held against a leaf.
    checked: u64,
    /// Leaves that are in the tree that was sealed.
    met: u64,
}

fn check_pair(
    tenant_id: &TenantId,
    row: Option<AuditRow>,
    leaf: Option<TreeLeaf>,
    leaves: &Leaves,
    open: &mut Open,
    findings: &mut Findings,
) {
    let tenant_id = tenant_id.clone();
    if let Some(leaf) = leaf.filter(|leaf| leaf.position >= leaves.size) {
        let last = open.ahead.entry(tenant_id.clone()).or_default();
        *last = leaf.position.max(*last);
    }
    match (row, leaf) {
        (Some(row), Some(leaf)) => {
            let (id, hash) = (row.id, leaf_of(&row));
            if hash != Some(leaf.hash) {
                findings.add(Finding::Edited { tenant_id: tenant_id.clone(), id });
            }
            if leaf.position >= leaves.size || leaf.position < leaves.from {
                // Sealed after the state was read, or by nobody; or in a part of the tree that is not read again, and that may
                // have been laid hands on since: its batch has to say.
                open.unlisted.insert((tenant_id, id), hash);
            } else if !leaves.has(&leaf) {
                findings.add(Finding::Reordered { tenant_id, id });
            }
        }
        (Some(row), None) => {
            let hash = leaf_of(&row);
            open.unlisted.insert((tenant_id, row.id), hash);
        }
        // Behind the sealed tree it may have come in between the two reads.
        (None, Some(leaf)) if leaf.position < leaves.size => {
            findings.add(Finding::Missing { tenant_id, id: leaf.event_id.as_uuid() });
        }
        (None, _) => {}
    }
}

/// The hash of the leaf that an event as it is now would have; none if it is no event, or not the one that it is kept as.
pub(super) fn leaf_of(row: &AuditRow) -> Option<Hash> {
    let event = row.event.as_ref().ok()?;
    let is_its_own = event.tenant_id == row.tenant_id && event.id().as_uuid() == row.id;
    if is_its_own { event.leaf().ok() } else { None }
}

/// A sequence that is read page by page.
struct Pages<T> {
    page: std::iter::Peekable<std::vec::IntoIter<T>>,
    after: Option<Uuid>,
    is_at_end: bool,
}

impl<T> Pages<T> {
    fn new(after: Option<Uuid>) -> Self {
        Self { page: Vec::new().into_iter().peekable(), after, is_at_end: false }
    }

    fn needs_more(&mut self) -> bool {
        !self.is_at_end && self.page.peek().is_none()
    }

    fn fill(&mut self, page: Vec<T>, id: impl Fn(&T) -> Uuid) {
        match page.last() {
            Some(last) => self.after = Some(id(last)),
            None => self.is_at_end = true,
        }
        self.page = page.into_iter().peekable();
    }

    fn peek(&mut self) -> Option<&T> {
        self.page.peek()
    }

    fn next_if(&mut self, take: bool) -> Option<T> {
        if take { self.page.next() } else { None }
    }
}
