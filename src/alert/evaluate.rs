//! From what rules say to incidents.

use std::collections::HashMap;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use crate::alert::change::Traits;
use crate::alert::engine::{AlertEngine, before, guarded};
use crate::alert::{
    AlertReport, AlertRule, AlertView, Change, Incident, IncidentState, Observation, Reach, Reading, Silence,
    fingerprint,
};
use crate::store::{ALERT_BATCH_MAX, EvaluationTurn, OpenIncidents};
use crate::text::Label;
use crate::{Result, TenantId};

/// What observations are told apart by.
type ThingKey = (Option<TenantId>, Uuid);

/// Changes of one transaction.
const CHANGES_AT_ONCE: usize = 500;

impl AlertEngine {
    pub(super) async fn evaluate_into(&self, report: &mut AlertReport, now: DateTime<Utc>) -> Result<()> {
        let silences = self.inner.alerts.silences(now).await?;
        let readings = self.readings(now).await;
        for rule in &self.inner.rules {
            match self.evaluate_rule(rule, &silences, &readings, report, now).await {
                Ok(true) => report.evaluated += 1,
                Ok(false) => report.not_due += 1,
                Err(error) => {
                    tracing::warn!(rule = %rule.name(), %error, "metertrail: an alert rule could not be evaluated");
                    report.failed.push((rule.name().clone(), error));
                }
            }
        }
        Ok(())
    }

    async fn readings(&self, now: DateTime<Utc>) -> Vec<Reading> {
        let mut readings = Vec::new();
        for source in &self.inner.health {
            match guarded("a health source", self.inner.settings.rule_timeout, source.readings(now)).await {
                Ok(read) => readings.extend(read),
                Err(error) => tracing::warn!(%error, "metertrail: a health source could not be read"),
            }
        }
        readings
    }

    /// Says whether it was the rule's turn.
    async fn evaluate_rule(
        &self,
        rule: &Arc<dyn AlertRule>,
        silences: &[Silence],
        readings: &[Reading],
        report: &mut AlertReport,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let inner = &self.inner;
        let timing = rule.timing();
        let interval = TimeDelta::from_std(timing.interval).unwrap_or(TimeDelta::days(1));
        // Labels have no control characters.
        let scope = match rule.reach() {
            Reach::Store => rule.name().to_string(),
            Reach::Process => format!("{}\u{1f}{}", rule.name(), inner.instance),
        };
        let Some(turn) = inner.alerts.begin_evaluation(&scope, now, interval).await? else {
            return Ok(false);
        };
        let traits = Traits {
            rule: rule.name().clone(),
            severity: rule.severity(),
            unit: Label::new("unit", rule.unit())?,
            timing,
        };
        let view = AlertView { now, store: &*inner.store, alerts: &*inner.alerts, readings };
        let observed = guarded("the rule", inner.settings.rule_timeout, rule.observe(&view)).await?;
        let mut things = self.worst_of(rule, observed);
        let mut changes = Vec::new();
        for incident in self.open_incidents(&OpenIncidents::OfRule(traits.rule.clone())).await? {
            if rule.reach() == Reach::Process && incident.subject.as_ref() != Some(&inner.instance) {
                continue;
            }
            let observation = things.remove(&(incident.tenant_id.clone(), incident.fingerprint()));
            let unheard = rule.reach() == Reach::Process && observation.is_none();
            let change = if unheard { None } else { traits.changed(&incident, observation.as_ref(), now) };
            changes.extend(self.told(change, Some(incident), silences, now));
        }
        for observation in things.values() {
            changes.extend(self.told(traits.opened(observation, now), None, silences, now));
        }
        self.make(Some(&turn), &changes, report, now).await?;
        Ok(true)
    }

    /// The worst that is said of each thing. What a process says is of itself.
    fn worst_of(
        &self,
        rule: &Arc<dyn AlertRule>,
        observed: Vec<Observation>,
    ) -> HashMap<ThingKey, Observation> {
        let mut things: HashMap<ThingKey, Observation> = HashMap::with_capacity(observed.len());
        for mut observation in observed {
            if rule.reach() == Reach::Process {
                observation.subject = Some(self.inner.instance.clone());
            }
            let print = fingerprint(rule.name(), observation.subject.as_ref());
            let key = (observation.tenant_id.clone(), print);
            let kept = things.entry(key).or_insert_with(|| observation.clone());
            if observation.level > kept.level {
                *kept = observation;
            }
        }
        things
    }

    pub(super) async fn open_incidents(&self, which: &OpenIncidents) -> Result<Vec<Incident>> {
        let mut all: Vec<Incident> = Vec::new();
        loop {
            let after = all.last().map(|last| (last.tenant_id.as_ref(), last.id));
            let page = self.inner.alerts.open_incidents(which, after, ALERT_BATCH_MAX).await?;
            let is_last = page.len() < usize::try_from(ALERT_BATCH_MAX).unwrap_or(usize::MAX);
            all.extend(page);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// A change with those who are to be told of it. An incident that fires and was silenced until now is told of even if it
    /// is as it was; the end of one is told to those who were told of its beginning.
    fn told(
        &self,
        change: Option<Change>,
        incident: Option<Incident>,
        silences: &[Silence],
        now: DateTime<Utc>,
    ) -> Option<Change> {
        let fires = |incident: &Incident| {
            let is_silenced =
                || silences.iter().any(|silence| silence.is_active(now) && silence.covers(incident));
            incident.state == IncidentState::Firing && incident.notified_at.is_none() && !is_silenced()
        };
        match change {
            Some(change) if change.is_withdrawn => Some(change),
            Some(mut change) => {
                if fires(&change.incident) {
                    change.incident.notified_at = Some(now);
                    change.notify = self.sinks_for(&change.incident);
                } else if !change.incident.is_open() && change.incident.notified_at.is_some() {
                    change.notify = self.sinks_for(&change.incident);
                }
                Some(change)
            }
            None => incident.filter(fires).map(|mut incident| {
                incident.notified_at = Some(now);
                incident.observed_at = now;
                let sinks = self.sinks_for(&incident);
                Change::update(incident).notify(sinks)
            }),
        }
    }

    fn sinks_for(&self, incident: &Incident) -> Vec<Label> {
        let wanted = self.inner.outlets.iter().filter(|outlet| (outlet.wants)(incident));
        wanted.map(|outlet| outlet.name.clone()).collect()
    }

    async fn make(
        &self,
        turn: Option<&EvaluationTurn>,
        changes: &[Change],
        report: &mut AlertReport,
        now: DateTime<Utc>,
    ) -> Result<()> {
        for some in changes.chunks(CHANGES_AT_ONCE) {
            let made = self.inner.alerts.change_incidents(turn, some, now).await?;
            for change in some.iter().zip(made).filter(|(_, made)| *made).map(|(change, _)| change) {
                let incident = &change.incident;
                report.opened += u64::from(change.expected.is_none());
                report.withdrawn += u64::from(change.is_withdrawn);
                report.resolved += u64::from(!incident.is_open());
                report.fired += u64::from(incident.is_open() && incident.fired_at == Some(now));
            }
        }
        Ok(())
    }

    /// Resolves incidents of which no rule has said anything for long. Those of rules that could not be evaluated stay.
    pub(super) async fn sweep_into(&self, report: &mut AlertReport, now: DateTime<Utc>) -> Result<()> {
        let Some(since) = before(now, self.inner.settings.stale_after) else {
            return Ok(());
        };
        let stale = self.open_incidents(&OpenIncidents::NotObservedSince(since)).await?;
        let has_failed = |rule: &Label| report.failed.iter().any(|(failed, _)| failed == rule);
        let changes: Vec<Change> = stale
            .into_iter()
            .filter(|incident| !has_failed(&incident.rule))
            .filter_map(|incident| match incident.state {
                IncidentState::Pending => Some(Change::withdraw(incident)),
                _ => self.told(Some(Change::resolve(incident, now)), None, &[], now),
            })
            .collect();
        self.make(None, &changes, report, now).await
    }
}
