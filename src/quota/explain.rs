//! Decisions that carry their reasons.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::quota::cell::{Amounts, Cell};
use crate::quota::decision::{Decision, Details, Retry, Seen, Verdict};
use crate::quota::hold::Hold;
use crate::quota::{Enforcement, Window};

/// A decision with the limits that it looked at.
pub(crate) fn explain(
    cell: &Arc<Cell>,
    amounts: Amounts<'_>,
    hold: Option<Hold>,
    verdict: Verdict,
    blocking: Option<usize>,
    passed: &[usize],
) -> Decision {
    let mut limits: SmallVec<[Seen; 3]> = SmallVec::new();
    let mut exceeded = SmallVec::new();
    let mut asked = 0;
    for (quota, amount) in amounts {
        for (index, slot) in cell.slots_of(quota) {
            let seen = Seen::of(index, slot);
            let is_short = slot.allowed().is_some_and(|allowed| seen.remaining(allowed) < *amount);
            let is_hard = slot.limit().enforcement() == Enforcement::Hard;
            if verdict == Verdict::Refused && (blocking == Some(index) || is_hard && is_short) {
                exceeded.push(limits.len());
            }
            if blocking == Some(index) {
                asked = *amount;
            }
            limits.push(seen);
        }
    }
    let position = |index: usize| limits.iter().position(|seen| seen.slot == index);
    let blocking = blocking.and_then(position);
    let retry = match verdict {
        Verdict::Allowed | Verdict::Unpriced => None,
        Verdict::Unavailable => Some(Retry::WhenAvailable),
        Verdict::Refused => blocking.and_then(|blocking| retry_after(cell, limits.get(blocking)?)),
    };
    let passed = passed.iter().copied().filter_map(position).collect();
    let cell = Arc::clone(cell);
    Decision::explained(hold, Details { cell, verdict, limits, blocking, passed, exceeded, asked, retry })
}

fn retry_after(cell: &Cell, blocking: &Seen) -> Option<Retry> {
    if cell.slots.get(blocking.slot)?.limit().window() == Window::Lifetime {
        return Some(Retry::Never);
    }
    blocking.ends_at().map(Retry::At)
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
