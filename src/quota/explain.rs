//! Decisions that carry their reasons.

use crate::quota::Enforcement;
use crate::quota::cell::{Amounts, Cell};
use crate::quota::decision::{Decision, Details, LimitView, Retry, Verdict};
use crate::quota::hold::Hold;
use crate::quota::slot::Slot;

/// A decision with the limits that it looked at.
pub(crate) fn explain(
    cell: &Cell,
    amounts: Amounts<'_>,
    hold: Option<Hold>,
    verdict: Verdict,
    blocking: Option<usize>,
    passed: &[usize],
) -> Decision {
    let slots: Vec<(usize, &Slot)> = amounts.iter().flat_map(|(quota, _)| cell.slots_of(quota)).collect();
    let position = |index: usize| slots.iter().position(|(slot, _)| *slot == index);
    let limits: Vec<LimitView> = slots.iter().map(|(_, slot)| LimitView::of(slot)).collect();
    let blocking = blocking.and_then(position);
    let retry = match verdict {
        Verdict::Allowed => None,
        Verdict::Unavailable => Some(Retry::WhenAvailable),
        Verdict::Refused => blocking.and_then(|blocking| limits.get(blocking)?.resets_at()).map(Retry::At),
    };
    let passed = passed.iter().copied().filter_map(position).collect();
    Decision::explained(hold, Details { verdict, limits, blocking, passed, retry })
}

/// Says where a shadow limit would have refused.
pub(crate) fn shadow_log(cell: &Cell, slot: usize) {
    if let Some(slot) = cell.slots.get(slot).filter(|slot| slot.limit.enforcement() == Enforcement::Shadow) {
        tracing::info!(
            tenant = %cell.tenant_id,
            quota = %slot.limit.quota(),
            window = %slot.limit.window(),
            "metertrail: a shadow limit would have refused"
        );
    }
}
