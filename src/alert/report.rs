//! What a run of an engine did.

use crate::Error;
use crate::text::Label;

/// What one run of an [`AlertEngine`](crate::alert::AlertEngine) did.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct AlertReport {
    /// Rules that were evaluated.
    pub evaluated: u64,
    /// Rules whose turn it was not: they were evaluated less than their interval ago, here or elsewhere.
    pub not_due: u64,
    /// Rules that could not be evaluated, and why.
    pub failed: Vec<(Label, Error)>,
    /// Incidents that were opened.
    pub opened: u64,
    /// Incidents that began to fire, some of them among those opened.
    pub fired: u64,
    /// Incidents that were resolved.
    pub resolved: u64,
    /// Incidents that were pending and did not last.
    pub withdrawn: u64,
    /// Notifications that arrived.
    pub delivered: u64,
    /// Notifications that did not arrive and will be tried again.
    pub retried: u64,
    /// Notifications that were given up.
    pub dead: u64,
    /// Old incidents that were forgotten.
    pub forgotten: u64,
}
