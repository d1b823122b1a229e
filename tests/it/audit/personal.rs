//! Data about persons: readable, then not; and every seal stands.

use metertrail::audit::{AuditEvent, Erasure, PersonalData};
use metertrail::{ErrorKind, TenantId};

use super::{Bed, ada, label, on_both_stores, tenant, uploaded};
use crate::ledger;

on_both_stores! {
    what_is_about_a_person_is_forgotten,
    a_legal_hold_forbids_to_forget,
    a_person_who_comes_back_has_a_new_key,
}

const SECRET: &str = "ada.lovelace@example.org";

fn acme() -> TenantId {
    tenant("acme")
}

fn about(subject: &str, second: i64) -> AuditEvent {
    let email = PersonalData::new(subject, SECRET).unwrap();
    uploaded("acme", second).with_personal("email", email).unwrap()
}

/// Everything that the store holds, as text.
async fn dump(bed: &Bed) -> String {
    if let Some(memory) = &bed.memory {
        return format!("{:?}", memory.audit_tables());
    }
    let client = ledger::client(bed.database.as_ref().unwrap().url()).await;
    let tables =
        "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'metertrail'";
    let mut text = String::new();
    for table in client.query(tables, &[]).await.unwrap() {
        let rows = format!(
            "SELECT coalesce(string_agg(row::text, E'\\n'), '') FROM {} AS row",
            table.get::<_, String>(0)
        );
        text.push_str(client.query_one(&rows, &[]).await.unwrap().get(0));
    }
    text
}

fn holds(text: &str, secret: &str) -> bool {
    let bytes = secret.bytes();
    let hex = bytes.clone().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();
    let list = bytes.map(|byte| byte.to_string()).collect::<Vec<_>>().join(", ");
    [secret, hex.as_str(), list.as_str()].iter().any(|form| text.contains(form))
}

async fn what_is_about_a_person_is_forgotten(bed: Bed) {
    let log = bed.log();
    let (ada_event, bob_event) = (about("p-ada", 1), about("p-bob", 2));
    assert!(!format!("{ada_event:?}").contains(SECRET));
    assert_eq!(ada_event.canonical_bytes().unwrap_err().kind(), ErrorKind::Misuse);
    log.record(ada_event.clone()).await.unwrap();
    log.record(bob_event).await.unwrap();
    log.seal_epoch().await.unwrap();
    bed.clock.advance(std::time::Duration::from_secs(60));
    // Not even before it is forgotten.
    assert!(!holds(&dump(&bed).await, SECRET));
    let trail = log.tenant_audit_trail(&acme(), 1).await.unwrap();
    assert!(!serde_json::to_string(&trail).unwrap().contains(SECRET));
    assert_eq!(log.open_personal(&trail[1], "email").await.unwrap().as_deref(), Some(SECRET));
    assert_eq!(log.open_personal(&trail[1], "name").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    // What is written for one event cannot be read as another one's.
    let mut moved = trail[0].clone();
    moved.personal = trail[1].personal.clone();
    assert_eq!(log.open_personal(&moved, "email").await.unwrap_err().kind(), ErrorKind::Store);
    let before = bed.verified().await;

    let erased = log.erase_subject(&acme(), &label("p-ada"), ada()).await.unwrap();
    assert_eq!(erased, Erasure::Erased { had_key: true });
    assert_eq!(log.open_personal(&trail[1], "email").await.unwrap(), None);
    assert_eq!(log.open_personal(&trail[0], "email").await.unwrap().as_deref(), Some(SECRET));
    assert!(!holds(&dump(&bed).await, SECRET));
    assert_eq!(
        log.erase_subject(&acme(), &label("p-ada"), ada()).await.unwrap(),
        Erasure::Erased { had_key: false }
    );
    log.seal_epoch().await.unwrap();
    let report = bed.verifier().incremental(before.verified_at, &before.state.unwrap()).await.unwrap();
    assert!(report.is_clean(), "{:?}", report.findings);
    assert!(bed.verified().await.is_clean());
    bed.clock.advance(std::time::Duration::from_secs(60));
    let types: Vec<String> = log
        .tenant_audit_trail(&acme(), 1)
        .await
        .unwrap()
        .iter()
        .map(|event| event.event_type.to_string())
        .collect();
    assert_eq!(types.iter().filter(|name| *name == "privacy.subject_erased").count(), 2);
}

async fn a_legal_hold_forbids_to_forget(bed: Bed) {
    let log = bed.log();
    log.record(about("p-ada", 1)).await.unwrap();
    let (subject, reason) = (label("p-ada"), label("case 7"));
    log.place_hold(&acme(), Some(&subject), &reason, ada()).await.unwrap();
    let refused = log.erase_subject(&acme(), &subject, ada()).await.unwrap();
    assert_eq!(refused, Erasure::Held(reason.clone()));
    log.release_hold(&acme(), Some(&subject), ada()).await.unwrap();
    log.place_hold(&acme(), None, &reason, ada()).await.unwrap();
    assert_eq!(log.erase_subject(&acme(), &subject, ada()).await.unwrap(), Erasure::Held(reason));
    assert_eq!(
        log.erase_subject(&tenant("bolt"), &subject, ada()).await.unwrap(),
        Erasure::Erased { had_key: false }
    );
    log.release_hold(&acme(), None, ada()).await.unwrap();
    assert_eq!(log.erase_subject(&acme(), &subject, ada()).await.unwrap(), Erasure::Erased { had_key: true });
}

async fn a_person_who_comes_back_has_a_new_key(bed: Bed) {
    let log = bed.log();
    log.record(about("p-ada", 1)).await.unwrap();
    log.erase_subject(&acme(), &label("p-ada"), ada()).await.unwrap();
    log.record(about("p-ada", 2)).await.unwrap();
    bed.clock.advance(std::time::Duration::from_secs(60));
    let trail = log.tenant_audit_trail(&acme(), 1).await.unwrap();
    let with_data: Vec<&AuditEvent> = trail.iter().filter(|event| !event.personal.is_empty()).collect();
    assert_eq!(log.open_personal(with_data[0], "email").await.unwrap().as_deref(), Some(SECRET));
    assert_eq!(log.open_personal(with_data[1], "email").await.unwrap_err().kind(), ErrorKind::Store);
}
