//! Data about persons: readable, then not; and every seal stands.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use metertrail::audit::{
    AuditEvent, AuditKeys, AuditQuery, AuditSigningKey, AuditVerifyingKey, Erasure, ExportFormat,
    PersonalData, StaticKeys, WrappingKey, export_trail,
};
use metertrail::time::TimeRange;
use metertrail::{ErrorKind, TenantId};

use super::{Bed, ada, keys, label, on_both_stores, tenant, uploaded};
use crate::ledger;

on_both_stores! {
    what_is_about_a_person_is_forgotten,
    a_legal_hold_forbids_to_forget,
    a_person_who_comes_back_has_a_new_key,
    the_length_of_a_text_is_not_told,
    the_wrapping_key_can_be_rotated,
    nothing_is_written_without_the_keys_that_there_are,
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
    let key = bed.store.subject_key(&acme(), &label("p-ada")).await.unwrap().unwrap();
    let kept = key[1..].iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().concat();

    let erased = log.erase_subject(&acme(), &label("p-ada"), ada()).await.unwrap();
    assert_eq!(erased, Erasure::Erased { had_key: true });
    assert_eq!(log.open_personal(&trail[1], "email").await.unwrap(), None);
    assert_eq!(log.open_personal(&trail[0], "email").await.unwrap().as_deref(), Some(SECRET));
    // In no table, not even encrypted with something that is still there, and in nothing that leaves.
    let left = dump(&bed).await;
    assert!(!holds(&left, SECRET) && !left.contains(&kept));
    let mut exported = Vec::new();
    let everything = AuditQuery::new(acme(), TimeRange::ALL);
    for format in [ExportFormat::Jsonl, ExportFormat::CloudEvents, ExportFormat::Ocsf] {
        log.export(&everything, format, &mut exported).await.unwrap();
    }
    let directory = tempfile::tempdir().unwrap();
    export_trail(&bed.store, directory.path()).await.unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        exported.extend(std::fs::read(file.unwrap().path()).unwrap());
    }
    let exported = String::from_utf8(exported).unwrap();
    assert!(exported.contains("p-ada") && !holds(&exported, SECRET) && !exported.contains(&kept));
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

/// What is encrypted is as long for a short name as for a longer one.
async fn the_length_of_a_text_is_not_told(bed: Bed) {
    let log = bed.log();
    let texts = ["", "ada", "ada.lovelace@example.org"];
    for (second, text) in (1..).zip(texts) {
        let data = PersonalData::new("p-ada", text).unwrap();
        log.record(uploaded("acme", second).with_personal("email", data).unwrap()).await.unwrap();
    }
    bed.clock.advance(std::time::Duration::from_secs(60));
    let trail = log.tenant_audit_trail(&acme(), 1).await.unwrap();
    let lengths: Vec<usize> =
        trail.iter().map(|event| event.personal[&label("email")].sealed().unwrap().1.len()).collect();
    assert_eq!(lengths, [24 + 64 + 16; 3]);
    for (event, text) in trail.iter().rev().zip(texts) {
        assert_eq!(log.open_personal(event, "email").await.unwrap().as_deref(), Some(text));
    }
}

async fn the_wrapping_key_can_be_rotated(bed: Bed) {
    let [old, new] = [1, 2].map(|byte| WrappingKey::from_bytes([byte; 32]));
    let with = |keys: &[&WrappingKey]| {
        let keys = keys.iter().fold(StaticKeys::new(), |keys, key| keys.wrapping((*key).clone()));
        bed.builder().keys(keys).start().unwrap()
    };
    let (before, during, after) = (with(&[&old]), with(&[&new, &old]), with(&[&new]));
    before.record(about("p-ada", 1)).await.unwrap();
    during.record(about("p-bob", 2)).await.unwrap();
    bed.clock.advance(std::time::Duration::from_secs(60));
    let trail = during.tenant_audit_trail(&acme(), 1).await.unwrap();
    for event in &trail {
        assert_eq!(during.open_personal(event, "email").await.unwrap().as_deref(), Some(SECRET));
    }
    assert_eq!(after.open_personal(&trail[0], "email").await.unwrap().as_deref(), Some(SECRET));
    let error = after.open_personal(&trail[1], "email").await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().contains("not given")), (ErrorKind::Unavailable, true));
}

/// A secret store that is away for a while.
#[derive(Clone, Debug)]
struct Away {
    keys: StaticKeys,
    is_away: Arc<AtomicBool>,
}

impl Away {
    fn answer<T>(&self, answer: metertrail::Result<T>) -> metertrail::Result<T> {
        if self.is_away.load(Ordering::SeqCst) {
            // Of a kind that would be final if it came from the store.
            return Err(metertrail::Error::new(ErrorKind::Misuse, "the vault is sealed"));
        }
        answer
    }
}

impl AuditKeys for Away {
    fn writer_key(&self) -> metertrail::Result<Option<AuditSigningKey>> {
        self.answer(self.keys.writer_key())
    }

    fn writer_verifying_keys(&self) -> metertrail::Result<Vec<AuditVerifyingKey>> {
        self.answer(self.keys.writer_verifying_keys())
    }

    fn sealer_key(&self) -> metertrail::Result<Option<AuditSigningKey>> {
        self.answer(self.keys.sealer_key())
    }

    fn former_sealer_keys(&self) -> metertrail::Result<Vec<AuditVerifyingKey>> {
        self.answer(self.keys.former_sealer_keys())
    }

    fn wrapping_keys(&self) -> metertrail::Result<Vec<WrappingKey>> {
        self.answer(self.keys.wrapping_keys())
    }
}

async fn nothing_is_written_without_the_keys_that_there_are(bed: Bed) {
    let is_away = Arc::new(AtomicBool::new(true));
    let log = bed.builder().keys(Away { keys: keys(), is_away: Arc::clone(&is_away) }).start().unwrap();
    let mut acks: Vec<_> = [uploaded("acme", 1), about("p-ada", 2)].map(|event| log.record(event)).into();
    let waiting = std::future::IntoFuture::into_future(acks.remove(0));
    let mut waiting = std::pin::pin!(waiting);
    let is_written = tokio::time::timeout(std::time::Duration::from_millis(300), waiting.as_mut()).await;
    assert!(is_written.is_err());
    let health = log.health();
    assert_eq!((health.written, health.rejected), (0, 0));
    assert_eq!(health.write_error.unwrap().kind(), ErrorKind::Unavailable);
    assert_eq!(log.seal_batch(vec![uploaded("acme", 3)]).await.unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(log.seal_epoch().await.unwrap_err().kind(), ErrorKind::Unavailable);
    is_away.store(false, Ordering::SeqCst);
    waiting.await.unwrap();
    for ack in acks {
        ack.await.unwrap();
    }
    log.seal_epoch().await.unwrap().unwrap();
    let report = bed.verified().await;
    assert!(report.is_clean() && report.are_batches_authenticated, "{:?}", report.findings);
    let trail = bed.store.audit_rows(&acme(), None, 10).await.unwrap();
    assert_eq!(trail.len(), 2);
}
