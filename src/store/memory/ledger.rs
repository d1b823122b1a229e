//! One tenant's slices, plan and overrides.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};

use crate::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Override, Quota, Reconcile, Reconciliation, Returned,
    Settlement, SliceName, Standing, TenantQuotas, Window,
};
use crate::text::Label;
use crate::time::Zone;

/// Slices of a window are kept so long after its end: holds may still be settled into them.
const ENDED_KEPT: TimeDelta = TimeDelta::days(1);
/// And so long if units of it are out, so that a clock that jumps ahead for a while takes nothing away.
const OUT_KEPT: TimeDelta = TimeDelta::days(31);

#[derive(Debug, Default)]
pub(super) struct Ledger {
    slices: HashMap<LimitKey, HashMap<HolderId, Slice>>,
    quotas: TenantQuotas,
    changed_at: Option<DateTime<Utc>>,
}

/// What one holder was granted of one limit in one window.
#[derive(Debug, Default)]
struct Slice {
    granted: u64,
    returned: u64,
    settled: u64,
    expires_at: Option<DateTime<Utc>>,
}

impl Slice {
    fn leased(&self) -> u64 {
        self.granted.saturating_sub(self.returned).saturating_sub(self.settled)
    }

    fn is_answered_for(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|expiry| now < expiry)
    }
}

impl Ledger {
    pub(super) fn standing(
        &self,
        key: &LimitKey,
        holder: HolderId,
        now: DateTime<Utc>,
        reclaim: bool,
        used: u64,
    ) -> Standing {
        let mut standing = Standing { used, holders: 1, ..Standing::default() };
        let overlapping = self.slices.iter().filter(|(other, _)| key.overlaps(other));
        let slices = overlapping.flat_map(|(other, holders)| holders.iter().map(move |held| (other, held)));
        for (other, (held_by, slice)) in slices {
            if *held_by == holder && other == key {
                standing.leased_here = slice.leased();
                standing.granted_here = slice.granted;
            } else if slice.is_answered_for(now) {
                standing.leased_elsewhere = standing.leased_elsewhere.saturating_add(slice.leased());
                standing.holders += 1;
            } else if !reclaim {
                standing.forfeited = standing.forfeited.saturating_add(slice.leased());
            }
        }
        standing
    }

    pub(super) fn acquire(&mut self, request: &AcquireRequest, used: &[u64]) -> Vec<Granted> {
        let answers: Vec<Granted> = request
            .slices
            .iter()
            .zip(used)
            .map(|(slice, used)| {
                let standing = self.standing(&slice.key, request.holder, request.now, request.reclaim, *used);
                Granted { standing, granted: standing.grant(slice) }
            })
            .collect();
        let granted = Granted::all_or_none(request, answers);
        self.prune(request.now);
        for (slice, answer) in request.slices.iter().zip(&granted) {
            let holders = self.slices.entry(slice.key.clone()).or_default();
            let own = holders.entry(request.holder).or_default();
            own.granted = own.granted.saturating_add(answer.granted);
            own.expires_at = Some(request.expires_at);
        }
        granted
    }

    /// As [`prune`](Self::prune), for windows that ended before an instant; says whether there were any.
    pub(super) fn prune_ended(&mut self, ended_before: DateTime<Utc>) -> bool {
        let before = self.slices.len();
        self.prune(ended_before + ENDED_KEPT);
        self.slices.len() < before
    }

    /// Forgets windows that ended long ago.
    fn prune(&mut self, now: DateTime<Utc>) {
        self.slices.retain(|key, holders| {
            let ended = now - key.range.end();
            let is_out = holders.values().any(|slice| slice.leased() > 0);
            ended < ENDED_KEPT || is_out && ended < OUT_KEPT
        });
    }

    pub(super) fn give_back(&mut self, returned: &Returned) {
        let holders = self.slices.get_mut(&returned.key);
        if let Some(slice) = holders.and_then(|holders| holders.get_mut(&returned.holder)) {
            slice.returned = slice.returned.max(returned.total).min(slice.granted);
        }
    }

    /// Gives the revision of the tenant's quotas.
    pub(super) fn renew(&mut self, holder: HolderId, expires_at: DateTime<Utc>) -> u64 {
        for slice in self.slices.values_mut().filter_map(|holders| holders.get_mut(&holder)) {
            slice.expires_at = slice.expires_at.max(Some(expires_at));
        }
        self.quotas.revision
    }

    pub(super) fn settle(&mut self, settlement: &Settlement) {
        let holders = self.slices.get_mut(&settlement.key);
        if let Some(slice) = holders.and_then(|holders| holders.get_mut(&settlement.holder)) {
            slice.settled = slice.settled.saturating_add(settlement.amount);
        }
    }

    /// Notes slices of which more is given back and settled than was granted; a repair settles what was left of them.
    pub(super) fn reconcile(&mut self, report: &mut Reconciliation) {
        for (key, holders) in &mut self.slices {
            for (holder, slice) in holders {
                let name = SliceName {
                    quota: key.quota.clone(),
                    window: key.window.as_str().to_owned(),
                    window_start: key.range.start(),
                    holder: *holder,
                };
                let is_over = report.compare_slice(name, slice.granted, slice.returned, slice.settled);
                if is_over && report.mode == Reconcile::Repair {
                    slice.settled = slice.granted.saturating_sub(slice.returned);
                }
            }
        }
    }

    pub(super) fn quotas(&self) -> TenantQuotas {
        self.quotas.clone()
    }

    pub(super) fn set_plan(&mut self, plan: Option<&Label>, now: DateTime<Utc>) {
        self.quotas.plan = plan.cloned();
        self.change(now);
    }

    pub(super) fn set_zone(&mut self, zone: Option<Zone>, now: DateTime<Utc>) {
        self.quotas.zone = zone;
        self.change(now);
    }

    pub(super) fn put_override(&mut self, own: &Override, now: DateTime<Utc>) {
        self.take_override(&own.quota, own.window);
        self.quotas.overrides.push(own.clone());
        self.quotas
            .overrides
            .sort_by(|a, b| (&a.quota, a.window.as_str()).cmp(&(&b.quota, b.window.as_str())));
        self.change(now);
    }

    pub(super) fn remove_override(&mut self, quota: &Quota, window: Window, now: DateTime<Utc>) -> bool {
        let removed = self.take_override(quota, window);
        if removed {
            self.change(now);
        }
        removed
    }

    /// The revision, if it changed since.
    pub(super) fn changed_since(&self, since: DateTime<Utc>) -> Option<u64> {
        self.changed_at.filter(|changed_at| *changed_at >= since).map(|_| self.quotas.revision)
    }

    fn take_override(&mut self, quota: &Quota, window: Window) -> bool {
        let before = self.quotas.overrides.len();
        self.quotas.overrides.retain(|own| &own.quota != quota || own.window.as_str() != window.as_str());
        self.quotas.overrides.len() < before
    }

    fn change(&mut self, now: DateTime<Utc>) {
        self.quotas.revision += 1;
        self.changed_at = Some(now);
    }
}
