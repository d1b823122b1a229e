//! Units taken for one operation.

use std::fmt;
use std::sync::Arc;

use rust_decimal::Decimal;
use smallvec::SmallVec;

use crate::quota::allowance::Epoch;
use crate::quota::cell::Cell;
use crate::quota::take::{Take, Takes};
use crate::quota::{COST_UNITS_PER_USD, HolderId, LimitKey, Quota};
use crate::usage::{Cost, Measures, UsageEvent};

/// Units taken for one operation. Given to it ([`Operation::hold`](crate::Operation::hold)) they are settled by the
/// record: what was not used goes back, what was used beyond them is booked. Dropped, they go back.
#[must_use = "dropped, the units go back"]
pub struct Hold {
    cell: Arc<Cell>,
    takes: Takes,
}

impl Hold {
    #[inline]
    pub(super) fn new(cell: Arc<Cell>, takes: Takes) -> Self {
        Self { cell, takes }
    }

    #[inline]
    pub(super) fn single(cell: Arc<Cell>, take: Take) -> Self {
        Self::new(cell, Takes::one(take))
    }

    /// Adds units; those of a slot and epoch that are already in it are added up.
    pub(super) fn add(&mut self, take: Take) {
        self.takes.add(take);
    }

    /// How much of a quota is held, under the limit that holds most of it.
    pub fn amount_of(&self, quota: &Quota) -> u64 {
        let held = self.takes.iter().filter(|take| {
            self.cell.slots.get(take.slot()).is_some_and(|slot| slot.limit().quota() == quota)
        });
        held.map(|take| take.amount).max().unwrap_or(0)
    }

    /// What is held of quotas that are neither tokens nor calls: the cost, and measures of the host's own.
    pub(crate) fn estimates(&self) -> (Option<Cost>, Measures) {
        let (mut cost, mut measures) = (None, Measures::default());
        for slot in self.takes.iter().filter_map(|take| self.cell.slots.get(take.slot())) {
            let amount = Decimal::from(self.amount_of(&slot.quota));
            match &slot.quota {
                Quota::Cost => cost = Cost::usd(amount / Decimal::from(COST_UNITS_PER_USD)).ok(),
                Quota::Custom(name) => {
                    measures = measures.clone().with(name.as_str(), amount).unwrap_or(measures);
                }
                _ => {}
            }
        }
        (cost, measures)
    }

    /// Whether what has no price counts at a ceiling.
    pub(crate) fn counts_ceiling(&self) -> bool {
        self.cell.counts_ceiling()
    }

    pub(crate) fn cell(&self) -> &Arc<Cell> {
        &self.cell
    }

    pub(crate) fn takes(&self) -> impl Iterator<Item = &Take> {
        self.takes.iter()
    }

    /// Replaces the held units by what the event used.
    pub(crate) fn settle(mut self, event: &UsageEvent) -> Settling {
        let takes = std::mem::take(&mut self.takes);
        Settling::of(Arc::clone(&self.cell), &takes, event)
    }
}

impl Drop for Hold {
    #[inline]
    fn drop(&mut self) {
        self.cell.put_back(&self.takes);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold").field("tenant_id", &self.cell.tenant_id).field("takes", &self.takes).finish()
    }
}

/// Units taken for one operation, as a [`Hold`] that does not outlive the handle that it came from: the cheapest there is.
/// Dropped, the units go back.
#[must_use = "dropped, the units go back"]
pub struct HoldRef<'h> {
    cell: &'h Arc<Cell>,
    takes: Takes,
}

impl<'h> HoldRef<'h> {
    #[inline]
    pub(super) fn new(cell: &'h Arc<Cell>, takes: Takes) -> Self {
        Self { cell, takes }
    }

    pub(super) fn takes_mut(&mut self) -> &mut Takes {
        &mut self.takes
    }

    /// The same units, to be given to an operation.
    #[inline]
    pub fn into_hold(mut self) -> Hold {
        Hold::new(Arc::clone(self.cell), std::mem::take(&mut self.takes))
    }
}

impl Drop for HoldRef<'_> {
    #[inline]
    fn drop(&mut self) {
        self.cell.put_back(&self.takes);
    }
}

impl fmt::Debug for HoldRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenant_id = &self.cell.tenant_id;
        f.debug_struct("HoldRef").field("tenant_id", tenant_id).field("takes", &self.takes).finish()
    }
}

/// What an event used of the tenant's limits, on its way to the store together with the event.
#[derive(Debug)]
pub(crate) struct Settling {
    cell: Arc<Cell>,
    parts: SmallVec<[Part; 4]>,
}

#[derive(Debug)]
struct Part {
    slot: usize,
    epoch: Epoch,
    /// Units of the slice that are used up.
    covered: u64,
    /// Used beyond the slice.
    excess: u64,
}

impl Settling {
    /// Settles an event with the units that were held for it, or without any: then with the units at hand.
    pub(crate) fn of(cell: Arc<Cell>, takes: &Takes, event: &UsageEvent) -> Self {
        let mut parts = SmallVec::new();
        for (index, slot) in cell.slots.iter().enumerate().filter(|(_, slot)| slot.allowed().is_some()) {
            let used = slot.limit().quota().used_by(event);
            let held = takes.iter().find(|take| take.slot() == index);
            let (in_window, late): (Option<&Take>, Option<&Take>) =
                if held.is_some_and(|take| slot.is_in_window(take.epoch, event.occurred_at())) {
                    (held, None)
                } else {
                    (None, held)
                };
            // Taken in a window that ended before the operation began: its usage counts in the next one. What it used stays
            // leased of the old window, where it was admitted; settled there, it could be sold again.
            if let Some(take) = late {
                slot.allowance.put(take.epoch, take.amount.saturating_sub(used));
            }
            let covered = in_window.map_or(0, |take| take.amount.min(used));
            if let Some(take) = in_window {
                slot.allowance.put(take.epoch, take.amount - covered);
                parts.push(Part { slot: index, epoch: take.epoch, covered, excess: 0 });
            }
            if used > covered {
                let (epoch, more) = slot.charge(used - covered);
                parts.push(Part { slot: index, epoch, covered: more, excess: used - covered - more });
            }
        }
        parts.retain(|part: &mut Part| part.covered > 0 || part.excess > 0);
        Self { cell, parts }
    }

    pub(crate) fn holder(&self) -> HolderId {
        self.cell.holder
    }

    /// The slices' units that are used up: no longer leased once the event counts.
    pub(crate) fn settled(&self) -> impl Iterator<Item = (LimitKey, u64)> {
        self.parts.iter().filter(|part| part.covered > 0).filter_map(|part| {
            let key = self.cell.slots.get(part.slot)?.key_of(part.epoch)?;
            Some((key, part.covered))
        })
    }

    /// The store has the event and the settlement.
    pub(crate) fn recorded(&self) {
        for part in &self.parts {
            if let Some(slot) = self.cell.slots.get(part.slot) {
                slot.recorded(part.epoch, part.covered, part.excess);
            }
        }
    }

    /// The event did not come to count: the units go back.
    pub(crate) fn undo(&self) {
        for part in &self.parts {
            if let Some(slot) = self.cell.slots.get(part.slot) {
                slot.allowance.put(part.epoch, part.covered);
                slot.forget(part.epoch, part.excess);
            }
        }
    }
}
