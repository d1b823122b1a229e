//! Questions about all tenants at once, whose answer is only those that stand out.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::TenantId;
use crate::quota::{Quota, Window};
use crate::text::Label;
use crate::time::{TimeRange, Zone};
use crate::usage::Quantile;

/// A question about all tenants at once: which of them are past a bound. A store answers it by one set-based query, and what
/// crosses the wire is as large as what is wrong, not as large as there are tenants.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum TenantCheck {
    /// More than so many operations were refused since a quota was used up. The value is their number.
    QuotaExceeded {
        /// When; both ends on a quarter hour, as of all ranges here.
        range: TimeRange,
        /// More than this.
        more_than: u64,
    },
    /// Among the successes and failures more than so many hundredths of a per cent are failures. The value is in per cent.
    ErrorRate {
        /// When.
        range: TimeRange,
        /// More than this, in hundredths of a per cent.
        more_than: u32,
        /// Of at least so many successes and failures.
        calls_min: u64,
    },
    /// A quantile of the latencies is above a bound. The value is in milliseconds.
    Latency {
        /// When.
        range: TimeRange,
        /// Which.
        quantile: Quantile,
        /// Above this, in microseconds.
        more_than_us: u64,
        /// Of at least so many latencies.
        calls_min: u64,
    },
    /// The known cost of a range is more than so many times the mean of earlier ranges in which there was usage, and not
    /// below a floor. The value is in US dollars, the reference is the mean.
    Cost {
        /// When.
        range: TimeRange,
        /// What it is held against: earlier ranges, ascending, that do not overlap.
        history: Vec<TimeRange>,
        /// More than this times the mean.
        times: Decimal,
        /// At least this, in US dollars.
        floor: Decimal,
        /// At least in so many of the earlier ranges there was usage.
        history_min: u32,
    },
    /// At least so many per cent of a limit are used. The value is in per cent, the reference is the limit.
    QuotaUse(QuotaUse),
}

/// How much of one limit is used, of the tenants of one zone.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct QuotaUse {
    /// What is limited.
    pub quota: Quota,
    /// Over what kind of window. A tenant whose own limit for it is over another one (a cycle of another anchor) is left
    /// out.
    pub window: Window,
    /// Of tenants that are in this zone.
    pub zone: Zone,
    /// The zone of tenants that have none of their own.
    pub default_zone: Zone,
    /// The window itself, in that zone.
    pub range: TimeRange,
    /// The limits by plan: `None` stands for tenants without a plan of their own. Plans without one are left out.
    pub plans: Vec<(Option<Label>, u64)>,
    /// At least so many per cent of the limit; a limit of zero is none to have a share of.
    pub percent: u32,
    /// When it is asked: limits of tenants' own that have expired by then do not count.
    pub now: DateTime<Utc>,
}

impl QuotaUse {
    /// A check of the limits of some plans; the tenants' own limits for the same quota and window take their place.
    pub fn new(
        (quota, window): (Quota, Window),
        (zone, default_zone): (Zone, Zone),
        plans: Vec<(Option<Label>, u64)>,
        percent: u32,
        now: DateTime<Utc>,
    ) -> Self {
        let range = window.range_at(now, zone);
        Self { quota, window, zone, default_zone, range, plans, percent, now }
    }

    /// The limit of a tenant of this plan.
    pub fn of_plan(&self, plan: Option<&Label>) -> Option<u64> {
        self.plans.iter().find(|(other, _)| other.as_ref() == plan).map(|(_, units)| *units)
    }
}

/// A tenant that stands out.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Breach {
    /// Who.
    pub tenant_id: TenantId,
    /// What was measured.
    pub value: Decimal,
    /// What it is relative to, where the check has such a thing; zero otherwise.
    pub reference: Decimal,
}

impl Breach {
    /// A tenant that stands out; for stores.
    pub fn new(tenant_id: TenantId, value: Decimal, reference: Decimal) -> Self {
        Self { tenant_id, value, reference }
    }
}

/// What limits there may be beside those of plans.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct QuotaWindows {
    /// The zones that tenants have of their own, each once.
    pub zones: Vec<Zone>,
    /// The quotas and windows that tenants have limits of their own for, each once.
    pub windows: Vec<(Quota, Window)>,
}

impl QuotaWindows {
    /// What a store found.
    pub fn new(zones: Vec<Zone>, windows: Vec<(Quota, Window)>) -> Self {
        Self { zones, windows }
    }
}

/// What has been appended and not yet been aggregated.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct AggregationBacklog {
    /// The start of the earliest quarter hour of which something is left to be aggregated.
    pub oldest: Option<DateTime<Utc>>,
}

impl AggregationBacklog {
    /// What a store found.
    pub fn new(oldest: Option<DateTime<Utc>>) -> Self {
        Self { oldest }
    }
}
