//! Holding what is kept of a tenant against its events. Only quarter hours are kept: longer periods are added up when they
//! are asked for, so they cannot differ on their own.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};

use super::Tenant;
use crate::TenantId;
use crate::quota::{Reconcile, Reconciliation};
use crate::time::{Period, TimeRange, bucket_start};
use crate::usage::UsageMetrics;

impl Tenant {
    pub(super) fn reconcile(
        &mut self,
        tenant_id: &TenantId,
        range: TimeRange,
        mode: Reconcile,
        is_dropped: impl Fn(NaiveDate) -> bool,
    ) -> Reconciliation {
        let mut report = Reconciliation::new(tenant_id.clone(), range, mode);
        let mut sums: BTreeMap<DateTime<Utc>, UsageMetrics> = BTreeMap::new();
        for event in self.events.values().filter(|event| range.contains(event.occurred_at())) {
            sums.entry(bucket_start(event.occurred_at())).or_default().add(event);
        }
        let kept = self.quarter_hours.range(range.start()..range.end());
        let starts: BTreeSet<DateTime<Utc>> =
            kept.map(|(start, _)| *start).chain(sums.keys().copied()).collect();
        for start in starts {
            report.periods += 1;
            let day = start.date_naive();
            if is_dropped(day) || self.pruned_before.is_some_and(|before| day < before) {
                report.note_unverifiable(Period::QuarterHour, start);
                continue;
            }
            let events = sums.remove(&start).unwrap_or_default();
            let kept = self.quarter_hours.get(&start).cloned().unwrap_or_default();
            if report.compare(Period::QuarterHour, start, &events, &kept) && mode == Reconcile::Repair {
                self.quarter_hours.insert(start, events);
            }
        }
        self.ledger.reconcile(&mut report);
        report
    }

    pub(super) fn has_usage(&self, range: TimeRange) -> bool {
        self.quarter_hours.range(range.start()..range.end()).next().is_some()
    }
}
