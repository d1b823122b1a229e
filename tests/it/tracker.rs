//! The tracker on test doubles: every promise of recording, with the faults that could break it.
//!
//! Time is the runtime's, paused: it jumps to the next timer when nothing else is left to do, so that waits cost nothing
//! and can be asserted to the millisecond.

use std::num::NonZeroU32;
use std::time::Duration;

use chrono::{DateTime, Utc};
use futures_util::future;
use metertrail::testing::{Fault, FaultyStore, ManualClock, Method, SpyStore};
use metertrail::time::{TIME_MAX, TIME_MIN, TimeRange};
use metertrail::usage::{UsageMetrics, UsageTrackerBuilder};
use metertrail::{
    Ack, Actual, Error, ErrorKind, EventQuery, EventType, FlushPolicy, MemoryStore, Outcome, Overflow,
    Recorded, Result, ShutdownReport, Store, TenantId, TokenUsage, UsageEvent, UsageTracker,
};
use tokio::time::Instant;

/// For what must happen: in paused time this is over at once if it never does.
const LIMIT: Duration = Duration::from_secs(3_600);
const SECOND: Duration = Duration::from_secs(1);

/// A memory store with faults, watched, and a tracker that writes only when somebody waits or a batch is full.
struct Bench {
    spy: SpyStore<FaultyStore<MemoryStore>>,
    faulty: FaultyStore<MemoryStore>,
    began: Instant,
}

impl Bench {
    fn new() -> Self {
        let faulty = FaultyStore::new(MemoryStore::new());
        Self { spy: SpyStore::new(faulty.clone()), faulty, began: Instant::now() }
    }

    fn builder(&self) -> UsageTrackerBuilder {
        let patient = FlushPolicy::default().with_age(LIMIT);
        // The roll-up is left aside: in paused time its interval would otherwise be what the clock jumps to.
        UsageTracker::builder(self.spy.clone()).flush(patient).roll_up_interval(LIMIT * 1_000)
    }

    fn tracker(&self) -> UsageTracker {
        self.builder().start().unwrap()
    }

    async fn usage(&self) -> UsageMetrics {
        let all = TimeRange::new(TIME_MIN, TIME_MAX).unwrap();
        self.faulty.usage(&acme(), &[all]).await.unwrap().remove(0)
    }

    async fn events(&self) -> Vec<UsageEvent> {
        let all = TimeRange::new(TIME_MIN, TIME_MAX).unwrap();
        self.faulty.events(&EventQuery::new(acme(), all)).await.unwrap().items
    }

    fn batches(&self) -> Vec<usize> {
        self.spy.appends().iter().map(Vec::len).collect()
    }

    async fn appends_ended(&self, number: usize) {
        self.spy.ended(Method::Append, number, LIMIT).await.unwrap();
    }
}

fn acme() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn record(tracker: &UsageTracker) -> Ack {
    tracker.track(&acme(), EventType::ChatMessage).record_success(TokenUsage::reported(10, 5).unwrap())
}

fn record_many(tracker: &UsageTracker, number: usize) {
    (0..number).for_each(|_| drop(record(tracker)));
}

/// Awaits all of them at once.
async fn all_of(acks: impl IntoIterator<Item = Ack>) -> Vec<Result<Recorded>> {
    future::join_all(acks.into_iter().map(IntoFuture::into_future)).await
}

async fn shutdown(tracker: &UsageTracker) -> ShutdownReport {
    tracker.shutdown(LIMIT).await.unwrap()
}

fn events_max(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

// Acknowledgements.

#[tokio::test(start_paused = true)]
async fn an_ack_says_new_duplicate_or_conflict() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    let event =
        UsageEvent::new(acme(), EventType::Search, Outcome::Success, at("2026-03-01T10:00:00Z")).unwrap();
    let mut other = event.clone();
    other.outcome = Outcome::Failure;

    let ack = tracker.record(event.clone());
    assert!(ack.is_accepted());
    assert_eq!(ack.id(), event.id());
    let recorded = ack.await.unwrap();
    assert_eq!((recorded.id, recorded.duplicate), (event.id(), false));
    assert!(tracker.record(event.clone()).await.unwrap().duplicate);
    assert_eq!(tracker.record(other).await.unwrap_err().kind(), ErrorKind::Conflict);

    let health = tracker.health();
    assert_eq!((health.written, health.duplicates, health.conflicts, health.pending), (1, 1, 1, 0));
    assert_eq!(bench.events().await, [event]);
    let report = shutdown(&tracker).await;
    assert_eq!((report.written, report.duplicates, report.conflicts), (1, 1, 1));
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_counts_once_and_conflicts_by_payload() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    let attempt = || tracker.track(&acme(), EventType::ChatMessage).idempotency_key("order-7").unwrap();
    assert!(!attempt().record_success(TokenUsage::reported(1, 2).unwrap()).await.unwrap().duplicate);
    assert!(attempt().record_success(TokenUsage::reported(1, 2).unwrap()).await.unwrap().duplicate);
    let other = attempt().record_success(TokenUsage::reported(1, 3).unwrap()).await;
    assert_eq!(other.unwrap_err().kind(), ErrorKind::Conflict);
    assert_eq!((bench.usage().await.calls, bench.usage().await.tokens_total()), (1, 3));
}

#[tokio::test(start_paused = true)]
async fn an_ack_after_the_shutdown_is_refused() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    let clone = tracker.clone();
    let _ = shutdown(&tracker).await;
    let ack = record(&clone);
    assert!(!ack.is_accepted());
    assert_eq!(ack.await.unwrap_err().kind(), ErrorKind::ShutDown);
    assert_eq!(clone.shutdown(SECOND).await.unwrap_err().kind(), ErrorKind::ShutDown);
    assert!(bench.spy.appends().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_dropped_wait_for_an_ack_loses_nothing() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    bench.faulty.script(Method::Append, [Fault::Delay(SECOND * 10)]);
    let ack = record(&tracker);
    tokio::time::timeout(SECOND, async { ack.await }).await.unwrap_err();
    bench.appends_ended(1).await;
    assert_eq!(bench.usage().await.calls, 1);
}

// When the buffer is written.

#[tokio::test(start_paused = true)]
async fn an_awaited_ack_is_written_at_once() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    record_many(&tracker, 3);
    record(&tracker).await.unwrap();
    assert_eq!(bench.began.elapsed(), Duration::ZERO);
    assert_eq!(bench.batches(), [4]);
}

#[tokio::test(start_paused = true)]
async fn a_hundred_awaited_acks_share_a_few_appends() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    bench.faulty.always(Method::Append, Fault::Delay(Duration::from_millis(10)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let tracker = tracker.clone();
        tasks.spawn(async move { record(&tracker).await.unwrap() });
    }
    tasks.join_all().await;
    assert!(bench.batches().len() <= 3, "{:?}", bench.batches());
    assert_eq!(bench.batches().iter().sum::<usize>(), 100);
    assert!(bench.began.elapsed() <= Duration::from_millis(20));
}

#[tokio::test(start_paused = true)]
async fn acks_awaited_after_a_batch_has_left_go_with_the_next() {
    let bench = Bench::new();
    let tracker =
        bench.builder().flush(FlushPolicy::default().with_age(LIMIT).with_concurrency(1)).start().unwrap();
    bench.faulty.script(Method::Append, [Fault::Delay(SECOND)]);
    let first = tokio::spawn(record(&tracker).into_future());
    bench.spy.begun(Method::Append, 1, LIMIT).await.unwrap();
    // Recorded and awaited while the first is on its way: they share one append, without a wait for age or number.
    let acks: Vec<Ack> = (0..50).map(|_| record(&tracker)).collect();
    assert!(all_of(acks).await.iter().all(Result::is_ok));
    first.await.unwrap().unwrap();
    assert_eq!(bench.batches(), [1, 50]);
    assert_eq!(bench.began.elapsed().as_secs(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_batch_is_written_at_once() {
    let bench = Bench::new();
    let tracker =
        bench.builder().flush(FlushPolicy::default().with_events(5).with_age(LIMIT)).start().unwrap();
    record_many(&tracker, 12);
    bench.appends_ended(2).await;
    assert_eq!(bench.began.elapsed(), Duration::ZERO);
    assert_eq!(bench.batches(), [5, 5]);
    let report = shutdown(&tracker).await;
    assert_eq!((bench.batches(), report.written), (vec![5, 5, 2], 12));
}

#[tokio::test(start_paused = true)]
async fn an_old_batch_is_written_by_its_age() {
    let bench = Bench::new();
    let tracker = bench.builder().flush(FlushPolicy::default().with_age(SECOND * 3)).start().unwrap();
    record_many(&tracker, 7);
    tokio::time::sleep(SECOND * 2).await;
    record_many(&tracker, 2);
    bench.appends_ended(1).await;
    assert_eq!(bench.began.elapsed().as_secs(), 3);
    assert_eq!(bench.batches(), [9]);
    // The next batch has an age of its own.
    let again = Instant::now();
    record_many(&tracker, 1);
    bench.appends_ended(2).await;
    assert_eq!(again.elapsed().as_secs(), 3);
}

#[tokio::test(start_paused = true)]
async fn the_relaxed_preset_writes_by_a_hundred_or_ten_seconds() {
    let bench = Bench::new();
    let tracker = bench.builder().flush(FlushPolicy::relaxed()).start().unwrap();
    record_many(&tracker, 250);
    bench.appends_ended(2).await;
    assert_eq!((bench.began.elapsed().as_secs(), bench.batches()), (0, vec![100, 100]));
    bench.appends_ended(3).await;
    assert_eq!((bench.began.elapsed().as_secs(), bench.batches()), (10, vec![100, 100, 50]));
    assert_eq!(tracker.health().written, 250);
}

/// "At the latest this long after the first of them": time spent behind a slow batch counts.
#[tokio::test(start_paused = true)]
async fn age_counts_from_the_record_also_behind_a_slow_store() {
    let bench = Bench::new();
    let tracker = bench.builder().flush(FlushPolicy::relaxed()).start().unwrap();
    bench.faulty.script(Method::Append, [Fault::Delay(SECOND * 8), Fault::Delay(SECOND * 8)]);
    record_many(&tracker, 250);
    // At 16 s the store is free again and the last events are older than 10 s.
    bench.spy.begun(Method::Append, 3, LIMIT).await.unwrap();
    assert_eq!(bench.began.elapsed().as_secs(), 16);
}

#[tokio::test(start_paused = true)]
async fn no_more_batches_are_on_their_way_than_allowed() {
    let bench = Bench::new();
    let policy = FlushPolicy::default().with_events(1).with_concurrency(2);
    let tracker = bench.builder().flush(policy).append_timeout(SECOND * 30).start().unwrap();
    bench.faulty.always(Method::Append, Fault::Hang);
    record_many(&tracker, 5);
    bench.spy.begun(Method::Append, 2, LIMIT).await.unwrap();
    bench.spy.begun(Method::Append, 3, SECOND * 29).await.unwrap_err();
    assert_eq!(tracker.health().pending, 5);
}

// The buffer's bound.

#[tokio::test(start_paused = true)]
async fn an_event_that_finds_the_buffer_full_is_accepted_when_awaited() {
    let bench = Bench::new();
    let tracker = bench.builder().buffer_events_max(events_max(2)).start().unwrap();
    bench.faulty.script(Method::Append, [Fault::Delay(SECOND)]);
    let acks = [record(&tracker), record(&tracker), record(&tracker), record(&tracker)];
    assert_eq!(acks.each_ref().map(Ack::is_accepted), [true, true, false, false]);
    assert_eq!(tracker.health().pending, 2);
    for ack in all_of(acks).await {
        assert!(!ack.unwrap().duplicate);
    }
    assert_eq!(bench.usage().await.calls, 4);
    assert_eq!((tracker.health().pending, tracker.health().dropped), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn an_event_that_finds_the_buffer_full_and_is_not_awaited_is_counted_as_dropped() {
    let bench = Bench::new();
    let tracker = bench.builder().buffer_events_max(events_max(2)).start().unwrap();
    record_many(&tracker, 5);
    assert_eq!((tracker.health().pending, tracker.health().dropped), (2, 3));
    let report = shutdown(&tracker).await;
    assert_eq!((report.written, report.dropped), (2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_room_that_is_given_up_is_counted_as_dropped() {
    let bench = Bench::new();
    let tracker = bench.builder().buffer_events_max(events_max(1)).start().unwrap();
    bench.faulty.script(Method::Append, [Fault::Delay(SECOND * 10)]);
    drop(record(&tracker));
    let ack = record(&tracker);
    tokio::time::timeout(SECOND, async { ack.await }).await.unwrap_err();
    assert_eq!(tracker.health().dropped, 1);
    let report = shutdown(&tracker).await;
    assert_eq!((report.written, report.dropped), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn with_overflow_drop_an_event_too_many_is_refused_and_counted() {
    let bench = Bench::new();
    let tracker = bench.builder().buffer_events_max(events_max(2)).overflow(Overflow::Drop).start().unwrap();
    record_many(&tracker, 2);
    let ack = record(&tracker);
    assert!(!ack.is_accepted());
    assert_eq!(ack.await.unwrap_err().kind(), ErrorKind::BufferFull);
    assert_eq!(tracker.health().dropped, 1);
    // What is written makes room.
    let report = shutdown(&tracker).await;
    assert_eq!((report.written, report.dropped), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_room_is_told_of_the_shutdown() {
    let bench = Bench::new();
    let tracker = bench.builder().buffer_events_max(events_max(1)).start().unwrap();
    bench.faulty.always(Method::Append, Fault::Hang);
    drop(record(&tracker));
    let waiting = tokio::spawn(record(&tracker).into_future());
    bench.spy.begun(Method::Append, 1, LIMIT).await.unwrap();
    let report = tracker.shutdown(SECOND).await.unwrap();
    assert_eq!(waiting.await.unwrap().unwrap_err().kind(), ErrorKind::ShutDown);
    assert_eq!((report.unwritten.len(), report.written), (1, 0));
}

// A store with faults.

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_counts_once() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    bench.faulty.script(Method::Append, [Fault::lost_answer(), Fault::unavailable(), Fault::lost_answer()]);
    let acks: Vec<Ack> = (0..10).map(|_| record(&tracker)).collect();
    assert!(all_of(acks).await.iter().all(Result::is_ok));
    assert_eq!((bench.usage().await.calls, bench.usage().await.tokens_total()), (10, 150));
    let health = tracker.health();
    assert_eq!((health.retries, health.rejected, health.pending), (3, 0, 0));
    assert!(health.last_error.is_none(), "{:?}", health.last_error);
}

#[tokio::test(start_paused = true)]
async fn faults_by_chance_lose_and_double_nothing() {
    for seed in 0..20 {
        let bench = Bench::new();
        let policy = FlushPolicy::default().with_events(7).with_age(SECOND);
        let tracker = bench.builder().flush(policy).append_timeout(SECOND).start().unwrap();
        let faults = [
            (Fault::unavailable(), 150),
            (Fault::lost_answer(), 150),
            (Fault::Hang, 50),
            (Fault::HangAfter, 50),
            (Fault::schema(), 50),
            (Fault::Delay(SECOND / 2), 100),
        ];
        bench.faulty.by_chance(seed, faults);
        let acks: Vec<Ack> = (0..200).map(|_| record(&tracker)).collect();
        let ids: Vec<_> = acks.iter().map(Ack::id).collect();
        assert!(all_of(acks).await.iter().all(Result::is_ok), "seed {seed}");
        bench.faulty.heal();
        assert_eq!(bench.usage().await.calls, 200, "seed {seed}");
        assert_eq!(ids.len(), 200);
        assert!(bench.faulty.injected() > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_poisonous_event_is_isolated_and_kept_aside() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    let is_poison = |event: &UsageEvent| event.model.as_ref().is_some_and(|model| model.as_str() == "poison");
    bench.faulty.poison(is_poison, Error::new(ErrorKind::Store, "such a row cannot be"));
    let mut acks = Vec::new();
    for number in 0..100 {
        let model = if number == 37 || number == 99 { "poison" } else { "gpt-4o" };
        let operation = tracker.track(&acme(), EventType::ChatMessage).model(model).unwrap();
        acks.push(operation.record_success(Actual::new()));
    }
    let answers = all_of(acks).await;
    for (number, answer) in answers.iter().enumerate() {
        match number {
            37 | 99 => assert_eq!(answer.as_ref().unwrap_err().kind(), ErrorKind::Store),
            _ => assert!(!answer.as_ref().unwrap().duplicate, "event {number}"),
        }
    }
    assert_eq!(bench.usage().await.calls, 98);
    // Halving finds one of a hundred in seven steps of two appends.
    assert!(bench.batches().len() <= 1 + 2 * 2 * 7, "{:?}", bench.batches());
    assert_eq!(tracker.health().rejected, 2);
    let report = shutdown(&tracker).await;
    assert_eq!((report.written, report.rejected.len(), report.unwritten.len()), (98, 2, 0));
    assert!(
        report.rejected.iter().all(|(event, error)| is_poison(event) && error.kind() == ErrorKind::Store)
    );
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_store_harms_nothing_else() {
    for fault in [Fault::Panic, Fault::PanicAfter] {
        let bench = Bench::new();
        let tracker = bench.tracker();
        bench.faulty.script(Method::Append, [fault]);
        let acks: Vec<Ack> = (0..10).map(|_| record(&tracker)).collect();
        assert!(all_of(acks).await.iter().all(Result::is_ok));
        assert_eq!(bench.usage().await.calls, 10);
        record(&tracker).await.unwrap();
        let report = shutdown(&tracker).await;
        assert_eq!((report.rejected.len(), report.unwritten.len()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_whose_append_panics_is_not_lost_without_a_word() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    bench.faulty.always(Method::Append, Fault::Panic);
    let error = record(&tracker).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Store);
    let report = shutdown(&tracker).await;
    assert_eq!((report.rejected.len(), report.written), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_hung_append_is_given_up_and_tried_again() {
    for fault in [Fault::Hang, Fault::HangAfter] {
        let bench = Bench::new();
        let tracker = bench.builder().append_timeout(SECOND * 5).start().unwrap();
        bench.faulty.script(Method::Append, [fault]);
        record(&tracker).await.unwrap();
        assert_eq!(bench.began.elapsed().as_secs(), 5);
        assert_eq!((bench.usage().await.calls, tracker.health().retries), (1, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_missing_schema_is_waited_for_and_nothing_is_lost() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    bench.faulty.always(Method::Append, Fault::schema());
    let ack = tokio::spawn(record(&tracker).into_future());
    bench.appends_ended(8).await;
    assert!(!ack.is_finished());
    assert_eq!(tracker.health().last_error.unwrap().kind(), ErrorKind::Schema);
    assert_eq!((tracker.health().rejected, tracker.health().pending), (0, 1));
    bench.faulty.heal();
    assert!(!ack.await.unwrap().unwrap().duplicate);
    assert_eq!(bench.usage().await.calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_store_that_comes_back_is_found_within_seconds() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    bench.faulty.always(Method::Append, Fault::unavailable());
    let ack = tokio::spawn(record(&tracker).into_future());
    // An hour of outage.
    tokio::time::sleep(LIMIT).await;
    let tries = bench.spy.count(Method::Append);
    assert!((700..3_000).contains(&tries), "{tries} tries in an hour");
    bench.faulty.heal();
    let back = Instant::now();
    ack.await.unwrap().unwrap();
    assert!(back.elapsed() <= SECOND * 5, "{:?}", back.elapsed());
}

#[tokio::test(start_paused = true)]
async fn rolling_up_survives_faults_of_the_store() {
    for fault in [Fault::unavailable(), Fault::schema(), Fault::Panic] {
        let bench = Bench::new();
        let tracker = bench.builder().roll_up_interval(SECOND).start().unwrap();
        bench.faulty.script(Method::RollUp, [fault.clone()]);
        let third = bench.spy.begun(Method::RollUp, 3, SECOND * 60).await;
        assert!(third.is_ok(), "after {fault:?}: {third:?}");
        drop(tracker);
    }
}

// The end.

#[tokio::test(start_paused = true)]
async fn a_shutdown_drains_and_reports() {
    let bench = Bench::new();
    let tracker = bench.builder().flush(FlushPolicy::relaxed()).start().unwrap();
    record_many(&tracker, 250);
    let acks = [record(&tracker), record(&tracker)];
    let report = shutdown(&tracker).await;
    assert_eq!((report.written, report.dropped), (252, 0));
    assert!(report.unwritten.is_empty() && report.rejected.is_empty());
    assert_eq!(bench.usage().await.calls, 252);
    assert_eq!(bench.began.elapsed(), Duration::ZERO);
    assert!(all_of(acks).await.iter().all(Result::is_ok));
}

#[tokio::test(start_paused = true)]
async fn what_a_shutdown_could_not_write_can_be_recorded_again_and_counts_once() {
    for faults in [vec![], vec![Fault::lost_answer()], vec![Fault::HangAfter]] {
        let bench = Bench::new();
        let policy = FlushPolicy::default().with_events(10).with_age(LIMIT).with_concurrency(1);
        let tracker = bench.builder().flush(policy).start().unwrap();
        bench.faulty.script(Method::Append, faults);
        bench.faulty.always(Method::Append, Fault::unavailable());
        record_many(&tracker, 24);
        let ack = tokio::spawn(record(&tracker).into_future());
        bench.spy.begun(Method::Append, 1, LIMIT).await.unwrap();
        let report = tracker.shutdown(SECOND).await.unwrap();
        assert_eq!(bench.began.elapsed().as_secs(), 1);
        assert_eq!((report.unwritten.len(), report.written), (25, 0));
        assert_eq!(ack.await.unwrap().unwrap_err().kind(), ErrorKind::ShutDown);

        bench.faulty.heal();
        let another = bench.tracker();
        let acks: Vec<Ack> = report.unwritten.into_iter().map(|event| another.record(event)).collect();
        assert!(all_of(acks).await.iter().all(Result::is_ok));
        assert_eq!((bench.usage().await.calls, bench.usage().await.tokens_total()), (25, 25 * 15));
    }
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_is_dropped_writes_what_it_has() {
    let bench = Bench::new();
    let tracker = bench.builder().flush(FlushPolicy::relaxed()).start().unwrap();
    let clone = tracker.clone();
    record_many(&tracker, 3);
    drop(tracker);
    record_many(&clone, 2);
    drop(clone);
    bench.appends_ended(1).await;
    assert_eq!((bench.usage().await.calls, bench.began.elapsed()), (5, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_tracker_that_is_dropped_outlives_a_short_outage() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    bench.faulty.script(Method::Append, vec![Fault::unavailable(); 5]);
    record_many(&tracker, 3);
    drop(tracker);
    bench.appends_ended(6).await;
    assert_eq!(bench.usage().await.calls, 3);
}

#[test]
fn a_runtime_that_ends_tells_who_waits_for_a_batch_on_its_way() {
    runtime_ends(true);
}

#[test]
fn a_runtime_that_ends_tells_who_waits_for_a_batch_in_the_buffer() {
    runtime_ends(false);
}

fn runtime_ends(is_on_its_way: bool) {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let first = runtime();
    let (bench, tracker) = first.block_on(async {
        let bench = Bench::new();
        let tracker = bench.builder().flush(FlushPolicy::default().with_events(1)).start().unwrap();
        bench.faulty.always(Method::Append, Fault::Hang);
        (bench, tracker)
    });
    let ack = record(&tracker);
    if is_on_its_way {
        first.block_on(bench.spy.begun(Method::Append, 1, LIMIT)).unwrap();
    }
    drop(first);
    let answer = runtime().block_on(async { tokio::time::timeout(SECOND * 5, ack.into_future()).await });
    assert_eq!(answer.expect("the waiter hangs").unwrap_err().kind(), ErrorKind::ShutDown);
}

// Operations.

#[tokio::test(start_paused = true)]
async fn a_dropped_operation_is_abandoned_and_charged_at_its_estimate() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    drop(tracker.track(&acme(), EventType::ChatMessage).estimate(TokenUsage::reported(100, 50).unwrap()));
    drop(tracker.track(&acme(), EventType::ChatMessage));
    let _ = shutdown(&tracker).await;
    let usage = bench.usage().await;
    assert_eq!(
        (usage.calls, usage.abandoned, usage.tokens_total(), usage.tokens_estimated),
        (2, 2, 150, 150)
    );
    assert_eq!((usage.unpriced, usage.latency.count()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_handler_abandons_its_operation() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    let handler = async {
        let operation = tracker.track(&acme(), EventType::ChatMessage);
        std::future::pending::<()>().await;
        operation.cancel();
    };
    tokio::time::timeout(SECOND, handler).await.unwrap_err();
    let _ = shutdown(&tracker).await;
    assert_eq!(bench.usage().await.abandoned, 1);
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_operation_makes_no_event() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    tracker.track(&acme(), EventType::ChatMessage).estimate(TokenUsage::reported(1, 1).unwrap()).cancel();
    assert_eq!(shutdown(&tracker).await.written, 0);
    assert!(bench.spy.appends().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refused_setter_makes_no_event() {
    let bench = Bench::new();
    let tracker = bench.tracker();
    let track = || tracker.track(&acme(), EventType::ChatMessage);
    let long = "x".repeat(257);
    let refused = [
        (track().session_id("").err(), "session_id"),
        (track().user_id(" ").err(), "user_id"),
        (track().model("\0").err(), "model"),
        (track().provider(&long).err(), "provider"),
        (track().idempotency_key("a\n").err(), "idempotency_key"),
        (track().metadata(vec![1]).err(), "metadata"),
    ];
    for (error, field) in refused {
        assert_eq!(error.unwrap().field(), Some(field));
    }
    assert_eq!(shutdown(&tracker).await.written, 0);
}

#[tokio::test(start_paused = true)]
async fn latency_is_measured_by_the_monotonic_clock() {
    let bench = Bench::new();
    let clock = ManualClock::new(at("2026-03-01T10:00:00Z"));
    let tracker = bench.builder().clock(clock.clone()).start().unwrap();
    let operation = tracker.track(&acme(), EventType::ChatMessage);
    clock.advance(Duration::from_micros(850_123));
    // NTP sets the wall clock back by a day.
    clock.set(at("2026-02-28T10:00:00Z"));
    operation.record_failure("timed out", Actual::new()).await.unwrap();
    let operation = tracker.track(&acme(), EventType::ChatMessage);
    clock.advance(SECOND);
    operation.record_success(Actual::new().latency(SECOND * 7).unwrap()).await.unwrap();

    let told: Vec<(DateTime<Utc>, u64)> = bench
        .events()
        .await
        .iter()
        .map(|event| (event.occurred_at(), event.latency.unwrap().as_micros()))
        .collect();
    assert_eq!(told, [(at("2026-03-01T10:00:00Z"), 850_123), (at("2026-02-28T10:00:00Z"), 7_000_000)]);
    assert_eq!(tracker.usage_today(&acme()).await.unwrap().metrics.calls, 1);
}

// Many at once.

#[tokio::test(start_paused = true)]
async fn clones_share_one_buffer() {
    let bench = Bench::new();
    let tracker =
        bench.builder().flush(FlushPolicy::default().with_events(5).with_age(LIMIT)).start().unwrap();
    let clone = tracker.clone();
    record_many(&tracker, 3);
    record_many(&clone, 2);
    bench.appends_ended(1).await;
    assert_eq!((bench.batches(), bench.began.elapsed()), (vec![5], Duration::ZERO));
    assert_eq!((tracker.health().written, clone.health().written), (5, 5));
    drop(tracker);
    record(&clone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_threads_lose_nothing() {
    let store = SpyStore::new(MemoryStore::new());
    let tracker = UsageTracker::start(store.clone()).unwrap();
    let threads: Vec<_> = (0..8)
        .map(|_| {
            let tracker = tracker.clone();
            std::thread::spawn(move || record_many(&tracker, 10_000))
        })
        .collect();
    // Joined outside of the runtime's own threads.
    tokio::task::spawn_blocking(|| threads.into_iter().for_each(|thread| thread.join().unwrap()))
        .await
        .unwrap();
    let report = tokio::time::timeout(SECOND * 60, tracker.shutdown(SECOND * 50)).await.unwrap().unwrap();
    assert_eq!((report.written, report.dropped, report.duplicates), (80_000, 0, 0));
    assert_eq!(report.unwritten.len() + report.rejected.len(), 0);
    let all = TimeRange::new(TIME_MIN, TIME_MAX).unwrap();
    let usage = store.usage(&acme(), &[all]).await.unwrap().remove(0);
    assert_eq!((usage.calls, usage.tokens_total()), (80_000, 80_000 * 15));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn back_pressure_over_a_small_buffer_loses_nothing() {
    let store = SpyStore::new(MemoryStore::new());
    let tracker = UsageTracker::builder(store.clone()).buffer_events_max(events_max(10)).start().unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..50 {
        let tracker = tracker.clone();
        tasks.spawn(async move {
            for _ in 0..100 {
                record(&tracker).await.unwrap();
            }
        });
    }
    tokio::time::timeout(SECOND * 60, tasks.join_all()).await.expect("the tasks wait for each other");
    let report = tokio::time::timeout(SECOND * 60, tracker.shutdown(SECOND * 50)).await.unwrap().unwrap();
    assert_eq!((report.written, report.dropped), (5_000, 0));
}

// Its start.

#[test]
fn outside_of_a_runtime_it_does_not_start() {
    assert_eq!(UsageTracker::start(MemoryStore::new()).unwrap_err().kind(), ErrorKind::Misuse);
}

#[tokio::test]
async fn settings_out_of_range_are_refused() {
    let start = |policy| UsageTracker::builder(MemoryStore::new()).flush(policy).start();
    for policy in [FlushPolicy::default().with_events(0), FlushPolicy::default().with_events(10_001)] {
        assert_eq!(start(policy).unwrap_err().field(), Some("flush.events"));
    }
    assert_eq!(
        start(FlushPolicy::default().with_concurrency(0)).unwrap_err().field(),
        Some("flush.concurrency")
    );
}
