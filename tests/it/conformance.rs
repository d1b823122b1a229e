//! The conformance suite on every store of the crate, bare and wrapped, one named test a case a store.

/// Makes the flaws of a store, a test of each, and a list of the cases that it fails: the first name is the type of the cases, and
/// `FlawedStore::new` makes the store that has one.
macro_rules! flaws {
    ($case_type:ident: $($test:ident: $flaw:ident => [$($case:ident),+];)*) => {
        #[derive(Clone, Copy, Debug, PartialEq)]
        enum Flaw {
            None,
            $($flaw,)*
        }

        const FAILED: &[&str] = &[$($(stringify!($case),)+)*];

        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                finds(Flaw::$flaw, &[$(stringify!($case)),+]).await;
            }
        )*

        async fn finds(flaw: Flaw, cases: &[&str]) {
            for name in cases {
                let case = $case_type::named(name).unwrap();
                let run = AssertUnwindSafe(case.run(FlawedStore::new(flaw))).catch_unwind();
                assert!(run.await.is_err(), "{case:?} passes on {flaw:?}");
            }
        }
    };
}

mod flawed_audit;
mod flawed_quotas;

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use deadpool_postgres::{Manager, Pool, Runtime};
use metertrail::quota::Settlement;
use metertrail::store::{Appended, Store};
use metertrail::testing::conformance::{CASES, StoreUnderTest};
use metertrail::testing::postgres::TestDatabase;
use metertrail::testing::{FaultyStore, SpyStore, delegate_store};
use metertrail::time::TimeRange;
use metertrail::usage::{EventQuery, Outcome, UsageEvent, UsageMetrics};
use metertrail::{MemoryStore, Page, PostgresStore, Result, TenantId};
use tokio_postgres::NoTls;

use crate::ledger::{database, store};

mod memory {
    use super::*;

    metertrail::store_conformance_tests!(async || MemoryStore::new());
}

mod postgres {
    use super::*;

    metertrail::store_conformance_tests!(async || on_postgres(|store| store).await);
}

/// The host's own pool, so small that callers at once have to wait for a connection.
mod postgres_on_a_pool_of_two {
    use super::*;

    metertrail::store_conformance_tests!(async || {
        let database = database().await;
        let manager = Manager::new(database.url().parse().unwrap(), NoTls);
        let pool = Pool::builder(manager).max_size(2).runtime(Runtime::Tokio1).build().unwrap();
        StoreUnderTest::from(PostgresStore::from_pool(pool)).keeping(database)
    });
}

mod faulty_memory {
    use super::*;

    metertrail::store_conformance_tests!(async || FaultyStore::new(MemoryStore::new()));
}

mod faulty_postgres {
    use super::*;

    metertrail::store_conformance_tests!(async || on_postgres(FaultyStore::new).await);
}

mod spied_memory {
    use super::*;

    metertrail::store_conformance_tests!(async || SpyStore::new(MemoryStore::new()));
}

mod spied_postgres {
    use super::*;

    metertrail::store_conformance_tests!(async || on_postgres(SpyStore::new).await);
}

/// Stays between two steps that should be one for long enough that whoever is looking sees it, however busy the
/// machine: a task that only yields can pass here while the other thread is not scheduled at all.
async fn in_between() {
    tokio::time::sleep(Duration::from_millis(5)).await;
}

async fn on_postgres<S: Store>(wrapped: impl FnOnce(PostgresStore) -> S) -> StoreUnderTest {
    let database: TestDatabase = database().await;
    StoreUnderTest::from(wrapped(store(database.url()))).keeping(database)
}

/// The list of cases is written by hand: nobody must forget to enter a new one.
#[test]
fn every_case_is_in_the_list() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/testing/conformance");
    let mut written = BTreeSet::new();
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        if path.is_dir() {
            continue;
        }
        let group = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = fs::read_to_string(&path).unwrap();
        let names = text.lines().filter_map(|line| line.strip_prefix("pub async fn "));
        let names = names.filter_map(|line| line.split_once("(store: &Arc<dyn Store>)"));
        written.extend(names.map(|(name, _)| (group.clone(), name.to_owned())));
    }
    let listed: BTreeSet<(String, String)> =
        CASES.iter().map(|case| (case.group().to_owned(), case.name().to_owned())).collect();
    assert_eq!(listed, written);
    assert_eq!(listed.len(), CASES.len(), "a case is listed twice");
}

/// A suite that cannot fail says nothing: stores that break one sentence each are found out, by the cases named.
mod the_suite_finds {
    use super::*;

    #[tokio::test]
    async fn a_store_that_counts_duplicates() {
        finds(
            Flaw::CountsDuplicates,
            &["a_duplicate_in_one_batch_counts_once", "callers_at_once_count_each_key_once"],
        )
        .await;
    }

    #[tokio::test]
    async fn a_store_that_answers_in_another_order() {
        finds(
            Flaw::AnswersBackwards,
            &["answers_come_in_the_order_given", "a_conflict_in_one_batch_leaves_the_first_and_the_rest"],
        )
        .await;
    }

    #[tokio::test]
    async fn a_store_that_is_a_read_late() {
        finds(
            Flaw::ReadsLate,
            &["an_append_is_seen_before_and_after_a_roll_up", "late_events_are_counted_where_they_belong"],
        )
        .await;
    }

    #[tokio::test]
    async fn a_store_that_loses_half_of_a_cancelled_batch() {
        finds(Flaw::WritesInTwo, &["a_dropped_append_has_done_all_or_nothing"]).await;
    }

    #[tokio::test]
    async fn a_store_that_mixes_tenants() {
        finds(Flaw::FoldsCase, &["tenants_that_look_alike_are_different"]).await;
    }

    #[tokio::test]
    async fn a_store_that_counts_abandoned_latencies() {
        finds(
            Flaw::CountsEveryLatency,
            &["latencies_are_those_of_successes_and_failures", "random_events_add_up_to_the_naive_sums"],
        )
        .await;
    }

    #[tokio::test]
    async fn a_store_without_bounds() {
        finds(Flaw::TakesAnyBatch, &["a_batch_that_is_too_large_is_refused_whole"]).await;
    }

    #[tokio::test]
    async fn a_store_that_pages_by_offset() {
        finds(Flaw::PagesOverlap, &["pages_overlap_nowhere_and_miss_nothing", "events_come_newest_first"])
            .await;
    }

    async fn finds(flaw: Flaw, cases: &[&str]) {
        for case in CASES.iter().filter(|case| cases.contains(&case.name())) {
            let run = tokio::spawn(case.run(FlawedStore::new(flaw)));
            assert!(run.await.is_err_and(|error| error.is_panic()), "{case:?} passes on {flaw:?}");
        }
        assert!(cases.iter().all(|name| CASES.iter().any(|case| case.name() == *name)), "{cases:?}");
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Flaw {
    CountsDuplicates,
    AnswersBackwards,
    ReadsLate,
    WritesInTwo,
    FoldsCase,
    CountsEveryLatency,
    TakesAnyBatch,
    PagesOverlap,
}

type Question = (TenantId, Vec<TimeRange>);

/// The memory store with something wrong.
#[derive(Debug)]
struct FlawedStore {
    flaw: Flaw,
    store: MemoryStore,
    reads: Mutex<HashMap<Question, Vec<UsageMetrics>>>,
}

impl FlawedStore {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, store: MemoryStore::new(), reads: Mutex::default() }
    }
}

#[async_trait::async_trait]
impl Store for FlawedStore {
    async fn append(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>> {
        let mut batch = batch.to_vec();
        match self.flaw {
            Flaw::CountsDuplicates => {
                for event in &mut batch {
                    let (tenant, start) = (event.tenant_id.clone(), event.occurred_at());
                    let anew = UsageEvent::new(tenant, event.event_type.clone(), event.outcome, start)?;
                    let tokens = event.tokens;
                    *event = anew;
                    event.tokens = tokens;
                }
            }
            Flaw::WritesInTwo => {
                let (left, right) = batch.split_at(batch.len() / 2);
                let mut answers = self.store.append(left, &[]).await?;
                in_between().await;
                answers.extend(self.store.append(right, &[]).await?);
                return Ok(answers);
            }
            Flaw::FoldsCase => {
                for event in &mut batch {
                    event.tenant_id = TenantId::new(event.tenant_id.as_str().to_lowercase())?;
                }
            }
            Flaw::CountsEveryLatency => {
                for event in &mut batch {
                    event.outcome = Outcome::Success;
                }
            }
            Flaw::TakesAnyBatch => {
                let mut answers = Vec::new();
                for part in batch.chunks(5_000) {
                    answers.extend(self.store.append(part, &[]).await?);
                }
                return Ok(answers);
            }
            _ => {}
        }
        let mut answers = self.store.append(&batch, settlements).await?;
        if self.flaw == Flaw::AnswersBackwards {
            answers.reverse();
        }
        Ok(answers)
    }

    async fn usage(&self, tenant_id: &TenantId, periods: &[TimeRange]) -> Result<Vec<UsageMetrics>> {
        let usage = self.store.usage(tenant_id, periods).await?;
        let question = (tenant_id.clone(), periods.to_vec());
        let before = self.reads.lock().unwrap().insert(question, usage.clone());
        Ok(before.filter(|_| self.flaw == Flaw::ReadsLate).unwrap_or(usage))
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<UsageEvent>> {
        let mut page = self.store.events(query).await?;
        if self.flaw == Flaw::PagesOverlap
            && let Some(first) = page.items.first().cloned()
        {
            page.items.insert(0, first);
            page.items.truncate(query.page_size.get().into());
        }
        Ok(page)
    }

    delegate_store!(|flawed| flawed.store, except append, usage, events);
}
