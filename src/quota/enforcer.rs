//! The face of quotas.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinHandle;

use crate::quota::cell::Cell;
use crate::quota::core::{Core, Settings, check_amounts};
use crate::quota::decision::{Decision, LimitSource, LimitView, Verdict};
use crate::quota::explain::explain;
use crate::quota::hold::{Hold, HoldRef, Settling};
use crate::quota::keeper::Keeper;
use crate::quota::take::Takes;
use crate::quota::{Allowed, Catalogue, Enforcement, Override, Quota, TenantQuotas, Window};
use crate::store::Store;
use crate::text::Label;
use crate::time::{Clock, SystemClock, Tick, Zone};
use crate::usage::UsageEvent;
use crate::{Error, ErrorKind, Result, TenantId, upkeep};

/// Admits operations within their tenant's limits: at the speed of memory from slices of the limits, and never past a hard
/// limit, whatever number of processes. Clones share everything.
#[derive(Clone, Debug)]
pub struct QuotaEnforcer {
    core: Arc<Core>,
    keeping: Arc<Keeping>,
}

/// Ends the background task when the last clone goes.
#[derive(Debug)]
struct Keeping {
    stop: watch::Sender<bool>,
    stage: Mutex<Stage>,
}

/// How far a shutdown has come.
#[derive(Debug)]
enum Stage {
    Running(JoinHandle<()>),
    Stopped,
    Over,
}

/// Settings of a [`QuotaEnforcer`].
#[derive(Clone, Debug)]
#[must_use]
pub struct QuotaEnforcerBuilder {
    store: Arc<dyn Store>,
    catalogue: Catalogue,
    clock: Arc<dyn Clock>,
    zone: Zone,
    tick: Option<Duration>,
    settings: Settings,
}

impl QuotaEnforcer {
    /// An enforcer with the default settings.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) outside of a tokio runtime.
    pub fn start(store: impl Store, catalogue: Catalogue) -> Result<Self> {
        Self::builder(store, catalogue).start()
    }

    /// An enforcer with other settings.
    pub fn builder(store: impl Store, catalogue: Catalogue) -> QuotaEnforcerBuilder {
        QuotaEnforcerBuilder {
            store: Arc::new(store),
            catalogue,
            clock: Arc::new(SystemClock),
            zone: Zone::UTC,
            tick: Some(Duration::from_millis(5)),
            settings: Settings {
                slices: true,
                reclaim: false,
                slice_ttl: Duration::from_secs(30),
                store_timeout: Duration::from_secs(5),
            },
        }
    }

    /// Asks for an amount of one quota.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `amount` if it is zero, on `quota` if no limit of the tenant names it;
    /// [`ShutDown`](ErrorKind::ShutDown) after the shutdown. A refusal is no error, and neither is a store that cannot be
    /// reached: each limit says what happens then, and the default plan's limits say it for a tenant whose own cannot be
    /// read; [`Unavailable`](ErrorKind::Unavailable) only if they do not name the quota.
    ///
    /// # Cancel safety
    /// Dropped at any point it holds nothing: units on their way are found again by the next request.
    pub async fn enforce(&self, tenant_id: &TenantId, quota: &Quota, amount: u64) -> Result<Decision> {
        self.enforce_multiple(tenant_id, &[(quota.clone(), amount)]).await
    }

    /// Asks for amounts of several quotas: all or nothing.
    ///
    /// # Errors
    /// As [`enforce`](Self::enforce); on `quotas` if one is named twice or none is.
    ///
    /// # Cancel safety
    /// As [`enforce`](Self::enforce).
    pub async fn enforce_multiple(&self, tenant_id: &TenantId, amounts: &[(Quota, u64)]) -> Result<Decision> {
        let cell = match self.core.known(tenant_id, amounts) {
            Some((cell, Some(single))) => return Ok(Decision::admitted(Hold::single(cell, single))),
            Some((cell, None)) => Some(cell),
            None => None,
        };
        if let Some(decision) = cell.as_ref().and_then(|cell| self.core.decide_at_hand(cell, amounts)) {
            return Ok(decision);
        }
        self.core.decide_for(tenant_id, cell, amounts).await
    }

    /// Whether an amount could be admitted now. Takes nothing.
    ///
    /// # Errors
    /// As [`enforce`](Self::enforce); [`Unavailable`](ErrorKind::Unavailable) if the store cannot be reached.
    pub async fn check(&self, tenant_id: &TenantId, quota: &Quota, amount: u64) -> Result<Decision> {
        let cell = self.core.cell(tenant_id).await?;
        let amounts = [(quota.clone(), amount)];
        check_amounts(&cell, &amounts)?;
        if let Some(never) = Core::never(&cell, &amounts) {
            return Ok(never);
        }
        self.core.look(&cell).await?;
        let mut hard =
            cell.slots_of(quota).filter(|(_, slot)| slot.limit().enforcement() == Enforcement::Hard);
        let short =
            hard.find(|(_, slot)| LimitView::of(slot).remaining.is_some_and(|remaining| remaining < amount));
        let verdict = if short.is_some() { Verdict::Refused } else { Verdict::Allowed };
        Ok(explain(&cell, &amounts, None, verdict, short.map(|(index, _)| index), &[]))
    }

    /// How all limits of a tenant stand.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the store cannot be reached.
    pub async fn quota_status(&self, tenant_id: &TenantId) -> Result<QuotaStatus> {
        let cell = self.core.cell(tenant_id).await?;
        self.core.look(&cell).await?;
        let limits: Vec<LimitView> = cell.slots.iter().map(LimitView::of).collect();
        let any_exceeded = limits.iter().any(LimitView::is_exceeded);
        Ok(QuotaStatus { plan: cell.plan.clone(), limits, any_exceeded })
    }

    /// A handle for a hot path: asks without looking the tenant up.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the tenant's limits cannot be read.
    pub async fn tenant(&self, tenant_id: &TenantId) -> Result<TenantHandle> {
        Ok(TenantHandle { core: Arc::clone(&self.core), cell: self.core.cell(tenant_id).await? })
    }

    /// Gives a tenant a limit of its own in place of its plan's. Other processes follow within a second.
    ///
    /// # Errors
    /// The store's.
    pub async fn set_custom_quota(&self, tenant_id: &TenantId, own: &Override) -> Result<()> {
        own.as_limit()?;
        self.core.store.put_override(tenant_id, own, self.core.clock.now()).await?;
        self.core.replace(tenant_id).await;
        Ok(())
    }

    /// Takes a tenant's own limit away; says whether there was one.
    ///
    /// # Errors
    /// The store's.
    pub async fn remove_custom_quota(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
    ) -> Result<bool> {
        let removed =
            self.core.store.remove_override(tenant_id, quota, window, self.core.clock.now()).await?;
        self.core.replace(tenant_id).await;
        Ok(removed)
    }

    /// A tenant's own limits, expired ones included.
    ///
    /// # Errors
    /// The store's.
    pub async fn custom_quotas(&self, tenant_id: &TenantId) -> Result<Vec<Override>> {
        Ok(self.core.store.tenant_quotas(tenant_id).await?.overrides)
    }

    /// Puts a tenant on a plan of the catalogue, or back on the default one.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `plan` if the catalogue has none of this name; the store's.
    pub async fn assign_plan(&self, tenant_id: &TenantId, plan: Option<&str>) -> Result<()> {
        let catalogue = self.core.catalogue();
        let name = plan.map(|name| catalogue.plan(name)).transpose()?.map(|plan| plan.name().clone());
        self.core.store.set_plan(tenant_id, name.as_ref(), self.core.clock.now()).await?;
        self.core.replace(tenant_id).await;
        Ok(())
    }

    /// Gives a tenant a zone of its own, whose days and months its windows mean, or takes it away. What is used in a window
    /// of the new zone counts from the first decision on, and so does what is leased in one of the old.
    ///
    /// # Errors
    /// The store's.
    pub async fn set_zone(&self, tenant_id: &TenantId, zone: Option<Zone>) -> Result<()> {
        self.core.store.set_zone(tenant_id, zone, self.core.clock.now()).await?;
        self.core.replace(tenant_id).await;
        Ok(())
    }

    /// Puts other plans in force in this process, from the next decision on.
    pub fn replace_catalogue(&self, catalogue: Catalogue) {
        self.core.replace_catalogue(catalogue);
    }

    /// Calls of the store for units so far.
    pub fn round_trips(&self) -> u64 {
        self.core.round_trips.load(Ordering::Relaxed)
    }

    /// Operations that were allowed because the store could not be reached and the limit said so.
    pub fn allowed_unchecked(&self) -> u64 {
        self.core.allowed_unchecked.load(Ordering::Relaxed)
    }

    /// Admits nothing more from now on, and gives all units at hand back to the store, within a time; after an error it can be
    /// called again. Shut the tracker down first: units that its events settle are not at hand.
    ///
    /// # Errors
    /// [`ShutDown`](ErrorKind::ShutDown) if it has been done before; [`Unavailable`](ErrorKind::Unavailable) if units could
    /// not be given back: they count as forfeited until their windows end.
    pub async fn shutdown(&self, limit: Duration) -> Result<()> {
        self.core.close();
        self.keeping.stop.send_replace(true);
        let mut stage = self.keeping.stage.lock().await;
        if matches!(*stage, Stage::Over) {
            return Err(Error::new(ErrorKind::ShutDown, "the enforcer is already shut down"));
        }
        let ending = async {
            if let Stage::Running(task) = &mut *stage {
                let ended = task.await;
                *stage = Stage::Stopped;
                ended.map_err(|error| {
                    Error::new(ErrorKind::Misuse, "the enforcer's task failed").with_source(error)
                })?;
            }
            self.core.give_all_back().await
        };
        let overdue = |_| Error::new(ErrorKind::Unavailable, "units could not be given back in time");
        tokio::time::timeout(limit, ending).await.map_err(overdue)??;
        *stage = Stage::Over;
        Ok(())
    }

    /// The store, for those who do more with a change than make it.
    pub(crate) fn store(&self) -> &Arc<dyn Store> {
        &self.core.store
    }

    /// The plans in force.
    pub(crate) fn catalogue(&self) -> Arc<Catalogue> {
        self.core.catalogue()
    }

    /// The limit of a quota and kind of window that a tenant with these settings has; `None` if it has none, or its plan is
    /// not in the catalogue.
    pub(crate) fn limit_with(
        &self,
        tenant_id: &TenantId,
        settings: &TenantQuotas,
        quota: &Quota,
        window: Window,
    ) -> Option<(Allowed, LimitSource)> {
        let now = self.core.clock.now();
        let cell = self.core.resolve(&self.core.catalogue(), tenant_id, settings, now).ok()?;
        let mut slots = cell.slots_of(quota).map(|(_, slot)| slot);
        let slot = slots.find(|slot| slot.limit().window().as_str() == window.as_str())?;
        Some((slot.limit().allowed(), slot.source().clone()))
    }

    pub(super) fn core(&self) -> &Core {
        &self.core
    }

    /// Settles an event that no units were held for.
    pub(crate) fn settle_without_hold(&self, event: &UsageEvent) -> Option<Settling> {
        let cell = self.core.cell_at_hand(&event.tenant_id)?;
        Some(Settling::of(cell, &Takes::new(), event))
    }
}

impl QuotaEnforcerBuilder {
    /// The clock that windows are found by; the system's by default.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The zone whose days and months the windows of a tenant mean that has no zone of its own; UTC by default.
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// How old the hot path's idea of the time may be; 5 milliseconds by default. `None` reads the clock each time, which
    /// costs more than all the rest.
    pub fn tick(mut self, tick: Option<Duration>) -> Self {
        self.tick = tick;
        self
    }

    /// Keeps no units at hand: each request goes to the store. Requests of one tenant that meet share a call.
    pub fn direct(mut self) -> Self {
        self.settings.slices = false;
        self
    }

    /// Sells units again whose process no longer answers. They may have been spent by events that were lost with it, so a
    /// limit can be passed by these; the default is to count them as used until the window ends.
    pub fn reclaim(mut self) -> Self {
        self.settings.reclaim = true;
        self
    }

    /// How long a process answers for its slices without a sign of life; 30 seconds by default.
    pub fn slice_ttl(mut self, ttl: Duration) -> Self {
        self.settings.slice_ttl = ttl;
        self
    }

    /// How long the store may take before the limits' [`WhenUnavailable`](crate::quota::WhenUnavailable) decides; 5
    /// seconds by default.
    pub fn store_timeout(mut self, timeout: Duration) -> Self {
        self.settings.store_timeout = timeout;
        self
    }

    /// Starts the enforcer's background task on the current runtime.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) outside of a tokio runtime.
    pub fn start(self) -> Result<QuotaEnforcer> {
        let tick = self.tick.map_or(Tick::Read, |_| Tick::noted(&*self.clock));
        let core =
            Arc::new(Core::new(self.store, self.catalogue, self.clock, tick, self.zone, self.settings));
        let (stop, stopped) = watch::channel(false);
        let task = upkeep::spawn_keeper(Keeper::new(&core, self.tick, stopped))?;
        let keeping = Keeping { stop, stage: Mutex::new(Stage::Running(task)) };
        Ok(QuotaEnforcer { core, keeping: Arc::new(keeping) })
    }
}

/// A tenant's limits at hand. After the limits change it still works, by looking the tenant up each time; take a new one
/// now and then.
#[derive(Clone, Debug)]
pub struct TenantHandle {
    core: Arc<Core>,
    cell: Arc<Cell>,
}

impl TenantHandle {
    /// As [`QuotaEnforcer::enforce_multiple`].
    ///
    /// # Errors
    /// As [`QuotaEnforcer::enforce_multiple`].
    pub async fn enforce(&self, amounts: &[(Quota, u64)]) -> Result<Decision> {
        if let Some(decision) = self.core.decide_at_hand(&self.cell, amounts) {
            return Ok(decision);
        }
        self.core.decide_for(&self.cell.tenant_id, Some(Arc::clone(&self.cell)), amounts).await
    }

    /// Admits from the units at hand, without I/O and without waiting; `None` if they do not suffice, then ask
    /// [`enforce`](Self::enforce).
    pub fn try_enforce(&self, amounts: &[(Quota, u64)]) -> Option<Decision> {
        self.core.decide_at_hand(&self.cell, amounts)
    }

    /// As [`try_enforce`](Self::try_enforce), for work that ends before the handle goes: one that is dropped again costs
    /// half.
    #[inline]
    pub fn try_hold(&self, amounts: &[(Quota, u64)]) -> Option<HoldRef<'_>> {
        self.cell.try_take_ref(self.core.now_us(), amounts)
    }
}

/// How all limits of a tenant stand.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
pub struct QuotaStatus {
    /// The tenant's plan.
    pub plan: Label,
    /// Its limits.
    pub limits: Vec<LimitView>,
    /// Whether one of them is used up.
    pub any_exceeded: bool,
}

impl QuotaStatus {
    /// Of each quota the limit that is nearest to its end: what a dashboard shows that has one line a quota.
    pub fn tightest(&self) -> Vec<&LimitView> {
        let mut tightest: Vec<&LimitView> = Vec::new();
        for limit in &self.limits {
            match tightest.iter_mut().find(|other| other.quota == limit.quota) {
                Some(other) if limit.percentage() > other.percentage() => *other = limit,
                Some(_) => {}
                None => tightest.push(limit),
            }
        }
        tightest
    }
}
