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
pub use self::report::{VerifiedState, VerifyReport};

use self::batches::Known;
use self::report::Findings;
use self::tenant::{Open, Since};
use crate::audit::{AuditState, AuditVerifyingKey, Checkpoint};
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
    stale_after: Duration,
}

/// How much of a trail is looked at.
#[derive(Clone, Copy)]
enum Scope<'a> {
    Full,
    Since(&'a VerifiedState),
    Sample { events: u32, seed: u64 },
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
            stale_after: Duration::from_secs(300),
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

    /// After which time a batch that no epoch has sealed is a finding; 5 minutes by default.
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
        self.verify(Scope::Full, now).await
    }

    /// Looks at what came since a former verification: that the trees and the log are continuations of those that it saw,
    /// at all epochs and batches, and at the events since. What was changed in older events it does not see.
    ///
    /// # Errors
    /// As [`full`](Self::full).
    pub async fn incremental(&self, now: DateTime<Utc>, since: &VerifiedState) -> Result<VerifyReport> {
        self.verify(Scope::Since(since), now).await
    }

    /// Looks at the log, the heads, and some events chosen by a seed, each with its proof. One that nobody sealed it does
    /// not see.
    ///
    /// # Errors
    /// As [`full`](Self::full).
    pub async fn sampled(&self, now: DateTime<Utc>, events: u32, seed: u64) -> Result<VerifyReport> {
        self.verify(Scope::Sample { events, seed }, now).await
    }

    async fn verify(&self, scope: Scope<'_>, now: DateTime<Utc>) -> Result<VerifyReport> {
        let mut findings = Findings::default();
        let state = findings.readable(self.store.audit_state().await)?.unwrap_or_default();
        let mut anchors: Vec<&Checkpoint> = self.anchors.iter().collect();
        if let Scope::Since(since) = scope {
            anchors.extend(&since.checkpoint);
        }
        let (epochs, _) = self.check_log(&state, &anchors, &mut findings).await?;
        let (events, batches) = match scope {
            Scope::Sample { events, seed } => {
                (self.check_sample(&state.heads, events, seed, &mut findings).await?, 0)
            }
            Scope::Full => self.check_trail(&state, None, now, &mut findings).await?,
            Scope::Since(since) => self.check_trail(&state, Some(since), now, &mut findings).await?,
        };
        let (findings, findings_total) = findings.into_parts();
        let checkpoint = state.epoch.as_ref().and_then(|epoch| epoch.checkpoint.parse().ok());
        let seen = VerifiedState::new(now, checkpoint, &state.heads);
        let is_thorough = !matches!(scope, Scope::Sample { .. });
        Ok(VerifyReport {
            verified_at: now,
            findings,
            findings_total,
            events,
            batches,
            epochs,
            tenants: u64::try_from(state.heads.len()).unwrap_or(u64::MAX),
            are_batches_authenticated: !self.writer_keys.is_empty(),
            are_epochs_authenticated: !self.sealer_keys.is_empty(),
            anchors: u64::try_from(anchors.len()).unwrap_or(u64::MAX),
            state: (is_thorough && findings_total == 0).then_some(seen),
        })
    }

    /// All tenants, then all batches: an event that was seen is in a batch that is there to be seen.
    async fn check_trail(
        &self,
        state: &AuditState,
        since: Option<&VerifiedState>,
        now: DateTime<Utc>,
        findings: &mut Findings,
    ) -> Result<(u64, u64)> {
        let from = since.map(|since| since.verified_at - OVERLAP);
        let heads: BTreeMap<&TenantId, _> = state.heads.iter().map(|head| (&head.tenant_id, head)).collect();
        let mut tenants: BTreeSet<TenantId> = heads.keys().map(|tenant_id| (*tenant_id).clone()).collect();
        tenants.extend(self.tenants_with_events(findings).await?);
        for tenant_id in since.iter().flat_map(|since| since.trees.keys()) {
            if !heads.contains_key(tenant_id) {
                findings.add(Finding::MissingTenant { tenant_id: tenant_id.clone() });
            }
        }
        let mut open = Open::default();
        let mut events = 0;
        for tenant_id in &tenants {
            let since = Since {
                tree: since.and_then(|since| since.trees.get(tenant_id)),
                id: from.map(EventId::lower_bound),
            };
            let head = heads.get(tenant_id).copied();
            events += self.check_tenant(tenant_id, head, since, &mut open, findings).await?;
        }
        let sizes: BTreeMap<TenantId, u64> =
            state.heads.iter().map(|head| (head.tenant_id.clone(), head.frontier.size())).collect();
        let known = Known { sizes: &sizes, since: from, now, stale_after: self.stale_after };
        let batches = self.check_batches(&known, &mut open, findings).await?;
        let left = open.unattested.into_iter().filter(|(_, left)| *left > 0);
        let unattested: BTreeSet<TenantId> = left.map(|(tenant_id, _)| tenant_id).collect();
        if since.is_none() && !unattested.is_empty() {
            self.name_unattested(&unattested, &sizes, findings).await?;
        }
        for (tenant_id, id) in open.unlisted.into_keys() {
            findings.add(Finding::Forged { tenant_id, id });
        }
        if !open.ahead.is_empty() {
            let now = findings.readable(self.store.audit_state().await)?.unwrap_or_default();
            if now.epoch == state.epoch {
                open.ahead.into_iter().for_each(|tenant_id| findings.add(Finding::TreeAltered { tenant_id }));
            }
        }
        Ok((events, batches))
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
