//! The Postgres store and its database: migrations, states of the server, SQL as people type it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use deadpool_postgres::{Hook, HookError, Manager, Pool, Runtime};
use metertrail::store::Appended;
use metertrail::testing::postgres::{TestDatabase, TestPostgres, TestPostgresOptions};
use metertrail::time::{Clock, Period, SystemClock, TimeRange, Zone};
use metertrail::usage::{Latency, TopConsumersQuery};
use metertrail::{
    Error, ErrorKind, EventId, EventQuery, EventType, LatencySketch, Measure, Outcome, PostgresStore,
    Quantile, Result, Store, TenantId, TokenUsage, UsageEvent, UsageTracker,
};
use rust_decimal::Decimal;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use crate::ledger::{
    check_books, client, count, database, empty_database, persistently, roll_up_all, store, until,
    until_alone, within,
};
use crate::proxy::Proxy;

const MINUTE: Duration = Duration::from_secs(60);

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn event(occurred_at: DateTime<Utc>) -> UsageEvent {
    let mut event = UsageEvent::new(tenant(), EventType::ChatMessage, Outcome::Success, occurred_at).unwrap();
    event.tokens = TokenUsage::reported(10, 5).unwrap();
    event.latency = Some(Latency::new(Duration::from_millis(20)).unwrap());
    event
}

fn events_on(day: &str, number: i64) -> Vec<UsageEvent> {
    let start = at(&format!("{day}T10:00:00Z"));
    (0..number).map(|second| event(start + TimeDelta::seconds(second))).collect()
}

// Statements and migrations.

#[tokio::test]
async fn every_statement_prepares_on_a_migrated_database() {
    let database = database().await;
    let client = client(database.url()).await;
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres/sql");
    let mut prepared = 0;
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let sql = fs::read_to_string(&path).unwrap();
        assert!(sql.starts_with("-- "), "{name} does not begin with its purpose");
        if name == "create_schema.sql" {
            // Several statements, each harmless when repeated.
            client.batch_execute(&sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        } else {
            let statement = client.prepare(&sql).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let parameters = statement.params().len();
            let last = (1..100).find(|number| !sql.contains(&format!("${number}"))).unwrap() - 1;
            assert_eq!(parameters, last, "{name} does not use all of its parameters");
        }
        prepared += 1;
    }
    assert!(prepared >= 20, "only {prepared} statements were found");
}

/// Names in statements are qualified, so that no `search_path` of a host's role leads them astray.
#[tokio::test]
async fn every_statement_prepares_with_an_empty_search_path() {
    let database = database().await;
    let client = client(database.url()).await;
    client.batch_execute("SET search_path = ''").await.unwrap();
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/store/postgres/sql");
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let sql = fs::read_to_string(&path).unwrap();
        if !path.ends_with("create_schema.sql") {
            client.prepare(&sql).await.unwrap_or_else(|error| panic!("{}: {error:?}", path.display()));
        }
    }
}

async fn migrate_by_eight(url: &str) -> Vec<Result<Vec<String>>> {
    let mut tasks = JoinSet::new();
    for _ in 0..8 {
        // A pool each, as eight processes have.
        let store = store(url);
        tasks.spawn(async move { store.migrate().await.map(|migrated| migrated.applied) });
    }
    within("eight migrations", MINUTE, tasks.join_all()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_migrate_at_once() {
    let database = empty_database().await;
    let applied = migrate_by_eight(database.url()).await;
    let applied: Vec<Vec<String>> = applied.into_iter().map(Result::unwrap).collect();
    assert_eq!(applied.iter().filter(|applied| !applied.is_empty()).count(), 1, "{applied:?}");
    let store = store(database.url());
    store.check().await.unwrap();
    assert_eq!(store.append(&[event(SystemClock.now())], &[]).await.unwrap(), [Appended::New]);
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_processes_migrate_at_once_whatever_isolation_their_role_has() {
    for isolation in ["repeatable read", "serializable"] {
        let database = with_setting("default_transaction_isolation", isolation).await;
        let applied = migrate_by_eight(database.url()).await;
        let failures: Vec<&Error> = applied.iter().filter_map(|applied| applied.as_ref().err()).collect();
        assert!(failures.is_empty(), "{isolation}: {failures:?}");
        assert_eq!(applied.iter().flatten().filter(|applied| !applied.is_empty()).count(), 1);
    }
}

/// An empty database in which every session begins with a setting.
async fn with_setting(name: &str, value: &str) -> TestDatabase {
    let database = empty_database().await;
    set(&database, name, value).await;
    database
}

async fn set(database: &TestDatabase, name: &str, value: &str) {
    let statement = format!("ALTER DATABASE \"{}\" SET {name} = '{value}'", database.name());
    client(database.url()).await.batch_execute(&statement).await.unwrap();
}

#[tokio::test]
async fn migrating_again_changes_nothing() {
    let database = empty_database().await;
    let store = store(database.url());
    let first = store.migrate().await.unwrap();
    assert_eq!(first.applied, ["usage", "quota", "audit", "cost", "upkeep", "alerts"]);
    let objects = "SELECT count(*) FROM pg_class";
    let client = client(database.url()).await;
    store.append(&[event(SystemClock.now())], &[]).await.unwrap();
    let before = count(&client, objects).await;
    let again = store.migrate().await.unwrap();
    assert_eq!((again.version, again.applied), (first.version, Vec::new()));
    assert_eq!(count(&client, objects).await, before);
    assert_eq!(check_books(database.url()).await, 1);
}

#[tokio::test]
async fn the_printed_sql_makes_the_same_schema() {
    let (printed, migrated) = (empty_database().await, database().await);
    client(printed.url()).await.batch_execute(&PostgresStore::migration_sql()).await.unwrap();
    let shape = "SELECT string_agg(format('%s.%s %s %s', table_schema, table_name, column_name, data_type), E'\\n' \
                 ORDER BY 1) FROM (SELECT * FROM information_schema.columns WHERE table_schema IN ('metertrail', 'public') \
                 ORDER BY table_schema, table_name, ordinal_position) AS columns";
    let of = async |database: &TestDatabase| -> String {
        client(database.url()).await.query_one(shape, &[]).await.unwrap().get(0)
    };
    assert_eq!(of(&printed).await, of(&migrated).await);
}

#[tokio::test]
async fn another_checksum_is_a_schema_error() {
    let database = database().await;
    let admin = client(database.url()).await;
    admin.execute("UPDATE metertrail.schema_migrations SET checksum = 'f00'", &[]).await.unwrap();
    let store = store(database.url());
    for error in [store.migrate().await.unwrap_err(), store.check().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Schema);
        assert!(!error.is_transient() && error.to_string().contains("another build"), "{error}");
    }
}

#[tokio::test]
async fn a_schema_that_is_too_new_is_an_error_that_says_so() {
    let database = database().await;
    let admin = client(database.url()).await;
    let newer = "INSERT INTO metertrail.schema_migrations VALUES (900, 'of the future', 'f00')";
    admin.execute(newer, &[]).await.unwrap();
    let store = store(database.url());
    for error in [store.migrate().await.unwrap_err(), store.check().await.unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Schema);
        assert!(error.to_string().contains("900") && error.to_string().contains("newer"), "{error}");
    }
    let error = PostgresStore::connect(database.url()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema);
}

#[tokio::test]
async fn without_a_migration_every_call_is_a_schema_error_that_names_the_fix() {
    let database = empty_database().await;
    let store = store(database.url());
    let day = Period::Day.range_at(SystemClock.now(), Zone::UTC);
    let mut host = client(database.url()).await;
    let transaction = host.transaction().await.unwrap();
    let errors = [
        store.check().await.unwrap_err(),
        PostgresStore::connect(database.url()).await.unwrap_err(),
        store.append(&[event(day.start())], &[]).await.unwrap_err(),
        store.append_in(&transaction, &[event(day.start())]).await.unwrap_err(),
        store.roll_up(10).await.unwrap_err(),
        store.usage(&tenant(), &[day]).await.unwrap_err(),
        store.top_consumers(&TopConsumersQuery::new(Measure::Calls, day, 3).unwrap()).await.unwrap_err(),
        store
            .top_consumers(
                &TopConsumersQuery::new(
                    Measure::Custom(metertrail::Label::new("measure", "pages").unwrap()),
                    day,
                    3,
                )
                .unwrap(),
            )
            .await
            .unwrap_err(),
        store.summary(day).await.unwrap_err(),
        store.events(&EventQuery::new(tenant(), day)).await.unwrap_err(),
    ];
    for (position, error) in errors.iter().enumerate() {
        assert_eq!(error.kind(), ErrorKind::Schema, "call {position}: {error:?}");
        assert!(error.to_string().contains("migrate"), "call {position}: {error}");
    }
}

#[tokio::test]
async fn a_tracker_that_meets_no_schema_loses_nothing() {
    let database = empty_database().await;
    let tracker = UsageTracker::start(store(database.url())).unwrap();
    let acks: Vec<_> = events_on("2026-03-01", 50).into_iter().map(|event| tracker.record(event)).collect();
    until("the tracker has met the database", async || tracker.health().retries > 0).await;
    assert_eq!(tracker.health().last_error.unwrap().kind(), ErrorKind::Schema);
    store(database.url()).migrate().await.unwrap();
    for ack in acks {
        within("an acknowledgement", MINUTE, ack.into_future()).await.unwrap();
    }
    let report = tracker.shutdown(MINUTE).await.unwrap();
    assert_eq!((report.written, report.rejected.len(), report.unwritten.len()), (50, 0, 0));
    assert_eq!(check_books(database.url()).await, 50);
}

#[tokio::test]
async fn views_leave_names_of_the_host_alone() {
    let database = empty_database().await;
    let admin = client(database.url()).await;
    admin
        .batch_execute("CREATE TABLE public.audit_events (mine int); INSERT INTO audit_events VALUES (7)")
        .await
        .unwrap();
    let store = store(database.url());
    store.migrate().await.unwrap();
    assert_eq!(count(&admin, "SELECT mine::bigint FROM public.audit_events").await, 7);
    assert_eq!(count(&admin, "SELECT count(*) FROM metertrail.audit_events").await, 0);
    store.append(&[event(SystemClock.now())], &[]).await.unwrap();
    assert_eq!(count(&admin, "SELECT count(*) FROM public.tenant_usage_realtime").await, 1);
}

/// A hardened database has no schema `public`, or none in which the role may make anything.
#[tokio::test]
async fn a_database_without_a_public_schema_can_be_migrated() {
    let database = empty_database().await;
    client(database.url()).await.batch_execute("DROP SCHEMA public").await.unwrap();
    let store = store(database.url());
    store.migrate().await.unwrap();
    store.append(&[event(SystemClock.now())], &[]).await.unwrap();
    assert_eq!(check_books(database.url()).await, 1);
}

/// Since PostgreSQL 15 only the owner of a database may make tables in `public`.
#[tokio::test]
async fn a_role_that_may_make_nothing_in_public_can_migrate() {
    let database = empty_database().await;
    let admin = client(database.url()).await;
    let role = format!("role_{}", database.name());
    let statements = format!(
        "CREATE ROLE \"{role}\" LOGIN PASSWORD 'x'; GRANT CREATE ON DATABASE \"{}\" TO \"{role}\"",
        database.name()
    );
    admin.batch_execute(&statements).await.unwrap();
    let mut config = tokio_postgres::Config::from_str(database.url()).unwrap();
    config.user(&role).password("x");
    let pool = Pool::builder(Manager::new(config, NoTls)).runtime(Runtime::Tokio1).build().unwrap();
    let store = PostgresStore::from_pool(pool.clone());
    let migrated = store.migrate().await;
    let used = store.append(&[event(SystemClock.now())], &[]).await;
    pool.close();
    until_alone(&admin).await;
    admin.batch_execute(&format!("DROP OWNED BY \"{role}\" CASCADE; DROP ROLE \"{role}\"")).await.unwrap();
    assert_eq!(migrated.unwrap().applied, ["usage", "quota", "audit", "cost", "upkeep", "alerts"]);
    assert_eq!(used.unwrap(), [Appended::New]);
}

// The state of the server.

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_database_is_unavailable_within_the_timeout() {
    // Refused: nobody listens on a port that was just given back.
    let refused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    // A black hole: connections are accepted, and that is all.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let black = listener.local_addr().unwrap();
    let hole = tokio::spawn(async move {
        let mut tasks = JoinSet::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            tasks.spawn(async move { while socket.read_u8().await.is_ok() {} });
        }
    });
    let day = Period::Day.range_at(SystemClock.now(), Zone::UTC);
    for (address, limit) in [(refused, 1), (black, 1)] {
        let url = format!("host=127.0.0.1 port={} user=x dbname=x", address.port());
        let limit = Duration::from_secs(limit);
        let store = store(&url).with_timeout(limit);
        let calls = async {
            let batch = [event(day.start())];
            let (append, usage, roll_up, check, migrate, connect) = tokio::join!(
                store.append(&batch, &[]),
                store.usage(&batch[0].tenant_id, std::slice::from_ref(&day)),
                store.roll_up(1),
                store.check(),
                store.migrate(),
                PostgresStore::connect(&url),
            );
            [
                append.unwrap_err(),
                usage.unwrap_err(),
                roll_up.unwrap_err(),
                check.unwrap_err(),
                migrate.unwrap_err(),
                connect.unwrap_err(),
            ]
        };
        for error in within("errors", Duration::from_secs(8), Box::pin(calls)).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            assert!(error.is_transient());
        }
    }
    hole.abort();
}

/// Also connections that were good, in the middle of a call.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_falls_silent_is_unavailable_within_the_timeout() {
    let database = database().await;
    let proxy = Proxy::start(database.url()).await;
    let store = store(proxy.url()).with_timeout(Duration::from_millis(500));
    store.append(&[event(SystemClock.now())], &[]).await.unwrap();
    proxy.blacken();
    let error = within("an error", Duration::from_secs(5), store.append(&[event(SystemClock.now())], &[]))
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(proxy.commits() > 0 && proxy.connections() > 0);
}

fn pool(database: &TestDatabase, size: usize) -> Pool {
    let config = tokio_postgres::Config::from_str(database.url()).unwrap();
    Pool::builder(Manager::new(config, NoTls)).max_size(size).runtime(Runtime::Tokio1).build().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_a_free_connection_is_unavailable_and_loses_nothing() {
    let database = database().await;
    let pool = pool(&database, 1);
    let store = PostgresStore::from_pool(pool.clone());
    let held = pool.get().await.unwrap();
    let tracker = UsageTracker::start(store.clone()).unwrap();
    let acks: Vec<_> = events_on("2026-03-01", 30).into_iter().map(|event| tracker.record(event)).collect();
    let error = within("an error", MINUTE, store.check()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("give the pool more connections"), "{error}");
    until("the tracker has met the pool", async || tracker.health().retries > 0).await;
    drop(held);
    for ack in acks {
        within("an acknowledgement", MINUTE, ack.into_future()).await.unwrap();
    }
    assert_eq!(tracker.shutdown(MINUTE).await.unwrap().written, 30);
    assert_eq!(check_books(database.url()).await, 30);
}

/// Whoever shortens the timeout must still be told what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_a_free_connection_says_so_under_a_short_timeout_too() {
    let database = database().await;
    let pool = pool(&database, 1);
    let _held = pool.get().await.unwrap();
    let store = PostgresStore::from_pool(pool.clone()).with_timeout(Duration::from_millis(500));
    let error = within("an error", Duration::from_secs(10), store.check()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("give the pool more connections"), "{error}");
}

/// A pool of one is enough: no call needs a second connection while it holds one.
#[tokio::test(flavor = "multi_thread")]
async fn one_connection_is_enough_though_a_partition_was_dropped() {
    let database = database().await;
    let store = PostgresStore::from_pool(pool(&database, 1));
    store.append(&events_on("2026-03-02", 2), &[]).await.unwrap();
    let drop = "DROP TABLE metertrail.tenant_usage_realtime_20260302";
    client(database.url()).await.batch_execute(drop).await.unwrap();
    let appended = within("the append", MINUTE, store.append(&events_on("2026-03-02", 2), &[])).await;
    assert_eq!(appended.unwrap(), [Appended::New; 2]);
}

/// A host that has all connections of its pool in such transactions would wait for itself.
#[tokio::test(flavor = "multi_thread")]
async fn append_in_needs_no_second_connection_when_the_partition_is_there() {
    let database = database().await;
    store(database.url()).append(&events_on("2026-03-02", 1), &[]).await.unwrap();
    let pool = pool(&database, 1);
    let store = PostgresStore::from_pool(pool.clone());
    let mut host = pool.get().await.unwrap();
    let transaction = host.transaction().await.unwrap();
    let appended =
        within("append_in", MINUTE, store.append_in(&transaction, &events_on("2026-03-02", 2))).await;
    assert_eq!(appended.unwrap(), [Appended::New; 2]);
    transaction.commit().await.unwrap();
    assert_eq!(check_books(database.url()).await, 3);
}

/// A hook that fails is the state of the database or of the host, not a fault of the events.
#[tokio::test(flavor = "multi_thread")]
async fn a_hosts_hook_that_fails_for_a_while_loses_nothing() {
    let database = database().await;
    let config = tokio_postgres::Config::from_str(database.url()).unwrap();
    let fails = Arc::new(AtomicBool::new(true));
    let failing = Arc::clone(&fails);
    let hook = Hook::sync_fn(move |_, _| {
        let fails = failing.load(Ordering::Acquire);
        if fails { Err(HookError::message("the secrets service does not answer")) } else { Ok(()) }
    });
    let builder = Pool::builder(Manager::new(config, NoTls)).runtime(Runtime::Tokio1);
    let pool = builder.post_create(hook).build().unwrap();
    let tracker = UsageTracker::start(PostgresStore::from_pool(pool)).unwrap();
    let acks: Vec<_> = events_on("2026-03-01", 10).into_iter().map(|event| tracker.record(event)).collect();
    until("the tracker has met the pool", async || tracker.health().retries + tracker.health().rejected > 0)
        .await;
    fails.store(false, Ordering::Release);
    for ack in acks {
        within("an acknowledgement", MINUTE, ack.into_future()).await.unwrap();
    }
    assert_eq!(tracker.shutdown(MINUTE).await.unwrap().rejected.len(), 0);
    assert_eq!(check_books(database.url()).await, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_without_a_runtime_works_and_its_waits_have_an_end() {
    let database = database().await;
    let config = tokio_postgres::Config::from_str(database.url()).unwrap();
    let pool = Pool::builder(Manager::new(config, NoTls)).max_size(1).build().unwrap();
    let store = PostgresStore::from_pool(pool.clone()).with_timeout(Duration::from_secs(1));
    store.check().await.unwrap();
    let only_one = pool.get().await.unwrap();
    let error = within("the wait for a connection", MINUTE, store.check()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.to_string().contains("more connections"), "{error}");
    drop(only_one);
    store.check().await.unwrap();
}

/// What the builder takes must not turn into a refusal of the events.
#[tokio::test]
async fn odd_timeouts_lose_nothing() {
    let database = database().await;
    for (position, timeout) in
        [Duration::MAX, Duration::from_secs(60 * 60 * 24 * 365), Duration::from_micros(900_500)]
            .into_iter()
            .enumerate()
    {
        let store = store(database.url()).with_timeout(timeout);
        let appended = store.append(&[event(SystemClock.now())], &[]).await;
        assert!(matches!(appended.as_deref(), Ok([Appended::New])), "{timeout:?}: {appended:?}");
        store.roll_up(10).await.unwrap();
        assert_eq!(check_books(database.url()).await, position as i64 + 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_database_is_waited_for() {
    let database = database().await;
    set(&database, "default_transaction_read_only", "on").await;
    let tracker = UsageTracker::start(store(database.url())).unwrap();
    let ack = tracker.record(event(SystemClock.now()));
    until("the tracker has met the database", async || tracker.health().retries > 0).await;
    assert_eq!(tracker.health().last_error.unwrap().kind(), ErrorKind::Unavailable);
    let admin = client(TestPostgres::shared().unwrap().url()).await;
    let off = format!("ALTER DATABASE \"{}\" SET default_transaction_read_only = off", database.name());
    admin.batch_execute(&off).await.unwrap();
    within("the acknowledgement", MINUTE, ack.into_future()).await.unwrap();
    assert_eq!(check_books(database.url()).await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_setting_of_a_hosts_role_gives_right_answers() {
    for (name, value) in [
        ("search_path", ""),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_isolation", "repeatable read"),
        ("synchronous_commit", "off"),
        ("timezone", "Asia/Kathmandu"),
        ("datestyle", "SQL, DMY"),
        ("intervalstyle", "sql_standard"),
        ("bytea_output", "escape"),
        ("standard_conforming_strings", "off"),
        ("extra_float_digits", "-15"),
        ("quote_all_identifiers", "on"),
        ("plan_cache_mode", "force_generic_plan"),
        ("enable_partition_pruning", "off"),
        ("jit_above_cost", "0"),
    ] {
        let database = with_setting(name, value).await;
        let store = store(database.url());
        store.migrate().await.unwrap_or_else(|error| panic!("{name} = '{value}': {error:?}"));
        let shown: String =
            client(database.url()).await.query_one(&format!("SHOW {name}"), &[]).await.unwrap().get(0);
        assert_eq!(shown.trim_matches('"'), value);
        let mut tasks = JoinSet::new();
        for writer in 0..4 {
            let store = store.clone();
            tasks.spawn(async move {
                for round in 0..5 {
                    let mut batch = events_on("2026-03-31", 5);
                    for (index, event) in batch.iter_mut().enumerate() {
                        // All writers' keys meet.
                        let key = format!("{round}-{index}");
                        event.idempotency_key = Some(metertrail::Label::new("idempotency_key", key).unwrap());
                    }
                    batch.push(event(at("2026-03-31T23:59:59.999Z") + TimeDelta::milliseconds(writer)));
                    let appended = persistently(|| store.append(&batch, &[])).await.unwrap();
                    assert_eq!(appended[5], Appended::New);
                    persistently(|| store.roll_up(3)).await.unwrap();
                    let day = Period::Day.range_at(at("2026-03-31T12:00:00Z"), Zone::UTC);
                    let usage = persistently(|| store.usage(&batch[0].tenant_id, std::slice::from_ref(&day)))
                        .await
                        .unwrap();
                    assert!(usage[0].calls >= 5, "{usage:?}");
                }
            });
        }
        within(name, MINUTE, tasks.join_all()).await;
        assert_eq!(check_books(database.url()).await, 25 + 20, "{name} = '{value}'");
    }
}

/// `set_config` inside of the transaction makes the difference: a plain insert of the same role is lost by the crash.
#[tokio::test(flavor = "multi_thread")]
async fn an_acknowledgement_is_durable_though_the_role_commits_asynchronously() {
    let options =
        TestPostgresOptions::new().setting("synchronous_commit", "off").setting("wal_writer_delay", "10s");
    let mut postgres = TestPostgres::start(options).unwrap();
    let database = postgres.create_database(None).await.unwrap();
    let store = store(database.url());
    store.migrate().await.unwrap();
    let plain = client(database.url()).await;
    plain.batch_execute("CREATE TABLE plain (id int); SET synchronous_commit = on; INSERT INTO plain VALUES (0); SET synchronous_commit = off").await.unwrap();
    let day = Period::Day.range_at(SystemClock.now(), Zone::UTC);
    for round in 1..=3_u64 {
        let plain = client(database.url()).await;
        let appended = store.append(&[event(day.start())], &[]).await;
        assert!(appended.is_ok() || round > 1, "{appended:?}");
        let appended =
            if appended.is_err() { store.append(&[event(day.start())], &[]).await } else { appended };
        assert_eq!(appended.unwrap(), [Appended::New]);
        plain.execute("INSERT INTO plain VALUES ($1)", &[&i32::try_from(round).unwrap()]).await.unwrap();
        postgres.restart_immediate().await.unwrap();
        let usage = persistently(|| store.usage(tenant_ref(), std::slice::from_ref(&day))).await.unwrap();
        assert_eq!(usage[0].calls, round, "an acknowledged event was lost");
    }
    let kept = count(&client(database.url()).await, "SELECT count(*) FROM plain").await;
    assert!(kept < 4, "this machine loses nothing in a crash, so the test shows nothing");
}

fn tenant_ref() -> &'static TenantId {
    static TENANT: std::sync::OnceLock<TenantId> = std::sync::OnceLock::new();
    TENANT.get_or_init(tenant)
}

// Partitions.

#[tokio::test]
async fn events_of_forty_days_in_one_batch() {
    let database = database().await;
    let store = store(database.url());
    let first = at("2026-01-20T23:59:59.9995Z");
    let batch: Vec<UsageEvent> = (0..40)
        .flat_map(|day| [0, 1].map(|ms| event(first + TimeDelta::days(day) + TimeDelta::milliseconds(ms))))
        .collect();
    assert_eq!(store.append(&batch, &[]).await.unwrap(), vec![Appended::New; 80]);
    assert_eq!(store.append(&batch, &[]).await.unwrap(), vec![Appended::Duplicate; 80]);
    let stray = "SELECT count(*) FROM metertrail.tenant_usage_realtime WHERE right(tableoid::regclass::text, 8) <> \
                 to_char(\"timestamp\" AT TIME ZONE 'UTC', 'YYYYMMDD')";
    assert_eq!(count(&client(database.url()).await, stray).await, 0);
    assert_eq!(check_books(database.url()).await, 80);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_that_need_the_same_new_partitions_at_once_all_succeed() {
    let database = database().await;
    for month in 1..=4 {
        let mut tasks = JoinSet::new();
        for _ in 0..6 {
            let store = store(database.url());
            tasks.spawn(async move {
                let batch: Vec<UsageEvent> =
                    (1..=5).flat_map(|day| events_on(&format!("2027-{month:02}-{day:02}"), 2)).collect();
                store.check().await.unwrap();
                store.append(&batch, &[]).await.map(|appended| appended.len())
            });
        }
        for appended in within("appends", MINUTE, tasks.join_all()).await {
            assert_eq!(appended.unwrap(), 10);
        }
    }
    assert_eq!(check_books(database.url()).await, 240);
}

async fn without_partition(day: &str, how: &str) -> (TestDatabase, PostgresStore, Vec<UsageEvent>) {
    let database = database().await;
    let store = store(database.url());
    let kept = events_on("2026-03-01", 3);
    store.append(&kept, &[]).await.unwrap();
    store.append(&events_on(day, 1), &[]).await.unwrap();
    roll_up_all(&store).await;
    let table = format!("metertrail.tenant_usage_realtime_{}", day.replace('-', ""));
    client(database.url()).await.batch_execute(&how.replace("TABLE_", &table)).await.unwrap();
    (database, store, kept)
}

const DROP: &str = "DROP TABLE TABLE_";
const DETACH: &str = "ALTER TABLE metertrail.tenant_usage_realtime DETACH PARTITION TABLE_";

#[tokio::test]
async fn a_dropped_partition_is_made_again() {
    let (database, store, _) = without_partition("2026-03-02", DROP).await;
    assert_eq!(store.append(&events_on("2026-03-02", 5), &[]).await.unwrap(), [Appended::New; 5]);
    assert_eq!(
        count(&client(database.url()).await, "SELECT count(*) FROM metertrail.tenant_usage_realtime").await,
        8
    );
}

/// The careful way has to find it missing too.
#[tokio::test]
async fn a_dropped_partition_is_made_again_for_a_batch_with_repetitions() {
    let (_database, store, kept) = without_partition("2026-03-02", DROP).await;
    let mut batch = events_on("2026-03-02", 3);
    batch.extend(kept.iter().cloned());
    batch.push(batch[0].clone());
    let appended = persistently(|| store.append(&batch, &[])).await.unwrap();
    assert_eq!(&appended[..3], [Appended::New; 3]);
    assert_eq!(&appended[3..], [Appended::Duplicate; 4]);
}

#[tokio::test]
async fn a_dropped_partition_is_made_again_for_the_callers_next_transaction() {
    let (database, store, _) = without_partition("2026-03-02", DROP).await;
    let host = tokio::sync::Mutex::new(client(database.url()).await);
    let batch = events_on("2026-03-02", 3);
    let call = || async {
        let mut host = host.lock().await;
        let transaction = host.transaction().await.unwrap();
        let appended = store.append_in(&transaction, &batch).await?;
        transaction.commit().await.unwrap();
        Ok(appended)
    };
    assert_eq!(persistently(call).await.unwrap(), [Appended::New; 3]);
}

/// A detached partition, which somebody is about to archive, still has the name. That is no fault of the events: they
/// have to wait and not be refused for good.
#[tokio::test(flavor = "multi_thread")]
async fn events_wait_for_a_detached_partition() {
    let (database, store, _) = without_partition("2026-03-02", DETACH).await;
    let tracker = UsageTracker::start(store).unwrap();
    let ack = tracker.record(events_on("2026-03-02", 1).remove(0));
    until("the tracker has met the database", async || {
        tracker.health().retries + tracker.health().rejected > 0
    })
    .await;
    assert_eq!(tracker.health().rejected, 0, "{:?}", tracker.health());
    let admin = client(database.url()).await;
    admin.batch_execute("DROP TABLE metertrail.tenant_usage_realtime_20260302").await.unwrap();
    within("the acknowledgement", MINUTE, ack.into_future()).await.unwrap();
}

#[tokio::test]
async fn the_bound_of_ids_in_sql_is_that_in_rust() {
    let database = database().await;
    let client = client(database.url()).await;
    for instant in [
        "2000-01-01T00:00:00Z",
        "2026-03-01T12:34:56.123Z",
        "2026-03-01T12:34:56.123499Z",
        "2026-03-01T12:34:56.123500Z",
        "2026-03-01T12:34:56.999999Z",
        "2199-12-31T23:59:59.999Z",
    ] {
        let bound: uuid::Uuid = client
            .query_one("SELECT metertrail.event_id_lower_bound($1)", &[&at(instant)])
            .await
            .unwrap()
            .get(0);
        assert_eq!(bound, EventId::lower_bound(at(instant)), "{instant}");
    }
}

// As people type it.

/// Runs the real `psql`: what it prints, without headers. `None` if there is no such program here.
fn psql(database: &TestDatabase, statement: &str) -> Option<std::result::Result<String, String>> {
    let program = TestPostgres::shared().unwrap().bin_dir().map_or("psql".into(), |dir| dir.join("psql"));
    let mut command = Command::new(program);
    command.args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", database.url(), "-c", statement]);
    let output = command.output().ok()?;
    Some(if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap().trim_end().to_owned())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_missions_section_on_testing_works_as_written() {
    let database = database().await;
    let run = |statement: &str| {
        psql(&database, statement)
            .expect("`psql`, which comes with the server, or with the package postgresql-client")
            .unwrap_or_else(|error| panic!("{statement}: {error}"))
    };
    assert_eq!(run("SELECT * FROM tenant_usage_metrics LIMIT 1;"), "");
    assert_eq!(run("SELECT * FROM audit_events LIMIT 1;"), "");
    assert!(
        run("SELECT * FROM pg_proc WHERE proname = 'aggregate_usage_metrics';")
            .contains("aggregate_usage_metrics")
    );

    let tracker = UsageTracker::start(store(database.url())).unwrap();
    let test_tenant = TenantId::new("test-tenant").unwrap();
    tracker
        .track(&test_tenant, EventType::ChatMessage)
        .record_success(TokenUsage::reported(374, 44).unwrap())
        .await
        .unwrap();
    assert_eq!(run("SELECT COUNT(*) FROM tenant_usage_realtime WHERE tenant_id = 'test-tenant';"), "1");
    assert_eq!(run("SELECT tokens_used FROM tenant_usage_realtime WHERE tenant_id = 'test-tenant';"), "418");

    let inserted = run(
        "INSERT INTO tenant_usage_metrics (tenant_id, period_type, total_tokens_used, quota_limit) \nVALUES ('test', 'daily', 9999, 10000);",
    );
    assert_eq!(inserted, "INSERT 0 1");
    let test = TenantId::new("test").unwrap();
    assert_eq!(tracker.usage_today(&test).await.unwrap().metrics.tokens_total(), 9_999);

    run("SELECT metertrail.aggregate_usage_metrics()");
    run("SELECT metertrail.aggregate_usage_metrics(100)");
    assert_eq!(run("SELECT COUNT(*) FROM tenant_usage_metrics WHERE period_type = 'daily';"), "2");
    let both = run(
        "SELECT tenant_id, total_tokens_used, quota_limit FROM tenant_usage_metrics WHERE period_type = 'daily' ORDER BY 1",
    );
    assert_eq!(both, "test|9999|10000\ntest-tenant|418|");

    // What is recorded adds to the row that was put in by hand.
    tracker
        .track(&test, EventType::ChatMessage)
        .record_success(TokenUsage::reported(1, 0).unwrap())
        .await
        .unwrap();
    assert_eq!(tracker.usage_today(&test).await.unwrap().metrics.tokens_total(), 10_000);
    roll_up_all(&store(database.url())).await;
    assert_eq!(tracker.usage_today(&test).await.unwrap().metrics.tokens_total(), 10_000);
    assert_eq!(
        run(
            "SELECT total_tokens_used, quota_limit FROM tenant_usage_metrics WHERE period_type = 'daily' AND tenant_id = 'test'"
        ),
        "10000|10000"
    );
}

/// A row put in by hand must not make a sum overflow, which would stop the roll-up of every tenant.
#[tokio::test]
async fn a_row_at_the_end_of_the_range_is_refused() {
    let database = database().await;
    let admin = client(database.url()).await;
    for column in ["total_tokens_used", "api_calls_total", "latency_us_total"] {
        for value in ["9223372036854775807", "-1"] {
            let row = format!(
                "INSERT INTO tenant_usage_metrics (tenant_id, period_type, {column}) VALUES ('acme', 'daily', {value})"
            );
            let error = admin.batch_execute(&row).await.unwrap_err();
            assert_eq!(error.code().unwrap().code(), "23514", "{column} = {value}: {error}");
        }
    }
}

#[tokio::test]
async fn percentiles_in_sql_are_those_of_the_sketch() {
    let database = database().await;
    let store = store(database.url());
    let mut sketch = LatencySketch::new();
    let start = at("2026-03-01T10:00:00Z");
    for (number, batch) in (0..400_u64).collect::<Vec<_>>().chunks(37).enumerate() {
        let events: Vec<UsageEvent> = batch
            .iter()
            .map(|index| {
                let mut event = event(start + TimeDelta::milliseconds(*index as i64));
                let latency_us = index.pow(3) * 97 % 60_000_000;
                event.latency = Some(Latency::new(Duration::from_micros(latency_us)).unwrap());
                sketch.record(latency_us);
                event
            })
            .collect();
        store.append(&events, &[]).await.unwrap();
        if number % 2 == 0 {
            roll_up_all(&store).await;
        }
    }
    roll_up_all(&store).await;
    let client = client(database.url()).await;
    for period in Period::ALL {
        let row = client
            .query_one(
                "SELECT api_latency_p50_ms, api_latency_p95_ms, api_latency_p99_ms, metertrail.sketch_quantile_ms(latency_sketch, 1000), \
                 metertrail.sketch_quantile_ms(latency_sketch, 1) FROM public.tenant_usage_metrics WHERE period_type = $1",
                &[&period.as_str()],
            )
            .await
            .unwrap();
        for (column, permille) in [500, 950, 990, 1_000, 1].into_iter().enumerate() {
            let us = sketch.quantile(Quantile::from_permille(permille).unwrap()).unwrap();
            let expected = Decimal::new(us as i64, 3);
            assert_eq!(row.get::<_, Decimal>(column), expected, "{period}, {permille}");
        }
    }
}

#[tokio::test]
async fn the_error_rate_in_sql_is_that_in_rust() {
    let database = database().await;
    let store = store(database.url());
    let mut batch = events_on("2026-03-01", 7);
    batch[0].outcome = Outcome::Failure;
    batch[1].outcome = Outcome::RateLimited;
    batch[2].outcome = Outcome::QuotaExceeded;
    batch[3].outcome = Outcome::Abandoned;
    store.append(&batch, &[]).await.unwrap();
    roll_up_all(&store).await;
    let day = Period::Day.range_at(batch[0].occurred_at(), Zone::UTC);
    let usage = store.usage(&tenant(), &[day]).await.unwrap();
    let rate: Decimal = client(database.url())
        .await
        .query_one("SELECT error_rate FROM public.tenant_usage_metrics WHERE period_type = 'daily'", &[])
        .await
        .unwrap()
        .get(0);
    assert_eq!((rate, usage[0].error_rate_percent()), (Decimal::new(25, 0), Decimal::new(25, 0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn aggregation_by_many_at_once_beside_appends_loses_nothing() {
    let database = database().await;
    let mut tasks = JoinSet::new();
    for writer in 0..3 {
        let store = store(database.url());
        tasks.spawn(async move {
            for round in 0..20 {
                let start = at("2026-03-31T23:50:00Z") + TimeDelta::seconds(round * 60 + writer);
                let batch: Vec<UsageEvent> =
                    (0..10).map(|ms| event(start + TimeDelta::milliseconds(ms))).collect();
                assert_eq!(persistently(|| store.append(&batch, &[])).await.unwrap(), [Appended::New; 10]);
            }
        });
    }
    for caller in 0..5_i64 {
        let url = database.url().to_owned();
        tasks.spawn(async move {
            let client = client(&url).await;
            for _ in 0..25 {
                let limit = (caller > 0).then_some(caller);
                client.execute("SELECT metertrail.aggregate_usage_metrics($1)", &[&limit]).await.unwrap();
            }
        });
    }
    within("the tasks", MINUTE, tasks.join_all()).await;
    assert_eq!(check_books(database.url()).await, 600);
}

/// The contract: zero means that nothing is left.
#[tokio::test]
async fn a_roll_up_beside_one_that_is_stuck_does_not_say_that_nothing_is_left() {
    let database = database().await;
    let store = store(database.url());
    store.append(&events_on("2026-03-01", 1), &[]).await.unwrap();
    let mut stuck = client(database.url()).await;
    let transaction = stuck.transaction().await.unwrap();
    // Somebody folds in a transaction that stays open, then there is more to do.
    transaction.execute("SELECT metertrail.aggregate_usage_metrics()", &[]).await.unwrap();
    store.append(&events_on("2026-03-02", 1), &[]).await.unwrap();
    let folded = store.roll_up(100).await;
    assert!(
        !matches!(folded, Ok(0)),
        "there is a row left in the journal, and the roll-up says there is none"
    );
}

// Secrets.

#[tokio::test]
async fn nothing_that_is_shown_has_the_password() {
    const SECRET: &str = "hunter2-s3cret";
    let mut shown: BTreeMap<&str, String> = BTreeMap::new();
    let text_of = |error: &Error| {
        let mut text = format!("{error} {error:?} {error:#?}");
        let mut source = std::error::Error::source(error);
        while let Some(cause) = source {
            write!(text, " {cause} {cause:?}").unwrap();
            source = cause.source();
        }
        text
    };
    for (name, url) in [
        ("port", "postgres://app:hunter2-s3cret@localhost:notaport/app"),
        ("option", "postgres://app:hunter2-s3cret@localhost/app?nonsense=1"),
        ("scheme", "mysql://app:hunter2-s3cret@localhost/app"),
        ("words", "host=localhost user=app password=x hunter2-s3cret"),
        ("quote", "host=localhost password='hunter2-s3cret"),
        ("tls", "postgres://app:hunter2-s3cret@localhost/app?sslmode=require"),
        ("percent", "postgres://app:hunter2-s3cret%ff%@localhost:x/app"),
        ("slash", "postgres://app:hunter2-s3cret/@localhost/app"),
        ("at", "postgres://app:x@hunter2-s3cret:@localhost/app"),
    ] {
        match PostgresStore::from_url(url) {
            Err(error) => {
                assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some("url")), "{name}");
                shown.insert(name, text_of(&error));
            }
            Ok(store) => drop(shown.insert(name, format!("{store:?}"))),
        }
    }
    let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let refused = store(&format!("postgres://app:hunter2-s3cret@127.0.0.1:{port}/app"));
    let error = refused.check().await.unwrap_err();
    let tracker = UsageTracker::start(refused.clone()).unwrap();
    shown.insert("refused", text_of(&error));
    shown.insert("store", format!("{refused:?} {refused:#?} {tracker:?}"));
    for (name, text) in &shown {
        assert!(!text.contains(SECRET), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_refused_row_is_an_error_that_does_not_show_the_row() {
    let database = database().await;
    let admin = client(database.url()).await;
    let strict = "ALTER TABLE metertrail.tenant_usage_realtime ADD CHECK (user_id <> 'patient zero')";
    admin.batch_execute(strict).await.unwrap();
    let mut private = event(SystemClock.now());
    private.user_id = Some(metertrail::Label::new("user_id", "patient zero").unwrap());
    let error = store(database.url()).append(&[private], &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    assert!(!error.to_string().contains("patient zero"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_the_database_refuses_does_not_hold_up_the_others() {
    let database = database().await;
    let admin = client(database.url()).await;
    let strict = "ALTER TABLE metertrail.tenant_usage_realtime ADD CHECK (user_id <> 'poison')";
    admin.batch_execute(strict).await.unwrap();
    let tracker = UsageTracker::start(store(database.url())).unwrap();
    let mut acks = Vec::new();
    for (index, mut event) in events_on("2026-03-01", 60).into_iter().enumerate() {
        if index % 20 == 7 {
            event.user_id = Some(metertrail::Label::new("user_id", "poison").unwrap());
        }
        acks.push(tracker.record(event));
    }
    for (index, ack) in acks.into_iter().enumerate() {
        let recorded = within("an acknowledgement", MINUTE, ack.into_future()).await;
        assert_eq!(recorded.is_err(), index % 20 == 7, "{index}: {recorded:?}");
    }
    let report = tracker.shutdown(MINUTE).await.unwrap();
    assert_eq!((report.written, report.rejected.len(), report.unwritten.len()), (57, 3, 0));
    assert_eq!(check_books(database.url()).await, 57);
}

#[tokio::test]
async fn a_range_of_all_time_can_be_asked_for() {
    let database = database().await;
    let store = store(database.url());
    let ends = [
        event(metertrail::time::TIME_MIN),
        event(metertrail::time::TIME_MAX - TimeDelta::milliseconds(1)),
        event(SystemClock.now()),
    ];
    assert_eq!(store.append(&ends, &[]).await.unwrap(), [Appended::New; 3]);
    let all = TimeRange::new(metertrail::time::TIME_MIN, metertrail::time::TIME_MAX).unwrap();
    for _ in 0..2 {
        assert_eq!(store.usage(&tenant(), &[all]).await.unwrap()[0].calls, 3);
        assert_eq!(store.events(&EventQuery::new(tenant(), all)).await.unwrap().items.len(), 3);
        roll_up_all(&store).await;
    }
}
