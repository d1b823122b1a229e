//! Plans: named sets of limits, and what a tenant has beside its plan.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::quota::{Allowed, Limit, Quota, WhenUnavailable, Window};
use crate::text::Label;
use crate::time::Zone;
use crate::{Error, Result};

/// A named set of limits; at most one for each quota and kind of window.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Wire")]
pub struct Plan {
    name: Label,
    limits: Vec<Limit>,
}

/// The most limits of one plan.
pub const LIMITS_PER_PLAN_MAX: usize = 16;

impl Plan {
    /// Checks and takes a plan.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `plan` if the name is not a [`Label`], on `limits` if there are
    /// more than [`LIMITS_PER_PLAN_MAX`] or two for the same quota and kind of window.
    pub fn new(name: impl AsRef<str>, limits: impl IntoIterator<Item = Limit>) -> Result<Self> {
        let name = Label::new("plan", name)?;
        let limits: Vec<Limit> = limits.into_iter().collect();
        if limits.len() > LIMITS_PER_PLAN_MAX {
            return Err(Error::invalid("limits", format!("must not be more than {LIMITS_PER_PLAN_MAX}")));
        }
        for (position, limit) in limits.iter().enumerate() {
            let same = |other: &Limit| {
                other.quota() == limit.quota() && other.window().as_str() == limit.window().as_str()
            };
            if limits[..position].iter().any(same) {
                let rule = format!("must not have two for {} by {}", limit.quota(), limit.window());
                return Err(Error::invalid("limits", rule));
            }
        }
        Ok(Self { name, limits })
    }

    /// The plan's name.
    pub fn name(&self) -> &Label {
        &self.name
    }

    /// The plan's limits.
    pub fn limits(&self) -> &[Limit] {
        &self.limits
    }
}

/// What is read back, before it is checked.
#[derive(Deserialize)]
struct Wire {
    name: Label,
    limits: Vec<Limit>,
}

impl TryFrom<Wire> for Plan {
    type Error = Error;

    fn try_from(wire: Wire) -> Result<Self> {
        Self::new(wire.name.as_str(), wire.limits)
    }
}

/// The plans that a host sells, and the one that a tenant has if nobody said otherwise.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Catalogue {
    plans: BTreeMap<Label, Plan>,
    default: Label,
}

impl Catalogue {
    /// A catalogue of one plan, which is the default.
    pub fn new(default: Plan) -> Self {
        let name = default.name().clone();
        Self { plans: BTreeMap::from([(name.clone(), default)]), default: name }
    }

    /// The plans that a store keeps ([`Store::plans`](crate::Store::plans)), with the default among them.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `plan` if the default is not among them.
    pub fn from_plans(plans: impl IntoIterator<Item = Plan>, default: impl AsRef<str>) -> Result<Self> {
        let plans = plans.into_iter().map(|plan| (plan.name().clone(), plan)).collect();
        let catalogue = Self { plans, default: Label::new("plan", default)? };
        catalogue.default_plan()?;
        Ok(catalogue)
    }

    /// A copy with one more plan.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `plan` if there is one of this name.
    pub fn with(mut self, plan: Plan) -> Result<Self> {
        let name = plan.name().clone();
        if self.plans.insert(name.clone(), plan).is_some() {
            return Err(Error::invalid("plan", format!("must not be given twice, {name} is")));
        }
        Ok(self)
    }

    /// All plans, by name.
    pub fn plans(&self) -> impl Iterator<Item = &Plan> {
        self.plans.values()
    }

    /// The plan of this name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `plan` if there is none.
    pub fn plan(&self, name: &str) -> Result<&Plan> {
        let unknown = || Error::invalid("plan", format!("is not in the catalogue: {name:?}"));
        self.plans.values().find(|plan| plan.name().as_str() == name).ok_or_else(unknown)
    }

    /// The plan of a tenant that has none of its own.
    ///
    /// # Errors
    /// None: the default is always in the catalogue.
    pub fn default_plan(&self) -> Result<&Plan> {
        self.plan(self.default.as_str())
    }
}

/// A tenant's own limit in place of its plan's.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Override {
    /// What is limited.
    pub quota: Quota,
    /// Over what kind of window.
    pub window: Window,
    /// How much is allowed.
    pub allowed: Allowed,
    /// From when on the plan's limit is in force again.
    pub expires_at: Option<DateTime<Utc>>,
    /// Why it was given.
    pub reason: Option<Label>,
}

impl Override {
    /// A limit of its own, for a quota and kind of window that the plan does not have: hard, and refusing when the store
    /// cannot be reached.
    pub(crate) fn as_limit(&self) -> Result<Limit> {
        Limit::hard(self.quota.clone(), self.window, 0, WhenUnavailable::Deny)?.with_allowed(self.allowed)
    }

    /// Whether it is in force.
    pub fn is_in_force(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_none_or(|expiry| now < expiry)
    }
}

/// What a store keeps of one tenant's quotas.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct TenantQuotas {
    /// The plan that it was assigned to.
    pub plan: Option<Label>,
    /// The zone that its days and months are of.
    pub zone: Option<Zone>,
    /// Its own limits.
    pub overrides: Vec<Override>,
    /// Counts the changes of the two.
    pub revision: u64,
}
