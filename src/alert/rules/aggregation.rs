//! Roll-ups are not made.

use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use rust_decimal::Decimal;

use super::{named, rule_settings, rule_told};
use crate::Result;
use crate::alert::{AlertRule, AlertView, Level, Observation, Severity, Timing};
use crate::text::Label;

/// The [`Reading`](crate::alert::Reading) that says how long ago the last aggregation was completed, in seconds.
pub const AGGREGATION_AGE_SECONDS: &str = "aggregation_age_seconds";

/// `aggregation_overdue`: for half an hour no aggregation was completed. That is known by two things: what is left to be
/// aggregated is of quarter hours that ended as long ago; and, where a [`HealthSource`](crate::alert::HealthSource) tells
/// [`AGGREGATION_AGE_SECONDS`], by that. Answers are exact all the while (they add what is not aggregated), only dearer.
///
/// Events that are imported late wait for a moment, too: so it must last for five minutes.
#[derive(Clone, Debug)]
pub struct AggregationOverdue {
    name: Label,
    severity: Severity,
    timing: Timing,
    after: Duration,
}

rule_settings!(AggregationOverdue);

impl AggregationOverdue {
    /// After half an hour.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self> {
        Ok(Self {
            name: named("aggregation_overdue")?,
            severity: Severity::Critical,
            timing: Timing::new().pending_for(Duration::from_secs(5 * 60)),
            after: Duration::from_secs(30 * 60),
        })
    }

    /// After so long.
    #[must_use]
    pub fn after(mut self, after: Duration) -> Self {
        self.after = after;
        self
    }
}

#[async_trait]
impl AlertRule for AggregationOverdue {
    rule_told!("seconds");

    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let ended = view.aggregation_backlog().await?.oldest.map(|start| start + TimeDelta::minutes(15));
        let waiting = ended.map_or(0, |ended| (view.now() - ended).num_seconds().max(0));
        let age = view.reading(AGGREGATION_AGE_SECONDS).unwrap_or_default().max(waiting.into());
        let threshold = Decimal::from(self.after.as_secs());
        Ok(vec![Observation::new(Level::of(age, threshold, threshold), age, threshold)])
    }
}
