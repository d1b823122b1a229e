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
use crate::quota::{AcquireRequest, LimitKey, SliceRequest};
use crate::{Error, Result, TenantId};

/// Units at hand go back to the store when the tenant asked for none so long.
const IDLE_US: i64 = 10_000_000;
/// A tenant that asked for nothing so long is forgotten; its next request resolves its limits anew.
const EVICTED_AFTER_US: i64 = 600_000_000;
/// A round ends at so many failures: the store is down.
const FAILURES_MAX: u32 = 3;
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

    /// One round of upkeep: follows changed limits, gives idle units back, renews the slices in use.
    pub(crate) async fn round(&self) {
        let now = self.clock.now();
        match self.within_time(self.store.quota_changes(now - CHANGES_SLACK)).await {
            Ok(changes) => {
                let is_old = |(tenant_id, revision): &&(TenantId, u64)| {
                    self.cell_at_hand(tenant_id).is_some_and(|cell| cell.revision != *revision)
                };
                changes.iter().filter(is_old).for_each(|(tenant_id, _)| self.forget(tenant_id));
            }
            Err(error) => tracing::warn!(%error, "metertrail: changed limits cannot be asked for"),
        }
        let now_us = now.timestamp_micros();
        let mut failures = 0;
        for cell in self.cells.all() {
            let idle_us = now_us.saturating_sub(cell.last_used_us());
            if idle_us > EVICTED_AFTER_US {
                self.forget(&cell.tenant_id);
                continue;
            }
            let gives_back = idle_us > IDLE_US || !self.settings.slices;
            let kept = async {
                if gives_back {
                    self.give_back(&cell).await?;
                }
                self.renew(&cell, false).await
            };
            if let Err(error) = kept.await {
                tracing::warn!(%error, "metertrail: slices cannot be looked after, trying again later");
                failures += 1;
                if failures == FAILURES_MAX {
                    return;
                }
            }
        }
        if let Err(error) = self.give_retired_back().await {
            tracing::warn!(%error, "metertrail: slices of changed limits cannot be given back, trying again later");
        }
    }

    /// Lets the tenant's limits be resolved anew, and gives what is at hand of the old ones back at once.
    pub(crate) async fn replace(&self, tenant_id: &TenantId) {
        self.forget(tenant_id);
        if let Err(error) = self.give_retired_back().await {
            tracing::warn!(%error, "metertrail: slices of changed limits cannot be given back, trying again later");
        }
    }

    /// Tells the store that the holder still answers for its slices, if it is time to or `at_once` is set; puts units at hand
    /// that were granted without this process hearing of it.
    async fn renew(&self, cell: &Arc<Cell>, at_once: bool) -> Result<()> {
        let now = self.clock.now();
        let third_us = i64::try_from(self.settings.slice_ttl.as_micros() / 3).unwrap_or(i64::MAX);
        if !at_once && !cell.is_renewal_due(now.timestamp_micros(), third_us) {
            return Ok(());
        }
        let asked: Vec<(&Slot, Epoch, SliceRequest)> = cell
            .slots
            .iter()
            .filter_map(|slot| slot.renewal(now).map(|(epoch, request)| (slot, epoch, request)))
            .collect();
        if asked.is_empty() {
            return Ok(());
        }
        let ttl = TimeDelta::from_std(self.settings.slice_ttl).unwrap_or(TimeDelta::MAX);
        let request = AcquireRequest {
            tenant_id: cell.tenant_id.clone(),
            holder: cell.holder,
            now,
            expires_at: now + ttl,
            reclaim: self.settings.reclaim,
            all_or_none: false,
            slices: asked.iter().map(|(_, _, request)| request.clone()).collect(),
        };
        let _asking = cell.asking.lock().await;
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        let granted = self.within_time(self.store.acquire(&request)).await?;
        cell.renewed(now.timestamp_micros());
        for ((slot, epoch, request), answer) in asked.iter().zip(granted) {
            let fresh = slot.granted(*epoch, now, request, answer);
            slot.allowance.put(*epoch, fresh);
        }
        Ok(())
    }

    /// Gives the units at hand back to the store. If the store is not reached they are forfeited with the window: they are
    /// no longer at hand, and nothing is sold twice.
    async fn give_back(&self, cell: &Cell) -> Result<()> {
        let returns: Vec<(LimitKey, u64)> = cell.slots.iter().filter_map(Slot::give_back).collect();
        if returns.is_empty() {
            return Ok(());
        }
        self.within_time(self.store.give_back(&cell.tenant_id, cell.holder, &returns)).await?;
        for (slot, (key, total)) in
            cell.slots.iter().flat_map(|slot| returns.iter().map(move |told| (slot, told)))
        {
            if slot.limit().quota() == &key.quota && slot.limit().window() == key.window {
                slot.given_back(key, *total);
            }
        }
        Ok(())
    }

    /// Gives back what came back to cells that were replaced, and lets go of those that nothing is out of any more.
    async fn give_retired_back(&self) -> Result<()> {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for cell in &retired {
            // Two are the list's own and this one: nothing can come back to it after this.
            let is_last = Arc::strong_count(cell) == 2;
            self.renew(cell, false).await?;
            self.give_back(cell).await?;
            if is_last {
                let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
                retired.retain(|other| !Arc::ptr_eq(other, cell));
            }
        }
        Ok(())
    }

    /// Gives all units at hand back; the first error is told after all were tried.
    pub(crate) async fn give_all_back(&self) -> Result<()> {
        let retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut first: Option<Error> = None;
        for cell in &retired {
            // What was granted to a call that was cancelled is found first.
            let found = self.renew(cell, true).await;
            if let Err(error) = found.and(self.give_back(cell).await) {
                first.get_or_insert(error);
            }
        }
        first.map_or(Ok(()), Err)
    }
}
