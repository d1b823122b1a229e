//! Never lose, never double: killed processes, crashed servers, connections cut at the commit, writers in each other's way.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use chrono::{DateTime, TimeDelta, Utc};
use metertrail::store::Appended;
use metertrail::testing::postgres::{TestPostgres, TestPostgresOptions};
use metertrail::time::{Period, Zone};
use metertrail::usage::Latency;
use metertrail::{
    Cost, ErrorKind, EventId, EventType, FlushPolicy, Label, Outcome, PostgresStore, Store, TenantId,
    TokenClass, TokenUsage, UsageEvent, UsageTracker,
};
use rust_decimal::Decimal;
use tokio::task::JoinSet;
use uuid::Builder;

use crate::ledger::{
    Dice, check_books, client, count, database, persistently, roll_up_all, store, until, until_alone, within,
};
use crate::proxy::{Fault, Proxy};

const CHILD: &str = "METERTRAIL_CRASH_CHILD";
const KILLS: usize = 50;
/// Events that all processes choose from, so that each is recorded again and again.
const EVENTS: u64 = 3_000;
const MINUTE: Duration = Duration::from_secs(60);
const NONE: [u64; 0] = [];

/// Edges of quarter hours, hours, days and months.
const EDGES: [&str; 6] = [
    "2026-03-31T23:45:00Z",
    "2026-04-01T00:00:00Z",
    "2026-04-01T00:15:00Z",
    "2026-03-29T01:00:00Z",
    "2026-02-28T23:59:59.999999Z",
    "2026-12-31T23:30:00Z",
];

/// The event of this number: every process makes the same of it. One in four has a key, and then, as with a caller that
/// tries again, an id and a latency of its own each time.
fn event(number: u64) -> UsageEvent {
    let mut dice = Dice::new(number);
    let tenant_id = TenantId::new(format!("tenant-{}", dice.below(5))).unwrap();
    let edge: DateTime<Utc> = EDGES[dice.below(6) as usize].parse().unwrap();
    let occurred_at = edge + TimeDelta::microseconds(dice.below(4_000_000) as i64 - 2_000_000);
    let millisecond = u64::try_from(occurred_at.timestamp_millis()).unwrap();
    let mut random = [0; 10];
    random[..8].copy_from_slice(&dice.roll().to_be_bytes());
    let id = Builder::from_unix_timestamp_millis(millisecond, &random).into_uuid();
    let outcome = Outcome::ALL[dice.below(5) as usize];
    let event_type = match dice.below(5) {
        4 => EventType::custom("ocr_page").unwrap(),
        built_in => EventType::BUILT_IN[built_in as usize].clone(),
    };
    let is_keyed = number.is_multiple_of(4);
    let mut event = if is_keyed {
        UsageEvent::new(tenant_id, event_type, outcome, occurred_at).unwrap()
    } else {
        let id = EventId::from_uuid(id).unwrap();
        UsageEvent::from_stored(tenant_id, id, event_type, outcome, occurred_at).unwrap()
    };
    event.tokens = TokenUsage::reported(dice.below(2_000), dice.below(500)).unwrap();
    if dice.below(3) == 0 {
        event.tokens = event.tokens.with(TokenClass::CacheRead, dice.below(900)).unwrap().into_estimated();
    }
    event.cost =
        (dice.below(2) == 0).then(|| Cost::usd(Decimal::new(dice.below(1_000_000) as i64, 9)).unwrap());
    event.latency = Some(Latency::new(Duration::from_micros(dice.below(9_000_000))).unwrap());
    if is_keyed {
        event.idempotency_key = Some(Label::new("idempotency_key", format!("key-{number}")).unwrap());
        event.latency =
            Some(Latency::new(Duration::from_micros(event.id().as_uuid().as_u128() as u64 >> 44)).unwrap());
    }
    event
}

/// Which of the acknowledged events are not in the database.
async fn missing(url: &str, acknowledged: &BTreeSet<u64>) -> Vec<u64> {
    let client = client(url).await;
    let mut there = BTreeSet::new();
    for row in client
        .query("SELECT tenant_id, id::text, idempotency_key FROM metertrail.tenant_usage_realtime", &[])
        .await
        .unwrap()
    {
        let (tenant, id, key): (String, String, Option<String>) = (row.get(0), row.get(1), row.get(2));
        there.insert((tenant, key.unwrap_or(id)));
    }
    let identity = |number: u64| {
        let event = event(number);
        let name = event.idempotency_key.as_ref().map_or(event.id().to_string(), Label::to_string);
        (event.tenant_id.to_string(), name)
    };
    acknowledged.iter().copied().filter(|number| !there.contains(&identity(*number))).collect()
}

#[test]
fn what_was_acknowledged_survives_kill_nine() {
    if let Ok(order) = std::env::var(CHILD) {
        return record_until_killed(&order);
    }
    let mut dice = Dice::printed("kill nine");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let database = runtime.block_on(database());
    let directory = tempfile::tempdir().unwrap();
    let url = database.url();
    thread::scope(|scope| {
        for killer in 0..2 {
            let mut dice = Dice::new(dice.roll());
            let directory = directory.path();
            scope.spawn(move || {
                for kill in 0..KILLS / 2 {
                    let log = directory.join(format!("{killer}-{kill}"));
                    let child = child(url, dice.roll(), &log);
                    kill_in_mid_work(child, &log, &mut dice);
                }
            });
        }
    });
    let (mut acknowledged, mut lines) = (BTreeSet::new(), 0);
    for log in fs::read_dir(directory.path()).unwrap() {
        let text = fs::read_to_string(log.unwrap().path()).unwrap();
        // The last line may have been cut by the kill.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            acknowledged.insert(line.trim_end().parse().unwrap_or_else(|_| panic!("a child failed: {line}")));
            lines += 1;
        }
    }
    runtime.block_on(async {
        until_alone(&client(url).await).await;
        assert_eq!(missing(url, &acknowledged).await, NONE);
        let events = check_books(url).await;
        println!("kill nine: {lines} acknowledgements of {} events, {events} kept", acknowledged.len());
        assert!(acknowledged.len() > 200, "the children hardly did anything: {}", acknowledged.len());
        assert!(events >= acknowledged.len() as i64 && events <= EVENTS as i64);
        replay(url).await;
    });
}

/// Every event once more, in whole and in part, also after the roll-up: each has counted at most once, and now once.
async fn replay(url: &str) {
    let store = store(url);
    let all: Vec<UsageEvent> = (0..EVENTS).map(event).collect();
    let before = count(&client(url).await, "SELECT count(*) FROM metertrail.tenant_usage_realtime").await;
    let appended = store.append(&all, &[]).await.unwrap();
    let new = appended.iter().filter(|appended| **appended == Appended::New).count();
    assert_eq!(before + new as i64, EVENTS as i64);
    assert!(!appended.contains(&Appended::Conflict));
    for part in [&all[..], &all[7..900], &all[..1], &all[500..]] {
        let again: Vec<UsageEvent> = part.to_vec();
        assert_eq!(store.append(&again, &[]).await.unwrap(), vec![Appended::Duplicate; part.len()]);
    }
    assert_eq!(check_books(url).await, EVENTS as i64);
    assert_eq!(store.append(&all[1_000..2_000], &[]).await.unwrap(), vec![Appended::Duplicate; 1_000]);
    assert_eq!(check_books(url).await, EVENTS as i64);
}

fn child(url: &str, seed: u64, log: &Path) -> Child {
    let name =
        format!("{}::what_was_acknowledged_survives_kill_nine", module_path!().split_once("::").unwrap().1);
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD, format!("{seed}\n{}\n{url}", log.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Nine times in ten when it has acknowledged something, once at any time.
fn kill_in_mid_work(mut child: Child, log: &Path, dice: &mut Dice) {
    let deadline = Instant::now() + MINUTE;
    if dice.below(10) > 0 {
        while fs::metadata(log).map_or(0, |log| log.len()) == 0 {
            assert!(Instant::now() < deadline, "a child acknowledges nothing");
            assert_eq!(child.try_wait().unwrap(), None, "a child ended by itself");
            thread::sleep(Duration::from_millis(2));
        }
    }
    thread::sleep(Duration::from_micros(dice.below(150_000)));
    child.kill().unwrap();
    child.wait().unwrap();
}

/// What a child does: six tasks record, and write down the number of an event only when it is acknowledged.
fn record_until_killed(order: &str) {
    let mut lines = order.splitn(3, '\n');
    let mut dice = Dice::new(lines.next().unwrap().parse().unwrap());
    let log = Arc::new(File::options().create(true).append(true).open(lines.next().unwrap()).unwrap());
    let store = store(lines.next().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let flush = FlushPolicy::default().with_events(60).with_age(Duration::from_millis(5));
        let tracker = UsageTracker::builder(store)
            .flush(flush)
            .roll_up_interval(Duration::from_millis(20))
            .start()
            .unwrap();
        let mut tasks = JoinSet::new();
        for _ in 0..6 {
            let (tracker, log, mut dice) = (tracker.clone(), Arc::clone(&log), Dice::new(dice.roll()));
            tasks.spawn(async move {
                loop {
                    let numbers: Vec<u64> = (0..=dice.below(30)).map(|_| dice.below(EVENTS)).collect();
                    let acks: Vec<_> =
                        numbers.iter().map(|number| (*number, tracker.record(event(*number)))).collect();
                    for (number, ack) in acks {
                        let line = match ack.await {
                            Ok(_) => format!("{number}\n"),
                            Err(error) => format!("! {error}\n"),
                        };
                        (&*log).write_all(line.as_bytes()).unwrap();
                    }
                }
            });
        }
        tasks.join_all().await
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_crashes_of_the_server() {
    let mut dice = Dice::printed("server crashes");
    let mut postgres = TestPostgres::start(TestPostgresOptions::new().fsync(true)).unwrap();
    let database = postgres.create_database(None).await.unwrap();
    store(database.url()).migrate().await.unwrap();
    let trackers: Vec<UsageTracker> = (0..2)
        .map(|_| {
            let flush = FlushPolicy::default().with_events(40).with_age(Duration::from_millis(5));
            let builder = UsageTracker::builder(store(database.url())).flush(flush);
            builder.roll_up_interval(Duration::from_millis(20)).start().unwrap()
        })
        .collect();
    let (stop, acknowledged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = JoinSet::new();
    for task in 0..8 {
        let (tracker, mut dice) = (trackers[task % 2].clone(), Dice::new(dice.roll()));
        let (stop, acknowledged) = (Arc::clone(&stop), Arc::clone(&acknowledged));
        tasks.spawn(async move {
            let mut numbers = BTreeSet::new();
            while !stop.load(Ordering::Relaxed) {
                let chosen: Vec<u64> = (0..=dice.below(20)).map(|_| dice.below(EVENTS)).collect();
                let acks: Vec<_> =
                    chosen.iter().map(|number| (*number, tracker.record(event(*number)))).collect();
                for (number, ack) in acks {
                    ack.await.unwrap();
                    numbers.insert(number);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                }
            }
            numbers
        });
    }
    for _ in 0..4 {
        let goal = acknowledged.load(Ordering::Relaxed) + 200 + dice.below(300) as usize;
        until("the trackers get on", async || acknowledged.load(Ordering::Relaxed) >= goal).await;
        postgres.restart_immediate().await.unwrap();
    }
    let goal = acknowledged.load(Ordering::Relaxed) + 200;
    until("the trackers catch up by themselves", async || acknowledged.load(Ordering::Relaxed) >= goal).await;
    stop.store(true, Ordering::Relaxed);
    let numbers: BTreeSet<u64> =
        within("the acknowledgements", MINUTE, tasks.join_all()).await.into_iter().flatten().collect();
    for tracker in trackers {
        let report = tracker.shutdown(MINUTE).await.unwrap();
        assert_eq!((report.conflicts, report.rejected.len(), report.unwritten.len()), (0, 0, 0));
        assert!(tracker.health().retries > 0, "the crashes were not noticed: {:?}", tracker.health());
    }
    until_alone(&client(database.url()).await).await;
    assert_eq!(missing(database.url(), &numbers).await, NONE);
    assert_eq!(check_books(database.url()).await, numbers.len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_reply_is_lost_counts_once() {
    for fault in [
        Fault::CutBefore,
        Fault::CutAfter,
        Fault::Delay(Duration::from_millis(200)),
        Fault::BlackHole,
        Fault::Silence,
    ] {
        let database = database().await;
        let proxy = Proxy::start(database.url()).await;
        // The partitions are there, so that the events' own transaction is the only one.
        store(database.url()).append(&(1_000..1_100).map(event).collect::<Vec<_>>(), &[]).await.unwrap();
        let store = store(proxy.url()).with_timeout(Duration::from_secs(1));
        let tracker = UsageTracker::builder(store).roll_up_interval(MINUTE).start().unwrap();
        proxy.arm(fault);
        proxy.arm(fault);
        let acks: Vec<_> = (0..100).map(|number| tracker.record(event(number))).collect();
        let mut duplicates = 0;
        for ack in acks {
            let recorded = within(&format!("an acknowledgement, {fault:?}"), MINUTE, ack.into_future()).await;
            duplicates += u64::from(recorded.unwrap().duplicate);
        }
        assert!(proxy.fired() > 0, "{fault:?} did not happen");
        let health = tracker.health();
        let retries = if let Fault::Delay(_) = fault { 0 } else { proxy.fired() as u64 };
        assert_eq!((health.rejected, health.retries), (0, retries), "{fault:?} {health:?}");
        assert_eq!(health.written + health.duplicates, 100, "{fault:?} {health:?}");
        assert_eq!(duplicates, health.duplicates);
        if matches!(fault, Fault::CutAfter | Fault::Silence) {
            assert!(duplicates > 0, "{fault:?}: the server had not committed");
        } else {
            assert_eq!(duplicates, 0, "{fault:?}: the server had committed");
        }
        assert!(tracker.shutdown(MINUTE).await.unwrap().unwritten.is_empty());
        let numbers = (0..100).collect();
        assert_eq!(missing(database.url(), &numbers).await, NONE, "{fault:?}");
        assert_eq!(check_books(database.url()).await, 200, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_behind_a_bad_line_count_each_event_once() {
    let mut dice = Dice::printed("bad line");
    let database = database().await;
    let proxy = Proxy::start(database.url()).await;
    for _ in 0..24 {
        proxy.arm(match dice.below(8) {
            0 => Fault::Silence,
            1 => Fault::BlackHole,
            2 => Fault::Delay(Duration::from_millis(dice.below(50))),
            3 | 4 => Fault::CutBefore,
            _ => Fault::CutAfter,
        });
    }
    let mut tasks = JoinSet::new();
    for _ in 0..3 {
        let store = store(proxy.url()).with_timeout(Duration::from_millis(700));
        let flush = FlushPolicy::default().with_events(25);
        let builder = UsageTracker::builder(store).flush(flush);
        let tracker = builder.roll_up_interval(Duration::from_millis(10)).start().unwrap();
        let mut numbers: Vec<u64> = (0..300).collect();
        dice.shuffle(&mut numbers);
        tasks.spawn(async move {
            let acks: Vec<_> = numbers.into_iter().map(|number| tracker.record(event(number))).collect();
            for ack in acks {
                within("an acknowledgement", MINUTE, ack.into_future()).await.unwrap();
            }
            let report = tracker.shutdown(MINUTE).await.unwrap();
            assert_eq!((report.conflicts, report.rejected.len(), report.unwritten.len()), (0, 0, 0));
            report.written
        });
    }
    tasks.join_all().await;
    assert!(proxy.fired() >= 20, "only {} faults happened", proxy.fired());
    assert_eq!(missing(database.url(), &(0..300).collect()).await, NONE);
    assert_eq!(check_books(database.url()).await, 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_the_same_events_at_once_count_each_once() {
    const WRITERS: usize = 4;
    let mut dice = Dice::printed("same events");
    let database = database().await;
    let stores: Vec<PostgresStore> = (0..WRITERS).map(|_| store(database.url())).collect();
    let mut distinct = BTreeSet::new();
    let mut new = 0;
    for round in 0..20_u64 {
        let numbers: Vec<u64> = (round * 60..round * 60 + 120).collect();
        let mut tasks = JoinSet::new();
        for store in &stores {
            let mut mine = numbers.clone();
            dice.shuffle(&mut mine);
            mine.truncate(30 + dice.below(90) as usize);
            distinct.extend(mine.iter().copied());
            let batch: Vec<UsageEvent> = mine.into_iter().map(event).collect();
            let store = store.clone();
            tasks.spawn(async move {
                let folding = store.clone();
                let (appended, _) = tokio::join!(
                    persistently(|| store.append(&batch, &[])),
                    persistently(|| folding.roll_up(10)),
                );
                appended.unwrap()
            });
        }
        for appended in within("a round", MINUTE, tasks.join_all()).await {
            assert!(!appended.contains(&Appended::Conflict));
            new += appended.iter().filter(|appended| **appended == Appended::New).count();
        }
        let kept =
            count(&client(database.url()).await, "SELECT count(*) FROM metertrail.tenant_usage_realtime")
                .await;
        assert_eq!((new, kept as usize), (distinct.len(), distinct.len()), "after round {round}");
    }
    assert_eq!(check_books(database.url()).await, distinct.len() as i64);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_writers_that_say_different_things_the_first_wins() {
    let database = database().await;
    let stores: Vec<PostgresStore> = (0..4).map(|_| store(database.url())).collect();
    for round in 0..10_u64 {
        let mut tasks = JoinSet::new();
        for (writer, store) in stores.iter().cloned().enumerate() {
            tasks.spawn(async move {
                let mut batch: Vec<UsageEvent> = (round * 40..round * 40 + 40).map(event).collect();
                for event in &mut batch {
                    event.session_id = Some(Label::new("session_id", format!("writer-{writer}")).unwrap());
                }
                let appended = persistently(|| store.append(&batch, &[])).await.unwrap();
                appended.iter().map(|appended| *appended == Appended::New).collect::<Vec<_>>()
            });
        }
        let news = within("a round", MINUTE, tasks.join_all()).await;
        for number in 0..40 {
            let winners = news.iter().filter(|new| new[number]).count();
            assert_eq!(winners, 1, "round {round}, event {number}");
        }
    }
    assert_eq!(check_books(database.url()).await, 400);
}

#[tokio::test]
async fn events_in_the_callers_transaction_share_its_fate() {
    let database = database().await;
    let store = store(database.url());
    let mut host = client(database.url()).await;
    host.batch_execute("CREATE TABLE orders (id int)").await.unwrap();
    let batch: Vec<UsageEvent> = (0..50).map(event).collect();
    for (commits, expected) in [(false, 0), (true, 1)] {
        let transaction = host.transaction().await.unwrap();
        transaction.execute("INSERT INTO orders VALUES (1)", &[]).await.unwrap();
        assert_eq!(store.append_in(&transaction, &batch).await.unwrap(), [Appended::New; 50]);
        assert_eq!(store.append_in(&transaction, &batch[..10]).await.unwrap(), [Appended::Duplicate; 10]);
        if commits {
            transaction.commit().await.unwrap();
        } else {
            transaction.rollback().await.unwrap();
        }
        assert_eq!(count(&host, "SELECT count(*) FROM orders").await, expected);
        assert_eq!(check_books(database.url()).await, 50 * expected);
    }
    assert_eq!(store.append(&batch, &[]).await.unwrap(), [Appended::Duplicate; 50]);
    let mut conflicting = event(1);
    conflicting.outcome =
        if conflicting.outcome == Outcome::Success { Outcome::Failure } else { Outcome::Success };
    let transaction = host.transaction().await.unwrap();
    assert_eq!(store.append_in(&transaction, &[conflicting]).await.unwrap(), [Appended::Conflict]);
    transaction.commit().await.unwrap();
    assert_eq!(check_books(database.url()).await, 50);
}

#[tokio::test]
async fn a_long_transaction_of_the_caller_blocks_nobody() {
    let database = database().await;
    let (host_store, other) = (store(database.url()), store(database.url()));
    let mut host = client(database.url()).await;
    let tenant = TenantId::new("tenant-0").unwrap();
    let mine: Vec<UsageEvent> = (0..200).map(event).filter(|event| event.tenant_id == tenant).collect();
    let theirs: Vec<UsageEvent> = (200..400).map(event).filter(|event| event.tenant_id == tenant).collect();
    let transaction = host.transaction().await.unwrap();
    host_store.append_in(&transaction, &mine).await.unwrap();

    let soon = Duration::from_secs(5);
    let appended = within("an append of the same tenant", soon, other.append(&theirs, &[])).await.unwrap();
    assert_eq!(appended, vec![Appended::New; theirs.len()]);
    assert!(within("a roll-up", soon, other.roll_up(1_000)).await.unwrap() > 0);
    // Also of a day that has no partition yet.
    let far = UsageEvent::new(
        tenant.clone(),
        EventType::Search,
        Outcome::Success,
        "2031-05-06T07:08:09Z".parse().unwrap(),
    );
    within("an append of a new day", soon, other.append(&[far.unwrap()], &[])).await.unwrap();
    let year = metertrail::TimeRange::new(
        "2026-01-01T00:00:00Z".parse().unwrap(),
        "2027-01-01T00:00:00Z".parse().unwrap(),
    )
    .unwrap();
    let usage = within("a question", soon, other.usage(&tenant, &[year])).await.unwrap();
    assert_eq!(usage[0].calls, theirs.len() as u64);
    // The caller goes on with another new day, which its own transaction must not block.
    let further = UsageEvent::new(
        tenant.clone(),
        EventType::Search,
        Outcome::Success,
        "2031-05-07T07:08:09Z".parse().unwrap(),
    );
    within("a second append in it", soon, host_store.append_in(&transaction, &[further.unwrap()]))
        .await
        .unwrap();
    // All can be rolled up that is committed; the open transaction's part is not lost by it.
    within("roll-ups", soon, roll_up_all(&other)).await;
    transaction.commit().await.unwrap();
    let usage = other.usage(&tenant, &[year]).await.unwrap();
    assert_eq!(usage[0].calls, (mine.len() + theirs.len()) as u64);
    check_books(database.url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_that_meets_an_open_transaction_with_its_event_waits_for_its_fate() {
    for (commits, expected) in [(true, Appended::Duplicate), (false, Appended::New)] {
        for number in [3, 4] {
            let database = database().await;
            let (host_store, other) = (store(database.url()), store(database.url()));
            let (mut host, watcher) = (client(database.url()).await, client(database.url()).await);
            let transaction = host.transaction().await.unwrap();
            assert_eq!(host_store.append_in(&transaction, &[event(number)]).await.unwrap(), [Appended::New]);
            let waiting = tokio::spawn(async move { other.append(&[event(number)], &[]).await });
            let blocked = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND \
                           cardinality(pg_blocking_pids(pid)) > 0";
            until("the append waits", async || count(&watcher, blocked).await == 1).await;
            if commits {
                transaction.commit().await.unwrap();
            } else {
                transaction.rollback().await.unwrap();
            }
            assert_eq!(within("the append", MINUTE, waiting).await.unwrap().unwrap(), [expected]);
            assert_eq!(check_books(database.url()).await, 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn append_and_append_in_of_the_same_events_at_once_count_each_once() {
    let mut dice = Dice::printed("append and append_in");
    let database = database().await;
    let mut new = 0;
    for round in 0..15_u64 {
        let mut tasks = JoinSet::new();
        for writer in 0..4 {
            let mut numbers: Vec<u64> = (round * 30..round * 30 + 30).collect();
            dice.shuffle(&mut numbers);
            let batch: Vec<UsageEvent> = numbers.into_iter().map(event).collect();
            let (store, url) = (store(database.url()), database.url().to_owned());
            tasks.spawn(async move {
                if writer % 2 == 0 {
                    return persistently(|| store.append(&batch, &[])).await.unwrap();
                }
                let host = tokio::sync::Mutex::new(client(&url).await);
                let call = || async {
                    let mut host = host.lock().await;
                    let transaction = host.transaction().await.unwrap();
                    let appended = store.append_in(&transaction, &batch).await?;
                    transaction.commit().await.unwrap();
                    Ok(appended)
                };
                persistently(call).await.unwrap()
            });
        }
        let appended = within("a round", MINUTE, tasks.join_all()).await;
        new += appended.iter().flatten().filter(|appended| **appended == Appended::New).count();
        assert_eq!(new as u64, (round + 1) * 30);
    }
    assert_eq!(check_books(database.url()).await, 450);
}

/// The partitions are made on a connection of the store, which has to have an end like any other call.
#[tokio::test(flavor = "multi_thread")]
async fn append_in_does_not_hang_when_the_stores_own_connection_is_dead() {
    let database = database().await;
    let proxy = Proxy::start(database.url()).await;
    let store = store(proxy.url()).with_timeout(Duration::from_secs(1));
    store.check().await.unwrap();
    let mut host = client(database.url()).await;
    let transaction = host.transaction().await.unwrap();
    proxy.blacken();
    let appended =
        within("append_in", Duration::from_secs(8), store.append_in(&transaction, &[event(1)])).await;
    assert_eq!(appended.unwrap_err().kind(), ErrorKind::Unavailable);
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_an_operator_ends_lose_nothing() {
    let mut dice = Dice::printed("ended sessions");
    let database = database().await;
    let flush = FlushPolicy::default().with_events(20).with_age(Duration::from_millis(1));
    let builder = UsageTracker::builder(store(database.url())).flush(flush);
    let tracker = builder.roll_up_interval(Duration::from_millis(5)).start().unwrap();
    let (recording, seed) = (tracker.clone(), dice.roll());
    let task = tokio::spawn(async move {
        let (mut numbers, mut dice) = (BTreeSet::new(), Dice::new(seed));
        while numbers.len() < 1_000 {
            let chosen: Vec<u64> = (0..40).map(|_| dice.below(EVENTS)).collect();
            let acks: Vec<_> =
                chosen.iter().map(|number| (*number, recording.record(event(*number)))).collect();
            for (number, ack) in acks {
                ack.await.unwrap();
                numbers.insert(number);
            }
        }
        numbers
    });
    let operator = client(database.url()).await;
    for _ in 0..40 {
        let how = if dice.below(2) == 0 { "pg_terminate_backend" } else { "pg_cancel_backend" };
        let end = format!(
            "SELECT count({how}(pid)) FROM pg_stat_activity WHERE datname = current_database() AND pid <> \
             pg_backend_pid() AND state <> 'idle'"
        );
        // Somebody has to be at work, or there is nothing to end.
        until("a session is at work", async || task.is_finished() || count(&operator, &end).await > 0).await;
        tokio::time::sleep(Duration::from_micros(dice.below(20_000))).await;
    }
    let numbers = within("the acknowledgements", MINUTE, task).await.unwrap();
    let report = tracker.shutdown(MINUTE).await.unwrap();
    assert_eq!((report.conflicts, report.rejected.len(), report.unwritten.len()), (0, 0, 0));
    assert!(tracker.health().retries > 0, "no session was ended in its work");
    drop(tracker);
    until_alone(&operator).await;
    assert_eq!(missing(database.url(), &numbers).await, NONE);
    assert_eq!(check_books(database.url()).await, numbers.len() as i64);
}

/// What a shutdown could not confirm may be kept or not; recorded again it counts once.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_shutdown_left_unwritten_counts_once_when_recorded_again() {
    for fault in [Fault::Silence, Fault::BlackHole] {
        let database = database().await;
        let proxy = Proxy::start(database.url()).await;
        let tracker = UsageTracker::start(store(proxy.url())).unwrap();
        proxy.arm(fault);
        let acks: Vec<_> = (0..50).map(|number| tracker.record(event(number))).collect();
        until("the commit is on its way", async || proxy.fired() == 1).await;
        let report =
            within("the shutdown", MINUTE, tracker.shutdown(Duration::from_millis(200))).await.unwrap();
        assert_eq!((report.written, report.unwritten.len()), (0, 50), "{fault:?}");
        for ack in acks {
            assert_eq!(ack.await.unwrap_err().kind(), ErrorKind::ShutDown);
        }
        drop(proxy);
        let next = UsageTracker::start(store(database.url())).unwrap();
        let acks: Vec<_> = report.unwritten.into_iter().map(|event| next.record(event)).collect();
        for ack in acks {
            let recorded = within("an acknowledgement", MINUTE, ack.into_future()).await.unwrap();
            assert_eq!(recorded.duplicate, fault == Fault::Silence);
        }
        assert_eq!(check_books(database.url()).await, 50);
    }
}

/// A dropped call has done all of its work or none of it.
#[tokio::test(flavor = "multi_thread")]
async fn appends_dropped_at_any_moment_count_once_or_not_at_all() {
    let mut dice = Dice::printed("dropped appends");
    let database = database().await;
    let store = store(database.url());
    store.append(&(0..60).map(event).collect::<Vec<_>>(), &[]).await.unwrap();
    let batch = |attempt: u64| 100 + attempt * 40..140 + attempt * 40;
    let mut kept = BTreeSet::new();
    for attempt in 0..60 {
        let events: Vec<UsageEvent> = batch(attempt).map(event).collect();
        let limit = Duration::from_micros(dice.below(12_000));
        match tokio::time::timeout(limit, store.append(&events, &[])).await {
            Ok(appended) => {
                appended.unwrap();
                kept.extend(batch(attempt));
            }
            Err(_) => drop(tokio::time::timeout(limit, store.roll_up(20)).await),
        }
    }
    assert!(kept.len() < 60 * 40, "no call was cut");
    drop(store);
    until_alone(&client(database.url()).await).await;
    assert_eq!(missing(database.url(), &kept).await, NONE);
    for attempt in 0..60 {
        let missing = missing(database.url(), &batch(attempt).collect()).await.len();
        assert!([0, 40].contains(&missing), "of batch {attempt} {missing} events are missing");
    }
    check_books(database.url()).await;
}

/// A tracker whose answers are read while others write and roll up: no reader ever sees an event in both places or in
/// neither, so what it sees only grows.
#[tokio::test(flavor = "multi_thread")]
async fn readers_see_each_event_once_while_it_is_rolled_up() {
    let database = database().await;
    let (writer, reader) = (store(database.url()), store(database.url()));
    let tenant = TenantId::new("reader").unwrap();
    let day = Period::Day.range_at("2026-04-01T00:10:00Z".parse().unwrap(), Zone::UTC);
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&acknowledged);
    let of = tenant.clone();
    let writing = tokio::spawn(async move {
        for batch in 0..120 {
            let event = |index: i64| {
                let occurred_at = day.start() + TimeDelta::seconds(batch * 600 + index);
                UsageEvent::new(of.clone(), EventType::Search, Outcome::Success, occurred_at).unwrap()
            };
            let events: Vec<UsageEvent> = (0..20).map(event).collect();
            writer.append(&events, &[]).await.unwrap();
            counted.fetch_add(20, Ordering::AcqRel);
            if batch % 3 == 0 {
                writer.roll_up(2).await.unwrap();
            }
        }
    });
    let mut last = 0;
    while !writing.is_finished() {
        let at_least = acknowledged.load(Ordering::Acquire) as u64;
        let seen = reader.usage(&tenant, &[day]).await.unwrap()[0].calls;
        assert!(
            seen >= at_least && seen >= last && seen % 20 == 0,
            "{seen}, {at_least} acknowledged, {last} before"
        );
        last = seen;
    }
    writing.await.unwrap();
    assert_eq!(check_books(database.url()).await, 2_400);
}
