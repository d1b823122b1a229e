//! The contract of [`Store`] as cases: what every store has to pass.
//!
//! Each case is an async function that takes an **empty** store, uses it, and panics with a message where the store
//! breaks the contract. They are grouped as the contract is; [`CASES`] lists all of them by name.
//!
//! # In your tests
//! [`store_conformance_tests!`](crate::store_conformance_tests) makes a `#[tokio::test]` of each case. Its argument is
//! called for each of them and awaited; it gives a store, or a [`StoreUnderTest`] if something has to outlive the store,
//! such as the database below it. The crate that uses it needs `tokio` with `macros` and `rt-multi-thread`.
//!
//! ```
//! mod memory {
//!     metertrail::store_conformance_tests!(async || metertrail::MemoryStore::new());
//! }
//! # fn main() {}
//! ```
//!
//! # Without a test harness
//! ```
//! use metertrail::MemoryStore;
//! use metertrail::testing::conformance::CASES;
//!
//! # tokio::runtime::Builder::new_multi_thread().enable_time().build().unwrap().block_on(async {
//! for case in CASES.iter().filter(|case| case.name().contains("duplicate")) {
//!     case.run(MemoryStore::new()).await; // panics if the store fails
//!     println!("{}: passed", case.name());
//! }
//! # });
//! ```
//!
//! # What it does not see
//! That what was written survives a crash (clause 2), for that needs a hand on the process. A transient error fails a
//! case unless several callers work at once: run the suite on a store that is well.

// Said once above for all of them: a case panics where a store breaks the contract.
#![allow(clippy::missing_panics_doc)]

pub mod alert;
pub mod appending;
pub mod assigning;
pub mod audit;
pub mod bounds;
pub mod cancelling;
pub mod checks;
pub mod conflicts;
pub mod cost;
pub mod exactness;
pub mod freshness;
pub mod leasing;
mod model;
pub mod paging;
pub mod periods;
pub mod quota;
pub mod ranking;
pub mod reconciling;
mod sample;
pub mod separation;
pub mod texts;
pub mod upkeep;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::store::Store;

/// The longest that a case may take, so that a store that hangs fails and does not hang the tests.
const CASE_TIME_MAX: Duration = Duration::from_secs(120);

/// An empty store to run a case on, and what has to live as long as it.
///
/// Every [`Store`] turns into one, and so does an `Arc<dyn Store>`.
#[derive(Debug)]
pub struct StoreUnderTest {
    store: Arc<dyn Store>,
    kept: Kept,
}

struct Kept(Vec<Box<dyn Any + Send + Sync>>);

impl StoreUnderTest {
    /// The store keeps this alive, for example the temporary database that it writes to. It is dropped after the store.
    ///
    /// ```
    /// use metertrail::MemoryStore;
    /// use metertrail::testing::conformance::StoreUnderTest;
    ///
    /// let directory = String::from("a temporary directory");
    /// let _ = StoreUnderTest::from(MemoryStore::new()).keeping(directory);
    /// ```
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send + Sync) -> Self {
        self.kept.0.push(Box::new(guard));
        self
    }
}

impl<S: Store> From<S> for StoreUnderTest {
    fn from(store: S) -> Self {
        Self { store: Arc::new(store), kept: Kept(Vec::new()) }
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values", self.0.len())
    }
}

type Run = for<'a> fn(&'a Arc<dyn Store>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One sentence of the contract, to be run on a store.
#[derive(Clone, Copy)]
pub struct Case {
    name: &'static str,
    group: &'static str,
    run: Run,
}

impl Case {
    /// The name of its function.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The module that it is in.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// The case of this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        CASES.iter().find(|case| case.name == name)
    }

    /// Runs it on an empty store.
    ///
    /// # Panics
    /// If the store breaks the contract, or the case takes longer than two minutes.
    ///
    /// # Cancel safety
    /// Dropped, some of the case's events are in the store.
    pub async fn run(&self, store: impl Into<StoreUnderTest>) {
        let StoreUnderTest { store, kept } = store.into();
        let ran = tokio::time::timeout(CASE_TIME_MAX, (self.run)(&store)).await;
        drop(store);
        drop(kept);
        assert!(ran.is_ok(), "{}: not done in {CASE_TIME_MAX:?}", self.name);
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Case({}::{})", self.group, self.name)
    }
}

/// The one list of cases: calls a macro with them.
#[doc(hidden)]
#[macro_export]
macro_rules! __for_all_store_cases {
    ([$($callback:tt)*] $(, $argument:expr)?) => {
        $($callback)*! {
            $($argument;)?
            appending: [
                an_empty_batch_is_allowed,
                appended_events_are_found_and_counted,
                answers_come_in_the_order_given,
                a_duplicate_in_one_batch_counts_once,
                a_duplicate_in_another_batch_counts_once,
                a_duplicate_of_a_rolled_up_event_counts_once,
                a_duplicate_by_key_may_have_another_id_start_and_latency,
                a_duplicate_by_key_is_found_on_another_day,
                a_duplicate_by_key_in_one_batch_counts_once,
                callers_at_once_count_each_event_once,
                callers_at_once_count_each_key_once,
            ]
            conflicts: [
                a_conflict_by_id_leaves_the_first_as_it_is,
                a_conflict_by_key_leaves_the_first_as_it_is,
                a_conflict_in_one_batch_leaves_the_first_and_the_rest,
                every_part_of_the_payload_can_conflict,
                start_and_latency_conflict_without_a_key,
                a_conflict_does_not_take_its_key,
                a_conflict_does_not_take_its_key_in_one_batch,
                callers_at_once_agree_on_who_was_first,
            ]
            freshness: [
                an_append_is_seen_before_and_after_a_roll_up,
                an_append_is_seen_between_roll_ups_at_once,
                a_roll_up_of_nothing_is_zero,
                a_roll_up_changes_no_answer_and_ends_at_zero,
                a_roll_up_in_single_steps_ends_at_zero,
                roll_ups_at_once_change_no_answer,
                late_events_are_counted_where_they_belong,
            ]
            exactness: [
                tokens_are_counted_by_class,
                estimates_and_unpriced_events_are_told_apart,
                costs_are_summed_to_the_last_place,
                measures_are_summed_by_name,
                outcomes_and_types_are_counted,
                latencies_are_those_of_successes_and_failures,
                sums_beyond_32_bits_are_exact,
                random_events_add_up_to_the_naive_sums,
            ]
            periods: [
                periods_are_half_open,
                empty_periods_are_answered_in_order,
                no_periods_have_no_answers,
                what_lies_between_periods_belongs_to_none,
                days_of_odd_zones_are_exact,
                hours_of_odd_zones_are_exact,
                months_are_the_sums_of_their_days,
                the_ends_of_time_are_counted,
            ]
            ranking: [
                top_consumers_come_in_order,
                top_consumers_that_tie_come_in_the_order_of_their_bytes,
                top_consumers_that_used_nothing_are_left_out,
                top_consumers_are_limited,
                top_consumers_are_ranked_by_every_measure,
                a_summary_of_nothing_is_empty,
                a_summary_has_all_tenants_of_its_range,
                a_summary_lists_who_was_refused_most_often,
            ]
            paging: [
                events_come_newest_first,
                pages_overlap_nowhere_and_miss_nothing,
                pages_of_one_millisecond_are_told_apart,
                pages_are_stable_while_events_come_in,
                pages_are_filtered_by_type_and_outcome,
                pages_are_bounded_to_the_microsecond,
                a_cursor_of_another_query_is_refused,
                a_cursor_is_good_for_another_page_size,
            ]
            separation: [
                equal_ids_of_two_tenants_are_two_events,
                equal_keys_of_two_tenants_are_two_events,
                tenants_that_look_alike_are_different,
                other_tenants_change_no_answer,
            ]
            texts: [
                every_field_comes_back_as_it_was_given,
                strings_are_data_and_never_code,
                the_longest_texts_are_kept,
                metadata_numbers_come_back,
                metadata_fractions_come_back,
                nested_metadata_comes_back,
            ]
            bounds: [
                the_largest_batch_is_taken,
                a_batch_that_is_too_large_is_refused_whole,
                too_many_periods_are_refused,
                as_many_periods_as_allowed_are_answered,
                periods_that_overlap_or_descend_are_refused,
                periods_off_the_quarter_hour_are_refused,
                ranges_off_the_quarter_hour_are_refused,
            ]
            quota: [
                grants_follow_the_rule,
                callers_at_once_never_pass_a_limit,
                recorded_usage_counts_in_its_windows,
                usage_without_a_slice_counts,
                unrecorded_usage_is_not_granted,
                a_settlement_moves_units_in_one_step,
                settlements_of_a_batch_are_added_up,
                only_new_events_settle,
                lost_grants_are_found,
                units_given_back_count_once,
                all_or_none_grants_all_or_none,
                expired_slices_are_forfeited_or_reclaimed,
                a_request_renews_slices,
                slices_are_separate,
                standings_come_in_order_and_change_nothing,
            ]
            leasing: [
                holders_are_renewed_together,
                a_renewal_tells_revisions,
                units_of_several_tenants_are_given_back_together,
                units_leased_in_an_overlapping_window_count,
            ]
            assigning: [
                a_plan_comes_back,
                a_zone_comes_back,
                overrides_come_back,
                plans_come_back,
                changes_are_told,
            ]
            reconciling: [
                what_nobody_touched_has_no_drift,
                repairs_among_writers_find_and_lose_nothing,
                more_settled_than_granted_is_found_and_mended,
                tenants_come_a_page_at_a_time,
                ranges_that_cannot_be_reconciled_are_refused,
            ]
            cancelling: [
                a_dropped_append_has_done_all_or_nothing,
                a_dropped_roll_up_changes_no_answer,
            ]
        }
    };
}

macro_rules! cases {
    ($($group:ident: [$($name:ident,)*])*) => {
        /// Every case, in the order of the contract's parts.
        pub const CASES: &[Case] = &[$($(
            Case { name: stringify!($name), group: stringify!($group), run: |store| Box::pin($group::$name(store)) },
        )*)*];
    };
}

__for_all_store_cases!([cases]);

/// Runs the case of this name; for the macro.
#[doc(hidden)]
pub async fn run_named(name: &str, store: impl Into<StoreUnderTest>) {
    let case = Case::named(name).unwrap_or_else(|| panic!("there is no case {name}"));
    case.run(store).await;
}

/// Makes a `#[tokio::test]` of each case, on the store that an async closure or function gives: see
/// [`conformance`](crate::testing::conformance).
#[macro_export]
macro_rules! store_conformance_tests {
    ($make:expr) => {
        $crate::testing::conformance::__for_all_store_cases!(
            [$crate::testing::conformance::__store_conformance_tests],
            $make
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __store_conformance_tests {
    ($make:expr; $($group:ident: [$($name:ident,)*])*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::testing::conformance::run_named(stringify!($name), ($make)().await).await;
            }
        )*)*
    };
}

// By the path of this module, a macro can be named from another macro.
#[doc(hidden)]
pub use {__for_all_store_cases, __store_conformance_tests};
