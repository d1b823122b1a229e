//! What looks at the service and says what is wrong with it.

use std::fmt::Debug;

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::Result;
use crate::alert::{AggregationBacklog, Breach, Observation, QuotaWindows, Severity, TenantCheck, Timing};
use crate::store::{ALERT_BATCH_MAX, AlertStore, Store};
use crate::text::Label;

/// How far a rule sees.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Reach {
    /// It sees everything that there is, whatever process it is asked in: what it does not speak of is calm.
    #[default]
    Store,
    /// It sees the process that it is asked in. Each process has incidents of its own, whose subject is the engine's
    /// [`instance`](crate::alert::AlertEngineBuilder::instance); what a rule gives as a subject is not kept.
    Process,
}

/// A rule: what to look at, and when it is wrong. Write your own by implementing this.
///
/// ```
/// use async_trait::async_trait;
/// use metertrail::alert::{AlertEngine, AlertRule, AlertView, Level, Observation, Severity};
/// use metertrail::time::{Clock, Period, SystemClock, Zone};
/// use metertrail::{Label, MemoryStore, Result};
/// use std::sync::Arc;
///
/// /// Nobody did anything for a whole hour.
/// #[derive(Debug)]
/// struct NoTraffic {
///     name: Label,
/// }
///
/// #[async_trait]
/// impl AlertRule for NoTraffic {
///     fn name(&self) -> &Label {
///         &self.name
///     }
///
///     fn severity(&self) -> Severity {
///         Severity::Critical
///     }
///
///     fn unit(&self) -> &'static str {
///         "calls"
///     }
///
///     async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
///         let hour = Period::Hour.range_at(view.now() - chrono::TimeDelta::hours(1), Zone::UTC);
///         let calls = view.store().summary(hour).await?.calls;
///         let level = if calls == 0 { Level::Breach } else { Level::Calm };
///         Ok(vec![Observation::new(level, calls.into(), 1.into())])
///     }
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let rule = NoTraffic { name: Label::new("rule", "no_traffic")? };
/// let engine = AlertEngine::builder(Arc::new(MemoryStore::new())).rule(rule).build()?;
/// let report = engine.run(SystemClock.now()).await?;
/// assert_eq!(report.fired, 1);
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[async_trait]
pub trait AlertRule: Debug + Send + Sync + 'static {
    /// Its name, by which incidents and silences know it. Of two rules with one name an engine keeps the later.
    fn name(&self) -> &Label;

    /// How bad it is when it fires.
    fn severity(&self) -> Severity;

    /// The unit of its values: a short word, such as `ms` or `percent`.
    fn unit(&self) -> &'static str;

    /// When it is asked, and how long what it says must hold.
    fn timing(&self) -> Timing {
        Timing::default()
    }

    /// How far it sees.
    fn reach(&self) -> Reach {
        Reach::Store
    }

    /// Looks, and says what is not calm; of other things it may speak or not. Of a tenant and subject that it names twice the
    /// worse counts.
    ///
    /// # Errors
    /// Whatever it meets. Nothing is then taken to be calm or otherwise, and it is asked again after its interval.
    ///
    /// # Cancel safety
    /// It is dropped when it takes too long.
    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>>;
}

/// One number about the process, such as how many events wait in its buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Reading {
    /// What it is, with its unit at the end: `spool_bytes`, say.
    pub name: &'static str,
    /// How much.
    pub value: Decimal,
}

impl Reading {
    /// A number.
    pub fn new(name: &'static str, value: impl Into<Decimal>) -> Self {
        Self { name, value: value.into() }
    }
}

/// What has numbers about the process that rules may look at.
#[async_trait]
pub trait HealthSource: Debug + Send + Sync + 'static {
    /// The numbers as they are now. Counts only grow.
    ///
    /// # Errors
    /// Whatever it meets.
    async fn readings(&self, now: DateTime<Utc>) -> Result<Vec<Reading>>;
}

/// What rules see.
#[derive(Debug)]
pub struct AlertView<'a> {
    pub(super) now: DateTime<Utc>,
    pub(super) store: &'a dyn Store,
    pub(super) alerts: &'a dyn AlertStore,
    pub(super) readings: &'a [Reading],
}

impl AlertView<'_> {
    /// When they look.
    pub fn now(&self) -> DateTime<Utc> {
        self.now
    }

    /// What usage there is, and what tenants were assigned.
    pub fn store(&self) -> &dyn Store {
        self.store
    }

    /// What incidents there are.
    pub fn alerts(&self) -> &dyn AlertStore {
        self.alerts
    }

    /// The first number of this name, if there is one.
    pub fn reading(&self, name: &str) -> Option<Decimal> {
        self.readings.iter().find(|reading| reading.name == name).map(|reading| reading.value)
    }

    /// All tenants that a check finds.
    ///
    /// # Errors
    /// As [`AlertStore::breaches`].
    pub async fn breaches(&self, check: &TenantCheck) -> Result<Vec<Breach>> {
        let mut all: Vec<Breach> = Vec::new();
        loop {
            let after = all.last().map(|last| &last.tenant_id);
            let page = self.alerts.breaches(check, after, ALERT_BATCH_MAX).await?;
            let is_last = page.len() < usize::try_from(ALERT_BATCH_MAX).unwrap_or(usize::MAX);
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// What limits there are beside those of plans.
    ///
    /// # Errors
    /// The store's.
    pub async fn quota_windows(&self) -> Result<QuotaWindows> {
        self.alerts.quota_windows(self.now).await
    }

    /// What is left to be aggregated.
    ///
    /// # Errors
    /// The store's.
    pub async fn aggregation_backlog(&self) -> Result<AggregationBacklog> {
        self.alerts.aggregation_backlog().await
    }
}
