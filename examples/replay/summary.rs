//! What a replay did and what the store says of it.

use std::fmt;

use chrono::{DateTime, Utc};
use metertrail::{
    Consumer, Measure, Period, TenantId, TimeRange, TokenClass, UsageMetrics, UsageTracker, Zone,
};
use rust_decimal::Decimal;
use serde::Serialize;

use crate::Result;
use crate::admission::Refusal;
use crate::trace::{Hours, Totals, range_of, total_of};

/// The one JSON object on stdout.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    pub(crate) run: String,
    #[serde(flatten)]
    pub(crate) read: Totals,
    /// How many events had already been recorded by an earlier replay of the same run.
    pub(crate) duplicates: u64,
    pub(crate) allowed: u64,
    pub(crate) refused: u64,
    /// Who was refused, and by which limit.
    pub(crate) refusals: Vec<Refusal>,
    /// What the store says that all cost; null if a price is not known.
    pub(crate) cost_usd: Option<Decimal>,
    pub(crate) seconds: f64,
    pub(crate) events_per_second: u64,
    pub(crate) store: StoreAnswer,
}

/// What the store's own queries say of the tenants of a run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct StoreAnswer {
    #[serde(flatten)]
    pub(crate) totals: Totals,
    pub(crate) tenants: usize,
    /// Events that a quota refused.
    pub(crate) quota_exceeded: u64,
    /// Events that used tokens at an unknown price.
    pub(crate) unpriced: u64,
    /// What is known of the cost, in US dollars.
    #[serde(rename = "cost_usd")]
    pub(crate) cost: Decimal,
    pub(crate) hours: Vec<Hour>,
    /// Of all tenants in the store, also those of other runs.
    pub(crate) summary: Everyone,
    pub(crate) top_consumers: Vec<Top>,
}

/// The history of one hour, all tenants of the run together.
#[derive(Debug, Serialize)]
pub(crate) struct Hour {
    pub(crate) start: DateTime<Utc>,
    #[serde(flatten)]
    pub(crate) totals: Totals,
}

/// The store's summary of the hours of the trace.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Everyone {
    pub(crate) tenants: u64,
    pub(crate) events: u64,
    pub(crate) tokens: u64,
}

/// A tenant that used much.
#[derive(Debug, Serialize)]
pub(crate) struct Top {
    pub(crate) tenant_id: TenantId,
    pub(crate) tokens: u64,
}

impl StoreAnswer {
    /// Asks the store about the hours of the file, and fails if in any it says anything else than what was admitted.
    pub(crate) async fn ask(
        tracker: &UsageTracker,
        tenants: &[TenantId],
        read: &Hours,
        admitted: &Hours,
    ) -> Result<Self> {
        let Some(range) = range_of(read) else {
            return Ok(Self::default());
        };
        let mut this = Self::default();
        let stored = this.add_history(tracker, tenants, range).await?;
        if let Some(hour) =
            admitted.keys().chain(stored.keys()).find(|hour| admitted.get(hour) != stored.get(hour))
        {
            let (ours, theirs) = (admitted.get(hour), stored.get(hour));
            let message =
                format!("the store disagrees about the hour {hour}: admitted {ours:?}, stored {theirs:?}");
            return Err(message.into());
        }
        this.totals = total_of(&stored);
        this.hours = stored.into_iter().map(|(start, totals)| Hour { start, totals }).collect();

        let summary = tracker.summary_in(range).await?;
        this.summary = Everyone { tenants: summary.tenants, events: summary.calls, tokens: summary.tokens };
        this.check_summary()?;
        for Consumer { tenant_id, amount, .. } in tracker.top_consumers_in(Measure::Tokens, range, 10).await?
        {
            this.top_consumers.push(Top { tenant_id, tokens: amount.try_into()? });
        }
        Ok(this)
    }

    /// Asks for the history of each tenant and adds it up.
    async fn add_history(
        &mut self,
        tracker: &UsageTracker,
        tenants: &[TenantId],
        range: TimeRange,
    ) -> Result<Hours> {
        let mut stored = Hours::new();
        for tenant in tenants {
            let mut history = tracker.usage_history_in(tenant, range, Period::Hour, Zone::UTC).await?;
            history.retain(|hour| hour.metrics.calls > 0);
            self.tenants += usize::from(!history.is_empty());
            for hour in history {
                self.unpriced += hour.metrics.unpriced;
                self.cost += hour.metrics.cost;
                self.quota_exceeded += hour.metrics.quota_exceeded;
                if hour.metrics.successes == 0 {
                    continue;
                }
                *stored.entry(hour.start()).or_default() += totals(&hour.metrics);
            }
        }
        Ok(stored)
    }

    /// A database may hold other runs of the same hours: then the summary is more than this run, and never less.
    fn check_summary(&self) -> Result<()> {
        let Everyone { tenants, events, tokens } = self.summary;
        let Totals { events: own_events, input_tokens, output_tokens } = self.totals;
        let (own_tenants, own_tokens) = (u64::try_from(self.tenants)?, input_tokens + output_tokens);
        let own_events = own_events + self.quota_exceeded;
        let agrees = if tenants == own_tenants {
            (events, tokens) == (own_events, own_tokens)
        } else {
            tenants > own_tenants && events >= own_events && tokens >= own_tokens
        };
        if agrees {
            Ok(())
        } else {
            Err(format!("the store's summary disagrees with its history: {self:?}").into())
        }
    }
}

fn totals(metrics: &UsageMetrics) -> Totals {
    Totals {
        events: metrics.successes,
        input_tokens: metrics.tokens_of(TokenClass::Input),
        output_tokens: metrics.tokens_of(TokenClass::Output),
    }
}

/// The same for people.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { run, read, duplicates, seconds, events_per_second, store, .. } = self;
        writeln!(f, "run       {run}")?;
        writeln!(
            f,
            "read      {} events, {} input and {} output tokens",
            read.events, read.input_tokens, read.output_tokens
        )?;
        writeln!(f, "recorded  {} allowed, {} refused, {duplicates} duplicates", self.allowed, self.refused)?;
        for refusal in &self.refusals {
            writeln!(f, "refused   {refusal}")?;
        }
        match self.cost_usd {
            Some(cost) => writeln!(f, "cost      {cost} USD")?,
            None => writeln!(f, "cost      unknown, {} events have no price", store.unpriced)?,
        }
        writeln!(f, "time      {seconds:.3} s, {events_per_second} events/s")?;
        writeln!(f, "stored    the same, hour by hour; tenants: {}", store.tenants)?;
        for hour in &store.hours {
            let Totals { events, input_tokens, output_tokens } = hour.totals;
            writeln!(
                f,
                "hour      {}  {events} events, {input_tokens} + {output_tokens} tokens",
                hour.start
            )?;
        }
        for top in &store.top_consumers {
            writeln!(f, "top       {}  {} tokens", top.tenant_id, top.tokens)?;
        }
        Ok(())
    }
}
