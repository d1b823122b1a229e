//! Seals epochs: appends what was written to the tenants' trees and signs how all of them stand.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::audit::writer::{Tally, bounded};
use crate::audit::{Anchor, AuditKeys, AuditState, Checkpoint, Ledger};
use crate::store::AuditStore;
use crate::time::Clock;
use crate::time::timer::{Instant, with_jitter};
use crate::{Error, ErrorKind, Result};

/// Batches in one epoch, so that no step is large.
const EPOCH_BATCHES_MAX: u32 = 100;
/// A step that takes longer is given up and tried again.
const SEAL_TIMEOUT: Duration = Duration::from_secs(120);
/// How often a step is tried when somebody else seals at the same time.
const TRIES_MAX: u32 = 20;

/// The sealing side of an audit log. Any number of processes may have one: of two at once, one does the work.
#[derive(Clone, Debug)]
pub(crate) struct Sealer {
    pub(crate) store: Arc<dyn AuditStore>,
    pub(crate) keys: Arc<dyn AuditKeys>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) anchors: Vec<Arc<dyn Anchor>>,
    pub(crate) origin: String,
    /// The longest log that this process has seen: one that is shorter was cut back.
    pub(crate) seen: Arc<Mutex<Option<Checkpoint>>>,
}

impl Sealer {
    /// Seals at intervals until the log stops, and once more behind its writer's last batch.
    pub(crate) async fn run(self, interval: Duration, mut stop: watch::Receiver<Option<Instant>>) {
        while timeout(with_jitter(interval), stop.wait_for(Option::is_some)).await.is_err() {
            if let Err(error) = self.seal_all().await {
                tracing::error!(%error, "metertrail: sealing the audit trail failed, trying again later");
            }
        }
    }

    /// Seals until nothing is left. Gives the last checkpoint, if there was anything to seal.
    pub(crate) async fn seal_all(&self) -> Result<Option<Checkpoint>> {
        let mut last = None;
        let sealed = loop {
            match bounded(SEAL_TIMEOUT, self.seal_once()).await {
                Ok(Some(checkpoint)) => last = Some(checkpoint),
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.tally.set_seal_error(sealed.as_ref().err().cloned());
        if let Some(checkpoint) = &last {
            self.publish(checkpoint).await;
        }
        sealed.map(|()| last)
    }

    async fn seal_once(&self) -> Result<Option<Checkpoint>> {
        for _ in 0..TRIES_MAX {
            let batches = self.store.unsealed_batches(EPOCH_BATCHES_MAX).await?;
            if batches.is_empty() {
                return Ok(None);
            }
            let key = self.keys.sealer_key();
            let mut trusted = self.keys.former_sealer_keys();
            trusted.extend(key.as_ref().map(crate::audit::AuditSigningKey::verifying_key));
            let state = self.store.audit_state().await?;
            self.check_seen(&state)?;
            let ledger = Ledger::open(state, &trusted)?;
            let epoch = ledger.seal(&batches, &self.origin, key.as_ref(), self.clock.now())?;
            if self.store.append_epoch(&epoch).await? {
                self.tally.epochs.fetch_add(1, Ordering::Relaxed);
                let checkpoint: Checkpoint = epoch.epoch.checkpoint.parse()?;
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpoint.clone());
                return Ok(Some(checkpoint));
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "others seal the audit trail all the time"))
    }

    /// Whether the log is at least the one that this process sealed last. What is put back to an older state holds together
    /// by itself, and must not be gone on from.
    fn check_seen(&self, state: &AuditState) -> Result<()> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(seen) = &*seen else {
            return Ok(());
        };
        let latest = state.epoch.as_ref().map(|epoch| epoch.checkpoint.parse::<Checkpoint>()).transpose()?;
        let is_there = latest.is_some_and(|latest| {
            latest.size() > seen.size() || (latest.size() == seen.size() && latest.root() == seen.root())
        });
        if is_there {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Store,
            "the log of epochs is not the one that this process has seen: it was cut back",
        ))
    }

    async fn publish(&self, checkpoint: &Checkpoint) {
        for anchor in &self.anchors {
            if let Err(error) = bounded(SEAL_TIMEOUT, anchor.publish(checkpoint)).await {
                tracing::error!(%error, ?anchor, "metertrail: a checkpoint could not be anchored");
                self.tally.set_seal_error(Some(error));
            }
        }
    }
}
