//! Upkeep in memory. Only quarter hours are kept; longer periods are their sums.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, Utc};

use super::{MemoryStore, Tenant};
use crate::store::{
    ClaimRun, Claimed, ClosedDay, DayDigest, DayDropped, DayOpened, DayTable, DropDay, Fence, KeepFrom,
    Prune, RunEnd, RunStatus, TaskRun, TaskState, UPKEEP_READ_MAX, UpkeepStore,
};
use crate::text::Label;
use crate::time::{Period, TimeRange, bucket_start};
use crate::usage::{EventId, UsageEvent, UsageMetrics};
use crate::{Error, ErrorKind, Result, TenantId};

#[derive(Debug, Default)]
pub(super) struct UpkeepTables {
    tasks: BTreeMap<Label, Task>,
    /// Days that were made; days of usage events have room by themselves as well.
    made: BTreeSet<(DayTable, NaiveDate)>,
    closed: BTreeMap<NaiveDate, ClosedDay>,
    staged: BTreeMap<(TenantId, EventId), UsageEvent>,
    holds: BTreeMap<TenantId, Label>,
}

#[derive(Debug)]
struct Task {
    state: TaskState,
    /// Those before the latest.
    ended: Vec<TaskRun>,
}

impl UpkeepTables {
    /// Refuses an event of a day that is closed.
    pub(super) fn check_open(&self, event: &UsageEvent) -> Result<()> {
        let day = day_of(event.id());
        if self.is_dropped(day) {
            let rule = format!("lies on {day}, which is closed: its events were archived or dropped");
            return Err(Error::invalid("occurred_at", rule));
        }
        Ok(())
    }

    pub(super) fn is_dropped(&self, day: NaiveDate) -> bool {
        self.closed.get(&day).is_some_and(|closed| !closed.is_restored)
    }

    /// The state of a task that is held under this token.
    fn held(&mut self, fence: &Fence) -> Option<&mut TaskState> {
        let state = &mut self.tasks.get_mut(&fence.task)?.state;
        let is_held = state.latest.token == fence.token && state.latest.status == RunStatus::Running;
        is_held.then_some(state)
    }
}

impl MemoryStore {
    pub(super) fn upkeep(&self) -> RwLockReadGuard<'_, UpkeepTables> {
        self.upkeep.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn upkeep_mut(&self) -> RwLockWriteGuard<'_, UpkeepTables> {
        self.upkeep.write().unwrap_or_else(PoisonError::into_inner)
    }
}

// Where both locks are taken, that of the tenants is first.
#[async_trait]
impl UpkeepStore for MemoryStore {
    async fn claim_run(&self, claim: &ClaimRun) -> Result<Claimed> {
        let mut tables = self.upkeep_mut();
        let Some(task) = tables.tasks.get_mut(&claim.task) else {
            let mut state = TaskState::of(TaskRun::begun(claim, 1, 1));
            state.lease_until = Some(claim.lease_until);
            tables.tasks.insert(claim.task.clone(), Task { state, ended: Vec::new() });
            let fence = Fence { task: claim.task.clone(), token: 1 };
            return Ok(Claimed::Granted { fence, attempt: 1, since: None });
        };
        let latest = &task.state.latest;
        let is_same = latest.due_at == claim.due_at;
        if latest.due_at > claim.due_at || (is_same && latest.status == RunStatus::Succeeded) {
            return Ok(Claimed::Done);
        }
        if latest.status == RunStatus::Running
            && let Some(until) = task.state.lease_until.filter(|until| *until > claim.now)
        {
            return Ok(Claimed::Running { until });
        }
        if is_same
            && latest.status == RunStatus::Failed
            && let Some(at) = task.state.retry_at.filter(|at| *at > claim.now)
        {
            return Ok(Claimed::Later { at });
        }
        let attempt = if is_same { latest.attempt + 1 } else { 1 };
        let begun = TaskRun::begun(claim, latest.token + 1, attempt);
        let fence = Fence { task: claim.task.clone(), token: begun.token };
        let mut before = std::mem::replace(&mut task.state.latest, begun);
        if before.status == RunStatus::Running {
            before.status = RunStatus::Lost;
            before.finished_at = Some(claim.now);
            before.error = Some("its lease ran out".to_owned());
        }
        task.ended.push(before);
        task.state.lease_until = Some(claim.lease_until);
        task.state.retry_at = None;
        Ok(Claimed::Granted { fence, attempt, since: task.state.last_success_due_at })
    }

    async fn renew_run(&self, fence: &Fence, lease_until: DateTime<Utc>) -> Result<bool> {
        let mut tables = self.upkeep_mut();
        let held = tables.held(fence);
        Ok(held.map(|state| state.lease_until = state.lease_until.max(Some(lease_until))).is_some())
    }

    async fn finish_run(&self, fence: &Fence, end: &RunEnd) -> Result<bool> {
        let mut tables = self.upkeep_mut();
        let Some(state) = tables.held(fence) else {
            return Ok(false);
        };
        state.lease_until = None;
        match end {
            RunEnd::Succeeded { at, rows } => {
                state.latest.status = RunStatus::Succeeded;
                state.latest.finished_at = Some(*at);
                state.latest.rows = Some(*rows);
                state.last_success_due_at = Some(state.latest.due_at);
                state.last_success_at = Some(*at);
            }
            RunEnd::Failed { at, error, retry_at } => {
                state.latest.status = RunStatus::Failed;
                state.latest.finished_at = Some(*at);
                state.latest.error = Some(error.clone());
                state.retry_at = Some(*retry_at);
            }
        }
        Ok(true)
    }

    async fn task_states(&self) -> Result<Vec<TaskState>> {
        Ok(self.upkeep().tasks.values().map(|task| task.state.clone()).collect())
    }

    async fn task_runs(&self, task: &Label, limit: u32) -> Result<Vec<TaskRun>> {
        let tables = self.upkeep();
        let Some(task) = tables.tasks.get(task) else {
            return Ok(Vec::new());
        };
        let newest_first = std::iter::once(&task.state.latest).chain(task.ended.iter().rev());
        Ok(newest_first.take(bounded(limit)).cloned().collect())
    }

    async fn make_days(&self, table: DayTable, days: &[NaiveDate]) -> Result<u64> {
        let kept: BTreeSet<NaiveDate> = self.days(table).await?.into_iter().collect();
        let mut tables = self.upkeep_mut();
        let mut made = 0;
        for day in days.iter().copied().filter(|day| !kept.contains(day)) {
            if !(table == DayTable::Usage && tables.is_dropped(day)) {
                made += u64::from(tables.made.insert((table, day)));
            }
        }
        Ok(made)
    }

    async fn days(&self, table: DayTable) -> Result<Vec<NaiveDate>> {
        let tenants = self.read();
        let tables = self.upkeep();
        let made = tables.made.iter().filter(|(of, _)| *of == table).map(|(_, day)| *day);
        let mut days: BTreeSet<NaiveDate> = made.collect();
        if table == DayTable::Usage {
            days.extend(tenants.values().flat_map(|tenant| tenant.events.keys().map(|id| day_of(*id))));
        }
        Ok(days.into_iter().collect())
    }

    async fn day_digest(&self, day: NaiveDate) -> Result<DayDigest> {
        Ok(digest_of(self.read().values(), day))
    }

    async fn day_events(
        &self,
        day: NaiveDate,
        after: Option<(&TenantId, EventId)>,
        limit: u32,
    ) -> Result<Vec<UsageEvent>> {
        let tenants = self.read();
        let events = tenants.iter().flat_map(|(tenant_id, tenant)| {
            tenant.of_day(day).map(move |event| ((tenant_id, event.id()), event))
        });
        let later = events.filter(|(key, _)| after.is_none_or(|after| *key > after));
        Ok(later.map(|(_, event)| event.clone()).take(bounded(limit)).collect())
    }

    async fn drop_day(&self, fence: &Fence, drop: &DropDay) -> Result<DayDropped> {
        let mut tenants = self.write();
        let mut tables = self.upkeep_mut();
        if tables.held(fence).is_none() {
            return Ok(DayDropped::Fenced);
        }
        let has_day = tables.made.contains(&(DayTable::Usage, drop.day))
            || tenants.values().any(|tenant| tenant.of_day(drop.day).next().is_some());
        if !has_day {
            return Ok(DayDropped::Gone);
        }
        let is_held =
            |tenant_id| tenants.get(tenant_id).is_some_and(|held| held.of_day(drop.day).next().is_some());
        if tables.holds.keys().any(is_held) {
            return Ok(DayDropped::Held);
        }
        if digest_of(tenants.values(), drop.day) != drop.digest {
            return Ok(DayDropped::Changed);
        }
        for tenant in tenants.values_mut() {
            tenant.events.retain(|id, _| day_of(*id) != drop.day);
            tenant.keys.retain(|_, id| day_of(*id) != drop.day);
        }
        tables.made.remove(&(DayTable::Usage, drop.day));
        tables.closed.insert(drop.day, ClosedDay::dropped(drop));
        Ok(DayDropped::Dropped)
    }

    async fn replace_archive(&self, fence: &Fence, before_sha256: &str, after: &DropDay) -> Result<bool> {
        let mut tables = self.upkeep_mut();
        if tables.held(fence).is_none() {
            return Ok(false);
        }
        let is_that = |closed: &&mut ClosedDay| {
            closed.manifest.as_ref().is_some_and(|(_, sha256)| sha256 == before_sha256)
        };
        let Some(closed) = tables.closed.get_mut(&after.day).filter(is_that) else {
            return Ok(false);
        };
        closed.digest = after.digest;
        closed.manifest.clone_from(&after.manifest);
        Ok(true)
    }

    async fn closed_days(&self, table: DayTable) -> Result<Vec<ClosedDay>> {
        let is_usage = table == DayTable::Usage;
        Ok(self.upkeep().closed.values().filter(|_| is_usage).cloned().collect())
    }

    async fn stage_events(&self, events: &[UsageEvent]) -> Result<()> {
        let staged = &mut self.upkeep_mut().staged;
        for event in events {
            staged.entry((event.tenant_id.clone(), event.id())).or_insert_with(|| event.clone());
        }
        Ok(())
    }

    async fn unstage_day(&self, day: NaiveDate) -> Result<()> {
        self.upkeep_mut().staged.retain(|(_, id), _| day_of(*id) != day);
        Ok(())
    }

    async fn open_day(&self, fence: &Fence, day: NaiveDate, kept_until: DateTime<Utc>) -> Result<DayOpened> {
        let mut tenants = self.write();
        let mut tables = self.upkeep_mut();
        if tables.held(fence).is_none() {
            return Ok(DayOpened::Fenced);
        }
        if !tables.is_dropped(day) {
            return Ok(DayOpened::Open);
        }
        let mut staged = DayDigest::default();
        tables.staged.keys().filter(|(_, id)| day_of(*id) == day).for_each(|(_, id)| staged.add(*id));
        let Some(closed) = tables.closed.get_mut(&day).filter(|closed| closed.digest == staged) else {
            return Ok(DayOpened::Changed);
        };
        closed.is_restored = true;
        closed.kept_until = Some(kept_until);
        let (of_day, rest) =
            std::mem::take(&mut tables.staged).into_iter().partition(|((_, id), _)| day_of(*id) == day);
        tables.staged = rest;
        let of_day: BTreeMap<(TenantId, EventId), UsageEvent> = of_day;
        for ((tenant_id, id), event) in of_day {
            let tenant = tenants.entry(tenant_id).or_default();
            if let Some(key) = &event.idempotency_key {
                tenant.keys.entry(key.clone()).or_insert(id);
            }
            tenant.events.insert(id, event);
        }
        Ok(DayOpened::Opened)
    }

    async fn prune(&self, prune: &Prune, rows_max: u32) -> Result<u64> {
        let mut tenants = self.write();
        let mut tables = self.upkeep_mut();
        let mut left = u64::from(rows_max);
        match prune {
            // The quarter hours are the longer periods as well: they go with the longest.
            Prune::Metrics(Period::Month, keep) => {
                let days: BTreeSet<NaiveDate> =
                    tenants.values().flat_map(|tenant| tenant.events.keys().map(|id| day_of(*id))).collect();
                for (tenant_id, tenant) in tenants.iter_mut() {
                    let instant = keep_from(keep, tenant);
                    let is_old = |start: DateTime<Utc>| {
                        start < Period::Month.range_at(instant, crate::time::Zone::UTC).start()
                            && !days.contains(&start.date_naive())
                    };
                    if !tables.holds.contains_key(tenant_id) {
                        tenant
                            .quarter_hours
                            .retain(|start, _| left == 0 || !is_old(*start) || take(&mut left));
                    }
                }
            }
            Prune::Metrics(..) => {}
            Prune::Events(keep) => {
                for (tenant_id, tenant) in tenants.iter_mut() {
                    let instant = keep_from(keep, tenant);
                    let has_old =
                        tenant.events.keys().next().is_some_and(|id| day_of(*id) < instant.date_naive());
                    if !has_old || tables.holds.contains_key(tenant_id) {
                        continue;
                    }
                    tenant.pruned_before = tenant.pruned_before.max(Some(instant.date_naive()));
                    while left > 0
                        && let Some(entry) = tenant.events.first_entry()
                        && day_of(*entry.key()) < instant.date_naive()
                    {
                        let event = entry.remove();
                        event.idempotency_key.map(|key| tenant.keys.remove(&key));
                        left -= 1;
                    }
                }
            }
            Prune::QuotaRows { ended_before } => {
                for tenant in tenants.values_mut() {
                    left = left.saturating_sub(u64::from(tenant.ledger.prune_ended(*ended_before)));
                }
            }
            Prune::Runs { finished_before } => {
                for task in tables.tasks.values_mut() {
                    let is_old = |run: &TaskRun| run.finished_at.is_some_and(|at| at < *finished_before);
                    task.ended.retain(|run| left == 0 || !is_old(run) || take(&mut left));
                }
            }
        }
        Ok(u64::from(rows_max) - left)
    }

    async fn aggregate(&self, range: TimeRange) -> Result<u64> {
        let mut tenants = self.write();
        let tables = self.upkeep();
        let mut written = 0;
        let mut day = range.start().date_naive();
        while day.and_time(chrono::NaiveTime::MIN).and_utc() < range.end() {
            let has_events = tenants.values().any(|tenant| tenant.of_day(day).next().is_some())
                || tables.made.contains(&(DayTable::Usage, day));
            for tenant in tenants.values_mut().filter(|_| has_events) {
                if tenant.pruned_before.is_none_or(|before| before <= day) {
                    written += tenant.aggregate_day(day);
                }
            }
            let Some(next) = day.succ_opt() else { break };
            day = next;
        }
        Ok(written)
    }

    async fn set_usage_hold(&self, tenant_id: &TenantId, reason: Option<&Label>) -> Result<()> {
        let holds = &mut self.upkeep_mut().holds;
        match reason {
            Some(reason) => holds.insert(tenant_id.clone(), reason.clone()),
            None => holds.remove(tenant_id),
        };
        Ok(())
    }

    async fn usage_holds(&self) -> Result<Vec<(TenantId, Label)>> {
        Ok(self
            .upkeep()
            .holds
            .iter()
            .map(|(tenant_id, reason)| (tenant_id.clone(), reason.clone()))
            .collect())
    }

    async fn erase_usage(&self, tenant_id: &TenantId) -> Result<u64> {
        let mut tenants = self.write();
        let mut tables = self.upkeep_mut();
        if tables.holds.contains_key(tenant_id) {
            let message = format!("the usage of tenant {tenant_id} is under legal hold");
            return Err(Error::new(ErrorKind::Conflict, message));
        }
        tables.staged.retain(|(of, _), _| of != tenant_id);
        let Some(tenant) = tenants.get_mut(tenant_id) else {
            return Ok(0);
        };
        let erased = tenant.events.len() + tenant.quarter_hours.len();
        tenant.events.clear();
        tenant.keys.clear();
        tenant.quarter_hours.clear();
        tenant.pruned_before = None;
        Ok(u64::try_from(erased).unwrap_or(u64::MAX))
    }
}

impl Tenant {
    /// The events of a day, by id.
    fn of_day(&self, day: NaiveDate) -> impl Iterator<Item = &UsageEvent> {
        let start = EventId::bound(EventId::lower_bound(day.and_time(chrono::NaiveTime::MIN).and_utc()));
        let later = self.events.range((Bound::Included(start), Bound::Unbounded));
        later.map(|(_, event)| event).take_while(move |event| day_of(event.id()) == day)
    }

    fn aggregate_day(&mut self, day: NaiveDate) -> u64 {
        let mut sums: BTreeMap<DateTime<Utc>, UsageMetrics> = BTreeMap::new();
        for event in self.of_day(day) {
            sums.entry(bucket_start(event.occurred_at())).or_default().add(event);
        }
        self.quarter_hours.retain(|start, _| start.date_naive() != day);
        let written = u64::try_from(sums.len()).unwrap_or(u64::MAX);
        self.quarter_hours.append(&mut sums);
        written
    }
}

pub(super) fn day_of(id: EventId) -> NaiveDate {
    id.millisecond().date_naive()
}

fn digest_of<'a>(tenants: impl Iterator<Item = &'a Tenant>, day: NaiveDate) -> DayDigest {
    let mut digest = DayDigest::default();
    tenants.flat_map(|tenant| tenant.of_day(day)).for_each(|event| digest.add(event.id()));
    digest
}

fn keep_from(keep: &KeepFrom, tenant: &Tenant) -> DateTime<Utc> {
    let plan = tenant.ledger.quotas().plan;
    let own = keep.by_plan.iter().find(|(of, _)| plan.as_ref() == Some(of));
    own.map_or(keep.instant, |(_, instant)| *instant)
}

/// Counts one down; false, for `retain`.
fn take(left: &mut u64) -> bool {
    *left = left.saturating_sub(1);
    false
}

fn bounded(limit: u32) -> usize {
    usize::try_from(limit.min(UPKEEP_READ_MAX)).unwrap_or(usize::MAX)
}
