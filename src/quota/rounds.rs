//! What the engine does by itself, once a second and at the end.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use chrono::TimeDelta;

use crate::quota::allowance::Epoch;
use crate::quota::cell::{Amounts, Cell};
use crate::quota::core::Core;
use crate::quota::decision::Decision;
use crate::quota::hold::Hold;
use crate::quota::slot::Slot;
use crate::quota::take::Take;
use crate::quota::{HolderId, LimitKey, Returned, SliceRequest};
use crate::{Result, TenantId};

/// Units at hand go back to the store when the tenant asked for none so long.
const IDLE_US: i64 = 10_000_000;
/// A tenant that asked for nothing so long is forgotten; its next request resolves its limits anew.
const EVICTED_AFTER_US: i64 = 600_000_000;
/// So many tenants' slices are looked after in one call of the store.
const CELLS_PER_CALL: usize = 1_000;
/// Changes are looked for so far back: clocks differ, and a transaction may commit late.
const CHANGES_SLACK: TimeDelta = TimeDelta::minutes(1);

impl Core {
    /// Admits from the units at hand only.
    #[inline]
    pub(crate) fn decide_at_hand(&self, cell: &Arc<Cell>, amounts: Amounts<'_>) -> Option<Decision> {
        let now_us = self.now_us();
        match cell.take_single(now_us, amounts) {
            Some(take) => Some(Decision::admitted(Hold::single(Arc::clone(cell), take))),
            None => cell.try_take(now_us, amounts).map(Decision::admitted),
        }
    }

    /// The cell of a tenant that is known here, with a hold of an amount of a single quota if that is all that is asked for
    /// and is at hand.
    #[inline]
    pub(crate) fn known(
        &self,
        tenant_id: &TenantId,
        amounts: Amounts<'_>,
    ) -> Option<(Arc<Cell>, Option<Take>)> {
        let now_us = self.now_us();
        self.cells.get_after(tenant_id, |cell| cell.take_single(now_us, amounts))
    }

    /// Brings what is known of a tenant's limits up to date. Takes nothing.
    pub(crate) async fn look(&self, cell: &Arc<Cell>) -> Result<()> {
        let now = self.clock.now();
        cell.enter(now);
        let keyed: Vec<(usize, LimitKey)> = cell
            .slots
            .iter()
            .enumerate()
            .filter_map(|(index, slot)| Some((index, slot.present_key()?)))
            .collect();
        let keys: Vec<LimitKey> = keyed.iter().map(|(_, key)| key.clone()).collect();
        let standings =
            self.within_time(self.store.standing(&cell.tenant_id, cell.holder, &keys, now)).await?;
        for ((index, key), standing) in keyed.into_iter().zip(standings) {
            if let Some(slot) = cell.slots.get(index) {
                slot.seen(&key, now, standing);
            }
        }
        Ok(())
    }

    /// One round of upkeep: follows changed limits, gives idle units back, renews the slices in use. What fails is done by a
    /// later round.
    pub(crate) async fn round(&self) {
        if let Err(error) = self.follow_changes().await {
            tracing::warn!(%error, "metertrail: changed limits cannot be asked for");
        }
        let now_us = self.clock.now().timestamp_micros();
        let (mut idle, mut answered_for) = (Vec::new(), Vec::new());
        for cell in self.cells.all() {
            let idle_us = now_us.saturating_sub(cell.last_used_us());
            if idle_us > EVICTED_AFTER_US {
                self.forget(&cell.tenant_id);
                continue;
            }
            if idle_us <= IDLE_US || cell.holds_units() {
                answered_for.push(Arc::clone(&cell));
            }
            if idle_us > IDLE_US || !self.settings.slices {
                idle.push(cell);
            }
        }
        let kept = async {
            self.renew(&answered_for).await?;
            self.give_back(&idle).await?;
            self.recover(&idle, false).await?;
            self.give_retired_back().await
        };
        if let Err(error) = kept.await {
            tracing::warn!(%error, "metertrail: slices cannot be looked after, trying again later");
        }
    }

    async fn follow_changes(&self) -> Result<()> {
        let since = self.clock.now() - CHANGES_SLACK;
        for (tenant_id, revision) in self.within_time(self.store.quota_changes(since)).await? {
            if self.cell_at_hand(&tenant_id).is_some_and(|cell| cell.revision != revision) {
                self.forget(&tenant_id);
            }
        }
        Ok(())
    }

    /// Lets the tenant's limits be resolved anew, and gives what is at hand of the old ones back at once.
    pub(crate) async fn replace(&self, tenant_id: &TenantId) {
        self.forget(tenant_id);
        if let Err(error) = self.give_retired_back().await {
            tracing::warn!(%error, "metertrail: slices of changed limits cannot be given back, trying again later");
        }
    }

    /// Tells the store that the holders of these cells still answer for their slices, where it is time to. Cells whose limits
    /// are no longer the tenant's are replaced: whatever clock a change was made by, it is followed by now.
    async fn renew(&self, cells: &[Arc<Cell>]) -> Result<()> {
        let now = self.clock.now();
        let third_us = i64::try_from(self.settings.slice_ttl.as_micros() / 3).unwrap_or(i64::MAX);
        let is_due = |cell: &&Arc<Cell>| cell.is_renewal_due(now.timestamp_micros(), third_us);
        let due: Vec<&Arc<Cell>> = cells.iter().filter(is_due).collect();
        for cells in due.chunks(CELLS_PER_CALL) {
            let holders: Vec<(TenantId, HolderId)> =
                cells.iter().map(|cell| (cell.tenant_id.clone(), cell.holder)).collect();
            self.round_trips.fetch_add(1, Ordering::Relaxed);
            let revisions = self.within_time(self.store.renew(&holders, self.expires_at(now))).await?;
            for (cell, revision) in cells.iter().zip(revisions) {
                cell.renewed(now.timestamp_micros());
                if cell.revision != revision && !cell.is_retired() {
                    self.forget(&cell.tenant_id);
                }
            }
        }
        Ok(())
    }

    /// Puts units at hand that may have been granted without this process hearing of it: a call of a cell that got no answer,
    /// or was dropped, and was followed by none.
    /// Cells that are being asked for are waited for, or left alone: their next call finds what was granted.
    async fn recover(&self, cells: &[Arc<Cell>], waits: bool) -> Result<()> {
        for cell in cells {
            let asking = if waits { Some(cell.asking.lock().await) } else { cell.asking.try_lock().ok() };
            if asking.is_none() || !cell.is_in_doubt() {
                continue;
            }
            let now = self.clock.now();
            let asked: Vec<(&Slot, Epoch, SliceRequest)> = cell
                .slots
                .iter()
                .filter_map(|slot| slot.renewal(now).map(|(epoch, request)| (slot, epoch, request)))
                .collect();
            let slices = asked.iter().map(|(_, _, request)| request.clone()).collect();
            let granted = self.acquire(cell, now, false, slices).await?;
            for ((slot, epoch, request), answer) in asked.iter().zip(granted) {
                let fresh = slot.granted(*epoch, now, request, answer);
                slot.allowance.put(*epoch, fresh);
            }
        }
        Ok(())
    }

    /// Gives the units at hand of these cells back to the store. If the store is not reached they are forfeited with the
    /// window: they are no longer at hand, and nothing is sold twice.
    async fn give_back(&self, cells: &[Arc<Cell>]) -> Result<()> {
        for cells in cells.chunks(CELLS_PER_CALL) {
            let each: Vec<Vec<Returned>> = cells.iter().map(|cell| cell.give_back().collect()).collect();
            let returned = each.concat();
            if returned.is_empty() {
                continue;
            }
            self.within_time(self.store.give_back(&returned)).await?;
            cells.iter().zip(&each).for_each(|(cell, told)| cell.given_back(told));
        }
        Ok(())
    }

    /// Gives back what came back to cells that were replaced, and lets go of those that nothing is out of any more.
    async fn give_retired_back(&self) -> Result<()> {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner).clone();
        // Two are the list's own and this one: nothing can come back to it after this.
        let last: Vec<&Arc<Cell>> = retired.iter().filter(|cell| Arc::strong_count(cell) == 2).collect();
        self.renew(&retired).await?;
        self.recover(&retired, false).await?;
        self.give_back(&retired).await?;
        let mut kept = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|cell| !last.iter().any(|gone| Arc::ptr_eq(gone, cell)));
        Ok(())
    }

    /// Gives all units at hand back, after the last admission.
    pub(crate) async fn give_all_back(&self) -> Result<()> {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let recovered = self.recover(&retired, true).await;
        self.give_back(&retired).await.and(recovered)
    }
}
