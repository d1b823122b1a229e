//! Upkeep in Postgres: each method does its step in a transaction of its own.

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use rust_decimal::prelude::{FromPrimitive, ToPrimitive};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::append::ensure_partition;
use super::error::from_postgres;
use super::rows::{EventRow, count, event, event_columns, get, misread, natural};
use super::{PostgresStore, audit, sql, transact};
use crate::store::{
    ClaimRun, Claimed, ClosedDay, DayDigest, DayDropped, DayOpened, DayTable, DropDay, Fence, KeepFrom,
    Prune, RunEnd, RunStatus, TaskRun, TaskState, UPKEEP_READ_MAX, UpkeepStore,
};
use crate::text::Label;
use crate::time::{Period, TimeRange};
use crate::usage::{EventId, UsageEvent};
use crate::{Error, ErrorKind, Result, TenantId};

type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// Tenants that one call looks at: each is a statement of its own.
const TENANTS_MAX: i64 = 200;

impl PostgresStore {
    /// One statement in a transaction of its own.
    async fn do_step(&self, statement: &str, parameters: &[Parameter<'_>]) -> Result<Vec<Row>> {
        transact!(self, |transaction| query(transaction, statement, parameters))
    }
}

async fn query(
    transaction: &Transaction<'_>,
    statement: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>> {
    transaction.query_typed(statement, parameters).await.map_err(from_postgres)
}

#[async_trait]
impl UpkeepStore for PostgresStore {
    async fn claim_run(&self, claim: &ClaimRun) -> Result<Claimed> {
        let (task, owner) = (claim.task.as_str(), claim.owner.as_str());
        let parameters: [Parameter<'_>; 5] = [
            (&task, Type::TEXT),
            (&claim.due_at, Type::TIMESTAMPTZ),
            (&claim.now, Type::TIMESTAMPTZ),
            (&claim.lease_until, Type::TIMESTAMPTZ),
            (&owner, Type::TEXT),
        ];
        claimed(one(&self.do_step(sql::CLAIM_UPKEEP_RUN, &parameters).await?)?, claim)
    }

    async fn renew_run(&self, fence: &Fence, lease_until: DateTime<Utc>) -> Result<bool> {
        let (task, token) = (fence.task.as_str(), count("token", fence.token)?);
        let parameters: [Parameter<'_>; 3] =
            [(&task, Type::TEXT), (&token, Type::INT8), (&lease_until, Type::TIMESTAMPTZ)];
        Ok(!self.do_step(sql::RENEW_UPKEEP_RUN, &parameters).await?.is_empty())
    }

    async fn finish_run(&self, fence: &Fence, end: &RunEnd) -> Result<bool> {
        let (task, token) = (fence.task.as_str(), count("token", fence.token)?);
        let (status, at, rows, error, retry_at) = match end {
            RunEnd::Succeeded { at, rows } => {
                (RunStatus::Succeeded, at, Some(count("rows", *rows)?), None, None)
            }
            RunEnd::Failed { at, error, retry_at } => {
                (RunStatus::Failed, at, None, Some(error.as_str()), Some(retry_at))
            }
        };
        let status = status.as_str();
        let parameters: [Parameter<'_>; 7] = [
            (&task, Type::TEXT),
            (&token, Type::INT8),
            (&status, Type::TEXT),
            (at, Type::TIMESTAMPTZ),
            (&rows, Type::INT8),
            (&error, Type::TEXT),
            (&retry_at, Type::TIMESTAMPTZ),
        ];
        get(one(&self.do_step(sql::FINISH_UPKEEP_RUN, &parameters).await?)?, 0)
    }

    async fn task_states(&self) -> Result<Vec<TaskState>> {
        let state = |row: &Row| {
            Ok(TaskState {
                latest: run(row)?,
                lease_until: get(row, 10)?,
                retry_at: get(row, 11)?,
                last_success_due_at: get(row, 12)?,
                last_success_at: get(row, 13)?,
            })
        };
        self.do_step(sql::UPKEEP_STATES, &[]).await?.iter().map(state).collect()
    }

    async fn task_runs(&self, task: &Label, limit: u32) -> Result<Vec<TaskRun>> {
        let (task, limit) = (task.as_str(), i64::from(limit.min(UPKEEP_READ_MAX)));
        let rows = self.do_step(sql::UPKEEP_RUNS, &[(&task, Type::TEXT), (&limit, Type::INT8)]).await?;
        rows.iter().map(run).collect()
    }

    async fn make_days(&self, table: DayTable, days: &[NaiveDate]) -> Result<u64> {
        let closed = self.closed_days(table).await?;
        let kept = self.days(table).await?;
        let is_closed = |day| closed.iter().any(|closed| closed.day == day && !closed.is_restored);
        let mut made = 0;
        for day in days.iter().copied().filter(|day| !kept.contains(day) && !is_closed(*day)) {
            // One transaction a day: each holds its lock on the parent for a moment only.
            if table == DayTable::Usage {
                transact!(self, |transaction| ensure_partition(transaction, day))?;
            } else {
                transact!(self, |transaction| audit::append::ensure_partition(transaction, day))?;
            }
            made += 1;
        }
        Ok(made)
    }

    async fn days(&self, table: DayTable) -> Result<Vec<NaiveDate>> {
        let statement = match table {
            DayTable::Usage => sql::USAGE_DAYS,
            DayTable::Audit => sql::AUDIT_DAYS,
        };
        self.do_step(statement, &[]).await?.iter().map(|row| get(row, 0)).collect()
    }

    async fn day_digest(&self, day: NaiveDate) -> Result<DayDigest> {
        digest(one(&self.do_step(sql::USAGE_DAY_DIGEST, &[(&day, Type::DATE)]).await?)?, 0)
    }

    async fn day_events(
        &self,
        day: NaiveDate,
        after: Option<(&TenantId, EventId)>,
        limit: u32,
    ) -> Result<Vec<UsageEvent>> {
        let (first, end) = bounds_of(day);
        // No id is empty, so all keys come after this.
        let (tenant, id) =
            after.map_or(("", Uuid::nil()), |(tenant_id, id)| (tenant_id.as_str(), id.as_uuid()));
        let limit = i64::from(limit.min(UPKEEP_READ_MAX));
        let parameters: [Parameter<'_>; 5] = [
            (&first, Type::UUID),
            (&end, Type::UUID),
            (&tenant, Type::TEXT),
            (&id, Type::UUID),
            (&limit, Type::INT8),
        ];
        self.do_step(sql::USAGE_DAY_EVENTS, &parameters).await?.iter().map(event).collect()
    }

    async fn drop_day(&self, fence: &Fence, drop: &DropDay) -> Result<DayDropped> {
        let (task, token) = (fence.task.as_str(), count("token", fence.token)?);
        let (events, key_sum) = (count("events", drop.digest.events)?, decimal(drop.digest.key_sum)?);
        let (manifest, sha256) =
            drop.manifest.as_ref().map(|(text, sha256)| (text.as_str(), sha256.as_str())).unzip();
        let parameters: [Parameter<'_>; 8] = [
            (&task, Type::TEXT),
            (&token, Type::INT8),
            (&drop.day, Type::DATE),
            (&events, Type::INT8),
            (&key_sum, Type::NUMERIC),
            (&manifest, Type::TEXT),
            (&sha256, Type::TEXT),
            (&drop.now, Type::TIMESTAMPTZ),
        ];
        let rows = self.do_step(sql::DROP_USAGE_DAY, &parameters).await?;
        match get::<&str>(one(&rows)?, 0)? {
            "dropped" => Ok(DayDropped::Dropped),
            "gone" => Ok(DayDropped::Gone),
            "changed" => Ok(DayDropped::Changed),
            "held" => Ok(DayDropped::Held),
            "fenced" => Ok(DayDropped::Fenced),
            other => Err(misread(format!("drop_usage_day answered {other:?}"))),
        }
    }

    async fn replace_archive(&self, fence: &Fence, before_sha256: &str, after: &DropDay) -> Result<bool> {
        let (task, token) = (fence.task.as_str(), count("token", fence.token)?);
        let (events, key_sum) = (count("events", after.digest.events)?, decimal(after.digest.key_sum)?);
        let (manifest, sha256) =
            after.manifest.as_ref().map(|(text, sha256)| (text.as_str(), sha256.as_str())).unzip();
        let parameters: [Parameter<'_>; 8] = [
            (&task, Type::TEXT),
            (&token, Type::INT8),
            (&after.day, Type::DATE),
            (&before_sha256, Type::TEXT),
            (&events, Type::INT8),
            (&key_sum, Type::NUMERIC),
            (&manifest, Type::TEXT),
            (&sha256, Type::TEXT),
        ];
        Ok(!self.do_step(sql::REPLACE_ARCHIVE, &parameters).await?.is_empty())
    }

    async fn closed_days(&self, table: DayTable) -> Result<Vec<ClosedDay>> {
        let table = table.as_str();
        let closed = |row: &Row| {
            Ok(ClosedDay {
                day: get(row, 0)?,
                is_restored: get(row, 1)?,
                digest: digest(row, 2)?,
                manifest: get::<Option<String>>(row, 4)?.zip(get::<Option<String>>(row, 5)?),
                closed_at: get(row, 6)?,
                kept_until: get(row, 7)?,
            })
        };
        self.do_step(sql::CLOSED_DAYS, &[(&table, Type::TEXT)]).await?.iter().map(closed).collect()
    }

    async fn stage_events(&self, events: &[UsageEvent]) -> Result<()> {
        let rows: Vec<EventRow<'_>> = events.iter().map(EventRow::new).collect::<Result<_>>()?;
        let columns = event_columns(&rows);
        let parameters: Vec<Parameter<'_>> = columns
            .iter()
            .map(|(column, of)| {
                let column: &(dyn ToSql + Sync) = &**column;
                (column, of.clone())
            })
            .collect();
        self.do_step(sql::STAGE_EVENTS, &parameters).await.map(|_| ())
    }

    async fn unstage_day(&self, day: NaiveDate) -> Result<()> {
        let (first, end) = bounds_of(day);
        self.do_step(sql::UNSTAGE_EVENTS, &[(&first, Type::UUID), (&end, Type::UUID)]).await.map(|_| ())
    }

    async fn open_day(&self, fence: &Fence, day: NaiveDate, kept_until: DateTime<Utc>) -> Result<DayOpened> {
        let (task, token) = (fence.task.as_str(), count("token", fence.token)?);
        let parameters: [Parameter<'_>; 4] =
            [(&task, Type::TEXT), (&token, Type::INT8), (&day, Type::DATE), (&kept_until, Type::TIMESTAMPTZ)];
        let rows = self.do_step(sql::OPEN_USAGE_DAY, &parameters).await?;
        match get::<&str>(one(&rows)?, 0)? {
            "opened" => Ok(DayOpened::Opened),
            "open" => Ok(DayOpened::Open),
            "changed" => Ok(DayOpened::Changed),
            "fenced" => Ok(DayOpened::Fenced),
            other => Err(misread(format!("open_usage_day answered {other:?}"))),
        }
    }

    async fn prune(&self, prune: &Prune, rows_max: u32) -> Result<u64> {
        match prune {
            Prune::Metrics(period, keep) => {
                transact!(self, |transaction| prune_metrics(transaction, *period, keep, rows_max))
            }
            Prune::Events(keep) => {
                transact!(self, |transaction| prune_events(transaction, keep, rows_max))
            }
            Prune::QuotaRows { ended_before } => {
                transact!(self, |transaction| prune_quota_rows(transaction, *ended_before))
            }
            Prune::Runs { finished_before } => {
                let limit = i64::from(rows_max);
                let parameters: [Parameter<'_>; 2] =
                    [(finished_before, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
                number(&self.do_step(sql::PRUNE_UPKEEP_RUNS, &parameters).await?)
            }
        }
    }

    async fn aggregate(&self, range: TimeRange) -> Result<u64> {
        let (start, end) = (range.start(), range.end());
        let parameters: [Parameter<'_>; 2] = [(&start, Type::TIMESTAMPTZ), (&end, Type::TIMESTAMPTZ)];
        number(&self.do_step(sql::AGGREGATE_USAGE, &parameters).await?)
    }

    async fn set_usage_hold(&self, tenant_id: &TenantId, reason: Option<&Label>) -> Result<()> {
        let tenant = tenant_id.as_str();
        let done = match reason.map(Label::as_str) {
            Some(reason) => {
                let parameters: [Parameter<'_>; 2] = [(&tenant, Type::TEXT), (&reason, Type::TEXT)];
                self.do_step(sql::SET_USAGE_HOLD, &parameters).await
            }
            None => self.do_step(sql::RELEASE_USAGE_HOLD, &[(&tenant, Type::TEXT)]).await,
        };
        done.map(|_| ())
    }

    async fn usage_holds(&self) -> Result<Vec<(TenantId, Label)>> {
        let hold = |row: &Row| {
            Ok((TenantId::new(get::<&str>(row, 0)?)?, Label::new("reason", get::<&str>(row, 1)?)?))
        };
        self.do_step(sql::USAGE_HOLDS, &[]).await?.iter().map(hold).collect()
    }

    async fn erase_usage(&self, tenant_id: &TenantId) -> Result<u64> {
        let tenant = tenant_id.as_str();
        let rows = self.do_step(sql::ERASE_USAGE, &[(&tenant, Type::TEXT)]).await?;
        let row = one(&rows)?;
        let held = || {
            Error::new(ErrorKind::Conflict, format!("the usage of tenant {tenant_id} is under legal hold"))
        };
        natural(row, 0, get::<Option<i64>>(row, 0)?.ok_or_else(held)?)
    }
}

async fn prune_metrics(
    transaction: &Transaction<'_>,
    period: Period,
    keep: &KeepFrom,
    rows_max: u32,
) -> Result<u64> {
    let period = period.as_str();
    let (plans, instants): (Vec<&str>, Vec<DateTime<Utc>>) =
        keep.by_plan.iter().map(|(plan, instant)| (plan.as_str(), *instant)).unzip();
    let latest = instants.iter().copied().fold(keep.instant, DateTime::max);
    let limit = i64::from(rows_max);
    let kept = query(transaction, sql::USAGE_DAYS, &[]).await?;
    let kept: Vec<NaiveDate> = kept.iter().map(|row| get(row, 0)).collect::<Result<_>>()?;
    let parameters: [Parameter<'_>; 7] = [
        (&period, Type::TEXT),
        (&keep.instant, Type::TIMESTAMPTZ),
        (&plans, Type::TEXT_ARRAY),
        (&instants, Type::TIMESTAMPTZ_ARRAY),
        (&latest, Type::TIMESTAMPTZ),
        (&limit, Type::INT8),
        (&kept, Type::DATE_ARRAY),
    ];
    number(&query(transaction, sql::PRUNE_USAGE_METRICS, &parameters).await?)
}

/// Tenant after tenant, until enough is deleted.
async fn prune_events(transaction: &Transaction<'_>, keep: &KeepFrom, rows_max: u32) -> Result<u64> {
    let mut pruned = 0;
    for (plan, instant) in &keep.by_plan {
        let mut after = String::new();
        loop {
            let plan = plan.as_str();
            let parameters: [Parameter<'_>; 3] =
                [(&plan, Type::TEXT), (&after, Type::TEXT), (&TENANTS_MAX, Type::INT8)];
            let tenants = query(transaction, sql::PLAN_TENANTS, &parameters).await?;
            let Some(last) = tenants.last() else {
                break;
            };
            after = get(last, 0)?;
            prune_tenants(transaction, &tenants, *instant, rows_max, &mut pruned).await?;
        }
    }
    let plans: Vec<&str> = keep.by_plan.iter().map(|(plan, _)| plan.as_str()).collect();
    let below = EventId::lower_bound(keep.instant.date_naive().and_time(NaiveTime::MIN).and_utc());
    let parameters: [Parameter<'_>; 3] =
        [(&below, Type::UUID), (&plans, Type::TEXT_ARRAY), (&TENANTS_MAX, Type::INT8)];
    let tenants = query(transaction, sql::OLD_EVENT_TENANTS, &parameters).await?;
    prune_tenants(transaction, &tenants, keep.instant, rows_max, &mut pruned).await?;
    Ok(pruned)
}

/// Deletes the old events of some tenants, until enough is deleted in all.
async fn prune_tenants(
    transaction: &Transaction<'_>,
    tenants: &[Row],
    instant: DateTime<Utc>,
    rows_max: u32,
    pruned: &mut u64,
) -> Result<()> {
    let day = instant.date_naive();
    for row in tenants {
        let tenant = get::<&str>(row, 0)?;
        let left = i64::from(rows_max) - count("rows", *pruned)?;
        if left <= 0 {
            break;
        }
        let parameters: [Parameter<'_>; 3] = [(&tenant, Type::TEXT), (&day, Type::DATE), (&left, Type::INT8)];
        *pruned += number(&query(transaction, sql::PRUNE_USAGE_EVENTS, &parameters).await?)?;
    }
    Ok(())
}

/// One tenant after the other: each takes the tenant's lock, in the order of ids.
async fn prune_quota_rows(transaction: &Transaction<'_>, ended_before: DateTime<Utc>) -> Result<u64> {
    let parameters: [Parameter<'_>; 2] = [(&ended_before, Type::TIMESTAMPTZ), (&TENANTS_MAX, Type::INT8)];
    let tenants = query(transaction, sql::ENDED_QUOTA_TENANTS, &parameters).await?;
    for row in &tenants {
        let (tenant, ended_before) = (get::<&str>(row, 0)?, Some(ended_before));
        let parameters: [Parameter<'_>; 2] = [(&tenant, Type::TEXT), (&ended_before, Type::TIMESTAMPTZ)];
        query(transaction, sql::LOCK_QUOTAS, &parameters).await?;
    }
    Ok(u64::try_from(tenants.len()).unwrap_or(u64::MAX))
}

fn claimed(row: &Row, claim: &ClaimRun) -> Result<Claimed> {
    let until = || -> Result<DateTime<Utc>> {
        get::<Option<DateTime<Utc>>>(row, 4)?.ok_or_else(|| misread("a claim has no instant to wait for"))
    };
    match get::<&str>(row, 0)? {
        "claimed" => Ok(Claimed::Granted {
            fence: Fence { task: claim.task.clone(), token: natural(row, 1, get(row, 1)?)? },
            attempt: u32::try_from(get::<i32>(row, 2)?).unwrap_or(u32::MAX),
            since: get(row, 3)?,
        }),
        "done" => Ok(Claimed::Done),
        "running" => Ok(Claimed::Running { until: until()? }),
        "later" => Ok(Claimed::Later { at: until()? }),
        other => Err(misread(format!("claim_upkeep_run answered {other:?}"))),
    }
}

fn run(row: &Row) -> Result<TaskRun> {
    let status = match get::<&str>(row, 5)? {
        "running" => RunStatus::Running,
        "succeeded" => RunStatus::Succeeded,
        "failed" => RunStatus::Failed,
        "lost" => RunStatus::Lost,
        other => return Err(misread(format!("a run has the status {other:?}"))),
    };
    Ok(TaskRun {
        task: Label::new("task", get::<&str>(row, 0)?)?,
        token: natural(row, 1, get(row, 1)?)?,
        due_at: get(row, 2)?,
        attempt: u32::try_from(get::<i32>(row, 3)?).unwrap_or(u32::MAX),
        owner: get(row, 4)?,
        status,
        started_at: get(row, 6)?,
        finished_at: get(row, 7)?,
        rows: get::<Option<i64>>(row, 8)?.map(|rows| natural(row, 8, rows)).transpose()?,
        error: get(row, 9)?,
    })
}

fn one(rows: &[Row]) -> Result<&Row> {
    rows.first().ok_or_else(|| misread("a function gave no answer"))
}

/// The number that a statement answers.
fn number(rows: &[Row]) -> Result<u64> {
    let row = one(rows)?;
    natural(row, 0, get(row, 0)?)
}

/// The count and the sum in two columns.
fn digest(row: &Row, index: usize) -> Result<DayDigest> {
    let key_sum = get::<Decimal>(row, index + 1)?.to_u128();
    let key_sum = key_sum.ok_or_else(|| misread("the sum of a day's keys is none"))?;
    Ok(DayDigest { events: natural(row, index, get(row, index)?)?, key_sum })
}

fn decimal(key_sum: u128) -> Result<Decimal> {
    Decimal::from_u128(key_sum).ok_or_else(|| Error::invalid("key_sum", "is out of range"))
}

/// The ids of a day: from and below.
fn bounds_of(day: NaiveDate) -> (Uuid, Uuid) {
    let start = day.and_time(NaiveTime::MIN).and_utc();
    (EventId::lower_bound(start), EventId::lower_bound(start + TimeDelta::days(1)))
}
