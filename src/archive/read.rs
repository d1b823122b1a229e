//! Archived events, asked for as those in the database are.

use std::io::Write;

use uuid::Uuid;

use super::Archive;
use super::files::manifest_of;
use crate::page::{Cursor, Page};
use crate::store::{ClosedDay, DayTable, Store, UpkeepStore};
use crate::time::TimeRange;
use crate::upkeep::{whole_pages, write_page};
use crate::usage::{EventId, EventQuery, UsageEvent};
use crate::{Result, TenantId};

impl Archive {
    /// Events of one tenant, newest first, from the database and the archive together: what [`Store::events`] would say had
    /// nothing been archived. Cursors go on where they were, also when a day was archived between two pages.
    ///
    /// Files of a day are read as a whole, those that may have events of the tenant; a query with a narrow filter over a long
    /// range reads many.
    ///
    /// # Errors
    /// As [`Store::events`]; [`Store`](crate::ErrorKind::Store) if a file is missing or not what its manifest says.
    ///
    /// # Cancel safety
    /// Dropped, nothing was done.
    pub async fn events<S: Store + UpkeepStore>(
        &self,
        store: &S,
        query: &EventQuery,
    ) -> Result<Page<UsageEvent>> {
        // Before and after the events: a day that is dropped or restored in between is read from the archive as well.
        let mut closed = store.closed_days(DayTable::Usage).await?;
        let hot = store.events(query).await?;
        closed.extend(store.closed_days(DayTable::Usage).await?);
        closed.retain(|closed| !closed.is_restored);
        closed.sort_by_key(|closed| closed.day);
        closed.dedup_by_key(|closed| closed.day);
        self.merge(query, &closed, hot).await
    }

    /// Writes a tenant's usage events of a range from both places, newest first, one JSON object a line; gives how many.
    ///
    /// # Errors
    /// As [`events`](Self::events); [`Unavailable`](crate::ErrorKind::Unavailable) if it cannot be written.
    ///
    /// # Cancel safety
    /// Dropped, part of it is written.
    pub async fn export_usage<S: Store + UpkeepStore>(
        &self,
        store: &S,
        tenant_id: &TenantId,
        range: TimeRange,
        out: &mut (impl Write + Send),
    ) -> Result<u64> {
        let mut query = whole_pages(tenant_id, range)?;
        let mut exported = 0;
        loop {
            let page = self.events(store, &query).await?;
            exported += write_page(&page, out)?;
            match page.next {
                Some(next) => query = query.after(next),
                None => return Ok(exported),
            }
        }
    }

    async fn merge(
        &self,
        query: &EventQuery,
        closed: &[ClosedDay],
        hot: Page<UsageEvent>,
    ) -> Result<Page<UsageEvent>> {
        let size = usize::from(query.page_size.get());
        let before = query.position()?.map_or(Uuid::max(), EventId::as_uuid);
        let floor =
            hot.items.last().filter(|_| hot.next.is_some()).map_or(Uuid::nil(), |last| last.id().as_uuid());
        let mut items = hot.items;
        let mut is_cut = hot.next.is_some();
        for day in closed.iter().rev() {
            let start = day.day.and_time(chrono::NaiveTime::MIN).and_utc();
            let end = start + chrono::TimeDelta::days(1);
            let (first, bound) = (EventId::lower_bound(start), EventId::lower_bound(end));
            let is_asked =
                query.range.start() < end && query.range.end() > start && first < before && bound > floor;
            if !is_asked {
                continue;
            }
            if items.iter().filter(|event| event.id().as_uuid() >= bound).count() > size {
                is_cut = true;
                break;
            }
            let Some(manifest) = manifest_of(day)? else {
                continue;
            };
            for part in manifest.parts_of(&query.tenant_id) {
                let events = self.read_part(part).await?;
                items.extend(events.into_iter().filter(|event| {
                    let id = event.id().as_uuid();
                    id < before
                        && id > floor
                        && query.matches(
                            &event.tenant_id,
                            event.occurred_at(),
                            &event.event_type,
                            event.outcome,
                        )
                }));
            }
        }
        items.sort_unstable_by_key(|event| std::cmp::Reverse(event.id()));
        items.dedup_by_key(|event| event.id());
        let has_more = is_cut || items.len() > size;
        items.truncate(size);
        let last = items.last().filter(|_| has_more);
        let next = last.map(|event| Cursor::new(event.id().as_uuid().into_bytes(), query.fingerprint()));
        Ok(Page { items, next })
    }
}
