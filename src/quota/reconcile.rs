//! What a reconciliation finds: metrics that are not the sum of the events, slices whose counters cannot be.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;

use crate::TenantId;
use crate::quota::{HolderId, Quota};
use crate::time::{Period, TimeRange};
use crate::usage::{UsageDrift, UsageField, UsageMetrics};

/// The longest range that is reconciled in one call, in days: three months.
pub const RECONCILE_DAYS_MAX: u16 = 93;
/// The most drifts, and the most unverifiable periods, that a [`Reconciliation`] lists; beyond that they are counted.
pub const DRIFTS_LISTED_MAX: usize = 1_000;

/// Whether what is found is mended.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reconcile {
    /// It is reported, and nothing is changed.
    DryRun,
    /// It is reported and mended, in one step.
    Repair,
}

/// One holder's slice of one limit in one window, as a store names it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct SliceName {
    /// What is limited.
    pub quota: Quota,
    /// The kind of the window: [`Window::as_str`](crate::quota::Window::as_str).
    pub window: String,
    /// Where the window starts.
    pub window_start: DateTime<Utc>,
    /// Whose slice it is.
    pub holder: HolderId,
}

/// Something that is not as the events, or the rules of slices, would have it.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Drift {
    /// A number of a period is not what the events of the period add up to. Mended by what they add up to.
    Usage {
        /// The kind of the period, of UTC.
        period: Period,
        /// Where the period starts.
        start: DateTime<Utc>,
        /// Which number.
        field: UsageField,
        /// What the events say.
        events: Decimal,
        /// What is kept, together with what is not rolled up yet.
        kept: Decimal,
    },
    /// The metrics of a period cannot be read. Mended by what its events add up to.
    Unreadable {
        /// The kind of the period, of UTC.
        period: Period,
        /// Where the period starts.
        start: DateTime<Utc>,
        /// Why not.
        reason: String,
    },
    /// More of a slice was given back and settled than was ever granted. Mended by settling what was left of it.
    OverSettled {
        /// Which slice.
        slice: SliceName,
        /// Units granted.
        granted: u64,
        /// Units given back.
        returned: u64,
        /// Units settled by events.
        settled: u64,
    },
    /// Events settled units of a slice that does not exist. Mended by forgetting that they did.
    NoSlice {
        /// Which slice.
        slice: SliceName,
        /// Units settled by events.
        settled: u64,
    },
}

/// What a reconciliation of one tenant found, and whether it mended it.
///
/// ```
/// use metertrail::quota::Reconcile;
/// use metertrail::time::{Clock, Period, SystemClock, Zone};
/// use metertrail::{EventType, MemoryStore, Outcome, Store, TenantId, UsageEvent};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (store, tenant, now) = (MemoryStore::new(), TenantId::new("acme")?, SystemClock.now());
/// store.append(&[UsageEvent::new(tenant.clone(), EventType::Search, Outcome::Success, now)?], &[]).await?;
///
/// let month = Period::Month.range_at(now, Zone::UTC);
/// let report = store.reconcile(&tenant, month, Reconcile::DryRun).await?;
/// assert!(report.is_clean());
/// assert_eq!(report.periods, 1);
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Reconciliation {
    /// Whose.
    pub tenant_id: TenantId,
    /// In which range.
    pub range: TimeRange,
    /// Whether the drifts were mended. Unverifiable periods never are.
    pub mode: Reconcile,
    /// Periods of all kinds that have events or metrics.
    pub periods: u64,
    /// What differs; at most [`DRIFTS_LISTED_MAX`] are listed.
    pub drifts: Vec<Drift>,
    /// How many drifts there are.
    pub drifts_total: u64,
    /// Periods of which something is kept and whose events are gone, at least in part: what is kept is all that is known,
    /// and is left as it is. At most [`DRIFTS_LISTED_MAX`] are listed.
    pub unverifiable: Vec<(Period, DateTime<Utc>)>,
    /// How many unverifiable periods there are.
    pub unverifiable_total: u64,
}

impl Reconciliation {
    /// A report of nothing yet; for stores.
    pub fn new(tenant_id: TenantId, range: TimeRange, mode: Reconcile) -> Self {
        Self {
            tenant_id,
            range,
            mode,
            periods: 0,
            drifts: Vec::new(),
            drifts_total: 0,
            unverifiable: Vec::new(),
            unverifiable_total: 0,
        }
    }

    /// Whether nothing differs.
    pub fn is_clean(&self) -> bool {
        self.drifts_total == 0
    }

    /// Notes a drift; for stores.
    pub fn note(&mut self, drift: Drift) {
        self.drifts_total += 1;
        if self.drifts.len() < DRIFTS_LISTED_MAX {
            self.drifts.push(drift);
        }
    }

    /// Notes a period whose events are gone; for stores.
    pub fn note_unverifiable(&mut self, period: Period, start: DateTime<Utc>) {
        self.unverifiable_total += 1;
        if self.unverifiable.len() < DRIFTS_LISTED_MAX {
            self.unverifiable.push((period, start));
        }
    }

    /// Notes in which numbers a period differs from its events, and says whether it does; for stores.
    pub fn compare(
        &mut self,
        period: Period,
        start: DateTime<Utc>,
        events: &UsageMetrics,
        kept: &UsageMetrics,
    ) -> bool {
        let before = self.drifts_total;
        for UsageDrift { field, events, kept } in UsageDrift::between(events, kept) {
            self.note(Drift::Usage { period, start, field, events, kept });
        }
        self.drifts_total > before
    }

    /// Notes if more of a slice is given back and settled than was granted, and says whether it is; for stores.
    pub fn compare_slice(&mut self, slice: SliceName, granted: u64, returned: u64, settled: u64) -> bool {
        let is_over = returned.saturating_add(settled) > granted;
        if is_over {
            self.note(Drift::OverSettled { slice, granted, returned, settled });
        }
        is_over
    }
}
