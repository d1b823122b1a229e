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
    /// A call was refused because a quota is used up. `ErrorAudit::quota_exceeded` makes it of a refusal.
    QuotaExceeded {
        /// Which quota.
        quota: String,
        /// In which kind of window.
        window: String,
        /// What is used of it.
        used: u64,
        /// What operations hold of it, and other processes lease.
        held: u64,
        /// How much it is.
        limit: u64,
        /// How much was asked for.
        asked: u64,
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
        2,
        "quota_checked",
        Severity::Warning,
        &[
            AuditField::text("quota"),
            AuditField::text("window"),
            AuditField::integer("used"),
            AuditField::integer("held"),
            AuditField::integer("limit"),
            AuditField::integer("asked"),
        ],
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
            Self::QuotaExceeded { quota, window, used, held, limit, asked } => fields([
                ("quota", some(quota.as_str())),
                ("window", some(window.as_str())),
                ("used", some(*used)),
                ("held", some(*held)),
                ("limit", some(*limit)),
                ("asked", some(*asked)),
            ]),
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
