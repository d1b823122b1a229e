//! Epochs: the trees of all tenants at one moment, in one signed record.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};

use crate::audit::canonical::{Canonical, Reader, malformed};
use crate::audit::tree::{self, Frontier, TreeNode};
use crate::audit::{AuditSigningKey, AuditVerifyingKey, BatchRecord, Checkpoint, Hash, Origin, WriterId};
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result, TenantId};

const RECORD: &str = "metertrail/audit/epoch/1";

/// How one tenant's tree stands. The epochs seal the sizes and roots; the frontier is what appending takes, and follows.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TenantHead {
    /// Whose tree it is.
    pub tenant_id: TenantId,
    /// The root that the epoch sealed.
    pub root: Hash,
    /// The tree's right edge.
    pub frontier: Frontier,
}

impl TenantHead {
    /// The hash of the head's leaf in the epoch's list.
    pub fn leaf(&self) -> Hash {
        head_leaf(&self.tenant_id, self.frontier.size(), self.root)
    }
}

fn head_leaf(tenant_id: &TenantId, size: u64, root: Hash) -> Hash {
    let mut bytes = Canonical::new("metertrail/audit/head/1");
    bytes.text(tenant_id.as_str());
    bytes.u64(size);
    bytes.hash(root);
    Hash::leaf(bytes.as_bytes())
}

/// The root of the list of heads, which are in the order of their tenants.
pub fn tenants_root<'a>(heads: impl IntoIterator<Item = &'a TenantHead>) -> Hash {
    let mut frontier = Frontier::default();
    heads.into_iter().for_each(|head| frontier.push(head.leaf(), |_| {}));
    frontier.root()
}

/// One epoch: how many events of how many tenants there were, and the root of the list of their trees.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EpochRecord {
    /// Its place in the log, from 0.
    pub number: u64,
    /// When it was sealed. It does not go back.
    pub sealed_at: DateTime<Utc>,
    /// How many tenants have a tree.
    pub tenants: u64,
    /// How many leaves these have.
    pub events: u64,
    /// The root of the list of heads.
    pub tenants_root: Hash,
}

impl EpochRecord {
    /// The bytes that are the epoch's leaf in the log.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Canonical::new(RECORD);
        bytes.u64(self.number);
        bytes.i64(self.sealed_at.timestamp_micros());
        bytes.u64(self.tenants);
        bytes.u64(self.events);
        bytes.hash(self.tenants_root);
        bytes.into_bytes()
    }

    /// Reads what [`to_bytes`](Self::to_bytes) wrote.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store) if it is anything else.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, RECORD)?;
        let this = Self {
            number: reader.u64()?,
            sealed_at: DateTime::from_timestamp_micros(reader.i64()?).ok_or_else(malformed)?,
            tenants: reader.u64()?,
            events: reader.u64()?,
            tenants_root: reader.hash()?,
        };
        reader.end()?;
        Ok(this)
    }
}

/// An epoch as a store keeps it. Nothing of it is believed before it was looked at.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredEpoch {
    /// The number that it is kept under.
    pub number: u64,
    /// The bytes of its [`EpochRecord`].
    pub record: Vec<u8>,
    /// The checkpoint of the log with this epoch as its last.
    pub checkpoint: String,
    /// The right edge of that log.
    pub frontier: Vec<u8>,
}

/// The latest epoch and how the trees stand with it, in one snapshot.
#[derive(Clone, Debug, Default)]
pub struct AuditState {
    /// The latest epoch; none if nothing was sealed yet.
    pub epoch: Option<StoredEpoch>,
    /// The heads of all tenants, in the byte order of their ids.
    pub heads: Vec<TenantHead>,
}

/// A leaf of a tenant's tree, and the event that it is of.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TreeLeaf {
    /// Its place in the tree.
    pub position: u64,
    /// Its hash.
    pub hash: Hash,
    /// The event.
    pub event_id: EventId,
}

/// A node of a tree as it is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KeptNode {
    /// The node.
    pub node: TreeNode,
    /// The event of a leaf.
    pub event_id: Option<EventId>,
}

/// A node that an epoch adds to a tenant's tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewNode {
    /// Whose tree.
    pub tenant_id: TenantId,
    /// The node.
    pub kept: KeptNode,
}

/// What one step of sealing adds, all of it or nothing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NewEpoch {
    /// The epoch.
    pub epoch: StoredEpoch,
    /// When it was sealed.
    pub sealed_at: DateTime<Utc>,
    /// The new heads of the tenants that changed.
    pub heads: Vec<TenantHead>,
    /// What their trees gain.
    pub nodes: Vec<NewNode>,
    /// The batches that are sealed by it.
    pub batches: Vec<(WriterId, u64)>,
}

/// The sealer's view of the log, checked against itself and against the sealers' keys.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    heads: BTreeMap<TenantId, TenantHead>,
    log: Frontier,
    last: Option<EpochRecord>,
}

impl Ledger {
    /// Takes what a store has. It does not go on from a state that does not hold together: a new signature over it would
    /// make somebody else's edit look lawful.
    /// Without keys, signatures are not looked at.
    pub(crate) fn open(state: AuditState, origin: &Origin, keys: &[AuditVerifyingKey]) -> Result<Self> {
        let heads: BTreeMap<TenantId, TenantHead> =
            state.heads.into_iter().map(|head| (head.tenant_id.clone(), head)).collect();
        let Some(epoch) = state.epoch else {
            let empty = Self { heads, log: Frontier::default(), last: None };
            return if empty.heads.is_empty() {
                Ok(empty)
            } else {
                Err(broken("there are trees and no epoch"))
            };
        };
        let record = EpochRecord::parse(&epoch.record)?;
        let checkpoint: Checkpoint = epoch.checkpoint.parse()?;
        let size = epoch.number.checked_add(1).ok_or_else(malformed)?;
        let log = Frontier::from_bytes(size, &epoch.frontier)?;
        if record.number != epoch.number || checkpoint.size() != size || checkpoint.root() != log.root() {
            return Err(broken("the latest epoch is not what its checkpoint says"));
        }
        if checkpoint.origin() != origin {
            return Err(broken("the log of epochs is of another trail"));
        }
        if !keys.is_empty() && !keys.iter().any(|key| checkpoint.is_signed_by(key)) {
            return Err(broken("the latest checkpoint is not signed by a sealer's key"));
        }
        let stands = heads.values().all(|head| head.frontier.root() == head.root)
            && tenants_root(heads.values()) == record.tenants_root;
        if !stands {
            return Err(broken("the tenants' trees are not what the latest epoch sealed"));
        }
        Ok(Self { heads, log, last: Some(record) })
    }

    /// Appends batches and makes the next epoch.
    pub(crate) fn seal(
        mut self,
        batches: &[BatchRecord],
        origin: &Origin,
        key: Option<&AuditSigningKey>,
        now: DateTime<Utc>,
    ) -> Result<NewEpoch> {
        let (mut nodes, mut changed) = (Vec::new(), BTreeSet::new());
        let mut events = self.last.as_ref().map_or(0, |last| last.events);
        for batch in batches {
            for entry in batch.open()?.1 {
                let tenant_id = entry.tenant_id;
                let head = self.heads.entry(tenant_id.clone()).or_insert_with(|| TenantHead {
                    tenant_id: tenant_id.clone(),
                    root: Hash::of(b""),
                    frontier: Frontier::default(),
                });
                head.frontier.push(entry.leaf, |node| {
                    let event_id = (node.level == 0).then_some(entry.event_id);
                    let kept = KeptNode { node, event_id };
                    nodes.push(NewNode { tenant_id: tenant_id.clone(), kept });
                });
                changed.insert(tenant_id);
                events += 1;
            }
        }
        for tenant_id in &changed {
            if let Some(head) = self.heads.get_mut(tenant_id) {
                head.root = head.frontier.root();
            }
        }
        let number = self.log.size();
        let record = EpochRecord {
            number,
            sealed_at: self.last.as_ref().map_or(now, |last| last.sealed_at.max(now)),
            tenants: u64::try_from(self.heads.len()).map_err(|_| malformed())?,
            events,
            tenants_root: tenants_root(self.heads.values()),
        };
        let bytes = record.to_bytes();
        self.log.push(Hash::leaf(&bytes), |_| {});
        let mut checkpoint = Checkpoint::new(origin.clone(), self.log.size(), self.log.root());
        if let Some(key) = key {
            checkpoint = checkpoint.signed(key);
        }
        self.heads.retain(|tenant_id, _| changed.contains(tenant_id));
        Ok(NewEpoch {
            epoch: StoredEpoch {
                number,
                record: bytes,
                checkpoint: checkpoint.to_string(),
                frontier: self.log.to_bytes(),
            },
            sealed_at: record.sealed_at,
            heads: self.heads.into_values().collect(),
            nodes,
            batches: batches.iter().map(|batch| (batch.writer_id, batch.sequence)).collect(),
        })
    }
}

/// The proof that an event is in the trail that a checkpoint sealed. It needs nothing but a public key to check.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EventProof {
    /// Whose event.
    pub tenant_id: TenantId,
    /// Its leaf's place in the tenant's tree.
    pub position: u64,
    /// The size and root of the tenant's tree.
    pub tree: (u64, Hash),
    /// From the leaf to the tree's root.
    pub in_tree: Vec<Hash>,
    /// The place of the tenant's head in the epoch's list.
    pub head_position: u64,
    /// From the head to the list's root.
    pub in_epoch: Vec<Hash>,
    /// The epoch.
    pub epoch: EpochRecord,
    /// From the epoch to the log's root.
    pub in_log: Vec<Hash>,
    /// The log's checkpoint.
    pub checkpoint: Checkpoint,
}

impl EventProof {
    /// Whether it proves that the event of this leaf is in the trail of the checkpoint. Whether the checkpoint is to be
    /// believed is for [`Checkpoint::is_signed_by`] to say.
    pub fn verify(&self, leaf: Hash) -> bool {
        let head = head_leaf(&self.tenant_id, self.tree.0, self.tree.1);
        let epoch = Hash::leaf(&self.epoch.to_bytes());
        tree::verify_inclusion(leaf, self.position, self.tree.0, &self.in_tree, self.tree.1)
            && tree::verify_inclusion(
                head,
                self.head_position,
                self.epoch.tenants,
                &self.in_epoch,
                self.epoch.tenants_root,
            )
            && tree::verify_inclusion(
                epoch,
                self.epoch.number,
                self.checkpoint.size(),
                &self.in_log,
                self.checkpoint.root(),
            )
    }
}

fn broken(what: &'static str) -> Error {
    Error::new(ErrorKind::Store, what)
}
