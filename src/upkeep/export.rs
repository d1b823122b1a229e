//! A tenant's usage as lines of JSON, to hand it over.

use std::io::Write;

use crate::page::{Page, PageSize};
use crate::store::Store;
use crate::time::TimeRange;
use crate::usage::{EventQuery, UsageEvent};
use crate::{Error, ErrorKind, Result, TenantId};

/// Writes a tenant's usage events of a range, newest first, one JSON object a line; gives how many. With the archive, use
/// `Archive::export_usage`, which has the archived ones as well. It is written by the calling task: for tools and jobs, not for
/// handlers.
///
/// ```
/// use metertrail::time::{Clock, SystemClock};
/// use metertrail::upkeep::export_usage;
/// use metertrail::{EventType, MemoryStore, Outcome, Period, Store, TenantId, UsageEvent, Zone};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (store, acme, now) = (MemoryStore::new(), TenantId::new("acme")?, SystemClock.now());
/// store.append(&[UsageEvent::new(acme.clone(), EventType::Search, Outcome::Success, now)?], &[]).await?;
///
/// let mut lines = Vec::new();
/// let today = Period::Day.range_at(now, Zone::UTC);
/// assert_eq!(export_usage(&store, &acme, today, &mut lines).await?, 1);
/// assert!(String::from_utf8_lossy(&lines).contains(r#""event_type":"search""#));
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) if it cannot be written; whatever the store meets.
///
/// # Cancel safety
/// Dropped, part of it is written.
pub async fn export_usage(
    store: &(impl Store + ?Sized),
    tenant_id: &TenantId,
    range: TimeRange,
    out: &mut (impl Write + Send),
) -> Result<u64> {
    let mut query = whole_pages(tenant_id, range)?;
    let mut exported = 0;
    loop {
        let page = store.events(&query).await?;
        exported += write_page(&page, out)?;
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok(exported),
        }
    }
}

pub(crate) fn whole_pages(tenant_id: &TenantId, range: TimeRange) -> Result<EventQuery> {
    Ok(EventQuery::new(tenant_id.clone(), range).page_size(PageSize::new(crate::page::PAGE_SIZE_MAX)?))
}

pub(crate) fn write_page(page: &Page<UsageEvent>, out: &mut impl Write) -> Result<u64> {
    for event in &page.items {
        let line = serde_json::to_string(event).map_err(|error| {
            Error::new(ErrorKind::Misuse, "an event cannot be written").with_source(error)
        })?;
        writeln!(out, "{line}").map_err(|error| {
            Error::new(ErrorKind::Unavailable, "the export cannot be written").with_source(error)
        })?;
    }
    Ok(u64::try_from(page.items.len()).unwrap_or(u64::MAX))
}
