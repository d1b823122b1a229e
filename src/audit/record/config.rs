//! What is changed in a tenant's settings.

use serde_json::{Map, Value};

use super::{fields, maybe, some};
use crate::audit::{AuditField, AuditRecord, AuditSchema, Severity};

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
        /// In which window.
        window: String,
        /// The amount before; none is unlimited.
        from_amount: Option<u64>,
        /// The amount now; none is unlimited.
        to_amount: Option<u64>,
        /// Why.
        reason: Option<String>,
    },
    /// Which plan it is on.
    PlanChanged {
        /// The plan before.
        from_plan: Option<String>,
        /// The plan now.
        to_plan: Option<String>,
    },
}

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
        1,
        "quota_changed",
        Severity::Warning,
        &[
            AuditField::text("quota"),
            AuditField::text("window"),
            AuditField::integer("from_amount").optional(),
            AuditField::integer("to_amount").optional(),
            AuditField::text("reason").optional(),
        ],
    ),
    AuditSchema::new(
        "config.plan_changed",
        1,
        "plan_changed",
        Severity::Warning,
        &[AuditField::text("from_plan").optional(), AuditField::text("to_plan").optional()],
    ),
];

impl AuditRecord for ConfigAudit {
    fn schema(&self) -> &'static AuditSchema {
        match self {
            Self::BrandingUpdated { .. } => &SCHEMAS[0],
            Self::ToolsAssigned { .. } => &SCHEMAS[1],
            Self::QuotaChanged { .. } => &SCHEMAS[2],
            Self::PlanChanged { .. } => &SCHEMAS[3],
        }
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::BrandingUpdated { changed } => fields([("changed", some(changed.clone()))]),
            Self::ToolsAssigned { tools } => fields([("tools", some(tools.clone()))]),
            Self::QuotaChanged { quota, window, from_amount, to_amount, reason } => fields([
                ("quota", some(quota.as_str())),
                ("window", some(window.as_str())),
                ("from_amount", maybe(from_amount.as_ref())),
                ("to_amount", maybe(to_amount.as_ref())),
                ("reason", maybe(reason.as_ref())),
            ]),
            Self::PlanChanged { from_plan, to_plan } => {
                fields([("from_plan", maybe(from_plan.as_ref())), ("to_plan", maybe(to_plan.as_ref()))])
            }
        }
    }
}
