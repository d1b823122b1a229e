//! Alerts from the outside, on memory and on Postgres.

use metertrail::MemoryStore;

use crate::ledger;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_keeps_the_contract_of_alert_stores() {
    metertrail::testing::conformance::alert::all(async || MemoryStore::new()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn postgres_keeps_the_contract_of_alert_stores() {
    let mut databases = Vec::new();
    metertrail::testing::conformance::alert::all(async || {
        databases.push(ledger::database().await);
        ledger::store(databases.last().unwrap().url())
    })
    .await;
}
