//! The engine behind the enforcer: cells, and how units come from the store.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use tokio::time::timeout;

use crate::quota::allowance::Epoch;
use crate::quota::cell::{Amounts, Cell};
use crate::quota::decision::{Decision, Retry, Verdict};
use crate::quota::explain::{explain, shadow_log};
use crate::quota::hold::{Hold, Take, Takes};
use crate::quota::slot::Slot;
use crate::quota::{
    AcquireRequest, Catalogue, Enforcement, Granted, Limit, LimitSource, SliceRequest, TenantQuotas,
    WhenUnavailable,
};
use crate::store::Store;
use crate::time::{Clock, Tick, Zone};
use crate::{Error, ErrorKind, Result, TenantId};

const SHARDS: usize = 16;
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
    shards: [RwLock<HashMap<TenantId, Arc<Cell>>>; SHARDS],
    hasher: RandomState,
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
            shards: std::array::from_fn(|_| RwLock::default()),
            hasher: RandomState::new(),
            retired: Mutex::default(),
            closed: AtomicBool::new(false),
            round_trips: AtomicU64::new(0),
            allowed_unchecked: AtomicU64::new(0),
        }
    }

    fn shard(&self, tenant_id: &TenantId) -> &RwLock<HashMap<TenantId, Arc<Cell>>> {
        let hash = self.hasher.hash_one(tenant_id);
        let index = usize::try_from(hash % 16).unwrap_or(0);
        &self.shards[index]
    }

    /// The tenant's cell, if this process has one.
    pub(crate) fn cell_at_hand(&self, tenant_id: &TenantId) -> Option<Arc<Cell>> {
        let cells = self.shard(tenant_id).read().unwrap_or_else(PoisonError::into_inner);
        cells.get(tenant_id).filter(|cell| !cell.is_retired()).cloned()
    }

    /// The tenant's cell, made from its plan and overrides if need be.
    pub(crate) async fn cell(&self, tenant_id: &TenantId) -> Result<Arc<Cell>> {
        let now = self.clock.now();
        if let Some(cell) = self.cell_at_hand(tenant_id)
            && cell.is_usable(now.timestamp_micros())
        {
            return Ok(cell);
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::new(ErrorKind::ShutDown, "the enforcer was shut down"));
        }
        let quotas = self.within_time(self.store.tenant_quotas(tenant_id)).await?;
        let fresh = Arc::new(self.resolve(tenant_id, &quotas, now)?);
        let mut cells = self.shard(tenant_id).write().unwrap_or_else(PoisonError::into_inner);
        if let Some(other) = cells.get(tenant_id).filter(|cell| !cell.is_retired())
            && other.is_usable(now.timestamp_micros())
        {
            return Ok(Arc::clone(other));
        }
        let old = cells.insert(tenant_id.clone(), Arc::clone(&fresh));
        drop(cells);
        if let Some(old) = old {
            self.retire(old);
        }
        Ok(fresh)
    }

    /// Forgets what is known of a tenant's limits; the next request resolves them anew.
    pub(crate) fn forget(&self, tenant_id: &TenantId) {
        let cell = self.shard(tenant_id).write().unwrap_or_else(PoisonError::into_inner).remove(tenant_id);
        if let Some(cell) = cell {
            self.retire(cell);
        }
    }

    fn retire(&self, cell: Arc<Cell>) {
        cell.retire();
        self.retired.lock().unwrap_or_else(PoisonError::into_inner).push(cell);
    }

    /// All cells in use.
    pub(crate) fn cells(&self) -> Vec<Arc<Cell>> {
        let of = |shard: &RwLock<HashMap<TenantId, Arc<Cell>>>| -> Vec<Arc<Cell>> {
            shard.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        Arc::clone(&self.catalogue.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts other plans in force; every tenant's limits are resolved anew.
    pub(crate) fn replace_catalogue(&self, catalogue: Catalogue) {
        *self.catalogue.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalogue);
        for cell in self.cells() {
            self.forget(&cell.tenant_id);
        }
    }

    /// Admits nothing more.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        for cell in self.cells() {
            self.forget(&cell.tenant_id);
        }
    }

    /// A tenant's limits: its overrides in force, else its plan's, else the default plan's.
    pub(crate) fn resolve(
        &self,
        tenant_id: &TenantId,
        quotas: &TenantQuotas,
        now: DateTime<Utc>,
    ) -> Result<Cell> {
        let catalogue = self.catalogue();
        let default = catalogue.default_plan()?;
        let plan = match &quotas.plan {
            Some(name) => catalogue.plan(name.as_str())?,
            None => default,
        };
        let mut limits: Vec<(Limit, LimitSource)> = Vec::new();
        for limit in plan.limits() {
            limits.push((limit.clone(), LimitSource::Plan(plan.name().clone())));
        }
        for limit in default.limits() {
            if !limits.iter().any(|(own, _)| own.quota() == limit.quota()) {
                limits.push((limit.clone(), LimitSource::Default(default.name().clone())));
            }
        }
        let mut valid_until = None;
        for own in quotas.overrides.iter().filter(|own| own.is_in_force(now)) {
            valid_until = valid_until.into_iter().chain(own.expires_at).min();
            let same =
                |limit: &Limit| limit.quota() == &own.quota && limit.window().as_str() == own.window.as_str();
            match limits.iter_mut().find(|(limit, _)| same(limit)) {
                Some((limit, source)) => {
                    *limit = limit.clone().with_allowed(own.allowed)?;
                    *source = LimitSource::Override;
                }
                None => limits.push((own.as_limit()?, LimitSource::Override)),
            }
        }
        let slots = limits.into_iter().map(|(limit, source)| Slot::new(limit, source)).collect();
        Ok(Cell::new(
            tenant_id.clone(),
            plan.name().clone(),
            self.zone,
            slots,
            quotas.revision,
            valid_until,
            now,
        ))
    }

    /// Decides for a tenant, whose limits may change while it waits.
    pub(crate) async fn decide_for(&self, tenant_id: &TenantId, amounts: Amounts<'_>) -> Result<Decision> {
        for _ in 0..TAKE_ATTEMPTS {
            let cell = self.cell(tenant_id).await?;
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
    pub(crate) async fn decide(&self, cell: &Arc<Cell>, amounts: Amounts<'_>) -> Result<Option<Decision>> {
        if let Some(hold) = cell.try_take(self.tick.now_us(&*self.clock), amounts) {
            return Ok(Some(Decision::admitted(hold)));
        }
        self.decide_slowly(cell, amounts).await
    }

    async fn decide_slowly(&self, cell: &Arc<Cell>, amounts: Amounts<'_>) -> Result<Option<Decision>> {
        check_amounts(cell, amounts)?;
        if let Some(refusal) = Self::never(cell, amounts) {
            return Ok(Some(refusal));
        }
        let now = self.clock.now();
        cell.enter(now);
        if let Some(refusal) = Self::known_refusal(cell, amounts, now) {
            return Ok(Some(refusal));
        }
        let waiting = Waiting::new(cell, amounts);
        let _asking = cell.asking.lock().await;
        drop(waiting);
        // Whoever asked before may have brought units for all who waited.
        for _ in 0..TAKE_ATTEMPTS {
            if let Some(hold) = cell.try_take(self.tick.now_us(&*self.clock), amounts) {
                return Ok(Some(Decision::admitted(hold)));
            }
            if !cell.is_usable(self.clock.now().timestamp_micros()) {
                break;
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
        let ttl = TimeDelta::from_std(self.settings.slice_ttl).unwrap_or(TimeDelta::MAX);
        let request = AcquireRequest {
            tenant_id: cell.tenant_id.clone(),
            holder: cell.holder,
            now,
            expires_at: now + ttl,
            reclaim: self.settings.reclaim,
            all_or_none: !self.settings.slices,
            slices: requests,
        };
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        match self.within_time(self.store.acquire(&request)).await {
            Ok(granted) => {
                cell.renewed(now.timestamp_micros());
                cell.touch(now.timestamp_micros());
                take_granted(cell, amounts, parts, &granted, now)
            }
            Err(error) => {
                tracing::warn!(%error, tenant = %cell.tenant_id, "metertrail: the quota store cannot be reached");
                Asked::Decided(self.without_store(cell, amounts, parts))
            }
        }
    }

    /// Decides what each limit says for the case that the store cannot be reached.
    fn without_store(&self, cell: &Arc<Cell>, amounts: Amounts<'_>, parts: Parts) -> Decision {
        let denies = |missing: &&Missing| {
            cell.slots.get(missing.slot).is_some_and(|slot| {
                slot.limit.enforcement() == Enforcement::Hard
                    && slot.limit.when_unavailable() == WhenUnavailable::Deny
            })
        };
        if let Some(missing) = parts.missing.iter().find(denies) {
            return explain(cell, amounts, None, Verdict::Unavailable, Some(missing.slot), &[]);
        }
        self.allowed_unchecked.fetch_add(1, Ordering::Relaxed);
        explain(cell, amounts, Some(parts.hold), Verdict::Allowed, None, &[])
    }

    /// A refusal of what is more than a whole limit: no time makes it possible.
    pub(crate) fn never(cell: &Arc<Cell>, amounts: Amounts<'_>) -> Option<Decision> {
        let too_much = |(index, slot): (usize, &Slot), amount: u64| {
            let hard = slot.limit.enforcement() == Enforcement::Hard;
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
    fn known_refusal(cell: &Arc<Cell>, amounts: Amounts<'_>, now: DateTime<Utc>) -> Option<Decision> {
        let blocking = amounts.iter().find_map(|(quota, amount)| {
            let mut slots = cell.slots_of(quota);
            slots.find_map(|(index, slot)| {
                let (_, at_hand) = slot.allowance.look();
                let need = amount.saturating_sub(at_hand);
                let hard = slot.limit.enforcement() == Enforcement::Hard;
                (hard && need > 0 && slot.is_known_refused(now, need)).then_some(index)
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
    for (missing, answer) in parts.missing.iter().zip(granted) {
        let Some(slot) = cell.slots.get(missing.slot) else { continue };
        let fresh = slot.granted(missing.epoch, now, &missing.request, *answer);
        let taken = fresh.min(missing.request.need);
        slot.allowance.put(missing.epoch, fresh - taken);
        parts.hold.add(Take { slot: missing.slot, epoch: missing.epoch, amount: taken });
        if taken < missing.request.need {
            match slot.limit.enforcement() {
                // Granted nothing because of another limit: that one blocks.
                Enforcement::Hard if answer.standing.can_meet(&missing.request) => {
                    innocent = Some(missing.slot);
                }
                Enforcement::Hard => blocking = blocking.or(Some(missing.slot)),
                Enforcement::Soft => parts.passed.push(missing.slot),
                Enforcement::Shadow => shadow_log(cell, missing.slot),
            }
        }
        if slot.allowance.look().0 != missing.epoch {
            return Asked::Overtaken;
        }
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
                parts.hold.add(Take { slot: index, epoch, amount: taken });
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
