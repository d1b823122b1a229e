//! What went wrong.

use serde_json::{Map, Value};

use super::{fields, some};
use crate::audit::{AuditField, AuditRecord, AuditResult, AuditSchema, Severity};
use crate::usage::ErrorMessage;

/// What went wrong for a tenant.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ErrorAudit {
    /// A call failed.
    ApiError {
        /// Which one, such as `POST /chat`.
        endpoint: String,
        /// What it was answered with.
        status_code: u16,
        /// What went wrong. Without personal data.
        message: String,
    },
    /// A call was refused because a quota is used up.
    QuotaExceeded {
        /// Which quota.
        quota: String,
        /// What is used of it.
        used: u64,
        /// How much it is.
        limit: u64,
    },
}

pub(super) const SCHEMAS: &[AuditSchema] = &[
    AuditSchema::new(
        "error.api_error",
        1,
        "api_call",
        Severity::Error,
        &[AuditField::text("endpoint"), AuditField::integer("status_code")],
    ),
    AuditSchema::new(
        "error.quota_exceeded",
        1,
        "quota_checked",
        Severity::Warning,
        &[AuditField::text("quota"), AuditField::integer("used"), AuditField::integer("limit")],
    ),
];

impl AuditRecord for ErrorAudit {
    fn schema(&self) -> &'static AuditSchema {
        match self {
            Self::ApiError { .. } => &SCHEMAS[0],
            Self::QuotaExceeded { .. } => &SCHEMAS[1],
        }
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::ApiError { endpoint, status_code, .. } => {
                fields([("endpoint", some(endpoint.as_str())), ("status_code", some(*status_code))])
            }
            Self::QuotaExceeded { quota, used, limit } => {
                fields([("quota", some(quota.as_str())), ("used", some(*used)), ("limit", some(*limit))])
            }
        }
    }

    fn result(&self) -> AuditResult {
        match self {
            Self::ApiError { .. } => AuditResult::Failure,
            Self::QuotaExceeded { .. } => AuditResult::Denied,
        }
    }

    fn error_message(&self) -> Option<ErrorMessage> {
        match self {
            Self::ApiError { message, .. } => Some(ErrorMessage::new(message)),
            Self::QuotaExceeded { .. } => None,
        }
    }
}
