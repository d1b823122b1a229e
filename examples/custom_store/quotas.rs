//! What is leased of limits, and what tenants were assigned.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use metertrail::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Plan, Reconcile, Reconciliation, Returned, Settlement,
    SliceName, Standing, TenantQuotas,
};
use metertrail::{Label, TenantId};

#[derive(Debug, Default)]
pub(crate) struct Quotas {
    slices: Vec<Slice>,
    tenants: BTreeMap<TenantId, (TenantQuotas, DateTime<Utc>)>,
    pub(crate) plans: BTreeMap<Label, Plan>,
}

/// What one holder was granted of one limit in one window.
#[derive(Debug)]
struct Slice {
    tenant_id: TenantId,
    holder: HolderId,
    key: LimitKey,
    granted: u64,
    returned: u64,
    settled: u64,
    expires_at: DateTime<Utc>,
}

impl Quotas {
    /// How a limit stands, but for what is used of it.
    pub(crate) fn standing(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        key: &LimitKey,
        now: DateTime<Utc>,
        reclaim: bool,
    ) -> Standing {
        let mut standing = Standing { holders: 1, ..Standing::default() };
        let overlaps = |slice: &&Slice| slice.tenant_id == *tenant_id && slice.key.overlaps(key);
        for slice in self.slices.iter().filter(overlaps) {
            let leased = slice.granted.saturating_sub(slice.returned).saturating_sub(slice.settled);
            if slice.holder == holder && slice.key == *key {
                (standing.leased_here, standing.granted_here) = (leased, slice.granted);
            } else if now < slice.expires_at {
                standing.leased_elsewhere += leased;
                standing.holders += 1;
            } else if !reclaim {
                standing.forfeited += leased;
            }
        }
        standing
    }

    pub(crate) fn acquire(
        &mut self,
        request: &AcquireRequest,
        used: impl Fn(&LimitKey) -> u64,
    ) -> Vec<Granted> {
        let AcquireRequest { tenant_id, holder, now, expires_at, reclaim, .. } = request;
        let answers = request.slices.iter().map(|slice| {
            let standing = self.standing(tenant_id, *holder, &slice.key, *now, *reclaim);
            let standing = Standing { used: used(&slice.key), ..standing };
            Granted { standing, granted: standing.grant(slice) }
        });
        let granted = Granted::all_or_none(request, answers.collect());
        for (slice, answer) in request.slices.iter().zip(&granted) {
            match self.slice(tenant_id, *holder, &slice.key) {
                Some(own) => {
                    own.granted += answer.granted;
                    own.expires_at = *expires_at;
                }
                None => self.slices.push(Slice {
                    tenant_id: tenant_id.clone(),
                    holder: *holder,
                    key: slice.key.clone(),
                    granted: answer.granted,
                    returned: 0,
                    settled: 0,
                    expires_at: *expires_at,
                }),
            }
        }
        granted
    }

    pub(crate) fn give_back(&mut self, returned: &[Returned]) {
        for Returned { tenant_id, holder, key, total } in returned {
            if let Some(slice) = self.slice(tenant_id, *holder, key) {
                slice.returned = slice.returned.max(*total).min(slice.granted);
            }
        }
    }

    pub(crate) fn renew(&mut self, holders: &[(TenantId, HolderId)], expires_at: DateTime<Utc>) -> Vec<u64> {
        for slice in &mut self.slices {
            if holders.contains(&(slice.tenant_id.clone(), slice.holder)) {
                slice.expires_at = slice.expires_at.max(expires_at);
            }
        }
        holders.iter().map(|(tenant_id, _)| self.tenant(tenant_id).revision).collect()
    }

    pub(crate) fn settle(&mut self, tenant_id: &TenantId, settlement: &Settlement) {
        if let Some(slice) = self.slice(tenant_id, settlement.holder, &settlement.key) {
            slice.settled += settlement.amount;
        }
    }

    /// Notes slices of which more is given back and settled than was granted, and mends them if told to.
    pub(crate) fn reconcile(&mut self, report: &mut Reconciliation) {
        let own = self.slices.iter_mut().filter(|slice| slice.tenant_id == report.tenant_id);
        for slice in own.collect::<Vec<_>>() {
            let name = SliceName {
                quota: slice.key.quota.clone(),
                window: slice.key.window.to_string(),
                window_start: slice.key.range.start(),
                holder: slice.holder,
            };
            let is_over = report.compare_slice(name, slice.granted, slice.returned, slice.settled);
            if is_over && report.mode == Reconcile::Repair {
                slice.settled = slice.granted - slice.returned;
            }
        }
    }

    pub(crate) fn tenant(&self, tenant_id: &TenantId) -> TenantQuotas {
        self.tenants.get(tenant_id).map(|(quotas, _)| quotas.clone()).unwrap_or_default()
    }

    pub(crate) fn change(
        &mut self,
        tenant_id: &TenantId,
        now: DateTime<Utc>,
        change: impl FnOnce(&mut TenantQuotas),
    ) {
        let (quotas, changed_at) = self.tenants.entry(tenant_id.clone()).or_default();
        change(quotas);
        quotas.overrides.sort_by(|a, b| (&a.quota, a.window.as_str()).cmp(&(&b.quota, b.window.as_str())));
        quotas.revision += 1;
        *changed_at = now;
    }

    pub(crate) fn changes(&self, since: DateTime<Utc>) -> Vec<(TenantId, u64)> {
        let changed = self.tenants.iter().filter(|(_, (_, changed_at))| *changed_at >= since);
        changed.map(|(tenant_id, (quotas, _))| (tenant_id.clone(), quotas.revision)).collect()
    }

    fn slice(&mut self, tenant_id: &TenantId, holder: HolderId, key: &LimitKey) -> Option<&mut Slice> {
        self.slices
            .iter_mut()
            .find(|slice| slice.tenant_id == *tenant_id && slice.holder == holder && slice.key == *key)
    }
}
