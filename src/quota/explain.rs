//! Decisions that carry their reasons.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::quota::Enforcement;
use crate::quota::cell::{Amounts, Cell};
use crate::quota::decision::{Decision, Details, Retry, Seen, Verdict};
use crate::quota::hold::Hold;

/// A decision with the limits that it looked at.
pub(crate) fn explain(
    cell: &Arc<Cell>,
    amounts: Amounts<'_>,
    hold: Option<Hold>,
    verdict: Verdict,
    blocking: Option<usize>,
    passed: &[usize],
) -> Decision {
    let slots = amounts.iter().flat_map(|(quota, _)| cell.slots_of(quota));
    let limits: SmallVec<[Seen; 3]> = slots.map(|(position, slot)| Seen::of(position, slot)).collect();
    let position = |index: usize| limits.iter().position(|seen| seen.slot == index);
    let blocking = blocking.and_then(position);
    let retry = match verdict {
        Verdict::Allowed => None,
        Verdict::Unavailable => Some(Retry::WhenAvailable),
        Verdict::Refused => blocking.and_then(|blocking| limits.get(blocking)?.resets_at()).map(Retry::At),
    };
    let passed = passed.iter().copied().filter_map(position).collect();
    Decision::explained(hold, Details { cell: Arc::clone(cell), verdict, limits, blocking, passed, retry })
}

/// Says where a shadow limit would have refused.
pub(crate) fn shadow_log(cell: &Cell, slot: usize) {
    if let Some(slot) = cell.slots.get(slot).filter(|slot| slot.limit().enforcement() == Enforcement::Shadow)
    {
        tracing::info!(
            tenant = %cell.tenant_id,
            quota = %slot.limit().quota(),
            window = %slot.limit().window(),
            "metertrail: a shadow limit would have refused"
        );
    }
}
