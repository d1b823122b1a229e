//! An audit trail that can prove itself: what happened, sealed so that nobody can edit, cut or reorder it unseen.
//!
//! Plain data: [`AuditEvent`] and the typed records it is made from ([`record`]), the seals ([`WriterChain`],
//! [`EpochRecord`], [`Checkpoint`], [`tree`]). The moving parts are [`AuditLog`], which records and seals, and
//! [`Verifier`], which believes nothing.
//!
//! ```text
//! TrialAudit… ─► AuditLog::record ─► queue ─► writer: leaf, root, signature, chain ─► AuditStore::append_audit (one transaction)
//!                                                                                        │
//!  Anchor ◄── checkpoint ◄── signed epoch over all tenants' trees ◄── sealer ◄───────────┘
//! ```

mod ack;
mod actor;
mod anchor;
mod archive;
mod batch;
mod builder;
pub(crate) mod canonical;
mod context;
mod epoch;
mod event;
mod format;
pub(crate) mod hash;
mod health;
mod key;
mod kind;
mod log;
mod note;
mod origin;
mod personal;
mod query;
mod queue;
pub mod record;
mod report;
mod sampler;
mod schema;
mod sealer;
mod stored;
pub mod tree;
mod vault;
mod verify;
pub(crate) mod writer;

pub use self::ack::{AuditAck, AuditRecorded};
pub use self::actor::{Actor, Target};
pub use self::anchor::{Anchor, FileAnchor};
pub use self::archive::{Exported, export_trail, read_trail};
pub(crate) use self::batch::is_unreadable;
pub use self::batch::{
    AUDIT_BATCH_EVENTS_MAX, BatchHeader, BatchRecord, ManifestEntry, SealedBatch, WriterChain, WriterId,
};
pub use self::builder::AuditLogBuilder;
pub use self::context::{AuditContext, ClientIp, USER_AGENT_BYTES_MAX, UserAgent};
pub(crate) use self::epoch::Ledger;
pub use self::epoch::{
    AuditState, EpochRecord, EventProof, KeptNode, NewEpoch, NewNode, StoredEpoch, TenantHead, TreeLeaf,
    tenants_root,
};
pub use self::event::AuditEvent;
pub use self::format::ExportFormat;
pub use self::hash::Hash;
pub use self::health::{AuditHealth, AuditShutdown};
pub use self::key::{
    AuditKeys, AuditSigningKey, AuditVerifyingKey, KEY_NAME_BYTES_MAX, NoKeys, StaticKeys, WrappingKey,
};
pub use self::kind::{AUDIT_TYPE_BYTES_MAX, AuditResult, AuditType, SECURITY_PREFIX, Severity};
pub use self::log::{AuditLog, Erasure};
pub use self::note::Checkpoint;
pub use self::origin::{ORIGIN_BYTES_MAX, Origin};
pub use self::personal::{PERSONAL_BYTES_MAX, PERSONAL_FIELDS_MAX, PersonalData};
pub use self::query::{AuditQuery, TypeFilter};
pub use self::record::{
    AdminAudit, ChatAudit, ConfigAudit, ErrorAudit, KbAudit, Mended, PrivacyAudit, SecurityAudit, TrialAudit,
};
pub use self::report::{AuditReport, IntegrityStatement};
pub use self::schema::{AuditField, AuditRecord, AuditSchema, FieldKind, check_registry};
pub use self::verify::{
    ExtensionProof, Finding, VerifiedState, Verifier, VerifyReport, VerifyScope, prove, prove_extension,
};
