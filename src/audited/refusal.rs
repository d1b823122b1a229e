//! A refusal as an audit event.

use crate::audit::ErrorAudit;
use crate::quota::{Allowed, Decision, Verdict};

impl ErrorAudit {
    /// That a request was refused because a quota is used up, if it was: `None` if it was allowed, or refused for another
    /// reason, such as a store that cannot be reached.
    ///
    /// ```
    /// use metertrail::audit::{Actor, AuditLog, ErrorAudit};
    /// use metertrail::quota::{Catalogue, Limit, Plan, Quota, QuotaEnforcer, WhenUnavailable, Window};
    /// use metertrail::{MemoryStore, TenantId};
    /// use std::sync::Arc;
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let store = Arc::new(MemoryStore::new());
    /// let daily = Limit::hard(Quota::Tokens, Window::Day, 2_000, WhenUnavailable::Deny)?;
    /// let quotas = QuotaEnforcer::start(Arc::clone(&store), Catalogue::new(Plan::new("free", [daily])?))?;
    /// let (log, tenant) = (AuditLog::start(store)?, TenantId::new("acme")?);
    ///
    /// let decision = quotas.enforce(&tenant, &Quota::Tokens, 2_500).await?;
    /// if let Some(exceeded) = ErrorAudit::quota_exceeded(&decision) {
    ///     log.record(log.event(&tenant, Actor::user("u-71")?, &exceeded)?).await?;
    /// }
    /// assert_eq!(log.failed_operations(&tenant, 1).await?.len(), 1);
    /// # Ok::<(), metertrail::Error>(())
    /// # }).unwrap();
    /// ```
    pub fn quota_exceeded(decision: &Decision) -> Option<Self> {
        let blocking = decision.blocking().filter(|_| decision.verdict() == Verdict::Refused)?;
        let Allowed::AtMost(limit) = blocking.allowed else {
            return None;
        };
        Some(Self::QuotaExceeded {
            quota: blocking.quota.to_string(),
            window: blocking.window.as_str().to_owned(),
            used: blocking.used,
            held: blocking.held.saturating_add(blocking.elsewhere),
            limit,
            asked: decision.asked().unwrap_or_default(),
        })
    }
}
