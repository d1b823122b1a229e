//! The crate's own tasks: folding the journal, making partitions, deleting what is old.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, NaiveDate, TimeDelta, Utc};

use super::{ROLL_UP_STEPS_MAX, Retention, Run, Schedule, UpkeepTask};
use crate::Result;
use crate::store::{DayDropped, DayTable, DropDay, KeepFrom, Prune, Store, UpkeepStore};
use crate::time::Period;

/// How many rows one call deletes, so that none holds its transaction for long.
const PRUNE_ROWS_MAX: u32 = 20_000;
const HOUR: Duration = Duration::from_secs(60 * 60);

/// `aggregate`: folds what was recorded into the quarter-hourly, hourly, daily and monthly metrics. What comes late is
/// folded into the periods that it belongs to.
#[derive(Debug)]
pub(super) struct Aggregation {
    store: Arc<dyn Store>,
    interval: Duration,
}

impl Aggregation {
    pub(super) fn new(store: Arc<dyn Store>, interval: Duration) -> Self {
        Self { store, interval }
    }
}

#[async_trait]
impl UpkeepTask for Aggregation {
    fn name(&self) -> &'static str {
        "aggregate"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(self.interval)
    }

    async fn run(&self, _run: &Run) -> Result<u64> {
        let mut folded = 0;
        loop {
            let more = self.store.roll_up(ROLL_UP_STEPS_MAX).await?;
            folded += more;
            // Not until nothing is left: others go on recording.
            if more < u64::from(ROLL_UP_STEPS_MAX) {
                return Ok(folded);
            }
        }
    }
}

/// `partitions`: makes the day partitions of usage and audit events ahead.
#[derive(Debug)]
pub(super) struct Partitions {
    store: Arc<dyn UpkeepStore>,
    days_ahead: u32,
}

impl Partitions {
    pub(super) fn new(store: Arc<dyn UpkeepStore>, days_ahead: u32) -> Self {
        Self { store, days_ahead }
    }
}

#[async_trait]
impl UpkeepTask for Partitions {
    fn name(&self) -> &'static str {
        "partitions"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(HOUR)
    }

    async fn run(&self, run: &Run) -> Result<u64> {
        let ahead = usize::try_from(self.days_ahead).unwrap_or(usize::MAX).saturating_add(1);
        let days: Vec<NaiveDate> = run.now().date_naive().iter_days().take(ahead).collect();
        let usage = self.store.make_days(DayTable::Usage, &days).await?;
        Ok(usage + self.store.make_days(DayTable::Audit, &days).await?)
    }
}

/// `prune`: deletes what [`Retention`] says.
#[derive(Debug)]
pub(super) struct Pruning {
    store: Arc<dyn UpkeepStore>,
    retention: Retention,
}

impl Pruning {
    pub(super) fn new(store: Arc<dyn UpkeepStore>, retention: Retention) -> Self {
        Self { store, retention }
    }

    async fn all(&self, prune: &Prune) -> Result<u64> {
        let mut pruned = 0;
        loop {
            match self.store.prune(prune, PRUNE_ROWS_MAX).await? {
                0 => return Ok(pruned),
                more => pruned += more,
            }
        }
    }

    /// Drops the days of events that nobody keeps.
    async fn drop_days(&self, run: &Run, before: NaiveDate) -> Result<u64> {
        let mut dropped = 0;
        for day in droppable(&*self.store, before, run.now()).await? {
            let digest = self.store.day_digest(day).await?;
            let drop = DropDay { day, digest, manifest: None, now: run.now() };
            match self.store.drop_day(run.fence(), &drop).await? {
                DayDropped::Dropped => dropped += digest.events,
                DayDropped::Fenced => return Err(run.lost()),
                // What came in meanwhile, and what is held, is for a later run.
                DayDropped::Changed | DayDropped::Held | DayDropped::Gone => {}
            }
        }
        Ok(dropped)
    }
}

#[async_trait]
impl UpkeepTask for Pruning {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(HOUR)
    }

    async fn run(&self, run: &Run) -> Result<u64> {
        let now = run.now();
        let mut pruned = 0;
        if let Some(days) = self.retention.events_all_days() {
            pruned += self.drop_days(run, first_kept(now, days)).await?;
        }
        if let Some(keep) = self.retention.keep_from(now, |keep| keep.events_days) {
            pruned += self.all(&Prune::Events(keep)).await?;
        }
        for period in Period::ALL {
            if let Some(keep) = self.retention.keep_from(now, |keep| keep.metrics_days(period)) {
                pruned += self.all(&Prune::Metrics(period, keep)).await?;
            }
        }
        let ended_before = now - TimeDelta::days(i64::from(self.retention.quota_rows_days));
        pruned += self.all(&Prune::QuotaRows { ended_before }).await?;
        let finished_before = now - TimeDelta::days(i64::from(self.retention.runs_days));
        Ok(pruned + self.all(&Prune::Runs { finished_before }).await?)
    }
}

/// The first day that is kept when so many whole days are.
pub(crate) fn first_kept(now: DateTime<Utc>, days: u32) -> NaiveDate {
    (now - TimeDelta::days(i64::from(days))).date_naive()
}

/// Days of usage before one that may be dropped: not those that were restored and are to stay for a while.
pub(crate) async fn droppable(
    store: &dyn UpkeepStore,
    before: NaiveDate,
    now: DateTime<Utc>,
) -> Result<Vec<NaiveDate>> {
    let closed = store.closed_days(DayTable::Usage).await?;
    let stays = |day: &NaiveDate| {
        closed.iter().any(|closed| closed.day == *day && closed.kept_until.is_some_and(|until| until > now))
    };
    let days = store.days(DayTable::Usage).await?;
    Ok(days.into_iter().take_while(|day| *day < before).filter(|day| !stays(day)).collect())
}

/// The start of the oldest instant that is kept, for everybody and by plan.
pub(super) fn keep_from(
    now: DateTime<Utc>,
    everybody: Option<u32>,
    by_plan: impl Iterator<Item = (crate::Label, Option<u32>)>,
) -> KeepFrom {
    let instant = |days: Option<u32>| match days {
        Some(days) => first_kept(now, days).and_time(chrono::NaiveTime::MIN).and_utc(),
        None => crate::time::TIME_MIN,
    };
    KeepFrom {
        instant: instant(everybody),
        by_plan: by_plan.map(|(plan, days)| (plan, instant(days))).collect(),
    }
}
