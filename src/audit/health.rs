//! How an audit log is doing, and what it leaves.

use crate::Error;
use crate::audit::AuditEvent;

/// How an audit log is doing. Counts are since its start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct AuditHealth {
    /// Events accepted and not yet written.
    pub pending: usize,
    /// Events written.
    pub written: u64,
    /// Batches written.
    pub batches: u64,
    /// Epochs sealed by this log.
    pub epochs: u64,
    /// Events that the store refused for good.
    pub rejected: u64,
    /// Events that found the queue full and were not waited for.
    pub dropped: u64,
    /// Events of chatty types that were left out, to be counted by later ones.
    pub sampled_out: u64,
    /// Attempts to write that had to be repeated.
    pub retries: u64,
    /// Why the last attempt to write failed, if it did.
    pub write_error: Option<Error>,
    /// Why the last attempt to seal or to anchor failed, if it did.
    pub seal_error: Option<Error>,
}

/// What became of all that an audit log accepted.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it says what could not be written"]
pub struct AuditShutdown {
    /// Events written since the start.
    pub written: u64,
    /// Events that found the queue full and were not waited for.
    pub dropped: u64,
    /// The latest events that the store refused for good, and why; at most 1,000.
    pub rejected: Vec<(AuditEvent, Error)>,
    /// Events that the store did not confirm in time. Some of them may be kept: recorded again, those conflict.
    pub unwritten: Vec<AuditEvent>,
}
