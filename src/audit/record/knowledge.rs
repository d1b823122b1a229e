//! What happens to a knowledge base.

use serde_json::{Map, Value};

use super::{fields, maybe, some};
use crate::audit::{AuditField, AuditRecord, AuditSchema, Severity, Target};
use crate::text::Label;

/// What happened to a tenant's knowledge base.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum KbAudit {
    /// A document was uploaded.
    Uploaded {
        /// Which one.
        document: Label,
        /// Its size.
        bytes: u64,
        /// What it was cut into.
        chunks: Option<u64>,
    },
    /// A site was read.
    Crawled {
        /// Where it begins.
        url: String,
        /// How many pages it had.
        pages: u64,
    },
    /// An entry was written by hand.
    ManualAdded {
        /// Which one.
        document: Label,
        /// Its size.
        bytes: u64,
    },
    /// A document was deleted.
    Deleted {
        /// Which one.
        document: Label,
        /// Why.
        reason: Option<String>,
    },
}

const BYTES: AuditField = AuditField::integer("bytes");

pub(super) const SCHEMAS: &[AuditSchema] = &[
    AuditSchema::new(
        "kb.uploaded",
        1,
        "uploaded",
        Severity::Info,
        &[BYTES, AuditField::integer("chunks").optional()],
    ),
    AuditSchema::new(
        "kb.crawled",
        1,
        "crawled",
        Severity::Info,
        &[AuditField::text("url"), AuditField::integer("pages")],
    ),
    AuditSchema::new("kb.manual_added", 1, "manual_added", Severity::Info, &[BYTES]),
    AuditSchema::new("kb.deleted", 1, "deleted", Severity::Info, &[AuditField::text("reason").optional()]),
];

impl AuditRecord for KbAudit {
    fn schema(&self) -> &'static AuditSchema {
        match self {
            Self::Uploaded { .. } => &SCHEMAS[0],
            Self::Crawled { .. } => &SCHEMAS[1],
            Self::ManualAdded { .. } => &SCHEMAS[2],
            Self::Deleted { .. } => &SCHEMAS[3],
        }
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::Uploaded { bytes, chunks, .. } => {
                fields([("bytes", some(*bytes)), ("chunks", maybe(chunks.as_ref()))])
            }
            Self::Crawled { url, pages } => fields([("url", some(url.as_str())), ("pages", some(*pages))]),
            Self::ManualAdded { bytes, .. } => fields([("bytes", some(*bytes))]),
            Self::Deleted { reason, .. } => fields([("reason", maybe(reason.as_ref()))]),
        }
    }

    fn target(&self) -> Option<Target> {
        match self {
            Self::Uploaded { document, .. }
            | Self::ManualAdded { document, .. }
            | Self::Deleted { document, .. } => Target::new("document", document.as_str()).ok(),
            Self::Crawled { .. } => None,
        }
    }
}
