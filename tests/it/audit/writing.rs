//! Writing, reading and reporting.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use metertrail::audit::{
    Actor, AuditContext, AuditEvent, AuditLog, AuditQuery, AuditResult, AuditType, ChatAudit, ClientIp,
    ErrorAudit, FileAnchor, KbAudit, Origin, SecurityAudit, Target, VerifiedState, Verifier, prove,
    prove_extension,
};
use metertrail::store::AuditStore;
use metertrail::time::{Clock, TimeRange};
use metertrail::{ErrorKind, PageSize};

use super::{Bed, MINUTE, ada, codes, keep, label, noon, on_both_stores, tenant, uploaded};

on_both_stores! {
    every_field_comes_back_and_is_sealed,
    a_trail_is_filtered_and_paged,
    the_questions_of_the_mission,
    a_report_counts_and_escapes,
    chatty_events_are_sampled_and_counted,
    two_logs_write_and_seal_at_once,
    an_event_that_is_recorded_twice_conflicts,
    proofs_hold,
    incremental_verification_goes_on,
    a_sampled_verification_of_an_untouched_trail_is_clean,
    verification_beside_writers_accuses_nobody,
}

fn full_event(second: i64) -> AuditEvent {
    let record = ErrorAudit::ApiError {
        endpoint: "POST /\u{1f600}".into(),
        status_code: 503,
        message: "upstream\tsaid \u{7f}no".into(),
    };
    let context = AuditContext::new()
        .ip(ClientIp::truncated("2001:db8:1:2:3::4".parse().unwrap()))
        .user_agent("curl/8.5.0 \u{2028}(x)")
        .request_id("r-1")
        .unwrap()
        .trace_id("4bf92f3577b34da6a3ce929d0e0e4736")
        .unwrap();
    let at = noon() + TimeDelta::seconds(second) + TimeDelta::microseconds(123_456);
    AuditEvent::new(tenant("acme"), at, Actor::service("svc").unwrap(), &record)
        .unwrap()
        .with_context(context)
        .with_target(Target::new("model", "gpt").unwrap())
}

async fn every_field_comes_back_and_is_sealed(bed: Bed) {
    let log = bed.log();
    let event = full_event(1);
    log.record(event.clone()).await.unwrap();
    // What jsonb does to numbers and keys must not change the bytes.
    let mut odd = uploaded("acme", 2);
    odd.metadata = metertrail::Metadata::new(serde_json::json!({
        "z": 1.5e300, "a": [1, -2, 18_446_744_073_709_551_615_u64, 0.1, 1e-7], "m": {"b": null, "a": true}, "": "\u{e9}",
        "neg": -0.0, "whole": 2.0,
    }))
    .unwrap();
    log.record(odd.clone()).await.unwrap();
    let trail = log.tenant_audit_trail(&tenant("acme"), 1).await;
    bed.clock.advance(Duration::from_secs(60));
    assert!(trail.unwrap().is_empty(), "the clock stands at noon, the events are later");
    let trail = log.tenant_audit_trail(&tenant("acme"), 1).await.unwrap();
    assert_eq!(trail, [odd.clone(), event.clone()]);
    assert_eq!(trail[0].canonical_bytes().unwrap(), odd.canonical_bytes().unwrap());
    assert_eq!(trail[1].leaf().unwrap(), event.leaf().unwrap());
    log.seal_epoch().await.unwrap().unwrap();
    assert!(bed.verified().await.is_clean());
}

async fn a_trail_is_filtered_and_paged(bed: Bed) {
    let log = bed.log();
    let mut events: Vec<AuditEvent> = (0..25).map(|second| uploaded("acme", second)).collect();
    events[3].actor = Actor::user("someone").unwrap();
    events[4].target = None;
    events[5].result = AuditResult::Failure;
    events[6].result = AuditResult::Denied;
    keep(&log, &[events.clone(), vec![uploaded("bolt", 3)]]).await;
    let all = AuditQuery::new(tenant("acme"), TimeRange::ALL);
    let mut query = all.clone().page_size(PageSize::new(10).unwrap());
    let mut seen = Vec::new();
    loop {
        let page = log.trail(&query).await.unwrap();
        seen.extend(page.items);
        match page.next {
            Some(next) => query = query.after(next),
            None => break,
        }
    }
    events.reverse();
    assert_eq!(seen, events);
    let count = async |query: AuditQuery| log.trail(&query).await.unwrap().items.len();
    assert_eq!(count(all.clone().actor(Actor::user("someone").unwrap())).await, 1);
    assert_eq!(count(all.clone().actor(ada())).await, 24);
    assert_eq!(count(all.clone().target(Target::new("document", "d-7").unwrap())).await, 1);
    assert_eq!(count(all.clone().result(AuditResult::Failure)).await, 1);
    assert_eq!(count(all.clone().result(AuditResult::Failure).result(AuditResult::Denied)).await, 2);
    assert_eq!(count(all.clone().event_type(AuditType::new("kb.uploaded").unwrap())).await, 25);
    assert_eq!(count(all.clone().event_type(AuditType::new("kb.upload").unwrap())).await, 0);
    assert_eq!(count(all.clone().security()).await, 0);
    let range = TimeRange::new(noon() + TimeDelta::seconds(2), noon() + TimeDelta::seconds(4)).unwrap();
    assert_eq!(count(AuditQuery::new(tenant("acme"), range)).await, 2);
    let foreign = log.trail(&query.clone().security()).await.unwrap_err();
    assert_eq!(foreign.field(), Some("cursor"));
}

async fn the_questions_of_the_mission(bed: Bed) {
    let log = bed.log();
    let acme = tenant("acme");
    let failed = ErrorAudit::ApiError { endpoint: "GET /".into(), status_code: 500, message: "no".into() };
    let forbidden = SecurityAudit::Forbidden { resource: label("r"), permission: "admin".into() };
    log.record(log.event(&acme, ada(), &failed).unwrap()).await.unwrap();
    log.record(log.event(&acme, ada(), &forbidden).unwrap()).await.unwrap();
    let deleted = KbAudit::Deleted { document: label("d"), reason: None };
    log.record(log.event(&acme, ada(), &deleted).unwrap()).await.unwrap();
    bed.clock.advance(Duration::from_secs(5 * 24 * 3600));
    assert_eq!(log.tenant_audit_trail(&acme, 7).await.unwrap().len(), 3);
    assert_eq!(log.tenant_audit_trail(&acme, 4).await.unwrap().len(), 0);
    let types = |events: Vec<AuditEvent>| -> Vec<String> {
        let mut types: Vec<String> = events.iter().map(|event| event.event_type.to_string()).collect();
        types.sort();
        types
    };
    assert_eq!(
        types(log.failed_operations(&acme, 30).await.unwrap()),
        ["error.api_error", "security.forbidden"]
    );
    assert_eq!(types(log.security_events(&acme, 90).await.unwrap()), ["security.forbidden"]);
    assert_eq!(log.tenant_audit_trail(&acme, 0).await.unwrap_err().field(), Some("days"));
}

async fn a_report_counts_and_escapes(bed: Bed) {
    let log = bed.log();
    let mut events: Vec<AuditEvent> = (0..5).map(|second| uploaded("acme", second)).collect();
    events[1].result = AuditResult::Failure;
    events[2].result = AuditResult::Denied;
    events[3].actor = Actor::new("=cmd", "<b>&\"'").unwrap();
    events.push(uploaded("acme", 24 * 3600));
    keep(&log, std::slice::from_ref(&events)).await;
    log.seal_epoch().await.unwrap();
    let range = TimeRange::new(noon(), noon() + TimeDelta::days(2)).unwrap();
    let report = log.audit_report(&tenant("acme"), range).await.unwrap();
    assert_eq!((report.total, report.successes, report.failures, report.denials), (6, 4, 1, 1));
    assert_eq!(report.by_type["kb.uploaded"], 6);
    assert_eq!((report.by_actor["user:u-71"], report.by_day.len()), (5, 2));
    assert_eq!((report.first, report.last), (Some(noon()), Some(noon() + TimeDelta::days(1))));
    assert_eq!((report.integrity.epoch, report.integrity.is_signed), (Some(0), true));
    let report = report.with_verification(0, bed.clock.now());
    let json: serde_json::Value = serde_json::from_str(&report.to_json().unwrap()).unwrap();
    assert_eq!((&json["total"], &json["integrity"]["findings"]), (&6.into(), &0.into()));
    let csv = report.to_csv();
    assert!(csv.contains("\"by actor\",\"'=cmd:<b>&\"\"'\",\"1\"\r\n"), "{csv}");
    let html = report.to_html();
    assert!(html.contains("<th>=cmd:&lt;b&gt;&amp;&quot;&#39;</th><td>1</td>"), "{html}");
    assert!(!html.contains("<b>"), "{html}");
}

async fn chatty_events_are_sampled_and_counted(bed: Bed) {
    let chatty = AuditType::new("chat.message_received").unwrap();
    let log = bed.builder().sample(chatty, NonZeroU32::new(10).unwrap()).start().unwrap();
    let said = ChatAudit::MessageReceived { session: label("s"), characters: 5, attachments: 0 };
    for _ in 0..35 {
        log.record(log.event(&tenant("acme"), ada(), &said).unwrap()).await.unwrap();
        log.record(log.event(&tenant("bolt"), ada(), &said).unwrap());
        let mut failed = log.event(&tenant("acme"), ada(), &said).unwrap();
        failed.result = AuditResult::Failure;
        log.record(failed).await.unwrap();
    }
    bed.clock.advance(Duration::from_secs(1));
    let trail = log.tenant_audit_trail(&tenant("acme"), 1).await.unwrap();
    let kept: Vec<&AuditEvent> = trail.iter().filter(|event| event.result == AuditResult::Success).collect();
    assert_eq!((kept.len(), trail.len() - kept.len()), (4, 35));
    assert_eq!(kept.iter().map(|event| event.represents).sum::<u32>(), 31);
    assert_eq!(log.health().sampled_out, 62);
    // What is left out keeps nothing of a person that could outlive its erasure.
    let data = metertrail::audit::PersonalData::new("p-1", "ada@example.org").unwrap();
    let about = log.event(&tenant("corp"), ada(), &said).unwrap().with_personal("email", data).unwrap();
    log.record(about.clone()).await.unwrap();
    let left_out = AuditEvent::new(tenant("corp"), about.occurred_at(), ada(), &said).unwrap();
    log.record(left_out.with_personal("email", about.personal[&label("email")].clone()).unwrap())
        .await
        .unwrap();
    log.erase_subject(&tenant("corp"), &label("p-1"), ada()).await.unwrap();
    // What is about persons is never left out.
    let hold = AuditType::new("privacy.hold_placed").unwrap();
    let all = bed.builder().sample(hold, NonZeroU32::new(10).unwrap()).start().unwrap();
    for _ in 0..3 {
        all.place_hold(&tenant("bolt"), Some(&label("p")), &label("suit"), ada()).await.unwrap();
    }
    assert_eq!(all.health().sampled_out, 0);
    // The last of what was left out is kept at the end: nothing is missing in the sum.
    assert!(log.shutdown(super::MINUTE).await.unwrap().unwritten.is_empty());
    for name in ["acme", "bolt"] {
        let trail = all.tenant_audit_trail(&tenant(name), 1).await.unwrap();
        let said = trail.iter().filter(|event| {
            event.event_type.as_str() == "chat.message_received" && event.result == AuditResult::Success
        });
        let (count, sum) = said.fold((0, 0), |(count, sum), event| (count + 1, sum + event.represents));
        assert_eq!((count, sum), (5, 35), "{name}");
    }
    assert_eq!(log.health().sampled_out, 60);
    assert_eq!(bed.store.subject_key(&tenant("corp"), &label("p-1")).await.unwrap(), None);
}

async fn two_logs_write_and_seal_at_once(bed: Bed) {
    let logs = [bed.log(), bed.log(), bed.log()];
    let mut tasks = tokio::task::JoinSet::new();
    for (number, log) in (0..).zip(logs.clone()) {
        tasks.spawn(async move {
            for round in 0..10 {
                let acks: Vec<_> = (0..20)
                    .map(|n| log.record(uploaded(["acme", "bolt"][n % 2], number * 1_000 + round)))
                    .collect();
                for ack in acks {
                    ack.await.unwrap();
                }
                log.seal_epoch().await.unwrap();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    let report = bed.verified().await;
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.events, report.tenants), (600, 2));
}

async fn an_event_that_is_recorded_twice_conflicts(bed: Bed) {
    let log = bed.log();
    let event = uploaded("acme", 1);
    log.record(event.clone()).await.unwrap();
    let others: Vec<_> = (2..9).map(|second| log.record(uploaded("acme", second))).collect();
    let again = log.record(event);
    assert_eq!(again.await.unwrap_err().kind(), ErrorKind::Conflict);
    for other in others {
        other.await.unwrap();
    }
    let report = log.shutdown(MINUTE).await.unwrap();
    assert_eq!((report.written, report.rejected.len()), (8, 1));
    assert!(bed.verified().await.is_clean());
}

async fn proofs_hold(bed: Bed) {
    let log = bed.log();
    let events: Vec<AuditEvent> = (0..600).map(|second| uploaded("acme", second)).collect();
    keep(&log, &[events[..300].to_vec(), vec![uploaded("bolt", 1), uploaded("aaa", 1)]]).await;
    log.seal_epoch().await.unwrap();
    let old = bed.store.audit_state().await.unwrap();
    let old = old.heads.iter().find(|head| head.tenant_id == tenant("acme")).unwrap().clone();
    keep(&log, &[events[300..].to_vec()]).await;
    assert!(prove(&*bed.store, &tenant("acme"), events[400].id()).await.unwrap().is_none());
    log.seal_epoch().await.unwrap();
    for event in [&events[0], &events[255], &events[256], &events[511], &events[512], &events[599]] {
        let proof = prove(&*bed.store, &tenant("acme"), event.id()).await.unwrap().unwrap();
        assert!(proof.checkpoint.is_signed_by(&super::sealer_key().verifying_key()));
        assert!(proof.verify(event.leaf().unwrap()));
        assert!(!proof.verify(uploaded("acme", 0).leaf().unwrap()));
    }
    let extension =
        prove_extension(&*bed.store, &tenant("acme"), old.frontier.size()).await.unwrap().unwrap();
    assert_eq!((extension.old_size, extension.tree.0), (300, 600));
    assert!(extension.verify(old.root));
    assert!(!extension.verify(metertrail::audit::Hash::leaf(b"x")));
    assert!(prove_extension(&*bed.store, &tenant("acme"), 601).await.unwrap().is_none());
}

async fn incremental_verification_goes_on(bed: Bed) {
    let log = bed.log();
    keep(&log, &[(0..40).map(|second| uploaded("acme", second)).collect()]).await;
    log.seal_epoch().await.unwrap();
    bed.clock.advance(Duration::from_secs(1_200));
    let first = bed.verified().await;
    let state = first.state.unwrap();
    assert_eq!(VerifiedState::from_json(&state.to_json().unwrap()).unwrap(), state);
    bed.clock.advance(Duration::from_secs(24 * 3600));
    keep(&log, &[(0..30).map(|second| uploaded("acme", 24 * 3600 + second)).collect()]).await;
    // Happened long ago, and is written only now.
    log.record(uploaded("acme", -3600)).await.unwrap();
    log.seal_epoch().await.unwrap();
    keep(&log, &[vec![uploaded("bolt", 24 * 3600)]]).await;
    let next = bed.verifier().incremental(bed.clock.now(), &state).await.unwrap();
    assert!(next.is_clean(), "{:?}", next.findings);
    assert_eq!(next.events, 31);
    let full = bed.verified().await;
    assert!(full.is_clean());
    assert_eq!(full.state.unwrap(), next.state.unwrap());
    // A state of another trail is not gone on from.
    let other = Bed::memory();
    let other_log = other.log();
    keep(&other_log, &[(0..41).map(|second| uploaded("acme", second)).collect()]).await;
    other_log.seal_epoch().await.unwrap();
    let report = other.verifier().incremental(bed.clock.now(), &state).await.unwrap();
    assert_eq!(codes(&report), ["log_rewritten", "tree_altered"]);
}

async fn a_sampled_verification_of_an_untouched_trail_is_clean(bed: Bed) {
    let log = bed.log();
    keep(&log, &[(0..300).map(|n| uploaded(["acme", "bolt"][n as usize % 2], n)).collect()]).await;
    log.seal_epoch().await.unwrap();
    let report = bed.verifier().sampled(bed.clock.now(), 50, 7).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.events, report.state), (50, None));
}

async fn verification_beside_writers_accuses_nobody(bed: Bed) {
    let log = bed.log();
    let done = Arc::new(AtomicU32::new(0));
    let writer = {
        let (log, done) = (log.clone(), Arc::clone(&done));
        tokio::spawn(async move {
            for round in 0..40 {
                keep(&log, &[(0..10).map(|n| uploaded(["acme", "bolt"][n % 2], round)).collect()]).await;
                log.seal_epoch().await.unwrap();
            }
            done.store(1, Ordering::Release);
        })
    };
    let mut verified = 0;
    while done.load(Ordering::Acquire) == 0 {
        let report = bed.verified().await;
        assert!(report.is_clean(), "{:?}", report.findings);
        verified += 1;
    }
    writer.await.unwrap();
    assert!(verified > 0);
    assert_eq!(bed.verified().await.events, 400);
}

#[tokio::test]
async fn an_anchor_is_told_and_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("checkpoints");
    let bed = Bed::memory();
    let log = bed
        .builder()
        .anchor(FileAnchor::new(&path))
        .origin(Origin::new("example.org/trail").unwrap())
        .start()
        .unwrap();
    for second in 0..3 {
        log.record(uploaded("acme", second)).await.unwrap();
        log.seal_epoch().await.unwrap();
    }
    let anchored = FileAnchor::read(&path).unwrap();
    let sizes: Vec<u64> = anchored.iter().map(metertrail::audit::Checkpoint::size).collect();
    assert_eq!((sizes, anchored[2].origin().as_str()), (vec![1, 2, 3], "example.org/trail"));
    let verifier = anchored.into_iter().fold(bed.verifier(), Verifier::anchor);
    let report = verifier.full(bed.clock.now()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(report.anchors, 3);
}

#[tokio::test]
async fn a_log_seals_by_itself_and_drains_at_the_end() {
    let bed = Bed::memory();
    let log = AuditLog::builder(Arc::clone(&bed.store))
        .seal_interval(Some(Duration::from_millis(5)))
        .batch_age(Duration::from_secs(3600))
        .start()
        .unwrap();
    log.record(uploaded("acme", 1)).await.unwrap();
    crate::ledger::until("an epoch is sealed", async || log.health().epochs > 0).await;
    let ack = log.record(uploaded("acme", 2));
    assert!(ack.is_accepted());
    let report = log.shutdown(MINUTE).await.unwrap();
    assert_eq!((report.written, report.unwritten.len()), (2, 0));
    assert!(bed.store.unsealed_batches(10).await.unwrap().is_empty());
    assert_eq!(log.record(uploaded("acme", 3)).await.unwrap_err().kind(), ErrorKind::ShutDown);
    assert_eq!(log.shutdown(MINUTE).await.unwrap_err().kind(), ErrorKind::ShutDown);
}

#[tokio::test]
async fn back_pressure_loses_nothing() {
    let bed = Bed::memory();
    let log = bed.builder().queue_events_max(NonZeroU32::new(3).unwrap()).batch_events(2).start().unwrap();
    let acks: Vec<_> = (0..50).map(|second| log.record(uploaded("acme", second))).collect();
    for ack in acks {
        ack.await.unwrap();
    }
    let kept: Vec<_> = (0..50).map(|second| log.record(uploaded("bolt", second))).collect();
    drop(kept);
    assert!(log.health().dropped > 0);
    let report = log.shutdown(MINUTE).await.unwrap();
    assert_eq!(report.written + report.dropped, 100);
}
