//! The audit trail is not sealed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;

use super::{named, rule_settings, rule_told};
use crate::Result;
use crate::alert::{AlertRule, AlertView, Level, Observation, Severity, Timing};
use crate::store::AuditStore;
use crate::text::Label;

/// `seal_overdue`: audit events were written an hour ago and no epoch has sealed them.
#[derive(Clone, Debug)]
pub struct SealOverdue {
    name: Label,
    severity: Severity,
    timing: Timing,
    store: Arc<dyn AuditStore>,
    after: Duration,
}

rule_settings!(SealOverdue);

impl SealOverdue {
    /// After an hour.
    ///
    /// # Errors
    /// None.
    pub fn new(store: Arc<dyn AuditStore>) -> Result<Self> {
        Ok(Self {
            name: named("seal_overdue")?,
            severity: Severity::Critical,
            timing: Timing::new().interval(Duration::from_secs(5 * 60)),
            store,
            after: Duration::from_secs(60 * 60),
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
impl AlertRule for SealOverdue {
    rule_told!("seconds");

    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let oldest = self.store.unsealed_batches(1).await?;
        let written_at = oldest.first().map(|batch| Ok(batch.open()?.0.sealed_at)).transpose()?;
        let age = written_at.map_or(0, |at| (view.now() - at).num_seconds().max(0));
        let (age, threshold) = (Decimal::from(age), Decimal::from(self.after.as_secs()));
        Ok(vec![Observation::new(Level::of(age, threshold, threshold), age, threshold)])
    }
}
