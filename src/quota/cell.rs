//! All limits of one tenant in this process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};

use chrono::{DateTime, Utc};
use smallvec::SmallVec;
use tokio::sync::Mutex;

use crate::TenantId;
use crate::quota::hold::{Hold, HoldRef};
use crate::quota::slot::Slot;
use crate::quota::take::{Take, Takes};
use crate::quota::{HolderId, Quota, Returned};
use crate::text::Label;
use crate::time::Zone;

/// What is asked for: how much of which quota.
pub(crate) type Amounts<'a> = &'a [(Quota, u64)];

/// The limits of one tenant, resolved and at hand. When they change it is retired and another takes its place.
///
/// What an admission touches comes first and close together: with many tenants, the time of a decision is the time to fetch
/// its cache lines.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Cell {
    retired: AtomicBool,
    /// When an override ends, so that the limits have to be resolved again.
    valid_until_us: i64,
    last_used_us: AtomicI64,
    pub(crate) slots: SmallVec<[Slot; 3]>,
    pub(crate) tenant_id: TenantId,
    /// The name of the tenant's plan.
    pub(crate) plan: Label,
    pub(crate) holder: HolderId,
    pub(crate) zone: Zone,
    /// The revision of the tenant's quotas that the limits were resolved from.
    pub(crate) revision: u64,
    /// Held while units are asked for: one request at a time, which asks for all who wait.
    pub(crate) asking: Mutex<()>,
    renewed_us: AtomicI64,
    /// Whether the store was asked for units and no answer came.
    in_doubt: AtomicBool,
    /// Calls for units that failed.
    failures: AtomicU64,
}

impl Cell {
    pub(crate) fn new(
        tenant_id: TenantId,
        plan: Label,
        zone: Zone,
        slots: SmallVec<[Slot; 3]>,
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
            in_doubt: AtomicBool::new(false),
            failures: AtomicU64::new(0),
        }
    }

    /// The slots that an amount of a quota has to be taken from; none if the quota has no limit.
    #[inline]
    pub(crate) fn slots_of(&self, quota: &Quota) -> impl Iterator<Item = (usize, &Slot)> {
        self.slots.iter().enumerate().filter(move |(_, slot)| slot.quota == *quota)
    }

    /// Whether any limit, an unlimited one included, names the quota.
    pub(crate) fn knows(&self, quota: &Quota) -> bool {
        self.slots.iter().any(|slot| slot.quota == *quota)
    }

    /// A hold of all amounts, from the units at hand.
    #[inline]
    pub(crate) fn try_take(self: &Arc<Self>, now_us: i64, amounts: Amounts<'_>) -> Option<Hold> {
        Some(self.try_take_ref(now_us, amounts)?.into_hold())
    }

    /// As [`try_take`](Self::try_take), a hold that borrows.
    #[inline]
    pub(crate) fn try_take_ref(self: &Arc<Self>, now_us: i64, amounts: Amounts<'_>) -> Option<HoldRef<'_>> {
        if let Some(take) = self.take_single(now_us, amounts) {
            return Some(HoldRef::new(self, Takes::one(take)));
        }
        let mut hold = HoldRef::new(self, Takes::new());
        if !self.take_each(now_us, amounts, hold.takes_mut()) {
            return None;
        }
        self.touch(now_us);
        Some(hold)
    }

    /// Takes an amount of a quota that has one limit. `None` says nothing: then ask for all.
    // A call would return it through memory, which is where the time goes, see `Takes`.
    #[allow(clippy::inline_always)]
    #[inline(always)]
    pub(crate) fn take_single(&self, now_us: i64, amounts: Amounts<'_>) -> Option<Take> {
        let [(quota, amount)] = amounts else { return None };
        let mut slots = self.slots_of(quota);
        let (Some((index, slot)), None) = (slots.next(), slots.next()) else { return None };
        if *amount == 0 || slot.is_unlimited || !self.is_usable(now_us) {
            return None;
        }
        let epoch = slot.take(now_us, *amount)?;
        self.touch(now_us);
        Some(Take::new(index, epoch, *amount))
    }

    /// Takes amount after amount, in the order of the cell; says whether it came to the end.
    fn take_each(&self, now_us: i64, amounts: Amounts<'_>, takes: &mut Takes) -> bool {
        if amounts.is_empty() || !self.is_usable(now_us) {
            return false;
        }
        for (position, (quota, amount)) in amounts.iter().enumerate() {
            // What means nothing is left to the slow path, which says why.
            if *amount == 0 || amounts[..position].iter().any(|(other, _)| other == quota) {
                return false;
            }
            let mut known = false;
            for (index, slot) in self.slots_of(quota) {
                known = true;
                if slot.is_unlimited {
                    continue;
                }
                let Some(epoch) = slot.take(now_us, *amount) else { return false };
                takes.push(Take::new(index, epoch, *amount));
            }
            if !known {
                return false;
            }
        }
        true
    }

    /// Gives taken units back to the slots that they came from; units of a window that has passed are gone.
    #[inline]
    pub(crate) fn put_back(&self, takes: &Takes) {
        match takes.only() {
            Some(take) => self.put_one_back(take),
            None => takes.iter().for_each(|take| self.put_one_back(take)),
        }
    }

    #[inline]
    fn put_one_back(&self, take: &Take) {
        if let Some(slot) = self.slots.get(take.slot()) {
            slot.allowance.put(take.epoch, take.amount);
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
    #[inline]
    pub(crate) fn is_usable(&self, now_us: i64) -> bool {
        !self.is_retired() && now_us < self.valid_until_us
    }

    /// Whether units of the store are at hand or held here.
    pub(crate) fn holds_units(&self) -> bool {
        self.slots.iter().any(|slot| slot.read().standing.leased_here > 0)
    }

    /// Takes all units at hand out, and says what to tell the store.
    pub(crate) fn give_back(&self) -> impl Iterator<Item = Returned> {
        let returned = |slot: &Slot| {
            let (key, total) = slot.give_back()?;
            Some(Returned { tenant_id: self.tenant_id.clone(), holder: self.holder, key, total })
        };
        self.slots.iter().filter_map(returned)
    }

    /// The store knows of what was given back.
    pub(crate) fn given_back(&self, told: &[Returned]) {
        for told in told {
            for slot in &self.slots {
                if slot.quota == told.key.quota && slot.limit().window() == told.key.window {
                    slot.given_back(&told.key, told.total);
                }
            }
        }
    }

    /// Notes that the store is asked for units, or has answered.
    pub(crate) fn set_in_doubt(&self, in_doubt: bool) {
        self.in_doubt.store(in_doubt, Ordering::Release);
    }

    /// Notes that the store could not be asked.
    pub(crate) fn failed(&self) {
        self.failures.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    pub(crate) fn is_in_doubt(&self) -> bool {
        self.in_doubt.load(Ordering::Acquire)
    }

    /// Notes that the tenant asked for units.
    #[inline]
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

    #[inline]
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    pub(crate) fn last_used_us(&self) -> i64 {
        self.last_used_us.load(Ordering::Relaxed)
    }
}
