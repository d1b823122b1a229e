//! Proofs of single events, from a store.

use crate::audit::tree::{self, Frontier, Tiles};
use crate::audit::{AuditState, EpochRecord, EventProof, Hash, KeptNode};
use crate::store::AuditStore;
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result, TenantId};

/// The proof that an event is in the trail that the latest checkpoint sealed; `None` if it is in no tree yet, or there is no
/// such event. Reads one tile a level of the tenant's tree, and the heads of all tenants.
///
/// # Errors
/// [`Store`](ErrorKind::Store) if the trees are not whole; whatever the store meets.
pub async fn prove(store: &dyn AuditStore, tenant_id: &TenantId, id: EventId) -> Result<Option<EventProof>> {
    let key = (tenant_id.clone(), id);
    let Some((_, leaf)) = store.tree_leaves_by_key(std::slice::from_ref(&key)).await?.pop() else {
        return Ok(None);
    };
    let AuditState { epoch: Some(epoch), heads } = store.audit_state().await? else {
        return Ok(None);
    };
    let broken = |what: &'static str| Error::new(ErrorKind::Store, what);
    let index = heads.binary_search_by(|head| head.tenant_id.cmp(tenant_id));
    let index = index.map_err(|_| broken("the tenant has a leaf and no tree"))?;
    let head_position = u64::try_from(index).map_err(|_| broken("there are too many tenants"))?;
    let head = heads.get(index).ok_or_else(|| broken("the tenant has a leaf and no tree"))?;
    let size = head.frontier.size();
    let nodes = nodes_around(store, tenant_id, leaf.position, size).await?;
    let tiles = Tiles::new(&head.frontier, nodes.into_iter().map(|kept| kept.node));
    let list: Vec<Hash> = heads.iter().map(crate::audit::TenantHead::leaf).collect();
    let in_epoch = tree::inclusion_proof(&list, head_position);
    let before = match epoch.number.checked_sub(1) {
        None => Frontier::default(),
        Some(number) => {
            let before = store.audit_epochs(number, 1).await?.pop().filter(|epoch| epoch.number == number);
            let before = before.ok_or_else(|| broken("an epoch is missing"))?;
            Frontier::from_bytes(epoch.number, &before.frontier)?
        }
    };
    Ok(Some(EventProof {
        tenant_id: tenant_id.clone(),
        position: leaf.position,
        tree: (size, head.root),
        in_tree: tiles.inclusion(leaf.position)?,
        head_position,
        in_epoch: in_epoch.ok_or_else(|| broken("the tenant is not in the list"))?,
        epoch: EpochRecord::parse(&epoch.record)?,
        in_log: before.last_leaf_proof(),
        checkpoint: epoch.checkpoint.parse()?,
    }))
}

/// The proof that a tenant's tree of an earlier size is a beginning of the one that the latest epoch sealed.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct ExtensionProof {
    /// The size of the earlier tree.
    pub old_size: u64,
    /// The size and root of the tree now.
    pub tree: (u64, Hash),
    /// What leads from the one to the other (RFC 6962, section 2.1.2).
    pub proof: Vec<Hash>,
}

impl ExtensionProof {
    /// Whether it proves that the tree of this root became the one of now by appending only.
    pub fn verify(&self, old_root: Hash) -> bool {
        tree::verify_consistency((self.old_size, old_root), self.tree, &self.proof)
    }
}

/// The proof that nothing but appending happened to a tenant's tree since it had this size; `None` if it has no tree, or a
/// smaller one.
///
/// # Errors
/// [`Store`](ErrorKind::Store) if the trees are not whole; whatever the store meets.
pub async fn prove_extension(
    store: &dyn AuditStore,
    tenant_id: &TenantId,
    old_size: u64,
) -> Result<Option<ExtensionProof>> {
    let heads = store.audit_state().await?.heads;
    let Some(head) = heads.iter().find(|head| head.tenant_id == *tenant_id) else {
        return Ok(None);
    };
    let tree = (head.frontier.size(), head.root);
    let Some(last) = old_size.checked_sub(1) else {
        return Ok(Some(ExtensionProof { old_size, tree, proof: Vec::new() }));
    };
    if old_size > tree.0 {
        return Ok(None);
    }
    let nodes = nodes_around(store, tenant_id, last, tree.0).await?;
    let tiles = Tiles::new(&head.frontier, nodes.into_iter().map(|kept| kept.node));
    Ok(Some(ExtensionProof { old_size, tree, proof: tiles.consistency(old_size)? }))
}

/// The kept nodes from which proofs about a leaf are made.
pub(super) async fn nodes_around(
    store: &dyn AuditStore,
    tenant_id: &TenantId,
    position: u64,
    size: u64,
) -> Result<Vec<KeptNode>> {
    let mut nodes = Vec::new();
    for (level, range) in tree::tiles_around(position, size) {
        let limit = u32::try_from(range.end - range.start).unwrap_or(u32::MAX);
        let tile = store.tree_nodes(tenant_id, level, range.start, limit).await?;
        nodes.extend(tile.into_iter().filter(|kept| range.contains(&kept.node.position)));
    }
    Ok(nodes)
}
