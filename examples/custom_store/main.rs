//! A store of one's own: `cargo run --example custom_store --features test-util`.
//!
//! Events in a vector behind a mutex, and every answer computed from them when it is asked for. Slow, but about as plain
//! as a store can be, and it keeps the whole contract: the conformance suite says so, case by case. Exits with a failure
//! if a case fails.

mod quotas;

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use metertrail::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Override, Plan, Quota, Reconcile, Reconciliation, Returned,
    Settlement, Standing, TenantQuotas, Window,
};
use metertrail::store::{Appended, check_batch, check_periods, check_range, check_reconcile};
use metertrail::testing::conformance::CASES;
use metertrail::usage::{Consumer, SUMMARY_EXCEEDED_MAX, TopConsumersQuery, UsageMetrics, UsageSummary};
use metertrail::{
    Cursor, EventQuery, Label, Page, PageSize, Result, Store, TenantId, TimeRange, UsageEvent, Zone,
};
use rust_decimal::Decimal;

use crate::quotas::Quotas;

/// Events in the order in which they came, and what is leased of their tenants' limits.
#[derive(Debug, Default)]
struct VecStore {
    events: Mutex<Vec<UsageEvent>>,
    /// Locked after the events, where both are needed.
    quotas: Mutex<Quotas>,
}

impl VecStore {
    fn events(&self) -> MutexGuard<'_, Vec<UsageEvent>> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn quotas(&self) -> MutexGuard<'_, Quotas> {
        self.quotas.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What counts against a limit.
    fn used(events: &[UsageEvent], tenant_id: &TenantId, key: &LimitKey) -> u64 {
        let inside =
            |event: &&UsageEvent| event.tenant_id == *tenant_id && key.range.contains(event.occurred_at());
        let mut metrics = UsageMetrics::default();
        events.iter().filter(inside).for_each(|event| metrics.add(event));
        key.quota.used_in(&metrics)
    }

    fn sum(&self, belongs: impl Fn(&UsageEvent) -> bool) -> UsageMetrics {
        let mut metrics = UsageMetrics::default();
        self.events().iter().filter(|event| belongs(event)).for_each(|event| metrics.add(event));
        metrics
    }

    fn by_tenant(&self, range: TimeRange) -> BTreeMap<TenantId, UsageMetrics> {
        let mut tenants: BTreeMap<TenantId, UsageMetrics> = BTreeMap::new();
        for event in self.events().iter().filter(|event| range.contains(event.occurred_at())) {
            tenants.entry(event.tenant_id.clone()).or_default().add(event);
        }
        tenants
    }
}

// The mutexes make every call atomic. Nothing is awaited while it is held, so a dropped call has done all or nothing.
#[async_trait]
impl Store for VecStore {
    async fn append(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>> {
        check_batch(batch)?;
        let mut events = self.events();
        let mut answers = Vec::with_capacity(batch.len());
        for event in batch {
            answers.push(match known(&events, event) {
                Some(first) if first.same_payload(event) => Appended::Duplicate,
                Some(_) => Appended::Conflict,
                None => {
                    events.push(event.clone());
                    Appended::New
                }
            });
        }
        let mut quotas = self.quotas();
        for settlement in settlements.iter().filter(|own| answers.get(own.event) == Some(&Appended::New)) {
            quotas.settle(&batch[settlement.event].tenant_id, settlement);
        }
        Ok(answers)
    }

    async fn roll_up(&self, _steps_max: u32) -> Result<u64> {
        Ok(0)
    }

    async fn usage(&self, tenant_id: &TenantId, periods: &[TimeRange]) -> Result<Vec<UsageMetrics>> {
        check_periods(periods)?;
        let sum = |period: &TimeRange| {
            self.sum(|event| event.tenant_id == *tenant_id && period.contains(event.occurred_at()))
        };
        Ok(periods.iter().map(sum).collect())
    }

    async fn top_consumers(&self, query: &TopConsumersQuery) -> Result<Vec<Consumer>> {
        check_range(query.range)?;
        let tenants = self.by_tenant(query.range).into_iter();
        let mut consumers: Vec<Consumer> =
            tenants.map(|(tenant, metrics)| Consumer::new(tenant, query.measure.of(&metrics))).collect();
        consumers.retain(|consumer| consumer.amount > Decimal::ZERO);
        consumers.sort_by(|a, b| b.amount.cmp(&a.amount).then_with(|| a.tenant_id.cmp(&b.tenant_id)));
        consumers.truncate(query.limit.into());
        Ok(consumers)
    }

    async fn summary(&self, range: TimeRange) -> Result<UsageSummary> {
        check_range(range)?;
        let total = self.sum(|event| range.contains(event.occurred_at()));
        let tenants = self.by_tenant(range);
        let mut summary = UsageSummary::default();
        summary.tenants = tenants.values().map(|_| 1_u64).sum();
        summary.calls = total.calls;
        summary.failures = total.failures;
        summary.tokens = total.tokens_total();
        summary.cost = total.cost;
        summary.unpriced = total.unpriced;
        summary.latency_us_mean = total.latency_us_mean();
        let refused = tenants.into_iter().map(|(tenant, metrics)| (tenant, metrics.quota_exceeded));
        summary.quota_exceeded = refused.filter(|(_, count)| *count > 0).collect();
        summary.quota_exceeded.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        summary.quota_exceeded.truncate(SUMMARY_EXCEEDED_MAX);
        Ok(summary)
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<UsageEvent>> {
        let after = query.after.as_ref().map(|cursor| cursor.position(query.fingerprint())).transpose()?;
        let position = |event: &UsageEvent| event.id().as_uuid().into_bytes();
        let mut items: Vec<UsageEvent> = self
            .events()
            .iter()
            .filter(|event| after.is_none_or(|after| position(event) < after))
            .filter(|event| {
                query.matches(&event.tenant_id, event.occurred_at(), &event.event_type, event.outcome)
            })
            .cloned()
            .collect();
        items.sort_by_key(|event| std::cmp::Reverse(event.id()));
        let size = usize::from(query.page_size.get());
        let is_last = items.len() <= size;
        items.truncate(size);
        let last = items.last().filter(|_| !is_last);
        let next = last.map(|event| Cursor::new(position(event), query.fingerprint()));
        Ok(Page { items, next })
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Vec<Granted>> {
        let events = self.events();
        let used = |key: &LimitKey| Self::used(&events, &request.tenant_id, key);
        Ok(self.quotas().acquire(request, used))
    }

    async fn give_back(&self, returned: &[Returned]) -> Result<()> {
        self.quotas().give_back(returned);
        Ok(())
    }

    async fn renew(&self, holders: &[(TenantId, HolderId)], expires_at: DateTime<Utc>) -> Result<Vec<u64>> {
        Ok(self.quotas().renew(holders, expires_at))
    }

    async fn standing(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        keys: &[LimitKey],
        now: DateTime<Utc>,
    ) -> Result<Vec<Standing>> {
        let events = self.events();
        let quotas = self.quotas();
        let standing = |key: &LimitKey| {
            let standing = quotas.standing(tenant_id, holder, key, now, false);
            Standing { used: Self::used(&events, tenant_id, key), ..standing }
        };
        Ok(keys.iter().map(standing).collect())
    }

    async fn tenant_quotas(&self, tenant_id: &TenantId) -> Result<TenantQuotas> {
        Ok(self.quotas().tenant(tenant_id))
    }

    async fn put_plan(&self, plan: &Plan) -> Result<()> {
        self.quotas().plans.insert(plan.name().clone(), plan.clone());
        Ok(())
    }

    async fn plans(&self) -> Result<Vec<Plan>> {
        Ok(self.quotas().plans.values().cloned().collect())
    }

    async fn set_plan(&self, tenant_id: &TenantId, plan: Option<&Label>, now: DateTime<Utc>) -> Result<()> {
        self.quotas().change(tenant_id, now, |quotas| quotas.plan = plan.cloned());
        Ok(())
    }

    async fn set_zone(&self, tenant_id: &TenantId, zone: Option<Zone>, now: DateTime<Utc>) -> Result<()> {
        self.quotas().change(tenant_id, now, |quotas| quotas.zone = zone);
        Ok(())
    }

    async fn put_override(&self, tenant_id: &TenantId, own: &Override, now: DateTime<Utc>) -> Result<()> {
        self.remove_override(tenant_id, &own.quota, own.window, now).await?;
        self.quotas().change(tenant_id, now, |quotas| quotas.overrides.push(own.clone()));
        Ok(())
    }

    async fn remove_override(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let is_it = |own: &Override| own.quota == *quota && own.window.as_str() == window.as_str();
        let mut quotas = self.quotas();
        let found = quotas.tenant(tenant_id).overrides.iter().any(is_it);
        if found {
            quotas.change(tenant_id, now, |quotas| quotas.overrides.retain(|own| !is_it(own)));
        }
        Ok(found)
    }

    async fn quota_changes(&self, since: DateTime<Utc>) -> Result<Vec<(TenantId, u64)>> {
        Ok(self.quotas().changes(since))
    }

    // Metrics are the events themselves, added up when they are asked for: only the counters of slices can be wrong.
    async fn reconcile(
        &self,
        tenant_id: &TenantId,
        range: TimeRange,
        mode: Reconcile,
    ) -> Result<Reconciliation> {
        check_reconcile(range)?;
        let mut report = Reconciliation::new(tenant_id.clone(), range, mode);
        self.quotas().reconcile(&mut report);
        Ok(report)
    }

    async fn tenants(
        &self,
        range: TimeRange,
        after: Option<&TenantId>,
        page_size: PageSize,
    ) -> Result<Vec<TenantId>> {
        check_range(range)?;
        let tenants = self.by_tenant(range).into_keys();
        Ok(tenants.filter(|own| Some(own) > after).take(page_size.get().into()).collect())
    }
}

/// The event that was first under the key or, failing that, the id of this one.
fn known<'a>(events: &'a [UsageEvent], event: &UsageEvent) -> Option<&'a UsageEvent> {
    let own = || events.iter().filter(|other| other.tenant_id == event.tenant_id);
    let key = event.idempotency_key.as_ref();
    let by_key = key.and_then(|key| own().find(|other| other.idempotency_key.as_ref() == Some(key)));
    by_key.or_else(|| own().find(|other| other.id() == event.id()))
}

#[tokio::main]
async fn main() -> ExitCode {
    let mut failed = 0;
    for case in CASES {
        // In a task of its own, so that the panic of one case does not end the others.
        let passed = tokio::spawn(case.run(VecStore::default())).await.is_ok();
        failed += usize::from(!passed);
        println!("{} {}::{}", if passed { "passed" } else { "FAILED" }, case.group(), case.name());
    }
    println!("{} of {} cases passed", CASES.len() - failed, CASES.len());
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
