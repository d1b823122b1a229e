//! Silences: for a while, somebody does not want to be told.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::alert::Incident;
use crate::text::Label;
use crate::{Error, Result, TenantId};

/// The id of a silence.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct SilenceId(Uuid);

impl SilenceId {
    /// A new id.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// An id that was read back.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for SilenceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// For a while, incidents of a tenant, of a rule, or of all are not told to anybody. They are opened and resolved all the
/// same; one that still fires when its silence ends is told then.
///
/// ```
/// use metertrail::alert::Silence;
/// use metertrail::{Label, TenantId};
///
/// let (from, until) = ("2026-03-01T22:00:00Z".parse().unwrap(), "2026-03-02T02:00:00Z".parse().unwrap());
/// let silence = Silence::new(from, until, Label::new("reason", "moving house")?, Label::new("by", "ada")?)?
///     .tenant(TenantId::new("acme")?);
/// assert!(silence.is_active(from) && !silence.is_active(until));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Silence {
    /// Its id.
    pub id: SilenceId,
    /// Of this tenant, or of all and of none.
    pub tenant_id: Option<TenantId>,
    /// Of this rule, or of all.
    pub rule: Option<Label>,
    /// From when.
    pub starts_at: DateTime<Utc>,
    /// Until when, itself excluded.
    pub ends_at: DateTime<Utc>,
    /// Why.
    pub reason: Label,
    /// By whom.
    pub created_by: Label,
}

impl Silence {
    /// A silence of everything, to be narrowed by [`tenant`](Self::tenant) and [`rule`](Self::rule).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `ends_at` if it is not after the start.
    pub fn new(
        starts_at: DateTime<Utc>,
        ends_at: DateTime<Utc>,
        reason: Label,
        created_by: Label,
    ) -> Result<Self> {
        if ends_at <= starts_at {
            return Err(Error::invalid("ends_at", format!("must be after starts_at ({starts_at:?})")));
        }
        let id = SilenceId::random();
        Ok(Self { id, tenant_id: None, rule: None, starts_at, ends_at, reason, created_by })
    }

    /// Only of this tenant.
    #[must_use]
    pub fn tenant(mut self, tenant_id: TenantId) -> Self {
        self.tenant_id = Some(tenant_id);
        self
    }

    /// Only of this rule.
    #[must_use]
    pub fn rule(mut self, rule: Label) -> Self {
        self.rule = Some(rule);
        self
    }

    /// Whether it is in force.
    pub fn is_active(&self, now: DateTime<Utc>) -> bool {
        self.starts_at <= now && now < self.ends_at
    }

    /// Whether it is about an incident, whenever it is in force.
    pub fn covers(&self, incident: &Incident) -> bool {
        self.tenant_id.as_ref().is_none_or(|tenant_id| incident.tenant_id.as_ref() == Some(tenant_id))
            && self.rule.as_ref().is_none_or(|rule| incident.rule == *rule)
    }
}
