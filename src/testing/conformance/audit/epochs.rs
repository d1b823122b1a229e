//! Epochs: one after the other, each in whole, and what is read of the trees.

#![allow(clippy::missing_panics_doc)]

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::task::JoinSet;

use super::sample::{event, events, label, new_chain, next_epoch, ok, seal, sealed, sealed_at, tenant};
use crate::TenantId;
use crate::audit::{AuditEvent, BatchRecord, EpochRecord, Hash, NewEpoch, Origin, tenants_root};
use crate::store::{AuditStore, BatchAppended};
use crate::testing::conformance::cancelling::Polled;
use crate::usage::EventId;

/// Beyond so many polls a call is taken to have an end.
const POLLS_MAX: u32 = 500;

/// The oldest first, a chain in its order and without gaps, as many as are asked for.
pub async fn unsealed_batches_come_oldest_first(store: &Arc<dyn AuditStore>) {
    let mut chains = [new_chain(), new_chain()];
    let mut written = Vec::new();
    for second in 0..8_u8 {
        let chain = &mut chains[usize::from(second % 2)];
        // Two chains at one instant, and two batches of each.
        let batch = sealed_at(chain, vec![event("acme", second.into())], i64::from(second / 4) * 10);
        written.push(batch);
    }
    for batch in written.iter().rev() {
        assert_eq!(ok(store.append_audit(batch).await), BatchAppended::New);
    }
    for limit in 1..=9_u32 {
        let unsealed = ok(store.unsealed_batches(limit).await);
        let sealed_at = |record: &BatchRecord| ok(record.open()).0.sealed_at;
        let told: Vec<_> = unsealed.iter().map(sealed_at).collect();
        let oldest: Vec<_> =
            written.iter().map(|batch| sealed_at(batch.record())).take(usize_of(limit)).collect();
        assert_eq!(told, oldest, "{limit} are not the oldest {limit}");
        for chain in &chains {
            let own = unsealed.iter().filter(|batch| batch.writer_id == chain.writer_id());
            let sequences: Vec<u64> = own.map(|batch| batch.sequence).collect();
            assert!((0..).zip(&sequences).all(|(place, own)| place == *own), "a gap: {sequences:?}");
        }
    }
    seal_some(store).await;
}

fn usize_of(limit: u32) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

async fn seal_some(store: &Arc<dyn AuditStore>) {
    let before = ok(store.unsealed_batches(100).await);
    let ledger = ok(crate::audit::Ledger::open(ok(store.audit_state().await), &Origin::default(), &[]));
    let epoch = ok(ledger.seal(&before[..3], &Origin::default(), None, super::sample::at(1)));
    assert!(ok(store.append_epoch(&epoch).await));
    assert_eq!(ok(store.unsealed_batches(100).await), before[3..], "what was not sealed is still to be");
}

/// A batch is noted as not sealed from the moment that it is kept until the epoch that seals it is.
pub async fn batches_wait_until_they_are_sealed(store: &Arc<dyn AuditStore>) {
    let mut chain = new_chain();
    let written: Vec<_> =
        (0..3).map(|second| sealed_at(&mut chain, vec![event("acme", second)], second)).collect();
    let key = |batch: &crate::audit::SealedBatch| (batch.record().writer_id, batch.record().sequence);
    let asked: Vec<_> = [2, 0].map(|index| key(&written[index])).into();
    assert_eq!(ok(store.unsealed_among(&asked).await), [], "nothing is kept yet");
    for batch in &written {
        ok(store.append_audit(batch).await);
    }
    let waiting =
        async |keys: &[_]| ok(store.unsealed_among(keys).await).into_iter().collect::<BTreeSet<_>>();
    assert_eq!(
        waiting(&asked).await,
        asked.iter().copied().collect(),
        "those that are asked for, and no other"
    );
    let unknown = [(new_chain().writer_id(), 0), (chain.writer_id(), 3)];
    assert_eq!(waiting(&unknown).await, BTreeSet::new());
    assert_eq!(waiting(&[]).await, BTreeSet::new());
    assert!(ok(store.append_epoch(&next_epoch(store).await).await));
    assert_eq!(waiting(&asked).await, BTreeSet::new(), "they are sealed");
}

/// A second epoch of one number is not kept, nor is one that leaves a number out or seals a batch again.
pub async fn an_epoch_is_kept_once(store: &Arc<dyn AuditStore>) {
    let mut chain = new_chain();
    ok(store.append_audit(&sealed_at(&mut chain, vec![event("acme", 1)], 0)).await);
    let (one, other) = (next_epoch(store).await, next_epoch(store).await);
    let mut later = one.clone();
    later.epoch.number += 1;
    assert!(!ok(store.append_epoch(&later).await), "a number is left out");
    assert!(ok(store.append_epoch(&one).await));
    assert!(!ok(store.append_epoch(&other).await), "its number is taken");
    assert!(ok(store.unsealed_batches(10).await).is_empty());
    ok(store.append_audit(&sealed_at(&mut chain, vec![event("acme", 2)], 0)).await);
    let next = next_epoch(store).await;
    let mut stale = next.clone();
    stale.batches.extend(one.batches.iter().copied());
    assert!(!ok(store.append_epoch(&stale).await), "one of its batches is sealed already");
    assert_eq!(ok(store.audit_epochs(0, 10).await), [one.epoch]);
    assert!(ok(store.append_epoch(&next).await));
    assert_eq!(ok(store.audit_epochs(1, 10).await), std::slice::from_ref(&next.epoch));
    assert_eq!(ok(store.audit_state().await).epoch, Some(next.epoch));
}

/// Of any number of sealers at once one does the work.
pub async fn of_sealers_at_once_one_is_kept(store: &Arc<dyn AuditStore>) {
    for number in 0..10_u64 {
        ok(store.append_audit(&sealed(events("acme", 3))).await);
        let epoch = next_epoch(store).await;
        let mut sealers = JoinSet::new();
        for _ in 0..6 {
            let (store, epoch) = (Arc::clone(store), epoch.clone());
            sealers.spawn(async move { persistently(&store, &epoch).await });
        }
        let kept = sealers.join_all().await.into_iter().filter(|is_kept| *is_kept).count();
        assert_eq!(kept, 1, "sealers whose epoch was kept");
        let epochs = ok(store.audit_epochs(0, 100).await);
        assert_eq!(
            epochs.iter().map(|epoch| epoch.number).collect::<Vec<_>>(),
            (0..=number).collect::<Vec<_>>()
        );
        assert_eq!(ok(store.tree_nodes(&tenant("acme"), 0, 0, 100).await).len(), epochs.len() * 3);
    }
}

/// An epoch that is not kept leaves nothing: no head, no node, no mark.
pub async fn an_epoch_is_all_or_nothing(store: &Arc<dyn AuditStore>) {
    let first = seal(store, events("acme", 2)).await;
    ok(store.append_audit(&sealed(vec![event("acme", 7), event("bolt", 7)])).await);
    let mut refused = next_epoch(store).await;
    refused.batches.extend(first.batches);
    assert!(!ok(store.append_epoch(&refused).await));
    let state = ok(store.audit_state().await);
    let sizes: Vec<(TenantId, u64)> =
        state.heads.iter().map(|head| (head.tenant_id.clone(), head.frontier.size())).collect();
    assert_eq!(sizes, [(tenant("acme"), 2)]);
    assert_eq!(ok(store.tree_nodes(&tenant("acme"), 0, 0, 10).await).len(), 2);
    assert!(ok(store.tree_leaves(&tenant("bolt"), None, 10).await).is_empty());
    assert_eq!(ok(store.unsealed_batches(10).await).len(), 1);
    assert!(ok(store.append_epoch(&next_epoch(store).await).await), "it can be sealed all the same");
    assert_eq!(ok(store.audit_state().await).heads.len(), 2);
}

/// Dropped after any number of polls, an epoch is kept or not; the next one stands on what is there.
pub async fn a_dropped_epoch_is_kept_or_not(store: &Arc<dyn AuditStore>) {
    for polls in 0..POLLS_MAX {
        let own = format!("tenant-{polls}");
        ok(store.append_audit(&sealed(events(&own, 3))).await);
        let epoch = next_epoch(store).await;
        let done = Polled::new(store.append_epoch(&epoch), polls).await;
        // It may still be on its way; whichever comes first, there is one epoch more and nothing is left.
        let is_kept = persistently(store, &epoch).await;
        let state = ok(store.audit_state().await);
        assert_eq!(state.epoch.as_ref(), Some(&epoch.epoch), "dropped at poll {polls}");
        let record = ok(EpochRecord::parse(&epoch.epoch.record));
        assert_eq!(tenants_root(&state.heads), record.tenants_root, "dropped at poll {polls}");
        assert!(ok(store.unsealed_batches(10).await).is_empty(), "dropped at poll {polls}");
        assert_eq!(ok(store.tree_leaves(&tenant(&own), None, 10).await).len(), 3);
        if let Some(done) = done {
            assert!(ok(done) && !is_kept, "undisturbed, the epoch is not kept");
            return;
        }
    }
    panic!("append_epoch does not end within {POLLS_MAX} polls");
}

/// Ascending from a number on.
pub async fn epochs_come_from_a_number_on(store: &Arc<dyn AuditStore>) {
    assert!(ok(store.audit_epochs(0, 10).await).is_empty());
    assert_eq!(ok(store.audit_state().await).epoch, None);
    let mut expected = Vec::new();
    for second in 0..6 {
        expected.push(seal(store, vec![event("acme", second)]).await.epoch);
    }
    assert_eq!(ok(store.audit_epochs(0, 100).await), expected);
    assert_eq!(ok(store.audit_epochs(2, 3).await), expected[2..5]);
    assert!(ok(store.audit_epochs(6, 3).await).is_empty());
}

/// The latest epoch and the heads fit together, whoever seals meanwhile; heads come in the byte order of their tenants.
pub async fn the_state_is_one_snapshot(store: &Arc<dyn AuditStore>) {
    let sealer = tokio::spawn({
        let store = Arc::clone(store);
        async move {
            for second in 0..30 {
                let batch = vec![event("acme", second), event("Zeta", second), event("acme-2", second)];
                seal(&store, batch).await;
            }
        }
    });
    let mut is_last = false;
    while !is_last {
        is_last = sealer.is_finished();
        let state = ok(store.audit_state().await);
        if let Some(epoch) = state.epoch {
            let record = ok(EpochRecord::parse(&epoch.record));
            assert_eq!(
                tenants_root(&state.heads),
                record.tenants_root,
                "the heads are not those of epoch {}",
                epoch.number
            );
            assert!(state.heads.iter().all(|head| head.frontier.root() == head.root));
        }
        tokio::task::yield_now().await;
    }
    assert!(sealer.await.is_ok());
    let state = ok(store.audit_state().await);
    let tenants: Vec<&str> = state.heads.iter().map(|head| head.tenant_id.as_str()).collect();
    assert_eq!(tenants, ["Zeta", "acme", "acme-2"]);
}

/// Nodes of a level, ascending from a position on; those of complete subtrees are kept.
pub async fn nodes_come_by_level_and_position(store: &Arc<dyn AuditStore>) {
    let own: Vec<AuditEvent> = (0..300).map(|second| event("acme", 300 - second)).collect();
    seal(store, [own.clone(), events("bolt", 1)].concat()).await;
    let nodes = ok(store.tree_nodes(&tenant("acme"), 0, 295, 3).await);
    let positions: Vec<u64> = nodes.iter().map(|kept| kept.node.position).collect();
    assert_eq!(positions, [295, 296, 297]);
    for (kept, event) in nodes.iter().zip(&own[295..]) {
        assert_eq!((kept.event_id, kept.node.hash, kept.node.level), (Some(event.id()), ok(event.leaf()), 0));
    }
    assert_eq!(ok(store.tree_nodes(&tenant("acme"), 0, 298, 10).await).len(), 2);
    let upper = ok(store.tree_nodes(&tenant("acme"), 8, 0, 10).await);
    assert_eq!(upper.iter().map(|kept| kept.event_id).collect::<Vec<_>>(), [None], "one subtree of 256");
    assert!(ok(store.tree_nodes(&tenant("corp"), 0, 0, 10).await).is_empty());
}

/// Leaves in the order of their events, after one, or by their keys.
pub async fn leaves_come_by_event(store: &Arc<dyn AuditStore>) {
    let own: Vec<AuditEvent> = (0..20).map(|second| event("acme", 20 - second)).collect();
    seal(store, [own.clone(), events("bolt", 3)].concat()).await;
    let leaves = ok(store.tree_leaves(&tenant("acme"), None, 100).await);
    let told: Vec<(u64, EventId, Hash)> =
        leaves.iter().map(|leaf| (leaf.position, leaf.event_id, leaf.hash)).collect();
    let mut expected = Vec::new();
    for (position, event) in (0..).zip(&own) {
        expected.push((position, event.id(), ok(event.leaf())));
    }
    expected.reverse();
    assert_eq!(told, expected, "the oldest event first");
    assert_eq!(ok(store.tree_leaves(&tenant("acme"), None, 4).await), leaves[..4]);
    assert_eq!(ok(store.tree_leaves(&tenant("acme"), Some(leaves[3].event_id), 4).await), leaves[4..8]);
    let keys = [(tenant("acme"), own[7].id()), (tenant("bolt"), own[7].id()), (tenant("acme"), own[2].id())];
    let mut found = ok(store.tree_leaves_by_key(&keys).await);
    found.sort_by_key(|(_, leaf)| leaf.position);
    let expected = [leaves[17], leaves[12]].map(|leaf| (tenant("acme"), leaf));
    assert_eq!(found, expected);
    assert!(ok(store.tree_leaves_by_key(&[]).await).is_empty());
}

/// A record, a checkpoint or a root that is wrong is for a verifier to find.
pub async fn a_store_verifies_no_epoch(store: &Arc<dyn AuditStore>) {
    ok(store.append_audit(&sealed(events("acme", 2))).await);
    let mut strange = next_epoch(store).await;
    strange.epoch.record = vec![1, 2, 3];
    strange.epoch.checkpoint = format!("{} no checkpoint", label("x"));
    strange.heads[0].root = Hash::of(b"another");
    strange.nodes[0].kept.node.hash = Hash::of(b"another");
    assert!(ok(store.append_epoch(&strange).await));
    let state = ok(store.audit_state().await);
    assert_eq!((state.epoch, state.heads), (Some(strange.epoch), strange.heads));
    assert_eq!(ok(store.tree_nodes(&tenant("acme"), 0, 0, 1).await), [strange.nodes[0].kept]);
}

/// As a sealer does: what may pass is tried again.
async fn persistently(store: &Arc<dyn AuditStore>, epoch: &NewEpoch) -> bool {
    for _ in 0..100 {
        match store.append_epoch(epoch).await {
            Err(error) if error.is_transient() => {}
            told => return ok(told),
        }
    }
    panic!("append_epoch fails a hundred times");
}
