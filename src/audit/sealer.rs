//! Seals epochs: appends what was written to the tenants' trees and signs how all of them stand.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

use crate::audit::key::available;
use crate::audit::writer::{Tally, bounded};
use crate::audit::{
    Anchor, AuditKeys, AuditState, AuditVerifyingKey, BatchRecord, Checkpoint, Ledger, Origin,
};
use crate::store::AuditStore;
use crate::time::Clock;
use crate::time::timer::{Instant, with_jitter};
use crate::{Error, ErrorKind, Result};

/// Batches in one epoch, so that no step is large.
const EPOCH_BATCHES_MAX: u32 = 100;
/// A long round publishes a checkpoint every so many epochs.
const PUBLISH_EPOCHS: u64 = 16;
/// A sealer looks behind so many batches that it must not seal.
const UNSIGNED_BATCHES_MAX: u32 = 1_600;
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
    /// The latest checkpoint that each anchor has taken.
    pub(crate) anchored: Arc<tokio::sync::Mutex<Vec<Option<Checkpoint>>>>,
    pub(crate) origin: Origin,
    /// One round at a time.
    pub(crate) turn: Arc<tokio::sync::Mutex<()>>,
    /// The longest log that this process has seen: one that is shorter was cut back.
    pub(crate) seen: Arc<Mutex<Option<Checkpoint>>>,
}

impl Sealer {
    /// Seals at intervals until the log stops.
    pub(crate) async fn run(self, interval: Duration, mut stop: watch::Receiver<Option<Instant>>) {
        while timeout(with_jitter(interval), stop.wait_for(Option::is_some)).await.is_err() {
            if let Err(error) = self.seal_all().await {
                tracing::error!(%error, "metertrail: sealing the audit trail failed, trying again later");
            }
        }
    }

    /// Seals what there is, and what comes meanwhile as long as that fills whole epochs. Gives the last checkpoint, if there was
    /// anything to seal.
    pub(crate) async fn seal_all(&self) -> Result<Option<Checkpoint>> {
        // Of two rounds of one process the second would hold a state of before the first against what that has sealed.
        let _turn = self.turn.lock().await;
        let mut last = None;
        let mut anchored = None;
        let sealed = loop {
            match bounded(SEAL_TIMEOUT, self.seal_once()).await {
                Ok(Sealed::Epoch { checkpoint, is_full, refused }) => {
                    let size = checkpoint.size();
                    last = Some(checkpoint);
                    // Writers who never stop must not keep the checkpoints from their anchors.
                    if !is_full {
                        break Ok(refused);
                    }
                    if size % PUBLISH_EPOCHS == 0 {
                        anchored = self.publish().await;
                    }
                }
                Ok(Sealed::Nothing) => break Ok(None),
                Ok(Sealed::Refused(error)) => break Ok(Some(error)),
                Err(error) => break Err(error),
            }
        };
        anchored = self.publish().await.or(anchored);
        let refused = sealed.as_ref().ok().cloned().flatten();
        self.tally.set_seal_error(sealed.as_ref().err().cloned().or(refused).or(anchored));
        sealed.map(|_| last)
    }

    async fn seal_once(&self) -> Result<Sealed> {
        let writers = available(self.keys.writer_verifying_keys())?;
        let mut asked = EPOCH_BATCHES_MAX;
        for _ in 0..TRIES_MAX {
            let mut batches = self.store.unsealed_batches(asked).await?;
            if batches.is_empty() {
                return Ok(Sealed::Nothing);
            }
            let found = batches.len();
            let is_full = u32::try_from(found).is_ok_and(|found| found >= asked);
            batches.retain(|batch| self.is_to_seal(batch, &writers));
            if batches.is_empty() && is_full && asked < UNSIGNED_BATCHES_MAX {
                // What is to be sealed stands behind what is not.
                asked = asked.saturating_mul(4);
                continue;
            }
            if batches.is_empty() {
                return Ok(Sealed::Refused(unsealable()));
            }
            let key = available(self.keys.sealer_key())?;
            let mut trusted = available(self.keys.former_sealer_keys())?;
            trusted.extend(key.as_ref().map(crate::audit::AuditSigningKey::verifying_key));
            let state = self.store.audit_state().await?;
            self.check_seen(&state)?;
            let is_anybodys = writers.is_empty() && batches.iter().all(|batch| batch.signature.is_none());
            if key.is_none() && (!is_anybodys || is_signed(&state)?) {
                // A process without a key must not end the log of those who have one, nor begin it.
                return Ok(Sealed::Nothing);
            }
            let ledger = Ledger::open(state, &self.origin, &trusted)?;
            let epoch = ledger.seal(&batches, &self.origin, key.as_ref(), self.clock.now())?;
            if self.store.append_epoch(&epoch).await? {
                self.tally.epochs.fetch_add(1, Ordering::Relaxed);
                let checkpoint: Checkpoint = epoch.epoch.checkpoint.parse()?;
                *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(checkpoint.clone());
                let refused = (found > batches.len()).then(unsealable);
                return Ok(Sealed::Epoch { checkpoint, is_full, refused });
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "others seal the audit trail all the time"))
    }

    /// Whether a batch is whole, of this trail, and signed by a writer, if the writers are known.
    fn is_to_seal(&self, batch: &BatchRecord, writers: &[AuditVerifyingKey]) -> bool {
        batch.open().is_ok_and(|(header, _)| header.origin == self.origin)
            && (writers.is_empty() || batch.is_signed_by(writers))
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

    /// Gives the latest checkpoint that this process sealed to every anchor that has not taken it yet; one that fails is
    /// tried again at the next turn.
    async fn publish(&self) -> Option<Error> {
        let latest = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        let mut anchored = self.anchored.lock().await;
        anchored.resize(self.anchors.len(), None);
        let mut failed = None;
        for (anchor, taken) in self.anchors.iter().zip(anchored.iter_mut()) {
            if taken.as_ref() == Some(&latest) {
                continue;
            }
            match bounded(SEAL_TIMEOUT, anchor.publish(&latest)).await {
                Ok(()) => *taken = Some(latest.clone()),
                Err(error) => {
                    tracing::error!(%error, ?anchor, "metertrail: a checkpoint could not be anchored");
                    failed = Some(error);
                }
            }
        }
        failed
    }
}

/// What one step came to.
enum Sealed {
    Epoch {
        checkpoint: Checkpoint,
        /// Whether there was as much as is looked at in one step.
        is_full: bool,
        /// Some of what was looked at must not be sealed.
        refused: Option<Error>,
    },
    Nothing,
    /// All that is left must not be sealed.
    Refused(Error),
}

fn unsealable() -> Error {
    let what = "batches that no writer of this trail signed are not sealed";
    tracing::error!("metertrail: {what}");
    Error::new(ErrorKind::Store, what)
}

fn is_signed(state: &AuditState) -> Result<bool> {
    let latest = state.epoch.as_ref().map(|epoch| epoch.checkpoint.parse::<Checkpoint>()).transpose()?;
    Ok(latest.is_some_and(|latest| latest.is_signed()))
}
