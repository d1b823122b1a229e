//! What recording costs the caller: `track` and `record_success`, the ack dropped, on a store that swallows everything.
//!
//! A sample is timed in bursts that fit into the buffer. Between two bursts the bench waits, off the clock, for the
//! buffer to be empty, so that nothing is dropped; the flusher runs all the while on a thread of its own.

mod report;

use std::num::NonZeroU32;
use std::sync::{Arc, Barrier, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use criterion::{BenchmarkId, Criterion, Throughput};
use metertrail::quota::Settlement;
use metertrail::store::Appended;
use metertrail::testing::delegate_store;
use metertrail::time::{Clock, SystemClock};
use metertrail::usage::TopConsumersQuery;
use metertrail::{
    Consumer, EventQuery, EventType, FlushPolicy, MemoryStore, Outcome, Overflow, Page, Result, Store,
    TenantId, TimeRange, TokenUsage, UsageEvent, UsageMetrics, UsageSummary, UsageTracker,
};
use tokio::runtime::{Builder, Runtime};

use self::report::{Table, is_quick, median, ratio, verdict};

const AIM: Duration = Duration::from_nanos(400);
const BUFFER_EVENTS: u32 = 400_000;
const BURST: u64 = 100_000;
/// Samples of fewer records than this are criterion's first steps.
const RECORDS_MIN: u64 = 20_000;

/// Keeps no events; quotas, which this bench does not use, in memory.
#[derive(Debug, Default)]
struct NullStore {
    quotas: MemoryStore,
}

#[async_trait]
impl Store for NullStore {
    async fn append(&self, batch: &[UsageEvent], _settlements: &[Settlement]) -> Result<Vec<Appended>> {
        Ok(vec![Appended::New; batch.len()])
    }

    async fn roll_up(&self, _steps_max: u32) -> Result<u64> {
        Ok(0)
    }

    async fn usage(&self, _tenant_id: &TenantId, periods: &[TimeRange]) -> Result<Vec<UsageMetrics>> {
        Ok(vec![UsageMetrics::default(); periods.len()])
    }

    async fn top_consumers(&self, _query: &TopConsumersQuery) -> Result<Vec<Consumer>> {
        Ok(Vec::new())
    }

    async fn summary(&self, _range: TimeRange) -> Result<UsageSummary> {
        Ok(UsageSummary::default())
    }

    async fn events(&self, _query: &EventQuery) -> Result<Page<UsageEvent>> {
        Ok(Page { items: Vec::new(), next: None })
    }

    delegate_store!(
        |null| null.quotas, except append, roll_up, usage, top_consumers, summary, events
    );
}

/// The time of each record of each sample, by case.
type Samples = Mutex<Vec<(String, Vec<Duration>)>>;

fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let samples = Samples::default();
    let mut criterion = Criterion::default()
        .sample_size(if is_quick() { 10 } else { 30 })
        .measurement_time(Duration::from_secs(5))
        .configure_from_args();
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_time().build()?;
    let tenants = (0..10_000).map(|n| TenantId::new(format!("tenant-{n:05}"))).collect::<Result<Vec<_>>>()?;
    let tokens = TokenUsage::reported(374, 44)?;

    let mut group = criterion.benchmark_group("record");
    group.throughput(Throughput::Elements(1));
    group.bench_function("event only", |bencher| {
        let tenant = &tenants[0];
        bencher.iter_custom(|records| {
            let started = Instant::now();
            for _ in 0..records {
                let event = UsageEvent::new(
                    tenant.clone(),
                    EventType::ChatMessage,
                    Outcome::Success,
                    SystemClock.now(),
                );
                drop(std::hint::black_box(event));
            }
            keep(&samples, "event only", records, started.elapsed())
        });
    });
    let mut dropped = 0;
    for (threads, tenants_used) in [(1, 1), (1, 10_000), (2, 1), (2, 10_000)] {
        let name = format!("{threads} thread(s), {tenants_used} tenant(s)");
        let tracker = start(&runtime)?;
        group.bench_function(BenchmarkId::from_parameter(&name), |bencher| {
            bencher.iter_custom(|records| {
                let elapsed = record(&tracker, &tenants[..tenants_used], tokens, threads, records);
                keep(&samples, &name, records, elapsed)
            });
        });
        dropped += tracker.health().dropped;
        let report = runtime.block_on(tracker.shutdown(Duration::from_secs(10)))?;
        assert!(report.unwritten.is_empty(), "the null store takes everything");
    }
    group.finish();
    criterion.final_summary();
    print(&samples, dropped);
    Ok(())
}

fn start(runtime: &Runtime) -> Result<UsageTracker> {
    let _entered = runtime.enter();
    UsageTracker::builder(NullStore::default())
        .flush(FlushPolicy::default())
        .buffer_events_max(NonZeroU32::new(BUFFER_EVENTS).unwrap_or(NonZeroU32::MIN))
        .overflow(Overflow::Drop)
        .start()
}

/// So many records by each thread; the time of the slowest.
fn record(
    tracker: &UsageTracker,
    tenants: &[TenantId],
    tokens: TokenUsage,
    threads: usize,
    records: u64,
) -> Duration {
    let mut elapsed = Duration::ZERO;
    let mut left = records;
    while left > 0 {
        let burst = left.min(BURST);
        left -= burst;
        elapsed += if threads == 1 {
            record_burst(tracker, tenants, tokens, 0, burst)
        } else {
            let barrier = Arc::new(Barrier::new(threads));
            std::thread::scope(|scope| {
                let burst_of = |thread| {
                    let barrier = Arc::clone(&barrier);
                    scope.spawn(move || {
                        barrier.wait();
                        record_burst(tracker, tenants, tokens, thread * 5_000, burst)
                    })
                };
                let handles: Vec<_> = (0..threads).map(burst_of).collect();
                handles.into_iter().filter_map(|handle| handle.join().ok()).max().unwrap_or_default()
            })
        };
        while tracker.health().pending > 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    elapsed
}

fn record_burst(
    tracker: &UsageTracker,
    tenants: &[TenantId],
    tokens: TokenUsage,
    first: usize,
    burst: u64,
) -> Duration {
    let mut tenant = tenants.iter().cycle().skip(first % tenants.len());
    let started = Instant::now();
    for _ in 0..burst {
        if let Some(tenant) = tenant.next() {
            drop(tracker.track(tenant, EventType::ChatMessage).record_success(tokens));
        }
    }
    started.elapsed()
}

/// Remembers a sample and hands its time on.
fn keep(samples: &Samples, case: &str, records: u64, elapsed: Duration) -> Duration {
    if records >= RECORDS_MIN || is_quick() {
        let each = elapsed / u32::try_from(records).unwrap_or(u32::MAX);
        let mut samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        match samples.iter_mut().find(|(name, _)| name == case) {
            Some((_, kept)) => kept.push(each),
            None => samples.push((case.to_owned(), vec![each])),
        }
    }
    elapsed
}

fn print(samples: &Samples, dropped: u64) {
    let samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
    let title = format!("Recording ({dropped} of all events dropped)");
    let mut table = Table::new(title, &["case", "median", "of the event alone", "aim: below 400 ns"]);
    let event_only = samples.first().map(|(_, times)| median(times)).unwrap_or_default();
    for (case, times) in samples.iter() {
        let time = median(times);
        table.row(&[
            case,
            &format!("{} ns", time.as_nanos()),
            &format!("{:.1} ×", ratio(event_only, time)),
            &verdict(time < AIM),
        ]);
    }
    table.print();
}
