//! Verification that goes on from a former one, and what is not sealed yet.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use metertrail::audit::{
    AuditEvent, AuditLog, Checkpoint, Origin, SealedBatch, VerifiedState, VerifyReport, VerifyScope,
    WriterChain,
};
use metertrail::store::AuditTables;
use metertrail::testing::tamper;
use metertrail::time::Clock;

use super::{Bed, codes, keep, keys, on_both_stores, uploaded, writer_key};
use crate::ledger;

on_both_stores! {
    what_came_since_is_looked_at,
    a_leaf_that_no_batch_lists,
    a_batch_that_was_deleted_since,
    a_batch_that_committed_late,
    a_batch_that_was_hidden_after_it_was_seen,
    a_tree_that_does_not_go_on,
    a_batch_that_waits_is_not_accused,
    batches_that_were_dated_before,
    a_leaf_that_was_taken_for_another_event,
    a_recent_batch_that_was_deleted_since,
    a_leaf_that_was_planted_ahead,
}

const HOUR: Duration = Duration::from_secs(3_600);

/// A trail of four events in two batches and one epoch, an hour old, and what a full verification of it has seen.
async fn seen(bed: &Bed) -> (AuditLog, VerifiedState) {
    let log = bed.log();
    keep(
        &log,
        &[vec![uploaded("acme", 0), uploaded("bolt", 1)], vec![uploaded("acme", 2), uploaded("acme", 3)]],
    )
    .await;
    log.seal_epoch().await.unwrap();
    bed.clock.advance(HOUR);
    let state = bed.verified().await.state.unwrap();
    (log, VerifiedState::from_json(&state.to_json().unwrap()).unwrap())
}

async fn since(bed: &Bed, state: &VerifiedState) -> VerifyReport {
    bed.verifier().incremental(bed.clock.now(), state).await.unwrap()
}

/// A batch of one event that the usual writer sealed at another time than now.
fn sealed_at(at: DateTime<Utc>, event: AuditEvent) -> SealedBatch {
    WriterChain::new(Origin::default()).seal(vec![event], Some(&writer_key()), at).unwrap()
}

async fn touch(bed: &Bed, sql: &str, hand: impl FnOnce(&mut AuditTables)) {
    match (&bed.database, &bed.memory) {
        (Some(database), _) => {
            let client = ledger::client(database.url()).await;
            client.batch_execute(&format!("SET session_replication_role = replica; {sql}")).await.unwrap();
        }
        (None, Some(memory)) => tamper(memory, hand),
        (None, None) => unreachable!(),
    }
}

/// Seconds after noon at which something happens an hour later.
const LATER: i64 = 3_600;

async fn what_came_since_is_looked_at(bed: Bed) {
    let (log, state) = seen(&bed).await;
    keep(&log, &[vec![uploaded("acme", LATER), uploaded("corp", LATER)]]).await;
    log.seal_epoch().await.unwrap();
    let report = since(&bed, &state).await;
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.scope, report.batches, report.events), (VerifyScope::Incremental, 3, 2));
    // From state to state, with nothing sealed between.
    let next = since(&bed, &report.state.unwrap()).await;
    assert!(next.is_clean() && next.events <= 2, "{next:?}");
    let edited = uploaded("corp", LATER).id();
    let sql = "UPDATE metertrail.audit_events SET action = 'forged' WHERE tenant_id = 'corp'";
    touch(&bed, sql, |tables| {
        let event = tables.events.values_mut().find(|event| event.tenant_id.as_str() == "corp").unwrap();
        event.action = super::label("forged");
    })
    .await;
    let report = since(&bed, &state).await;
    assert_eq!((codes(&report), report.scope), (vec!["edited"], VerifyScope::Incremental), "{edited}");
    // What it has looked at before, it does not look at again: a full one does.
    let sql = "UPDATE metertrail.audit_events SET action = 'forged' WHERE tenant_id = 'bolt'";
    touch(&bed, sql, |tables| {
        let event = tables.events.values_mut().find(|event| event.tenant_id.as_str() == "bolt").unwrap();
        event.action = super::label("forged");
    })
    .await;
    assert_eq!(since(&bed, &state).await.findings.len(), 1);
    assert_eq!(bed.verified().await.findings.len(), 2);
}

/// A forged batch that an honest sealer without the writers' keys has sealed, and that is then taken away.
async fn a_leaf_that_no_batch_lists(bed: Bed) {
    let (log, state) = seen(&bed).await;
    log.record(uploaded("acme", LATER)).await.unwrap();
    log.seal_epoch().await.unwrap();
    let batches = bed.store.audit_batches(None, 10).await.unwrap();
    let newest = batches.iter().max_by_key(|batch| batch.open().unwrap().0.sealed_at).unwrap();
    let key = (newest.writer_id, newest.sequence);
    let sql = format!(
        "DELETE FROM metertrail.audit_batches WHERE writer_id = '{}' AND sequence = {}",
        key.0, key.1
    );
    touch(&bed, &sql, |tables| drop(tables.batches.remove(&key).unwrap())).await;
    let report = since(&bed, &state).await;
    assert_eq!((codes(&report), report.scope), (vec!["unattested"], VerifyScope::Incremental));
}

/// A chain of one, which nobody's signature speaks of but the epoch's: the former verification has seen it.
async fn a_batch_that_was_deleted_since(bed: Bed) {
    let own = sealed_at(bed.clock.now(), uploaded("corp", 4));
    bed.store.append_audit(&own).await.unwrap();
    let (_log, state) = seen(&bed).await;
    let record = own.record();
    let sql = format!("DELETE FROM metertrail.audit_batches WHERE writer_id = '{}'", record.writer_id);
    touch(&bed, &sql, |tables| drop(tables.batches.remove(&(record.writer_id, 0)).unwrap())).await;
    let report = since(&bed, &state).await;
    assert_eq!((codes(&report), report.scope), (vec!["unattested"], VerifyScope::Full));
}

/// A transaction of half an hour: no accusation, and nothing that is not looked at.
async fn a_batch_that_committed_late(bed: Bed) {
    let (log, state) = seen(&bed).await;
    let late = sealed_at(bed.clock.now() - TimeDelta::minutes(30), uploaded("corp", LATER - 1_800));
    bed.store.append_audit(&late).await.unwrap();
    let report = since(&bed, &state).await;
    assert_eq!((codes(&report), report.scope, report.unsealed), (vec![], VerifyScope::Full, 1));
    log.seal_epoch().await.unwrap();
    let report = since(&bed, &report.state.unwrap()).await;
    assert_eq!((codes(&report), report.scope, report.unsealed), (vec![], VerifyScope::Incremental, 0));
    let sql = "UPDATE metertrail.audit_events SET action = 'forged' WHERE tenant_id = 'corp'";
    touch(&bed, sql, |tables| {
        let event = tables.events.values_mut().find(|event| event.tenant_id.as_str() == "corp").unwrap();
        event.action = super::label("forged");
    })
    .await;
    assert_eq!(codes(&since(&bed, &state).await), ["edited"]);
}

async fn a_batch_that_was_hidden_after_it_was_seen(bed: Bed) {
    let (_log, state) = seen(&bed).await;
    let waiting = sealed_at(bed.clock.now() - TimeDelta::minutes(20), uploaded("corp", LATER - 1_200));
    bed.store.append_audit(&waiting).await.unwrap();
    let state = since(&bed, &state).await.state.unwrap();
    let state = VerifiedState::from_json(&state.to_json().unwrap()).unwrap();
    touch(&bed, "DELETE FROM metertrail.audit_unsealed", |tables| tables.unsealed.clear()).await;
    bed.clock.advance(HOUR);
    let report = since(&bed, &state).await;
    assert_eq!((codes(&report), report.scope), (vec!["stale"], VerifyScope::Incremental));
}

/// Whoever has every key writes another history of a tenant and goes on with the log: who has kept a state knows better,
/// also where everything is looked at again.
async fn a_tree_that_does_not_go_on(bed: Bed) {
    let (_log, state) = seen(&bed).await;
    let tables =
        ["audit_events", "audit_batches", "audit_unsealed", "audit_epochs", "audit_heads", "audit_tree"];
    let sql = tables.map(|table| format!("DELETE FROM metertrail.{table};")).concat();
    touch(&bed, &sql, |tables| *tables = AuditTables::default()).await;
    let log = bed.builder().keys(keys()).start().unwrap();
    keep(
        &log,
        &[(0..5).map(|second| uploaded("acme", LATER + second)).collect(), vec![uploaded("bolt", LATER)]],
    )
    .await;
    let forged: Checkpoint = log.seal_epoch().await.unwrap().unwrap();
    assert_eq!(forged.size(), state.checkpoint().unwrap().size());
    let report = since(&bed, &state).await;
    assert_eq!((codes(&report), report.scope), (vec!["log_rewritten", "tree_altered"], VerifyScope::Full));
}

async fn a_batch_that_waits_is_not_accused(bed: Bed) {
    let (_log, _) = seen(&bed).await;
    let batch = sealed_at(bed.clock.now() - TimeDelta::minutes(59), uploaded("acme", 60));
    bed.store.append_audit(&batch).await.unwrap();
    let report = bed.verified().await;
    assert_eq!((codes(&report), report.unsealed), (vec![], 1));
    bed.clock.advance(Duration::from_secs(120));
    assert_eq!(codes(&bed.verified().await), ["stale"]);
    let patient = bed.verifier().stale_after(2 * HOUR).full(bed.clock.now()).await.unwrap();
    assert!(patient.is_clean());
    // Of a clock that is ahead: it waits, and no longer, then it is accused.
    let ahead = sealed_at(bed.clock.now() + TimeDelta::days(300), uploaded("acme", 61));
    bed.store.append_audit(&ahead).await.unwrap();
    assert_eq!(bed.verified().await.findings.len(), 1);
    touch(&bed, "DELETE FROM metertrail.audit_unsealed", |tables| tables.unsealed.clear()).await;
    assert_eq!(bed.verified().await.findings.len(), 2);
}

/// The first scope of a verification that batches were added behind is not enough.
async fn batches_that_were_dated_before(bed: Bed) {
    let (log, state) = seen(&bed).await;
    let stranger = metertrail::audit::AuditSigningKey::generate("example.org/writer").unwrap();
    let chain = WriterChain::new(Origin::default());
    let then = bed.clock.now() - TimeDelta::minutes(45);
    let forged = chain.seal(vec![uploaded("acme", 900)], Some(&stranger), then).unwrap();
    bed.store.append_audit(&forged).await.unwrap();
    let report = since(&bed, &state).await;
    assert_eq!((codes(&report), report.scope), (vec!["batch_forged"], VerifyScope::Full));
    drop(log);
}

/// A place of the tree that is not read again, given to an event that nobody sealed.
async fn a_leaf_that_was_taken_for_another_event(bed: Bed) {
    let (_log, state) = seen(&bed).await;
    let forged = uploaded("acme", LATER);
    let (id, at) = (forged.id(), forged.occurred_at().to_rfc3339());
    let sql = format!(
        "INSERT INTO metertrail.audit_events (tenant_id, id, \"timestamp\", event_type, action, result)
        VALUES ('acme', '{id}', '{at}', 'kb.deleted', 'deleted', 'success')"
    );
    touch(&bed, &sql, |tables| drop(tables.events.insert((forged.tenant_id.clone(), id), forged.clone())))
        .await;
    let row = bed.store.audit_rows_by_key(&[(forged.tenant_id.clone(), id)]).await.unwrap().remove(0);
    let hash = row.event.unwrap().leaf().unwrap();
    let sql = format!(
        "UPDATE metertrail.audit_tree SET event_id = '{id}', hash = '\\x{hash}'
        WHERE tenant_id = 'acme' AND level = 0 AND position = 0"
    );
    touch(&bed, &sql, |tables| {
        let acme = forged.tenant_id.clone();
        let (_, old) = tables.nodes.insert((acme.clone(), 0, 0), (hash, Some(id))).unwrap();
        tables.leaves.remove(&(acme.clone(), old.unwrap()));
        tables.leaves.insert((acme, id), metertrail::audit::TreeLeaf { position: 0, hash, event_id: id });
    })
    .await;
    let report = since(&bed, &state).await;
    assert_eq!((codes(&report), report.scope), (vec!["forged"], VerifyScope::Incremental));
    assert!(report.findings[0].to_string().contains(&id.to_string()));
}

/// Minutes before the former verification, so that it had not come to rest then: one that was sealed, and one that was not.
async fn a_recent_batch_that_was_deleted_since(bed: Bed) {
    let (log, _) = seen(&bed).await;
    let own = sealed_at(bed.clock.now(), uploaded("corp", LATER));
    bed.store.append_audit(&own).await.unwrap();
    log.seal_epoch().await.unwrap();
    let waiting = sealed_at(bed.clock.now(), uploaded("corp", LATER + 1));
    bed.store.append_audit(&waiting).await.unwrap();
    let state = bed.verified().await.state.unwrap();
    let state = VerifiedState::from_json(&state.to_json().unwrap()).unwrap();
    bed.clock.advance(HOUR / 2);
    assert!(since(&bed, &state).await.is_clean());
    for (batch, event) in [(&own, None), (&waiting, Some(waiting.events()[0].id()))] {
        let writer = batch.record().writer_id;
        let id = event.map(|id| id.to_string()).unwrap_or_default();
        let sql = format!(
            "DELETE FROM metertrail.audit_batches WHERE writer_id = '{writer}';
            DELETE FROM metertrail.audit_unsealed WHERE writer_id = '{writer}';
            DELETE FROM metertrail.audit_events WHERE id::text = '{id}'"
        );
        touch(&bed, &sql, |tables| {
            tables.batches.remove(&(writer, 0)).unwrap();
            if let Some(id) = event {
                tables.unsealed.clear();
                tables.events.retain(|key, _| key.1 != id);
            }
        })
        .await;
        let named = format!("missing_batch: batch 0 of writer {writer}");
        let report = since(&bed, &state).await;
        assert!(report.findings.iter().any(|finding| finding.to_string() == named), "{:?}", report.findings);
    }
}

/// A batch that is kept from the sealer, with a leaf that looks like that of an epoch to come.
async fn a_leaf_that_was_planted_ahead(bed: Bed) {
    let (_log, _) = seen(&bed).await;
    let hidden = sealed_at(bed.clock.now(), uploaded("acme", LATER));
    bed.store.append_audit(&hidden).await.unwrap();
    let (id, hash) = (hidden.events()[0].id(), hidden.events()[0].leaf().unwrap());
    let sql = format!(
        "DELETE FROM metertrail.audit_unsealed;
        INSERT INTO metertrail.audit_tree VALUES ('acme', 0, 1000000, '\\x{hash}', '{id}')"
    );
    let position = 1_000_000;
    touch(&bed, &sql, |tables| {
        let acme = hidden.events()[0].tenant_id.clone();
        tables.unsealed.clear();
        tables.nodes.insert((acme.clone(), 0, position), (hash, Some(id)));
        tables.leaves.insert((acme, id), metertrail::audit::TreeLeaf { position, hash, event_id: id });
    })
    .await;
    assert_eq!(codes(&bed.verified().await), ["stale", "tree_altered"]);
}
