//! The contract of [`AuditStore`] as cases. Each takes an **empty** store; [`all`] runs them one after the other.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::audit::{
    Actor, AuditEvent, AuditQuery, BatchRecord, KbAudit, Ledger, NewEpoch, Origin, SealedBatch, WriterChain,
};
use crate::page::PageSize;
use crate::store::{AuditStore, BatchAppended, KeyErased};
use crate::text::Label;
use crate::time::{TIME_MIN, TimeRange};
use crate::usage::EventId;
use crate::{ErrorKind, TenantId};

/// Runs every case, each on a store of its own.
pub async fn all<S: AuditStore>(mut empty_store: impl AsyncFnMut() -> S) {
    a_batch_is_kept_once(&empty_store().await).await;
    a_batch_is_all_or_nothing(&empty_store().await).await;
    a_trail_is_paged(&empty_store().await).await;
    reads_are_ordered_and_bounded(&empty_store().await).await;
    an_epoch_is_kept_once(&empty_store().await).await;
    trees_are_read_back(&empty_store().await).await;
    the_first_key_of_a_person_stays(Arc::new(empty_store().await)).await;
    a_hold_keeps_keys(&empty_store().await).await;
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap_or_else(|error| panic!("{error}"))
}

fn label(text: &str) -> Label {
    Label::new("label", text).unwrap_or_else(|error| panic!("{error}"))
}

fn at(second: i64) -> DateTime<Utc> {
    TIME_MIN + TimeDelta::days(9_000) + TimeDelta::seconds(second)
}

fn event(tenant_id: &str, second: i64) -> AuditEvent {
    let record = KbAudit::ManualAdded { document: label("d"), bytes: 7 };
    let actor = ok(Actor::user("u"));
    ok(AuditEvent::new(tenant(tenant_id), at(second), actor, &record))
}

fn ok<T>(result: crate::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

fn sealed(chain: &mut WriterChain, events: Vec<AuditEvent>) -> SealedBatch {
    let batch = ok(chain.seal(events, None, at(0)));
    chain.advance(&batch);
    batch
}

async fn epoch_of(store: &impl AuditStore) -> NewEpoch {
    let batches = ok(store.unsealed_batches(100).await);
    let ledger = ok(Ledger::open(ok(store.audit_state().await), &Origin::default(), &[]));
    ok(ledger.seal(&batches, &Origin::default(), None, at(1)))
}

/// Clause 3: a batch is kept once under (writer, sequence), and no other one.
pub async fn a_batch_is_kept_once(store: &impl AuditStore) {
    let mut chain = WriterChain::new(Origin::default());
    let other = ok(chain.seal(vec![event("acme", 9)], None, at(0)));
    let batch = sealed(&mut chain, vec![event("acme", 1), event("bolt", 2)]);
    assert_eq!(ok(store.append_audit(&batch).await), BatchAppended::New);
    assert_eq!(ok(store.append_audit(&batch).await), BatchAppended::Duplicate);
    assert_eq!(ok(store.append_audit(&other).await), BatchAppended::Conflict);
    assert_eq!(ok(store.audit_batches(None, 10).await), [batch.record().clone()]);
    let kept = ok(store.audit_rows(&tenant("acme"), None, 10).await);
    assert_eq!(kept.len(), 1, "a batch that conflicts leaves nothing");
    let read = kept.into_iter().next().map(|row| ok(row.event));
    assert_eq!(read.map(|event| ok(event.leaf())), Some(ok(batch.events()[0].leaf())), "clause 5: faithful");
}

/// Clause 1: an event whose id is taken leaves nothing of its batch.
pub async fn a_batch_is_all_or_nothing(store: &impl AuditStore) {
    let taken = event("acme", 1);
    ok(store.append_audit(&sealed(&mut WriterChain::new(Origin::default()), vec![taken.clone()])).await);
    let batch =
        sealed(&mut WriterChain::new(Origin::default()), vec![event("acme", 2), taken, event("bolt", 3)]);
    let error = store.append_audit(&batch).await.err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::Conflict));
    assert_eq!(ok(store.audit_tenants(None, 10).await), [tenant("acme")]);
    assert_eq!(ok(store.audit_rows(&tenant("acme"), None, 10).await).len(), 1);
    assert_eq!(ok(store.audit_batches(None, 10).await).len(), 1);
    assert_eq!(ok(store.unsealed_batches(10).await).len(), 1);
}

/// Clause 6, and the order of a trail.
pub async fn a_trail_is_paged(store: &impl AuditStore) {
    let events: Vec<AuditEvent> = (0..7).map(|second| event("acme", second)).collect();
    ok(store.append_audit(&sealed(&mut WriterChain::new(Origin::default()), events.clone())).await);
    let mut query = AuditQuery::new(tenant("acme"), TimeRange::ALL).page_size(ok(PageSize::new(3)));
    let mut seen = Vec::new();
    loop {
        let page = ok(store.audit_trail(&query).await);
        seen.extend(page.items);
        match page.next {
            Some(next) => query = query.after(next),
            None => break,
        }
    }
    seen.reverse();
    assert_eq!(seen, events);
    let foreign = store.audit_trail(&query.security()).await;
    assert_eq!(foreign.err().and_then(|error| error.field().map(str::to_owned)).as_deref(), Some("cursor"));
}

/// Clause 8, and the orders that reads promise.
pub async fn reads_are_ordered_and_bounded(store: &impl AuditStore) {
    let mut chains = [WriterChain::new(Origin::default()), WriterChain::new(Origin::default())];
    for second in 0..6 {
        let chain = &mut chains[usize::from(second % 2 == 0)];
        let batch = sealed(
            chain,
            vec![event("acme", 10 - second), event(["bolt", "corp"][usize::from(second > 2)], second)],
        );
        ok(store.append_audit(&batch).await);
    }
    assert_eq!(ok(store.audit_tenants(Some(&tenant("acme")), 1).await), [tenant("bolt")]);
    let rows = ok(store.audit_rows(&tenant("acme"), None, 4).await);
    assert_eq!(rows.len(), 4);
    assert!(rows.is_sorted_by_key(|row| row.id));
    let rest = ok(store.audit_rows(&tenant("acme"), rows.last().map(|row| row.id), 4).await);
    assert_eq!(rest.len(), 2);
    let key = |batch: &BatchRecord| (batch.writer_id, batch.sequence);
    let batches = ok(store.audit_batches(None, 4).await);
    assert!(batches.len() == 4 && batches.is_sorted_by_key(key));
    assert_eq!(ok(store.audit_batches(batches.last().map(key), 4).await).len(), 2);
    let unsealed = ok(store.unsealed_batches(6).await);
    for chain in &chains {
        let own = unsealed.iter().filter(|batch| batch.writer_id == chain.writer_id());
        let sequences: Vec<u64> = own.map(|batch| batch.sequence).collect();
        assert_eq!(sequences, [0, 1, 2], "the order of a chain, without gaps");
    }
    let keys = [(tenant("acme"), EventId::bound(rows[0].id)), (tenant("bolt"), EventId::bound(rows[0].id))];
    assert_eq!(ok(store.audit_rows_by_key(&keys).await).len(), 1, "an id of one tenant is none of another");
}

/// Clause 3: of two sealers at once one is refused, and nothing of its epoch is kept.
pub async fn an_epoch_is_kept_once(store: &impl AuditStore) {
    let mut chain = WriterChain::new(Origin::default());
    ok(store.append_audit(&sealed(&mut chain, vec![event("acme", 1)])).await);
    let (one, other) = (epoch_of(store).await, epoch_of(store).await);
    assert!(ok(store.append_epoch(&one).await));
    assert!(!ok(store.append_epoch(&other).await), "its number is taken");
    assert!(ok(store.unsealed_batches(10).await).is_empty());
    ok(store.append_audit(&sealed(&mut chain, vec![event("acme", 2)])).await);
    let next = epoch_of(store).await;
    let mut stale = next.clone();
    stale.batches.extend(one.batches.iter().copied());
    assert!(!ok(store.append_epoch(&stale).await), "one of its batches is sealed already");
    assert_eq!(ok(store.audit_epochs(0, 10).await), std::slice::from_ref(&one.epoch));
    assert!(ok(store.append_epoch(&next).await));
    assert_eq!(ok(store.audit_epochs(1, 10).await), std::slice::from_ref(&next.epoch));
    assert_eq!(ok(store.audit_state().await).epoch, Some(next.epoch));
}

/// Nodes by place, leaves by event.
pub async fn trees_are_read_back(store: &impl AuditStore) {
    let events: Vec<AuditEvent> = (0..300).map(|second| event("acme", 300 - second)).collect();
    ok(store
        .append_audit(&sealed(
            &mut WriterChain::new(Origin::default()),
            [events.clone(), vec![event("bolt", 1)]].concat(),
        ))
        .await);
    assert!(ok(store.append_epoch(&epoch_of(store).await).await));
    let state = ok(store.audit_state().await);
    let heads: Vec<&TenantId> = state.heads.iter().map(|head| &head.tenant_id).collect();
    assert_eq!(heads, [&tenant("acme"), &tenant("bolt")]);
    assert!(state.heads.iter().all(|head| head.frontier.root() == head.root));
    let nodes = ok(store.tree_nodes(&tenant("acme"), 0, 298, 10).await);
    let positions: Vec<u64> = nodes.iter().map(|kept| kept.node.position).collect();
    assert_eq!(positions, [298, 299]);
    assert_eq!(nodes[1].event_id, Some(events[299].id()));
    assert_eq!(ok(store.tree_nodes(&tenant("acme"), 8, 0, 10).await).len(), 1, "one complete subtree of 256");
    let leaves = ok(store.tree_leaves(&tenant("acme"), None, 2).await);
    assert_eq!(leaves[0].event_id, events[299].id(), "in the order of events, the oldest first");
    let rest = ok(store.tree_leaves(&tenant("acme"), Some(leaves[1].event_id), 1_000).await);
    assert!(rest.len() == 298 && rest.is_sorted_by_key(|leaf| leaf.event_id));
    let key = (tenant("acme"), events[7].id());
    let found = ok(store.tree_leaves_by_key(&[key, (tenant("bolt"), events[7].id())]).await);
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].1.position, found[0].1.hash), (7, ok(events[7].leaf())));
}

/// Of many callers at once all are given the same key.
pub async fn the_first_key_of_a_person_stays(store: Arc<impl AuditStore>) {
    let (acme, subject) = (tenant("acme"), label("p"));
    assert_eq!(ok(store.subject_key(&acme, &subject).await), None);
    let puts = (0..8_u8).map(|n| {
        let (store, acme, subject) = (Arc::clone(&store), acme.clone(), subject.clone());
        async move { ok(store.put_subject_key(&acme, &subject, &[n; 33]).await) }
    });
    let kept: BTreeSet<Vec<u8>> = futures_util::future::join_all(puts).await.into_iter().collect();
    assert_eq!(kept.len(), 1);
    assert_eq!(ok(store.subject_key(&acme, &subject).await), kept.into_iter().next());
    assert_eq!(ok(store.subject_key(&tenant("bolt"), &subject).await), None);
}

/// A hold on the person or on everybody forbids; released, it forbids no more.
pub async fn a_hold_keeps_keys(store: &impl AuditStore) {
    let (acme, subject, reason) = (tenant("acme"), label("p"), label("case 7"));
    assert_eq!(ok(store.erase_subject_key(&acme, &subject).await), KeyErased::Absent);
    let key = ok(store.put_subject_key(&acme, &subject, &[1; 33]).await);
    for held in [Some(&subject), None] {
        ok(store.set_legal_hold(&acme, held, Some(&reason)).await);
        assert_eq!(ok(store.erase_subject_key(&acme, &subject).await), KeyErased::Held(reason.clone()));
        assert_eq!(ok(store.subject_key(&acme, &subject).await), Some(key.clone()));
        assert_eq!(ok(store.erase_subject_key(&tenant("bolt"), &subject).await), KeyErased::Absent);
        ok(store.set_legal_hold(&acme, held, None).await);
    }
    assert_eq!(ok(store.erase_subject_key(&acme, &subject).await), KeyErased::Erased);
    assert_eq!(ok(store.subject_key(&acme, &subject).await), None);
}
