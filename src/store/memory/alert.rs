//! The incidents of a process.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use uuid::Uuid;

use super::MemoryStore;
use crate::alert::{
    AggregationBacklog, Attempted, Breach, Change, DeadLetter, Incident, IncidentId, IncidentQuery,
    IncidentState, Notification, NotificationKey, NotificationKind, QuotaWindows, Silence, SilenceId,
    TenantCheck,
};
use crate::page::Page;
use crate::store::{
    ALERT_BATCH_MAX, AlertStore, EvaluationTurn, OpenIncidents, SILENCES_MAX, check_changes,
    check_tenant_check,
};
use crate::text::Label;
use crate::{Result, TenantId};

type IncidentKey = (Option<TenantId>, IncidentId);

/// Incidents, their notifications, silences and the turns of evaluations.
#[derive(Debug, Default)]
pub(super) struct AlertTables {
    turns: BTreeMap<String, (u64, DateTime<Utc>)>,
    incidents: BTreeMap<IncidentKey, Incident>,
    notifications: BTreeMap<NotificationKey, Kept>,
    silences: BTreeMap<SilenceId, Silence>,
}

/// A notification, as far as it has come.
#[derive(Debug)]
struct Kept {
    status: Status,
    attempts: u32,
    due_at: DateTime<Utc>,
    claim: Option<(Uuid, DateTime<Utc>)>,
    was_delivered: bool,
    error: Option<String>,
    tried_at: DateTime<Utc>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Status {
    Waiting,
    Done,
    Dead,
}

impl Kept {
    fn due(now: DateTime<Utc>) -> Self {
        let status = Status::Waiting;
        Self {
            status,
            attempts: 0,
            due_at: now,
            claim: None,
            was_delivered: false,
            error: None,
            tried_at: now,
        }
    }

    fn is_on_its_way(&self, now: DateTime<Utc>) -> bool {
        self.claim.is_some_and(|(_, until)| now < until)
    }

    fn settle(&mut self, attempted: &Attempted, now: DateTime<Utc>) {
        self.claim = None;
        self.tried_at = now;
        match attempted {
            Attempted::Delivered { again_at } => {
                self.was_delivered = true;
                self.attempts = 0;
                self.error = None;
                match again_at {
                    Some(again_at) => self.due_at = *again_at,
                    None => self.status = Status::Done,
                }
            }
            Attempted::Failed { retry_at, error } => {
                self.due_at = *retry_at;
                self.error = Some(error.clone());
            }
            Attempted::Dead { error } => {
                self.status = Status::Dead;
                self.error = Some(error.clone());
            }
        }
    }
}

impl AlertTables {
    fn begin(&mut self, scope: &str, now: DateTime<Utc>, interval: TimeDelta) -> Option<EvaluationTurn> {
        let (generation, begun_at) = self.turns.get(scope).copied().unwrap_or((0, DateTime::<Utc>::MIN_UTC));
        let is_due = begun_at <= now - interval || begun_at > now + interval;
        is_due.then(|| {
            self.turns.insert(scope.to_owned(), (generation + 1, now));
            EvaluationTurn { scope: scope.to_owned(), generation: generation + 1 }
        })
    }

    fn is_over(&self, turn: &EvaluationTurn) -> bool {
        self.turns.get(&turn.scope).is_none_or(|(generation, _)| *generation != turn.generation)
    }

    fn change(&mut self, change: &Change, now: DateTime<Utc>) -> bool {
        let incident = &change.incident;
        let key = (incident.tenant_id.clone(), incident.id);
        let may = match change.expected {
            Some(expected) => {
                self.incidents.get(&key).is_some_and(|kept| kept.is_open() && kept.revision == expected)
            }
            None => !self.has_open(incident) && !self.incidents.contains_key(&key),
        };
        if !may {
            return false;
        }
        if change.is_withdrawn {
            self.incidents.remove(&key);
            return true;
        }
        self.incidents.insert(key.clone(), incident.clone());
        if !incident.is_open() {
            self.end_reminders(&key);
        }
        for sink in &change.notify {
            let key = NotificationKey {
                tenant_id: incident.tenant_id.clone(),
                incident_id: incident.id,
                kind: change.kind(),
                sink: sink.clone(),
            };
            self.notifications.entry(key).or_insert_with(|| Kept::due(now));
        }
        true
    }

    fn has_open(&self, incident: &Incident) -> bool {
        let fingerprint = incident.fingerprint();
        self.of_tenant(incident.tenant_id.as_ref())
            .any(|other| other.is_open() && other.fingerprint() == fingerprint)
    }

    fn of_tenant(&self, tenant_id: Option<&TenantId>) -> impl Iterator<Item = &Incident> {
        let first = (tenant_id.cloned(), IncidentId::from_uuid(Uuid::nil()));
        let last = (tenant_id.cloned(), IncidentId::from_uuid(Uuid::max()));
        self.incidents.range(first..=last).map(|(_, incident)| incident)
    }

    fn end_reminders(&mut self, (tenant_id, id): &IncidentKey) {
        let of_incident = |key: &NotificationKey| key.tenant_id == *tenant_id && key.incident_id == *id;
        for (_, kept) in self.notifications.iter_mut().filter(|(key, _)| of_incident(key)) {
            if kept.was_delivered {
                kept.status = Status::Done;
            }
        }
    }

    fn claim(
        &mut self,
        sinks: &[Label],
        (claim_id, leased_until): (Uuid, DateTime<Utc>),
        now: DateTime<Utc>,
        limit: usize,
    ) -> Vec<Notification> {
        let is_due = |(key, kept): &(&NotificationKey, &Kept)| {
            kept.status == Status::Waiting
                && kept.due_at <= now
                && !kept.is_on_its_way(now)
                && sinks.contains(&key.sink)
                && !self.is_behind(key, now)
        };
        let due = self.notifications.iter().filter(is_due);
        let mut due: Vec<_> = due.map(|(key, kept)| (kept.due_at, key.clone())).collect();
        due.sort();
        due.truncate(limit);
        let claimed = due.into_iter().filter_map(|(_, key)| {
            let incident = self.incidents.get(&(key.tenant_id.clone(), key.incident_id))?.clone();
            let kept = self.notifications.get_mut(&key)?;
            kept.attempts += 1;
            kept.claim = Some((claim_id, leased_until));
            Some(Notification::new(key, incident, kept.attempts))
        });
        claimed.collect()
    }

    /// Whether the beginning has not been told yet, so that the end must wait.
    fn is_behind(&self, key: &NotificationKey, now: DateTime<Utc>) -> bool {
        let before = NotificationKey { kind: NotificationKind::Firing, ..key.clone() };
        key.kind == NotificationKind::Resolved
            && self
                .notifications
                .get(&before)
                .is_some_and(|kept| kept.status == Status::Waiting || kept.is_on_its_way(now))
    }

    fn forget(&mut self, before: DateTime<Utc>, limit: usize) -> u64 {
        let is_old = |incident: &&Incident| incident.resolved_at.is_some_and(|at| at < before);
        let old = self.incidents.values().filter(is_old).take(limit);
        let old: Vec<IncidentKey> = old.map(|incident| (incident.tenant_id.clone(), incident.id)).collect();
        for key in &old {
            self.incidents.remove(key);
        }
        let incidents = &self.incidents;
        self.notifications.retain(|key, _| incidents.contains_key(&(key.tenant_id.clone(), key.incident_id)));
        self.silences.retain(|_, silence| silence.ends_at >= before);
        u64::try_from(old.len()).unwrap_or(u64::MAX)
    }
}

fn bounded(limit: u32) -> usize {
    usize::try_from(limit.min(ALERT_BATCH_MAX)).unwrap_or(usize::MAX)
}

impl MemoryStore {
    fn alerts(&self) -> RwLockReadGuard<'_, AlertTables> {
        self.alerts.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn alerts_mut(&self) -> RwLockWriteGuard<'_, AlertTables> {
        self.alerts.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AlertStore for MemoryStore {
    async fn breaches(
        &self,
        check: &TenantCheck,
        after: Option<&TenantId>,
        limit: u32,
    ) -> Result<Vec<Breach>> {
        check_tenant_check(check)?;
        let tenants = self.read();
        let later = tenants.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let breaches = later.filter_map(|(tenant_id, tenant)| tenant.breach(tenant_id, check));
        Ok(breaches.take(bounded(limit)).collect())
    }

    async fn quota_windows(&self, now: DateTime<Utc>) -> Result<QuotaWindows> {
        let mut found = QuotaWindows::default();
        for quotas in self.read().values().map(|tenant| tenant.ledger.quotas()) {
            found.zones.extend(quotas.zone.filter(|zone| !found.zones.contains(zone)));
            for own in quotas.overrides.into_iter().filter(|own| own.is_in_force(now)) {
                let window = (own.quota, own.window);
                if !found.windows.contains(&window) {
                    found.windows.push(window);
                }
            }
        }
        Ok(found)
    }

    async fn aggregation_backlog(&self) -> Result<AggregationBacklog> {
        Ok(AggregationBacklog::default())
    }

    async fn begin_evaluation(
        &self,
        scope: &str,
        now: DateTime<Utc>,
        interval: TimeDelta,
    ) -> Result<Option<EvaluationTurn>> {
        Ok(self.alerts_mut().begin(scope, now, interval))
    }

    async fn open_incidents(
        &self,
        which: &OpenIncidents,
        after: Option<(Option<&TenantId>, IncidentId)>,
        limit: u32,
    ) -> Result<Vec<Incident>> {
        let matches = |incident: &&Incident| {
            incident.is_open()
                && match which {
                    OpenIncidents::OfRule(rule) => incident.rule == *rule,
                    OpenIncidents::NotObservedSince(since) => incident.observed_at < *since,
                }
        };
        let after = after.map(|(tenant_id, id)| (tenant_id.cloned(), id));
        let alerts = self.alerts();
        let later =
            alerts.incidents.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let open = later.map(|(_, incident)| incident).filter(matches);
        Ok(open.take(bounded(limit)).cloned().collect())
    }

    async fn change_incidents(
        &self,
        turn: Option<&EvaluationTurn>,
        changes: &[Change],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>> {
        check_changes(changes)?;
        let mut alerts = self.alerts_mut();
        if turn.is_some_and(|turn| alerts.is_over(turn)) {
            return Ok(vec![false; changes.len()]);
        }
        Ok(changes.iter().map(|change| alerts.change(change, now)).collect())
    }

    async fn incidents(&self, query: &IncidentQuery) -> Result<Page<Incident>> {
        let before = query.position()?.unwrap_or(Uuid::max());
        let size = usize::from(query.page_size.get());
        let alerts = self.alerts();
        let matching = alerts.incidents.values().filter(|incident| query.matches(incident));
        let mut items: Vec<Incident> =
            matching.filter(|incident| incident.id.as_uuid() < before).cloned().collect();
        items.sort_by_key(|incident| std::cmp::Reverse(incident.id));
        let more = items.len() > size;
        items.truncate(size);
        let next = items.last().filter(|_| more).map(|last| query.cursor(last.id));
        Ok(Page { items, next })
    }

    async fn acknowledge(
        &self,
        tenant_id: Option<&TenantId>,
        id: IncidentId,
        by: &Label,
        now: DateTime<Utc>,
    ) -> Result<Option<Incident>> {
        let mut alerts = self.alerts_mut();
        let incident = alerts.incidents.get_mut(&(tenant_id.cloned(), id));
        Ok(incident.map(|incident| {
            if incident.acknowledged.is_none() && incident.is_open() {
                incident.acknowledged = Some(crate::alert::Acknowledgement { by: by.clone(), at: now });
                incident.revision += 1;
            }
            incident.clone()
        }))
    }

    async fn put_silence(&self, silence: &Silence) -> Result<()> {
        self.alerts_mut().silences.insert(silence.id, silence.clone());
        Ok(())
    }

    async fn end_silence(&self, id: SilenceId, now: DateTime<Utc>) -> Result<bool> {
        let mut alerts = self.alerts_mut();
        let lasting = alerts.silences.get_mut(&id).filter(|silence| silence.ends_at > now);
        Ok(lasting
            .map(|silence| {
                silence.ends_at = now;
                silence.starts_at = silence.starts_at.min(now);
            })
            .is_some())
    }

    async fn silences(&self, now: DateTime<Utc>) -> Result<Vec<Silence>> {
        let alerts = self.alerts();
        let lasting = alerts.silences.values().filter(|silence| silence.ends_at > now);
        let mut lasting: Vec<Silence> = lasting.cloned().collect();
        lasting.sort_by_key(|silence| (std::cmp::Reverse(silence.ends_at), silence.id));
        lasting.truncate(usize::try_from(SILENCES_MAX).unwrap_or(usize::MAX));
        Ok(lasting)
    }

    async fn claim_notifications(
        &self,
        sinks: &[Label],
        claim_id: Uuid,
        now: DateTime<Utc>,
        leased_until: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Notification>> {
        Ok(self.alerts_mut().claim(sinks, (claim_id, leased_until), now, bounded(limit)))
    }

    async fn settle_notification(
        &self,
        key: &NotificationKey,
        claim_id: Uuid,
        attempted: &Attempted,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        let mut alerts = self.alerts_mut();
        let key_of_incident = (key.tenant_id.clone(), key.incident_id);
        let is_over = alerts
            .incidents
            .get(&key_of_incident)
            .is_none_or(|incident| incident.state == IncidentState::Resolved);
        let held = alerts.notifications.get_mut(key);
        let Some(kept) = held.filter(|kept| kept.claim.is_some_and(|(holder, _)| holder == claim_id)) else {
            return Ok(false);
        };
        match attempted {
            Attempted::Delivered { again_at: Some(_) } if is_over => {
                kept.settle(&Attempted::Delivered { again_at: None }, now);
            }
            _ => kept.settle(attempted, now),
        }
        Ok(true)
    }

    async fn dead_letters(&self, after: Option<&NotificationKey>, limit: u32) -> Result<Vec<DeadLetter>> {
        let alerts = self.alerts();
        let later =
            alerts.notifications.range((after.map_or(Bound::Unbounded, Bound::Excluded), Bound::Unbounded));
        let dead = later.filter(|(_, kept)| kept.status == Status::Dead).take(bounded(limit));
        let letter = |(key, kept): (&NotificationKey, &Kept)| {
            DeadLetter::new(key.clone(), kept.attempts, kept.tried_at, kept.error.clone().unwrap_or_default())
        };
        Ok(dead.map(letter).collect())
    }

    async fn redrive(&self, key: &NotificationKey, now: DateTime<Utc>) -> Result<bool> {
        let mut alerts = self.alerts_mut();
        let dead = alerts.notifications.get_mut(key).filter(|kept| kept.status == Status::Dead);
        Ok(dead.map(|kept| *kept = Kept::due(now)).is_some())
    }

    async fn forget_incidents(&self, resolved_before: DateTime<Utc>, limit: u32) -> Result<u64> {
        Ok(self.alerts_mut().forget(resolved_before, bounded(limit)))
    }
}
