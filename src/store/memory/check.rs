//! Which tenants stand out.

use rust_decimal::Decimal;

use super::Tenant;
use crate::TenantId;
use crate::alert::{Breach, QuotaUse, TenantCheck};
use crate::quota::Allowed;
use crate::time::TimeRange;

impl Tenant {
    pub(super) fn breach(&self, tenant_id: &TenantId, check: &TenantCheck) -> Option<Breach> {
        let (value, reference) = match check {
            TenantCheck::QuotaExceeded { range, more_than } => {
                let refused = self.usage(*range).quota_exceeded;
                (refused > *more_than).then(|| (refused.into(), Decimal::ZERO))
            }
            TenantCheck::ErrorRate { range, more_than, calls_min } => {
                let metrics = self.usage(*range);
                let calls = u128::from(metrics.successes) + u128::from(metrics.failures);
                let failures = u128::from(metrics.failures);
                let is_over = calls > 0
                    && calls >= u128::from(*calls_min)
                    && failures * 10_000 > calls * u128::from(*more_than);
                is_over.then(|| {
                    (
                        percent(metrics.failures, metrics.successes.saturating_add(metrics.failures)),
                        Decimal::ZERO,
                    )
                })
            }
            TenantCheck::Latency { range, quantile, more_than_us, calls_min } => {
                let latency = self.usage(*range).latency;
                let slowest = latency.quantile(*quantile)?;
                let is_over = latency.count() >= *calls_min && slowest > *more_than_us;
                is_over.then(|| (milliseconds(slowest), Decimal::ZERO))
            }
            TenantCheck::Cost { range, history, times, floor, history_min } => {
                self.cost_breach(*range, history, (*times, *floor), *history_min)
            }
            TenantCheck::QuotaUse(quota_use) => self.quota_breach(quota_use),
        }?;
        Some(Breach::new(tenant_id.clone(), value, reference))
    }

    fn cost_breach(
        &self,
        range: TimeRange,
        history: &[TimeRange],
        (times, floor): (Decimal, Decimal),
        history_min: u32,
    ) -> Option<(Decimal, Decimal)> {
        let cost = self.usage(range).cost;
        let costs: Vec<Decimal> = history
            .iter()
            .map(|earlier| self.usage(*earlier))
            .filter(|metrics| !metrics.is_empty())
            .map(|metrics| metrics.cost)
            .collect();
        let count = u32::try_from(costs.len()).unwrap_or(u32::MAX);
        let sum: Decimal = costs.iter().sum();
        let is_over =
            cost >= floor && count >= history_min.max(1) && cost * Decimal::from(count) > times * sum;
        is_over.then(|| (cost, (sum / Decimal::from(count)).round_dp(9)))
    }

    fn quota_breach(&self, check: &QuotaUse) -> Option<(Decimal, Decimal)> {
        let quotas = self.ledger.quotas();
        if quotas.zone.unwrap_or(check.default_zone) != check.zone {
            return None;
        }
        let mut own = quotas.overrides.iter().filter(|own| {
            own.is_in_force(check.now)
                && own.quota == check.quota
                && own.window.as_str() == check.window.as_str()
        });
        let limit = match own.next() {
            Some(own) if own.window != check.window => None,
            Some(own) => match own.allowed {
                Allowed::AtMost(amount) => Some(amount),
                Allowed::Unlimited => None,
            },
            None => check.of_plan(quotas.plan.as_ref()),
        }?;
        let used = check.quota.used_in(&self.usage(check.range));
        let is_over = limit > 0 && u128::from(used) * 100 >= u128::from(limit) * u128::from(check.percent);
        (is_over && used > 0).then(|| (percent(used, limit), limit.into()))
    }
}

/// Microseconds as milliseconds.
fn milliseconds(us: u64) -> Decimal {
    Decimal::from_i128_with_scale(us.into(), 3)
}

fn percent(part: u64, whole: u64) -> Decimal {
    (Decimal::from(part) * Decimal::ONE_HUNDRED / Decimal::from(whole.max(1))).round_dp(4)
}
