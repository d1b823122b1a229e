//! What those who guard a service look at.

use serde_json::{Map, Value};

use super::{fields, some};
use crate::audit::{AuditField, AuditRecord, AuditResult, AuditSchema, Severity, Target};
use crate::text::Label;

/// What those who guard a service look at. Such events are never sampled.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SecurityAudit {
    /// Somebody could not prove who they are.
    AuthFailed {
        /// How they tried: `password`, `api_key`, `oauth`.
        method: String,
        /// Why it did not do.
        reason: String,
    },
    /// Somebody asked for what they may not have.
    Forbidden {
        /// What it was.
        resource: Label,
        /// What would have been needed.
        permission: String,
    },
    /// Somebody calls far more often than they may.
    RateLimitAbuse {
        /// Which limit.
        limit: String,
        /// How often they called in its window.
        calls: u64,
    },
    /// A key was put in place of another.
    KeyRotated {
        /// Which one; never the key itself.
        key: Label,
    },
}

pub(super) const SCHEMAS: &[AuditSchema] = &[
    AuditSchema::new(
        "security.auth_failed",
        1,
        "authenticate",
        Severity::Warning,
        &[AuditField::text("method"), AuditField::text("reason")],
    ),
    AuditSchema::new("security.forbidden", 1, "access", Severity::Warning, &[AuditField::text("permission")]),
    AuditSchema::new(
        "security.rate_limit_abuse",
        1,
        "call",
        Severity::Critical,
        &[AuditField::text("limit"), AuditField::integer("calls")],
    ),
    AuditSchema::new("security.key_rotated", 1, "key_rotated", Severity::Warning, &[]),
];

impl AuditRecord for SecurityAudit {
    fn schema(&self) -> &'static AuditSchema {
        match self {
            Self::AuthFailed { .. } => &SCHEMAS[0],
            Self::Forbidden { .. } => &SCHEMAS[1],
            Self::RateLimitAbuse { .. } => &SCHEMAS[2],
            Self::KeyRotated { .. } => &SCHEMAS[3],
        }
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::AuthFailed { method, reason } => {
                fields([("method", some(method.as_str())), ("reason", some(reason.as_str()))])
            }
            Self::Forbidden { permission, .. } => fields([("permission", some(permission.as_str()))]),
            Self::RateLimitAbuse { limit, calls } => {
                fields([("limit", some(limit.as_str())), ("calls", some(*calls))])
            }
            Self::KeyRotated { .. } => Map::new(),
        }
    }

    fn target(&self) -> Option<Target> {
        match self {
            Self::Forbidden { resource, .. } => Target::new("resource", resource.as_str()).ok(),
            Self::KeyRotated { key } => Target::new("key", key.as_str()).ok(),
            Self::AuthFailed { .. } | Self::RateLimitAbuse { .. } => None,
        }
    }

    fn result(&self) -> AuditResult {
        match self {
            Self::AuthFailed { .. } => AuditResult::Failure,
            Self::Forbidden { .. } | Self::RateLimitAbuse { .. } => AuditResult::Denied,
            Self::KeyRotated { .. } => AuditResult::Success,
        }
    }
}
