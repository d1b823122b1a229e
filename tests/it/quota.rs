use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use metertrail::quota::*;
use metertrail::testing::postgres::{TestDatabase, TestPostgres};
use metertrail::{EventType, MemoryStore, PostgresStore, Store, TenantId, TokenUsage, UsageTracker};

fn catalogue(tokens: u64, calls: u64, messages: u64) -> Catalogue {
    let hard = |quota, amount| Limit::hard(quota, Window::Day, amount, WhenUnavailable::Deny).unwrap();
    let limits =
        [hard(Quota::Tokens, tokens), hard(Quota::ApiCalls, calls), hard(Quota::ChatMessages, messages)];
    Catalogue::new(Plan::new("pro", limits).unwrap())
}

async fn database() -> TestDatabase {
    TestPostgres::shared()
        .unwrap()
        .database_from(
            "migrated",
            |url| async move { PostgresStore::from_url(&url)?.migrate().await.map(drop) },
        )
        .await
        .unwrap()
}

async fn hold_50_settle_500(store: Arc<dyn Store>) {
    let quotas = QuotaEnforcer::start(Arc::clone(&store), catalogue(100, 1000, 1000)).unwrap();
    let tracker = UsageTracker::builder(Arc::clone(&store)).quotas(&quotas).start().unwrap();
    let tenant = TenantId::new("acme").unwrap();
    let decision = quotas.enforce(&tenant, &Quota::Tokens, 50).await.unwrap();
    assert!(decision.is_allowed());
    println!("{:#?}", decision.limits());
    tracker
        .track(&tenant, EventType::ChatMessage)
        .hold(decision.into_hold())
        .record_success(TokenUsage::reported(500, 0).unwrap())
        .await
        .unwrap();
    let status = quotas.quota_status(&tenant).await.unwrap();
    println!("{status:#?}");
    assert_eq!(status.limits[0].used, 500);
    let decision = quotas.enforce(&tenant, &Quota::Tokens, 1).await.unwrap();
    println!("{decision}");
    assert!(!decision.is_allowed());
    assert_eq!(quotas.quota_status(&tenant).await.unwrap().limits[0].held, 0);
    let never = quotas.enforce(&tenant, &Quota::Tokens, 101).await.unwrap();
    println!("{never}");
    assert_eq!(never.retry(), Some(Retry::Never));
}

#[tokio::test]
async fn memory_hold_50_settle_500() {
    hold_50_settle_500(Arc::new(MemoryStore::new())).await;
}

#[tokio::test]
async fn postgres_hold_50_settle_500() {
    let db = database().await;
    hold_50_settle_500(Arc::new(PostgresStore::connect(db.url()).await.unwrap())).await;
}

async fn contend(stores: Vec<Arc<dyn Store>>, direct: bool) {
    let limit = 100_000;
    let admitted = Arc::new([const { AtomicU64::new(0) }; 3]);
    let tenant = TenantId::new("acme").unwrap();
    let mut tasks = Vec::new();
    let mut enforcers = Vec::new();
    let started = std::time::Instant::now();
    for (index, store) in stores.into_iter().enumerate() {
        let builder = QuotaEnforcer::builder(Arc::clone(&store), catalogue(limit, 1_000_000, 1_000_000));
        let quotas = if direct { builder.direct() } else { builder }.start().unwrap();
        let tracker = UsageTracker::builder(Arc::clone(&store)).quotas(&quotas).start().unwrap();
        enforcers.push((quotas.clone(), tracker.clone()));
        for task in 0..4u64 {
            let (quotas, tracker, tenant, admitted) =
                (quotas.clone(), tracker.clone(), tenant.clone(), Arc::clone(&admitted));
            tasks.push(tokio::spawn(async move {
                let mut seed = index as u64 * 31 + task + 1;
                let mut refused = 0;
                loop {
                    seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let amount = 1 + (seed >> 33) % 500;
                    let amounts = [(Quota::Tokens, amount), (Quota::ApiCalls, 1), (Quota::ChatMessages, 1)];
                    let decision = quotas.enforce_multiple(&tenant, &amounts).await.unwrap();
                    if decision.is_allowed() {
                        admitted[0].fetch_add(amount, Ordering::Relaxed);
                        admitted[1].fetch_add(1, Ordering::Relaxed);
                        drop(
                            tracker
                                .track(&tenant, EventType::ChatMessage)
                                .hold(decision.into_hold())
                                .record_success(TokenUsage::reported(amount, 0).unwrap()),
                        );
                    } else {
                        refused += 1;
                        if refused > 200 {
                            break;
                        }
                    }
                    tokio::task::yield_now().await;
                }
            }));
        }
    }
    for task in tasks {
        task.await.unwrap();
    }
    println!(
        "{:?} admitted {:?} trips {}",
        started.elapsed(),
        admitted,
        enforcers.iter().map(|(q, _)| q.round_trips()).sum::<u64>()
    );
    assert!(admitted[0].load(Ordering::Relaxed) <= limit);
    for (_, tracker) in &enforcers {
        let _ = tracker.shutdown(Duration::from_secs(10)).await.unwrap();
    }
    for (quotas, _) in &enforcers {
        quotas.shutdown(Duration::from_secs(10)).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn memory_contend() {
    let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
    contend(vec![store; 8], false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn postgres_contend() {
    let db = database().await;
    let mut stores: Vec<Arc<dyn Store>> = Vec::new();
    for _ in 0..8 {
        stores.push(Arc::new(PostgresStore::connect(db.url()).await.unwrap()));
    }
    contend(stores.clone(), false).await;
    let quotas =
        QuotaEnforcer::start(Arc::clone(&stores[0]), catalogue(100_000, 1_000_000, 1_000_000)).unwrap();
    let tenant = TenantId::new("acme").unwrap();
    let status = quotas.quota_status(&tenant).await.unwrap();
    println!("{:#?}", status.limits[0]);
    let remaining = status.limits[0].remaining.unwrap();
    if remaining > 0 {
        let d = quotas.enforce(&tenant, &Quota::Tokens, remaining).await.unwrap();
        println!("{d} {:?}", d.limits());
        assert!(d.is_allowed());
    }
}
