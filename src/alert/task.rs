//! The engine as a task of upkeep.

use std::time::Duration;

use async_trait::async_trait;

use crate::Result;
use crate::alert::AlertEngine;
use crate::upkeep::{Run, Schedule, UpkeepTask};

/// How often one of the processes runs the engine: more often than the shortest interval of a rule.
const INTERVAL: Duration = Duration::from_secs(30);

/// `alerts`, every 30 seconds. The engine needs no leader, so nothing is wrong where it is also run elsewhere; what the runs did
/// is recorded with those of the other tasks, as the number of incidents that changed and notifications that arrived.
///
/// ```
/// use metertrail::MemoryStore;
/// use metertrail::alert::AlertEngine;
/// use metertrail::upkeep::Upkeep;
/// use std::sync::Arc;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = Arc::new(MemoryStore::new());
/// let engine = AlertEngine::builder(Arc::clone(&store)).build()?;
/// let upkeep = Upkeep::builder(store).task(engine).build()?;
///
/// let reports = upkeep.run_due("2026-03-01T12:00:05Z".parse().unwrap()).await;
/// let alerts = reports.iter().find(|report| report.task.as_str() == "alerts").unwrap();
/// assert!(alerts.outcome.is_success());
/// assert_eq!(alerts.due_at.to_rfc3339(), "2026-03-01T12:00:00+00:00");
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[async_trait]
impl UpkeepTask for AlertEngine {
    fn name(&self) -> &'static str {
        "alerts"
    }

    fn schedule(&self) -> Schedule {
        Schedule::every(INTERVAL)
    }

    async fn run(&self, run: &Run) -> Result<u64> {
        let report = AlertEngine::run(self, run.now()).await?;
        match report.failed.into_iter().next() {
            // The others were evaluated; the run is recorded as failed, and tried again soon.
            Some((_, error)) => Err(error),
            None => Ok(report.fired + report.resolved + report.withdrawn + report.delivered),
        }
    }
}
