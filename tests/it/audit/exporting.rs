//! What leaves: lines for other systems, and a whole trail for a verifier elsewhere.

use std::fs;
use std::sync::Arc;

use metertrail::MemoryStore;
use metertrail::audit::{
    AuditEvent, AuditQuery, ExportFormat, PersonalData, SecurityAudit, Verifier, export_trail, read_trail,
};
use metertrail::time::{Clock, TimeRange};
use serde_json::{Value, json};

use super::{Bed, ada, codes, keep, label, on_both_stores, sealer_key, tenant, uploaded, writer_key};

on_both_stores! {
    an_export_is_verified_offline,
    events_leave_in_every_format,
}

fn with_everything() -> AuditEvent {
    let forbidden = SecurityAudit::Forbidden { resource: label("r"), permission: "admin".into() };
    let context = metertrail::audit::AuditContext::new()
        .ip(metertrail::audit::ClientIp::exact("203.0.113.7".parse().unwrap()))
        .user_agent("curl")
        .trace_id("t-1")
        .unwrap();
    AuditEvent::new(tenant("acme"), super::noon(), ada(), &forbidden)
        .unwrap()
        .with_context(context)
        .with_personal("email", PersonalData::new("p-1", "ada@example.org").unwrap())
        .unwrap()
}

async fn an_export_is_verified_offline(bed: Bed) {
    let log = bed.log();
    log.record(with_everything()).await.unwrap();
    keep(&log, &[(1..300).map(|second| uploaded("acme", second)).collect(), vec![uploaded("bolt", 5)]]).await;
    log.seal_epoch().await.unwrap();
    keep(&log, &[vec![uploaded("corp", 6)]]).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("export");
    let exported = export_trail(&bed.store, &path).await.unwrap();
    assert_eq!((exported.events, exported.epochs), (302, 1));
    let verify = async || {
        let store = Arc::new(MemoryStore::from_audit_tables(read_trail(&path).unwrap()));
        let verifier = Verifier::new(store)
            .writer_key(writer_key().verifying_key())
            .sealer_key(sealer_key().verifying_key());
        verifier.full(bed.clock.now()).await.unwrap()
    };
    let report = verify().await;
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.events, report.batches), (301, exported.batches));
    // Nothing that opens what is about a person leaves with it.
    let mut all = String::new();
    for file in fs::read_dir(&path).unwrap() {
        all.push_str(&fs::read_to_string(file.unwrap().path()).unwrap());
    }
    assert!(!all.contains("ada@example.org"));
    let key = bed.store.subject_key(&tenant("acme"), &label("p-1")).await.unwrap().unwrap();
    let hex = key.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    assert!(!all.contains(&hex[2..]));

    let events = fs::read_to_string(path.join("events.jsonl")).unwrap();
    fs::write(path.join("events.jsonl"), events.replacen("\"uploaded\"", "\"forged\"", 1)).unwrap();
    assert_eq!(codes(&verify().await), ["edited"]);
    let cut: Vec<&str> = events.lines().skip(1).collect();
    fs::write(path.join("events.jsonl"), cut.join("\n")).unwrap();
    assert_eq!(codes(&verify().await), ["missing"]);
    // What reading would tidy away is refused by the name of its line.
    let first = events.lines().next().unwrap();
    let doubled = first.replacen("\"action\":", "\"action\":\"x\",\"action\":", 1);
    let unknown = first.replacen('{', "{\"note\":1,", 1);
    let digits = first.replacen("\"represents\":1", "\"represents\":1.00000000000000000001", 1);
    let spaced = first.replacen(':', ": ", 1);
    let again = format!("{first}\n{first}");
    for (bad, line) in [("{}", 1), (&doubled, 1), (&unknown, 1), (&digits, 1), (&spaced, 1), (&again, 2)] {
        assert_ne!(bad, first);
        fs::write(path.join("events.jsonl"), bad).unwrap();
        let error = read_trail(&path).unwrap_err();
        assert_eq!(error.field(), Some("line"));
        assert!(error.to_string().contains(&format!("{line} of events.jsonl")), "{error}");
    }
    fs::write(path.join("events.jsonl"), events).unwrap();
    for file in ["batches.jsonl", "epochs.jsonl", "heads.jsonl", "tree.jsonl"] {
        let whole = fs::read_to_string(path.join(file)).unwrap();
        let first = whole.lines().next().unwrap();
        for bad in [first.replacen('{', "{\"note\":1,", 1), format!("{whole}{first}\n")] {
            fs::write(path.join(file), bad).unwrap();
            let error = read_trail(&path).unwrap_err();
            assert!(error.field() == Some("line") && error.to_string().contains(file), "{error}");
        }
        fs::write(path.join(file), whole).unwrap();
    }
    assert!(verify().await.is_clean());
}

async fn events_leave_in_every_format(bed: Bed) {
    let log = bed.log();
    let event = with_everything();
    log.record(event.clone()).await.unwrap();
    let query = AuditQuery::new(tenant("acme"), TimeRange::ALL);
    let mut lines: Vec<Value> = Vec::new();
    for format in [ExportFormat::Jsonl, ExportFormat::CloudEvents, ExportFormat::Ocsf] {
        let mut out = Vec::new();
        assert_eq!(log.export(&query, format, &mut out).await.unwrap(), 1);
        let text = String::from_utf8(out).unwrap();
        assert!(text.ends_with('\n') && !text.contains("ada@"), "{text}");
        if format == ExportFormat::Jsonl {
            let read = AuditEvent::from_json(text.trim()).unwrap();
            let kept = log.trail(&query).await.unwrap().items;
            assert_eq!((&read, read.leaf().unwrap()), (&kept[0], kept[0].leaf().unwrap()));
        }
        lines.push(serde_json::from_str(&text).unwrap());
    }
    let [own, cloud, ocsf] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(own["context"]["ip"], json!("203.0.113.7"));
    for (field, value) in [
        ("specversion", json!("1.0")),
        ("id", json!(event.id())),
        ("type", json!("metertrail.audit.security.forbidden")),
        ("subject", json!("acme")),
        ("data", own.clone()),
    ] {
        assert_eq!(cloud[field], value, "{field}");
    }
    // The required attributes of OCSF's API Activity.
    for (field, value) in [
        ("class_uid", json!(6003)),
        ("category_uid", json!(6)),
        ("activity_id", json!(2)),
        ("type_uid", json!(600_302)),
        ("severity_id", json!(3)),
        ("status_id", json!(2)),
        ("time", json!(super::noon().timestamp_millis())),
    ] {
        assert_eq!(ocsf[field], value, "{field}");
    }
    assert_eq!(ocsf["metadata"]["version"], json!("1.3.0"));
    assert_eq!(ocsf["actor"]["user"]["uid"], json!("u-71"));
    assert_eq!(
        (&ocsf["api"]["operation"], &ocsf["src_endpoint"]["ip"]),
        (&json!("access"), &json!("203.0.113.7"))
    );
}
