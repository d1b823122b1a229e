//! Stores around other stores: the methods that only pass a call on, written by a macro.

use std::pin::Pin;

use chrono::{DateTime, Utc};

use crate::Result;

/// The id that a row of the audit trail is kept under.
pub use uuid::Uuid;

/// What a method of [`Store`](crate::Store) gives, once `async_trait` has rewritten it.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;
/// An instant, as the methods take it.
pub type Instant = DateTime<Utc>;

/// Writes the methods of a [`Store`](crate::Store) that only pass the call on to another store, so that a store around
/// another one names those alone that do more. It stands inside of the `impl` block, beside methods written as usual. Its
/// argument looks like a closure from the outer store to the inner one, followed by the methods that are not wanted.
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use metertrail::testing::delegate_store;
/// use metertrail::{MemoryStore, Result, Store};
///
/// /// Counts how often it was rolled up.
/// #[derive(Debug, Default)]
/// struct Counting {
///     inner: MemoryStore,
///     roll_ups: AtomicU64,
/// }
///
/// #[async_trait::async_trait]
/// impl Store for Counting {
///     async fn roll_up(&self, steps_max: u32) -> Result<u64> {
///         self.roll_ups.fetch_add(1, Ordering::Relaxed);
///         self.inner.roll_up(steps_max).await
///     }
///
///     delegate_store!(|counting| counting.inner, except roll_up);
/// }
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = Counting::default();
/// store.roll_up(1).await?;
/// assert!(store.plans().await?.is_empty());
/// assert_eq!(store.roll_ups.load(Ordering::Relaxed), 1);
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[macro_export]
#[cfg_attr(not(feature = "test-util"), doc(hidden))]
macro_rules! delegate_store {
    (|$outer:ident| $inner:expr $(, except $($named:ident),+)?) => {
        $crate::delegate_store!(@all [$crate::__delegated] (|$outer| $inner) [$($($named)+)?]);
    };
    // For wrappers of this crate that do the same to each method: another macro than `__delegated` writes them.
    (@all $written:tt $how:tt $named:tt) => {
        $crate::delegate_store!(@unless append $written $how $named);
        $crate::delegate_store!(@unless roll_up $written $how $named);
        $crate::delegate_store!(@unless usage $written $how $named);
        $crate::delegate_store!(@unless top_consumers $written $how $named);
        $crate::delegate_store!(@unless summary $written $how $named);
        $crate::delegate_store!(@unless events $written $how $named);
        $crate::delegate_store!(@unless acquire $written $how $named);
        $crate::delegate_store!(@unless give_back $written $how $named);
        $crate::delegate_store!(@unless renew $written $how $named);
        $crate::delegate_store!(@unless standing $written $how $named);
        $crate::delegate_store!(@unless tenant_quotas $written $how $named);
        $crate::delegate_store!(@unless put_plan $written $how $named);
        $crate::delegate_store!(@unless plans $written $how $named);
        $crate::delegate_store!(@unless set_plan $written $how $named);
        $crate::delegate_store!(@unless set_zone $written $how $named);
        $crate::delegate_store!(@unless put_override $written $how $named);
        $crate::delegate_store!(@unless remove_override $written $how $named);
        $crate::delegate_store!(@unless quota_changes $written $how $named);
        $crate::delegate_store!(@unless reconcile $written $how $named);
        $crate::delegate_store!(@unless tenants $written $how $named);
    };
    (@unless append $written:tt $how:tt [append $($rest:ident)*]) => {};
    (@unless roll_up $written:tt $how:tt [roll_up $($rest:ident)*]) => {};
    (@unless usage $written:tt $how:tt [usage $($rest:ident)*]) => {};
    (@unless top_consumers $written:tt $how:tt [top_consumers $($rest:ident)*]) => {};
    (@unless summary $written:tt $how:tt [summary $($rest:ident)*]) => {};
    (@unless events $written:tt $how:tt [events $($rest:ident)*]) => {};
    (@unless acquire $written:tt $how:tt [acquire $($rest:ident)*]) => {};
    (@unless give_back $written:tt $how:tt [give_back $($rest:ident)*]) => {};
    (@unless renew $written:tt $how:tt [renew $($rest:ident)*]) => {};
    (@unless standing $written:tt $how:tt [standing $($rest:ident)*]) => {};
    (@unless tenant_quotas $written:tt $how:tt [tenant_quotas $($rest:ident)*]) => {};
    (@unless put_plan $written:tt $how:tt [put_plan $($rest:ident)*]) => {};
    (@unless plans $written:tt $how:tt [plans $($rest:ident)*]) => {};
    (@unless set_plan $written:tt $how:tt [set_plan $($rest:ident)*]) => {};
    (@unless set_zone $written:tt $how:tt [set_zone $($rest:ident)*]) => {};
    (@unless put_override $written:tt $how:tt [put_override $($rest:ident)*]) => {};
    (@unless remove_override $written:tt $how:tt [remove_override $($rest:ident)*]) => {};
    (@unless quota_changes $written:tt $how:tt [quota_changes $($rest:ident)*]) => {};
    (@unless reconcile $written:tt $how:tt [reconcile $($rest:ident)*]) => {};
    (@unless tenants $written:tt $how:tt [tenants $($rest:ident)*]) => {};
    (@unless $name:ident $written:tt $how:tt [$other:ident $($rest:ident)*]) => {
        $crate::delegate_store!(@unless $name $written $how [$($rest)*]);
    };
    (@unless $name:ident $written:tt $how:tt []) => {
        $crate::__store_method!($name $written $how);
    };
}

/// The signatures of all methods, one a line: hands that of one method, with whatever is given, to another macro. The
/// lifetimes are those of the references, in order.
#[doc(hidden)]
#[macro_export]
macro_rules! __store_method {
    (append [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Append append ['a 'b]
            (batch: &'a [$crate::UsageEvent], settlements: &'b [$crate::quota::Settlement])
            -> Vec<$crate::store::Appended>
        }
    };
    (roll_up [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* RollUp roll_up [] (steps_max: u32) -> u64
        }
    };
    (usage [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Usage usage ['a 'b]
            (tenant_id: &'a $crate::TenantId, periods: &'b [$crate::TimeRange]) -> Vec<$crate::UsageMetrics>
        }
    };
    (top_consumers [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* TopConsumers top_consumers ['a]
            (query: &'a $crate::usage::TopConsumersQuery) -> Vec<$crate::Consumer>
        }
    };
    (summary [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Summary summary [] (range: $crate::TimeRange) -> $crate::UsageSummary
        }
    };
    (events [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Events events ['a] (query: &'a $crate::EventQuery) -> $crate::Page<$crate::UsageEvent>
        }
    };
    (acquire [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Acquire acquire ['a]
            (request: &'a $crate::quota::AcquireRequest) -> Vec<$crate::quota::Granted>
        }
    };
    (give_back [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* GiveBack give_back ['a] (returned: &'a [$crate::quota::Returned]) -> ()
        }
    };
    (renew [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Renew renew ['a]
            (
                holders: &'a [($crate::TenantId, $crate::quota::HolderId)],
                expires_at: $crate::store::delegate::Instant
            )
            -> Vec<u64>
        }
    };
    (standing [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Standing standing ['a 'b]
            (
                tenant_id: &'a $crate::TenantId,
                holder: $crate::quota::HolderId,
                keys: &'b [$crate::quota::LimitKey],
                now: $crate::store::delegate::Instant
            )
            -> Vec<$crate::quota::Standing>
        }
    };
    (tenant_quotas [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* TenantQuotas tenant_quotas ['a]
            (tenant_id: &'a $crate::TenantId) -> $crate::quota::TenantQuotas
        }
    };
    (put_plan [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* PutPlan put_plan ['a] (plan: &'a $crate::quota::Plan) -> ()
        }
    };
    (plans [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Plans plans [] () -> Vec<$crate::quota::Plan>
        }
    };
    (set_plan [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* SetPlan set_plan ['a 'b]
            (
                tenant_id: &'a $crate::TenantId,
                plan: Option<&'b $crate::Label>,
                now: $crate::store::delegate::Instant
            )
            -> ()
        }
    };
    (set_zone [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* SetZone set_zone ['a]
            (
                tenant_id: &'a $crate::TenantId,
                zone: Option<$crate::Zone>,
                now: $crate::store::delegate::Instant
            )
            -> ()
        }
    };
    (put_override [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* PutOverride put_override ['a 'b]
            (
                tenant_id: &'a $crate::TenantId,
                own: &'b $crate::quota::Override,
                now: $crate::store::delegate::Instant
            )
            -> ()
        }
    };
    (remove_override [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* RemoveOverride remove_override ['a 'b]
            (
                tenant_id: &'a $crate::TenantId,
                quota: &'b $crate::quota::Quota,
                window: $crate::quota::Window,
                now: $crate::store::delegate::Instant
            )
            -> bool
        }
    };
    (quota_changes [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* QuotaChanges quota_changes []
            (since: $crate::store::delegate::Instant) -> Vec<($crate::TenantId, u64)>
        }
    };
    (reconcile [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Reconcile reconcile ['a]
            (tenant_id: &'a $crate::TenantId, range: $crate::TimeRange, mode: $crate::quota::Reconcile)
            -> $crate::quota::Reconciliation
        }
    };
    (tenants [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* Tenants tenants ['a]
            (range: $crate::TimeRange, after: Option<&'a $crate::TenantId>, page_size: $crate::PageSize)
            -> Vec<$crate::TenantId>
        }
    };
}

/// One method that passes the call on.
#[doc(hidden)]
#[macro_export]
macro_rules! __delegated {
    (
        (|$outer:ident| $inner:expr)
        $variant:ident $name:ident [$($reference:lifetime)*] ($($argument:ident: $type:ty),*) -> $answer:ty
    ) => {
        fn $name<'own, $($reference,)* 'call>(
            &'own self,
            $($argument: $type,)*
        ) -> $crate::store::delegate::Answer<'call, $answer>
        where
            'own: 'call,
            $($reference: 'call,)*
            Self: 'call,
        {
            let $outer = self;
            ($inner).$name($($argument),*)
        }
    };
}
