//! Hands laid on at random: none is passed, and an untouched trail is never accused.

use std::sync::{Arc, OnceLock};

use chrono::TimeDelta;
use metertrail::MemoryStore;
use metertrail::audit::{AuditEvent, Hash, Severity};
use metertrail::store::AuditTables;
use metertrail::time::Clock;
use proptest::prelude::*;
use proptest::sample::Index;

use super::{Bed, keep, label, noon, sealer_key, uploaded, writer_key};

/// A trail of three tenants, one of them with more than a tile of leaves, in several epochs and with something unsealed.
fn trail() -> &'static AuditTables {
    static TRAIL: OnceLock<AuditTables> = OnceLock::new();
    TRAIL.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let bed = Bed::memory();
            for epoch in 0..3_i64 {
                let log = bed.log();
                let many = (0..100).map(|n| uploaded("acme", epoch * 1_000 + n)).collect::<Vec<AuditEvent>>();
                let few = (0..7).map(|n| uploaded(["bolt", "corp"][n as usize % 2], epoch * 1_000 + n));
                keep(&log, &[many, few.collect()]).await;
                log.seal_epoch().await.unwrap();
            }
            keep(&bed.log(), &[vec![uploaded("acme", 5_000), uploaded("bolt", 5_000)]]).await;
            bed.memory.unwrap().audit_tables()
        })
    })
}

fn verified(tables: AuditTables) -> metertrail::audit::VerifyReport {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = Arc::new(MemoryStore::from_audit_tables(tables));
    let verifier = metertrail::audit::Verifier::new(store)
        .writer_key(writer_key().verifying_key())
        .sealer_key(sealer_key().verifying_key());
    let now = metertrail::testing::ManualClock::new(noon() + TimeDelta::seconds(10)).now();
    runtime.block_on(verifier.full(now)).unwrap()
}

fn flip(bytes: &mut [u8], at: Index, bit: u8) {
    let at = at.index(bytes.len());
    bytes[at] ^= 1 << (bit % 8);
}

fn flipped(hash: Hash, at: Index, bit: u8) -> Hash {
    let mut bytes = *hash.as_bytes();
    flip(&mut bytes, at, bit);
    Hash::from_bytes(bytes)
}

/// One change of one table. Some change nothing; the caller compares.
fn change(tables: &mut AuditTables, what: u8, which: Index, at: Index, bit: u8) {
    fn key<K: Clone, V>(map: &std::collections::BTreeMap<K, V>, which: Index) -> K {
        map.keys().nth(which.index(map.len())).unwrap().clone()
    }
    match what % 20 {
        0 => drop(tables.events.remove(&key(&tables.events, which))),
        1 => {
            let key = key(&tables.events, which);
            let event = tables.events.get_mut(&key).unwrap();
            match bit % 6 {
                0 => event.severity = Severity::Critical,
                1 => event.action = label("other"),
                2 => event.represents += 1,
                3 => event.target = None,
                4 => event.actor = metertrail::audit::Actor::user("other").unwrap(),
                _ => event.schema_version += 1,
            }
        }
        2 => {
            let event = uploaded("acme", i64::from(bit));
            tables.events.insert((event.tenant_id.clone(), event.id()), event);
        }
        3 => {
            let (from, to) = (key(&tables.events, which), key(&tables.events, at));
            let (one, other) = (tables.events[&from].clone(), tables.events[&to].clone());
            tables.events.insert(from, other);
            tables.events.insert(to, one);
        }
        4 => drop(tables.batches.remove(&key(&tables.batches, which))),
        5 => flip(&mut tables.batches.get_mut(&key(&tables.batches, which)).unwrap().header, at, bit),
        6 => flip(&mut tables.batches.get_mut(&key(&tables.batches, which)).unwrap().manifest, at, bit),
        7 => {
            let batch = tables.batches.get_mut(&key(&tables.batches, which)).unwrap();
            if let Some(signature) = &mut batch.signature {
                flip(signature, at, bit);
            }
        }
        8 => tables.batches.get_mut(&key(&tables.batches, which)).unwrap().signature = None,
        9 => drop(tables.epochs.remove(&key(&tables.epochs, which))),
        10 => flip(&mut tables.epochs.get_mut(&key(&tables.epochs, which)).unwrap().record, at, bit),
        11 => flip(&mut tables.epochs.get_mut(&key(&tables.epochs, which)).unwrap().frontier, at, bit),
        12 => {
            let epoch = tables.epochs.get_mut(&key(&tables.epochs, which)).unwrap();
            let mut text: Vec<char> = epoch.checkpoint.chars().collect();
            let at = at.index(text.len());
            text[at] = if text[at] == 'A' { 'B' } else { 'A' };
            epoch.checkpoint = text.into_iter().collect();
        }
        13 => drop(tables.heads.remove(&key(&tables.heads, which))),
        14 => {
            let head = tables.heads.get_mut(&key(&tables.heads, which)).unwrap();
            head.root = flipped(head.root, at, bit);
        }
        15 => drop(tables.nodes.remove(&key(&tables.nodes, which))),
        16 => {
            let node = tables.nodes.get_mut(&key(&tables.nodes, which)).unwrap();
            node.0 = flipped(node.0, at, bit);
        }
        17 => drop(tables.leaves.remove(&key(&tables.leaves, which))),
        18 => {
            let leaf = tables.leaves.get_mut(&key(&tables.leaves, which)).unwrap();
            leaf.hash = flipped(leaf.hash, at, bit);
        }
        _ => tables.leaves.get_mut(&key(&tables.leaves, which)).unwrap().position += u64::from(bit) + 1,
    }
}

#[test]
fn an_untouched_trail_is_not_accused() {
    let report = verified(trail().clone());
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.events, report.batches), (321, 7));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn no_change_is_passed(changes in prop::collection::vec((any::<u8>(), any::<Index>(), any::<Index>(), any::<u8>()), 1..4)) {
        let mut tables = trail().clone();
        for (what, which, at, bit) in &changes {
            change(&mut tables, *what, *which, *at, *bit);
        }
        let is_changed = tables != *trail();
        let report = verified(tables);
        prop_assert_eq!(report.is_clean(), !is_changed, "{:?}: {:?}", changes, report.findings);
    }
}
