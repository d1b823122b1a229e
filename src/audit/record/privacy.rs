//! That a person was forgotten, or must not be.

use serde_json::{Map, Value};

use super::{fields, some};
use crate::audit::{AuditField, AuditRecord, AuditSchema, Severity, Target};
use crate::text::Label;

/// That a person was forgotten, or must not be. The subject is the pseudonym under which the host knows the person.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PrivacyAudit {
    /// Somebody asked to forget a person.
    ErasureRequested {
        /// Who.
        subject: Label,
    },
    /// The keys of a person's data were deleted; none of it can be read any more.
    SubjectErased {
        /// Who.
        subject: Label,
        /// Whether there was a key: an erasure that is repeated finds none.
        had_key: bool,
    },
    /// A person must not be forgotten for now.
    HoldPlaced {
        /// Who; none is everybody of the tenant.
        subject: Option<Label>,
        /// Why.
        reason: String,
    },
    /// A person may be forgotten again.
    HoldReleased {
        /// Who; none is everybody of the tenant.
        subject: Option<Label>,
    },
}

pub(super) const SCHEMAS: &[AuditSchema] = &[
    AuditSchema::new("privacy.erasure_requested", 1, "erasure_requested", Severity::Warning, &[]),
    AuditSchema::new(
        "privacy.subject_erased",
        1,
        "subject_erased",
        Severity::Warning,
        &[AuditField::boolean("had_key")],
    ),
    AuditSchema::new(
        "privacy.hold_placed",
        1,
        "hold_placed",
        Severity::Warning,
        &[AuditField::text("reason")],
    ),
    AuditSchema::new("privacy.hold_released", 1, "hold_released", Severity::Warning, &[]),
];

impl AuditRecord for PrivacyAudit {
    fn schema(&self) -> &'static AuditSchema {
        match self {
            Self::ErasureRequested { .. } => &SCHEMAS[0],
            Self::SubjectErased { .. } => &SCHEMAS[1],
            Self::HoldPlaced { .. } => &SCHEMAS[2],
            Self::HoldReleased { .. } => &SCHEMAS[3],
        }
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::SubjectErased { had_key, .. } => fields([("had_key", some(*had_key))]),
            Self::HoldPlaced { reason, .. } => fields([("reason", some(reason.as_str()))]),
            Self::ErasureRequested { .. } | Self::HoldReleased { .. } => Map::new(),
        }
    }

    fn target(&self) -> Option<Target> {
        let subject = match self {
            Self::ErasureRequested { subject } | Self::SubjectErased { subject, .. } => Some(subject),
            Self::HoldPlaced { subject, .. } | Self::HoldReleased { subject } => subject.as_ref(),
        };
        subject.and_then(|subject| Target::new("subject", subject.as_str()).ok())
    }
}
