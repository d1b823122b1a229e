//! How a tracker is doing, and what it leaves.

use crate::Error;
use crate::usage::UsageEvent;

/// How a tracker is doing. Counts are since its start.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Health {
    /// Events accepted and not yet written.
    pub pending: usize,
    /// Events written.
    pub written: u64,
    /// Events that had already been written.
    pub duplicates: u64,
    /// Events whose id or idempotency key belongs to another event.
    pub conflicts: u64,
    /// Events that the store refused for good.
    pub rejected: u64,
    /// Events that found the buffer full.
    pub dropped: u64,
    /// Attempts to write that had to be repeated.
    pub retries: u64,
    /// Why the last attempt to write failed, if it did.
    pub last_error: Option<Error>,
}

/// What became of all that a tracker accepted.
#[derive(Debug)]
#[non_exhaustive]
#[must_use = "it says what could not be written"]
pub struct ShutdownReport {
    /// Events written since the start.
    pub written: u64,
    /// Events that had already been written.
    pub duplicates: u64,
    /// Events whose id or idempotency key belongs to another event.
    pub conflicts: u64,
    /// Events that found the buffer full.
    pub dropped: u64,
    /// The latest events that the store refused for good, and why; at most 1,000.
    pub rejected: Vec<(UsageEvent, Error)>,
    /// Events that the store did not confirm in time. Some of them may be kept: record them again as they are, with
    /// [`UsageTracker::record`](crate::UsageTracker::record), and each counts once.
    pub unwritten: Vec<UsageEvent>,
}
