//! The process itself is not well.

use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::Result;
use crate::alert::{
    AlertRule, AlertView, HealthSource, Level, Observation, Reach, Reading, Severity, Timing,
};
use crate::audit::AuditLog;
use crate::text::Label;
use crate::usage::UsageTracker;

/// Of a [`UsageTracker`]: events that are accepted and not yet written.
pub const EVENTS_PENDING: &str = "events_pending";
/// Of a [`UsageTracker`]: events that found its buffer full, since its start.
pub const EVENTS_DROPPED: &str = "events_dropped";
/// Of a [`UsageTracker`]: events that the store refused for good, since its start.
pub const EVENTS_REJECTED: &str = "events_rejected";
/// Of an [`AuditLog`]: events that are accepted and not yet written.
pub const AUDIT_EVENTS_PENDING: &str = "audit_events_pending";
/// Of an [`AuditLog`]: events that found its queue full, since its start.
pub const AUDIT_EVENTS_DROPPED: &str = "audit_events_dropped";

/// A number about the process is too large, or a count has grown. The number comes from a
/// [`HealthSource`](crate::alert::HealthSource) of the engine: the depth of a buffer, what was dropped, the size of a spool.
#[derive(Debug)]
pub struct HealthRule {
    name: Label,
    severity: Severity,
    timing: Timing,
    reading: &'static str,
    above: Decimal,
    /// For counts: what it was before.
    before: Option<Mutex<Option<Decimal>>>,
}

impl HealthRule {
    /// A number is above a bound.
    pub fn above(name: Label, reading: &'static str, above: impl Into<Decimal>) -> Self {
        let (severity, timing, above) = (Severity::Critical, Timing::default(), above.into());
        Self { name, severity, timing, reading, above, before: None }
    }

    /// A count has grown since it was last looked at.
    pub fn grows(name: Label, reading: &'static str) -> Self {
        Self { before: Some(Mutex::new(None)), ..Self::above(name, reading, Decimal::ZERO) }
    }

    /// With another severity.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// With another timing.
    #[must_use]
    pub fn timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    fn value(&self, reading: Decimal) -> Decimal {
        let Some(before) = &self.before else {
            return reading;
        };
        let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
        // A count that shrinks was begun anew.
        let grown = before.filter(|before| *before <= reading).map_or(reading, |before| reading - before);
        *before = Some(reading);
        grown
    }
}

#[async_trait]
impl AlertRule for HealthRule {
    fn name(&self) -> &Label {
        &self.name
    }

    fn severity(&self) -> Severity {
        self.severity
    }

    fn unit(&self) -> &'static str {
        self.reading.rsplit('_').next().unwrap_or(self.reading)
    }

    fn timing(&self) -> Timing {
        self.timing
    }

    fn reach(&self) -> Reach {
        Reach::Process
    }

    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let Some(reading) = view.reading(self.reading) else {
            return Ok(Vec::new());
        };
        let value = self.value(reading);
        Ok(vec![Observation::new(Level::of(value, self.above, self.above), value, self.above)])
    }
}

#[async_trait]
impl HealthSource for UsageTracker {
    async fn readings(&self, _now: DateTime<Utc>) -> Result<Vec<Reading>> {
        let health = self.health();
        Ok(vec![
            Reading::new(EVENTS_PENDING, u64::try_from(health.pending).unwrap_or(u64::MAX)),
            Reading::new(EVENTS_DROPPED, health.dropped),
            Reading::new(EVENTS_REJECTED, health.rejected),
        ])
    }
}

#[async_trait]
impl HealthSource for AuditLog {
    async fn readings(&self, _now: DateTime<Utc>) -> Result<Vec<Reading>> {
        let health = self.health();
        Ok(vec![
            Reading::new(AUDIT_EVENTS_PENDING, u64::try_from(health.pending).unwrap_or(u64::MAX)),
            Reading::new(AUDIT_EVENTS_DROPPED, health.dropped),
        ])
    }
}
