//! A tenant waits too long.

use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;

use super::{named, recent, rule_settings, rule_told};
use crate::Result;
use crate::alert::{AlertRule, AlertView, Level, Observation, Severity, TenantCheck, Timing};
use crate::text::Label;
use crate::usage::Quantile;

/// `high_latency`: a quantile of a tenant's latencies is above a bound; by default the 99th percentile of the last quarter
/// hours above 5,000 ms, of at least 20 operations. It is over when the quantile is not above nine tenths of that.
#[derive(Clone, Debug)]
pub struct HighLatency {
    name: Label,
    severity: Severity,
    timing: Timing,
    quantile: Quantile,
    above_ms: u32,
    window: Duration,
    calls_min: u64,
}

rule_settings!(HighLatency);

impl HighLatency {
    /// The 99th percentile above 5,000 ms.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self> {
        Ok(Self {
            name: named("high_latency")?,
            severity: Severity::Critical,
            timing: Timing::new().resolve_after(Duration::from_secs(5 * 60)),
            quantile: Quantile::P99,
            above_ms: 5_000,
            window: Duration::from_secs(15 * 60),
            calls_min: 20,
        })
    }

    /// Another quantile, above another bound.
    #[must_use]
    pub fn above(mut self, quantile: Quantile, above_ms: u32) -> Self {
        self.quantile = quantile;
        self.above_ms = above_ms;
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
impl AlertRule for HighLatency {
    rule_told!("ms");

    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let threshold = Decimal::from(self.above_ms);
        let resolve_at_us = u64::from(self.above_ms) * 900;
        let check = TenantCheck::Latency {
            range: recent(view.now(), self.window)?,
            quantile: self.quantile,
            more_than_us: resolve_at_us,
            calls_min: self.calls_min,
        };
        let slow = view.breaches(&check).await?.into_iter();
        Ok(slow
            .map(|breach| {
                let level = Level::of(breach.value, threshold, Decimal::ZERO);
                Observation::new(level, breach.value, threshold).tenant(breach.tenant_id)
            })
            .collect())
    }
}
