//! Changes of quotas that name who made them.

use super::Audited;
use crate::audit::{Actor, AuditLog, ConfigAudit};
use crate::quota::{
    Allowed, Catalogue, Enforcement, Limit, LimitSource, Override, Plan, Quota, QuotaEnforcer,
    WhenUnavailable, Window,
};
use crate::time::Zone;
use crate::{Result, TenantId};

/// A limit as it stands in an event: how much, none being unlimited, and where it comes from.
type Told = (Option<u64>, Option<String>);

impl QuotaEnforcer {
    /// Changes that name who made them: see [`audited`](crate::audited).
    pub fn audited(&self, log: &AuditLog, actor: Actor) -> Audited<Self> {
        Audited::new(self.clone(), log, actor)
    }
}

impl Audited<QuotaEnforcer> {
    /// As [`QuotaEnforcer::set_custom_quota`], recorded as `config.quota_changed`.
    ///
    /// # Errors
    /// As [`QuotaEnforcer::set_custom_quota`], and those of the [module](crate::audited).
    pub async fn set_custom_quota(&self, tenant_id: &TenantId, own: &Override) -> Result<()> {
        own.as_limit()?;
        let before = self.subject.store().tenant_quotas(tenant_id).await?;
        let mut after = before.clone();
        after.overrides.retain(|other| !is_of(other, &own.quota, own.window));
        after.overrides.push(own.clone());
        let limit_with = |settings| self.subject.limit_with(tenant_id, settings, &own.quota, own.window);
        let (from_amount, from_source) = told(limit_with(&before));
        let (to_amount, to_source) = told(limit_with(&after));
        let reason = own.reason.as_ref().map(|reason| reason.as_str().to_owned());
        let planned = ConfigAudit::QuotaChanged {
            quota: own.quota.as_str().to_owned(),
            window: own.window.as_str().to_owned(),
            from_amount,
            from_source,
            to_amount,
            to_source,
            expires_at: own.expires_at,
            reason: reason.or_else(|| self.reason_text()),
        };
        self.change(tenant_id, vec![planned], self.subject.set_custom_quota(tenant_id, own), as_planned).await
    }

    /// As [`QuotaEnforcer::remove_custom_quota`], recorded as `config.quota_changed`, also if there was none.
    ///
    /// # Errors
    /// As [`QuotaEnforcer::remove_custom_quota`], and those of the [module](crate::audited).
    pub async fn remove_custom_quota(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
    ) -> Result<bool> {
        let before = self.subject.store().tenant_quotas(tenant_id).await?;
        let mut after = before.clone();
        after.overrides.retain(|own| !is_of(own, quota, window));
        let limit_with = |settings| self.subject.limit_with(tenant_id, settings, quota, window);
        let (from_amount, from_source) = told(limit_with(&before));
        let (to_amount, to_source) = told(limit_with(&after));
        let planned = ConfigAudit::QuotaChanged {
            quota: quota.as_str().to_owned(),
            window: window.as_str().to_owned(),
            from_amount,
            from_source,
            to_amount,
            to_source,
            expires_at: None,
            reason: self.reason_text(),
        };
        let work = self.subject.remove_custom_quota(tenant_id, quota, window);
        self.change(tenant_id, vec![planned], work, as_planned).await
    }

    /// As [`QuotaEnforcer::assign_plan`], recorded as `config.plan_changed`.
    ///
    /// # Errors
    /// As [`QuotaEnforcer::assign_plan`], and those of the [module](crate::audited).
    pub async fn assign_plan(&self, tenant_id: &TenantId, plan: Option<&str>) -> Result<()> {
        plan.map(|name| self.subject.catalogue().plan(name).map(|_| ())).transpose()?;
        let before = self.subject.store().tenant_quotas(tenant_id).await?;
        let planned = ConfigAudit::PlanChanged {
            from_plan: before.plan.map(String::from),
            to_plan: plan.map(str::to_owned),
            reason: self.reason_text(),
        };
        self.change(tenant_id, vec![planned], self.subject.assign_plan(tenant_id, plan), as_planned).await
    }

    /// As [`QuotaEnforcer::set_zone`], recorded as `config.zone_changed`.
    ///
    /// # Errors
    /// As [`QuotaEnforcer::set_zone`], and those of the [module](crate::audited).
    pub async fn set_zone(&self, tenant_id: &TenantId, zone: Option<Zone>) -> Result<()> {
        let before = self.subject.store().tenant_quotas(tenant_id).await?;
        let name = |zone: Zone| zone.as_str().to_owned();
        let planned = ConfigAudit::ZoneChanged {
            from_zone: before.zone.map(name),
            to_zone: zone.map(name),
            reason: self.reason_text(),
        };
        self.change(tenant_id, vec![planned], self.subject.set_zone(tenant_id, zone), as_planned).await
    }

    /// As [`Store::put_plan`](crate::Store::put_plan), recorded as `config.plan_replaced`. A plan concerns many tenants: it is
    /// recorded in the trail of the tenant that stands for the host itself.
    ///
    /// # Errors
    /// As [`Store::put_plan`](crate::Store::put_plan), and those of the [module](crate::audited).
    pub async fn put_plan(&self, host: &TenantId, plan: &Plan) -> Result<()> {
        let store = self.subject.store();
        let kept = store.plans().await?;
        let before = kept.iter().find(|kept| kept.name() == plan.name());
        let planned = self.plan_replaced(before, Some(plan), false);
        self.change(host, planned.into_iter().collect(), store.put_plan(plan), as_planned).await
    }

    /// As [`QuotaEnforcer::replace_catalogue`], recorded as one `config.plan_replaced` for each plan that is not the same as
    /// before, and `config.default_plan_changed`, in the trail of the tenant that stands for the host itself. The same
    /// catalogue again is not recorded.
    ///
    /// # Errors
    /// Those of the [module](crate::audited).
    pub async fn replace_catalogue(&self, host: &TenantId, catalogue: Catalogue) -> Result<()> {
        let before = self.subject.catalogue();
        let mut planned = Vec::new();
        for plan in before.plans().filter(|plan| catalogue.plan(plan.name().as_str()).is_err()) {
            planned.extend(self.plan_replaced(Some(plan), None, true));
        }
        for plan in catalogue.plans() {
            let former = before.plan(plan.name().as_str()).ok().filter(|former| *former != plan);
            if former.is_some() || before.plan(plan.name().as_str()).is_err() {
                planned.extend(self.plan_replaced(former, Some(plan), true));
            }
        }
        let (from, to) = (before.default_plan()?.name(), catalogue.default_plan()?.name());
        if from != to {
            planned.push(ConfigAudit::DefaultPlanChanged {
                from_plan: from.clone(),
                to_plan: to.clone(),
                reason: self.reason_text(),
            });
        }
        let work = async {
            self.subject.replace_catalogue(catalogue);
            Ok(())
        };
        self.change(host, planned, work, as_planned).await
    }

    fn plan_replaced(
        &self,
        before: Option<&Plan>,
        after: Option<&Plan>,
        is_in_force: bool,
    ) -> Option<ConfigAudit> {
        let limits = |plan: &Plan| plan.limits().iter().map(in_words).collect();
        Some(ConfigAudit::PlanReplaced {
            plan: after.or(before)?.name().clone(),
            from_limits: before.map(limits),
            to_limits: after.map(limits),
            is_in_force,
            reason: self.reason_text(),
        })
    }
}

/// A change whose outcome is what was planned.
fn as_planned<A>(_: &A, planned: Vec<ConfigAudit>) -> Vec<ConfigAudit> {
    planned
}

fn is_of(own: &Override, quota: &Quota, window: Window) -> bool {
    own.quota == *quota && own.window.as_str() == window.as_str()
}

fn told(limit: Option<(Allowed, LimitSource)>) -> Told {
    let Some((allowed, source)) = limit else {
        return (None, None);
    };
    let source = match source {
        LimitSource::Override => "override".to_owned(),
        LimitSource::Plan(plan) => format!("plan:{plan}"),
        LimitSource::Default(plan) => format!("default:{plan}"),
    };
    let amount = match allowed {
        Allowed::AtMost(amount) => Some(amount),
        Allowed::Unlimited => None,
    };
    (amount, Some(source))
}

/// A limit in a text such as `tokens by day: 500000, hard, deny when unavailable`.
fn in_words(limit: &Limit) -> String {
    let allowed = match limit.allowed() {
        Allowed::AtMost(amount) => amount.to_string(),
        Allowed::Unlimited => "unlimited".to_owned(),
    };
    let enforcement = match limit.enforcement() {
        Enforcement::Hard => "hard",
        Enforcement::Soft => "soft",
        Enforcement::Shadow => "shadow",
    };
    let unavailable = match limit.when_unavailable() {
        WhenUnavailable::Deny => "deny",
        WhenUnavailable::Allow => "allow",
    };
    format!(
        "{} by {}: {allowed}, {enforcement}, {unavailable} when unavailable",
        limit.quota(),
        limit.window()
    )
}
