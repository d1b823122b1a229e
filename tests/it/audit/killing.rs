//! Never lose, never double, never a gap: processes that record and seal are killed outright, the server crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use metertrail::EventId;
use metertrail::audit::{Checkpoint, FileAnchor, WriterId};
use metertrail::testing::postgres::{TestPostgres, TestPostgresOptions};
use metertrail::time::SystemClock;
use tokio::task::JoinSet;

use super::*;
use crate::ledger::{Dice, client, store, until_alone};

const CHILD: &str = "METERTRAIL_AUDIT_CHILD";
const KILLERS: usize = 3;
const KILLS: usize = 42;

#[test]
fn what_was_acknowledged_survives_kill_nine_and_crashes_of_the_server() {
    if let Ok(order) = std::env::var(CHILD) {
        return record_and_seal_until_killed(&order);
    }
    let mut dice = Dice::printed("audit, kill nine");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut postgres = TestPostgres::start(TestPostgresOptions::new().fsync(true)).unwrap();
    let database = runtime.block_on(postgres.create_database(None)).unwrap();
    let url = database.url();
    runtime.block_on(store(url).migrate()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let mut seen: Vec<Checkpoint> = Vec::new();
    thread::scope(|scope| {
        let killers: Vec<_> = (0..KILLERS)
            .map(|killer| {
                let (mut dice, directory) = (Dice::new(dice.roll()), directory.path());
                scope.spawn(move || {
                    for kill in 0..KILLS / KILLERS {
                        let log = directory.join(format!("{killer}-{kill}"));
                        let child = child(url, dice.roll(), &log);
                        kill_in_mid_work(child, &log, &mut dice);
                    }
                })
            })
            .collect();
        // Somebody else keeps the checkpoints that are seen while processes come and go, and the server crashes twice.
        let (witness, mut restarts) = (store(url), 0);
        while !killers.iter().all(thread::ScopedJoinHandle::is_finished) {
            let state = runtime.block_on(witness.audit_state());
            seen.extend(
                state.ok().and_then(|state| state.epoch).map(|epoch| epoch.checkpoint.parse().unwrap()),
            );
            if restarts < 2 && fs::read_dir(directory.path()).unwrap().count() > (restarts + 1) * KILLS / 3 {
                runtime.block_on(postgres.restart_immediate()).unwrap();
                restarts += 1;
            }
            thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(restarts, 2, "the server did not crash");
    });
    let (acknowledged, mut anchors) = left_behind(directory.path());
    seen.dedup();
    anchors.extend(seen);
    runtime.block_on(check(url, &acknowledged, anchors));
}

/// The events that the children say are kept, and the last checkpoint that each has anchored.
fn left_behind(directory: &Path) -> (BTreeSet<(String, EventId)>, Vec<Checkpoint>) {
    let (mut acknowledged, mut anchors) = (BTreeSet::new(), Vec::new());
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_some() {
            anchors.extend(FileAnchor::read(&path).unwrap().pop());
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        // The last line may have been cut by the kill.
        for line in text.split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let (name, id) =
                line.trim_end().split_once(' ').unwrap_or_else(|| panic!("a child failed: {line}"));
            let id = EventId::from_uuid(id.parse().unwrap_or_else(|_| panic!("a child failed: {line}")));
            acknowledged.insert((name.to_owned(), id.unwrap()));
        }
    }
    (acknowledged, anchors)
}

async fn check(url: &str, acknowledged: &BTreeSet<(String, EventId)>, anchors: Vec<Checkpoint>) {
    let hand = client(url).await;
    until_alone(&hand).await;
    let store: Arc<dyn AuditStore> = Arc::new(store(url));
    let log = AuditLog::builder(Arc::clone(&store)).keys(keys()).seal_interval(None).start().unwrap();
    log.seal_epoch().await.unwrap();
    let (mut kept, mut documents) = (BTreeSet::new(), BTreeSet::new());
    for row in hand.query("SELECT tenant_id, id, target_id FROM metertrail.audit_events", &[]).await.unwrap()
    {
        let (name, id, document): (String, uuid::Uuid, String) = (row.get(0), row.get(1), row.get(2));
        assert!(kept.insert((name, EventId::from_uuid(id).unwrap())), "{id} is there twice");
        assert!(documents.insert(document.clone()), "{document} was written under two ids");
    }
    let lost: Vec<_> = acknowledged.difference(&kept).collect();
    assert!(lost.is_empty(), "acknowledged and not kept: {lost:?}");
    let mut chains: BTreeMap<WriterId, Vec<u64>> = BTreeMap::new();
    let mut after = None;
    loop {
        let batches = store.audit_batches(after, 1_000).await.unwrap();
        let Some(end) = batches.last() else { break };
        after = Some((end.writer_id, end.sequence));
        for batch in &batches {
            chains.entry(batch.writer_id).or_default().push(batch.sequence);
        }
    }
    for (writer, sequences) in &chains {
        assert!((0..).zip(sequences).all(|(place, own)| place == *own), "{writer} has a gap: {sequences:?}");
    }
    assert!(store.unsealed_batches(1).await.unwrap().is_empty());
    assert!(anchors.len() > 1, "the children hardly sealed anything: {}", anchors.len());
    let longest = anchors.iter().map(Checkpoint::size).max().unwrap();
    let mut verifier = Verifier::new(Arc::clone(&store))
        .writer_key(writer_key().verifying_key())
        .sealer_key(sealer_key().verifying_key());
    for checkpoint in anchors {
        verifier = verifier.anchor(checkpoint);
    }
    let report = verifier.full(SystemClock.now()).await.unwrap();
    assert!(report.is_clean(), "{report:?}");
    assert_eq!(report.events, kept.len() as u64);
    assert!(report.epochs >= longest);
    println!(
        "audit, kill nine: {} acknowledged, {} kept, {} chains, {} batches, {} epochs, {longest} of them anchored",
        acknowledged.len(),
        kept.len(),
        chains.len(),
        report.batches,
        report.epochs,
    );
    assert!(acknowledged.len() > 500, "the children hardly did anything: {}", acknowledged.len());
}

fn child(url: &str, seed: u64, log: &Path) -> Victim {
    let name = "what_was_acknowledged_survives_kill_nine_and_crashes_of_the_server";
    let name = format!("{}::{name}", module_path!().split_once("::").unwrap().1);
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD, format!("{seed}\n{}\n{url}", log.display()))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    Victim(child.unwrap())
}

/// Nine times in ten when it has acknowledged something, once at any time.
fn kill_in_mid_work(mut child: Victim, log: &Path, dice: &mut Dice) {
    let deadline = Instant::now() + MINUTE;
    if dice.below(10) > 0 {
        while fs::metadata(log).map_or(0, |log| log.len()) == 0 {
            assert!(Instant::now() < deadline, "a child acknowledges nothing");
            assert_eq!(child.0.try_wait().unwrap(), None, "a child ended by itself");
            thread::sleep(Duration::from_millis(2));
        }
    }
    thread::sleep(Duration::from_micros(dice.below(150_000)));
}

/// A process that is killed at the latest when it is dropped.
struct Victim(Child);

impl Drop for Victim {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What a child does: three tasks record one by one and wait, three record many and wait for all of them later; the log
/// seals by itself. An event is written down when it is acknowledged, and the file is synced.
fn record_and_seal_until_killed(order: &str) {
    let mut lines = order.splitn(3, '\n');
    let mut dice = Dice::new(lines.next().unwrap().parse().unwrap());
    let path = lines.next().unwrap();
    let file = Arc::new(File::options().create(true).append(true).open(path).unwrap());
    let store = store(lines.next().unwrap());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let log = AuditLog::builder(store)
            .keys(keys())
            .anchor(FileAnchor::new(format!("{path}.anchor")))
            .batch_events(50)
            .batch_age(Duration::from_millis(5))
            .seal_interval(Some(Duration::from_millis(15)))
            .start()
            .unwrap();
        let mut tasks = JoinSet::new();
        for task in 0..6 {
            let (log, file, mut dice) = (log.clone(), Arc::clone(&file), Dice::new(dice.roll()));
            tasks.spawn(async move {
                for round in 0_u64.. {
                    let many = if task < 3 { 1 } else { dice.below(40) + 1 };
                    let acks: Vec<_> = (0..many)
                        .map(|number| {
                            let name = tenant(&format!("tenant-{}", dice.below(4)));
                            // Under one name in the whole test: twice would be one event written twice.
                            let document = label(&format!("{:x}-{task}-{round}-{number}", dice.roll()));
                            let record = KbAudit::ManualAdded { document, bytes: 1 };
                            (name.clone(), log.record(log.event(&name, ada(), &record).unwrap()))
                        })
                        .collect();
                    let mut told = Vec::new();
                    for (name, ack) in acks {
                        match ack.await {
                            Ok(recorded) => writeln!(told, "{name} {}", recorded.id).unwrap(),
                            Err(error) => writeln!(told, "!{error}").unwrap(),
                        }
                    }
                    (&*file).write_all(&told).unwrap();
                    file.sync_data().unwrap();
                }
            });
        }
        tasks.join_all().await
    });
}
