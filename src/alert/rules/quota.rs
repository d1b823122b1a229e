//! A tenant was refused.

use async_trait::async_trait;
use rust_decimal::Decimal;

use super::{named, rule_settings, rule_told};
use crate::Result;
use crate::alert::{AlertRule, AlertView, Level, Observation, Severity, TenantCheck, Timing};
use crate::text::Label;
use crate::time::{Period, Zone};

/// `quota_exceeded`: operations of a tenant were refused today because a quota is used up; more than none by default. It is
/// over with the day.
#[derive(Clone, Debug)]
pub struct QuotaExceeded {
    name: Label,
    severity: Severity,
    timing: Timing,
    zone: Zone,
    more_than: u64,
}

rule_settings!(QuotaExceeded);

impl QuotaExceeded {
    /// More than none on a day of UTC.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self> {
        Ok(Self {
            name: named("quota_exceeded")?,
            severity: Severity::Warning,
            timing: Timing::default(),
            zone: Zone::UTC,
            more_than: 0,
        })
    }

    /// More than so many.
    #[must_use]
    pub fn more_than(mut self, more_than: u64) -> Self {
        self.more_than = more_than;
        self
    }

    /// On a day of this zone.
    #[must_use]
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }
}

#[async_trait]
impl AlertRule for QuotaExceeded {
    rule_told!("refusals");

    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let range = Period::Day.range_at(view.now(), self.zone);
        let check = TenantCheck::QuotaExceeded { range, more_than: self.more_than };
        let threshold = Decimal::from(self.more_than);
        let refused = view.breaches(&check).await?.into_iter();
        Ok(refused
            .map(|breach| Observation::new(Level::Breach, breach.value, threshold).tenant(breach.tenant_id))
            .collect())
    }
}
