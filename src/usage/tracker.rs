//! The face of usage metering.

use std::fmt::Debug;
use std::num::NonZeroU32;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cost::{PriceBook, Unpriced};
use crate::page::Page;
use crate::quota::{Hold, QuotaEnforcer, Reconcile, Reconciliation, Settling};
use crate::store::{APPEND_EVENTS_MAX, Store};
use crate::time::timer::{Instant, after};
use crate::time::{Clock, Period, SystemClock, TimeRange, Zone};
use crate::upkeep::{self, RollUp};
use crate::usage::buffer::Buffer;
use crate::usage::flusher::{Flusher, Tally};
use crate::usage::{
    Ack, Consumer, EventQuery, EventType, FlushPolicy, Health, Measure, Operation, Outcome, Overflow,
    ShutdownReport, TopConsumersQuery, UNPRICED_CEILING_MEASURE, UsageEvent, UsagePeriod, UsageSummary,
};
use crate::{Error, ErrorKind, Result, TenantId};

/// How long a tracker that is dropped without a shutdown goes on writing what it has.
const DROP_DRAIN: Duration = Duration::from_secs(30);

/// Records what operations use and answers questions about it. Clones share one buffer and one set of background tasks.
///
/// ```
/// use metertrail::{EventType, Measure, MemoryStore, Period, TenantId, TokenUsage, UsageTracker};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let tracker = UsageTracker::start(MemoryStore::new())?;
/// let tenant = TenantId::new("acme")?;
///
/// tracker.track(&tenant, EventType::ChatMessage).record_success(TokenUsage::reported(374, 44)?).await?;
/// tracker.track(&tenant, EventType::Search).record_failure("index is down", TokenUsage::NONE).await?;
///
/// let today = tracker.usage_today(&tenant).await?;
/// assert_eq!((today.metrics.calls, today.metrics.failures, today.metrics.tokens_total()), (2, 1, 418));
///
/// let top = tracker.top_consumers(Measure::Tokens, Period::Month, 10).await?;
/// assert_eq!(top[0].tenant_id, tenant);
///
/// let report = tracker.shutdown(std::time::Duration::from_secs(5)).await?;
/// assert_eq!((report.written, report.unwritten.len()), (2, 0));
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct UsageTracker {
    handle: Arc<Handle>,
}

impl UsageTracker {
    /// A tracker with the default settings.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) outside of a tokio runtime.
    pub fn start(store: impl Store) -> Result<Self> {
        Self::builder(store).start()
    }

    /// A tracker with other settings.
    pub fn builder(store: impl Store) -> UsageTrackerBuilder {
        UsageTrackerBuilder {
            store: Arc::new(store),
            clock: Arc::new(SystemClock),
            zone: Zone::UTC,
            flush: FlushPolicy::default(),
            buffer_events_max: 100_000,
            overflow: Overflow::default(),
            quotas: None,
            prices: None,
            append_timeout: Duration::from_secs(30),
            roll_up_interval: Duration::from_secs(1),
        }
    }

    /// Begins an operation of a tenant. Costs no I/O.
    pub fn track(&self, tenant_id: &TenantId, event_type: impl Into<EventType>) -> Operation {
        let clock = &self.handle.clock;
        let event =
            UsageEvent::started(tenant_id.clone(), event_type.into(), Outcome::Abandoned, clock.now());
        Operation::start(Arc::clone(&self.handle), event, clock.monotonic())
    }

    /// Records an event that was made elsewhere, for example one that is imported or comes from a queue.
    ///
    /// If it has no cost and the tracker has [`prices`](UsageTrackerBuilder::prices), it is priced.
    pub fn record(&self, mut event: UsageEvent) -> Ack {
        self.handle.price(&mut event, None);
        Handle::record(&self.handle, event, None)
    }

    /// What the tenant used today, in the tracker's zone: every acknowledged event, also of this instant.
    ///
    /// # Errors
    /// The store's.
    pub async fn usage_today(&self, tenant_id: &TenantId) -> Result<UsagePeriod> {
        let today = Period::Day.range_at(self.handle.clock.now(), self.handle.zone);
        let metrics = self.handle.store.usage(tenant_id, &[today]).await?.pop();
        Ok(UsagePeriod::new(today, metrics.unwrap_or_default()))
    }

    /// What the tenant used in each period that the range touches, in the tracker's zone, empty ones included. Periods
    /// are whole: the first and the last reach beyond a range that begins or ends inside of them.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `range` if it has more than
    /// [`PERIODS_MAX`](crate::time::PERIODS_MAX) periods; the store's.
    pub async fn usage_history(
        &self,
        tenant_id: &TenantId,
        range: TimeRange,
        period: Period,
    ) -> Result<Vec<UsagePeriod>> {
        self.usage_history_in(tenant_id, range, period, self.handle.zone).await
    }

    /// As [`usage_history`](Self::usage_history), in another zone.
    ///
    /// # Errors
    /// As [`usage_history`](Self::usage_history).
    pub async fn usage_history_in(
        &self,
        tenant_id: &TenantId,
        range: TimeRange,
        period: Period,
        zone: Zone,
    ) -> Result<Vec<UsagePeriod>> {
        let periods = period.ranges(range, zone)?;
        let metrics = self.handle.store.usage(tenant_id, &periods).await?;
        Ok(periods
            .into_iter()
            .zip(metrics)
            .map(|(range, metrics)| UsagePeriod::new(range, metrics))
            .collect())
    }

    /// The tenants that used most in the current period, in the tracker's zone.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `limit` if it is not in 1 to 1,000; the store's.
    pub async fn top_consumers(&self, measure: Measure, period: Period, limit: u16) -> Result<Vec<Consumer>> {
        self.top_consumers_in(measure, self.current(period), limit).await
    }

    /// The tenants that used most in a range that begins and ends on a quarter hour.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `limit`, `start` or `end`; the store's.
    pub async fn top_consumers_in(
        &self,
        measure: Measure,
        range: TimeRange,
        limit: u16,
    ) -> Result<Vec<Consumer>> {
        self.handle.store.top_consumers(&TopConsumersQuery::new(measure, range, limit)?).await
    }

    /// What all tenants did together in the current period, in the tracker's zone.
    ///
    /// # Errors
    /// The store's.
    pub async fn summary(&self, period: Period) -> Result<UsageSummary> {
        self.summary_in(self.current(period)).await
    }

    /// What all tenants did together in a range that begins and ends on a quarter hour.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `start` or `end`; the store's.
    pub async fn summary_in(&self, range: TimeRange) -> Result<UsageSummary> {
        self.handle.store.summary(range).await
    }

    /// Holds what is kept of a tenant against its events, and mends it if told to: see [`Store::reconcile`]. For many
    /// tenants there is [`reconcile_page`](crate::store::reconcile_page).
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `start`, `end` or `range`; the store's.
    pub async fn reconcile(
        &self,
        tenant_id: &TenantId,
        range: TimeRange,
        mode: Reconcile,
    ) -> Result<Reconciliation> {
        self.handle.store.reconcile(tenant_id, range, mode).await
    }

    /// The store, for those who do more with a repair than make it.
    pub(crate) fn store(&self) -> &dyn Store {
        &*self.handle.store
    }

    /// A page of one tenant's events, newest first.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `cursor` if it comes from another query; the store's.
    pub async fn events(&self, query: &EventQuery) -> Result<Page<UsageEvent>> {
        self.handle.store.events(query).await
    }

    /// How the tracker is doing.
    pub fn health(&self) -> Health {
        let Handle { buffer, tally, .. } = &*self.handle;
        Health {
            pending: buffer.pending(),
            written: tally.written.load(Ordering::Relaxed),
            duplicates: tally.duplicates.load(Ordering::Relaxed),
            conflicts: tally.conflicts.load(Ordering::Relaxed),
            rejected: tally.rejected.load(Ordering::Relaxed),
            dropped: buffer.dropped(),
            retries: tally.retries.load(Ordering::Relaxed),
            last_error: tally.last_error(),
        }
    }

    /// Takes no more events, writes what there is, for `limit` at most, and reports. To be called once, for all clones.
    ///
    /// # Errors
    /// [`ShutDown`](ErrorKind::ShutDown) if it was called before.
    ///
    /// # Cancel safety
    /// Dropped, the writing goes on in the background until the limit, but the report is lost.
    pub async fn shutdown(&self, limit: Duration) -> Result<ShutdownReport> {
        let handle = &self.handle;
        let task = handle.flusher.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task = task.ok_or_else(|| Error::new(ErrorKind::ShutDown, "the tracker is already shut down"))?;
        handle.stop(limit);
        let unwritten = task.await.map_err(|error| {
            Error::new(ErrorKind::Misuse, "the runtime ended the tracker's task").with_source(error)
        })?;
        let health = self.health();
        Ok(ShutdownReport {
            written: health.written,
            duplicates: health.duplicates,
            conflicts: health.conflicts,
            dropped: health.dropped,
            rejected: handle.tally.take_rejected(),
            unwritten,
        })
    }

    fn current(&self, period: Period) -> TimeRange {
        period.range_at(self.handle.clock.now(), self.handle.zone)
    }
}

/// What all clones, operations and acknowledgements of one tracker share. When the last goes, the tasks drain and end.
#[derive(Debug)]
pub(crate) struct Handle {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    zone: Zone,
    overflow: Overflow,
    quotas: Option<QuotaEnforcer>,
    prices: Option<PriceBook>,
    buffer: Arc<Buffer>,
    tally: Arc<Tally>,
    stop: watch::Sender<Option<Instant>>,
    flusher: Mutex<Option<JoinHandle<Vec<UsageEvent>>>>,
}

impl Handle {
    pub(super) fn buffer(&self) -> &Buffer {
        &self.buffer
    }

    pub(super) fn clock(&self) -> &dyn Clock {
        &*self.clock
    }

    /// Finds the cost of an event that has none. What has no price either is charged to limits of cost that say so, at the
    /// ceiling of the price book.
    #[inline]
    pub(super) fn price(&self, event: &mut UsageEvent, hold: Option<&Hold>) {
        if let (Some(prices), None) = (&self.prices, event.cost)
            && !matches!(event.outcome, Outcome::RateLimited | Outcome::QuotaExceeded)
        {
            self.price_by(prices, event, hold);
        }
    }

    fn price_by(&self, prices: &PriceBook, event: &mut UsageEvent, hold: Option<&Hold>) {
        match prices.price(event) {
            Ok(price) => {
                event.cost = Some(price.cost);
                event.price_version = Some(price.version);
            }
            Err(Unpriced::NothingUsed) => {}
            Err(_) => {
                let counts = match hold {
                    Some(hold) => hold.counts_ceiling(),
                    None => {
                        self.quotas.as_ref().is_some_and(|quotas| quotas.counts_ceiling(&event.tenant_id))
                    }
                };
                if let Some(ceiling) = counts.then(|| prices.ceiling_of(&event.tokens)).flatten() {
                    let measures = event.measures.clone().with(UNPRICED_CEILING_MEASURE, ceiling);
                    event.measures = measures.unwrap_or_else(|_| event.measures.clone());
                }
            }
        }
    }

    /// Puts an event into the buffer. Never waits.
    pub(super) fn record(handle: &Arc<Self>, event: UsageEvent, hold: Option<Hold>) -> Ack {
        let id = event.id();
        let settling = match hold {
            Some(hold) => Some(hold.settle(&event)),
            None => handle.quotas.as_ref().and_then(|quotas| quotas.settle_without_hold(&event)),
        };
        let undo = |settling: Option<Settling>| settling.iter().for_each(Settling::undo);
        match handle.buffer.try_room() {
            Some(room) => match handle.buffer.push(room, event, settling) {
                Ok((segment, index)) => Ack::accepted(id, Arc::clone(handle), segment, index),
                Err(error) => Ack::refused(id, error),
            },
            None if handle.buffer.is_closed() => {
                undo(settling);
                Ack::refused(id, Buffer::shut_down())
            }
            None if handle.overflow == Overflow::Wait => Ack::waiting(Arc::clone(handle), event, settling),
            None => {
                undo(settling);
                handle.buffer.count_dropped();
                Ack::refused(id, Error::new(ErrorKind::BufferFull, "the usage buffer is full"))
            }
        }
    }

    fn stop(&self, limit: Duration) {
        self.buffer.close();
        self.stop.send_replace(Some(after(limit)));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.flusher.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.stop(DROP_DRAIN);
        }
    }
}

/// Settings of a [`UsageTracker`].
#[derive(Clone, Debug)]
#[must_use]
pub struct UsageTrackerBuilder {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    zone: Zone,
    flush: FlushPolicy,
    buffer_events_max: u32,
    overflow: Overflow,
    quotas: Option<QuotaEnforcer>,
    prices: Option<PriceBook>,
    append_timeout: Duration,
    roll_up_interval: Duration,
}

impl UsageTrackerBuilder {
    /// The clock that operations are timed by; the system's by default.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// The zone whose days, months and hours the queries mean; UTC by default.
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// When the buffer is written.
    pub fn flush(mut self, flush: FlushPolicy) -> Self {
        self.flush = flush;
        self
    }

    /// How many events may wait at most, those on their way to the store included; 100,000 by default.
    pub fn buffer_events_max(mut self, events: NonZeroU32) -> Self {
        self.buffer_events_max = events.get();
        self
    }

    /// What happens to an event that finds the buffer full.
    pub fn overflow(mut self, overflow: Overflow) -> Self {
        self.overflow = overflow;
        self
    }

    /// The enforcer of the same store, so that what is recorded without a hold also counts against the units at hand at
    /// once. (In the store it counts in any case.)
    pub fn quotas(mut self, quotas: &QuotaEnforcer) -> Self {
        self.quotas = Some(quotas.clone());
        self
    }

    /// The prices by which events get a cost that come without one, at the prices of the time when they started. Without
    /// them a cost is what the caller says.
    pub fn prices(mut self, prices: &PriceBook) -> Self {
        self.prices = Some(prices.clone());
        self
    }

    /// How long one attempt to write a batch may take before it is tried again; 30 seconds by default.
    pub fn append_timeout(mut self, timeout: Duration) -> Self {
        self.append_timeout = timeout;
        self
    }

    /// How often what was appended is rolled up; every second by default. Queries are exact whatever it is.
    pub fn roll_up_interval(mut self, interval: Duration) -> Self {
        self.roll_up_interval = interval;
        self
    }

    /// Starts the tracker's background tasks on the current runtime.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) outside of a tokio runtime; [`InvalidInput`](ErrorKind::InvalidInput) on
    /// `flush.events` or `flush.concurrency` if they are out of range.
    pub fn start(self) -> Result<UsageTracker> {
        if !(1..=APPEND_EVENTS_MAX).contains(&self.flush.events) {
            let rule = format!("must be in 1 to {APPEND_EVENTS_MAX}, is {}", self.flush.events);
            return Err(Error::invalid("flush.events", rule));
        }
        if self.flush.concurrency == 0 {
            return Err(Error::invalid("flush.concurrency", "must be at least 1"));
        }
        let buffer_events_max = usize::try_from(self.buffer_events_max)
            .map_err(|_| Error::invalid("buffer_events_max", "is more than this machine can count"))?;
        let buffer = Arc::new(Buffer::new(buffer_events_max, self.flush.events, self.flush.age));
        let tally = Arc::new(Tally::default());
        let (stop, stopped) = watch::channel(None);
        let flusher = Flusher {
            store: Arc::clone(&self.store),
            buffer: Arc::clone(&buffer),
            tally: Arc::clone(&tally),
            policy: self.flush,
            append_timeout: self.append_timeout,
            stop: stopped.clone(),
        };
        let roll_up =
            RollUp { store: Arc::clone(&self.store), interval: self.roll_up_interval, stop: stopped };
        let flusher = upkeep::spawn(flusher, roll_up)?;
        let handle = Handle {
            store: self.store,
            clock: self.clock,
            zone: self.zone,
            overflow: self.overflow,
            quotas: self.quotas,
            prices: self.prices,
            buffer,
            tally,
            stop,
            flusher: Mutex::new(Some(flusher)),
        };
        Ok(UsageTracker { handle: Arc::new(handle) })
    }
}
