//! What only Postgres has: the caller's transaction, guards, roles.

use std::sync::Arc;

use metertrail::ErrorKind;
use metertrail::audit::AuditEvent;
use metertrail::store::{AuditStore, BatchAppended};

use super::{Bed, MINUTE, keep, uploaded};
use crate::ledger::{client, count, store};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_commit_with_the_rows_of_the_caller_or_not_at_all() {
    let bed = Bed::postgres().await;
    let url = bed.database.as_ref().unwrap().url();
    let (store, log) = (store(url), bed.log());
    let mut hand = client(url).await;
    hand.batch_execute("CREATE TABLE public.invoices (number int)").await.unwrap();
    for (number, commits) in [(1, true), (2, false), (3, true)] {
        let batch = log.seal_batch(vec![uploaded("acme", number), uploaded("bolt", number)]).await.unwrap();
        let transaction = hand.transaction().await.unwrap();
        transaction.execute("INSERT INTO public.invoices VALUES ($1)", &[&(number as i32)]).await.unwrap();
        store.append_audit_in(&transaction, &batch).await.unwrap();
        if commits {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
    }
    assert_eq!(count(&hand, "SELECT count(*) FROM public.invoices").await, 2);
    assert_eq!(count(&hand, "SELECT count(*) FROM public.audit_events").await, 4);
    // A transaction that stays open keeps neither writers nor the sealer, and is sealed when it ends.
    let late = log.seal_batch(vec![uploaded("acme", 9)]).await.unwrap();
    let transaction = hand.transaction().await.unwrap();
    store.append_audit_in(&transaction, &late).await.unwrap();
    log.record(uploaded("acme", 10)).await.unwrap();
    log.seal_epoch().await.unwrap().unwrap();
    assert!(bed.verified().await.is_clean());
    transaction.commit().await.unwrap();
    log.seal_epoch().await.unwrap().unwrap();
    let report = bed.verified().await;
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.events, 6);
}

#[tokio::test]
async fn a_batch_is_kept_once_and_no_other_under_its_name() {
    let bed = Bed::postgres().await;
    let chain = metertrail::audit::WriterChain::new(metertrail::audit::Origin::default());
    let now = super::noon();
    let batch = chain.seal(vec![uploaded("acme", 1)], None, now).unwrap();
    assert_eq!(bed.store.append_audit(&batch).await.unwrap(), BatchAppended::New);
    assert_eq!(bed.store.append_audit(&batch).await.unwrap(), BatchAppended::Duplicate);
    let other = chain.seal(vec![uploaded("acme", 2)], None, now).unwrap();
    assert_eq!(bed.store.append_audit(&other).await.unwrap(), BatchAppended::Conflict);
    let taken = metertrail::audit::WriterChain::new(metertrail::audit::Origin::default())
        .seal(batch.events().to_vec(), None, now)
        .unwrap();
    assert_eq!(bed.store.append_audit(&taken).await.unwrap_err().kind(), ErrorKind::Conflict);
    let hand = client(bed.database.as_ref().unwrap().url()).await;
    assert_eq!(count(&hand, "SELECT count(*) FROM metertrail.audit_events").await, 1);
}

#[tokio::test]
async fn what_is_sealed_is_only_ever_added() {
    let bed = Bed::postgres().await;
    let log = bed.log();
    log.record(uploaded("acme", 1)).await.unwrap();
    log.seal_epoch().await.unwrap();
    let hand = client(bed.database.as_ref().unwrap().url()).await;
    for table in ["audit_events", "audit_batches", "audit_epochs", "audit_tree", "audit_events_20260301"] {
        for statement in [format!("DELETE FROM metertrail.{table}"), format!("TRUNCATE metertrail.{table}")] {
            let error = hand.batch_execute(&statement).await.unwrap_err();
            assert!(error.as_db_error().unwrap().message().contains("append only"), "{statement}: {error:?}");
        }
    }
    let update = "UPDATE metertrail.audit_events SET action = 'x'";
    assert!(hand.batch_execute(update).await.is_err());
    assert!(bed.verified().await.is_clean());
}

#[tokio::test]
async fn a_role_of_one_tenant_sees_that_tenant_only() {
    let bed = Bed::postgres().await;
    let log = bed.log();
    keep(&log, &[vec![uploaded("acme", 1), uploaded("acme", 2), uploaded("bolt", 3)]]).await;
    let hand = client(bed.database.as_ref().unwrap().url()).await;
    let role = format!("reader_{}", bed.database.as_ref().unwrap().name());
    hand.batch_execute(&format!(
        "SELECT metertrail.enable_audit_row_security();
        CREATE ROLE \"{role}\";
        GRANT USAGE ON SCHEMA metertrail TO \"{role}\";
        GRANT SELECT ON metertrail.audit_events, public.audit_events TO \"{role}\";
        SET ROLE \"{role}\""
    ))
    .await
    .unwrap();
    let seen = [count(&hand, "SELECT count(*) FROM public.audit_events").await, {
        hand.batch_execute("SET metertrail.tenant_id = 'acme'").await.unwrap();
        count(&hand, "SELECT count(*) FROM public.audit_events").await
    }];
    hand.batch_execute(&format!("RESET ROLE; DROP OWNED BY \"{role}\"; DROP ROLE \"{role}\"")).await.unwrap();
    assert_eq!(seen, [0, 2]);
    // The owner goes on writing.
    log.record(uploaded("acme", 4)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_of_forty_days_and_two_stores_find_their_partitions() {
    let bed = Bed::postgres().await;
    let other = Arc::new(store(bed.database.as_ref().unwrap().url()));
    let events: Vec<AuditEvent> = (0..40).map(|day| uploaded("acme", day * 24 * 3600)).collect();
    let logs = [bed.log(), metertrail::audit::AuditLog::builder(other).keys(super::keys()).start().unwrap()];
    let (one, other) = tokio::join!(keep_all(&logs[0], &events[..25]), keep_all(&logs[1], &events[15..]));
    // Ten were recorded by both.
    assert_eq!(one + other, 40);
    for log in logs {
        assert!(log.shutdown(MINUTE).await.unwrap().unwritten.is_empty());
    }
    let hand = client(bed.database.as_ref().unwrap().url()).await;
    assert_eq!(count(&hand, "SELECT count(*) FROM public.audit_events").await, 40);
    assert_eq!(count(&hand, "SELECT count(DISTINCT tableoid) FROM metertrail.audit_events").await, 40);
    assert!(bed.verified().await.findings_total == 0);
}

/// How many were kept; an event that the other log was first with is not.
async fn keep_all(log: &metertrail::audit::AuditLog, events: &[AuditEvent]) -> usize {
    let mut kept = 0;
    for event in events {
        kept += usize::from(log.record(event.clone()).await.is_ok());
    }
    kept
}
