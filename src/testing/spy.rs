//! A store that remembers what it was asked.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::quota::{AcquireRequest, HolderId, LimitKey, Override, Plan, Quota, Reconcile, Returned, Window};
use crate::store::Store;
use crate::store::delegate::Answer;
use crate::text::Label;
use crate::time::{TimeRange, Zone};
use crate::usage::{EventQuery, TopConsumersQuery, UsageEvent};
use crate::{Error, ErrorKind, Result, TenantId};

/// A method of [`Store`].
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum Method {
    /// [`Store::append`].
    Append,
    /// [`Store::roll_up`].
    RollUp,
    /// [`Store::usage`].
    Usage,
    /// [`Store::top_consumers`].
    TopConsumers,
    /// [`Store::summary`].
    Summary,
    /// [`Store::events`].
    Events,
    /// [`Store::acquire`].
    Acquire,
    /// [`Store::give_back`].
    GiveBack,
    /// [`Store::renew`].
    Renew,
    /// [`Store::standing`].
    Standing,
    /// [`Store::tenant_quotas`].
    TenantQuotas,
    /// [`Store::put_plan`].
    PutPlan,
    /// [`Store::plans`].
    Plans,
    /// [`Store::set_plan`].
    SetPlan,
    /// [`Store::set_zone`].
    SetZone,
    /// [`Store::put_override`].
    PutOverride,
    /// [`Store::remove_override`].
    RemoveOverride,
    /// [`Store::quota_changes`].
    QuotaChanges,
    /// [`Store::reconcile`].
    Reconcile,
    /// [`Store::tenants`].
    Tenants,
}

/// A call of a method of [`Store`], with its arguments.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Call {
    /// [`Store::append`] of these events.
    Append(Vec<UsageEvent>),
    /// [`Store::roll_up`] of so many steps.
    RollUp(u32),
    /// [`Store::usage`] of a tenant in these periods.
    Usage(TenantId, Vec<TimeRange>),
    /// [`Store::top_consumers`].
    TopConsumers(TopConsumersQuery),
    /// [`Store::summary`].
    Summary(TimeRange),
    /// [`Store::events`].
    Events(EventQuery),
    /// [`Store::acquire`].
    Acquire(AcquireRequest),
    /// [`Store::give_back`].
    GiveBack(Vec<Returned>),
    /// [`Store::renew`].
    Renew(Vec<(TenantId, HolderId)>),
    /// [`Store::standing`].
    Standing(TenantId, HolderId, Vec<LimitKey>),
    /// [`Store::tenant_quotas`].
    TenantQuotas(TenantId),
    /// [`Store::put_plan`].
    PutPlan(Plan),
    /// [`Store::plans`].
    Plans,
    /// [`Store::set_plan`].
    SetPlan(TenantId, Option<Label>),
    /// [`Store::set_zone`].
    SetZone(TenantId, Option<Zone>),
    /// [`Store::put_override`].
    PutOverride(TenantId, Override),
    /// [`Store::remove_override`].
    RemoveOverride(TenantId, Quota, Window),
    /// [`Store::quota_changes`].
    QuotaChanges(DateTime<Utc>),
    /// [`Store::reconcile`].
    Reconcile(TenantId, TimeRange, Reconcile),
    /// [`Store::tenants`] after one.
    Tenants(TimeRange, Option<TenantId>),
}

impl Call {
    /// The method that was called.
    pub fn method(&self) -> Method {
        match self {
            Self::Append(_) => Method::Append,
            Self::RollUp(_) => Method::RollUp,
            Self::Usage(..) => Method::Usage,
            Self::TopConsumers(_) => Method::TopConsumers,
            Self::Summary(_) => Method::Summary,
            Self::Events(_) => Method::Events,
            Self::Acquire(..) => Method::Acquire,
            Self::GiveBack(..) => Method::GiveBack,
            Self::Renew(..) => Method::Renew,
            Self::Standing(..) => Method::Standing,
            Self::TenantQuotas(..) => Method::TenantQuotas,
            Self::PutPlan(_) => Method::PutPlan,
            Self::Plans => Method::Plans,
            Self::SetPlan(..) => Method::SetPlan,
            Self::SetZone(..) => Method::SetZone,
            Self::PutOverride(..) => Method::PutOverride,
            Self::RemoveOverride(..) => Method::RemoveOverride,
            Self::QuotaChanges(..) => Method::QuotaChanges,
            Self::Reconcile(..) => Method::Reconcile,
            Self::Tenants(..) => Method::Tenants,
        }
    }
}

/// A [`Store`] around another one that remembers every call, and whose calls can be awaited.
///
/// Clones share their memory, so that a test keeps one and gives the other away. A call is remembered when it begins,
/// whatever becomes of it.
///
/// ```
/// use std::time::Duration;
///
/// use metertrail::testing::{Method, SpyStore};
/// use metertrail::{EventType, MemoryStore, TenantId, TokenUsage, UsageTracker};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let spy = SpyStore::new(MemoryStore::new());
/// let tracker = UsageTracker::start(spy.clone())?;
/// tracker.track(&TenantId::new("acme")?, EventType::Search).record_success(TokenUsage::NONE);
///
/// spy.ended(Method::Append, 1, Duration::from_secs(10)).await?;
/// assert_eq!(spy.appends()[0].len(), 1);
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct SpyStore {
    store: Arc<dyn Store>,
    memory: Arc<watch::Sender<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    calls: Vec<Call>,
    ended: Vec<Method>,
}

impl SpyStore {
    /// Watches a store.
    pub fn new(store: impl Store) -> Self {
        Self::from_arc(Arc::new(store))
    }

    /// Watches a store that somebody else holds as well.
    pub fn from_arc(store: Arc<dyn Store>) -> Self {
        Self { store, memory: Arc::new(watch::Sender::new(Memory::default())) }
    }

    /// All calls so far, in the order in which they began.
    pub fn calls(&self) -> Vec<Call> {
        self.memory.borrow().calls.clone()
    }

    /// The batches of all appends so far, in the order in which they began.
    pub fn appends(&self) -> Vec<Vec<UsageEvent>> {
        let batch = |call| match call {
            Call::Append(batch) => Some(batch),
            _ => None,
        };
        self.calls().into_iter().filter_map(batch).collect()
    }

    /// How many calls of a method have begun.
    pub fn count(&self, method: Method) -> usize {
        self.memory.borrow().begun(method)
    }

    /// Forgets all calls so far.
    pub fn clear(&self) {
        self.memory.send_modify(|memory| *memory = Memory::default());
    }

    /// Waits until the `number`-th call of a method, counted from one, has begun, and gives it.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if that does not happen within `limit`;
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `number` if it is zero.
    ///
    /// # Cancel safety
    /// Dropped, nothing is lost.
    pub async fn begun(&self, method: Method, number: usize, limit: Duration) -> Result<Call> {
        self.until(|memory| memory.begun(method), method, number, limit).await?;
        let nth =
            self.memory.borrow().calls.iter().filter(|call| call.method() == method).nth(number - 1).cloned();
        nth.ok_or_else(|| Error::new(ErrorKind::Misuse, "the spy was cleared while a call was awaited"))
    }

    /// Waits until `number` calls of a method have ended: with an answer, an error or a panic, or dropped.
    ///
    /// # Errors
    /// As [`begun`](Self::begun).
    ///
    /// # Cancel safety
    /// Dropped, nothing is lost.
    pub async fn ended(&self, method: Method, number: usize, limit: Duration) -> Result<()> {
        let ended = |memory: &Memory| memory.ended.iter().filter(|ended| **ended == method).count();
        self.until(ended, method, number, limit).await
    }

    async fn until(
        &self,
        count: impl Fn(&Memory) -> usize,
        method: Method,
        number: usize,
        limit: Duration,
    ) -> Result<()> {
        if number == 0 {
            return Err(Error::invalid("number", "must be at least 1"));
        }
        let mut memory = self.memory.subscribe();
        // Its sender lives as long as `self`, so the wait ends by the count or by the limit.
        let waited = timeout(limit, memory.wait_for(|memory| count(memory) >= number)).await.is_ok();
        if waited {
            return Ok(());
        }
        let counted = count(&self.memory.borrow());
        let message = format!("not within {limit:?}: call {number} of {method:?}, only {counted} were seen");
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// Remembers that a call begins; its end when the guard goes.
    fn begin(&self, call: Call) -> Begun<'_> {
        let begun = Begun { method: call.method(), memory: &self.memory };
        self.memory.send_modify(|memory| memory.calls.push(call));
        begun
    }
}

impl Memory {
    fn begun(&self, method: Method) -> usize {
        self.calls.iter().filter(|call| call.method() == method).count()
    }
}

struct Begun<'a> {
    method: Method,
    memory: &'a watch::Sender<Memory>,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        self.memory.send_modify(|memory| memory.ended.push(self.method));
    }
}

/// Methods that remember the call and pass it on.
macro_rules! spied {
    ($($name:ident($($argument:ident),*) => $call:expr;)*) => {
        $($crate::__store_method!($name [$crate::testing::spy::spied_method] (($($argument),*) => $call));)*
    };
}

macro_rules! spied_method {
    (
        (($($given:ident),*) => $call:expr)
        $variant:ident $name:ident [$($reference:lifetime)*] ($($argument:ident: $type:ty),*) -> $answer:ty
    ) => {
        fn $name<'own, $($reference,)* 'call>(&'own self, $($given: $type,)*) -> Answer<'call, $answer>
        where
            'own: 'call,
            $($reference: 'call,)*
            Self: 'call,
        {
            Box::pin(async move {
                let _begun = self.begin($call);
                self.store.$name($($given),*).await
            })
        }
    };
}
use spied_method;

impl Store for SpyStore {
    spied! {
        append(batch, settlements) => Call::Append(batch.to_vec());
        roll_up(steps_max) => Call::RollUp(steps_max);
        usage(tenant_id, periods) => Call::Usage(tenant_id.clone(), periods.to_vec());
        top_consumers(query) => Call::TopConsumers(query.clone());
        summary(range) => Call::Summary(range);
        events(query) => Call::Events(query.clone());
        acquire(request) => Call::Acquire(request.clone());
        give_back(returned) => Call::GiveBack(returned.to_vec());
        renew(holders, expires_at) => Call::Renew(holders.to_vec());
        standing(tenant_id, holder, keys, now) => Call::Standing(tenant_id.clone(), holder, keys.to_vec());
        tenant_quotas(tenant_id) => Call::TenantQuotas(tenant_id.clone());
        put_plan(plan) => Call::PutPlan(plan.clone());
        plans() => Call::Plans;
        set_plan(tenant_id, plan, now) => Call::SetPlan(tenant_id.clone(), plan.cloned());
        set_zone(tenant_id, zone, now) => Call::SetZone(tenant_id.clone(), zone);
        put_override(tenant_id, own, now) => Call::PutOverride(tenant_id.clone(), own.clone());
        remove_override(tenant_id, quota, window, now) =>
            Call::RemoveOverride(tenant_id.clone(), quota.clone(), window);
        quota_changes(since) => Call::QuotaChanges(since);
        reconcile(tenant_id, range, mode) => Call::Reconcile(tenant_id.clone(), range, mode);
        tenants(range, after, page_size) => Call::Tenants(range, after.cloned());
    }
}
