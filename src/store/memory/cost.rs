//! Other costs for events that are kept.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use async_trait::async_trait;
use rust_decimal::Decimal;

use super::{MemoryStore, Tenant};
use crate::cost::{CostBy, CostChange, CostShare, CostSharesQuery};
use crate::store::{CostStore, check_cost_changes};
use crate::text::Label;
use crate::time::bucket_start;
use crate::usage::UNPRICED_CEILING_MEASURE;
use crate::{Result, TenantId};

#[async_trait]
impl CostStore for MemoryStore {
    async fn apply_costs(&self, tenant_id: &TenantId, changes: &[CostChange]) -> Result<Vec<bool>> {
        check_cost_changes(changes)?;
        let mut tenants = self.write();
        let Some(tenant) = tenants.get_mut(tenant_id) else { return Ok(vec![false; changes.len()]) };
        Ok(changes.iter().map(|change| tenant.apply_cost(change)).collect())
    }

    async fn cost_shares(&self, query: &CostSharesQuery) -> Result<Vec<CostShare>> {
        let tenants = self.read();
        let events = tenants.get(&query.tenant_id).into_iter().flat_map(|tenant| tenant.events.values());
        let mut shares: BTreeMap<Option<&Label>, CostShare> = BTreeMap::new();
        for event in events.filter(|event| query.range.contains(event.occurred_at())) {
            let name = match query.by {
                CostBy::Model => event.model.as_ref(),
                CostBy::Provider => event.provider.as_ref(),
            };
            let share = shares
                .entry(name)
                .or_insert_with(|| CostShare { name: name.cloned(), ..CostShare::default() });
            share.calls += 1;
            share.tokens = share.tokens.saturating_add(event.tokens.total());
            share.cost += event.cost.map_or(Decimal::ZERO, crate::usage::Cost::as_decimal);
            share.unpriced += u64::from(event.cost.is_none() && event.tokens.total() > 0);
        }
        let mut shares: Vec<CostShare> = shares.into_values().collect();
        shares.sort_by(|a, b| {
            let key = |share: &CostShare| (Reverse(share.cost), share.name.is_none());
            key(a).cmp(&key(b)).then_with(|| a.name.cmp(&b.name))
        });
        shares.truncate(query.limit.into());
        Ok(shares)
    }
}

impl Tenant {
    fn apply_cost(&mut self, change: &CostChange) -> bool {
        let Some(event) = self.events.get_mut(&change.event_id).filter(|event| change.applies_to(event))
        else {
            return false;
        };
        change.apply(event);
        if let Some(metrics) = self.quarter_hours.get_mut(&bucket_start(event.occurred_at())) {
            metrics.cost += change.difference();
            metrics.unpriced = metrics.unpriced.saturating_sub(change.was_unpriced.into());
            metrics.measures.retain(|name, amount| {
                if name.as_str() == UNPRICED_CEILING_MEASURE {
                    *amount -= change.ceiling;
                }
                name.as_str() != UNPRICED_CEILING_MEASURE || !amount.is_zero()
            });
        }
        true
    }
}
