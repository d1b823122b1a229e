//! One of the processes: enforces, records and logs until nothing is left.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use metertrail::quota::{Catalogue, Decision, Limit, Plan, Quota, QuotaEnforcer, WhenUnavailable, Window};
use metertrail::{EventType, PostgresStore, TenantId, TokenUsage, UsageTracker};

use crate::{Arguments, Outcome};

const TASKS: u64 = 4;
const AMOUNT_MAX: u64 = 500;
/// Refusals of a single token in a row after which a task gives up.
const REFUSALS_MAX: u32 = 3;

/// The three hard limits, all of the same amount.
pub(crate) fn catalogue(limit: u64) -> metertrail::Result<Catalogue> {
    let hard = |quota| Limit::hard(quota, Window::Lifetime, limit, WhenUnavailable::Deny);
    let limits = [hard(Quota::Tokens)?, hard(Quota::ApiCalls)?, hard(Quota::ChatMessages)?];
    Ok(Catalogue::new(Plan::new("contend", limits)?))
}

pub(crate) async fn run(arguments: &Arguments, log: &Path) -> Outcome<()> {
    let url = arguments.database_url.as_deref().unwrap_or_default();
    let tenant = TenantId::new(arguments.tenant.as_deref().unwrap_or_default())?;
    let store = PostgresStore::connect(url).await?;
    let builder = QuotaEnforcer::builder(store.clone(), catalogue(arguments.limit)?);
    let quotas = if arguments.direct { builder.direct() } else { builder }.start()?;
    let tracker = UsageTracker::builder(store).quotas(&quotas).start()?;
    let log = Arc::new(Log(Mutex::new(File::options().create(true).append(true).open(log)?)));

    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..TASKS {
        let seed = u64::from(std::process::id()) * TASKS + task;
        let worker = Worker {
            quotas: quotas.clone(),
            tracker: tracker.clone(),
            tenant: tenant.clone(),
            log: Arc::clone(&log),
            seed,
        };
        tasks.spawn(worker.run());
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    let report = tracker.shutdown(Duration::from_secs(30)).await?;
    if !report.unwritten.is_empty() || !report.rejected.is_empty() || report.conflicts > 0 {
        return Err(format!("not everything was recorded: {report:?}").into());
    }
    quotas.shutdown(Duration::from_secs(30)).await?;
    log.line(&format!("trips {}", quotas.round_trips()))
}

struct Worker {
    quotas: QuotaEnforcer,
    tracker: UsageTracker,
    tenant: TenantId,
    log: Arc<Log>,
    seed: u64,
}

impl Worker {
    async fn run(mut self) -> Outcome<()> {
        let mut amount = self.random();
        let mut refusals = 0;
        while refusals < REFUSALS_MAX {
            let amounts = [(Quota::Tokens, amount), (Quota::ApiCalls, 1), (Quota::ChatMessages, 1)];
            let decision = self.quotas.enforce_multiple(&self.tenant, &amounts).await?;
            if decision.is_allowed() {
                self.log.line(&format!("admitted {amount}"))?;
                self.work(amount, decision)?;
                amount = self.random();
                refusals = 0;
            } else {
                self.log.line("refused")?;
                // The last units are sold in smaller amounts.
                refusals += u32::from(amount == 1);
                amount = (amount / 2).max(1);
                tokio::time::sleep(Duration::from_millis(if amount == 1 { 300 } else { 1 })).await;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    fn work(&mut self, amount: u64, decision: Decision) -> Outcome<()> {
        // Some estimates are too high: what is left over goes back and is admitted again.
        let used = if self.random().is_multiple_of(4) { amount.div_ceil(2) } else { amount };
        self.log.line(&format!("used {used}"))?;
        let operation = self.tracker.track(&self.tenant, EventType::ChatMessage).hold(decision.into_hold());
        drop(operation.record_success(TokenUsage::reported(used, 0)?));
        Ok(())
    }

    /// 1 to 500, from Knuth's linear congruential generator.
    fn random(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (self.seed >> 33) % AMOUNT_MAX
    }
}

/// A log that survives the death of its process: every line is written at once.
struct Log(Mutex<File>);

impl Log {
    fn line(&self, line: &str) -> Outcome<()> {
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }
}
