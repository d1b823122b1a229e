//! Settings of the audit log, and its start.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;

use crate::audit::log::Handle;
use crate::audit::queue::Queue;
use crate::audit::sampler::Sampler;
use crate::audit::sealer::Sealer;
use crate::audit::vault::Vault;
use crate::audit::writer::{Tally, Writer};
use crate::audit::{
    AUDIT_BATCH_EVENTS_MAX, Anchor, AuditKeys, AuditLog, AuditType, NoKeys, Origin, WriterChain,
};
use crate::store::AuditStore;
use crate::time::{Clock, SystemClock};
use crate::upkeep;
use crate::{Error, Result};

/// Settings of an [`AuditLog`].
#[derive(Clone, Debug)]
#[must_use]
pub struct AuditLogBuilder {
    store: Arc<dyn AuditStore>,
    keys: Arc<dyn AuditKeys>,
    clock: Arc<dyn Clock>,
    anchors: Vec<Arc<dyn Anchor>>,
    origin: Origin,
    one_in: HashMap<AuditType, NonZeroU32>,
    batch_events: usize,
    batch_age: Duration,
    queue_events_max: u32,
    append_timeout: Duration,
    seal_interval: Option<Duration>,
}

impl AuditLogBuilder {
    pub(super) fn new(store: Arc<dyn AuditStore>) -> Self {
        Self {
            store,
            keys: Arc::new(NoKeys),
            clock: Arc::new(SystemClock),
            anchors: Vec::new(),
            origin: Origin::default(),
            one_in: HashMap::new(),
            batch_events: 1_000,
            batch_age: Duration::from_millis(50),
            queue_events_max: 100_000,
            append_timeout: Duration::from_secs(30),
            seal_interval: Some(Duration::from_secs(10)),
        }
    }

    /// Where the keys come from; none by default.
    pub fn keys(mut self, keys: impl AuditKeys) -> Self {
        self.keys = Arc::new(keys);
        self
    }

    /// The clock that events and seals are dated by; the system's by default.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// One place more that is told of every checkpoint.
    pub fn anchor(mut self, anchor: impl Anchor) -> Self {
        self.anchors.push(Arc::new(anchor));
        self
    }

    /// The name of the trail, the same for all of its writers and sealers and never changed; it should be one that nobody else
    /// uses: a domain and a path. `metertrail/audit` by default.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = origin;
        self
    }

    /// Keeps one in so many events of a chatty type, for each tenant; what is kept says for how many it stands, and the last
    /// before the shutdown is kept as well, so that counts add up (a crash loses what was left out since the last that was
    /// kept). Security and privacy events and what did not succeed are always kept.
    pub fn sample(mut self, event_type: AuditType, one_in: NonZeroU32) -> Self {
        self.one_in.insert(event_type, one_in);
        self
    }

    /// How many events are written and sealed together at most; 1,000 by default, 1 to 10,000.
    pub fn batch_events(mut self, events: usize) -> Self {
        self.batch_events = events;
        self
    }

    /// How long an event waits for others at most; 50 milliseconds by default. What is awaited does not wait.
    pub fn batch_age(mut self, age: Duration) -> Self {
        self.batch_age = age;
        self
    }

    /// How many events may wait at most, those on their way to the store included; 100,000 by default.
    pub fn queue_events_max(mut self, events: NonZeroU32) -> Self {
        self.queue_events_max = events.get();
        self
    }

    /// How long one attempt to write a batch may take before it is tried again; 30 seconds by default.
    pub fn append_timeout(mut self, timeout: Duration) -> Self {
        self.append_timeout = timeout;
        self
    }

    /// How often an epoch is sealed; every 10 seconds by default. `None` leaves it to [`AuditLog::seal_epoch`].
    pub fn seal_interval(mut self, interval: Option<Duration>) -> Self {
        self.seal_interval = interval;
        self
    }

    /// Starts the log's background tasks on the current runtime.
    ///
    /// # Errors
    /// [`Misuse`](crate::ErrorKind::Misuse) outside of a tokio runtime; [`InvalidInput`](crate::ErrorKind::InvalidInput) on
    /// `batch_events`.
    pub fn start(self) -> Result<AuditLog> {
        if !(1..=AUDIT_BATCH_EVENTS_MAX).contains(&self.batch_events) {
            let rule = format!("must be in 1 to {AUDIT_BATCH_EVENTS_MAX}, is {}", self.batch_events);
            return Err(Error::invalid("batch_events", rule));
        }
        let queue_events_max = usize::try_from(self.queue_events_max)
            .map_err(|_| Error::invalid("queue_events_max", "is more than this machine can count"))?;
        let queue = Arc::new(Queue::new(queue_events_max, self.batch_events, self.batch_age));
        let tally = Arc::new(Tally::default());
        let vault = Vault { store: Arc::clone(&self.store), keys: Arc::clone(&self.keys) };
        let (stop, stopped) = watch::channel(None);
        let writer = Writer {
            vault: vault.clone(),
            clock: Arc::clone(&self.clock),
            queue: Arc::clone(&queue),
            tally: Arc::clone(&tally),
            append_timeout: self.append_timeout,
            stop: stopped.clone(),
            chain: WriterChain::new(self.origin.clone()),
            parts: Vec::new(),
        };
        let sealer = Sealer {
            store: Arc::clone(&self.store),
            keys: self.keys,
            clock: Arc::clone(&self.clock),
            tally: Arc::clone(&tally),
            anchors: self.anchors,
            anchored: Arc::default(),
            origin: self.origin,
            turn: Arc::default(),
            seen: Arc::default(),
        };
        let sealing = self.seal_interval.map(|interval| sealer.clone().run(interval, stopped));
        let writer = upkeep::spawn_audit(writer, sealing)?;
        let handle = Handle {
            store: self.store,
            vault,
            clock: self.clock,
            queue,
            tally,
            sampler: Sampler::new(self.one_in),
            sealer,
            seals_by_itself: self.seal_interval.is_some(),
            stop,
            writer: Mutex::new(Some(writer)),
        };
        Ok(AuditLog::of(handle))
    }
}
