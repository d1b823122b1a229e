//! Slices: parts of a limit that a store leases to a process, and the rule by which it does.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::TenantId;
use crate::quota::{Quota, Window};
use crate::time::TimeRange;

/// Who holds slices: made anew whenever a process takes up a tenant's limits, so that nothing of a process that died, or of
/// limits that changed, is taken for its own.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct HolderId(Uuid);

impl HolderId {
    /// A new holder.
    pub fn random() -> Self {
        Self(Uuid::new_v4())
    }

    /// The id as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }

    /// An id that was read back.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }
}

impl fmt::Display for HolderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One limit of one tenant in one window: what units belong to.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct LimitKey {
    /// What is limited.
    pub quota: Quota,
    /// Over what kind of window.
    pub window: Window,
    /// The window itself.
    pub range: TimeRange,
}

impl LimitKey {
    /// Whether units leased of another window take from this one: they lie in the same time, because the zone or the anchor
    /// changed in between.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.quota == other.quota
            && self.window.as_str() == other.window.as_str()
            && self.range.start() < other.range.end()
            && other.range.start() < self.range.end()
    }
}

/// Units of a slice that an event used up, written together with the event: they stop to be leased in the same moment in
/// which the event's usage begins to count.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Settlement {
    /// The event's position in its batch.
    pub event: usize,
    /// Whose slice.
    pub holder: HolderId,
    /// Of which limit; the tenant is the event's.
    pub key: LimitKey,
    /// How many units.
    pub amount: u64,
}

/// Units of one slice that its holder gives back.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Returned {
    /// Whose limit.
    pub tenant_id: TenantId,
    /// Whose slice.
    pub holder: HolderId,
    /// Of which limit.
    pub key: LimitKey,
    /// All units that the holder gave back in that window so far.
    pub total: u64,
}

/// A request for units of one limit.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SliceRequest {
    /// Of which limit.
    pub key: LimitKey,
    /// The limit's amount.
    pub allowed: u64,
    /// How many units this process knows to have been granted in this window, over all its requests. Units granted
    /// beyond that were lost on the way (a cut connection, a cancelled call) and are found again by this.
    pub known_granted: u64,
    /// The least that helps.
    pub need: u64,
    /// The most that is of use now.
    pub want: u64,
    /// What this process used beyond its slices and the store does not know yet.
    pub unrecorded: u64,
    /// Whether the limit refuses: one that only warns keeps nothing from being granted together.
    pub binding: bool,
}

/// A request of one process for units of some limits of one tenant.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AcquireRequest {
    /// Whose limits.
    pub tenant_id: TenantId,
    /// Who asks.
    pub holder: HolderId,
    /// When.
    pub now: DateTime<Utc>,
    /// Until when the holder answers for its slices.
    pub expires_at: DateTime<Utc>,
    /// Whether units whose holder no longer answers are sold again, at the risk that they were spent.
    pub reclaim: bool,
    /// Whether nothing is granted unless every need is met.
    pub all_or_none: bool,
    /// What is asked for.
    pub slices: Vec<SliceRequest>,
}

/// How one limit stands, as its store sees it at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Standing {
    /// Recorded usage in the window.
    pub used: u64,
    /// Units leased to the asking process and neither settled nor given back.
    pub leased_here: u64,
    /// Units leased to other processes that answer for them.
    pub leased_elsewhere: u64,
    /// Units leased to processes that no longer answer: perhaps spent, so not sold again in this window.
    pub forfeited: u64,
    /// All units ever granted to the asking process in the window, whatever became of them.
    pub granted_here: u64,
    /// Holders of a slice of this limit that answer for it, the asking one included.
    pub holders: u64,
}

impl Standing {
    /// What is neither used nor leased nor forfeited.
    pub fn left(&self, allowed: u64) -> u64 {
        let taken = [self.leased_here, self.leased_elsewhere, self.forfeited];
        allowed.saturating_sub(taken.into_iter().fold(self.used, u64::saturating_add))
    }

    /// Whether a need can be met: from units that were granted and lost, and from what is left.
    pub fn can_meet(&self, request: &SliceRequest) -> bool {
        let lost = self.granted_here.saturating_sub(request.known_granted);
        let left = self.left(request.allowed).saturating_sub(request.unrecorded);
        lost.saturating_add(left) >= request.need
    }

    /// How many units to grant beyond those granted before. Never more than is left, so that at every grant
    /// used + leased + forfeited ≤ limit; never less than the need, unless nothing. Between the two an eighth of an equal
    /// share of what is left: the slices shrink by themselves as the limit nears, and the last unit can be sold.
    pub fn grant(&self, request: &SliceRequest) -> u64 {
        let lost = self.granted_here.saturating_sub(request.known_granted);
        let need = request.need.saturating_sub(lost);
        let want = request.want.saturating_sub(lost);
        let left = self.left(request.allowed).saturating_sub(request.unrecorded);
        if left < need {
            return 0;
        }
        let share = left / self.holders.max(1).saturating_mul(8);
        want.min(share).max(need)
    }
}

/// The answer to a [`SliceRequest`].
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Granted {
    /// How the limit stood before the grant.
    pub standing: Standing,
    /// The units that were granted now.
    pub granted: u64,
}

impl Granted {
    /// The answers to a request, without any grant if it wants all or none and one need is not met.
    pub fn all_or_none(request: &AcquireRequest, mut answers: Vec<Self>) -> Vec<Self> {
        let meets = |(slice, answer): (&SliceRequest, &Self)| {
            let lost = answer.standing.granted_here.saturating_sub(slice.known_granted);
            !slice.binding || lost.saturating_add(answer.granted) >= slice.need
        };
        if request.all_or_none && !request.slices.iter().zip(&answers).all(meets) {
            for answer in &mut answers {
                answer.granted = 0;
            }
        }
        answers
    }
}
