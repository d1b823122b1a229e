//! Archiving, restoring and erasing: each a task, so that one process does it at a time.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};

use super::files::{altered, manifest_of};
use super::{Archive, Manifest};
use crate::store::{DayDropped, DayOpened, DayTable, DropDay, UPKEEP_READ_MAX, UpkeepStore};
use crate::upkeep::{Run, Schedule, UpkeepTask, droppable, first_kept};
use crate::usage::{EventId, UsageEvent};
use crate::{Error, ErrorKind, Result, TenantId};

/// The most events in one file.
const PART_EVENTS_MAX: usize = 50_000;
/// Events that are staged by one call.
const STAGE_EVENTS_MAX: usize = 5_000;

impl Archive {
    /// The task that archives the days of usage events that are older than 30 days, or than [`after_days`](Archiving::after_days)
    /// says. Give it to [`UpkeepBuilder::task`](crate::upkeep::UpkeepBuilder::task).
    pub fn archiving(&self, store: impl UpkeepStore) -> Archiving {
        Archiving {
            archive: self.clone(),
            store: Arc::new(store),
            days: 30,
            interval: Duration::from_secs(60 * 60),
        }
    }

    /// The task that brings a day's events back into the database, where they stay until an instant and are archived again.
    /// Give it to [`Upkeep::run_once`](crate::upkeep::Upkeep::run_once).
    pub fn restoring(&self, store: impl UpkeepStore, day: NaiveDate, kept_until: DateTime<Utc>) -> Restoring {
        Restoring { archive: self.clone(), store: Arc::new(store), day, kept_until }
    }

    /// The task that erases a tenant from the archive: files with events of it are written anew without them. Give it to
    /// [`Upkeep::run_once`](crate::upkeep::Upkeep::run_once), after
    /// [`UpkeepStore::erase_usage`] has erased what is in the database.
    pub fn erasing(&self, store: impl UpkeepStore, tenant_id: TenantId) -> Erasing {
        Erasing { archive: self.clone(), store: Arc::new(store), tenant_id }
    }
}

/// `archive`: writes old days to the archive, reads them back, compares them with the database, and only then drops them.
/// Days with usage that is held stay.
#[derive(Clone, Debug)]
#[must_use]
pub struct Archiving {
    archive: Archive,
    store: Arc<dyn UpkeepStore>,
    days: u32,
    interval: Duration,
}

impl Archiving {
    /// For how many days, of at least 1, events stay in the database.
    pub fn after_days(mut self, days: u32) -> Self {
        self.days = days.max(1);
        self
    }

    /// How often it looks for days to archive; every hour by default.
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Archives one day; gives how many events were dropped.
    async fn archive(&self, run: &Run, day: NaiveDate) -> Result<u64> {
        // An attempt that ended early may have left all that is needed.
        let left = self.archive.newest_manifest(day).await?;
        let manifest = match left {
            Some(manifest) if self.is_that_of_database(&manifest).await? => manifest,
            _ => self.write(run, day).await?,
        };
        let (text, sha256) = self.archive.write_manifest(&manifest, run.fence().token).await?;
        let digest = manifest.digest();
        let drop = DropDay { day, digest, manifest: Some((text, sha256.clone())), now: run.now() };
        match self.store.drop_day(run.fence(), &drop).await? {
            DayDropped::Dropped => {
                self.archive.tidy(&manifest, &sha256).await?;
                Ok(digest.events)
            }
            DayDropped::Fenced => Err(run.lost()),
            // What came in meanwhile, and what is held, is for a later run.
            DayDropped::Changed | DayDropped::Held | DayDropped::Gone => Ok(0),
        }
    }

    async fn write(&self, run: &Run, day: NaiveDate) -> Result<Manifest> {
        let mut manifest = Manifest::new(day);
        let mut events: Vec<UsageEvent> = Vec::new();
        let mut after: Option<(TenantId, EventId)> = None;
        loop {
            let page = self.page(day, after.as_ref()).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some((last.tenant_id.clone(), last.id()));
            events.extend(page);
            if events.len() >= PART_EVENTS_MAX {
                self.archive
                    .write_part(&mut manifest, run.fence().token, std::mem::take(&mut events))
                    .await?;
            }
        }
        if !events.is_empty() {
            self.archive.write_part(&mut manifest, run.fence().token, events).await?;
        }
        Ok(manifest)
    }

    async fn page(&self, day: NaiveDate, after: Option<&(TenantId, EventId)>) -> Result<Vec<UsageEvent>> {
        let after = after.map(|(tenant_id, id)| (tenant_id, *id));
        self.store.day_events(day, after, UPKEEP_READ_MAX).await
    }

    /// Whether the files of a manifest are there, are as it says, and have what the database has of the day.
    async fn is_that_of_database(&self, manifest: &Manifest) -> Result<bool> {
        let mut found = Manifest::new(manifest.day);
        let mut after: Option<(TenantId, EventId)> = None;
        for part in &manifest.parts {
            let archived = match self.archive.read_part(part).await {
                Ok(archived) => archived,
                Err(error) if error.is_transient() => return Err(error),
                Err(error) => {
                    tracing::warn!(%error, "metertrail: an archive that is not finished is damaged: it is written anew");
                    return Ok(false);
                }
            };
            let mut rest = archived.as_slice();
            while !rest.is_empty() {
                let limit = u32::try_from(rest.len()).unwrap_or(u32::MAX).min(UPKEEP_READ_MAX);
                let from = after.as_ref().map(|(tenant_id, id)| (tenant_id, *id));
                let page = self.store.day_events(manifest.day, from, limit).await?;
                let Some(same) = rest.split_off(..page.len()).filter(|same| *same == page.as_slice()) else {
                    return Ok(false);
                };
                let Some(last) = same.last() else {
                    return Ok(false);
                };
                after = Some((last.tenant_id.clone(), last.id()));
            }
            found.count(part.path.clone(), part.bytes, part.sha256.clone(), &archived);
        }
        Ok(found == *manifest && self.page(manifest.day, after.as_ref()).await?.is_empty())
    }
}

#[async_trait]
impl UpkeepTask for Archiving {
    fn name(&self) -> &'static str {
        "archive"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(self.interval).time_limit(Duration::from_secs(6 * 60 * 60))
    }

    async fn run(&self, run: &Run) -> Result<u64> {
        let before = first_kept(run.now(), self.days);
        let mut archived = 0;
        for day in droppable(&*self.store, before, run.now()).await? {
            archived += self.archive(run, day).await?;
        }
        Ok(archived)
    }
}

/// `restore`: see [`Archive::restoring`].
#[derive(Clone, Debug)]
pub struct Restoring {
    archive: Archive,
    store: Arc<dyn UpkeepStore>,
    day: NaiveDate,
    kept_until: DateTime<Utc>,
}

#[async_trait]
impl UpkeepTask for Restoring {
    fn name(&self) -> &'static str {
        "restore"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(Duration::from_secs(1))
    }

    async fn run(&self, run: &Run) -> Result<u64> {
        let closed = self.store.closed_days(DayTable::Usage).await?;
        let closed = closed.into_iter().find(|closed| closed.day == self.day && !closed.is_restored);
        let Some(manifest) = closed.as_ref().map(manifest_of).transpose()?.flatten() else {
            let rule = format!("{} is not in the archive", self.day);
            return Err(Error::invalid("day", rule));
        };
        self.store.unstage_day(self.day).await?;
        for part in &manifest.parts {
            for events in self.archive.read_part(part).await?.chunks(STAGE_EVENTS_MAX) {
                self.store.stage_events(events).await?;
            }
        }
        match self.store.open_day(run.fence(), self.day, self.kept_until).await? {
            DayOpened::Opened | DayOpened::Open => Ok(manifest.digest().events),
            DayOpened::Fenced => Err(run.lost()),
            DayOpened::Changed => {
                Err(altered(&format!("the archive of {}", self.day), "has other events than were dropped"))
            }
        }
    }
}

/// `archive-erase`: see [`Archive::erasing`].
#[derive(Clone, Debug)]
pub struct Erasing {
    archive: Archive,
    store: Arc<dyn UpkeepStore>,
    tenant_id: TenantId,
}

impl Erasing {
    /// Writes a day anew without the tenant; gives how many events were erased.
    async fn erase(&self, run: &Run, before: &Manifest, before_sha256: &str) -> Result<u64> {
        let Some(count) = before.tenants.get(&self.tenant_id).copied() else {
            // An erasure that ended early may have left files that nothing names.
            self.archive.tidy(before, before_sha256).await?;
            return Ok(0);
        };
        let mut after = Manifest::new(before.day);
        for part in &before.parts {
            let mut events = self.archive.read_part(part).await?;
            events.retain(|event| event.tenant_id != self.tenant_id);
            if !events.is_empty() {
                self.archive.write_part(&mut after, run.fence().token, events).await?;
            }
        }
        let (text, sha256) = self.archive.write_manifest(&after, run.fence().token).await?;
        let manifest = Some((text, sha256.clone()));
        let drop = DropDay { day: after.day, digest: after.digest(), manifest, now: run.now() };
        if !self.store.replace_archive(run.fence(), before_sha256, &drop).await? {
            return Err(run.lost());
        }
        self.archive.tidy(&after, &sha256).await?;
        Ok(count)
    }
}

#[async_trait]
impl UpkeepTask for Erasing {
    fn name(&self) -> &'static str {
        "archive-erase"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(Duration::from_secs(1)).time_limit(Duration::from_secs(6 * 60 * 60))
    }

    async fn run(&self, run: &Run) -> Result<u64> {
        if self.store.usage_holds().await?.iter().any(|(held, _)| *held == self.tenant_id) {
            let message = format!("the usage of tenant {} is under legal hold", self.tenant_id);
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        let mut erased = 0;
        for closed in self.store.closed_days(DayTable::Usage).await? {
            let Some(manifest) = manifest_of(&closed)? else {
                continue;
            };
            let sha256 = closed.manifest.as_ref().map_or("", |(_, sha256)| sha256);
            erased += self.erase(run, &manifest, sha256).await?;
        }
        Ok(erased)
    }
}
