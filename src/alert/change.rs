//! From one state of an incident to the next.

use chrono::{DateTime, TimeDelta, Utc};

use crate::alert::{Incident, IncidentState, Level, NotificationKind, Observation, Severity, Timing};
use crate::text::Label;

/// An incident whose values are the same is written again after so long, so that it is known to be looked at.
const OBSERVED_EVERY: TimeDelta = TimeDelta::minutes(5);

/// One change of an incident, as it is written.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Change {
    /// The incident as it is to be.
    pub incident: Incident,
    /// The revision that it must have now; a new one has none.
    pub expected: Option<u64>,
    /// Whether it goes as if it had never been: it was pending and did not last.
    pub is_withdrawn: bool,
    /// The sinks that are to be told.
    pub notify: Vec<Label>,
}

impl Change {
    /// A new incident.
    pub fn open(incident: Incident) -> Self {
        Self { incident, expected: None, is_withdrawn: false, notify: Vec::new() }
    }

    /// An incident that is other than it was.
    pub fn update(mut incident: Incident) -> Self {
        let expected = incident.revision;
        incident.revision += 1;
        Self { incident, expected: Some(expected), is_withdrawn: false, notify: Vec::new() }
    }

    /// An incident that goes as if it had never been.
    pub fn withdraw(incident: Incident) -> Self {
        Self { is_withdrawn: true, ..Self::update(incident) }
    }

    /// The end of an incident.
    pub fn resolve(mut incident: Incident, now: DateTime<Utc>) -> Self {
        incident.state = IncidentState::Resolved;
        incident.resolved_at = Some(now);
        incident.observed_at = now;
        Self::update(incident)
    }

    /// A copy that tells these sinks.
    #[must_use]
    pub fn notify(mut self, sinks: Vec<Label>) -> Self {
        self.notify = sinks;
        self
    }

    /// What the sinks are told.
    pub fn kind(&self) -> NotificationKind {
        if self.incident.is_open() { NotificationKind::Firing } else { NotificationKind::Resolved }
    }
}

/// What a rule is, as far as its incidents are concerned.
#[derive(Clone, Debug)]
pub(crate) struct Traits {
    pub(crate) rule: Label,
    pub(crate) severity: Severity,
    pub(crate) unit: Label,
    pub(crate) timing: Timing,
}

impl Traits {
    /// The incident that an observation opens, if it opens one.
    pub(crate) fn opened(&self, observation: &Observation, now: DateTime<Utc>) -> Option<Change> {
        if observation.level < Level::Breach {
            return None;
        }
        let Observation { tenant_id, subject, value, threshold, .. } = observation.clone();
        let severity = observation.severity.unwrap_or(self.severity);
        let measured = (value, threshold, self.unit.clone());
        let mut incident = Incident::opened(tenant_id, self.rule.clone(), subject, severity, measured, now);
        self.fire_if_due(&mut incident, now);
        Some(Change::open(incident))
    }

    /// What an observation makes of an open incident, if anything. No observation is a calm one.
    pub(crate) fn changed(
        &self,
        incident: &Incident,
        observation: Option<&Observation>,
        now: DateTime<Utc>,
    ) -> Option<Change> {
        let mut next = incident.clone();
        if let Some(observation) = observation {
            next.value = observation.value;
            next.threshold = observation.threshold;
        }
        let level = observation.map_or(Level::Calm, |observation| observation.level);
        match (incident.state, level) {
            (IncidentState::Resolved, _) => return None,
            (IncidentState::Pending, Level::Calm | Level::Near) => return Some(Change::withdraw(next)),
            (IncidentState::Pending, Level::Breach) => self.fire_if_due(&mut next, now),
            (IncidentState::Firing, Level::Near | Level::Breach) => next.calm_since = None,
            (IncidentState::Firing, Level::Calm) => {
                let calm_since = *next.calm_since.get_or_insert(now);
                if has_passed(calm_since, self.timing.resolve_after, now) {
                    return Some(Change::resolve(next, now));
                }
            }
        }
        if next == *incident && now - incident.observed_at < OBSERVED_EVERY {
            return None;
        }
        next.observed_at = now;
        Some(Change::update(next))
    }

    fn fire_if_due(&self, incident: &mut Incident, now: DateTime<Utc>) {
        if has_passed(incident.opened_at, self.timing.pending_for, now) {
            incident.state = IncidentState::Firing;
            incident.fired_at = Some(now);
        }
    }
}

fn has_passed(since: DateTime<Utc>, duration: std::time::Duration, now: DateTime<Utc>) -> bool {
    TimeDelta::from_std(duration).is_ok_and(|duration| now - since >= duration)
}
