//! What a verifier found.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

use crate::TenantId;
use crate::audit::WriterId;

/// Something that is not as it was sealed. [`code`](Self::code) is its name; `docs/audit.md` says what each means.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Finding {
    /// An event is not what was sealed.
    Edited {
        /// Whose.
        tenant_id: TenantId,
        /// Which.
        id: Uuid,
    },
    /// An event was sealed and is gone.
    Missing {
        /// Whose.
        tenant_id: TenantId,
        /// Which.
        id: Uuid,
    },
    /// An event is there that no writer sealed.
    Forged {
        /// Whose.
        tenant_id: TenantId,
        /// Which.
        id: Uuid,
    },
    /// An event stands in another place of its tenant's tree than the one in which it was written.
    Reordered {
        /// Whose.
        tenant_id: TenantId,
        /// Which.
        id: Uuid,
    },
    /// An event is in its tenant's tree and in no batch: its batch was deleted, or a sealer added it without a writer.
    Unattested {
        /// Whose.
        tenant_id: TenantId,
        /// Which.
        id: Uuid,
    },
    /// A tenant's tree is shorter than the one that was sealed.
    TruncatedTail {
        /// Whose.
        tenant_id: TenantId,
        /// How many leaves were sealed.
        sealed: u64,
        /// How many there are.
        found: u64,
    },
    /// A tenant's tree is not the one that was sealed.
    TreeAltered {
        /// Whose.
        tenant_id: TenantId,
    },
    /// A tenant that had a tree has none any more.
    MissingTenant {
        /// Who.
        tenant_id: TenantId,
    },
    /// The list of tenants is not the one that the latest epoch sealed.
    TenantsAltered {
        /// The number of the epoch.
        epoch: u64,
        /// How many tenants it sealed.
        sealed: u64,
        /// How many there are.
        found: u64,
    },
    /// A batch is not what its writer signed, or does not follow the one before.
    BatchForged {
        /// Its writer.
        writer_id: WriterId,
        /// Its place in the chain.
        sequence: u64,
    },
    /// A batch is missing inside of a chain.
    MissingBatch {
        /// Its writer.
        writer_id: WriterId,
        /// Its place in the chain.
        sequence: u64,
    },
    /// A batch was written long ago and no epoch has sealed it.
    Stale {
        /// Its writer.
        writer_id: WriterId,
        /// Its place in the chain.
        sequence: u64,
        /// When it was written.
        sealed_at: DateTime<Utc>,
    },
    /// An epoch is not what the sealer signed, or not what the log makes of it.
    EpochForged {
        /// Its number.
        number: u64,
    },
    /// An epoch is missing inside of the log.
    MissingEpoch {
        /// Its number.
        number: u64,
    },
    /// The log is shorter than an anchored checkpoint says: the newest epochs, or all, were cut off.
    LogTruncated {
        /// How many epochs were anchored.
        anchored: u64,
        /// How many there are.
        found: u64,
    },
    /// The log is another one than the anchored one.
    LogRewritten {
        /// The size of the log of which that is known.
        size: u64,
    },
    /// An anchored checkpoint is not signed by a sealer's key.
    AnchorForged {
        /// The size that it claims.
        size: u64,
    },
    /// Something in the tables is not what this crate writes at all.
    Unreadable {
        /// What.
        what: String,
    },
}

impl Finding {
    /// The finding's name in JSON, in docs and for alerts.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Edited { .. } => "edited",
            Self::Missing { .. } => "missing",
            Self::Forged { .. } => "forged",
            Self::Reordered { .. } => "reordered",
            Self::Unattested { .. } => "unattested",
            Self::TruncatedTail { .. } => "truncated_tail",
            Self::TreeAltered { .. } => "tree_altered",
            Self::MissingTenant { .. } => "missing_tenant",
            Self::TenantsAltered { .. } => "tenants_altered",
            Self::BatchForged { .. } => "batch_forged",
            Self::MissingBatch { .. } => "missing_batch",
            Self::Stale { .. } => "stale",
            Self::EpochForged { .. } => "epoch_forged",
            Self::MissingEpoch { .. } => "missing_epoch",
            Self::LogTruncated { .. } => "log_truncated",
            Self::LogRewritten { .. } => "log_rewritten",
            Self::AnchorForged { .. } => "anchor_forged",
            Self::Unreadable { .. } => "unreadable",
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code();
        match self {
            Self::Edited { tenant_id, id }
            | Self::Missing { tenant_id, id }
            | Self::Forged { tenant_id, id }
            | Self::Reordered { tenant_id, id }
            | Self::Unattested { tenant_id, id } => write!(f, "{code}: event {id} of tenant {tenant_id}"),
            Self::TruncatedTail { tenant_id, sealed, found } => {
                write!(f, "{code}: tenant {tenant_id} has {found} leaves of {sealed}")
            }
            Self::TreeAltered { tenant_id } | Self::MissingTenant { tenant_id } => {
                write!(f, "{code}: tenant {tenant_id}")
            }
            Self::TenantsAltered { epoch, sealed, found } => {
                write!(f, "{code}: {found} tenants, epoch {epoch} sealed {sealed}")
            }
            Self::BatchForged { writer_id, sequence } | Self::MissingBatch { writer_id, sequence } => {
                write!(f, "{code}: batch {sequence} of writer {writer_id}")
            }
            Self::Stale { writer_id, sequence, sealed_at } => {
                write!(f, "{code}: batch {sequence} of writer {writer_id}, written at {sealed_at}")
            }
            Self::EpochForged { number } | Self::MissingEpoch { number } => {
                write!(f, "{code}: epoch {number}")
            }
            Self::LogTruncated { anchored, found } => {
                write!(f, "{code}: {found} epochs, {anchored} were anchored")
            }
            Self::LogRewritten { size } | Self::AnchorForged { size } => write!(f, "{code}: at size {size}"),
            Self::Unreadable { what } => write!(f, "{code}: {what}"),
        }
    }
}
