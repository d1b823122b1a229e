//! What happens to a trial.

use serde_json::{Map, Value};

use super::{fields, maybe, some};
use crate::audit::{AuditField, AuditRecord, AuditSchema, Severity};

/// What happened to a tenant's trial.
///
/// ```
/// use metertrail::audit::{AuditRecord, TrialAudit};
///
/// let created = TrialAudit::Created { plan: "pro".into(), days: 14 };
/// assert_eq!(created.schema().event_type, "trial.created");
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TrialAudit {
    /// It began.
    Created {
        /// What is tried.
        plan: String,
        /// For how long.
        days: u32,
    },
    /// It became a subscription.
    Upgraded {
        /// From which plan.
        from_plan: String,
        /// To which.
        to_plan: String,
    },
    /// It lasts longer.
    Extended {
        /// By how much.
        days: u32,
        /// Why.
        reason: Option<String>,
    },
    /// It ran out.
    Expired {
        /// What was tried.
        plan: String,
    },
    /// It was ended before its time.
    Cancelled {
        /// Why.
        reason: Option<String>,
    },
}

const REASON: AuditField = AuditField::text("reason").optional();

pub(super) const SCHEMAS: &[AuditSchema] = &[
    AuditSchema::new(
        "trial.created",
        1,
        "created",
        Severity::Info,
        &[AuditField::text("plan"), AuditField::integer("days")],
    ),
    AuditSchema::new(
        "trial.upgraded",
        1,
        "upgraded",
        Severity::Info,
        &[AuditField::text("from_plan"), AuditField::text("to_plan")],
    ),
    AuditSchema::new("trial.extended", 1, "extended", Severity::Info, &[AuditField::integer("days"), REASON]),
    AuditSchema::new("trial.expired", 1, "expired", Severity::Info, &[AuditField::text("plan")]),
    AuditSchema::new("trial.cancelled", 1, "cancelled", Severity::Info, &[REASON]),
];

impl AuditRecord for TrialAudit {
    fn schema(&self) -> &'static AuditSchema {
        match self {
            Self::Created { .. } => &SCHEMAS[0],
            Self::Upgraded { .. } => &SCHEMAS[1],
            Self::Extended { .. } => &SCHEMAS[2],
            Self::Expired { .. } => &SCHEMAS[3],
            Self::Cancelled { .. } => &SCHEMAS[4],
        }
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::Created { plan, days } => fields([("plan", some(plan.as_str())), ("days", some(*days))]),
            Self::Upgraded { from_plan, to_plan } => {
                fields([("from_plan", some(from_plan.as_str())), ("to_plan", some(to_plan.as_str()))])
            }
            Self::Extended { days, reason } => {
                fields([("days", some(*days)), ("reason", maybe(reason.as_ref()))])
            }
            Self::Expired { plan } => fields([("plan", some(plan.as_str()))]),
            Self::Cancelled { reason } => fields([("reason", maybe(reason.as_ref()))]),
        }
    }
}
