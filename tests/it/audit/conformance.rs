//! The conformance suite of audit stores on every store of the crate, bare and wrapped, one named test a case a store.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use metertrail::testing::conformance::audit::{AuditStoreUnderTest, CASES};
use metertrail::testing::{FaultyStore, SpyStore};
use metertrail::{AuditStore, MemoryStore, PostgresStore};

use crate::ledger;

mod memory {
    use super::*;

    metertrail::audit_store_conformance_tests!(async || MemoryStore::new());
}

mod postgres {
    use super::*;

    metertrail::audit_store_conformance_tests!(async || on_postgres(|store| store).await);
}

mod faulty_memory {
    use super::*;

    metertrail::audit_store_conformance_tests!(async || FaultyStore::new(MemoryStore::new()));
}

mod faulty_postgres {
    use super::*;

    metertrail::audit_store_conformance_tests!(async || on_postgres(FaultyStore::new).await);
}

mod spied_memory {
    use super::*;

    metertrail::audit_store_conformance_tests!(async || SpyStore::new(MemoryStore::new()));
}

mod spied_postgres {
    use super::*;

    metertrail::audit_store_conformance_tests!(async || on_postgres(SpyStore::new).await);
}

async fn on_postgres<S: AuditStore>(wrapped: impl FnOnce(PostgresStore) -> S) -> AuditStoreUnderTest {
    let database = ledger::database().await;
    AuditStoreUnderTest::from(wrapped(ledger::store(database.url()))).keeping(database)
}

/// The list of cases is written by hand: nobody must forget to enter a new one.
#[test]
fn every_case_is_in_the_list() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testing/conformance/audit");
    let mut written = BTreeSet::new();
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let group = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("pub async fn "));
        let names = names.filter_map(|line| line.split_once("(store: &Arc<dyn AuditStore>)"));
        written.extend(names.map(|(name, _)| (group.clone(), name.to_owned())));
    }
    let listed: BTreeSet<(String, String)> =
        CASES.iter().map(|case| (case.group().to_owned(), case.name().to_owned())).collect();
    assert_eq!(listed, written);
    assert_eq!(listed.len(), CASES.len(), "a case is listed twice");
}
