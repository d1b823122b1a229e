//! Operations have no price.

use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;

use super::{named, recent, rule_settings, rule_told};
use crate::Result;
use crate::alert::{AlertRule, AlertView, Level, Observation, Severity, Timing};
use crate::text::Label;

/// `unpriced_share`: of all operations of the last day more than 1 % used tokens whose price is not known, so that costs are
/// told too low. Of at least 100 operations.
#[derive(Clone, Debug)]
pub struct UnpricedShare {
    name: Label,
    severity: Severity,
    timing: Timing,
    above: u16,
    window: Duration,
    calls_min: u64,
}

rule_settings!(UnpricedShare);

impl UnpricedShare {
    /// More than 1 %.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self> {
        Ok(Self {
            name: named("unpriced_share")?,
            severity: Severity::Warning,
            timing: Timing::new().interval(Duration::from_secs(15 * 60)),
            above: 100,
            window: Duration::from_secs(24 * 60 * 60),
            calls_min: 100,
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
impl AlertRule for UnpricedShare {
    rule_told!("percent");

    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let summary = view.store().summary(recent(view.now(), self.window)?).await?;
        let threshold = Decimal::new(self.above.into(), 2);
        let unpriced = Decimal::from(summary.unpriced) * Decimal::ONE_HUNDRED;
        let share = unpriced.checked_div(summary.calls.into()).unwrap_or_default().round_dp(4);
        let level = match summary.calls {
            calls if calls < self.calls_min => Level::Calm,
            _ => Level::of(share, threshold, threshold * Decimal::new(8, 1)),
        };
        Ok(vec![Observation::new(level, share, threshold)])
    }
}
