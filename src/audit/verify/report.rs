//! The outcome of a verification, and what the next one goes on from.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use super::Finding;
use super::batches::{Settled, Walked};
use crate::audit::hash::{from_hex, to_hex};
use crate::audit::tree::Frontier;
use crate::audit::{Checkpoint, Hash, TenantHead, WriterId};
use crate::{Error, ErrorKind, Result, TenantId};

/// The outcome of a verification.
#[derive(Clone, Debug, Serialize)]
#[non_exhaustive]
#[must_use]
pub struct VerifyReport {
    /// When it was.
    pub verified_at: DateTime<Utc>,
    /// How much was looked at.
    pub scope: VerifyScope,
    /// What is not as it was sealed, in order; the first ones, if there are very many.
    pub findings: Vec<Finding>,
    /// How many findings there are.
    pub findings_total: u64,
    /// How many events were held against their seals.
    pub events: u64,
    /// How many batches were looked at.
    pub batches: u64,
    /// How many of them no epoch had sealed yet: what they have can still be cut off unseen, see `docs/audit.md`.
    pub unsealed: u64,
    /// How many epochs.
    pub epochs: u64,
    /// How many tenants.
    pub tenants: u64,
    /// Whether batches were held against keys of writers; a sampled verification looks at none.
    pub are_batches_authenticated: bool,
    /// Whether epochs were held against keys of sealers.
    pub are_epochs_authenticated: bool,
    /// How many anchored checkpoints the log was held against. Without any, a log that was cut back as a whole is not seen.
    pub anchors: u64,
    /// What the next incremental verification goes on from; only if there is nothing to find.
    #[serde(skip)]
    pub state: Option<VerifiedState>,
}

impl VerifyReport {
    /// Whether everything is as it was sealed, as far as was looked.
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }

    /// Whether there is a finding of this name.
    pub fn has(&self, code: &str) -> bool {
        self.findings.iter().any(|finding| finding.code() == code)
    }
}

/// How much a verification looked at.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum VerifyScope {
    /// Everything.
    Full,
    /// What came since a former one.
    Incremental,
    /// The log, the heads and some events.
    Sampled,
}

/// What a verification has seen to be whole. It is to be kept outside of the database: it is an anchor as well.
#[derive(Clone, Debug, PartialEq)]
pub struct VerifiedState {
    pub(super) verified_at: DateTime<Utc>,
    pub(super) checkpoint: Option<Checkpoint>,
    pub(super) trees: BTreeMap<TenantId, Frontier>,
    /// The batches that had come to rest.
    pub(super) settled: Settled,
    /// The batches that had not, or that no epoch had sealed: they are looked at again, and have to be there.
    pub(super) recent: BTreeMap<(WriterId, u64), Hash>,
}

impl VerifiedState {
    pub(super) fn new(
        now: DateTime<Utc>,
        checkpoint: Option<Checkpoint>,
        heads: &[TenantHead],
        walked: Walked,
    ) -> Self {
        let trees = heads.iter().map(|head| (head.tenant_id.clone(), head.frontier.clone())).collect();
        Self { verified_at: now, checkpoint, trees, settled: walked.settled, recent: walked.recent }
    }

    /// Whether a batch had come to rest and was held against the trees.
    pub(super) fn has_seen(&self, batch: (WriterId, u64), sealed_at: DateTime<Utc>) -> bool {
        sealed_at < self.settled.before && !self.recent.contains_key(&batch)
    }

    /// The checkpoint of the log that was seen.
    pub fn checkpoint(&self) -> Option<&Checkpoint> {
        self.checkpoint.as_ref()
    }

    /// The state as JSON.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if it cannot be written, which does not happen.
    pub fn to_json(&self) -> Result<String> {
        let tree = |(tenant_id, frontier): (&TenantId, &Frontier)| {
            (tenant_id.clone(), (frontier.size(), to_hex(&frontier.to_bytes())))
        };
        let stored = StoredState {
            verified_at: self.verified_at,
            checkpoint: self.checkpoint.as_ref().map(ToString::to_string),
            trees: self.trees.iter().map(tree).collect(),
            settled: self.settled,
            recent: self.recent.iter().map(|(key, hash)| (key.0, key.1, *hash)).collect(),
        };
        serde_json::to_string(&stored).map_err(|error| {
            Error::new(ErrorKind::Misuse, "the state cannot be written as JSON").with_source(error)
        })
    }

    /// Reads what [`to_json`](Self::to_json) wrote.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `state` if it is anything else.
    pub fn from_json(text: &str) -> Result<Self> {
        let malformed = || Error::invalid("state", "is none that this crate wrote");
        let stored: StoredState =
            serde_json::from_str(text).map_err(|error| malformed().with_source(error))?;
        let tree = |(tenant_id, (size, hashes)): (TenantId, (u64, String))| {
            let bytes = from_hex(&hashes).ok_or_else(malformed)?;
            Ok((tenant_id, Frontier::from_bytes(size, &bytes).map_err(|_| malformed())?))
        };
        Ok(Self {
            verified_at: stored.verified_at,
            checkpoint: stored.checkpoint.map(|note| note.parse()).transpose()?,
            trees: stored.trees.into_iter().map(tree).collect::<Result<_>>()?,
            settled: stored.settled,
            recent: stored
                .recent
                .into_iter()
                .map(|(writer, sequence, hash)| ((writer, sequence), hash))
                .collect(),
        })
    }
}

#[derive(Deserialize, Serialize)]
struct StoredState {
    verified_at: DateTime<Utc>,
    checkpoint: Option<String>,
    trees: BTreeMap<TenantId, (u64, String)>,
    settled: Settled,
    recent: Vec<(WriterId, u64, Hash)>,
}

/// Findings as they come in: each once, and no more than are kept.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kept: BTreeSet<Finding>,
    total: u64,
}

/// Findings that are kept at most.
const KEPT_MAX: usize = 10_000;

impl Findings {
    pub(super) fn add(&mut self, finding: Finding) {
        if self.kept.contains(&finding) {
            return;
        }
        self.total += 1;
        if self.kept.len() < KEPT_MAX {
            self.kept.insert(finding);
        }
    }

    /// What somebody's hand made unreadable is a finding, and no failure of the verification.
    pub(super) fn readable<T>(&mut self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(error) if crate::audit::is_unreadable(&error) => {
                self.add(Finding::Unreadable { what: error.to_string() });
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn into_parts(self) -> (Vec<Finding>, u64) {
        (self.kept.into_iter().collect(), self.total)
    }
}
