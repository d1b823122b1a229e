//! The contract of [`AuditStore`] as cases: what every store of an audit trail has to pass.
//!
//! As in [`conformance`](super), each case is an async function that takes an **empty** store, uses it, and panics with a
//! message where the store breaks the contract; [`CASES`] lists all of them by name.
//!
//! ```
//! mod memory {
//!     metertrail::audit_store_conformance_tests!(async || metertrail::MemoryStore::new());
//! }
//! # fn main() {}
//! ```
//!
//! What it does not see: that what was written survives a crash (clause 2).

// Said once above for all of them: a case panics where a store breaks the contract.
#![allow(clippy::missing_panics_doc)]

pub mod batches;
pub mod epochs;
pub mod persons;
pub mod reading;
mod sample;

use std::any::Any;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use super::CASE_TIME_MAX;
use crate::store::AuditStore;

/// An empty store to run a case on, and what has to live as long as it. Every [`AuditStore`] turns into one.
pub struct AuditStoreUnderTest {
    store: Arc<dyn AuditStore>,
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl AuditStoreUnderTest {
    /// The store keeps this alive, for example the temporary database that it writes to. It is dropped after the store.
    #[must_use]
    pub fn keeping(mut self, guard: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(guard));
        self
    }
}

impl<S: AuditStore> From<S> for AuditStoreUnderTest {
    fn from(store: S) -> Self {
        Self { store: Arc::new(store), kept: Vec::new() }
    }
}

impl fmt::Debug for AuditStoreUnderTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditStoreUnderTest").field("store", &self.store).finish_non_exhaustive()
    }
}

type Run = for<'a> fn(&'a Arc<dyn AuditStore>) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One sentence of the contract, to be run on a store.
#[derive(Clone, Copy)]
pub struct AuditCase {
    name: &'static str,
    group: &'static str,
    run: Run,
}

impl AuditCase {
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
    pub async fn run(&self, store: impl Into<AuditStoreUnderTest>) {
        let AuditStoreUnderTest { store, kept } = store.into();
        let ran = tokio::time::timeout(CASE_TIME_MAX, (self.run)(&store)).await;
        drop(store);
        drop(kept);
        assert!(ran.is_ok(), "{}: not done in {CASE_TIME_MAX:?}", self.name);
    }
}

impl fmt::Debug for AuditCase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditCase({}::{})", self.group, self.name)
    }
}

/// Runs every case, each on a store of its own.
pub async fn all<S: Into<AuditStoreUnderTest>>(mut empty_store: impl AsyncFnMut() -> S) {
    for case in CASES {
        case.run(empty_store().await).await;
    }
}

/// The one list of cases: calls a macro with them.
#[doc(hidden)]
#[macro_export]
macro_rules! __for_all_audit_store_cases {
    ([$($callback:tt)*] $(, $argument:expr)?) => {
        $($callback)*! { $($argument;)?
            batches: [
                a_batch_is_kept_once,
                a_batch_is_all_or_nothing,
                a_batch_is_seen_whole,
                a_dropped_append_has_done_all_or_nothing,
                callers_at_once_keep_a_batch_once,
                an_append_is_seen_at_once,
                everything_comes_back_to_the_byte,
                what_was_written_stays_as_it_is,
                a_store_verifies_no_batch,
            ]
            reading: [
                a_trail_is_paged,
                a_trail_is_filtered,
                a_cursor_of_another_query_is_refused,
                tenants_come_in_byte_order,
                rows_come_in_the_order_of_their_ids,
                rows_are_found_by_their_keys,
                batches_come_in_the_order_of_their_chains,
                no_more_is_read_than_one_call_gives,
            ]
            epochs: [
                unsealed_batches_come_oldest_first,
                batches_wait_until_they_are_sealed,
                an_epoch_is_kept_once,
                of_sealers_at_once_one_is_kept,
                an_epoch_is_all_or_nothing,
                a_dropped_epoch_is_kept_or_not,
                epochs_come_from_a_number_on,
                the_state_is_one_snapshot,
                nodes_come_by_level_and_position,
                leaves_come_by_event,
                a_store_verifies_no_epoch,
            ]
            persons: [
                the_first_key_of_a_person_stays,
                an_erased_key_is_gone,
                a_hold_keeps_the_keys_it_names,
                a_hold_is_released,
            ]
        }
    };
}

macro_rules! cases {
    ($($group:ident: [$($name:ident,)*])*) => {
        /// Every case.
        pub const CASES: &[AuditCase] = &[$($(
            AuditCase {
                name: stringify!($name),
                group: stringify!($group),
                run: |store| Box::pin($group::$name(store)),
            },
        )*)*];
    };
}

__for_all_audit_store_cases!([cases]);

/// Runs the case of this name; for the macro.
#[doc(hidden)]
pub async fn run_named(name: &str, store: impl Into<AuditStoreUnderTest>) {
    let case = AuditCase::named(name).unwrap_or_else(|| panic!("there is no case {name}"));
    case.run(store).await;
}

/// Makes a `#[tokio::test]` of each case, on the store that an async closure or function gives: see
/// [`conformance::audit`](crate::testing::conformance::audit).
#[macro_export]
macro_rules! audit_store_conformance_tests {
    ($make:expr) => {
        $crate::testing::conformance::audit::__for_all_audit_store_cases!(
            [$crate::testing::conformance::audit::__audit_store_conformance_tests],
            $make
        );
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __audit_store_conformance_tests {
    ($make:expr; $($group:ident: [$($name:ident,)*])*) => {
        $($(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $crate::testing::conformance::audit::run_named(stringify!($name), ($make)().await).await;
            }
        )*)*
    };
}

// By the path of this module, a macro can be named from another macro.
#[doc(hidden)]
pub use {__audit_store_conformance_tests, __for_all_audit_store_cases};
