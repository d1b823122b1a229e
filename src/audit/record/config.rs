//! What is changed in a tenant's settings.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use super::{fields, maybe, some};
use crate::audit::{AuditField, AuditRecord, AuditSchema, Severity, Target};
use crate::text::Label;

/// What was changed in a tenant's settings.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConfigAudit {
    /// How it looks.
    BrandingUpdated {
        /// The names of the settings that changed.
        changed: Vec<String>,
    },
    /// What its assistant may use.
    ToolsAssigned {
        /// All tools that it has now.
        tools: Vec<String>,
    },
    /// How much of a quota it may use.
    QuotaChanged {
        /// Which quota.
        quota: String,
        /// In which kind of window.
        window: String,
        /// The amount before; none is unlimited, if there is a source.
        from_amount: Option<u64>,
        /// Where the limit before came from: `override`, `plan:pro`, `default:free`; none if there was no limit, or it is
        /// not known.
        from_source: Option<String>,
        /// The amount now; none is unlimited, if there is a source.
        to_amount: Option<u64>,
        /// Where the limit now comes from.
        to_source: Option<String>,
        /// From when on the limit before is in force again.
        expires_at: Option<DateTime<Utc>>,
        /// Why.
        reason: Option<String>,
    },
    /// Which plan it is on.
    PlanChanged {
        /// The plan before; none is the default one.
        from_plan: Option<String>,
        /// The plan now; none is the default one.
        to_plan: Option<String>,
        /// Why.
        reason: Option<String>,
    },
    /// Whose days and months its windows mean.
    ZoneChanged {
        /// The tenant's own zone before.
        from_zone: Option<String>,
        /// The tenant's own zone now.
        to_zone: Option<String>,
        /// Why.
        reason: Option<String>,
    },
    /// What is in a plan. It concerns everybody who is on it, and stands in the trail of the host's own tenant.
    PlanReplaced {
        /// Which plan.
        plan: Label,
        /// Its limits before, one text each; none if there was no such plan.
        from_limits: Option<Vec<String>>,
        /// Its limits now; none if there is no such plan any more.
        to_limits: Option<Vec<String>>,
        /// Whether it is in force in the process that recorded it, or kept for those that read the plans anew.
        is_in_force: bool,
        /// Why.
        reason: Option<String>,
    },
    /// Which plan those tenants are on that were put on none. It stands in the trail of the host's own tenant.
    DefaultPlanChanged {
        /// The plan before.
        from_plan: Label,
        /// The plan now.
        to_plan: Label,
        /// Why.
        reason: Option<String>,
    },
}

const REASON: AuditField = AuditField::text("reason").optional();

pub(super) const SCHEMAS: &[AuditSchema] = &[
    AuditSchema::new(
        "config.branding_updated",
        1,
        "branding_updated",
        Severity::Info,
        &[AuditField::texts("changed")],
    ),
    AuditSchema::new(
        "config.tools_assigned",
        1,
        "tools_assigned",
        Severity::Info,
        &[AuditField::texts("tools")],
    ),
    AuditSchema::new(
        "config.quota_changed",
        2,
        "quota_changed",
        Severity::Warning,
        &[
            AuditField::text("quota"),
            AuditField::text("window"),
            AuditField::integer("from_amount").optional(),
            AuditField::text("from_source").optional(),
            AuditField::integer("to_amount").optional(),
            AuditField::text("to_source").optional(),
            AuditField::text("expires_at").optional(),
            REASON,
        ],
    ),
    AuditSchema::new(
        "config.plan_changed",
        2,
        "plan_changed",
        Severity::Warning,
        &[AuditField::text("from_plan").optional(), AuditField::text("to_plan").optional(), REASON],
    ),
    AuditSchema::new(
        "config.zone_changed",
        1,
        "zone_changed",
        Severity::Warning,
        &[AuditField::text("from_zone").optional(), AuditField::text("to_zone").optional(), REASON],
    ),
    AuditSchema::new(
        "config.plan_replaced",
        1,
        "plan_replaced",
        Severity::Warning,
        &[
            AuditField::texts("from_limits").optional(),
            AuditField::texts("to_limits").optional(),
            AuditField::boolean("is_in_force"),
            REASON,
        ],
    ),
    AuditSchema::new(
        "config.default_plan_changed",
        1,
        "default_plan_changed",
        Severity::Warning,
        &[AuditField::text("from_plan"), AuditField::text("to_plan"), REASON],
    ),
];

impl AuditRecord for ConfigAudit {
    fn schema(&self) -> &'static AuditSchema {
        match self {
            Self::BrandingUpdated { .. } => &SCHEMAS[0],
            Self::ToolsAssigned { .. } => &SCHEMAS[1],
            Self::QuotaChanged { .. } => &SCHEMAS[2],
            Self::PlanChanged { .. } => &SCHEMAS[3],
            Self::ZoneChanged { .. } => &SCHEMAS[4],
            Self::PlanReplaced { .. } => &SCHEMAS[5],
            Self::DefaultPlanChanged { .. } => &SCHEMAS[6],
        }
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::BrandingUpdated { changed } => fields([("changed", some(changed.clone()))]),
            Self::ToolsAssigned { tools } => fields([("tools", some(tools.clone()))]),
            Self::QuotaChanged {
                quota,
                window,
                from_amount,
                from_source,
                to_amount,
                to_source,
                expires_at,
                reason,
            } => fields([
                ("quota", some(quota.as_str())),
                ("window", some(window.as_str())),
                ("from_amount", maybe(from_amount.as_ref())),
                ("from_source", maybe(from_source.as_ref())),
                ("to_amount", maybe(to_amount.as_ref())),
                ("to_source", maybe(to_source.as_ref())),
                ("expires_at", expires_at.map(|expiry| expiry.to_rfc3339().into())),
                ("reason", maybe(reason.as_ref())),
            ]),
            Self::PlanChanged { from_plan, to_plan, reason } => fields([
                ("from_plan", maybe(from_plan.as_ref())),
                ("to_plan", maybe(to_plan.as_ref())),
                ("reason", maybe(reason.as_ref())),
            ]),
            Self::ZoneChanged { from_zone, to_zone, reason } => fields([
                ("from_zone", maybe(from_zone.as_ref())),
                ("to_zone", maybe(to_zone.as_ref())),
                ("reason", maybe(reason.as_ref())),
            ]),
            Self::PlanReplaced { from_limits, to_limits, is_in_force, reason, .. } => fields([
                ("from_limits", maybe(from_limits.as_ref())),
                ("to_limits", maybe(to_limits.as_ref())),
                ("is_in_force", some(*is_in_force)),
                ("reason", maybe(reason.as_ref())),
            ]),
            Self::DefaultPlanChanged { from_plan, to_plan, reason } => fields([
                ("from_plan", some(from_plan.as_str())),
                ("to_plan", some(to_plan.as_str())),
                ("reason", maybe(reason.as_ref())),
            ]),
        }
    }

    fn target(&self) -> Option<Target> {
        match self {
            Self::PlanReplaced { plan, .. } => Target::new("plan", plan.as_str()).ok(),
            _ => None,
        }
    }
}
