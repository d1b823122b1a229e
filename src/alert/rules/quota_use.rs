//! A tenant nears its limit.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use rust_decimal::Decimal;
use uuid::Uuid;

use super::{named, rule_settings, rule_told};
use crate::alert::{
    AlertRule, AlertView, Breach, Level, Observation, QuotaUse, Severity, TenantCheck, Timing,
};
use crate::quota::{Allowed, Catalogue, Limit, Plan, Quota, Window};
use crate::text::Label;
use crate::time::Zone;
use crate::{Error, Result};

/// The most thresholds.
const THRESHOLDS_MAX: usize = 8;

/// `quota_used`: a tenant has used so much of a limit: 50 % (to be known), 80 % (a warning) and 100 % (critical) by default.
/// Each threshold of each limit is an incident of its own, whose subject names both (`tokens/day 80 %`), and is over with the
/// window. Asked every five minutes.
///
/// The limits are those that [`QuotaEnforcer`](crate::quota::QuotaEnforcer) enforces: the tenant's own, else its plan's, else
/// the default's, in the tenant's zone; it needs the same catalogue. What is asked of the store is one query for each quota,
/// window and zone, whatever number of tenants there is. Windows of a minute are not watched.
#[derive(Clone, Debug)]
pub struct QuotaThresholds {
    name: Label,
    severity: Severity,
    timing: Timing,
    catalogue: Catalogue,
    zone: Zone,
    thresholds: BTreeMap<u32, Severity>,
}

rule_settings!(QuotaThresholds);

impl QuotaThresholds {
    /// The thresholds 50, 80 and 100 % of these limits.
    ///
    /// # Errors
    /// None.
    pub fn new(catalogue: Catalogue) -> Result<Self> {
        let thresholds = [(50, Severity::Info), (80, Severity::Warning), (100, Severity::Critical)];
        Ok(Self {
            name: named("quota_used")?,
            severity: Severity::Warning,
            timing: Timing::new().interval(Duration::from_secs(5 * 60)),
            catalogue,
            zone: Zone::UTC,
            thresholds: BTreeMap::from(thresholds),
        })
    }

    /// Other thresholds, in per cent.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `thresholds` if there are none, more than 8, or one is zero.
    pub fn thresholds(mut self, thresholds: impl IntoIterator<Item = (u32, Severity)>) -> Result<Self> {
        self.thresholds = thresholds.into_iter().collect();
        let count = self.thresholds.len();
        if !(1..=THRESHOLDS_MAX).contains(&count) || self.thresholds.contains_key(&0) {
            let rule = format!("must be 1 to {THRESHOLDS_MAX}, and none of them zero");
            return Err(Error::invalid("thresholds", rule));
        }
        Ok(self)
    }

    /// The zone of tenants that have none of their own: that of the enforcer.
    #[must_use]
    pub fn zone(mut self, zone: Zone) -> Self {
        self.zone = zone;
        self
    }

    /// The quotas and windows that plans have limits for.
    fn windows_of_plans(&self) -> Vec<(Quota, Window)> {
        let mut windows = Vec::new();
        for limit in self.catalogue.plans().flat_map(Plan::limits) {
            let window = (limit.quota().clone(), limit.window());
            if !windows.contains(&window) {
                windows.push(window);
            }
        }
        windows
    }

    /// The limits for a quota and window by plan, as they are resolved for a tenant: the plan's, and the default plan's for
    /// quotas that the plan says nothing of.
    fn limits_by_plan(&self, quota: &Quota, window: Window) -> Result<Vec<(Option<Label>, u64)>> {
        let default = self.catalogue.default_plan()?;
        let of = |plan: &Plan| {
            let knows = plan.limits().iter().any(|limit| limit.quota() == quota);
            amount(if knows { plan.limits() } else { default.limits() }, quota, window)
        };
        let named = self.catalogue.plans().map(|plan| (Some(plan.name().clone()), of(plan)));
        let all = named.chain(std::iter::once((None, of(default))));
        Ok(all.filter_map(|(plan, units)| Some((plan, units?))).collect())
    }

    fn observations(&self, check: &QuotaUse, breach: &Breach, all: &mut Vec<Observation>) -> Result<()> {
        for (percent, severity) in &self.thresholds {
            let threshold = Decimal::from(*percent);
            if breach.value >= threshold {
                let subject = format!("{}/{} {percent} %", check.quota, check.window);
                let observation = Observation::new(Level::Breach, breach.value, threshold)
                    .tenant(breach.tenant_id.clone())
                    .severity(*severity);
                // The name of a quota may be as long as a label.
                let digest = || Uuid::new_v5(&Uuid::NAMESPACE_OID, subject.as_bytes());
                let subject = Label::new("subject", &subject)
                    .or_else(|_| Label::new("subject", format!("{} {percent} %", digest())))?;
                all.push(observation.subject(subject));
            }
        }
        Ok(())
    }
}

/// What a quota's limit over a window allows, if it is one.
fn amount(limits: &[Limit], quota: &Quota, window: Window) -> Option<u64> {
    let limit = limits.iter().find(|limit| limit.quota() == quota && limit.window() == window)?;
    match limit.allowed() {
        Allowed::AtMost(amount) => Some(amount),
        Allowed::Unlimited => None,
    }
}

#[async_trait]
impl AlertRule for QuotaThresholds {
    rule_told!("percent");

    async fn observe(&self, view: &AlertView<'_>) -> Result<Vec<Observation>> {
        let own = view.quota_windows().await?;
        let mut windows = self.windows_of_plans();
        windows
            .extend(own.windows.into_iter().filter(|window| !windows.contains(window)).collect::<Vec<_>>());
        windows.retain(|(_, window)| *window != Window::Minute);
        let mut zones = own.zones;
        if !zones.contains(&self.zone) {
            zones.push(self.zone);
        }
        let least = self.thresholds.keys().next().copied().unwrap_or(100);
        let mut observations = Vec::new();
        for (quota, window) in windows {
            let plans = self.limits_by_plan(&quota, window)?;
            for zone in &zones {
                let what = (quota.clone(), window);
                let check = QuotaUse::new(what, (*zone, self.zone), plans.clone(), least, view.now());
                for breach in view.breaches(&TenantCheck::QuotaUse(check.clone())).await? {
                    self.observations(&check, &breach, &mut observations)?;
                }
            }
        }
        Ok(observations)
    }
}
