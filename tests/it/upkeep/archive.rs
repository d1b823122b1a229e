//! The archive: nothing lost, nothing twice, and nothing dropped that cannot be read back.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use futures_util::stream::BoxStream;
use metertrail::archive::Archive;
use metertrail::quota::Reconcile;
use metertrail::store::{DayTable, Store, UpkeepStore};
use metertrail::time::Period;
use metertrail::upkeep::{StepOutcome, Upkeep};
use metertrail::usage::{Latency, StatusCode};
use metertrail::{
    Cost, ErrorKind, EventQuery, EventType, Label, Measures, MemoryStore, Metadata, Outcome, PageSize,
    TenantId, TimeRange, TokenClass, TokenUsage, UsageEvent, Zone,
};
use object_store::local::LocalFileSystem;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};
use rust_decimal::Decimal;
use serde_json::json;
use tempfile::TempDir;

use super::mortal::{Life, MortalFiles, MortalStore};
use crate::ledger::{self, Dice};

const CHILD: &str = "METERTRAIL_ARCHIVE_CHILD";

/// A store of both kinds at once.
trait Both: Store + UpkeepStore {}
impl<S: Store + UpkeepStore> Both for S {}

/// A `#[tokio::test]` on each store of an async function that takes one.
macro_rules! on_both_stores {
    ($($name:ident,)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(std::sync::Arc::new(metertrail::MemoryStore::new())).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                let database = crate::ledger::database().await;
                super::$name(std::sync::Arc::new(crate::ledger::store(database.url()))).await;
            })*
        }
    };
}

on_both_stores! {
    the_same_questions_have_the_same_answers,
    a_file_that_cannot_be_read_back_drops_nothing,
    a_damaged_rest_of_an_earlier_attempt_is_written_anew,
    what_comes_in_between_is_archived_as_well,
    a_day_is_restored_and_archived_again,
    a_changed_file_is_not_restored,
    a_tenant_is_erased_from_the_archive,
    a_hold_keeps_the_day_and_the_archive,
}

fn start() -> DateTime<Utc> {
    "2026-03-01T00:00:00Z".parse().unwrap()
}

fn now() -> DateTime<Utc> {
    "2026-04-15T12:00:00Z".parse().unwrap()
}

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

/// The event of this number, with something in every field at one time or another.
fn varied(tenant_id: &TenantId, occurred_at: DateTime<Utc>, number: u64) -> UsageEvent {
    let mut dice = Dice::new(number);
    let label = |text: &str| Label::new("label", text).unwrap();
    let outcome = Outcome::ALL[dice.below(5) as usize];
    let event_type = match dice.below(5) {
        4 => EventType::custom("ocr_page").unwrap(),
        built_in => EventType::BUILT_IN[built_in as usize].clone(),
    };
    let mut event = UsageEvent::new(tenant_id.clone(), event_type, outcome, occurred_at).unwrap();
    event.tokens = TokenUsage::reported(dice.below(2_000), dice.below(500)).unwrap();
    if dice.below(3) == 0 {
        event.tokens = event.tokens.with(TokenClass::CacheRead, dice.below(900)).unwrap().into_estimated();
    }
    if dice.below(2) == 0 {
        event.latency = Some(Latency::new(Duration::from_micros(dice.below(9_000_000))).unwrap());
        event.status_code = Some(StatusCode::new(200 + dice.below(300) as u16).unwrap());
        event.cost = Some(Cost::usd(Decimal::new(dice.below(1_000_000) as i64, 12)).unwrap());
    }
    if dice.below(2) == 0 {
        event.model = Some(label("gpt-4o"));
        event.provider = Some(label("näher \u{1f980}"));
        event.session_id = Some(label("s"));
        event.user_id = Some(label("u"));
        event.idempotency_key = Some(label(&format!("key-{number}")));
    }
    if dice.below(2) == 0 {
        event.measures = Measures::default().with("pages", Decimal::new(1_250, 3)).unwrap();
        event.metadata = Metadata::new(json!({"a": [1, 2.5, null], "b": {"c": "d"}})).unwrap();
        event.error_message = Some(metertrail::usage::ErrorMessage::new("no \"luck\""));
    }
    event
}

/// So many events of each of three tenants on each of some days from the first of March.
fn history(days: i64, each: u64) -> Vec<UsageEvent> {
    let mut events = Vec::new();
    for day in 0..days {
        for name in ["acme", "bolt", "corp"] {
            for number in 0..each {
                let at = start() + TimeDelta::days(day) + TimeDelta::seconds(number as i64 * 977 + 1);
                events.push(varied(&tenant(name), at, events.len() as u64));
            }
        }
    }
    events
}

async fn append(store: &impl Both, events: &[UsageEvent]) {
    for batch in events.chunks(1_000) {
        store.append(batch, &[]).await.unwrap();
    }
    while store.roll_up(10_000).await.unwrap() > 0 {}
}

fn local() -> (TempDir, Archive) {
    let directory = tempfile::tempdir().unwrap();
    let archive = Archive::local(directory.path()).unwrap();
    (directory, archive)
}

fn upkeep_with<S: Both>(store: &Arc<S>, archive: &Archive) -> Upkeep {
    Upkeep::builder(Arc::clone(store)).task(archive.archiving(Arc::clone(store))).build().unwrap()
}

async fn archive_all<S: Both>(store: &Arc<S>, archive: &Archive, now: DateTime<Utc>) -> StepOutcome {
    upkeep_with(store, archive).run_task("archive", now).await.unwrap().outcome
}

fn rows(outcome: &StepOutcome) -> u64 {
    match outcome {
        StepOutcome::Succeeded { rows } => *rows,
        other => panic!("the step did not succeed: {other:?}"),
    }
}

/// What all events of a tenant are, from both places, by pages of some size.
async fn all_of<S: Both>(store: &S, archive: &Archive, query: &EventQuery) -> Vec<UsageEvent> {
    let mut events = Vec::new();
    let mut query = query.clone();
    loop {
        let page = archive.events(store, &query).await.unwrap();
        events.extend(page.items);
        match page.next {
            Some(next) => query = query.after(next),
            None => return events,
        }
    }
}

fn query(name: &str) -> EventQuery {
    let range = TimeRange::new(start(), now()).unwrap();
    EventQuery::new(tenant(name), range).page_size(PageSize::new(1_000).unwrap())
}

/// The logged events of a tenant, newest first.
fn logged(log: &[UsageEvent], name: &str) -> Vec<UsageEvent> {
    let mut events: Vec<_> = log.iter().filter(|event| event.tenant_id.as_str() == name).cloned().collect();
    events.sort_by_key(|event| std::cmp::Reverse(event.id()));
    events
}

/// Nothing is lost, and nothing is there twice, in both places together; every sum is that of the log.
async fn check<S: Both>(store: &S, archive: &Archive, log: &[UsageEvent]) {
    for name in ["acme", "bolt", "corp"] {
        let expected = logged(log, name);
        assert_eq!(all_of(store, archive, &query(name)).await, expected);
        let days = TimeRange::new(start(), "2026-05-01T00:00:00Z".parse().unwrap()).unwrap();
        for period in Period::ALL {
            let periods = period.ranges(days, Zone::UTC).unwrap();
            let usage = store.usage(&tenant(name), &periods).await.unwrap();
            for (range, metrics) in periods.iter().zip(usage) {
                let mut sums = metertrail::UsageMetrics::default();
                let inside = expected.iter().filter(|event| range.contains(event.occurred_at()));
                inside.for_each(|event| sums.add(event));
                assert_eq!(metrics, sums, "{name} {range:?}");
            }
        }
    }
}

fn files_of(directory: &Path, day: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory.join("usage").join(day)) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn parts_of(directory: &Path, day: &str) -> Vec<PathBuf> {
    let mut paths = files_of(directory, day);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "parquet"));
    paths
}

async fn the_same_questions_have_the_same_answers<S: Both>(store: Arc<S>) {
    let (_directory, archive) = local();
    let mut log = history(4, 40);
    log.extend(
        (1..31)
            .map(|number| varied(&tenant("acme"), now() - TimeDelta::hours(number), 9_000 + number as u64)),
    );
    append(&*store, &log).await;
    let range = TimeRange::new(start() + TimeDelta::hours(5), now()).unwrap();
    let small = || EventQuery::new(tenant("acme"), range).page_size(PageSize::new(7).unwrap());
    let questions = [
        query("acme"),
        small(),
        small().outcome(Outcome::Failure),
        small().event_type(EventType::Search).page_size(PageSize::new(3).unwrap()),
    ];
    let mut before = Vec::new();
    for question in &questions {
        before.push(all_of(&*store, &archive, question).await);
    }
    assert_eq!(before[0], logged(&log, "acme"));
    // The first page comes from the database alone, the second from both places.
    let first = store.events(&questions[1]).await.unwrap();
    assert_eq!(rows(&archive_all(&store, &archive, now()).await), 4 * 3 * 40);
    let rest = all_of(&*store, &archive, &small().after(first.next.unwrap())).await;
    assert_eq!([first.items, rest].concat(), before[1]);
    for (question, before) in questions.iter().zip(&before) {
        assert_eq!(all_of(&*store, &archive, question).await, *before);
    }
    let hot = store.events(&query("acme")).await.unwrap();
    assert_eq!(hot.items.len(), 30, "the database has what is new only");
    check(&*store, &archive, &log).await;
    let mut lines = Vec::new();
    let exported = archive.export_usage(&*store, &tenant("acme"), range, &mut lines).await.unwrap();
    let expected: Vec<String> =
        before[1].iter().map(|event| serde_json::to_string(event).unwrap() + "\n").collect();
    assert_eq!((exported as usize, String::from_utf8(lines).unwrap()), (expected.len(), expected.concat()));
    let days = store.days(DayTable::Usage).await.unwrap();
    assert!(days.iter().all(|day| *day >= "2026-04-14".parse().unwrap()), "{days:?}");
}

/// Files that are written otherwise than they were given.
#[derive(Debug)]
struct Flawed {
    inner: LocalFileSystem,
    flaw: fn(Vec<u8>) -> Vec<u8>,
    of: &'static str,
}

impl std::fmt::Display for Flawed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("flawed")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Flawed {
    async fn put_opts(
        &self,
        path: &object_store::path::Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        let bytes = bytes::Bytes::from(payload).to_vec();
        let bytes = if path.as_ref().ends_with(self.of) { (self.flaw)(bytes) } else { bytes };
        self.inner.put_opts(path, bytes.into(), options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &object_store::path::Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, options).await
    }

    async fn get_opts(
        &self,
        path: &object_store::path::Path,
        options: GetOptions,
    ) -> object_store::Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<object_store::path::Path>>,
    ) -> BoxStream<'static, object_store::Result<object_store::path::Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(
        &self,
        prefix: Option<&object_store::path::Path>,
    ) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(
        &self,
        prefix: Option<&object_store::path::Path>,
    ) -> object_store::Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(
        &self,
        from: &object_store::path::Path,
        to: &object_store::path::Path,
        options: CopyOptions,
    ) -> object_store::Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

fn flip(mut bytes: Vec<u8>) -> Vec<u8> {
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    bytes
}

fn cut(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.pop();
    bytes
}

async fn a_file_that_cannot_be_read_back_drops_nothing<S: Both>(store: Arc<S>) {
    let log = history(2, 20);
    append(&*store, &log).await;
    let directory = tempfile::tempdir().unwrap();
    let mut at = now();
    for of in [".parquet", "manifest.json"] {
        for flaw in [flip, cut, |_| Vec::new()] {
            let inner = LocalFileSystem::new_with_prefix(directory.path()).unwrap();
            let archive = Archive::new(Arc::new(Flawed { inner, flaw, of }));
            at += TimeDelta::hours(2);
            let outcome = archive_all(&store, &archive, at).await;
            let error = outcome.error().unwrap_or_else(|| panic!("{of} was not found bad: {outcome:?}"));
            assert_eq!(error.kind(), ErrorKind::Store, "{error:?}");
            assert_eq!(store.closed_days(DayTable::Usage).await.unwrap(), []);
            check(&*store, &archive, &log).await;
        }
    }
    let archive = Archive::local(directory.path()).unwrap();
    assert_eq!(rows(&archive_all(&store, &archive, at + TimeDelta::hours(2)).await), 120);
    check(&*store, &archive, &log).await;
    let left = files_of(directory.path(), "2026-03-01");
    assert_eq!(left.len(), 2, "what earlier attempts wrote is tidied away: {left:?}");
}

async fn a_damaged_rest_of_an_earlier_attempt_is_written_anew<S: Both>(store: Arc<S>) {
    let log = history(1, 30);
    append(&*store, &log).await;
    let (directory, archive) = local();
    let parts = || parts_of(directory.path(), "2026-03-01");
    // All is written, and the drop is refused.
    let reason = Label::new("reason", "case 71").unwrap();
    store.set_usage_hold(&tenant("acme"), Some(&reason)).await.unwrap();
    assert_eq!(rows(&archive_all(&store, &archive, now()).await), 0);
    let whole = std::fs::read(&parts()[0]).unwrap();
    let damages: [fn(Vec<u8>) -> Vec<u8>; 3] = [flip, cut, |_| Vec::new()];
    for (hour, damage) in (1..).zip(damages) {
        std::fs::write(parts().last().unwrap(), damage(whole.clone())).unwrap();
        assert_eq!(rows(&archive_all(&store, &archive, now() + TimeDelta::hours(hour)).await), 0);
        let (parts, expected) = (parts(), hour as usize + 1);
        assert_eq!(parts.len(), expected, "the damage was not found: {parts:?}");
        assert_eq!(std::fs::read(parts.last().unwrap()).unwrap(), whole);
    }
    // What is whole is not written again.
    assert_eq!(rows(&archive_all(&store, &archive, now() + TimeDelta::hours(8)).await), 0);
    assert_eq!(parts().len(), 4);
    store.set_usage_hold(&tenant("acme"), None).await.unwrap();
    std::fs::write(parts().last().unwrap(), cut(whole)).unwrap();
    assert_eq!(rows(&archive_all(&store, &archive, now() + TimeDelta::hours(9)).await), 90);
    check(&*store, &archive, &log).await;
}

async fn what_comes_in_between_is_archived_as_well<S: Both>(store: Arc<S>) {
    let mut log = history(1, 30);
    append(&*store, &log).await;
    let (directory, archive) = local();
    store.set_usage_hold(&tenant("acme"), Some(&Label::new("reason", "case").unwrap())).await.unwrap();
    assert_eq!(rows(&archive_all(&store, &archive, now()).await), 0);
    store.set_usage_hold(&tenant("acme"), None).await.unwrap();
    let late = varied(&tenant("bolt"), start() + TimeDelta::hours(3), 77_777);
    append(&*store, std::slice::from_ref(&late)).await;
    log.push(late);
    assert_eq!(rows(&archive_all(&store, &archive, now() + TimeDelta::hours(1)).await), 91);
    check(&*store, &archive, &log).await;
    let left = files_of(directory.path(), "2026-03-01");
    assert_eq!(left.len(), 2, "{left:?}");
    // From now on the day is closed.
    let too_late = varied(&tenant("bolt"), start() + TimeDelta::hours(4), 77_778);
    let refused = store.append(&[too_late], &[]).await.unwrap_err();
    assert_eq!((refused.kind(), refused.field()), (ErrorKind::InvalidInput, Some("occurred_at")));
    check(&*store, &archive, &log).await;
}

async fn a_day_is_restored_and_archived_again<S: Both>(store: Arc<S>) {
    let log = history(2, 30);
    append(&*store, &log).await;
    let (_directory, archive) = local();
    archive_all(&store, &archive, now()).await;
    let day: NaiveDate = "2026-03-01".parse().unwrap();
    let upkeep = upkeep_with(&store, &archive);
    let until = now() + TimeDelta::days(3);
    let restoring = archive.restoring(Arc::clone(&store), day, until);
    let restored = upkeep.run_once(restoring, now()).await.unwrap();
    assert_eq!(rows(&restored.outcome), 90);
    assert_eq!(store.events(&query("acme")).await.unwrap().items.len(), 30);
    check(&*store, &archive, &log).await;
    // It can be held against its events again, and a repetition is one.
    let range = Period::Day.range_at(start(), Zone::UTC);
    let report = store.reconcile(&tenant("acme"), range, Reconcile::Repair).await.unwrap();
    assert!(report.is_clean() && report.unverifiable_total == 0, "{report:?}");
    let again = store.append(&log[..5], &[]).await.unwrap();
    assert_eq!(again, [metertrail::store::Appended::Duplicate; 5]);
    assert_eq!(rows(&archive_all(&store, &archive, until - TimeDelta::hours(1)).await), 0);
    assert_eq!(rows(&archive_all(&store, &archive, until + TimeDelta::hours(1)).await), 90);
    check(&*store, &archive, &log).await;
}

async fn a_changed_file_is_not_restored<S: Both>(store: Arc<S>) {
    let log = history(1, 30);
    append(&*store, &log).await;
    let (directory, archive) = local();
    archive_all(&store, &archive, now()).await;
    let part = parts_of(directory.path(), "2026-03-01").remove(0);
    let whole = std::fs::read(&part).unwrap();
    let day: NaiveDate = "2026-03-01".parse().unwrap();
    for (minute, damaged) in (1..).zip([flip(whole.clone()), cut(whole.clone()), Vec::new()]) {
        std::fs::write(&part, damaged).unwrap();
        assert_eq!(archive.events(&*store, &query("acme")).await.unwrap_err().kind(), ErrorKind::Store);
        let restoring = archive.restoring(Arc::clone(&store), day, now());
        let at = now() + TimeDelta::minutes(minute);
        let refused = upkeep_with(&store, &archive).run_once(restoring, at).await.unwrap().outcome;
        assert_eq!(refused.error().map(metertrail::Error::kind), Some(ErrorKind::Store));
        assert_eq!(store.events(&query("acme")).await.unwrap().items, []);
    }
    std::fs::write(&part, whole).unwrap();
    check(&*store, &archive, &log).await;
}

async fn a_tenant_is_erased_from_the_archive<S: Both>(store: Arc<S>) {
    let log = history(2, 30);
    append(&*store, &log).await;
    let (directory, archive) = local();
    archive_all(&store, &archive, now()).await;
    store.erase_usage(&tenant("bolt")).await.unwrap();
    let upkeep = upkeep_with(&store, &archive);
    for (minute, expected) in [(1, 60), (2, 0)] {
        let erasing = archive.erasing(Arc::clone(&store), tenant("bolt"));
        let at = now() + TimeDelta::minutes(minute);
        assert_eq!(rows(&upkeep.run_once(erasing, at).await.unwrap().outcome), expected);
    }
    let rest: Vec<UsageEvent> =
        log.iter().filter(|event| event.tenant_id.as_str() != "bolt").cloned().collect();
    check(&*store, &archive, &rest).await;
    let left = files_of(directory.path(), "2026-03-02");
    assert_eq!(left.len(), 2, "{left:?}");
    for file in left {
        let bytes = std::fs::read(file).unwrap();
        assert!(!bytes.windows(4).any(|window| window == b"bolt"), "the tenant is still named");
    }
    // What is left can still be restored.
    let day: NaiveDate = "2026-03-02".parse().unwrap();
    let restoring = archive.restoring(Arc::clone(&store), day, now());
    assert_eq!(rows(&upkeep.run_once(restoring, now()).await.unwrap().outcome), 60);
    check(&*store, &archive, &rest).await;
}

async fn a_hold_keeps_the_day_and_the_archive<S: Both>(store: Arc<S>) {
    let log = history(1, 10);
    append(&*store, &log).await;
    let (_directory, archive) = local();
    let reason = Label::new("reason", "case 71").unwrap();
    store.set_usage_hold(&tenant("acme"), Some(&reason)).await.unwrap();
    assert_eq!(rows(&archive_all(&store, &archive, now()).await), 0);
    assert_eq!(store.events(&query("acme")).await.unwrap().items.len(), 10);
    store.set_usage_hold(&tenant("acme"), None).await.unwrap();
    assert_eq!(rows(&archive_all(&store, &archive, now() + TimeDelta::hours(1)).await), 30);
    store.set_usage_hold(&tenant("acme"), Some(&reason)).await.unwrap();
    let erasing = archive.erasing(Arc::clone(&store), tenant("acme"));
    let refused = upkeep_with(&store, &archive).run_once(erasing, now()).await.unwrap().outcome;
    assert_eq!(refused.error().map(metertrail::Error::kind), Some(ErrorKind::Conflict));
    check(&*store, &archive, &log).await;
}

/// A process archives a day and is killed at its first step, the next one at its second, and so on until one comes to its
/// end. After each, another one completes the day.
#[test]
fn kill_nine_at_every_step_loses_nothing() {
    if let Ok(order) = std::env::var(CHILD) {
        return archive_until_killed(&order);
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (directory, archive) = local();
    let database = runtime.block_on(ledger::database());
    let store = Arc::new(ledger::store(database.url()));
    let mut log: Vec<UsageEvent> = Vec::new();
    let mut kills = 0;
    for step in 1.. {
        assert!(step < 200, "no process comes to its end");
        let day = start() + TimeDelta::days(step);
        let at = day + TimeDelta::days(32);
        let events: Vec<UsageEvent> = ["acme", "bolt", "corp"]
            .into_iter()
            .flat_map(|name| (0..3).map(move |number| (name, number)))
            .map(|(name, number)| {
                let number = step as u64 * 100 + number;
                varied(&tenant(name), day + TimeDelta::seconds(number as i64), number)
            })
            .collect();
        runtime.block_on(append(&*store, &events));
        log.extend(events);
        let was_killed = !child(&format!("{step}\n{at}\n{}\n{}", directory.path().display(), database.url()));
        kills += u32::from(was_killed);
        runtime.block_on(async {
            check_once(&*store, &archive, &log).await;
            // The one that was killed holds its lease for a minute.
            let later = at + TimeDelta::minutes(2);
            let upkeep = upkeep_with(&store, &archive);
            let second = upkeep.run_task("archive", later).await.unwrap().outcome;
            assert!(second.is_success(), "step {step}: {second:?}");
            check_once(&*store, &archive, &log).await;
            let hot = store.day_digest(day.date_naive()).await.unwrap();
            assert_eq!(hot.events, 0, "step {step}: the second run did not complete it");
        });
        if !was_killed {
            break;
        }
    }
    println!("kill nine in mid-archive: killed at {kills} steps");
    assert!(kills > 20, "only {kills} steps were found to be killed at");
    runtime.block_on(async {
        let closed = store.closed_days(DayTable::Usage).await.unwrap();
        assert_eq!(closed.len() as u32, kills + 1);
        for closed in closed {
            let left = files_of(directory.path(), &closed.day.to_string());
            assert!(!left.is_empty(), "{closed:?}");
        }
    });
}

/// Each event of the log in one of the two places, and once.
async fn check_once<S: Both>(store: &S, archive: &Archive, log: &[UsageEvent]) {
    let range = TimeRange::new(start(), start() + TimeDelta::days(400)).unwrap();
    for name in ["acme", "bolt", "corp"] {
        let question = EventQuery::new(tenant(name), range).page_size(PageSize::new(1_000).unwrap());
        assert_eq!(all_of(store, archive, &question).await, logged(log, name));
        let total = store.usage(&tenant(name), &[range]).await.unwrap().remove(0);
        assert_eq!(total.calls, logged(log, name).len() as u64);
    }
}

/// Whether the process came to its end.
fn child(order: &str) -> bool {
    let name =
        format!("{}::kill_nine_at_every_step_loses_nothing", module_path!().split_once("::").unwrap().1);
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(CHILD, order)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    let was_killed = std::os::unix::process::ExitStatusExt::signal(&output.status) == Some(9);
    assert!(was_killed || output.status.success(), "a child failed: {output:?}");
    !was_killed
}

fn archive_until_killed(order: &str) {
    let mut lines = order.splitn(4, '\n');
    let life = Life::of(lines.next().unwrap().parse().unwrap());
    let at: DateTime<Utc> = lines.next().unwrap().parse().unwrap();
    let inner = LocalFileSystem::new_with_prefix(lines.next().unwrap()).unwrap().with_fsync(true);
    let archive = Archive::new(Arc::new(MortalFiles { inner, life: life.clone() }));
    let store = Arc::new(MortalStore { inner: ledger::store(lines.next().unwrap()), life });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let outcome = runtime.block_on(archive_all(&store, &archive, at));
    assert!(outcome.is_success(), "{outcome:?}");
}

/// What the files are, for whoever reads them with another tool.
#[tokio::test]
async fn a_manifest_has_counts_sums_and_checksums() {
    let store = Arc::new(MemoryStore::new());
    let (directory, archive) = local();
    let log = history(1, 20);
    append(&*store, &log).await;
    archive_all(&store, &archive, now()).await;
    let files = files_of(directory.path(), "2026-03-01");
    let manifest = files.iter().find(|path| path.extension().is_some_and(|of| of == "json")).unwrap();
    let text = std::fs::read_to_string(manifest).unwrap();
    let closed = store.closed_days(DayTable::Usage).await.unwrap().remove(0);
    assert_eq!(closed.manifest.unwrap().0, text);
    let manifest = metertrail::archive::Manifest::from_json(&text).unwrap();
    assert_eq!(manifest.digest(), closed.digest);
    assert_eq!(manifest.tenants.values().sum::<u64>(), 60);
    let part = &manifest.parts[0];
    let costs: Decimal = log.iter().filter_map(|event| event.cost).map(Cost::as_decimal).sum();
    let tokens: u64 = log.iter().map(|event| event.tokens.total()).sum();
    assert_eq!((part.events, part.cost_usd, part.tokens), (60, costs, tokens));
    let file = std::fs::read(directory.path().join(&part.path)).unwrap();
    assert_eq!((&file[..4], part.bytes), (&b"PAR1"[..], file.len() as u64));
    let sum: [u8; 32] = <sha2::Sha256 as sha2::Digest>::digest(&file).into();
    assert_eq!(u128::from_str_radix(&part.sha256[..32], 16).unwrap().to_be_bytes(), sum[..16]);
    assert_eq!(u128::from_str_radix(&part.sha256[32..], 16).unwrap().to_be_bytes(), sum[16..]);
}
