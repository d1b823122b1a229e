//! A store that fails: nothing is lost, nothing is there twice, and the chain has no gap.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use metertrail::audit::{
    AuditEvent, AuditLog, AuditSigningKey, Origin, SealedBatch, StaticKeys, WriterChain, WriterId, prove,
};
use metertrail::store::{AuditStore, BatchAppended};
use metertrail::testing::{Call, Fault, FaultyStore, Method, SpyStore, delegate_audit_store};
use metertrail::time::Clock;
use metertrail::{Error, ErrorKind, Result};

use super::{Bed, MINUTE, keep, keys, on_both_stores, tenant, uploaded};

on_both_stores! {
    a_lost_answer_counts_once,
    an_acknowledgement_waits_for_an_answer_that_was_lost,
    faults_by_chance_lose_and_double_nothing,
    a_lost_answer_to_an_epoch_seals_once,
    a_refused_event_stands_alone,
    a_chain_that_somebody_else_writes_is_left,
    what_no_writer_signed_is_not_sealed,
    a_process_without_keys_does_not_seal_a_signed_log,
}

fn faulty(bed: &Bed) -> FaultyStore<dyn AuditStore> {
    FaultyStore::from_arc(Arc::clone(&bed.store))
}

fn log_on(store: impl AuditStore, bed: &Bed) -> AuditLog {
    AuditLog::builder(store)
        .clock(bed.clock.clone())
        .keys(keys())
        .seal_interval(None)
        .append_timeout(Duration::from_secs(2))
        .start()
        .unwrap()
}

async fn a_lost_answer_counts_once(bed: Bed) {
    let store = faulty(&bed);
    let (before, after) = (Fault::unavailable, Fault::lost_answer);
    store.script(Method::AppendAudit, [before(), after(), after(), before(), Fault::Hang, Fault::HangAfter]);
    let log = log_on(store.clone(), &bed);
    for round in 0..6 {
        let acks: Vec<_> = (0..5).map(|n| log.record(uploaded("acme", round * 10 + n))).collect();
        for ack in acks {
            ack.await.unwrap();
        }
    }
    assert_eq!(store.injected(), 6);
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

/// Nobody is told anything while the fate of a batch is open; then each is told once, and the batch is the same to the byte.
async fn an_acknowledgement_waits_for_an_answer_that_was_lost(bed: Bed) {
    let store = faulty(&bed);
    let spy = SpyStore::new(store.clone());
    store.always(Method::AppendAudit, Fault::lost_answer());
    let log = log_on(spy.clone(), &bed);
    let mut acks: Vec<_> = (0..5).map(|second| log.record(uploaded("acme", second)).into_future()).collect();
    spy.begun(Method::AppendAudit, 1, MINUTE).await.unwrap();
    spy.ended(Method::AppendAudit, 3, MINUTE).await.unwrap();
    for ack in &mut acks {
        let early = futures_util::FutureExt::now_or_never(ack);
        assert!(early.is_none(), "told before the answer: {early:?}");
    }
    // They are kept all the same, from the first attempt on.
    assert_eq!(bed.store.audit_rows(&tenant("acme"), None, 10).await.unwrap().len(), 5);
    store.heal();
    for ack in acks {
        ack.await.unwrap();
    }
    let record = |call| match call {
        Call::AppendAudit(record, events) => Some((record, events)),
        _ => None,
    };
    let records: Vec<_> = spy.calls().into_iter().filter_map(record).collect();
    assert!(records.len() > 3 && records.windows(2).all(|pair| pair[0] == pair[1]), "{records:?}");
    assert!(log.health().retries >= 3);
    assert_eq!((log.health().written, log.health().batches), (5, 1));
    log.seal_epoch().await.unwrap();
    assert!(bed.verified().await.is_clean());
}

/// Errors, lost answers and delays at random, on every method: each event is there once, in one chain.
async fn faults_by_chance_lose_and_double_nothing(bed: Bed) {
    let mut dice = crate::ledger::Dice::printed("audit, faults by chance");
    let store = faulty(&bed);
    let delay = Fault::Delay(Duration::from_millis(1));
    store.by_chance(dice.roll(), [(Fault::unavailable(), 200), (Fault::lost_answer(), 200), (delay, 100)]);
    let log = log_on(store.clone(), &bed);
    let mut written = Vec::new();
    for round in 0..20 {
        let events: Vec<AuditEvent> = (0..10).map(|n| uploaded("acme", round * 10 + n)).collect();
        written.extend(events.iter().map(AuditEvent::id));
        keep(&log, &[events]).await;
        // Sealing meets the faults, too, and goes on where it was.
        let _ = log.seal_epoch().await;
    }
    assert!(store.injected() > 0);
    store.heal();
    log.seal_epoch().await.unwrap();
    let report = bed.verified().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.events, 200);
    let rows = bed.store.audit_rows(&tenant("acme"), None, 1_000).await.unwrap();
    assert_eq!(rows.iter().map(|row| row.id).collect::<Vec<_>>(), {
        written.sort_unstable();
        written.iter().map(|id| id.as_uuid()).collect::<Vec<_>>()
    });
    let batches = bed.store.audit_batches(None, 1_000).await.unwrap();
    let writers: std::collections::BTreeSet<WriterId> = batches.iter().map(|batch| batch.writer_id).collect();
    assert_eq!(writers.len(), 1, "a fault is no reason to begin a chain");
}

/// The epoch was kept, and the sealer does not know: it finds nothing left to seal, and the next one goes behind.
async fn a_lost_answer_to_an_epoch_seals_once(bed: Bed) {
    let store = faulty(&bed);
    let log = log_on(store.clone(), &bed);
    keep(&log, &[vec![uploaded("acme", 1)]]).await;
    store.script(Method::AppendEpoch, [Fault::lost_answer()]);
    assert!(log.seal_epoch().await.unwrap_err().is_transient());
    assert!(log.health().seal_error.is_some());
    assert_eq!(log.seal_epoch().await.unwrap(), None);
    assert!(log.health().seal_error.is_none());
    keep(&log, &[vec![uploaded("acme", 2)]]).await;
    assert_eq!(log.seal_epoch().await.unwrap().unwrap().size(), 2);
    let report = bed.verified().await;
    assert!(report.is_clean(), "{report:?}");
    assert_eq!((report.events, report.epochs), (2, 2));
}

async fn a_refused_event_stands_alone(bed: Bed) {
    let events: Vec<AuditEvent> = (0..9).map(|second| uploaded("acme", second)).collect();
    let (store, poison) = (faulty(&bed), events[4].id());
    store.script(Method::AppendAudit, [Fault::unavailable(), Fault::lost_answer()]);
    store.poison_audit(move |event| event.id() == poison, Error::new(ErrorKind::Store, "injected"));
    let log = log_on(store, &bed);
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

/// A store that says once that another batch stands in the place of the one that it is given.
#[derive(Debug)]
struct Occupied {
    store: Arc<dyn AuditStore>,
    has_told: AtomicBool,
}

#[async_trait]
impl AuditStore for Occupied {
    async fn append_audit(&self, batch: &SealedBatch) -> Result<BatchAppended> {
        if self.has_told.swap(true, Ordering::Relaxed) {
            self.store.append_audit(batch).await
        } else {
            Ok(BatchAppended::Conflict)
        }
    }

    delegate_audit_store!(|occupied| occupied.store, except append_audit);
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
    let store = faulty(&bed);
    store.always(Method::AppendAudit, Fault::unavailable());
    let log = log_on(store, &bed);
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
    let log = log_on(Occupied { store: Arc::clone(&bed.store), has_told: AtomicBool::new(false) }, &bed);
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
