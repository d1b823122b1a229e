//! Golden vectors: the bytes that are hashed and signed, to the last one. What is written here can never change; a new
//! encoding is a new version beside it.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chrono::{DateTime, Utc};
use metertrail::audit::{
    Actor, AuditContext, AuditEvent, AuditResult, AuditType, AuditVerifyingKey, BatchRecord, Checkpoint,
    ClientIp, EpochRecord, Hash, Origin, PersonalData, Severity, Target, TenantHead, WriterChain, WriterId,
    tenants_root,
};
use metertrail::usage::ErrorMessage;
use metertrail::{EventId, Metadata};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::{label, tenant, writer_key};

fn at() -> DateTime<Utc> {
    "2026-03-01T12:00:30.123456Z".parse().unwrap()
}

/// An event with a known id, in which every field has something.
fn event() -> AuditEvent {
    let id: Uuid = "019ca948-44db-774d-8000-0123456789ab".parse().unwrap();
    let id = EventId::from_uuid(id).unwrap();
    let event_type = AuditType::new("kb.deleted").unwrap();
    let at = id.millisecond();
    let mut event = AuditEvent::from_stored(
        tenant("acme"),
        id,
        at,
        event_type,
        Actor::user("u-71").unwrap(),
        label("deleted"),
        AuditResult::Failure,
    )
    .unwrap();
    event.schema_version = 2;
    event.severity = Severity::Warning;
    event.target = Some(Target::new("document", "d-9").unwrap());
    event.context = AuditContext::new()
        .ip(ClientIp::truncated("203.0.113.77".parse().unwrap()))
        .user_agent("curl")
        .request_id("r-1")
        .unwrap();
    event.represents = 3;
    let metadata = serde_json::json!({"b": [1, -1, 1.5, true, null], "a": {"x": "\u{e9}"}, "u": u64::MAX});
    event.metadata = Metadata::new(metadata).unwrap();
    event.error_message = Some(ErrorMessage::new("no"));
    let email = PersonalData::from_stored(label("p-1"), Hash::of(b"commitment"), vec![1, 2, 3]);
    event.personal.insert(label("email"), email);
    event
}

/// What the format says, written down by hand: lengths in four bytes, numbers with the highest byte first.
#[test]
fn the_bytes_of_an_event() {
    let event = event();
    let mut expected: Vec<u8> = Vec::new();
    let text = |bytes: &mut Vec<u8>, text: &str| {
        bytes.extend((text.len() as u32).to_be_bytes());
        bytes.extend(text.as_bytes());
    };
    let some = |bytes: &mut Vec<u8>, value: &str| {
        bytes.push(1);
        text(bytes, value);
    };
    text(&mut expected, "metertrail/audit/event/1");
    text(&mut expected, "acme");
    expected.extend(event.id().as_uuid().as_bytes());
    expected.extend(event.occurred_at().timestamp_micros().to_be_bytes());
    text(&mut expected, "kb.deleted");
    expected.extend(2_u32.to_be_bytes());
    text(&mut expected, "user");
    text(&mut expected, "u-71");
    some(&mut expected, "document");
    some(&mut expected, "d-9");
    text(&mut expected, "deleted");
    text(&mut expected, "failure");
    text(&mut expected, "warning");
    some(&mut expected, "203.0.113.0/24");
    some(&mut expected, "curl");
    some(&mut expected, "r-1");
    expected.push(0);
    expected.extend(3_u32.to_be_bytes());
    // The metadata: three entries in the order of their keys.
    expected.extend(3_u32.to_be_bytes());
    text(&mut expected, "a");
    expected.push(b'o');
    expected.extend(1_u32.to_be_bytes());
    text(&mut expected, "x");
    expected.push(b's');
    text(&mut expected, "\u{e9}");
    text(&mut expected, "b");
    expected.push(b'a');
    expected.extend(5_u32.to_be_bytes());
    expected.push(b'i');
    expected.extend(1_i64.to_be_bytes());
    expected.push(b'i');
    expected.extend((-1_i64).to_be_bytes());
    expected.push(b'd');
    expected.extend(1.5_f64.to_bits().to_be_bytes());
    expected.extend(b"tn");
    text(&mut expected, "u");
    expected.push(b'u');
    expected.extend(u64::MAX.to_be_bytes());
    some(&mut expected, "no");
    expected.extend(1_u32.to_be_bytes());
    text(&mut expected, "email");
    text(&mut expected, "p-1");
    expected.extend(Sha256::digest(b"commitment"));
    expected.extend([0, 0, 0, 3, 1, 2, 3]);
    assert_eq!(event.canonical_bytes().unwrap(), expected);
    assert_eq!(event.leaf().unwrap(), Hash::leaf(&expected));
    assert_eq!(
        event.leaf().unwrap().to_string(),
        "8a11eda44663041b0a9bda05afa5063131ee233bb4b677860c5ab060d0bae6e2"
    );
}

fn batch() -> BatchRecord {
    let writer = WriterId::from_uuid("11111111-2222-4333-8444-555555555555".parse().unwrap());
    let chain = WriterChain::of(Origin::default(), writer);
    chain.seal(vec![event()], Some(&writer_key()), at()).unwrap().record().clone()
}

#[test]
fn the_bytes_of_a_batch() {
    let batch = batch();
    let leaf = event().leaf().unwrap();
    let mut manifest: Vec<u8> = Vec::new();
    manifest.extend(28_u32.to_be_bytes());
    manifest.extend(b"metertrail/audit/manifest/1\0");
    manifest.truncate(31);
    manifest[3] = 27;
    manifest.extend([0, 0, 0, 1, 0, 0, 0, 4]);
    manifest.extend(b"acme");
    manifest.extend([0, 0, 0, 1]);
    manifest.extend(event().id().as_uuid().as_bytes());
    manifest.extend(leaf.as_bytes());
    assert_eq!(batch.manifest, manifest);
    let mut header: Vec<u8> = vec![0, 0, 0, 24];
    header.extend(b"metertrail/audit/batch/1");
    header.extend([0, 0, 0, 16]);
    header.extend(b"metertrail/audit");
    header.extend(batch.writer_id.as_uuid().as_bytes());
    header.extend(0_u64.to_be_bytes());
    header.extend([0; 32]);
    header.extend(at().timestamp_micros().to_be_bytes());
    header.extend(1_u32.to_be_bytes());
    header.extend(leaf.as_bytes());
    header.extend(Sha256::digest(&manifest));
    header.extend(writer_key().verifying_key().key_hash());
    assert_eq!(batch.header, header);
    assert!(batch.is_signed_by(&[writer_key().verifying_key()]));
    assert_eq!(batch.hash().to_string(), "f6cc90deeef2d639a1cc95777763b1278a2579e2b680cfcf1add7078a85b61bf");
    // Ed25519 is deterministic.
    let signature = batch.signature.unwrap();
    assert_eq!(
        Hash::of(&signature).to_string(),
        "84cc34d7f0d455b05fcb026c5bbc4ab38617de8d3212395fbcefedb99cd084dc"
    );
}

#[test]
fn the_bytes_of_a_batch_are_read_strictly() {
    let good = batch();
    let (header, entries) = good.open().unwrap();
    assert_eq!((header.sequence, header.events, entries.len()), (0, 1, 1));
    let mut longer = good.clone();
    longer.header.push(0);
    assert!(longer.open().is_err());
    let mut other = good.clone();
    other.sequence = 1;
    assert!(other.open().is_err());
    for at in 0..good.header.len() {
        let mut cut = good.clone();
        cut.header.truncate(at);
        assert!(cut.open().is_err(), "{at}");
    }
    for at in 0..good.manifest.len() {
        let mut flipped = good.clone();
        flipped.manifest[at] ^= 1;
        assert!(flipped.open().is_err(), "{at}");
    }
}

#[test]
fn the_bytes_of_an_epoch() {
    let mut frontier = metertrail::audit::tree::Frontier::default();
    frontier.push(event().leaf().unwrap(), |_| {});
    let head = TenantHead { tenant_id: tenant("acme"), root: frontier.root(), frontier };
    let mut bytes: Vec<u8> = vec![0, 0, 0, 23];
    bytes.extend(b"metertrail/audit/head/1");
    bytes.extend([0, 0, 0, 4]);
    bytes.extend(b"acme");
    bytes.extend(1_u64.to_be_bytes());
    bytes.extend(head.root.as_bytes());
    assert_eq!(head.leaf(), Hash::leaf(&bytes));
    let root = tenants_root([&head]);
    assert_eq!(root, head.leaf());

    let mut bytes: Vec<u8> = vec![0, 0, 0, 24];
    bytes.extend(b"metertrail/audit/epoch/1");
    bytes.extend(7_u64.to_be_bytes());
    bytes.extend(at().timestamp_micros().to_be_bytes());
    bytes.extend(1_u64.to_be_bytes());
    bytes.extend(1_u64.to_be_bytes());
    bytes.extend(root.as_bytes());
    let epoch = EpochRecord::parse(&bytes).unwrap();
    assert_eq!((epoch.number, epoch.tenants, epoch.events, epoch.sealed_at), (7, 1, 1, at()));
    assert_eq!(epoch.to_bytes(), bytes);
    assert!(EpochRecord::parse(&bytes[..bytes.len() - 1]).is_err());
}

/// The example of Go's package `note`, whose authors made the format.
#[test]
fn a_note_that_others_signed_is_verified() {
    let key: AuditVerifyingKey =
        "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse().unwrap();
    assert_eq!((key.name(), key.key_hash()), ("PeterNeumann", [0xc7, 0x4f, 0x20, 0xa3]));
    let text = "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
    let signature =
        "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
    let signature = STANDARD.decode(signature).unwrap();
    assert_eq!(signature[..4], key.key_hash());
    assert!(key.verify(text.as_bytes(), signature[4..].try_into().unwrap()));
    assert!(!key.verify(text.to_uppercase().as_bytes(), signature[4..].try_into().unwrap()));
    let other =
        "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW".parse::<AuditVerifyingKey>();
    assert_eq!(other.unwrap_err().field(), Some("verifying_key"));
}

#[test]
fn the_text_of_a_checkpoint() {
    let checkpoint =
        Checkpoint::new(Origin::new("example.org/trail").unwrap(), 3, Hash::of(b"")).signed(&writer_key());
    let text = checkpoint.to_string();
    assert_eq!(
        text,
        "example.org/trail\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\u{2014} example.org/writer \
         sE4Z2todMeXv6Xx/Y6hjferXe4fuSQLIYa50HrgDxFO0GCdRgtbH80mPkmzx4Ypp2kRmnfnB81zY/WNro0O1xtibVAM=\n"
    );
    let read: Checkpoint = text.parse().unwrap();
    assert_eq!(read, checkpoint);
    assert!(read.is_signed_by(&writer_key().verifying_key()));
    for bad in
        [text.replace('3', "4"), text.replacen("trail", "other", 1), text.replace("\n\n", "\nmore\n\n")]
    {
        assert!(
            !bad.parse::<Checkpoint>().is_ok_and(|note| note.is_signed_by(&writer_key().verifying_key()))
        );
    }
    assert_eq!(
        writer_key().verifying_key().to_string(),
        "example.org/writer+b04e19da+AYqI4910CfGV/VLbLTy6XXLKZwm/HZQSG/N0iAG0D29c"
    );
}
