//! What the cases are made of.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::audit::{
    Actor, AuditEvent, AuditQuery, KbAudit, Ledger, NewEpoch, Origin, SealedBatch, WriterChain,
};
use crate::store::AuditStore;
use crate::text::Label;
use crate::time::{TIME_MIN, TimeRange};
use crate::usage::EventId;
use crate::{Result, TenantId};

pub(super) fn ok<T>(result: Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

pub(super) fn tenant(name: &str) -> TenantId {
    ok(TenantId::new(name))
}

pub(super) fn label(text: &str) -> Label {
    ok(Label::new("label", text))
}

pub(super) fn at(second: i64) -> DateTime<Utc> {
    TIME_MIN + TimeDelta::days(9_000) + TimeDelta::seconds(second)
}

/// An event of this second.
pub(super) fn event(tenant_id: &str, second: i64) -> AuditEvent {
    let record = KbAudit::ManualAdded { document: label("d"), bytes: 7 };
    ok(AuditEvent::new(tenant(tenant_id), at(second), ok(Actor::user("u")), &record))
}

/// Events of these many seconds.
pub(super) fn events(tenant_id: &str, count: i64) -> Vec<AuditEvent> {
    (0..count).map(|second| event(tenant_id, second)).collect()
}

/// The next batch of a chain, sealed at a second.
pub(super) fn sealed_at(chain: &mut WriterChain, events: Vec<AuditEvent>, second: i64) -> SealedBatch {
    let batch = ok(chain.seal(events, None, at(second)));
    chain.advance(&batch);
    batch
}

/// A chain that nothing was written in.
pub(super) fn new_chain() -> WriterChain {
    WriterChain::new(Origin::default())
}

/// A batch that is a chain of its own.
pub(super) fn sealed(events: Vec<AuditEvent>) -> SealedBatch {
    sealed_at(&mut new_chain(), events, 0)
}

/// The next epoch, over all batches that are not sealed.
pub(super) async fn next_epoch(store: &Arc<dyn AuditStore>) -> NewEpoch {
    let batches = ok(store.unsealed_batches(100).await);
    let ledger = ok(Ledger::open(ok(store.audit_state().await), &Origin::default(), &[]));
    ok(ledger.seal(&batches, &Origin::default(), None, at(1)))
}

/// Writes events in a batch of their own and seals them in an epoch of their own.
pub(super) async fn seal(store: &Arc<dyn AuditStore>, events: Vec<AuditEvent>) -> NewEpoch {
    ok(store.append_audit(&sealed(events)).await);
    let epoch = next_epoch(store).await;
    assert!(ok(store.append_epoch(&epoch).await), "the next epoch is not kept");
    epoch
}

/// A tenant's trail, newest first.
pub(super) async fn trail(store: &Arc<dyn AuditStore>, tenant_id: &str) -> Vec<AuditEvent> {
    ok(store.audit_trail(&AuditQuery::new(tenant(tenant_id), TimeRange::ALL)).await).items
}

/// The ids of a tenant's rows.
pub(super) async fn ids(store: &Arc<dyn AuditStore>, tenant_id: &str) -> Vec<EventId> {
    let rows = ok(store.audit_rows(&tenant(tenant_id), None, 10_000).await);
    rows.into_iter().map(|row| ok(row.event).id()).collect()
}
