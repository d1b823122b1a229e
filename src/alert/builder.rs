//! Settings of an engine.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::alert::engine::{Inner, Outlet};
use crate::alert::rules::{AggregationOverdue, CostAnomaly, HighErrorRate, HighLatency, QuotaExceeded};
use crate::alert::sink::AlertSink;
use crate::alert::{AlertEngine, AlertRule, HealthSource, Incident};
use crate::store::{AlertStore, Store};
use crate::text::Label;
use crate::{Error, Result};

/// Settings of an [`AlertEngine`].
#[derive(Clone, Debug)]
#[must_use]
pub struct AlertEngineBuilder {
    store: Arc<dyn Store>,
    alerts: Arc<dyn AlertStore>,
    rules: Vec<Arc<dyn AlertRule>>,
    has_default_rules: bool,
    outlets: Vec<Outlet>,
    health: Vec<Arc<dyn HealthSource>>,
    instance: Option<Label>,
    settings: Settings,
}

/// How an engine works.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    pub(super) rule_timeout: Duration,
    pub(super) delivery_timeout: Duration,
    pub(super) lease: Duration,
    pub(super) attempts_max: u32,
    pub(super) retry_min: Duration,
    pub(super) retry_max: Duration,
    pub(super) stale_after: Duration,
    pub(super) keep_resolved: Duration,
}

impl AlertEngineBuilder {
    pub(super) fn new(store: Arc<dyn Store>, alerts: Arc<dyn AlertStore>) -> Self {
        let settings = Settings {
            rule_timeout: Duration::from_secs(60),
            delivery_timeout: Duration::from_secs(20),
            lease: Duration::from_secs(120),
            attempts_max: 10,
            retry_min: Duration::from_secs(10),
            retry_max: Duration::from_secs(60 * 60),
            stale_after: Duration::from_secs(24 * 60 * 60),
            keep_resolved: Duration::from_secs(90 * 24 * 60 * 60),
        };
        Self {
            store,
            alerts,
            rules: Vec::new(),
            has_default_rules: true,
            outlets: Vec::new(),
            health: Vec::new(),
            instance: None,
            settings,
        }
    }

    /// One rule more; in place of one of the same name.
    pub fn rule(mut self, rule: impl AlertRule) -> Self {
        self.rules.push(Arc::new(rule));
        self
    }

    /// Without the rules that there are by default: [`QuotaExceeded`], [`HighLatency`], [`HighErrorRate`], [`CostAnomaly`] and
    /// [`AggregationOverdue`].
    pub fn no_default_rules(mut self) -> Self {
        self.has_default_rules = false;
        self
    }

    /// One sink more, which is told of every incident. All processes have sinks of the same names.
    pub fn sink(self, name: Label, sink: impl AlertSink) -> Self {
        self.sink_where(name, sink, |_| true)
    }

    /// One sink more, which is told of those incidents alone that are wanted: by rule, severity or tenant, say.
    pub fn sink_where(
        mut self,
        name: Label,
        sink: impl AlertSink,
        wants: impl Fn(&Incident) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.outlets.push(Outlet { name, sink: Arc::new(sink), wants: Arc::new(wants) });
        self
    }

    /// Something with numbers about the process, for rules that look at them: a tracker, an audit log, the host's own.
    pub fn health(mut self, source: impl HealthSource) -> Self {
        self.health.push(Arc::new(source));
        self
    }

    /// What this process is called in incidents about itself; by default a random name, which is another one after a restart.
    pub fn instance(mut self, instance: Label) -> Self {
        self.instance = Some(instance);
        self
    }

    /// How long an attempt to deliver may take; 20 seconds by default.
    pub fn delivery_timeout(mut self, timeout: Duration) -> Self {
        self.settings.delivery_timeout = timeout;
        self
    }

    /// For how long a notification belongs to the process that takes it up, which is how long it waits when that dies; two
    /// minutes by default. The clocks of two processes must not differ by more than this less the delivery's timeout: else
    /// one may be told twice at a time.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.settings.lease = lease;
        self
    }

    /// How often a notification is tried before it is given up, and how long is waited between: from the least to the most,
    /// twice as long each time, with jitter. 10 times, 10 seconds and one hour by default.
    pub fn retry(mut self, attempts_max: u32, wait_min: Duration, wait_max: Duration) -> Self {
        self.settings.attempts_max = attempts_max;
        self.settings.retry_min = wait_min;
        self.settings.retry_max = wait_max;
        self
    }

    /// How long an evaluation of a rule may take; one minute by default.
    pub fn rule_timeout(mut self, timeout: Duration) -> Self {
        self.settings.rule_timeout = timeout;
        self
    }

    /// After how long an incident of which no rule says anything is resolved: its rule was taken away, or its process is gone.
    /// One day by default.
    pub fn stale_after(mut self, stale_after: Duration) -> Self {
        self.settings.stale_after = stale_after;
        self
    }

    /// How long resolved incidents are kept; 90 days by default.
    pub fn keep_resolved(mut self, keep_resolved: Duration) -> Self {
        self.settings.keep_resolved = keep_resolved;
        self
    }

    /// The engine.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `lease` if it is shorter than twice the delivery's timeout, on
    /// `attempts_max` if it is zero, on `sink` if two have one name, on `stale_after` if it is shorter than half an hour.
    pub fn build(self) -> Result<AlertEngine> {
        let settings = &self.settings;
        if settings.lease < settings.delivery_timeout * 2 {
            let rule =
                format!("must be at least twice the delivery's timeout ({:?})", settings.delivery_timeout);
            return Err(Error::invalid("lease", rule));
        }
        if settings.attempts_max == 0 {
            return Err(Error::invalid("attempts_max", "must be at least 1"));
        }
        // Incidents that go on are written again every few minutes.
        if settings.stale_after < Duration::from_secs(30 * 60) {
            return Err(Error::invalid("stale_after", "must be at least half an hour"));
        }
        for (position, outlet) in self.outlets.iter().enumerate() {
            if self.outlets[..position].iter().any(|other| other.name == outlet.name) {
                return Err(Error::invalid("sink", format!("must not be given twice, {} is", outlet.name)));
            }
        }
        let instance = match self.instance {
            Some(instance) => instance,
            None => Label::new("instance", Uuid::new_v4().to_string())?,
        };
        let mut rules: Vec<Arc<dyn AlertRule>> = Vec::new();
        let given = if self.has_default_rules { default_rules()? } else { Vec::new() };
        for rule in given.into_iter().chain(self.rules) {
            rules.retain(|other| other.name() != rule.name());
            rules.push(rule);
        }
        Ok(AlertEngine {
            inner: Arc::new(Inner {
                store: self.store,
                alerts: self.alerts,
                rules,
                outlets: self.outlets,
                health: self.health,
                instance,
                settings: self.settings,
            }),
        })
    }
}

fn default_rules() -> Result<Vec<Arc<dyn AlertRule>>> {
    Ok(vec![
        Arc::new(QuotaExceeded::new()?),
        Arc::new(HighLatency::new()?),
        Arc::new(HighErrorRate::new()?),
        Arc::new(CostAnomaly::new()?),
        Arc::new(AggregationOverdue::new()?),
    ])
}
