//! A tenant costs more than it used to.

use std::time::Duration;

use async_trait::async_trait;
use chrono::TimeDelta;
use rust_decimal::Decimal;

use super::{named, rule_settings, rule_told};
use crate::alert::{AlertRule, AlertView, Level, Observation, Severity, TenantCheck, Timing};
use crate::text::Label;
use crate::time::{Period, TimeRange, Zone};
use crate::{Error, Result};

/// The most days that the mean is taken over.
const HISTORY_DAYS_MAX: u16 = 90;

/// `cost_anomaly`: a tenant's known cost of today is more than so many times its daily mean; by default more than twice the mean
/// of the days with usage among the last seven, of which there are at least three, and at least one dollar. It is over with
/// the day. Asked every quarter hour.
#[derive(Clone, Debug)]
pub struct CostAnomaly {
    name: Label,
    severity: Severity,
    timing: Timing,
    zone: Zone,
    times: Decimal,
    floor: Decimal,
    history_days: u16,
    history_days_min: u16,
}

rule_settings!(CostAnomaly);

impl CostAnomaly {
    /// More than twice the mean of seven days.
    ///
    /// # Errors
    /// None.
    pub fn new() -> Result<Self> {
        Ok(Self {
            name: named("cost_anomaly")?,
            severity: Severity::Warning,
            timing: Timing::new().interval(Duration::from_secs(15 * 60)),
            zone: Zone::UTC,
            times: Decimal::TWO,
            floor: Decimal::ONE,
            history_days: 7,
            history_days_min: 3,
        })
    }

    /// More than so many times the mean, and at least so many dollars.
    #[must_use]
    pub fn above(mut self, times: Decimal, floor: Decimal) -> Self {
        self.times = times;
        self.floor = floor;
        self
    }

    /// The mean of so many days, of which so many at least must have usage.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `history_days` if they are not in 1 to 90, on `history_days_min` if
    /// that is not in 1 to the days.
    pub fn history(mut self, days: u16, days_min: u16) -> Result<Self> {
        if !(1..=HISTORY_DAYS_MAX).contains(&days) {
            return Err(Error::invalid("history_days", format!("must be in 1 to {HISTORY_DAYS_MAX}")));
        }
        if !(1..=days).contains(&days_min) {
            return Err(Error::invalid("history_days_min", format!("must be in 1 to {days}")));
        }
        self.history_days = days;
        self.history_days_min = days_min;
        Ok(self)
    }

    /// Days of this zone.
    #[must_use]
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// The days before a day, ascending.
    fn history_before(&self, today: TimeRange) -> Vec<TimeRange> {
        let mut days = Vec::new();
        let mut next = today;
        for _ in 0..self.history_days {
            let before = Period::Day.range_at(next.start() - TimeDelta::microseconds(1), self.zone);
            if before.end() > next.start() || before == next {
                break;
            }
            days.push(before);
            next = before;
        }
        days.reverse();
        days
    }
}

#[async_trait]
impl AlertRule for CostAnomaly {
    rule_told!("usd");

    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let range = Period::Day.range_at(view.now(), self.zone);
        let check = TenantCheck::Cost {
            range,
            history: self.history_before(range),
            times: self.times,
            floor: self.floor,
            history_min: self.history_days_min.into(),
        };
        let costly = view.breaches(&check).await?.into_iter();
        Ok(costly
            .map(|breach| {
                let threshold = (breach.reference * self.times).max(self.floor);
                Observation::new(Level::Breach, breach.value, threshold).tenant(breach.tenant_id)
            })
            .collect())
    }
}
