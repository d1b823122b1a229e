//! A store that remembers what it was asked.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use tokio::sync::watch;
use tokio::time::timeout;
use uuid::Uuid;

use crate::audit::{AuditEvent, AuditQuery, BatchRecord, StoredEpoch, WriterId};
use crate::quota::{AcquireRequest, HolderId, LimitKey, Override, Plan, Quota, Reconcile, Returned, Window};
use crate::store::delegate::Answer;
use crate::store::{AuditStore, Store};
use crate::text::Label;
use crate::time::{TimeRange, Zone};
use crate::usage::{EventId, EventQuery, TopConsumersQuery, UsageEvent};
use crate::{Error, ErrorKind, Result, TenantId};

/// A method of [`Store`] or [`AuditStore`].
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
    /// [`AuditStore::append_audit`].
    AppendAudit,
    /// [`AuditStore::audit_trail`].
    AuditTrail,
    /// [`AuditStore::audit_tenants`].
    AuditTenants,
    /// [`AuditStore::audit_rows`].
    AuditRows,
    /// [`AuditStore::audit_rows_by_key`].
    AuditRowsByKey,
    /// [`AuditStore::audit_batches`].
    AuditBatches,
    /// [`AuditStore::unsealed_batches`].
    UnsealedBatches,
    /// [`AuditStore::unsealed_among`].
    UnsealedAmong,
    /// [`AuditStore::append_epoch`].
    AppendEpoch,
    /// [`AuditStore::audit_epochs`].
    AuditEpochs,
    /// [`AuditStore::audit_state`].
    AuditState,
    /// [`AuditStore::tree_nodes`].
    TreeNodes,
    /// [`AuditStore::tree_leaves`].
    TreeLeaves,
    /// [`AuditStore::tree_leaves_by_key`].
    TreeLeavesByKey,
    /// [`AuditStore::subject_key`].
    SubjectKey,
    /// [`AuditStore::put_subject_key`].
    PutSubjectKey,
    /// [`AuditStore::erase_subject_key`].
    EraseSubjectKey,
    /// [`AuditStore::set_legal_hold`].
    SetLegalHold,
}

/// A call of a method of [`Store`] or [`AuditStore`], with its arguments.
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
    /// [`AuditStore::append_audit`] of a batch with these events.
    AppendAudit(BatchRecord, Vec<AuditEvent>),
    /// [`AuditStore::audit_trail`].
    AuditTrail(AuditQuery),
    /// [`AuditStore::audit_tenants`] after one.
    AuditTenants(Option<TenantId>),
    /// [`AuditStore::audit_rows`] after one.
    AuditRows(TenantId, Option<Uuid>),
    /// [`AuditStore::audit_rows_by_key`].
    AuditRowsByKey(Vec<(TenantId, EventId)>),
    /// [`AuditStore::audit_batches`] after one.
    AuditBatches(Option<(WriterId, u64)>),
    /// [`AuditStore::unsealed_batches`] so many at most.
    UnsealedBatches(u32),
    /// [`AuditStore::unsealed_among`] these.
    UnsealedAmong(Vec<(WriterId, u64)>),
    /// [`AuditStore::append_epoch`].
    AppendEpoch(StoredEpoch),
    /// [`AuditStore::audit_epochs`] from one on.
    AuditEpochs(u64),
    /// [`AuditStore::audit_state`].
    AuditState,
    /// [`AuditStore::tree_nodes`] of a level from a position on.
    TreeNodes(TenantId, u8, u64),
    /// [`AuditStore::tree_leaves`] after one.
    TreeLeaves(TenantId, Option<EventId>),
    /// [`AuditStore::tree_leaves_by_key`].
    TreeLeavesByKey(Vec<(TenantId, EventId)>),
    /// [`AuditStore::subject_key`].
    SubjectKey(TenantId, Label),
    /// [`AuditStore::put_subject_key`] of a person; the key itself is not remembered.
    PutSubjectKey(TenantId, Label),
    /// [`AuditStore::erase_subject_key`].
    EraseSubjectKey(TenantId, Label),
    /// [`AuditStore::set_legal_hold`] on a person, for a reason.
    SetLegalHold(TenantId, Option<Label>, Option<Label>),
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
            Self::AppendAudit(..) => Method::AppendAudit,
            Self::AuditTrail(_) => Method::AuditTrail,
            Self::AuditTenants(_) => Method::AuditTenants,
            Self::AuditRows(..) => Method::AuditRows,
            Self::AuditRowsByKey(_) => Method::AuditRowsByKey,
            Self::AuditBatches(_) => Method::AuditBatches,
            Self::UnsealedBatches(_) => Method::UnsealedBatches,
            Self::UnsealedAmong(_) => Method::UnsealedAmong,
            Self::AppendEpoch(_) => Method::AppendEpoch,
            Self::AuditEpochs(_) => Method::AuditEpochs,
            Self::AuditState => Method::AuditState,
            Self::TreeNodes(..) => Method::TreeNodes,
            Self::TreeLeaves(..) => Method::TreeLeaves,
            Self::TreeLeavesByKey(_) => Method::TreeLeavesByKey,
            Self::SubjectKey(..) => Method::SubjectKey,
            Self::PutSubjectKey(..) => Method::PutSubjectKey,
            Self::EraseSubjectKey(..) => Method::EraseSubjectKey,
            Self::SetLegalHold(..) => Method::SetLegalHold,
        }
    }
}

/// A [`Store`] around another one that remembers every call, and whose calls can be awaited. Around an [`AuditStore`] it is
/// one, and around a store that is both it is both.
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
#[derive(Debug)]
pub struct SpyStore<S: ?Sized = dyn Store> {
    store: Arc<S>,
    memory: Arc<watch::Sender<Memory>>,
}

#[derive(Debug, Default)]
struct Memory {
    calls: Vec<Call>,
    ended: Vec<Method>,
}

impl<S> SpyStore<S> {
    /// Watches a store.
    pub fn new(store: S) -> Self {
        Self::from_arc(Arc::new(store))
    }
}

impl<S: ?Sized> SpyStore<S> {
    /// Watches a store that somebody else holds as well.
    pub fn from_arc(store: Arc<S>) -> Self {
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

impl<S: ?Sized> Clone for SpyStore<S> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), memory: Arc::clone(&self.memory) }
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
    ($method:ident: $($name:ident($($argument:ident),*) => $call:expr;)*) => {
        $($crate::$method!($name [$crate::testing::spy::spied_method] (($($argument),*) => $call));)*
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

impl<S: Store + ?Sized> Store for SpyStore<S> {
    spied! {
        __store_method:
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

impl<S: AuditStore + ?Sized> AuditStore for SpyStore<S> {
    spied! {
        __audit_store_method:
        append_audit(batch) => Call::AppendAudit(batch.record().clone(), batch.events().to_vec());
        audit_trail(query) => Call::AuditTrail(query.clone());
        audit_tenants(after, limit) => Call::AuditTenants(after.cloned());
        audit_rows(tenant_id, after, limit) => Call::AuditRows(tenant_id.clone(), after);
        audit_rows_by_key(keys) => Call::AuditRowsByKey(keys.to_vec());
        audit_batches(after, limit) => Call::AuditBatches(after);
        unsealed_batches(limit) => Call::UnsealedBatches(limit);
        unsealed_among(batches) => Call::UnsealedAmong(batches.to_vec());
        append_epoch(epoch) => Call::AppendEpoch(epoch.epoch.clone());
        audit_epochs(from, limit) => Call::AuditEpochs(from);
        audit_state() => Call::AuditState;
        tree_nodes(tenant_id, level, from, limit) => Call::TreeNodes(tenant_id.clone(), level, from);
        tree_leaves(tenant_id, after, limit) => Call::TreeLeaves(tenant_id.clone(), after);
        tree_leaves_by_key(keys) => Call::TreeLeavesByKey(keys.to_vec());
        subject_key(tenant_id, subject) => Call::SubjectKey(tenant_id.clone(), subject.clone());
        put_subject_key(tenant_id, subject, key) => Call::PutSubjectKey(tenant_id.clone(), subject.clone());
        erase_subject_key(tenant_id, subject) => Call::EraseSubjectKey(tenant_id.clone(), subject.clone());
        set_legal_hold(tenant_id, subject, reason) =>
            Call::SetLegalHold(tenant_id.clone(), subject.cloned(), reason.cloned());
    }
}
