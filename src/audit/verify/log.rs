//! The log of epochs: every one there, each as it was signed, and the same log that was anchored.

use chrono::{DateTime, Utc};

use super::{Finding, Verifier, report::Findings};
use crate::audit::tree::Frontier;
use crate::audit::{AuditState, Checkpoint, EpochRecord, Hash, Origin, StoredEpoch, tenants_root};
use crate::store::AUDIT_READ_MAX;
use crate::{Error, Result};

/// The log as far as it was read.
struct Log {
    frontier: Frontier,
    sealed_at: DateTime<Utc>,
    /// Whether every epoch up to here is there: roots mean nothing behind a gap.
    is_whole: bool,
}

impl Verifier {
    /// Looks at every epoch up to the latest of a state. Gives how many there are.
    pub(super) async fn check_log(
        &self,
        state: &AuditState,
        origin: Option<&Origin>,
        anchors: &[&Checkpoint],
        findings: &mut Findings,
    ) -> Result<u64> {
        for anchor in anchors {
            let is_trusted = (self.sealer_keys.is_empty() || self.is_sealers(anchor))
                && origin.is_none_or(|origin| origin == anchor.origin());
            if !is_trusted {
                findings.add(Finding::AnchorForged { size: anchor.size() });
            }
        }
        let size = state.epoch.as_ref().map_or(0, |epoch| epoch.number.saturating_add(1));
        let mut log = Log { frontier: Frontier::default(), sealed_at: DateTime::UNIX_EPOCH, is_whole: true };
        let mut last = None;
        let (mut next, mut read) = (0, 0);
        while next < size {
            let page = self.store.audit_epochs(next, AUDIT_READ_MAX).await;
            let Some(page) = findings.readable(page)?.filter(|page| !page.is_empty()) else {
                break;
            };
            for epoch in page.iter().take_while(|epoch| epoch.number < size) {
                // A gap may be as long as the number that somebody wrote: its first epoch is named.
                if epoch.number > next {
                    findings.add(Finding::MissingEpoch { number: next });
                    log.is_whole = false;
                }
                last = self.check_epoch(epoch, origin, &mut log, anchors, findings);
                next = epoch.number + 1;
                read += 1;
            }
            if page.iter().any(|epoch| epoch.number >= size) {
                break;
            }
        }
        for anchor in anchors.iter().filter(|anchor| anchor.size() > size) {
            findings.add(Finding::LogTruncated { anchored: anchor.size(), found: size });
        }
        check_heads(state, last.as_ref(), findings);
        Ok(read)
    }

    fn check_epoch(
        &self,
        epoch: &StoredEpoch,
        origin: Option<&Origin>,
        log: &mut Log,
        anchors: &[&Checkpoint],
        findings: &mut Findings,
    ) -> Option<EpochRecord> {
        let forged = Finding::EpochForged { number: epoch.number };
        log.frontier.push(Hash::leaf(&epoch.record), |_| {});
        let read = || -> Result<(EpochRecord, Checkpoint), Error> {
            Ok((EpochRecord::parse(&epoch.record)?, epoch.checkpoint.parse()?))
        };
        let Ok((record, checkpoint)) = read() else {
            findings.add(forged);
            return None;
        };
        let size = epoch.number.saturating_add(1);
        let is_signed = self.sealer_keys.is_empty() || self.is_sealers(&checkpoint);
        let stands = record.number == epoch.number
            && record.sealed_at >= log.sealed_at
            && checkpoint.size() == size
            && origin.is_none_or(|origin| origin == checkpoint.origin())
            && checkpoint.to_string() == epoch.checkpoint
            && (!log.is_whole || log.frontier.to_bytes() == epoch.frontier)
            && (!log.is_whole || checkpoint.root() == log.frontier.root());
        if !stands || !is_signed {
            findings.add(forged);
        }
        log.sealed_at = record.sealed_at;
        // Behind a gap the log's own checkpoint is the best there is.
        let root = if log.is_whole { log.frontier.root() } else { checkpoint.root() };
        for anchor in anchors.iter().filter(|anchor| anchor.size() == size && anchor.root() != root) {
            findings.add(Finding::LogRewritten { size: anchor.size() });
        }
        Some(record)
    }

    fn is_sealers(&self, checkpoint: &Checkpoint) -> bool {
        self.sealer_keys.iter().any(|key| checkpoint.is_signed_by(key))
    }
}

/// Whether the heads are those that the latest epoch sealed.
fn check_heads(state: &AuditState, last: Option<&EpochRecord>, findings: &mut Findings) {
    let found = u64::try_from(state.heads.len()).unwrap_or(u64::MAX);
    let Some(record) = last else {
        if found > 0 {
            findings.add(Finding::TenantsAltered { epoch: 0, sealed: 0, found });
        }
        return;
    };
    for head in state.heads.iter().filter(|head| head.frontier.root() != head.root) {
        findings.add(Finding::TreeAltered { tenant_id: head.tenant_id.clone() });
    }
    let events = state.heads.iter().fold(0_u64, |sum, head| sum.saturating_add(head.frontier.size()));
    let stands = record.tenants == found
        && record.events == events
        && record.tenants_root == tenants_root(&state.heads);
    if !stands {
        findings.add(Finding::TenantsAltered { epoch: record.number, sealed: record.tenants, found });
    }
}
