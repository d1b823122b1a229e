//! Holding what is kept of a tenant against its events, and mending it.
//!
//! One statement reads the events, the journal and the metrics in one snapshot; there metrics + journal = events, whoever
//! writes meanwhile. A repair locks the rows that differ, as the roll-up does, and reads again. Until it commits nobody can
//! change these rows, and every journal row that it reads is still to be added to them: by a roll-up that waits for the lock
//! or one that comes later. So it makes each row what the events say less what the journal brings, and leaves the journal
//! alone. `docs/decisions/0006-repair-under-the-rows-locks.md` has the whole argument.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, NaiveDate, Utc};
use futures_util::future::try_join_all;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::error::from_postgres;
use super::rows::{JOURNAL_TYPES, JournalRow, get, metrics, natural};
use super::sql;
use crate::page::PageSize;
use crate::quota::{Drift, HolderId, Reconcile, Reconciliation, SliceName};
use crate::time::{Period, TimeRange, Zone};
use crate::usage::{EventId, UsageDelta, UsageDrift, UsageField, UsageMetrics};
use crate::{Error, ErrorKind, Result, TenantId};

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);
/// A period of UTC by its kind and start.
type Place = (Period, DateTime<Utc>);

/// What a period has in each of the three places.
#[derive(Default)]
struct Entry {
    events: UsageMetrics,
    journal: UsageMetrics,
    kept: UsageMetrics,
    /// Latencies as a column of their own counts them, in the journal and in the metrics.
    journal_latencies: u64,
    kept_latencies: u64,
    /// Why the row of metrics cannot be read.
    unreadable: Option<String>,
}

/// The periods that lie in a range as a whole and of which there is anything.
struct Books(BTreeMap<Place, Entry>);

/// Reconciles one tenant; `None`, and nothing is done, if a repair has to wait until the journal is folded.
pub(super) async fn reconcile(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    range: TimeRange,
    mode: Reconcile,
) -> Result<Option<Reconciliation>> {
    let mut report = Reconciliation::new(tenant_id.clone(), range, mode);
    let mut books = Books::read(transaction, tenant_id, range).await?;
    report.periods = u64::try_from(books.0.len()).unwrap_or(u64::MAX);
    // What has a partition now had it when the events were read: to drop one locks the table that they were read from.
    let detached = detached_days(transaction, tenant_id, range).await?;
    for (period, start) in books.take_unverifiable(&detached) {
        report.note_unverifiable(period, start);
    }
    books.0.retain(|place, entry| !entry.drifts(*place).is_empty());
    if mode == Reconcile::Repair && !books.0.is_empty() {
        if books.0.values().any(Entry::has_too_much_in_journal) {
            return Ok(None);
        }
        books = repair(transaction, tenant_id, books).await?;
        if !detached_days(transaction, tenant_id, range).await?.is_subset(&detached) {
            let message = "a partition of events was taken away meanwhile";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
    }
    for drift in books.0.iter().flat_map(|(place, entry)| entry.drifts(*place)) {
        report.note(drift);
    }
    reconcile_slices(transaction, &mut report).await?;
    Ok(Some(report))
}

/// Rewrites the periods that differ, and gives what they were found to be once nobody else could change them.
async fn repair(transaction: &Transaction<'_>, tenant_id: &TenantId, differing: Books) -> Result<Books> {
    let places: Vec<Place> = differing.0.into_keys().collect();
    of_places(transaction, sql::LOCK_USAGE_METRICS, tenant_id, &places).await?;
    let mut books = Books::read(transaction, tenant_id, hull(&places)?).await?;
    let mut gone = Vec::new();
    let mut rewritten = Vec::new();
    for place in places {
        // Locked rows are there; what is not in the books is none of them.
        let Some(entry) = books.0.get(&place) else { continue };
        if entry.has_too_much_in_journal() {
            let message = "the journal has more of a period than its events: roll up and try again";
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let rest = entry.events.without(&entry.journal);
        if rest.is_empty() {
            gone.push(place);
        } else {
            let (_, bucket_start) = place;
            rewritten.push((place, UsageDelta { tenant_id: tenant_id.clone(), bucket_start, metrics: rest }));
        }
    }
    of_places(transaction, sql::DELETE_USAGE_METRICS, tenant_id, &gone).await?;
    // One after the other, but without a wait between two.
    try_join_all(rewritten.iter().map(|(place, delta)| rewrite(transaction, *place, delta))).await?;
    let touched: BTreeSet<Place> =
        gone.into_iter().chain(rewritten.into_iter().map(|(place, _)| place)).collect();
    books.0.retain(|place, entry| touched.contains(place) && !entry.drifts(*place).is_empty());
    Ok(books)
}

async fn rewrite(transaction: &Transaction<'_>, (period, _): Place, delta: &UsageDelta) -> Result<()> {
    let row = JournalRow::new(delta, Uuid::nil())?;
    let period_type = period.as_str();
    let mut parameters: Vec<Parameter<'_>> = row.values().into_iter().zip(JOURNAL_TYPES).collect();
    // The order is the journal's; in place of the batch stands the kind of the period.
    parameters[1] = (&period_type, Type::TEXT);
    transaction.query_typed(sql::REWRITE_USAGE_METRICS, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

async fn of_places(
    transaction: &Transaction<'_>,
    statement: &str,
    tenant_id: &TenantId,
    places: &[Place],
) -> Result<()> {
    let tenant = tenant_id.as_str();
    let (periods, starts): (Vec<&str>, Vec<DateTime<Utc>>) =
        places.iter().map(|(period, start)| (period.as_str(), *start)).unzip();
    let parameters: [Parameter<'_>; 3] =
        [(&tenant, Type::TEXT), (&periods, Type::TEXT_ARRAY), (&starts, Type::TIMESTAMPTZ_ARRAY)];
    transaction.query_typed(statement, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

/// The range from the first of some periods to the end of the last.
fn hull(places: &[Place]) -> Result<TimeRange> {
    let ranges = || places.iter().map(|(period, start)| period.range_at(*start, Zone::UTC));
    let start = ranges().map(|range| range.start()).min();
    let end = ranges().map(|range| range.end()).max();
    let nothing = || Error::new(ErrorKind::Misuse, "no periods are to be repaired");
    TimeRange::new(start.ok_or_else(nothing)?, end.ok_or_else(nothing)?)
}

impl Books {
    async fn read(transaction: &Transaction<'_>, tenant_id: &TenantId, range: TimeRange) -> Result<Self> {
        let tenant = tenant_id.as_str();
        let (start, end) = (range.start(), range.end());
        let (lower, upper) = (EventId::lower_bound(start), EventId::upper_bound(end));
        let parameters: [Parameter<'_>; 5] = [
            (&tenant, Type::TEXT),
            (&lower, Type::UUID),
            (&upper, Type::UUID),
            (&start, Type::TIMESTAMPTZ),
            (&end, Type::TIMESTAMPTZ),
        ];
        let rows = transaction.query_typed(sql::USAGE_BOOKS, &parameters).await.map_err(from_postgres)?;
        let mut books = Self(BTreeMap::new());
        for row in &rows {
            books.enter(row, range)?;
        }
        Ok(books)
    }

    fn enter(&mut self, row: &Row, range: TimeRange) -> Result<()> {
        let source = get::<&str>(row, 28)?;
        let start = get::<DateTime<Utc>>(row, 0)?;
        if source == "metrics" {
            let period: Period = get::<&str>(row, 29)?.parse()?;
            if lies_in(range, period, start) {
                self.0.entry((period, start)).or_default().keep(row);
            }
            return Ok(());
        }
        let (_, sums) = metrics(row)?;
        let latencies = natural(row, 24, get(row, 24)?)?;
        for period in Period::ALL {
            let start = period.range_at(start, Zone::UTC).start();
            if !lies_in(range, period, start) {
                continue;
            }
            let entry = self.0.entry((period, start)).or_default();
            if source == "events" {
                entry.events.merge(&sums);
            } else {
                entry.journal.merge(&sums);
                entry.journal_latencies = entry.journal_latencies.saturating_add(latencies);
            }
        }
        Ok(())
    }

    /// Takes out the periods of which something is kept and whose events are gone: of a day without a partition, or of a
    /// month with such a day. Of a day without a partition of which nothing is kept nothing was ever recorded; a month in
    /// which that is so of each day has nothing to be held against.
    fn take_unverifiable(&mut self, detached: &BTreeSet<NaiveDate>) -> Vec<Place> {
        let is_on_lost_day = |(period, start): &Place, entry: &Entry| {
            *period != Period::Month && detached.contains(&start.date_naive()) && entry.has_kept()
        };
        let lost: BTreeSet<NaiveDate> = self
            .0
            .iter()
            .filter(|(place, entry)| is_on_lost_day(place, entry))
            .map(|((_, start), _)| start.date_naive())
            .collect();
        let is_unverifiable = |place: &Place, entry: &Entry| {
            let (period, start) = *place;
            if period != Period::Month {
                return is_on_lost_day(place, entry);
            }
            let range = period.range_at(start, Zone::UTC);
            let all_detached = days_of(range).all(|day| detached.contains(&day));
            entry.has_kept() && (all_detached || days_of(range).any(|day| lost.contains(&day)))
        };
        let places: Vec<Place> = self
            .0
            .iter()
            .filter(|(place, entry)| is_unverifiable(place, entry))
            .map(|(place, _)| *place)
            .collect();
        for place in &places {
            self.0.remove(place);
        }
        places
    }
}

impl Entry {
    /// Takes in a row of metrics.
    fn keep(&mut self, row: &Row) {
        let read = || Ok::<_, Error>((metrics(row)?.1, natural(row, 24, get(row, 24)?)?));
        match read() {
            Ok((metrics, latencies)) => (self.kept, self.kept_latencies) = (metrics, latencies),
            Err(error) => self.unreadable = Some(error.to_string()),
        }
    }

    fn has_kept(&self) -> bool {
        let is_empty = self.kept.is_empty() && self.journal.is_empty() && self.kept_latencies == 0;
        !is_empty || self.unreadable.is_some()
    }

    /// What is kept, together with what is not rolled up yet.
    fn total(&self) -> UsageMetrics {
        let mut total = self.kept.clone();
        total.merge(&self.journal);
        total
    }

    fn drifts(&self, (period, start): Place) -> Vec<Drift> {
        if let Some(reason) = self.unreadable.clone() {
            return vec![Drift::Unreadable { period, start, reason }];
        }
        let mut drifts = UsageDrift::between(&self.events, &self.total());
        let events = self.events.latency.count();
        let kept = self.kept_latencies.saturating_add(self.journal_latencies);
        if events != kept {
            let field = UsageField::LatencyCount;
            drifts.push(UsageDrift { field, events: events.into(), kept: kept.into() });
        }
        let drift = |UsageDrift { field, events, kept }| Drift::Usage { period, start, field, events, kept };
        drifts.into_iter().map(drift).collect()
    }

    /// Whether the journal alone has more than the events, so that no row of metrics can make up for it.
    fn has_too_much_in_journal(&self) -> bool {
        !self.journal.without(&self.events).is_empty()
            || self.journal_latencies != self.journal.latency.count()
    }
}

fn lies_in(range: TimeRange, period: Period, start: DateTime<Utc>) -> bool {
    let whole = period.range_at(start, Zone::UTC);
    range.start() <= whole.start() && whole.end() <= range.end()
}

/// The days of UTC that a range touches.
fn days_of(range: TimeRange) -> impl Iterator<Item = NaiveDate> {
    range.start().date_naive().iter_days().take_while(move |day| {
        day.and_hms_opt(0, 0, 0).is_some_and(|midnight| midnight.and_utc() < range.end())
    })
}

async fn detached_days(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    range: TimeRange,
) -> Result<BTreeSet<NaiveDate>> {
    let (days, tenant): (Vec<NaiveDate>, &str) = (days_of(range).collect(), tenant_id.as_str());
    let detached = transaction
        .query_typed(sql::DETACHED_USAGE_DAYS, &[(&days, Type::DATE_ARRAY), (&tenant, Type::TEXT)])
        .await
        .map_err(from_postgres)?;
    detached.iter().map(|row| get(row, 0)).collect()
}

/// Looks for slices that cannot be; a repair looks again under the tenant's lock, and mends them.
async fn reconcile_slices(transaction: &Transaction<'_>, report: &mut Reconciliation) -> Result<()> {
    let tenant_id = report.tenant_id.clone();
    let mut drifts = drifting_slices(transaction, &tenant_id).await?;
    if report.mode == Reconcile::Repair && !drifts.is_empty() {
        let (tenant, never) = (tenant_id.as_str(), None::<DateTime<Utc>>);
        let parameters: [Parameter<'_>; 2] = [(&tenant, Type::TEXT), (&never, Type::TIMESTAMPTZ)];
        // Folds settlements as well, and with it forgets those of slices that do not exist.
        transaction.query_typed(sql::LOCK_QUOTAS, &parameters).await.map_err(from_postgres)?;
        drifts.retain(|drift| matches!(drift, Drift::NoSlice { .. }));
        let locked = drifting_slices(transaction, &tenant_id).await?;
        drifts.extend(locked.into_iter().filter(|drift| matches!(drift, Drift::OverSettled { .. })));
        transaction.query_typed(sql::CAP_QUOTA_SLICES, &parameters[..1]).await.map_err(from_postgres)?;
    }
    for drift in drifts {
        report.note(drift);
    }
    Ok(())
}

async fn drifting_slices(transaction: &Transaction<'_>, tenant_id: &TenantId) -> Result<Vec<Drift>> {
    let tenant = tenant_id.as_str();
    let rows = transaction
        .query_typed(sql::DRIFTING_QUOTA_SLICES, &[(&tenant, Type::TEXT)])
        .await
        .map_err(from_postgres)?;
    let drift = |row: &Row| {
        let slice = SliceName {
            quota: get::<&str>(row, 0)?.parse()?,
            window: get(row, 1)?,
            window_start: get(row, 2)?,
            holder: HolderId::from_uuid(get(row, 3)?),
        };
        let (returned, settled) = (natural(row, 5, get(row, 5)?)?, natural(row, 6, get(row, 6)?)?);
        Ok(match get::<Option<i64>>(row, 4)? {
            Some(granted) => {
                Drift::OverSettled { slice, granted: natural(row, 4, granted)?, returned, settled }
            }
            None => Drift::NoSlice { slice, settled },
        })
    };
    rows.iter().map(drift).collect()
}

pub(super) async fn tenants(
    transaction: &Transaction<'_>,
    range: TimeRange,
    after: Option<&TenantId>,
    page_size: PageSize,
) -> Result<Vec<TenantId>> {
    // No id is empty, so all of them come after this.
    let after = after.map_or("", TenantId::as_str);
    let (start, end) = (range.start(), range.end());
    let (lower, upper) = (EventId::lower_bound(start), EventId::upper_bound(end));
    let limit = i64::from(page_size.get());
    let parameters: [Parameter<'_>; 6] = [
        (&after, Type::TEXT),
        (&lower, Type::UUID),
        (&upper, Type::UUID),
        (&start, Type::TIMESTAMPTZ),
        (&end, Type::TIMESTAMPTZ),
        (&limit, Type::INT8),
    ];
    let rows = transaction.query_typed(sql::USAGE_TENANTS, &parameters).await.map_err(from_postgres)?;
    rows.iter().map(|row| TenantId::new(get::<&str>(row, 0)?)).collect()
}
