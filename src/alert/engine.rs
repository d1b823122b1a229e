//! Evaluates rules and tells what came of it.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};

use crate::alert::builder::{AlertEngineBuilder, Settings};
use crate::alert::sink::AlertSink;
use crate::alert::{
    AlertReport, AlertRule, DeadLetter, HealthSource, Incident, IncidentId, IncidentQuery, Notification,
    NotificationKey, NotificationKind, Severity, Silence, SilenceId,
};
use crate::page::Page;
use crate::store::{ALERT_BATCH_MAX, AlertStore, Store};
use crate::text::Label;
use crate::{Error, ErrorKind, Result, TenantId};

/// How often old incidents are looked for.
const FORGET_EVERY: TimeDelta = TimeDelta::hours(1);

/// Evaluates rules, keeps incidents, and tells sinks of them. Clones share everything.
///
/// Any number of processes run one, at the same time or not: each rule is evaluated once an interval by one of them, each
/// incident is told once to each sink, and what a process that dies has taken up another one takes over. It has no task of its
/// own: something calls [`run`](Self::run), more often than the shortest interval of a rule.
///
/// ```
/// use metertrail::alert::{AlertEngine, IncidentQuery, LogSink};
/// use metertrail::time::{Clock, SystemClock};
/// use metertrail::{EventType, Label, MemoryStore, TenantId, UsageTracker};
/// use std::sync::Arc;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = Arc::new(MemoryStore::new());
/// let engine = AlertEngine::builder(Arc::clone(&store)).sink(Label::new("sink", "log")?, LogSink).build()?;
///
/// let tracker = UsageTracker::start(store)?;
/// tracker.track(&TenantId::new("acme")?, EventType::ChatMessage).record_quota_exceeded().await?;
///
/// let report = engine.run(SystemClock.now()).await?;
/// assert_eq!((report.fired, report.delivered), (1, 1));
/// let page = engine.incidents(&IncidentQuery::new()).await?;
/// assert_eq!(page.items[0].rule.as_str(), "quota_exceeded");
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct AlertEngine {
    pub(super) inner: Arc<Inner>,
}

/// What clones share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) store: Arc<dyn Store>,
    pub(super) alerts: Arc<dyn AlertStore>,
    pub(super) rules: Vec<Arc<dyn AlertRule>>,
    pub(super) outlets: Vec<Outlet>,
    pub(super) health: Vec<Arc<dyn HealthSource>>,
    pub(super) instance: Label,
    pub(super) settings: Settings,
}

/// Which incidents a sink is told of.
pub(super) type Filter = Arc<dyn Fn(&Incident) -> bool + Send + Sync>;

/// A sink, its name, and what it wants to hear of.
#[derive(Clone)]
pub(super) struct Outlet {
    pub(super) name: Label,
    pub(super) sink: Arc<dyn AlertSink>,
    pub(super) wants: Filter,
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet").field("name", &self.name).field("sink", &self.sink).finish_non_exhaustive()
    }
}

impl AlertEngine {
    /// An engine over a store, with the five rules of the mission, and no sinks.
    pub fn builder<S: Store + AlertStore>(store: Arc<S>) -> AlertEngineBuilder {
        let (store, alerts): (Arc<dyn Store>, Arc<dyn AlertStore>) = (Arc::<S>::clone(&store), store);
        AlertEngineBuilder::new(store, alerts)
    }

    /// Evaluates the rules whose turn it is, resolves incidents that no rule has spoken of for long, delivers what is due, and
    /// forgets what is old. Safe to be called at any time, twice, late, and by any number of processes at once.
    ///
    /// # Errors
    /// The store's, where nothing could be done about it. A rule that fails is in the report and keeps the others from nothing.
    ///
    /// # Cancel safety
    /// Dropped, it leaves whole steps: incidents with their notifications, and notifications that are taken up again when
    /// their lease has ended.
    pub async fn run(&self, now: DateTime<Utc>) -> Result<AlertReport> {
        let mut report = self.evaluate(now).await?;
        self.deliver_into(&mut report, now).await?;
        self.forget_into(&mut report, now).await?;
        Ok(report)
    }

    /// Only the first half of a [`run`](Self::run): evaluates, and delivers nothing.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn evaluate(&self, now: DateTime<Utc>) -> Result<AlertReport> {
        let mut report = AlertReport::default();
        self.evaluate_into(&mut report, now).await?;
        self.sweep_into(&mut report, now).await?;
        Ok(report)
    }

    /// Only the second half of a [`run`](Self::run): delivers what is due.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn deliver(&self, now: DateTime<Utc>) -> Result<AlertReport> {
        let mut report = AlertReport::default();
        self.deliver_into(&mut report, now).await?;
        Ok(report)
    }

    /// Sends a notification that says that it is a test, about a made-up incident, to one sink. Nothing is stored and nothing
    /// is tried twice.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `sink` if there is none of this name; the sink's.
    pub async fn test_fire(&self, sink: &str, now: DateTime<Utc>) -> Result<()> {
        let unknown = || Error::invalid("sink", format!("there is none of this name: {sink:?}"));
        let outlet =
            self.inner.outlets.iter().find(|outlet| outlet.name.as_str() == sink).ok_or_else(unknown)?;
        let (rule, unit) = (Label::new("rule", "test")?, Label::new("unit", "tests")?);
        let measured = (1.into(), 0.into(), unit);
        let incident = Incident::opened(None, rule, None, Severity::Info, measured, now);
        let key = NotificationKey {
            tenant_id: None,
            incident_id: incident.id,
            kind: NotificationKind::Test,
            sink: outlet.name.clone(),
        };
        self.attempt(outlet, &Notification::new(key, incident, 1), now).await
    }

    /// A page of incidents, newest first.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `cursor` if it comes from another query; the store's.
    pub async fn incidents(&self, query: &IncidentQuery) -> Result<Page<Incident>> {
        self.inner.alerts.incidents(query).await
    }

    /// Notes who has taken up an incident; the first one stays.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `incident_id` if the tenant has no such incident; the store's.
    pub async fn acknowledge(
        &self,
        tenant_id: Option<&TenantId>,
        id: IncidentId,
        by: &Label,
        now: DateTime<Utc>,
    ) -> Result<Incident> {
        let found = self.inner.alerts.acknowledge(tenant_id, id, by, now).await?;
        found.ok_or_else(|| Error::invalid("incident_id", "there is no such incident"))
    }

    /// Keeps a silence.
    ///
    /// # Errors
    /// The store's.
    pub async fn silence(&self, silence: &Silence) -> Result<()> {
        self.inner.alerts.put_silence(silence).await
    }

    /// Ends a silence before its time; says whether it was in force or still to come.
    ///
    /// # Errors
    /// The store's.
    pub async fn end_silence(&self, id: SilenceId, now: DateTime<Utc>) -> Result<bool> {
        self.inner.alerts.end_silence(id, now).await
    }

    /// The silences that are in force or still to come.
    ///
    /// # Errors
    /// The store's.
    pub async fn silences(&self, now: DateTime<Utc>) -> Result<Vec<Silence>> {
        self.inner.alerts.silences(now).await
    }

    /// Notifications that were given up, at most 1,000, after one of them.
    ///
    /// # Errors
    /// The store's.
    pub async fn dead_letters(&self, after: Option<&NotificationKey>) -> Result<Vec<DeadLetter>> {
        self.inner.alerts.dead_letters(after, ALERT_BATCH_MAX).await
    }

    /// Has a notification that was given up tried anew by the next run; says whether there was such a one.
    ///
    /// # Errors
    /// The store's.
    pub async fn redrive(&self, key: &NotificationKey, now: DateTime<Utc>) -> Result<bool> {
        self.inner.alerts.redrive(key, now).await
    }

    async fn forget_into(&self, report: &mut AlertReport, now: DateTime<Utc>) -> Result<()> {
        let turn = self.inner.alerts.begin_evaluation("forget resolved incidents", now, FORGET_EVERY).await?;
        let Some(before) = turn.and(before(now, self.inner.settings.keep_resolved)) else {
            return Ok(());
        };
        report.forgotten += self.inner.alerts.forget_incidents(before, ALERT_BATCH_MAX).await?;
        Ok(())
    }
}

/// So long before an instant, if there is such a time.
pub(super) fn before(now: DateTime<Utc>, duration: std::time::Duration) -> Option<DateTime<Utc>> {
    now.checked_sub_signed(TimeDelta::from_std(duration).ok()?)
}

/// The work of somebody else's code, for so long at most, and with its panics caught.
pub(super) async fn guarded<T>(
    what: &str,
    limit: std::time::Duration,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    use futures_util::FutureExt;
    let work = std::panic::AssertUnwindSafe(work).catch_unwind();
    match tokio::time::timeout(limit, work).await {
        Ok(Ok(done)) => done,
        Ok(Err(_panic)) => Err(Error::new(ErrorKind::Unavailable, format!("{what} panicked"))),
        Err(_) => Err(Error::new(ErrorKind::Unavailable, format!("{what} took longer than {limit:?}"))),
    }
}
