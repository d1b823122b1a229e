//! Usage, quotas and the audit trail kept in this process, for tests, examples and single-process tools.

mod alert;
mod audit;
mod check;
mod cost;
mod ledger;
mod reconcile;
mod upkeep;

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;

use self::alert::AlertTables;
pub use self::audit::AuditTables;
use self::ledger::Ledger;
use self::upkeep::UpkeepTables;
use crate::page::{Cursor, Page, PageSize};
use crate::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Override, Plan, Quota, Reconcile, Reconciliation, Returned,
    Settlement, Standing, TenantQuotas, Window,
};
use crate::store::{Appended, Store, check_batch, check_periods, check_range, check_reconcile};
use crate::text::Label;
use crate::time::{TimeRange, Zone, bucket_start};
use crate::usage::{
    Consumer, EventId, EventQuery, SUMMARY_EXCEEDED_MAX, TopConsumersQuery, UsageEvent, UsageMetrics,
    UsageSummary,
};
use crate::{Result, TenantId};

/// Usage, quotas and the audit trail kept in this process: exact, fresh, and gone when the process ends.
///
/// ```
/// use metertrail::{MemoryStore, UsageTracker};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let tracker = UsageTracker::start(MemoryStore::new())?;
/// # let _ = tracker;
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug, Default)]
pub struct MemoryStore {
    tenants: RwLock<BTreeMap<TenantId, Tenant>>,
    plans: RwLock<BTreeMap<Label, Plan>>,
    audit: RwLock<AuditTables>,
    upkeep: RwLock<UpkeepTables>,
    alerts: RwLock<AlertTables>,
}

#[derive(Debug, Default)]
struct Tenant {
    events: BTreeMap<EventId, UsageEvent>,
    keys: HashMap<Label, EventId>,
    quarter_hours: BTreeMap<DateTime<Utc>, UsageMetrics>,
    ledger: Ledger,
    /// Events of days before were deleted.
    pruned_before: Option<NaiveDate>,
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    // A panic while the lock is held would leave a half-written tenant, but nothing below can panic between two writes:
    // the poison flag carries no information here.
    fn read(&self) -> RwLockReadGuard<'_, BTreeMap<TenantId, Tenant>> {
        self.tenants.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, BTreeMap<TenantId, Tenant>> {
        self.tenants.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn append(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>> {
        check_batch(batch)?;
        let mut tenants = self.write();
        let upkeep = self.upkeep();
        batch.iter().try_for_each(|event| upkeep.check_open(event))?;
        let mut append =
            |event: &UsageEvent| tenants.entry(event.tenant_id.clone()).or_default().append(event);
        let appended: Vec<Appended> = batch.iter().map(&mut append).collect();
        for settlement in
            settlements.iter().filter(|settlement| appended.get(settlement.event) == Some(&Appended::New))
        {
            if let Some(tenant) =
                batch.get(settlement.event).and_then(|event| tenants.get_mut(&event.tenant_id))
            {
                tenant.ledger.settle(settlement);
            }
        }
        Ok(appended)
    }

    async fn roll_up(&self, _steps_max: u32) -> Result<u64> {
        Ok(0)
    }

    async fn usage(&self, tenant_id: &TenantId, periods: &[TimeRange]) -> Result<Vec<UsageMetrics>> {
        check_periods(periods)?;
        let tenants = self.read();
        let tenant = tenants.get(tenant_id);
        Ok(periods
            .iter()
            .map(|period| tenant.map(|tenant| tenant.usage(*period)).unwrap_or_default())
            .collect())
    }

    async fn top_consumers(&self, query: &TopConsumersQuery) -> Result<Vec<Consumer>> {
        check_range(query.range)?;
        let consumer = |(tenant_id, tenant): (&TenantId, &Tenant)| {
            Consumer::new(tenant_id.clone(), query.measure.of(&tenant.usage(query.range)))
        };
        let mut consumers: Vec<Consumer> = self.read().iter().map(consumer).collect();
        consumers.retain(|consumer| consumer.amount > Decimal::ZERO);
        // The sort is stable and the tenants ascend.
        consumers.sort_by_key(|consumer| std::cmp::Reverse(consumer.amount));
        consumers.truncate(query.limit.into());
        Ok(consumers)
    }

    async fn summary(&self, range: TimeRange) -> Result<UsageSummary> {
        check_range(range)?;
        let mut total = UsageMetrics::default();
        let mut summary = UsageSummary::default();
        for (tenant_id, tenant) in self.read().iter() {
            let metrics = tenant.usage(range);
            if metrics.is_empty() {
                continue;
            }
            summary.tenants += 1;
            if metrics.quota_exceeded > 0 {
                summary.quota_exceeded.push((tenant_id.clone(), metrics.quota_exceeded));
            }
            total.merge(&metrics);
        }
        summary.quota_exceeded.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        summary.quota_exceeded.truncate(SUMMARY_EXCEEDED_MAX);
        summary.calls = total.calls;
        summary.failures = total.failures;
        summary.tokens = total.tokens_total();
        summary.cost = total.cost;
        summary.unpriced = total.unpriced;
        summary.latency_us_mean = total.latency_us_mean();
        Ok(summary)
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<UsageEvent>> {
        let before = query.position()?;
        let tenants = self.read();
        let Some(tenant) = tenants.get(&query.tenant_id) else {
            return Ok(Page { items: Vec::new(), next: None });
        };
        let size = usize::from(query.page_size.get());
        let upper = before.map_or(Bound::Unbounded, Bound::Excluded);
        let matching = |event: &&UsageEvent| {
            query.matches(&event.tenant_id, event.occurred_at(), &event.event_type, event.outcome)
        };
        let descending = tenant.events.range((Bound::Unbounded, upper)).rev().map(|(_, event)| event);
        let mut items: Vec<UsageEvent> = descending.filter(matching).take(size + 1).cloned().collect();
        let more = items.len() > size;
        items.truncate(size);
        let last = items.last().filter(|_| more);
        let next = last.map(|event| Cursor::new(event.id().as_uuid().into_bytes(), query.fingerprint()));
        Ok(Page { items, next })
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Vec<Granted>> {
        let mut tenants = self.write();
        let tenant = tenants.entry(request.tenant_id.clone()).or_default();
        let used: Vec<u64> = request.slices.iter().map(|slice| tenant.used(&slice.key)).collect();
        Ok(tenant.ledger.acquire(request, &used))
    }

    async fn give_back(&self, returned: &[Returned]) -> Result<()> {
        let mut tenants = self.write();
        for returned in returned {
            if let Some(tenant) = tenants.get_mut(&returned.tenant_id) {
                tenant.ledger.give_back(returned);
            }
        }
        Ok(())
    }

    async fn renew(&self, holders: &[(TenantId, HolderId)], expires_at: DateTime<Utc>) -> Result<Vec<u64>> {
        let mut tenants = self.write();
        let mut renew = |(tenant_id, holder): &(TenantId, HolderId)| {
            tenants.get_mut(tenant_id).map_or(0, |tenant| tenant.ledger.renew(*holder, expires_at))
        };
        Ok(holders.iter().map(&mut renew).collect())
    }

    async fn standing(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        keys: &[LimitKey],
        now: DateTime<Utc>,
    ) -> Result<Vec<Standing>> {
        let tenants = self.read();
        let Some(tenant) = tenants.get(tenant_id) else {
            return Ok(vec![Standing::default(); keys.len()]);
        };
        Ok(keys.iter().map(|key| tenant.ledger.standing(key, holder, now, false, tenant.used(key))).collect())
    }

    async fn tenant_quotas(&self, tenant_id: &TenantId) -> Result<TenantQuotas> {
        Ok(self.read().get(tenant_id).map(|tenant| tenant.ledger.quotas()).unwrap_or_default())
    }

    async fn put_plan(&self, plan: &Plan) -> Result<()> {
        self.plans.write().unwrap_or_else(PoisonError::into_inner).insert(plan.name().clone(), plan.clone());
        Ok(())
    }

    async fn plans(&self) -> Result<Vec<Plan>> {
        Ok(self.plans.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect())
    }

    async fn set_plan(&self, tenant_id: &TenantId, plan: Option<&Label>, now: DateTime<Utc>) -> Result<()> {
        self.write().entry(tenant_id.clone()).or_default().ledger.set_plan(plan, now);
        Ok(())
    }

    async fn set_zone(&self, tenant_id: &TenantId, zone: Option<Zone>, now: DateTime<Utc>) -> Result<()> {
        self.write().entry(tenant_id.clone()).or_default().ledger.set_zone(zone, now);
        Ok(())
    }

    async fn put_override(&self, tenant_id: &TenantId, own: &Override, now: DateTime<Utc>) -> Result<()> {
        self.write().entry(tenant_id.clone()).or_default().ledger.put_override(own, now);
        Ok(())
    }

    async fn remove_override(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        Ok(self
            .write()
            .get_mut(tenant_id)
            .is_some_and(|tenant| tenant.ledger.remove_override(quota, window, now)))
    }

    async fn quota_changes(&self, since: DateTime<Utc>) -> Result<Vec<(TenantId, u64)>> {
        let changed = |(tenant_id, tenant): (&TenantId, &Tenant)| {
            Some((tenant_id.clone(), tenant.ledger.changed_since(since)?))
        };
        Ok(self.read().iter().filter_map(changed).collect())
    }

    async fn reconcile(
        &self,
        tenant_id: &TenantId,
        range: TimeRange,
        mode: Reconcile,
    ) -> Result<Reconciliation> {
        check_reconcile(range)?;
        let nothing = || Reconciliation::new(tenant_id.clone(), range, mode);
        let mut tenants = self.write();
        let tenant = tenants.get_mut(tenant_id);
        let upkeep = self.upkeep();
        let is_dropped = |day| upkeep.is_dropped(day);
        Ok(tenant.map_or_else(nothing, |tenant| tenant.reconcile(tenant_id, range, mode, is_dropped)))
    }

    async fn tenants(
        &self,
        range: TimeRange,
        after: Option<&TenantId>,
        page_size: PageSize,
    ) -> Result<Vec<TenantId>> {
        check_range(range)?;
        let tenants = self.read();
        let later = tenants.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let active = later.filter(|(_, tenant)| tenant.has_usage(range)).map(|(tenant_id, _)| tenant_id);
        Ok(active.take(page_size.get().into()).cloned().collect())
    }
}

impl Tenant {
    fn append(&mut self, event: &UsageEvent) -> Appended {
        let by_key = event.idempotency_key.as_ref().and_then(|key| self.keys.get(key));
        let kept = match by_key {
            Some(id) => self.events.get(id),
            None => self.events.get(&event.id()),
        };
        if let Some(kept) = kept {
            return if kept.same_payload(event) { Appended::Duplicate } else { Appended::Conflict };
        }
        match self.quarter_hours.entry(bucket_start(event.occurred_at())) {
            Entry::Occupied(mut entry) => entry.get_mut().add(event),
            Entry::Vacant(entry) => entry.insert(UsageMetrics::default()).add(event),
        }
        if let Some(key) = &event.idempotency_key {
            self.keys.insert(key.clone(), event.id());
        }
        self.events.insert(event.id(), event.clone());
        Appended::New
    }

    fn usage(&self, range: TimeRange) -> UsageMetrics {
        let mut metrics = UsageMetrics::default();
        self.quarter_hours
            .range(range.start()..range.end())
            .for_each(|(_, quarter_hour)| metrics.merge(quarter_hour));
        metrics
    }

    /// What counts against a limit: from the quarter hours, or for a shorter window from the events themselves.
    fn used(&self, key: &LimitKey) -> u64 {
        if check_range(key.range).is_ok() {
            return key.quota.used_in(&self.usage(key.range));
        }
        let first = EventId::lower_bound(key.range.start());
        let later = self.events.values().rev().take_while(|event| event.id().as_uuid() >= first);
        let inside = later.filter(|event| key.range.contains(event.occurred_at()));
        inside.fold(0, |sum, event| sum.saturating_add(key.quota.used_by(event)))
    }
}
