//! The face of the audit trail.

use std::io::Write;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::audit::key::available;
use crate::audit::queue::Queue;
use crate::audit::sampler::Sampler;
use crate::audit::sealer::Sealer;
use crate::audit::vault::Vault;
use crate::audit::writer::{Tally, bounded};
use crate::audit::{
    Actor, AuditAck, AuditEvent, AuditHealth, AuditLogBuilder, AuditQuery, AuditRecord, AuditReport,
    AuditResult, AuditShutdown, Checkpoint, ExportFormat, PrivacyAudit, SealedBatch, WriterChain,
};
use crate::page::{PAGE_SIZE_MAX, Page, PageSize};
use crate::store::{AuditStore, KeyErased};
use crate::text::Label;
use crate::time::timer::{Instant, after};
use crate::time::{Clock, TimeRange};
use crate::{Error, ErrorKind, Result, TenantId};

/// How long a log that is dropped without a shutdown goes on writing what it has.
const DROP_DRAIN: Duration = Duration::from_secs(30);

/// Records what happened, seals it, and answers questions about it. Clones share one queue, one chain of batches and one set
/// of background tasks.
///
/// ```
/// use metertrail::audit::{Actor, AuditLog, KbAudit, Verifier};
/// use metertrail::time::{Clock, SystemClock};
/// use metertrail::{Label, MemoryStore, TenantId};
/// use std::sync::Arc;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = Arc::new(MemoryStore::new());
/// let log = AuditLog::start(Arc::clone(&store))?;
/// let tenant = TenantId::new("acme")?;
///
/// let deleted = KbAudit::Deleted { document: Label::new("document", "d-9")?, reason: None };
/// let event = log.event(&tenant, Actor::user("u-71")?, &deleted)?;
/// log.record(event).await?; // or not awaited: fire and forget
///
/// assert_eq!(log.tenant_audit_trail(&tenant, 7).await?.len(), 1);
/// log.seal_epoch().await?;
/// assert!(Verifier::new(store).full(SystemClock.now()).await?.is_clean());
///
/// let report = log.shutdown(std::time::Duration::from_secs(5)).await?;
/// assert_eq!((report.written, report.unwritten.len()), (1, 0));
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
pub struct AuditLog {
    handle: Arc<Handle>,
}

/// What became of a request to forget a person.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Erasure {
    /// The person's data can no longer be read by anybody, and the trail says that it was erased.
    Erased {
        /// Whether there was a key to delete: a repeated request finds none.
        had_key: bool,
    },
    /// A legal hold forbids it, for this reason. Nothing was done.
    Held(Label),
}

/// What all clones of one log share. When the last goes, the tasks drain and end.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) store: Arc<dyn AuditStore>,
    pub(super) vault: Vault,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) queue: Arc<Queue>,
    pub(super) tally: Arc<Tally>,
    pub(super) sampler: Sampler,
    pub(super) sealer: Sealer,
    pub(super) seals_by_itself: bool,
    pub(super) stop: watch::Sender<Option<Instant>>,
    pub(super) writer: Mutex<Option<JoinHandle<Vec<AuditEvent>>>>,
}

impl AuditLog {
    pub(super) fn of(handle: Handle) -> Self {
        Self { handle: Arc::new(handle) }
    }

    /// A log with the default settings: no keys, so hashes only.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) outside of a tokio runtime.
    pub fn start(store: impl AuditStore) -> Result<Self> {
        Self::builder(store).start()
    }

    /// A log with other settings.
    pub fn builder(store: impl AuditStore) -> AuditLogBuilder {
        AuditLogBuilder::new(Arc::new(store))
    }

    /// An event of now.
    ///
    /// # Errors
    /// As [`AuditEvent::new`].
    pub fn event(
        &self,
        tenant_id: &TenantId,
        actor: Actor,
        record: &(impl AuditRecord + ?Sized),
    ) -> Result<AuditEvent> {
        AuditEvent::new(tenant_id.clone(), self.handle.clock.now(), actor, record)
    }

    /// Puts an event into the queue. Costs no I/O and does not wait, unless the acknowledgement is awaited. Security events
    /// and what did not succeed are never sampled.
    pub fn record(&self, mut event: AuditEvent) -> AuditAck {
        if self.handle.queue.is_closed() || self.handle.sampler.keeps(&mut event) {
            AuditAck::of(&self.handle.queue, event)
        } else {
            AuditAck::sampled_out(&self.handle.queue, event.id())
        }
    }

    /// Seals events as a batch and a chain of their own, for
    /// [`PostgresStore::append_audit_in`](crate::PostgresStore::append_audit_in): they then commit with the caller's own
    /// rows or not at all.
    ///
    /// # Errors
    /// As [`WriterChain::seal`]; [`Unavailable`](ErrorKind::Unavailable) if the keys cannot be had; the store's, where an event
    /// has personal data.
    pub async fn seal_batch(&self, mut events: Vec<AuditEvent>) -> Result<SealedBatch> {
        self.handle.vault.seal(&mut events).await?;
        let key = available(self.handle.vault.keys.writer_key())?;
        WriterChain::new(self.handle.sealer.origin.clone()).seal(
            events,
            key.as_ref(),
            self.handle.clock.now(),
        )
    }

    /// Seals what is written and not sealed yet, and anchors it. Gives the last checkpoint, if there was anything to seal.
    /// The log does this by itself at intervals; any number of processes may.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store) if the trees are not what the latest epoch sealed: a seal over them would hide it;
    /// whatever the store meets.
    pub async fn seal_epoch(&self) -> Result<Option<Checkpoint>> {
        self.handle.sealer.seal_all().await
    }

    /// The newest events of a tenant in the last days; at most 1,000. For more, ask by [`trail`](Self::trail).
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `days` if it is zero; the store's.
    pub async fn tenant_audit_trail(&self, tenant_id: &TenantId, days: u16) -> Result<Vec<AuditEvent>> {
        self.newest(self.last_days(tenant_id, days)?).await
    }

    /// What failed or was denied in the last days, newest first; at most 1,000.
    ///
    /// # Errors
    /// As [`tenant_audit_trail`](Self::tenant_audit_trail).
    pub async fn failed_operations(&self, tenant_id: &TenantId, days: u16) -> Result<Vec<AuditEvent>> {
        let query = self.last_days(tenant_id, days)?;
        self.newest(query.result(AuditResult::Failure).result(AuditResult::Denied)).await
    }

    /// The security events of the last days, newest first; at most 1,000.
    ///
    /// # Errors
    /// As [`tenant_audit_trail`](Self::tenant_audit_trail).
    pub async fn security_events(&self, tenant_id: &TenantId, days: u16) -> Result<Vec<AuditEvent>> {
        self.newest(self.last_days(tenant_id, days)?.security()).await
    }

    /// All of the last days, to be narrowed and asked page by page.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `days` if it is zero.
    pub fn last_days(&self, tenant_id: &TenantId, days: u16) -> Result<AuditQuery> {
        AuditQuery::last_days(tenant_id.clone(), days, self.handle.clock.now())
    }

    /// A page of a tenant's trail, newest first.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `cursor` if it comes from another query; the store's.
    pub async fn trail(&self, query: &AuditQuery) -> Result<Page<AuditEvent>> {
        self.handle.store.audit_trail(query).await
    }

    /// Writes every event that a query asks for, newest first, one line each; gives how many. Personal data leaves encrypted.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if it cannot be written; as [`trail`](Self::trail).
    pub async fn export(
        &self,
        query: &AuditQuery,
        format: ExportFormat,
        to: &mut (dyn Write + Send),
    ) -> Result<u64> {
        let mut query = query.clone().page_size(PageSize::new(PAGE_SIZE_MAX)?);
        let mut count = 0;
        loop {
            let page = self.trail(&query).await?;
            for event in &page.items {
                writeln!(to, "{}", format.line(event)?).map_err(|error| {
                    Error::new(ErrorKind::Unavailable, "the export cannot be written").with_source(error)
                })?;
                count += 1;
            }
            match page.next {
                Some(next) => query = query.after(next),
                None => return Ok(count),
            }
        }
    }

    /// What happened to a tenant in a range, counted. It reads every event of the range, page by page.
    ///
    /// # Errors
    /// The store's.
    pub async fn audit_report(&self, tenant_id: &TenantId, range: TimeRange) -> Result<AuditReport> {
        let mut report = AuditReport::new(tenant_id.clone(), range, self.handle.clock.now());
        let mut query = AuditQuery::new(tenant_id.clone(), range).page_size(PageSize::new(PAGE_SIZE_MAX)?);
        loop {
            let page = self.handle.store.audit_trail(&query).await?;
            page.items.iter().for_each(|event| report.add(event));
            match page.next {
                Some(next) => query = query.after(next),
                None => break,
            }
        }
        let from = self.handle.store.audit_state().await?.epoch;
        report.set_sealed(from.as_ref())?;
        Ok(report)
    }

    /// The text of one of an event's personal fields; `None` if the person was forgotten.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on nothing else than a field that the event does not have;
    /// [`Store`](ErrorKind::Store) if the data or its key was altered; whatever the store meets.
    pub async fn open_personal(&self, event: &AuditEvent, field: &str) -> Result<Option<String>> {
        self.handle.vault.open(event, &Label::new("personal", field)?).await
    }

    /// Forgets a person: deletes the key of the data about it, and records the request and the deed. What is left is random
    /// bytes; every seal and proof stands. What other processes record about the person at the same time meets a new key:
    /// stop them first. To be called again if it fails.
    ///
    /// # Errors
    /// The store's.
    pub async fn erase_subject(
        &self,
        tenant_id: &TenantId,
        subject: &Label,
        actor: Actor,
    ) -> Result<Erasure> {
        // Written behind all that is in the queue: what is recorded later meets another key.
        let requested = PrivacyAudit::ErasureRequested { subject: subject.clone() };
        self.record(self.event(tenant_id, actor.clone(), &requested)?).await?;
        let had_key = match self.handle.store.erase_subject_key(tenant_id, subject).await? {
            KeyErased::Held(reason) => return Ok(Erasure::Held(reason)),
            KeyErased::Erased => true,
            KeyErased::Absent => false,
        };
        let erased = PrivacyAudit::SubjectErased { subject: subject.clone(), had_key };
        self.record(self.event(tenant_id, actor, &erased)?).await?;
        Ok(Erasure::Erased { had_key })
    }

    /// Forbids to forget a person, or anybody of the tenant, and records that.
    ///
    /// # Errors
    /// The store's.
    pub async fn place_hold(
        &self,
        tenant_id: &TenantId,
        subject: Option<&Label>,
        reason: &Label,
        actor: Actor,
    ) -> Result<()> {
        self.handle.store.set_legal_hold(tenant_id, subject, Some(reason)).await?;
        let placed =
            PrivacyAudit::HoldPlaced { subject: subject.cloned(), reason: reason.as_str().to_owned() };
        self.record(self.event(tenant_id, actor, &placed)?).await.map(|_| ())
    }

    /// Allows it again, and records that.
    ///
    /// # Errors
    /// The store's.
    pub async fn release_hold(
        &self,
        tenant_id: &TenantId,
        subject: Option<&Label>,
        actor: Actor,
    ) -> Result<()> {
        self.handle.store.set_legal_hold(tenant_id, subject, None).await?;
        let released = PrivacyAudit::HoldReleased { subject: subject.cloned() };
        self.record(self.event(tenant_id, actor, &released)?).await.map(|_| ())
    }

    /// How the log is doing.
    pub fn health(&self) -> AuditHealth {
        let Handle { queue, tally, sampler, .. } = &*self.handle;
        AuditHealth {
            pending: queue.pending(),
            written: tally.written.load(Ordering::Relaxed),
            batches: tally.batches.load(Ordering::Relaxed),
            epochs: tally.epochs.load(Ordering::Relaxed),
            rejected: tally.rejected.load(Ordering::Relaxed),
            dropped: queue.dropped(),
            sampled_out: sampler.total(),
            retries: tally.retries.load(Ordering::Relaxed),
            write_error: tally.write_error(),
            seal_error: tally.seal_error(),
        }
    }

    /// Takes no more events, writes what there is, for `limit` at most, seals it, if the log seals by itself, and reports. To
    /// be called once, for all clones.
    ///
    /// # Errors
    /// [`ShutDown`](ErrorKind::ShutDown) if it was called before.
    ///
    /// # Cancel safety
    /// Dropped, the writing goes on in the background until the limit, but the report is lost.
    pub async fn shutdown(&self, limit: Duration) -> Result<AuditShutdown> {
        let handle = &self.handle;
        let task = handle.writer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let task =
            task.ok_or_else(|| Error::new(ErrorKind::ShutDown, "the audit log is already shut down"))?;
        handle.stop(limit);
        let unwritten = task.await.map_err(|error| {
            Error::new(ErrorKind::Misuse, "the runtime ended the audit log's task").with_source(error)
        })?;
        if handle.seals_by_itself {
            // What fails here is in the health, and is done by whoever seals next.
            let _ = bounded(limit, handle.sealer.seal_all()).await;
        }
        let health = self.health();
        Ok(AuditShutdown {
            written: health.written,
            dropped: health.dropped,
            rejected: handle.tally.take_rejected(),
            unwritten,
        })
    }

    async fn newest(&self, query: AuditQuery) -> Result<Vec<AuditEvent>> {
        let query = query.page_size(PageSize::new(PAGE_SIZE_MAX)?);
        Ok(self.handle.store.audit_trail(&query).await?.items)
    }
}

impl Handle {
    fn stop(&self, limit: Duration) {
        // What was left out of samples is in the trail with the last of it, so that counts add up.
        self.sampler.drain().into_iter().for_each(|event| drop(AuditAck::of(&self.queue, event)));
        self.queue.close();
        self.stop.send_replace(Some(after(limit)));
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if self.writer.lock().unwrap_or_else(PoisonError::into_inner).is_some() {
            self.stop(DROP_DRAIN);
        }
    }
}
