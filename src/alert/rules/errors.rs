//! A tenant's operations fail.

use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;

use super::{named, recent, rule_settings, rule_told};
use crate::Result;
use crate::alert::{AlertRule, AlertView, Level, Observation, Severity, TenantCheck, Timing};
use crate::text::Label;

/// `high_error_rate`: too many of a tenant's operations fail; by default more than 5 % of the last quarter hours' successes and
/// failures, of at least 20. It is over when the share is not above four fifths of that.
#[derive(Clone, Debug)]
pub struct HighErrorRate {
    name: Label,
    severity: Severity,
    timing: Timing,
    above: u16,
    window: Duration,
    calls_min: u64,
}

rule_settings!(HighErrorRate);

impl HighErrorRate {
    /// More than 5 %.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self> {
        Ok(Self {
            name: named("high_error_rate")?,
            severity: Severity::Critical,
            timing: Timing::new().resolve_after(Duration::from_secs(5 * 60)),
            above: 500,
            window: Duration::from_secs(15 * 60),
            calls_min: 20,
        })
    }

    /// More than so many hundredths of a per cent.
    #[must_use]
    pub fn above_hundredths(mut self, above: u16) -> Self {
        self.above = above;
        self
    }

    /// Over so long; whole quarter hours are looked at.
    #[must_use]
    pub fn window(mut self, window: Duration) -> Self {
        self.window = window;
        self
    }

    /// Of at least so many operations.
    #[must_use]
    pub fn calls_min(mut self, calls_min: u64) -> Self {
        self.calls_min = calls_min;
        self
    }
}

#[async_trait]
impl AlertRule for HighErrorRate {
    rule_told!("percent");

    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let threshold = Decimal::new(self.above.into(), 2);
        let check = TenantCheck::ErrorRate {
            range: recent(view.now(), self.window)?,
            more_than: u32::from(self.above) * 4 / 5,
            calls_min: self.calls_min,
        };
        let failing = view.breaches(&check).await?.into_iter();
        Ok(failing
            .map(|breach| {
                let level = Level::of(breach.value, threshold, Decimal::ZERO);
                Observation::new(level, breach.value, threshold).tenant(breach.tenant_id)
            })
            .collect())
    }
}
