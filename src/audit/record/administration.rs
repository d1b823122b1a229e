//! What administrators ask for, and what a repair mended.

use serde_json::{Map, Value};

use super::{fields, maybe, some};
use crate::audit::{AuditField, AuditRecord, AuditSchema, Severity, Target};
use crate::time::TimeRange;

/// What an administrator asks for before it is done, and what a repair mended: see [`audited`](crate::audited).
///
/// ```
/// use metertrail::TimeRange;
/// use metertrail::audit::{AdminAudit, AuditRecord};
///
/// let planned = AdminAudit::reconciled(TimeRange::ALL, None);
/// let requested = AdminAudit::requested(&planned);
/// assert_eq!(requested.fields()["change"], "admin.usage_reconciled");
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum AdminAudit {
    /// Somebody is about to make a change. What became of it is in an event with the same request id; if there is none, the
    /// process ended in between.
    ChangeRequested {
        /// The type of the event that says what became of it.
        change: String,
        /// What that event is going to say, `name=value`, as far as it is known before.
        details: Vec<String>,
        /// What it is done to.
        target: Option<Target>,
    },
    /// What is kept of a tenant was held against its events, and mended.
    UsageReconciled {
        /// In which range.
        range: TimeRange,
        /// What was found; none if it came to no end.
        mended: Option<Mended>,
        /// Why.
        reason: Option<String>,
    },
}

/// What a repair found and mended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Mended {
    /// Periods that were looked at.
    pub periods: u64,
    /// The first drifts, each as JSON; as many as fit.
    pub drifts: Vec<String>,
    /// How many drifts there were.
    pub drifts_total: u64,
    /// Periods that could not be held against their events and were left.
    pub unverifiable: u64,
}

impl AdminAudit {
    /// That the change is about to be made of which a record says what becomes of it.
    pub fn requested(planned: &(impl AuditRecord + ?Sized)) -> Self {
        let text = |value: Value| match value {
            Value::String(text) => text,
            other => other.to_string(),
        };
        let details = planned.fields().into_iter().map(|(name, value)| format!("{name}={}", text(value)));
        Self::ChangeRequested {
            change: planned.schema().event_type.to_owned(),
            details: details.collect(),
            target: planned.target(),
        }
    }

    /// A repair of a range that has not come to its end.
    pub fn reconciled(range: TimeRange, reason: Option<String>) -> Self {
        Self::UsageReconciled { range, mended: None, reason }
    }
}

pub(super) const SCHEMAS: &[AuditSchema] = &[
    AuditSchema::new(
        "admin.change_requested",
        1,
        "change_requested",
        Severity::Warning,
        &[AuditField::text("change"), AuditField::texts("details")],
    ),
    AuditSchema::new(
        "admin.usage_reconciled",
        1,
        "usage_reconciled",
        Severity::Warning,
        &[
            AuditField::text("range_start"),
            AuditField::text("range_end"),
            AuditField::integer("periods").optional(),
            AuditField::texts("drifts").optional(),
            AuditField::integer("drifts_total").optional(),
            AuditField::integer("unverifiable").optional(),
            AuditField::text("reason").optional(),
        ],
    ),
];

impl AuditRecord for AdminAudit {
    fn schema(&self) -> &'static AuditSchema {
        match self {
            Self::ChangeRequested { .. } => &SCHEMAS[0],
            Self::UsageReconciled { .. } => &SCHEMAS[1],
        }
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::ChangeRequested { change, details, .. } => {
                fields([("change", some(change.as_str())), ("details", some(details.clone()))])
            }
            Self::UsageReconciled { range, mended, reason } => fields([
                ("range_start", some(range.start().to_rfc3339())),
                ("range_end", some(range.end().to_rfc3339())),
                ("periods", maybe(mended.as_ref().map(|mended| &mended.periods))),
                ("drifts", maybe(mended.as_ref().map(|mended| &mended.drifts))),
                ("drifts_total", maybe(mended.as_ref().map(|mended| &mended.drifts_total))),
                ("unverifiable", maybe(mended.as_ref().map(|mended| &mended.unverifiable))),
                ("reason", maybe(reason.as_ref())),
            ]),
        }
    }

    fn target(&self) -> Option<Target> {
        match self {
            Self::ChangeRequested { target, .. } => target.clone(),
            Self::UsageReconciled { .. } => None,
        }
    }
}
