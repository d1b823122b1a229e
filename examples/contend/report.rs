//! What the logs and the store say in the end.

use std::path::Path;
use std::time::Duration;

use metertrail::quota::{HolderId, LimitKey, Quota, Window};
use metertrail::time::{Clock, SystemClock};
use metertrail::{PostgresStore, Store, TenantId, TimeRange};
use serde::Serialize;

use crate::{Arguments, Outcome};

/// One run.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    processes: u32,
    killed: u32,
    limit: u64,
    /// Tokens that the processes' own logs say were admitted and used: an operation that used less than it was admitted
    /// with gave the rest back.
    admitted: u64,
    /// Operations admitted, by the same logs: the other two quotas.
    operations: u64,
    refused: u64,
    /// Tokens of recorded events, by the store.
    recorded: u64,
    /// Tokens leased to processes that died, and not in their logs as used: nobody gets them in this window.
    forfeited: u64,
    /// The most that may be forfeited: a slice and what its tasks had in hand, for each process that was killed.
    forfeited_max: u64,
    /// Tokens that are neither used nor forfeited.
    stranded: u64,
    round_trips: u64,
    seconds: f64,
}

/// The sums of the logs.
#[derive(Debug, Default)]
pub(crate) struct Admitted {
    pub(crate) tokens: u64,
    operations: u64,
    refused: u64,
    round_trips: u64,
}

/// Adds the logs up. A last line that its writer's death cut short counts if it is a number.
pub(crate) fn admitted(logs: &Path) -> Outcome<Admitted> {
    let mut sums = Admitted::default();
    for entry in std::fs::read_dir(logs)? {
        for line in std::fs::read_to_string(entry?.path())?.lines() {
            match line.split_once(' ') {
                Some(("admitted", _)) => sums.operations += 1,
                Some(("used", amount)) => sums.tokens += amount.parse::<u64>()?,
                Some(("trips", trips)) => sums.round_trips += trips.parse::<u64>()?,
                _ => sums.refused += 1,
            }
        }
    }
    Ok(sums)
}

impl Report {
    pub(crate) async fn of(
        arguments: &Arguments,
        store: &PostgresStore,
        logs: &Path,
        killed: u32,
        elapsed: Duration,
    ) -> Outcome<Self> {
        let admitted = admitted(logs)?;
        let tenant = TenantId::new(arguments.tenant.as_deref().unwrap_or_default())?;
        let key = |quota| LimitKey { quota, window: Window::Lifetime, range: TimeRange::ALL };
        // A day later nobody answers for the slices of the dead.
        let later = SystemClock.now() + chrono::TimeDelta::days(1);
        let keys = [key(Quota::Tokens), key(Quota::ApiCalls), key(Quota::ChatMessages)];
        let standings = store.standing(&tenant, HolderId::random(), &keys, later).await?;
        let tokens = standings.first().copied().unwrap_or_default();
        for standing in &standings {
            let taken = standing.used + standing.leased_elsewhere + standing.forfeited;
            if taken > arguments.limit {
                return Err(format!("a limit is passed: {standing:?}").into());
            }
        }
        // Events that died with their process, before they were recorded: their units count as used here, and are among
        // those that the store holds for the dead.
        let unrecorded = admitted.tokens.saturating_sub(tokens.used);
        let forfeited = tokens.forfeited.saturating_sub(unrecorded);
        Ok(Self {
            processes: arguments.processes,
            killed,
            limit: arguments.limit,
            admitted: admitted.tokens,
            operations: admitted.operations,
            refused: admitted.refused,
            recorded: tokens.used,
            forfeited,
            forfeited_max: u64::from(killed) * (arguments.limit / 50 + 4 * 500 * 2),
            stranded: arguments.limit.saturating_sub(admitted.tokens).saturating_sub(forfeited),
            round_trips: admitted.round_trips,
            seconds: elapsed.as_secs_f64(),
        })
    }

    /// Whether the promises hold.
    pub(crate) fn holds(&self) -> bool {
        self.admitted + self.forfeited <= self.limit
            && self.operations <= self.limit
            && self.recorded <= self.limit
            && self.forfeited <= self.forfeited_max
            && (self.killed > 0 || (self.stranded == 0 && self.recorded == self.admitted))
    }

    pub(crate) fn print(&self, json: bool) -> Outcome<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
        } else {
            println!("{self:#?}");
            println!("{}", if self.holds() { "the promises hold" } else { "A PROMISE IS BROKEN" });
        }
        Ok(())
    }
}
