//! The engine behind the enforcer: cells, and how units come from the store.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::timeout;

use crate::quota::allowance::Epoch;
use crate::quota::cell::{Amounts, Cell};
use crate::quota::cells::{Cells, Replaced};
use crate::quota::decision::{Decision, Retry, Verdict};
use crate::quota::explain::{explain, shadow_log};
use crate::quota::hold::Hold;
use crate::quota::slot::Slot;
use crate::quota::take::{Take, Takes};
use crate::quota::{
    AcquireRequest, Catalogue, Enforcement, Granted, SliceRequest, TenantQuotas, WhenUnavailable,
};
use crate::store::Store;
use crate::time::{Clock, Tick, Zone};
use crate::{Error, ErrorKind, Result, TenantId};

/// Attempts to take from a slot that others drain as fast as it is filled.
const TAKE_ATTEMPTS: usize = 8;

/// What one enforcer shares with its handles, its holds and its background task.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    catalogue: RwLock<Arc<Catalogue>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tick: Tick,
    pub(crate) zone: Zone,
    pub(crate) settings: Settings,
    pub(crate) cells: Cells,
    /// Cells that were replaced and may still have holds out.
    pub(crate) retired: Mutex<Vec<Arc<Cell>>>,
    closed: AtomicBool,
    pub(crate) round_trips: AtomicU64,
    pub(crate) allowed_unchecked: AtomicU64,
}

/// How an enforcer works.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    /// Whether units are kept at hand between requests.
    pub(crate) slices: bool,
    pub(crate) reclaim: bool,
    pub(crate) slice_ttl: Duration,
    pub(crate) store_timeout: Duration,
}

impl Core {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        catalogue: Catalogue,
        clock: Arc<dyn Clock>,
        tick: Tick,
        zone: Zone,
        settings: Settings,
    ) -> Self {
        Self {
            store,
            catalogue: RwLock::new(Arc::new(catalogue)),
            clock,
            tick,
            zone,
            settings,
            cells: Cells::default(),
            retired: Mutex::default(),
            closed: AtomicBool::new(false),
            round_trips: AtomicU64::new(0),
            allowed_unchecked: AtomicU64::new(0),
        }
    }

    /// The time in microseconds, as it was a moment ago.
    #[inline]
    pub(crate) fn now_us(&self) -> i64 {
        self.tick.now_us(&*self.clock)
    }

    /// The tenant's cell, if this process has one.
    pub(crate) fn cell_at_hand(&self, tenant_id: &TenantId) -> Option<Arc<Cell>> {
        self.cells.get(tenant_id).filter(|cell| !cell.is_retired())
    }

    /// The tenant's cell, made from its plan and overrides if need be.
    pub(crate) async fn cell(&self, tenant_id: &TenantId) -> Result<Arc<Cell>> {
        if let Some(cell) = self.cell_at_hand(tenant_id)
            && cell.is_usable(self.now_us())
        {
            return Ok(cell);
        }
        if self.is_closed() {
            return Err(shut_down());
        }
        let quotas = self.within_time(self.store.tenant_quotas(tenant_id)).await?;
        loop {
            let (catalogue, now) = (self.catalogue(), self.clock.now());
            let fresh = Arc::new(self.resolve(&catalogue, tenant_id, &quotas, now)?);
            // Closing, and other plans, are set before the shards are emptied: after it no cell of before comes in.
            let is_old = || self.is_closed() || !Arc::ptr_eq(&catalogue, &self.catalogue());
            match self.cells.replace(&fresh, |cell| cell.is_usable(now.timestamp_micros()), is_old) {
                Replaced::Kept(present) => return Ok(present),
                Replaced::Refused if self.is_closed() => return Err(shut_down()),
                Replaced::Refused => {}
                Replaced::Done(old) => {
                    if let Some(old) = old {
                        self.retire(old);
                    }
                    return Ok(fresh);
                }
            }
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Forgets what is known of a tenant's limits; the next request resolves them anew.
    pub(crate) fn forget(&self, tenant_id: &TenantId) {
        if let Some(cell) = self.cells.remove(tenant_id) {
            self.retire(cell);
        }
    }

    fn retire(&self, cell: Arc<Cell>) {
        cell.retire();
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(cell);
    }

    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other plans in force; every tenant's limits are resolved anew.
    pub(crate) fn replace_catalogue(&self, catalogue: Catalogue) {
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
        for cell in self.cells.all() {
            self.forget(&cell.tenant_id);
        }
    }

    /// Admits nothing more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for cell in self.cells.all() {
            self.forget(&cell.tenant_id);
        }
    }

    /// Decides for a tenant, whose limits may change while it waits, when the units at hand did not suffice.
    pub(crate) async fn decide_for(
        &self,
        tenant_id: &TenantId,
        mut at_hand: Option<Arc<Cell>>,
        amounts: Amounts<'_>,
    ) -> Result<Decision> {
        for _ in 0..TAKE_ATTEMPTS {
            let cell = match at_hand.take().filter(|cell| cell.is_usable(self.now_us())) {
                Some(cell) => cell,
                None => match self.cell(tenant_id).await {
                    Err(error) if error.is_transient() => {
                        return self.decide_unknown(tenant_id, amounts, error);
                    }
                    found => found?,
                },
            };
            if let Some(decision) = self.decide(&cell, amounts).await? {
                return Ok(decision);
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the tenant's limits change faster than units can be asked for",
        ))
    }

    /// Decides: from the units at hand, else from the store. Nothing if the cell was replaced meanwhile.
    async fn decide(&self, cell: &Arc<Cell>, amounts: Amounts<'_>) -> Result<Option<Decision>> {
        check_amounts(cell, amounts)?;
        if let Some(refusal) = Self::never(cell, amounts) {
            return Ok(Some(refusal));
        }
        if let Some(refusal) = Self::known_refusal(cell, amounts, self.now_us()) {
            return Ok(Some(refusal));
        }
        cell.enter(self.clock.now());
        let failures = cell.failures();
        let waiting = Waiting::new(cell, amounts);
        let asking = timeout(self.settings.store_timeout, cell.asking.lock()).await;
        drop(waiting);
        let Ok(_asking) = asking else {
            return Ok(self.decide_without_store(cell, amounts));
        };
        // Whoever asked before may have brought units for all who waited.
        for _ in 0..TAKE_ATTEMPTS {
            if let Some(decision) = self.decide_at_hand(cell, amounts) {
                return Ok(Some(decision));
            }
            if !cell.is_usable(self.clock.now().timestamp_micros()) {
                break;
            }
            if let Some(refusal) = Self::known_refusal(cell, amounts, self.now_us()) {
                return Ok(Some(refusal));
            }
            // The store did not answer to somebody who asked for all who wait.
            if cell.failures() != failures {
                return Ok(self.decide_without_store(cell, amounts));
            }
            match self.ask(cell, amounts).await {
                Asked::Decided(decision) => return Ok(Some(decision)),
                Asked::Overtaken => {}
            }
        }
        Ok(None)
    }

    /// Asks the store for what is missing, and takes it.
    async fn ask(&self, cell: &Arc<Cell>, amounts: Amounts<'_>) -> Asked {
        let now = self.clock.now();
        cell.enter(now);
        let Some(parts) = Parts::take(cell, amounts, now, self.settings.slices) else {
            return Asked::Overtaken;
        };
        let requests: Vec<SliceRequest> =
            parts.missing.iter().map(|missing| missing.request.clone()).collect();
        if requests.is_empty() {
            return Asked::Decided(Decision::admitted(parts.hold));
        }
        match self.acquire(cell, now, !self.settings.slices, requests).await {
            Ok(granted) => {
                cell.touch(now.timestamp_micros());
                take_granted(cell, amounts, parts, &granted, now)
            }
            Err(error) => {
                tracing::warn!(%error, tenant = %cell.tenant_id, "metertrail: the quota store cannot be reached");
                cell.failed();
                Asked::Decided(self.without_store(cell, amounts, parts))
            }
        }
    }

    /// Asks the store for units.
    pub(crate) async fn acquire(
        &self,
        cell: &Cell,
        now: DateTime<Utc>,
        all_or_none: bool,
        slices: Vec<SliceRequest>,
    ) -> Result<Vec<Granted>> {
        let request = AcquireRequest {
            tenant_id: cell.tenant_id.clone(),
            holder: cell.holder,
            now,
            expires_at: self.expires_at(now),
            reclaim: self.settings.reclaim,
            all_or_none,
            slices,
        };
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        cell.set_in_doubt(true);
        let granted = self.within_time(self.store.acquire(&request)).await?;
        cell.set_in_doubt(false);
        cell.renewed(now.timestamp_micros());
        Ok(granted)
    }

    /// Until when a holder answers for its slices if nothing more is heard of it.
    pub(crate) fn expires_at(&self, now: DateTime<Utc>) -> DateTime<Utc> {
        let ttl = TimeDelta::from_std(self.settings.slice_ttl).unwrap_or(TimeDelta::MAX);
        now.checked_add_signed(ttl).unwrap_or(DateTime::<Utc>::MAX_UTC)
    }

    /// Decides for a tenant whose limits cannot be read: by what the default plan says for the case that the store cannot
    /// be reached.
    fn decide_unknown(&self, tenant_id: &TenantId, amounts: Amounts<'_>, error: Error) -> Result<Decision> {
        let cell = Arc::new(self.resolve(
            &self.catalogue(),
            tenant_id,
            &TenantQuotas::default(),
            self.clock.now(),
        )?);
        if amounts.iter().any(|(quota, _)| !cell.knows(quota)) {
            return Err(error);
        }
        check_amounts(&cell, amounts)?;
        tracing::warn!(%error, tenant = %tenant_id, "metertrail: the tenant's limits cannot be read");
        let denying =
            amounts.iter().flat_map(|(quota, _)| cell.slots_of(quota)).find(|(_, slot)| denies(slot));
        if let Some((blocking, _)) = denying {
            return Ok(explain(&cell, amounts, None, Verdict::Unavailable, Some(blocking), &[]));
        }
        self.allowed_unchecked.fetch_add(1, Ordering::Relaxed);
        let hold = Hold::new(Arc::clone(&cell), Takes::new());
        Ok(explain(&cell, amounts, Some(hold), Verdict::Allowed, None, &[]))
    }

    /// Decides from the units at hand, and by what each limit says for the case that the store cannot be reached. Nothing if a
    /// window ended meanwhile.
    fn decide_without_store(&self, cell: &Arc<Cell>, amounts: Amounts<'_>) -> Option<Decision> {
        let now = self.clock.now();
        cell.enter(now);
        let parts = Parts::take(cell, amounts, now, self.settings.slices)?;
        if parts.missing.is_empty() {
            return Some(Decision::admitted(parts.hold));
        }
        Some(self.without_store(cell, amounts, parts))
    }

    /// Decides what each limit says for the case that the store cannot be reached.
    fn without_store(&self, cell: &Arc<Cell>, amounts: Amounts<'_>, parts: Parts) -> Decision {
        let denying = |missing: &&Missing| cell.slots.get(missing.slot).is_some_and(denies);
        if let Some(missing) = parts.missing.iter().find(denying) {
            return explain(cell, amounts, None, Verdict::Unavailable, Some(missing.slot), &[]);
        }
        self.allowed_unchecked.fetch_add(1, Ordering::Relaxed);
        explain(cell, amounts, Some(parts.hold), Verdict::Allowed, None, &[])
    }

    /// A refusal of what is more than a whole limit: no time makes it possible.
    pub(crate) fn never(cell: &Arc<Cell>, amounts: Amounts<'_>) -> Option<Decision> {
        let too_much = |(index, slot): (usize, &Slot), amount: u64| {
            let hard = slot.limit().enforcement() == Enforcement::Hard;
            (hard && slot.allowed().is_some_and(|allowed| amount > allowed)).then_some(index)
        };
        let blocking = amounts
            .iter()
            .find_map(|(quota, amount)| cell.slots_of(quota).find_map(|slot| too_much(slot, *amount)))?;
        let mut decision = explain(cell, amounts, None, Verdict::Refused, Some(blocking), &[]);
        decision.set_retry(Retry::Never);
        Some(decision)
    }

    /// A refusal that the store gave a moment ago and that still holds.
    fn known_refusal(cell: &Arc<Cell>, amounts: Amounts<'_>, now_us: i64) -> Option<Decision> {
        let blocking = amounts.iter().find_map(|(quota, amount)| {
            let mut slots = cell.slots_of(quota);
            slots.find_map(|(index, slot)| {
                let (_, at_hand) = slot.allowance.look();
                let need = amount.saturating_sub(at_hand);
                let hard = slot.limit().enforcement() == Enforcement::Hard;
                let known = hard && need > 0 && slot.is_present(now_us);
                (known && slot.is_known_refused(now_us, need)).then_some(index)
            })
        })?;
        Some(explain(cell, amounts, None, Verdict::Refused, Some(blocking), &[]))
    }

    pub(crate) async fn within_time<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let limit = self.settings.store_timeout;
        let overdue = || Error::new(ErrorKind::Unavailable, format!("the store did not answer in {limit:?}"));
        timeout(limit, call).await.unwrap_or_else(|_| Err(overdue()))
    }
}

/// Whether a limit refuses while the store cannot be reached.
fn denies(slot: &Slot) -> bool {
    slot.limit().enforcement() == Enforcement::Hard
        && !slot.is_unlimited
        && slot.limit().when_unavailable() == WhenUnavailable::Deny
}

fn shut_down() -> Error {
    Error::new(ErrorKind::ShutDown, "the enforcer was shut down")
}

/// Takes what was granted, puts the rest at hand, and decides.
fn take_granted(
    cell: &Arc<Cell>,
    amounts: Amounts<'_>,
    mut parts: Parts,
    granted: &[Granted],
    now: DateTime<Utc>,
) -> Asked {
    let mut blocking = None;
    let mut innocent = None;
    let mut overtaken = false;
    for (missing, answer) in parts.missing.iter().zip(granted) {
        let Some(slot) = cell.slots.get(missing.slot) else { continue };
        let fresh = slot.granted(missing.epoch, now, &missing.request, *answer);
        let taken = fresh.min(missing.request.need);
        slot.allowance.put(missing.epoch, fresh - taken);
        parts.hold.add(Take::new(missing.slot, missing.epoch, taken));
        if taken < missing.request.need {
            match slot.limit().enforcement() {
                // Granted nothing because of another limit: that one blocks.
                Enforcement::Hard if answer.standing.can_meet(&missing.request) => {
                    innocent = Some(missing.slot);
                }
                Enforcement::Hard => blocking = blocking.or(Some(missing.slot)),
                Enforcement::Soft => parts.passed.push(missing.slot),
                Enforcement::Shadow => shadow_log(cell, missing.slot),
            }
        }
        overtaken |= slot.allowance.look().0 != missing.epoch;
    }
    if overtaken {
        return Asked::Overtaken;
    }
    let blocking = blocking.or(innocent);
    Asked::Decided(match blocking {
        Some(_) => explain(cell, amounts, None, Verdict::Refused, blocking, &parts.passed),
        None if parts.passed.is_empty() => Decision::admitted(parts.hold),
        None => explain(cell, amounts, Some(parts.hold), Verdict::Allowed, None, &parts.passed),
    })
}

/// What came of asking the store.
enum Asked {
    Decided(Decision),
    /// The window ended meanwhile.
    Overtaken,
}

/// Units on their way into a hold: what was at hand, and what is missing. Dropped, they go back.
struct Parts {
    hold: Hold,
    missing: Vec<Missing>,
    passed: Vec<usize>,
}

struct Missing {
    slot: usize,
    epoch: Epoch,
    request: SliceRequest,
}

impl Parts {
    /// Takes what is at hand. Nothing if a window ended while it was at it.
    fn take(cell: &Arc<Cell>, amounts: Amounts<'_>, now: DateTime<Utc>, slices: bool) -> Option<Self> {
        let mut parts =
            Self { hold: Hold::new(Arc::clone(cell), Takes::new()), missing: Vec::new(), passed: Vec::new() };
        for (quota, amount) in amounts {
            for (index, slot) in cell.slots_of(quota).filter(|(_, slot)| slot.allowed().is_some()) {
                let (epoch, _) = slot.allowance.look();
                let taken = slot.allowance.take_up_to(epoch, *amount);
                parts.hold.add(Take::new(index, epoch, taken));
                if taken < *amount {
                    let (present, request) = slot.request(now, *amount - taken, slices)?;
                    if present != epoch {
                        return None;
                    }
                    parts.missing.push(Missing { slot: index, epoch, request });
                }
            }
        }
        Some(parts)
    }
}

/// Announces to whoever asks next how much is waited for.
struct Waiting<'a> {
    cell: &'a Cell,
    amounts: Amounts<'a>,
}

impl<'a> Waiting<'a> {
    fn new(cell: &'a Cell, amounts: Amounts<'a>) -> Self {
        for (quota, amount) in amounts {
            cell.slots_of(quota).for_each(|(_, slot)| slot.await_units(*amount));
        }
        Self { cell, amounts }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        for (quota, amount) in self.amounts {
            self.cell.slots_of(quota).for_each(|(_, slot)| slot.stop_awaiting(*amount));
        }
    }
}

/// Refuses amounts that mean nothing.
pub(crate) fn check_amounts(cell: &Cell, amounts: Amounts<'_>) -> Result<()> {
    if amounts.is_empty() {
        return Err(Error::invalid("quotas", "must name at least one"));
    }
    for (position, (quota, amount)) in amounts.iter().enumerate() {
        if *amount == 0 {
            return Err(Error::invalid("amount", format!("must be at least 1, is 0 for {quota}")));
        }
        if amounts[..position].iter().any(|(other, _)| other == quota) {
            return Err(Error::invalid("quotas", format!("must not name a quota twice, {quota} is")));
        }
        if !cell.knows(quota) {
            let rule =
                format!("{quota} has no limit in the plan {}; say unlimited where there is none", cell.plan);
            return Err(Error::invalid("quota", rule));
        }
    }
    Ok(())
}
