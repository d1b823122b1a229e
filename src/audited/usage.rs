//! Repairs of usage that name who ordered them.

use super::Audited;
use crate::audit::{Actor, AdminAudit, AuditLog, Mended};
use crate::page::PageSize;
use crate::quota::{Reconcile, Reconciliation};
use crate::store::{ReconciledPage, check_reconcile};
use crate::time::TimeRange;
use crate::usage::UsageTracker;
use crate::{Result, TenantId};

/// As much of the drifts as an event has room for, in bytes, with what quoting adds.
const DRIFTS_BYTES_MAX: usize = 8 * 1_024;

impl UsageTracker {
    /// Repairs that name who ordered them: see [`audited`](crate::audited).
    pub fn audited(&self, log: &AuditLog, actor: Actor) -> Audited<Self> {
        Audited::new(self.clone(), log, actor)
    }
}

impl Audited<UsageTracker> {
    /// As [`UsageTracker::reconcile`]. A repair is recorded as `admin.usage_reconciled`, with what it mended; a dry run changes
    /// nothing and is not recorded.
    ///
    /// # Errors
    /// As [`UsageTracker::reconcile`], and those of the [module](crate::audited).
    pub async fn reconcile(
        &self,
        tenant_id: &TenantId,
        range: TimeRange,
        mode: Reconcile,
    ) -> Result<Reconciliation> {
        let store = self.subject.store();
        check_reconcile(range)?;
        if mode == Reconcile::DryRun {
            return store.reconcile(tenant_id, range, mode).await;
        }
        let planned = AdminAudit::reconciled(range, self.reason_text());
        let done = |report: &Reconciliation, _| {
            vec![AdminAudit::UsageReconciled {
                range,
                mended: Some(mended(report)),
                reason: self.reason_text(),
            }]
        };
        self.change(tenant_id, vec![planned], store.reconcile(tenant_id, range, mode), done).await
    }

    /// As [`reconcile_page`](crate::store::reconcile_page): tenant after tenant, each with its own events in its own trail.
    ///
    /// # Errors
    /// As [`reconcile`](Self::reconcile). What was done stays done: go on from the last tenant that is known.
    pub async fn reconcile_page(
        &self,
        range: TimeRange,
        mode: Reconcile,
        after: Option<&TenantId>,
        page_size: PageSize,
    ) -> Result<ReconciledPage> {
        check_reconcile(range)?;
        let tenants = self.subject.store().tenants(range, after, page_size).await?;
        let mut reports = Vec::with_capacity(tenants.len());
        for tenant_id in &tenants {
            reports.push(self.reconcile(tenant_id, range, mode).await?);
        }
        Ok(ReconciledPage::new(reports, page_size))
    }
}

fn mended(report: &Reconciliation) -> Mended {
    let mut room = DRIFTS_BYTES_MAX;
    let texts = report.drifts.iter().filter_map(|drift| serde_json::to_string(drift).ok());
    // A quote or a backslash takes two bytes inside of the event's own JSON.
    let fits = |text: &String| {
        let size = text.len() + text.matches(['"', '\\']).count() + 3;
        room.checked_sub(size).map(|left| room = left).is_some()
    };
    Mended {
        periods: report.periods,
        drifts: texts.take_while(fits).collect(),
        drifts_total: report.drifts_total,
        unverifiable: report.unverifiable_total,
    }
}
