//! What a store has to answer, computed in the plainest way from the events themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use rust_decimal::Decimal;

use super::sample::{all_pages, must, usage_in};
use crate::TenantId;
use crate::store::Store;
use crate::time::{Period, TimeRange, Zone};
use crate::usage::{
    Consumer, EventQuery, Measure, SUMMARY_EXCEEDED_MAX, TopConsumersQuery, UsageEvent, UsageMetrics,
    UsageSummary,
};

/// Events that each count once.
#[derive(Debug)]
pub(super) struct Model<'a>(pub(super) &'a [UsageEvent]);

impl Model<'_> {
    pub(super) fn usage(&self, tenant_id: &TenantId, range: TimeRange) -> UsageMetrics {
        let mut metrics = UsageMetrics::default();
        let events = self.0.iter().filter(|event| event.tenant_id == *tenant_id);
        events.filter(|event| range.contains(event.occurred_at())).for_each(|event| metrics.add(event));
        metrics
    }

    fn by_tenant(&self, range: TimeRange) -> BTreeMap<TenantId, UsageMetrics> {
        let mut tenants: BTreeMap<TenantId, UsageMetrics> = BTreeMap::new();
        for event in self.0.iter().filter(|event| range.contains(event.occurred_at())) {
            tenants.entry(event.tenant_id.clone()).or_default().add(event);
        }
        tenants
    }

    pub(super) fn top(&self, query: &TopConsumersQuery) -> Vec<Consumer> {
        let tenants = self.by_tenant(query.range).into_iter();
        let mut top: Vec<Consumer> = tenants
            .map(|(tenant_id, metrics)| Consumer::new(tenant_id, query.measure.of(&metrics)))
            .filter(|consumer| consumer.amount > Decimal::ZERO)
            .collect();
        top.sort_by(|a, b| (b.amount, &a.tenant_id).cmp(&(a.amount, &b.tenant_id)));
        top.truncate(query.limit.into());
        top
    }

    pub(super) fn summary(&self, range: TimeRange) -> UsageSummary {
        let mut summary = UsageSummary::default();
        let mut total = UsageMetrics::default();
        for (tenant_id, metrics) in self.by_tenant(range) {
            total.merge(&metrics);
            summary.tenants += 1;
            if metrics.quota_exceeded > 0 {
                summary.quota_exceeded.push((tenant_id, metrics.quota_exceeded));
            }
        }
        summary.calls = total.calls;
        summary.failures = total.failures;
        summary.tokens = total.tokens_total();
        summary.cost = total.cost;
        summary.unpriced = total.unpriced;
        summary.latency_us_mean = total.latency_us_mean();
        summary
    }

    pub(super) fn events(&self, query: &EventQuery) -> Vec<UsageEvent> {
        let matching = |event: &&UsageEvent| {
            query.matches(&event.tenant_id, event.occurred_at(), &event.event_type, event.outcome)
        };
        let mut events: Vec<UsageEvent> = self.0.iter().filter(matching).cloned().collect();
        events.sort_by_key(|event| std::cmp::Reverse(event.id()));
        events
    }

    /// Every question of the trait about a range, put to the store.
    pub(super) async fn check(&self, store: &Arc<dyn Store>, range: TimeRange) {
        let hours = must("dividing a range", Period::Hour.ranges(range, Zone::UTC));
        for tenant_id in self.by_tenant(range).keys() {
            let expected: Vec<UsageMetrics> = hours.iter().map(|hour| self.usage(tenant_id, *hour)).collect();
            assert_eq!(usage_in(store, tenant_id, &hours).await, expected, "usage of {tenant_id:?} by hour");
            let whole = self.usage(tenant_id, range);
            assert_eq!(usage_in(store, tenant_id, &[range]).await, [whole], "usage of {tenant_id:?}");
            let query = EventQuery::new(tenant_id.clone(), range);
            assert_eq!(all_pages(store, &query, 1_000).await, self.events(&query), "events of {tenant_id:?}");
        }
        for measure in [Measure::Tokens, Measure::Cost, Measure::Calls, Measure::Errors] {
            self.check_top(store, measure, range, 1_000).await;
        }
        self.check_summary(store, range).await;
    }

    pub(super) async fn check_top(
        &self,
        store: &Arc<dyn Store>,
        measure: Measure,
        range: TimeRange,
        limit: u16,
    ) {
        let query = must("making a query", TopConsumersQuery::new(measure, range, limit));
        let top = must("top_consumers", store.top_consumers(&query).await);
        assert_eq!(top, self.top(&query), "top consumers by {:?}", query.measure);
    }

    /// Of tenants that were refused equally often the contract names no order.
    pub(super) async fn check_summary(&self, store: &Arc<dyn Store>, range: TimeRange) {
        let mut summary = must("summary", store.summary(range).await);
        let mut expected = self.summary(range);
        let (refused, all) =
            (std::mem::take(&mut summary.quota_exceeded), std::mem::take(&mut expected.quota_exceeded));
        assert_eq!(summary, expected, "the summary of {range}");

        let counts: Vec<u64> = refused.iter().map(|(_, count)| *count).collect();
        let mut expected: Vec<u64> = all.iter().map(|(_, count)| *count).collect();
        expected.sort_by_key(|count| std::cmp::Reverse(*count));
        expected.truncate(SUMMARY_EXCEEDED_MAX);
        assert_eq!(counts, expected, "how often tenants were refused in {range}");
        let mut listed: BTreeMap<TenantId, u64> = all.into_iter().collect();
        for (tenant_id, count) in refused {
            assert_eq!(listed.remove(&tenant_id), Some(count), "how often {tenant_id:?} was refused");
        }
    }
}
