//! Where costs are changed and broken down: the [`CostStore`] trait, a contract beside that of [`Store`].

use async_trait::async_trait;

use crate::cost::{CostChange, CostShare, CostSharesQuery};
use crate::store::Store;
use crate::{Error, Result, TenantId};

/// The most changes that one call of [`CostStore::apply_costs`] takes.
pub const COST_CHANGES_MAX: usize = 1_000;

/// A store whose events can get another cost afterwards. The clauses of [`Store`] hold: atomic, durable, fresh, exact,
/// separate, cancel safe. Each sentence has a case in `metertrail::testing::conformance::cost`.
#[async_trait]
pub trait CostStore: Store {
    /// Gives events of one tenant another cost, all in one step; the answer says of each change, in the order given, whether it
    /// was applied now. A change [applies](CostChange::applies_to) to an event that has the cost and version that it was made
    /// from: told twice, it is applied once. A reported cost is never changed, and nothing else of an event is, except that
    /// [`UNPRICED_CEILING_MEASURE`](crate::usage::UNPRICED_CEILING_MEASURE) goes.
    ///
    /// From the same moment on, all answers about metrics are those of the events with their new costs: periods, top
    /// consumers, summaries, what counts against limits of cost. It is safe beside those who append, roll up, reconcile and
    /// apply.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `changes` if there are more than [`COST_CHANGES_MAX`] or two for one event;
    /// whatever the store meets.
    async fn apply_costs(&self, tenant_id: &TenantId, changes: &[CostChange]) -> Result<Vec<bool>>;

    /// What the events of one tenant used and cost by model or provider, the dearest first, equals in the byte order of their
    /// names, those without a name last. It reads the events themselves: those that are archived and gone are in no share.
    ///
    /// # Errors
    /// Whatever the store meets.
    async fn cost_shares(&self, query: &CostSharesQuery) -> Result<Vec<CostShare>>;
}

/// Refuses too many changes, and two for one event; for stores.
///
/// # Errors
/// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `changes`.
pub fn check_cost_changes(changes: &[CostChange]) -> Result<()> {
    if changes.len() > COST_CHANGES_MAX {
        let rule = format!("must not be more than {COST_CHANGES_MAX}, are {}", changes.len());
        return Err(Error::invalid("changes", rule));
    }
    let mut ids: Vec<_> = changes.iter().map(|change| change.event_id).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Error::invalid("changes", "must not name an event twice"));
    }
    Ok(())
}
