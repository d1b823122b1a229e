//! Writes the queue to the store, one sealed batch behind the other, until everything accepted is kept or the time for it is
//! over.
//!
//! One batch is on its way at a time: the next one names it. A batch whose fate is not known is written again as it is.

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::audit::key::available;
use crate::audit::queue::{Pending, Queue};
use crate::audit::vault::Vault;
use crate::audit::{AuditEvent, SealedBatch, WriterChain};
use crate::store::BatchAppended;
use crate::time::Clock;
use crate::time::timer::{Instant, passed, with_jitter};
use crate::{Error, ErrorKind, Result};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Refused events kept for the shutdown report.
const REJECTED_KEPT_MAX: usize = 1_000;

/// What was written and sealed, for [`AuditHealth`](crate::audit::AuditHealth) and the shutdown report.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) written: AtomicU64,
    pub(crate) batches: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) retries: AtomicU64,
    pub(crate) epochs: AtomicU64,
    kept_aside: Mutex<VecDeque<(AuditEvent, Error)>>,
    write_error: Mutex<Option<Error>>,
    seal_error: Mutex<Option<Error>>,
}

impl Tally {
    pub(crate) fn write_error(&self) -> Option<Error> {
        self.write_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn seal_error(&self) -> Option<Error> {
        self.seal_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_seal_error(&self, error: Option<Error>) {
        *self.seal_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    pub(crate) fn take_rejected(&self) -> Vec<(AuditEvent, Error)> {
        self.kept_aside.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    fn set_write_error(&self, error: Option<Error>) {
        *self.write_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    fn reject(&self, event: AuditEvent, error: Error) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        tracing::error!(tenant = %event.tenant_id, id = %event.id(), %error, "metertrail: the store refused an audit event");
        let mut kept = self.kept_aside.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= REJECTED_KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((event, error));
    }
}

/// The writing side of one audit log. [`run`](Self::run) is its whole life.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) vault: Vault,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) append_timeout: Duration,
    /// Set to the deadline when the log is shut down.
    pub(crate) stop: watch::Receiver<Option<Instant>>,
    pub(crate) chain: WriterChain,
    /// Parts of the batch in hand, the next one last.
    pub(crate) parts: Vec<Vec<Pending>>,
}

impl Writer {
    /// Writes until the log is shut down and the queue drained, or its deadline is over. Gives the events that are not known
    /// to be written.
    pub(crate) async fn run(mut self) -> Vec<AuditEvent> {
        let mut stop = self.stop.clone();
        loop {
            let deadline = *self.stop.borrow_and_update();
            if let Some(batch) = self.queue.take(deadline.is_some()) {
                self.parts.push(batch);
                let is_over = tokio::select! {
                    () = self.write_parts() => false,
                    () = deadline_of(&mut stop) => true,
                };
                if is_over {
                    return self.give_up();
                }
                continue;
            }
            if deadline.is_some() && self.queue.is_empty() {
                return Vec::new();
            }
            let due = self.queue.due();
            tokio::select! {
                () = self.queue.changed() => {}
                () = passed(due) => {}
                _ = self.stop.changed(), if deadline.is_none() => {}
                () = passed(deadline) => return self.give_up(),
            }
        }
    }

    /// Writes what is in hand. What the store refuses is halved until the refused events stand alone. A part leaves the hand
    /// only when its fate is known.
    async fn write_parts(&mut self) {
        while let Some(part) = self.parts.last() {
            let events = part.iter().map(|pending| pending.event.clone()).collect();
            let outcome = self.append_until_decided(events).await;
            let Some(mut part) = self.parts.pop() else {
                return;
            };
            match outcome {
                Ok(()) => self.finish(part),
                Err(error) if part.len() <= 1 => self.refuse(part, &error),
                Err(_) => {
                    let second = part.split_off(part.len() / 2);
                    self.parts.extend([second, part]);
                }
            }
        }
    }

    fn finish(&self, part: Vec<Pending>) {
        let events = part.len();
        self.tally.batches.fetch_add(1, Ordering::Relaxed);
        self.tally.written.fetch_add(u64::try_from(events).unwrap_or(u64::MAX), Ordering::Relaxed);
        for pending in part {
            // Nobody may be waiting.
            let _ = pending.done.send(Ok(()));
        }
        self.queue.release(events);
    }

    fn refuse(&self, part: Vec<Pending>, error: &Error) {
        let events = part.len();
        for pending in part {
            let _ = pending.done.send(Err(error.clone()));
            self.tally.reject(pending.event, error.clone());
        }
        self.queue.release(events);
    }

    /// Seals events and appends them until the store has kept them or refused them for good.
    async fn append_until_decided(&mut self, mut events: Vec<AuditEvent>) -> Result<()> {
        let mut backoff = BACKOFF_MIN;
        let mut batch: Option<SealedBatch> = None;
        loop {
            let error = match self.append_once(&mut events, &mut batch).await {
                Ok(()) => {
                    self.tally.set_write_error(None);
                    return Ok(());
                }
                Err(error) => error,
            };
            self.tally.set_write_error(Some(error.clone()));
            if !error.may_pass() {
                return Err(error);
            }
            self.tally.retries.fetch_add(1, Ordering::Relaxed);
            tracing::warn!(%error, "metertrail: writing the audit trail failed, trying again");
            tokio::time::sleep(with_jitter(backoff)).await;
            backoff = (backoff * 2).min(BACKOFF_MAX);
        }
    }

    async fn append_once(
        &mut self,
        events: &mut Vec<AuditEvent>,
        sealed: &mut Option<SealedBatch>,
    ) -> Result<()> {
        if sealed.is_none() {
            bounded(self.append_timeout, self.vault.seal(events)).await?;
        }
        loop {
            let batch = if let Some(batch) = sealed.take() {
                batch
            } else {
                let key = available(self.vault.keys.writer_key())?;
                self.chain.seal(std::mem::take(events), key.as_ref(), self.clock.now())?
            };
            // What is written again must be the same to the byte, so it is kept before its fate is open.
            let batch = sealed.insert(batch);
            match bounded(self.append_timeout, self.vault.store.append_audit(batch)).await? {
                BatchAppended::New | BatchAppended::Duplicate => {
                    self.chain.advance(batch);
                    return Ok(());
                }
                BatchAppended::Conflict => {
                    tracing::error!(
                        writer = %self.chain.writer_id(),
                        "metertrail: another process writes this audit chain, going on with a new one"
                    );
                    self.chain = WriterChain::new(self.chain.origin().clone());
                    *events = sealed.take().map(SealedBatch::into_events).unwrap_or_default();
                }
            }
        }
    }

    /// Out of time: tells every waiter and hands the events over.
    fn give_up(&mut self) -> Vec<AuditEvent> {
        let mut left: Vec<Pending> = std::mem::take(&mut self.parts).into_iter().rev().flatten().collect();
        while let Some(batch) = self.queue.take(true) {
            left.extend(batch);
        }
        let error = Error::new(
            ErrorKind::ShutDown,
            "the audit log was shut down before the store confirmed the event",
        );
        let hand_over = |pending: Pending| {
            let _ = pending.done.send(Err(error.clone()));
            pending.event
        };
        left.into_iter().map(hand_over).collect()
    }
}

/// A writer that is dropped in the middle, with its runtime, leaves nobody waiting: the waiters' other ends are dropped.
impl Drop for Writer {
    fn drop(&mut self) {
        self.queue.close();
        while self.queue.take(true).is_some() {}
    }
}

/// A call of the store within its time.
pub(crate) async fn bounded<T>(limit: Duration, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
    match timeout(limit, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(result)) => result,
        Ok(Err(_panic)) => Err(Error::new(ErrorKind::Store, "the audit store panicked")),
        Err(_) => {
            Err(Error::new(ErrorKind::Unavailable, format!("the audit store did not answer in {limit:?}")))
        }
    }
}

/// Waits for the deadline, also if there is none yet.
async fn deadline_of(stop: &mut watch::Receiver<Option<Instant>>) {
    let deadline = match stop.wait_for(Option::is_some).await {
        Ok(deadline) => *deadline,
        Err(_) => None,
    };
    passed(deadline).await;
}
