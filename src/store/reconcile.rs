//! Reconciling tenant after tenant.

use crate::page::PageSize;
use crate::quota::{Reconcile, Reconciliation};
use crate::store::{Store, check_reconcile};
use crate::time::TimeRange;
use crate::{Result, TenantId};

/// What became of some tenants, and where to go on.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ReconciledPage {
    /// One report for each tenant, in the byte order of their ids.
    pub reports: Vec<Reconciliation>,
    /// The last tenant of the page, to begin the next one after; `None` if there is none.
    pub next: Option<TenantId>,
}

impl ReconciledPage {
    /// There may be more tenants if the page is full.
    pub(crate) fn new(reports: Vec<Reconciliation>, page_size: PageSize) -> Self {
        let is_full = reports.len() >= usize::from(page_size.get());
        let next = reports.last().filter(|_| is_full).map(|report| report.tenant_id.clone());
        Self { reports, next }
    }
}

/// Reconciles the tenants that have usage in a range, a page at a time: from the first, or after one. Each tenant is a step
/// of its own, so that what was done stays done when a later one fails; go on from the last that is known.
///
/// ```
/// use metertrail::quota::Reconcile;
/// use metertrail::store::reconcile_page;
/// use metertrail::time::{Clock, Period, SystemClock, Zone};
/// use metertrail::{EventType, MemoryStore, Outcome, PageSize, Store, TenantId, UsageEvent};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (store, now) = (MemoryStore::new(), SystemClock.now());
/// for name in ["acme", "globex", "initech"] {
///     let event = UsageEvent::new(TenantId::new(name)?, EventType::Search, Outcome::Success, now)?;
///     store.append(&[event], &[]).await?;
/// }
///
/// let month = Period::Month.range_at(now, Zone::UTC);
/// let (mut after, mut tenants) = (None, 0);
/// loop {
///     let page = reconcile_page(&store, month, Reconcile::DryRun, after.as_ref(), PageSize::new(2)?).await?;
///     tenants += page.reports.iter().filter(|report| report.is_clean()).count();
///     after = page.next;
///     if after.is_none() {
///         break;
///     }
/// }
/// assert_eq!(tenants, 3);
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// As [`Store::reconcile`] and [`Store::tenants`].
///
/// # Cancel safety
/// Dropped, some of the page's tenants are reconciled.
pub async fn reconcile_page(
    store: &(impl Store + ?Sized),
    range: TimeRange,
    mode: Reconcile,
    after: Option<&TenantId>,
    page_size: PageSize,
) -> Result<ReconciledPage> {
    check_reconcile(range)?;
    let tenants = store.tenants(range, after, page_size).await?;
    let mut reports = Vec::with_capacity(tenants.len());
    for tenant_id in &tenants {
        reports.push(store.reconcile(tenant_id, range, mode).await?);
    }
    Ok(ReconciledPage::new(reports, page_size))
}
