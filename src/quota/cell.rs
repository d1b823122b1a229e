//! All limits of one tenant in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use chrono::{DateTime, Utc};
use tokio::sync::Mutex;

use crate::TenantId;
use crate::quota::hold::{Hold, Take, Takes};
use crate::quota::slot::Slot;
use crate::quota::{HolderId, Quota};
use crate::text::Label;
use crate::time::Zone;

/// What is asked for: how much of which quota.
pub(crate) type Amounts<'a> = &'a [(Quota, u64)];

/// The limits of one tenant, resolved and at hand. When they change it is retired and another takes its place.
#[derive(Debug)]
pub(crate) struct Cell {
    pub(crate) tenant_id: TenantId,
    /// The name of the tenant's plan.
    pub(crate) plan: Label,
    pub(crate) holder: HolderId,
    pub(crate) zone: Zone,
    pub(crate) slots: Vec<Slot>,
    /// The revision of the tenant's quotas that the limits were resolved from.
    pub(crate) revision: u64,
    /// When an override ends, so that the limits have to be resolved again.
    valid_until_us: i64,
    /// Held while units are asked for: one request at a time, which asks for all who wait.
    pub(crate) asking: Mutex<()>,
    retired: AtomicBool,
    last_used_us: AtomicI64,
    renewed_us: AtomicI64,
}

impl Cell {
    pub(crate) fn new(
        tenant_id: TenantId,
        plan: Label,
        zone: Zone,
        slots: Vec<Slot>,
        revision: u64,
        valid_until: Option<DateTime<Utc>>,
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            tenant_id,
            plan,
            holder: HolderId::random(),
            zone,
            slots,
            revision,
            valid_until_us: valid_until.map_or(i64::MAX, |until| until.timestamp_micros()),
            asking: Mutex::new(()),
            retired: AtomicBool::new(false),
            last_used_us: AtomicI64::new(now.timestamp_micros()),
            renewed_us: AtomicI64::new(0),
        }
    }

    /// The slots that an amount of a quota has to be taken from; none if the quota has no limit.
    pub(crate) fn slots_of(&self, quota: &Quota) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter(move |(_, slot)| slot.limit.quota() == quota)
    }

    /// Whether any limit, an unlimited one included, names the quota.
    pub(crate) fn knows(&self, quota: &Quota) -> bool {
        self.slots.iter().any(|slot| slot.limit.quota() == quota)
    }

    /// Takes all amounts from the units at hand, or none of them. Slots are taken in the order of the cell; what was taken
    /// goes back if a later one falls short.
    pub(crate) fn try_take(self: &Arc<Self>, now_us: i64, amounts: Amounts<'_>) -> Option<Hold> {
        if amounts.is_empty() || !self.is_usable(now_us) {
            return None;
        }
        let mut takes = Takes::new();
        for (position, (quota, amount)) in amounts.iter().enumerate() {
            let mut known = false;
            // What means nothing is left to the slow path, which says why.
            if *amount == 0 || amounts[..position].iter().any(|(other, _)| other == quota) {
                self.put_back(&takes);
                return None;
            }
            for (index, slot) in self.slots_of(quota) {
                known = true;
                if slot.allowed().is_none() {
                    continue;
                }
                let Some(epoch) = slot.take(now_us, *amount) else {
                    self.put_back(&takes);
                    return None;
                };
                takes.push(Take { slot: index, epoch, amount: *amount });
            }
            if !known {
                self.put_back(&takes);
                return None;
            }
        }
        self.touch(now_us);
        Some(Hold::new(Arc::clone(self), takes))
    }

    /// Gives taken units back to the slots that they came from; units of a window that has passed are gone.
    pub(crate) fn put_back(&self, takes: &[Take]) {
        for take in takes {
            if let Some(slot) = self.slots.get(take.slot) {
                slot.allowance.put(take.epoch, take.amount);
            }
        }
    }

    /// Moves every slot into the window of this instant.
    pub(crate) fn enter(&self, now: DateTime<Utc>) {
        for slot in &self.slots {
            slot.enter(now, self.zone);
        }
    }

    /// No more units are taken from it, except to be given back.
    pub(crate) fn retire(&self) {
        self.retired.store(true, Ordering::Release);
    }

    /// Whether its limits are still the tenant's.
    pub(crate) fn is_usable(&self, now_us: i64) -> bool {
        !self.is_retired() && now_us < self.valid_until_us
    }

    /// Notes that the tenant asked for units.
    pub(crate) fn touch(&self, now_us: i64) {
        // A line that is only read stays with every core.
        if self.last_used_us.load(Ordering::Relaxed) != now_us {
            self.last_used_us.store(now_us, Ordering::Relaxed);
        }
    }

    /// Whether the store has not heard of the holder for a while; notes that it does now.
    pub(crate) fn is_renewal_due(&self, now_us: i64, after_us: i64) -> bool {
        now_us.saturating_sub(self.renewed_us.load(Ordering::Relaxed)) >= after_us
    }

    pub(crate) fn renewed(&self, now_us: i64) {
        self.renewed_us.store(now_us, Ordering::Relaxed);
    }

    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(crate) fn last_used_us(&self) -> i64 {
        self.last_used_us.load(Ordering::Relaxed)
    }
}
