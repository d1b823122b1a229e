//! Settings of upkeep.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::runner::Planned;
use super::{Aggregation, Partitions, Pruning, Retention, Upkeep, UpkeepTask};
use crate::store::{Store, UpkeepStore};
use crate::text::Label;
use crate::time::{Clock, SystemClock};
use crate::{Error, Result};

/// Settings of [`Upkeep`].
#[derive(Debug)]
#[must_use]
pub struct UpkeepBuilder {
    store: Arc<dyn UpkeepStore>,
    usage: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    owner: String,
    aggregation: Duration,
    days_ahead: u32,
    retention: Retention,
    tasks: Vec<Arc<dyn UpkeepTask>>,
}

impl UpkeepBuilder {
    pub(super) fn new<S: Store + UpkeepStore>(store: S) -> Self {
        let store = Arc::new(store);
        Self {
            usage: Arc::<S>::clone(&store),
            store,
            clock: Arc::new(SystemClock),
            owner: format!("{}-{}", std::process::id(), uuid::Uuid::new_v4().simple()),
            aggregation: Duration::from_secs(60),
            days_ahead: 7,
            retention: Retention::default(),
            tasks: Vec::new(),
        }
    }

    /// The clock that [`start`](Upkeep::start) goes by, and that runs are measured with; the system's by default.
    pub fn clock(mut self, clock: impl Clock + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// How this process is called in the records of runs; its process id and a random part by default.
    pub fn owner(mut self, owner: impl Into<String>) -> Self {
        self.owner = owner.into();
        self
    }

    /// How often what was recorded is folded into the metrics; every minute by default. Trackers do it every second on their
    /// own: this is for processes that have none, and to know that it was done.
    pub fn aggregation_interval(mut self, interval: Duration) -> Self {
        self.aggregation = interval;
        self
    }

    /// For how many days partitions are made ahead, 1 to 366; 7 by default. Without them an append makes its own.
    pub fn days_ahead(mut self, days: u32) -> Self {
        self.days_ahead = days;
        self
    }

    /// How long things are kept. By default everything is, but for quota rows and records of runs.
    pub fn retention(mut self, retention: Retention) -> Self {
        self.retention = retention;
        self
    }

    /// One task more: the host's own, or one of this crate's that is not always wanted.
    pub fn task(mut self, task: impl UpkeepTask) -> Self {
        self.tasks.push(Arc::new(task));
        self
    }

    /// The upkeep, which does nothing by itself.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `owner`, `days_ahead`, `retention` or `task`, if a name is none or
    /// two tasks have the same.
    pub fn build(self) -> Result<Upkeep> {
        if !(1..=366).contains(&self.days_ahead) {
            return Err(Error::invalid("days_ahead", format!("must be in 1 to 366, is {}", self.days_ahead)));
        }
        self.retention.check()?;
        let own: [Arc<dyn UpkeepTask>; 3] = [
            Arc::new(Aggregation::new(self.usage, self.aggregation)),
            Arc::new(Partitions::new(Arc::clone(&self.store), self.days_ahead)),
            Arc::new(Pruning::new(Arc::clone(&self.store), self.retention)),
        ];
        let mut tasks: Vec<Planned> = Vec::new();
        for task in own.into_iter().chain(self.tasks) {
            let name = Label::new("task", task.name())?;
            if tasks.iter().any(|planned| planned.name == name) {
                return Err(Error::invalid("task", format!("two tasks are called {name}")));
            }
            tasks.push(Planned { name, task });
        }
        Ok(Upkeep {
            store: self.store,
            clock: self.clock,
            owner: Label::new("owner", self.owner)?,
            tasks: tasks.into(),
            done: Arc::new(Mutex::new(BTreeMap::new())),
        })
    }
}
