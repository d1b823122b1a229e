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

/// How one value of a column becomes another of its type, in SQL.
fn mutated(column: &str, kind: &str, bit: u64) -> String {
    match kind {
        "text" => format!("coalesce({column}, '') || 'x'"),
        "bytea" => format!(
            "coalesce(set_byte({column}, {bit} % nullif(length({column}), 0),
                get_byte({column}, {bit} % nullif(length({column}), 0)) # (1 << ({bit} % 8))), '\\x00')"
        ),
        "uuid" => format!(
            "overlay(coalesce({column}, '01900000-0000-7000-8000-000000000000')::text
                PLACING CASE right({column}::text, 1) WHEN '0' THEN '1' ELSE '0' END FROM 36)::uuid"
        ),
        "jsonb" => format!("coalesce({column}, '{{}}') || '{{\"x\": 1}}'"),
        "timestamp with time zone" => format!("{column} + interval '1 microsecond'"),
        "smallint" | "integer" | "bigint" => format!("{column} + 1000"),
        other => panic!("a column of type {other}"),
    }
}

/// Every column of every table that seals speak of, and every table's rows, each with a row at random: no hand passes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_change_of_a_column_is_passed_on_postgres() {
    let bed = Bed::postgres().await;
    let log = bed.log();
    let person = metertrail::audit::PersonalData::new("p-1", "ada@example.org").unwrap();
    let personal = |n| uploaded("acme", n).with_personal("email", person.clone()).unwrap();
    keep(&log, &[(0..5).map(personal).collect(), (5..9).map(|n| uploaded("bolt", n)).collect()]).await;
    log.seal_epoch().await.unwrap();
    keep(&log, &[(9..12).map(personal).collect()]).await;
    log.seal_epoch().await.unwrap();
    keep(&log, &[vec![uploaded("acme", 20), uploaded("corp", 20)]]).await;
    let database = bed.database.as_ref().unwrap();
    let hand = crate::ledger::client(database.url()).await;
    hand.batch_execute("SET session_replication_role = replica; CREATE SCHEMA old").await.unwrap();
    let tables =
        ["audit_events", "audit_batches", "audit_unsealed", "audit_epochs", "audit_heads", "audit_tree"];
    let mut changes = Vec::new();
    for table in tables {
        hand.batch_execute(&format!("CREATE TABLE old.{table} AS TABLE metertrail.{table}")).await.unwrap();
        changes.push((table, "DELETE".to_owned(), "DELETE FROM".to_owned(), String::new()));
        let columns = hand
            .query(
                "SELECT column_name::text, data_type::text FROM information_schema.columns
                WHERE table_schema = 'metertrail' AND table_name = $1",
                &[&table],
            )
            .await
            .unwrap();
        for row in &columns {
            let (column, kind): (String, String) = (row.get(0), row.get(1));
            // When a batch began to wait is nothing that anybody relies on.
            if (table, column.as_str()) != ("audit_unsealed", "sealed_at") {
                let column = format!("\"{column}\"");
                let value = mutated(&column, &kind, 5);
                changes.push((table, column.clone(), "UPDATE".to_owned(), format!("SET {column} = {value}")));
            }
        }
    }
    assert!(changes.len() > 40, "{}", changes.len());
    let report = bed.verified().await;
    assert!(report.is_clean(), "{:?}", report.findings);
    for (index, (table, what, verb, set)) in changes.iter().enumerate() {
        // Rows of no partition key in common: by the place that they have in a shuffled order of their own text.
        let sql = format!(
            "{verb} metertrail.{table} AS t {set} WHERE (t.tableoid, t.ctid) =
                (SELECT o.tableoid, o.ctid FROM metertrail.{table} AS o ORDER BY md5(o::text || '{index}') LIMIT 1)"
        );
        let rows = hand.execute(sql.as_str(), &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        assert_eq!(rows, 1, "{sql}");
        let report = bed.verified().await;
        assert!(!report.is_clean(), "{what} of a row of {table} was changed and passed");
        let undo = format!(
            "DELETE FROM metertrail.{table}; INSERT INTO metertrail.{table} SELECT * FROM old.{table}"
        );
        hand.batch_execute(&undo).await.unwrap();
    }
    assert!(bed.verified().await.is_clean());
}
