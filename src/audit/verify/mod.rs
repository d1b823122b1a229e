//! Verification: holds a trail against its seals, the public keys and anchored checkpoints, and trusts nothing else.

mod batches;
mod finding;
mod log;
mod prove;
mod report;
mod sample;
mod tenant;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::finding::Finding;
pub use self::prove::{ExtensionProof, prove, prove_extension};
pub use self::report::{VerifiedState, VerifyReport, VerifyScope};

use self::batches::{Known, Walked, sizes_of};
use self::report::Findings;
use self::tenant::{Open, Since};
use crate::audit::{AuditState, AuditVerifyingKey, Checkpoint, Origin};
use crate::store::{AUDIT_READ_MAX, AuditStore};
use crate::usage::EventId;
use crate::{Result, TenantId};

/// Holds a trail against its seals.
///
/// What it can find depends on what it is given. With nothing, it finds what was changed by somebody who did not take the
/// trouble to compute the hashes anew. With the public keys, it finds everything that was changed by somebody without the
/// secret ones, but for the newest events and epochs being cut off. With an anchored checkpoint, it finds that too, and
/// what was changed by somebody who has all keys.
///
/// ```
/// use metertrail::MemoryStore;
/// use metertrail::audit::Verifier;
/// use metertrail::time::{Clock, SystemClock};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let report = Verifier::new(MemoryStore::new()).full(SystemClock.now()).await?;
/// assert!(report.is_clean());
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Verifier {
    store: Arc<dyn AuditStore>,
    writer_keys: Vec<AuditVerifyingKey>,
    sealer_keys: Vec<AuditVerifyingKey>,
    anchors: Vec<Checkpoint>,
    origin: Option<Origin>,
    stale_after: Duration,
}

/// How much of a trail is looked at.
#[derive(Clone, Copy)]
enum Scope<'a> {
    Full,
    Since(&'a VerifiedState),
    /// Everything, and that it goes on from a former state.
    Again(&'a VerifiedState),
    Sample {
        events: u32,
        seed: u64,
    },
}

impl<'a> Scope<'a> {
    fn since(self) -> Option<&'a VerifiedState> {
        match self {
            Self::Since(since) | Self::Again(since) => Some(since),
            Self::Full | Self::Sample { .. } => None,
        }
    }

    fn looks_at(self) -> VerifyScope {
        match self {
            Self::Full | Self::Again(_) => VerifyScope::Full,
            Self::Since(_) => VerifyScope::Incremental,
            Self::Sample { .. } => VerifyScope::Sampled,
        }
    }
}

/// Clocks of two processes may differ, and an event is written a while after it happened.
const OVERLAP: TimeDelta = TimeDelta::minutes(10);

impl Verifier {
    /// A verifier of a store, or of an export that was read into one, with neither keys nor anchors.
    pub fn new(store: impl AuditStore) -> Self {
        Self {
            store: Arc::new(store),
            writer_keys: Vec::new(),
            sealer_keys: Vec::new(),
            anchors: Vec::new(),
            origin: None,
            stale_after: Duration::from_secs(3_600),
        }
    }

    /// A key that writers sign batches with, now or formerly. With one of them, what none of them signed is forged.
    pub fn writer_key(mut self, key: AuditVerifyingKey) -> Self {
        self.writer_keys.push(key);
        self
    }

    /// A key that sealers sign epochs with, now or formerly. With one of them, what none of them signed is forged.
    pub fn sealer_key(mut self, key: AuditVerifyingKey) -> Self {
        self.sealer_keys.push(key);
        self
    }

    /// A checkpoint that was kept outside of the database.
    pub fn anchor(mut self, checkpoint: Checkpoint) -> Self {
        self.anchors.push(checkpoint);
        self
    }

    /// The name of the trail: what is signed for another one is forged here. By default it is the name in the anchors, or else
    /// in the latest checkpoint.
    pub fn origin(mut self, origin: Origin) -> Self {
        self.origin = Some(origin);
        self
    }

    /// After which time a batch that waits to be sealed is a finding; an hour by default. It should be longer than the host's
    /// transactions, than outages of the database, and than what clocks differ by: all of them make a batch older than it looks
    /// to a sealer. A batch that is not sealed and not even waiting is a finding at once.
    pub fn stale_after(mut self, age: Duration) -> Self {
        self.stale_after = age;
        self
    }

    /// Looks at everything. Writers and sealers may go on meanwhile.
    ///
    /// It takes memory for the leaves of the largest tenant (48 bytes each), for the heads of all tenants, and for what is
    /// not sealed yet.
    ///
    /// # Errors
    /// Whatever the store meets, but for what cannot be read: that is a finding.
    pub async fn full(&self, now: DateTime<Utc>) -> Result<VerifyReport> {
        Ok(self.verify(Scope::Full, now).await?.0)
    }

    /// Looks at what came since a former verification: that the trees, the log and the batches are continuations of those that
    /// it saw, at all epochs and batches, and at the events since. What was changed in older events it does not see.
    ///
    /// Where batches are not those of then, everything is looked at as by [`full`](Self::full): one was deleted, or committed
    /// long after it was written.
    ///
    /// # Errors
    /// As [`full`](Self::full).
    pub async fn incremental(&self, now: DateTime<Utc>, since: &VerifiedState) -> Result<VerifyReport> {
        match self.verify(Scope::Since(since), now).await? {
            (report, true) => Ok(report),
            (_, false) => Ok(self.verify(Scope::Again(since), now).await?.0),
        }
    }

    /// Looks at the log, the heads, and some events chosen by a seed, each with its proof. One that nobody sealed it does
    /// not see.
    ///
    /// # Errors
    /// As [`full`](Self::full).
    pub async fn sampled(&self, now: DateTime<Utc>, events: u32, seed: u64) -> Result<VerifyReport> {
        Ok(self.verify(Scope::Sample { events, seed }, now).await?.0)
    }

    /// Also says whether the batches are those of the former state, as far as they had come to rest by then.
    async fn verify(&self, scope: Scope<'_>, now: DateTime<Utc>) -> Result<(VerifyReport, bool)> {
        let mut findings = Findings::default();
        let state = findings.readable(self.store.audit_state().await)?.unwrap_or_default();
        let mut anchors: Vec<&Checkpoint> = self.anchors.iter().collect();
        anchors.extend(scope.since().and_then(|since| since.checkpoint.as_ref()));
        let checkpoint: Option<Checkpoint> =
            state.epoch.as_ref().and_then(|epoch| epoch.checkpoint.parse().ok());
        let named = anchors.first().copied().or(checkpoint.as_ref()).map(Checkpoint::origin);
        let origin = self.origin.as_ref().or(named);
        let epochs = self.check_log(&state, origin, &anchors, &mut findings).await?;
        let (events, walked) = match scope {
            Scope::Sample { events, seed } => {
                (self.check_sample(&state.heads, events, seed, &mut findings).await?, Walked::default())
            }
            _ => self.check_trail(&state, origin, scope, now, &mut findings).await?,
        };
        let continues = scope.since().is_none_or(|since| since.settled == walked.settled_then);
        let is_sampled = matches!(scope, Scope::Sample { .. });
        let (findings, findings_total) = findings.into_parts();
        let report = VerifyReport {
            verified_at: now,
            scope: scope.looks_at(),
            findings_total,
            findings,
            events,
            batches: walked.batches,
            unsealed: u64::try_from(walked.unsealed.len()).unwrap_or(u64::MAX),
            epochs,
            tenants: u64::try_from(state.heads.len()).unwrap_or(u64::MAX),
            are_batches_authenticated: !self.writer_keys.is_empty() && !is_sampled,
            are_epochs_authenticated: !self.sealer_keys.is_empty(),
            anchors: u64::try_from(anchors.len()).unwrap_or(u64::MAX),
            state: (!is_sampled && findings_total == 0)
                .then(|| VerifiedState::new(now, checkpoint.clone(), &state.heads, walked)),
        };
        Ok((report, continues))
    }

    /// All tenants, then all batches: an event that was seen is in a batch that is there to be seen.
    async fn check_trail(
        &self,
        state: &AuditState,
        origin: Option<&Origin>,
        scope: Scope<'_>,
        now: DateTime<Utc>,
        findings: &mut Findings,
    ) -> Result<(u64, Walked)> {
        let since = scope.since();
        let heads: BTreeMap<&TenantId, _> = state.heads.iter().map(|head| (&head.tenant_id, head)).collect();
        let mut tenants: BTreeSet<TenantId> = heads.keys().map(|tenant_id| (*tenant_id).clone()).collect();
        tenants.extend(self.tenants_with_events(findings).await?);
        for tenant_id in since.iter().flat_map(|since| since.trees.keys()) {
            if !heads.contains_key(tenant_id) {
                findings.add(Finding::MissingTenant { tenant_id: tenant_id.clone() });
            }
        }
        let since_id = match scope {
            Scope::Since(since) => Some(EventId::lower_bound(since.verified_at - OVERLAP)),
            _ => None,
        };
        let mut open = Open::default();
        let mut events = 0;
        for tenant_id in &tenants {
            let since = Since { tree: since.and_then(|since| since.trees.get(tenant_id)), id: since_id };
            let head = heads.get(tenant_id).copied();
            events += self.check_tenant(tenant_id, head, since, &mut open, findings).await?;
        }
        let sizes = sizes_of(state);
        let nothing = BTreeMap::new();
        let settled_then = since.map(|since| &since.settled);
        let known = Known {
            sizes: &sizes,
            origin,
            since: match scope {
                Scope::Since(since) => Some(since),
                _ => None,
            },
            recent: since.map_or(&nothing, |since| &since.recent),
            now,
            stale_after: self.stale_after,
        };
        let mut walked = Walked::new(settled_then.map(|settled| settled.before), now - OVERLAP);
        self.check_batches(&known, &mut walked, &mut open, findings).await?;
        walked.check_recent(&known, findings);
        self.check_unsealed(&known, &walked, findings).await?;
        let left = open.listed.into_iter().filter(|(_, listed)| listed.left() > 0);
        let unattested: BTreeSet<TenantId> = left.map(|(tenant_id, _)| tenant_id).collect();
        if since_id.is_none() && !unattested.is_empty() {
            self.name_unattested(&unattested, &sizes, findings).await?;
        }
        for (tenant_id, id) in open.new_leaves {
            findings.add(Finding::Unattested { tenant_id, id });
        }
        for (tenant_id, id) in open.unlisted.into_keys() {
            findings.add(Finding::Forged { tenant_id, id });
        }
        if !open.ahead.is_empty() {
            // Of an epoch that came meanwhile, or of nobody: the trees as they are now have to have them.
            let now = sizes_of(&findings.readable(self.store.audit_state().await)?.unwrap_or_default());
            for (tenant_id, last) in open.ahead {
                if now.get(&tenant_id).is_none_or(|size| last >= *size) {
                    findings.add(Finding::TreeAltered { tenant_id });
                }
            }
        }
        Ok((events, walked))
    }

    async fn tenants_with_events(&self, findings: &mut Findings) -> Result<Vec<TenantId>> {
        let mut tenants: Vec<TenantId> = Vec::new();
        loop {
            let page = self.store.audit_tenants(tenants.last(), AUDIT_READ_MAX).await;
            let page = findings.readable(page)?.unwrap_or_default();
            if page.is_empty() {
                return Ok(tenants);
            }
            tenants.extend(page);
        }
    }
}
