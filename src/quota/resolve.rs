//! Which limits a tenant has.

use chrono::{DateTime, Utc};

use crate::quota::cell::Cell;
use crate::quota::core::Core;
use crate::quota::slot::Slot;
use crate::quota::{Catalogue, Limit, LimitSource, TenantQuotas};
use crate::{Result, TenantId};

impl Core {
    /// A tenant's limits: its overrides in force, else its plan's, else the default plan's.
    pub(crate) fn resolve(
        &self,
        catalogue: &Catalogue,
        tenant_id: &TenantId,
        quotas: &TenantQuotas,
        now: DateTime<Utc>,
    ) -> Result<Cell> {
        let default = catalogue.default_plan()?;
        let plan = match &quotas.plan {
            Some(name) => catalogue.plan(name.as_str())?,
            None => default,
        };
        let mut limits: Vec<(Limit, LimitSource)> = Vec::new();
        for limit in plan.limits() {
            limits.push((limit.clone(), LimitSource::Plan(plan.name().clone())));
        }
        for limit in default.limits() {
            if !limits.iter().any(|(own, _)| own.quota() == limit.quota()) {
                limits.push((limit.clone(), LimitSource::Default(default.name().clone())));
            }
        }
        let mut valid_until = None;
        for own in quotas.overrides.iter().filter(|own| own.is_in_force(now)) {
            valid_until = valid_until.into_iter().chain(own.expires_at).min();
            let same =
                |limit: &Limit| limit.quota() == &own.quota && limit.window().as_str() == own.window.as_str();
            match limits.iter_mut().find(|(limit, _)| same(limit)) {
                Some((limit, source)) => {
                    // Its own window, too: two cycles can have different anchors.
                    *limit = limit.clone().with_window(own.window).with_allowed(own.allowed)?;
                    *source = LimitSource::Override;
                }
                None => limits.push((own.as_limit()?, LimitSource::Override)),
            }
        }
        let slots = limits.into_iter().map(|(limit, source)| Slot::new(limit, source)).collect();
        Ok(Cell::new(
            tenant_id.clone(),
            plan.name().clone(),
            quotas.zone.unwrap_or(self.zone),
            slots,
            quotas.revision,
            valid_until,
            now,
        ))
    }
}
