//! A store that fails: nothing is lost, nothing is there twice, and the chain has no gap.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use metertrail::audit::{
    AuditEvent, AuditLog, AuditQuery, AuditSigningKey, AuditState, BatchRecord, KeptNode, NewEpoch, Origin,
    SealedBatch, StaticKeys, StoredEpoch, TreeLeaf, WriterChain, WriterId, prove,
};
use metertrail::store::{AuditRow, AuditStore, BatchAppended, KeyErased};
use metertrail::time::Clock;
use metertrail::{Error, ErrorKind, EventId, Label, Page, Result, TenantId};
use uuid::Uuid;

use super::{Bed, MINUTE, keep, keys, on_both_stores, tenant, uploaded};

on_both_stores! {
    a_lost_answer_counts_once,
    a_refused_event_stands_alone,
    a_chain_that_somebody_else_writes_is_left,
    what_no_writer_signed_is_not_sealed,
    a_process_without_keys_does_not_seal_a_signed_log,
}

/// What goes wrong with an append.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Nothing is done.
    Before,
    /// All is done, and the answer is lost.
    After,
    /// Nothing is done, and no answer comes.
    Hangs,
    /// Nothing is done: another batch is said to stand there.
    Conflicts,
}

#[derive(Clone, Debug)]
struct Flaky {
    store: Arc<dyn AuditStore>,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    /// Batches with an event of this id are refused for good.
    poison: Option<EventId>,
}

impl Flaky {
    fn log(&self, bed: &Bed) -> AuditLog {
        AuditLog::builder(self.clone())
            .clock(bed.clock.clone())
            .keys(keys())
            .seal_interval(None)
            .append_timeout(Duration::from_secs(2))
            .start()
            .unwrap()
    }
}

fn unavailable() -> Error {
    Error::new(ErrorKind::Unavailable, "injected")
}

#[async_trait]
impl AuditStore for Flaky {
    async fn append_audit(&self, batch: &SealedBatch) -> Result<BatchAppended> {
        if self.poison.is_some_and(|id| batch.events().iter().any(|event| event.id() == id)) {
            return Err(Error::new(ErrorKind::Store, "injected"));
        }
        let fault = self.faults.lock().unwrap().pop_front();
        match fault {
            Some(Fault::Before) => Err(unavailable()),
            Some(Fault::After) => {
                self.store.append_audit(batch).await?;
                Err(unavailable())
            }
            Some(Fault::Hangs) => std::future::pending().await,
            Some(Fault::Conflicts) => Ok(BatchAppended::Conflict),
            None => self.store.append_audit(batch).await,
        }
    }

    async fn audit_trail(&self, query: &AuditQuery) -> Result<Page<AuditEvent>> {
        self.store.audit_trail(query).await
    }

    async fn audit_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantId>> {
        self.store.audit_tenants(after, limit).await
    }

    async fn audit_rows(
        &self,
        tenant_id: &TenantId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        self.store.audit_rows(tenant_id, after, limit).await
    }

    async fn audit_rows_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<AuditRow>> {
        self.store.audit_rows_by_key(keys).await
    }

    async fn audit_batches(&self, after: Option<(WriterId, u64)>, limit: u32) -> Result<Vec<BatchRecord>> {
        self.store.audit_batches(after, limit).await
    }

    async fn unsealed_batches(&self, limit: u32) -> Result<Vec<BatchRecord>> {
        self.store.unsealed_batches(limit).await
    }

    async fn unsealed_among(&self, batches: &[(WriterId, u64)]) -> Result<Vec<(WriterId, u64)>> {
        self.store.unsealed_among(batches).await
    }

    async fn append_epoch(&self, epoch: &NewEpoch) -> Result<bool> {
        self.store.append_epoch(epoch).await
    }

    async fn audit_epochs(&self, from: u64, limit: u32) -> Result<Vec<StoredEpoch>> {
        self.store.audit_epochs(from, limit).await
    }

    async fn audit_state(&self) -> Result<AuditState> {
        self.store.audit_state().await
    }

    async fn tree_nodes(
        &self,
        tenant_id: &TenantId,
        level: u8,
        from: u64,
        limit: u32,
    ) -> Result<Vec<KeptNode>> {
        self.store.tree_nodes(tenant_id, level, from, limit).await
    }

    async fn tree_leaves(
        &self,
        tenant_id: &TenantId,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<TreeLeaf>> {
        self.store.tree_leaves(tenant_id, after, limit).await
    }

    async fn tree_leaves_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<(TenantId, TreeLeaf)>> {
        self.store.tree_leaves_by_key(keys).await
    }

    async fn subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<Option<Vec<u8>>> {
        self.store.subject_key(tenant_id, subject).await
    }

    async fn put_subject_key(&self, tenant_id: &TenantId, subject: &Label, key: &[u8]) -> Result<Vec<u8>> {
        self.store.put_subject_key(tenant_id, subject, key).await
    }

    async fn erase_subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<KeyErased> {
        self.store.erase_subject_key(tenant_id, subject).await
    }

    async fn set_legal_hold(
        &self,
        tenant_id: &TenantId,
        subject: Option<&Label>,
        reason: Option<&Label>,
    ) -> Result<()> {
        self.store.set_legal_hold(tenant_id, subject, reason).await
    }
}

fn flaky(bed: &Bed, faults: &[Fault], poison: Option<EventId>) -> Flaky {
    let faults = Arc::new(Mutex::new(faults.iter().copied().collect()));
    Flaky { store: Arc::clone(&bed.store), faults, poison }
}

async fn a_lost_answer_counts_once(bed: Bed) {
    use Fault::{After, Before, Hangs};
    let store = flaky(&bed, &[Before, After, After, Before, Hangs, After], None);
    let log = store.log(&bed);
    for round in 0..6 {
        let acks: Vec<_> = (0..5).map(|n| log.record(uploaded("acme", round * 10 + n))).collect();
        for ack in acks {
            ack.await.unwrap();
        }
    }
    assert!(store.faults.lock().unwrap().is_empty());
    let report = log.shutdown(MINUTE).await.unwrap();
    assert_eq!((report.written, report.rejected.len(), report.unwritten.len()), (30, 0, 0));
    log.seal_epoch().await.unwrap();
    let report = bed.verified().await;
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.events, 30);
    let batches = bed.store.audit_batches(None, 100).await.unwrap();
    let writers: std::collections::BTreeSet<WriterId> = batches.iter().map(|batch| batch.writer_id).collect();
    assert_eq!(writers.len(), 1);
}

async fn a_refused_event_stands_alone(bed: Bed) {
    let events: Vec<AuditEvent> = (0..9).map(|second| uploaded("acme", second)).collect();
    let store = flaky(&bed, &[Fault::Before, Fault::After], Some(events[4].id()));
    let log = store.log(&bed);
    let acks: Vec<_> = events.iter().map(|event| log.record(event.clone())).collect();
    let mut refused = Vec::new();
    for (ack, event) in acks.into_iter().zip(&events) {
        if ack.await.is_err() {
            refused.push(event.id());
        }
    }
    assert_eq!(refused, [events[4].id()]);
    let report = log.shutdown(MINUTE).await.unwrap();
    assert_eq!((report.written, report.rejected.len()), (8, 1));
    log.seal_epoch().await.unwrap();
    assert!(bed.verified().await.is_clean());
}

/// Two writers with one name, as a copied machine has them: the second one's batch meets another in its place.
async fn a_chain_that_somebody_else_writes_is_left(bed: Bed) {
    let chain = WriterChain::new(Origin::default());
    let key = super::writer_key();
    let now = bed.clock.now();
    let one = chain.seal(vec![uploaded("acme", 1)], Some(&key), now).unwrap();
    let other = chain.seal(vec![uploaded("acme", 2)], Some(&key), now).unwrap();
    assert_eq!(bed.store.append_audit(&one).await.unwrap(), BatchAppended::New);
    assert_eq!(bed.store.append_audit(&other).await.unwrap(), BatchAppended::Conflict);
    assert_eq!(bed.store.append_audit(&one).await.unwrap(), BatchAppended::Duplicate);
    assert!(bed.verified().await.is_clean());
}

/// With the store away, the shutdown hands over what it could not write, in order.
#[tokio::test]
async fn what_a_shutdown_could_not_write_is_handed_over() {
    let bed = Bed::memory();
    let store = flaky(&bed, &[Fault::Before; 1_000], None);
    let log = store.log(&bed);
    let events: Vec<AuditEvent> = (0..20).map(|second| uploaded("acme", second)).collect();
    let acks: Vec<_> = events.iter().map(|event| log.record(event.clone())).collect();
    let report = log.shutdown(Duration::from_millis(100)).await.unwrap();
    assert_eq!((report.unwritten, report.written), (events, 0));
    for ack in acks {
        assert_eq!(ack.await.unwrap_err().kind(), ErrorKind::ShutDown);
    }
}

/// The answer says that another batch stands there: the log goes on with a chain of its own, and keeps every event.
#[tokio::test]
async fn a_log_that_meets_another_batch_in_its_place_begins_a_new_chain() {
    let bed = Bed::memory();
    let store = flaky(&bed, &[Fault::Conflicts], None);
    let log = store.log(&bed);
    for second in 0..3 {
        log.record(uploaded("acme", second)).await.unwrap();
    }
    log.seal_epoch().await.unwrap();
    let report = bed.verified().await;
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.events, report.batches), (3, 3));
}

/// A batch that no writer signed, put in by SQL with its marker, is left alone by an honest sealer, which goes on with the rest.
async fn what_no_writer_signed_is_not_sealed(bed: Bed) {
    let stranger = AuditLog::builder(Arc::clone(&bed.store))
        .clock(bed.clock.clone())
        .keys(StaticKeys::new().writer(AuditSigningKey::from_seed("example.org/stranger", [9; 32]).unwrap()))
        .seal_interval(None)
        .start()
        .unwrap();
    keep(&stranger, &[vec![uploaded("acme", 1)]]).await;
    let log = bed.log();
    keep(&log, &[vec![uploaded("acme", 2)]]).await;
    let checkpoint = log.seal_epoch().await.unwrap().expect("the signed batch is sealed");
    assert_eq!(checkpoint.size(), 1);
    assert!(log.health().seal_error.is_some(), "nobody is told of the batch that is left");
    bed.clock.advance(60 * MINUTE);
    let trail = log.tenant_audit_trail(&tenant("acme"), 1).await.unwrap();
    let mut proven = Vec::new();
    for event in &trail {
        proven.push(prove(&bed.store, &event.tenant_id, event.id()).await.unwrap().is_some());
    }
    proven.sort_unstable();
    assert_eq!(proven, [false, true]);
    // A log that knows the stranger seals its batch.
    let known = AuditSigningKey::from_seed("example.org/stranger", [9; 32]).unwrap().verifying_key();
    let knowing = bed.builder().keys(keys().other_writer(known)).start().unwrap();
    assert!(knowing.seal_epoch().await.unwrap().is_some());
    assert!(knowing.health().seal_error.is_none());
}

/// A process that has no keys reads and writes beside those that have them; it does not seal in their place.
async fn a_process_without_keys_does_not_seal_a_signed_log(bed: Bed) {
    let log = bed.log();
    keep(&log, &[vec![uploaded("acme", 1)]]).await;
    log.seal_epoch().await.unwrap().unwrap();
    keep(&log, &[vec![uploaded("acme", 2)]]).await;
    let keyless = AuditLog::builder(Arc::clone(&bed.store))
        .clock(bed.clock.clone())
        .seal_interval(None)
        .start()
        .unwrap();
    assert!(keyless.seal_epoch().await.unwrap().is_none());
    assert!(log.seal_epoch().await.unwrap().is_some(), "the log cannot be gone on with");
    let report = bed.verified().await;
    assert!(report.is_clean(), "{report:?}");
}
