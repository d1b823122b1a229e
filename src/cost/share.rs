//! What a tenant's events cost by model and by provider.

use rust_decimal::Decimal;
use serde::Serialize;

use crate::text::Label;
use crate::time::TimeRange;
use crate::{Error, Result, TenantId};

/// The most shares of one answer.
pub const COST_SHARES_MAX: u16 = 1_000;

/// What costs are broken down by.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum CostBy {
    /// The model that the events name.
    Model,
    /// The provider that they name.
    Provider,
}

/// What one tenant's events cost, by model or provider.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CostSharesQuery {
    /// Whose.
    pub tenant_id: TenantId,
    /// When they started.
    pub range: TimeRange,
    /// By what.
    pub by: CostBy,
    /// How many shares at most.
    pub limit: u16,
}

impl CostSharesQuery {
    /// Checks and takes a query.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `limit` if it is not in 1 to [`COST_SHARES_MAX`].
    pub fn new(tenant_id: TenantId, range: TimeRange, by: CostBy, limit: u16) -> Result<Self> {
        if !(1..=COST_SHARES_MAX).contains(&limit) {
            return Err(Error::invalid("limit", format!("must be in 1 to {COST_SHARES_MAX}, is {limit}")));
        }
        Ok(Self { tenant_id, range, by, limit })
    }
}

/// What the events of one model or provider used and cost.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct CostShare {
    /// The model or provider; `None` for the events that name none.
    pub name: Option<Label>,
    /// Operations of every outcome.
    pub calls: u64,
    /// All tokens.
    pub tokens: u64,
    /// The known cost in US dollars.
    pub cost: Decimal,
    /// Operations that used tokens at an unknown price; their cost is in no sum.
    pub unpriced: u64,
}

impl CostShare {
    /// A share.
    pub fn new(name: Option<Label>, calls: u64, tokens: u64, cost: Decimal, unpriced: u64) -> Self {
        Self { name, calls, tokens, cost, unpriced }
    }
}
