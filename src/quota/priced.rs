//! Admitting what an operation will cost.

use std::sync::Arc;

use crate::cost::CostEstimate;
use crate::quota::cell::Cell;
use crate::quota::decision::Verdict;
use crate::quota::explain::explain;
use crate::quota::kind::nano_dollars;
use crate::quota::{Decision, Quota, QuotaEnforcer, WhenUnpriced};
use crate::{Error, Result, TenantId};

impl Cell {
    /// What the strictest of the tenant's limits of cost does with what has no price.
    pub(crate) fn when_unpriced(&self) -> WhenUnpriced {
        self.slots_of(&Quota::Cost).map(|(_, slot)| slot.limit().when_unpriced()).max().unwrap_or_default()
    }

    /// Whether what has no price counts at a ceiling.
    pub(crate) fn counts_ceiling(&self) -> bool {
        self.when_unpriced() >= WhenUnpriced::Ceiling
    }
}

impl QuotaEnforcer {
    /// Asks for what an operation will cost, as [`PriceBook::estimate`](crate::cost::PriceBook::estimate) says. What has no
    /// price is allowed, allowed at the ceiling, or refused, as the strictest of the tenant's limits of cost says
    /// ([`WhenUnpriced`]).
    ///
    /// ```
    /// use metertrail::cost::{PriceBook, Prices};
    /// use metertrail::quota::{
    ///     COST_UNITS_PER_USD, Catalogue, Limit, Plan, Quota, QuotaEnforcer, Verdict, WhenUnavailable, WhenUnpriced, Window,
    /// };
    /// use metertrail::time::{Clock, SystemClock};
    /// use metertrail::{MemoryStore, TenantId, TokenUsage};
    ///
    /// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
    /// let ten_dollars = Limit::hard(Quota::Cost, Window::Day, 10 * COST_UNITS_PER_USD, WhenUnavailable::Deny)?;
    /// let plan = Plan::new("pro", [ten_dollars.with_when_unpriced(WhenUnpriced::Deny)])?;
    /// let quotas = QuotaEnforcer::start(MemoryStore::new(), Catalogue::new(plan))?;
    /// let (book, acme) = (PriceBook::new(Prices::new()), TenantId::new("acme")?);
    ///
    /// let estimate = book.estimate(&acme, None, "a-model", &TokenUsage::estimated(1_000, 500)?, SystemClock.now());
    /// let decision = quotas.enforce_cost(&acme, &estimate).await?;
    /// assert_eq!(decision.verdict(), Verdict::Unpriced);
    /// # Ok::<(), metertrail::Error>(())
    /// # }).unwrap();
    /// ```
    ///
    /// # Errors
    /// As [`enforce`](Self::enforce).
    ///
    /// # Cancel safety
    /// As [`enforce`](Self::enforce).
    pub async fn enforce_cost(&self, tenant_id: &TenantId, estimate: &CostEstimate) -> Result<Decision> {
        let amount = if let Ok(price) = &estimate.price {
            price.cost.as_decimal()
        } else {
            let cell = self.core().cell(tenant_id).await?;
            match (cell.when_unpriced(), estimate.ceiling) {
                (WhenUnpriced::Allow, _) => return unpriced(&cell, Verdict::Allowed),
                (WhenUnpriced::Ceiling, Some(ceiling)) => ceiling,
                (WhenUnpriced::Ceiling | WhenUnpriced::Deny, _) => return unpriced(&cell, Verdict::Unpriced),
            }
        };
        // What is free is asked for as well: a limit of nothing refuses it.
        self.enforce(tenant_id, &Quota::Cost, nano_dollars(amount).max(1)).await
    }

    /// Whether what has no price counts at a ceiling for a tenant whose limits are at hand.
    pub(crate) fn counts_ceiling(&self, tenant_id: &TenantId) -> bool {
        let cell = self.core().cell_at_hand(tenant_id);
        cell.is_some_and(|cell| cell.counts_ceiling())
    }
}

fn unpriced(cell: &Arc<Cell>, verdict: Verdict) -> Result<Decision> {
    let strictest = cell.slots_of(&Quota::Cost).max_by_key(|(_, slot)| slot.limit().when_unpriced());
    let (index, _) = strictest.ok_or_else(|| Error::invalid("quota", "no limit names it: cost"))?;
    let blocking = Some(index).filter(|_| verdict == Verdict::Unpriced);
    Ok(explain(cell, &[(Quota::Cost, 0)], None, verdict, blocking, &[]))
}
