//! What many events add up to.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use crate::TenantId;
use crate::text::Label;
use crate::time::bucket_start;
use crate::usage::sketch::LatencySketch;
use crate::usage::{EventType, Outcome, TokenClass, TokenCounts, TokenSource, UsageEvent};

/// What the events of one tenant in one stretch of time add up to. Merging is exact: the sum of the quarter hours is
/// the month, whatever the order, latency percentiles included.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct UsageMetrics {
    /// All operations, refused ones too.
    pub calls: u64,
    /// Operations that did their work.
    pub successes: u64,
    /// Operations that failed.
    pub failures: u64,
    /// Operations refused because they came too soon.
    pub rate_limited: u64,
    /// Operations refused because a quota was used up.
    pub quota_exceeded: u64,
    /// Operations dropped before anybody said how they ended.
    pub abandoned: u64,
    /// Operations by type that did their work or were abandoned; failed and refused ones count for no quota and are not in
    /// it. Types without any are not listed.
    pub by_type: BTreeMap<EventType, u64>,
    /// Tokens by class.
    pub tokens: TokenCounts,
    /// How many of all tokens are estimates.
    pub tokens_estimated: u64,
    /// The known cost in US dollars.
    pub cost: Decimal,
    /// Operations that used tokens at an unknown price; their cost is in no sum.
    pub unpriced: u64,
    /// The host's own quantities.
    pub measures: BTreeMap<Label, Decimal>,
    /// The latencies of successes and failures. Refusals are quick, abandoned operations cut short: neither counts.
    pub latency: LatencySketch,
    /// The sum of the same latencies in microseconds.
    pub latency_us_total: u64,
}

impl UsageMetrics {
    /// Adds one event.
    pub fn add(&mut self, event: &UsageEvent) {
        self.calls = self.calls.saturating_add(1);
        let outcome = match event.outcome {
            Outcome::Success => &mut self.successes,
            Outcome::Failure => &mut self.failures,
            Outcome::RateLimited => &mut self.rate_limited,
            Outcome::QuotaExceeded => &mut self.quota_exceeded,
            Outcome::Abandoned => &mut self.abandoned,
        };
        *outcome = outcome.saturating_add(1);
        if matches!(event.outcome, Outcome::Success | Outcome::Abandoned) {
            increase(&mut self.by_type, &event.event_type, 1);
        }
        self.tokens.merge(event.tokens.counts());
        let tokens = event.tokens.total();
        if event.tokens.source() == TokenSource::Estimated {
            self.tokens_estimated = self.tokens_estimated.saturating_add(tokens);
        }
        match event.cost {
            Some(cost) => self.cost += cost.as_decimal(),
            None if tokens > 0 => self.unpriced = self.unpriced.saturating_add(1),
            None => {}
        }
        for (name, amount) in event.measures.iter() {
            *self.measures.entry(name.clone()).or_default() += amount;
        }
        if let (Outcome::Success | Outcome::Failure, Some(latency)) = (event.outcome, event.latency) {
            self.latency.record(latency.as_micros());
            self.latency_us_total = self.latency_us_total.saturating_add(latency.as_micros());
        }
    }

    /// Adds what other events add up to.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in [
            (&mut self.calls, other.calls),
            (&mut self.successes, other.successes),
            (&mut self.failures, other.failures),
            (&mut self.rate_limited, other.rate_limited),
            (&mut self.quota_exceeded, other.quota_exceeded),
            (&mut self.abandoned, other.abandoned),
            (&mut self.tokens_estimated, other.tokens_estimated),
            (&mut self.unpriced, other.unpriced),
            (&mut self.latency_us_total, other.latency_us_total),
        ] {
            *mine = mine.saturating_add(theirs);
        }
        for (event_type, count) in &other.by_type {
            increase(&mut self.by_type, event_type, *count);
        }
        self.tokens.merge(&other.tokens);
        self.cost += other.cost;
        for (name, amount) in &other.measures {
            *self.measures.entry(name.clone()).or_default() += *amount;
        }
        self.latency.merge(&other.latency);
    }

    /// What is left when other events, which are among these, are taken away; where more would be taken than there is,
    /// nothing.
    #[cfg(feature = "postgres")]
    pub(crate) fn without(&self, other: &Self) -> Self {
        let mut tokens = TokenCounts::default();
        for class in TokenClass::ALL {
            tokens.set(class, self.tokens_of(class).saturating_sub(other.tokens_of(class)));
        }
        let of_type = |(event_type, count): (&EventType, &u64)| {
            let left = count.saturating_sub(other.count_of(event_type));
            (left > 0).then(|| (event_type.clone(), left))
        };
        let of_measure = |(name, amount): (&Label, &Decimal)| {
            let left = *amount - other.measures.get(name).copied().unwrap_or_default();
            (left > Decimal::ZERO || !other.measures.contains_key(name)).then(|| (name.clone(), left))
        };
        Self {
            calls: self.calls.saturating_sub(other.calls),
            successes: self.successes.saturating_sub(other.successes),
            failures: self.failures.saturating_sub(other.failures),
            rate_limited: self.rate_limited.saturating_sub(other.rate_limited),
            quota_exceeded: self.quota_exceeded.saturating_sub(other.quota_exceeded),
            abandoned: self.abandoned.saturating_sub(other.abandoned),
            by_type: self.by_type.iter().filter_map(of_type).collect(),
            tokens,
            tokens_estimated: self.tokens_estimated.saturating_sub(other.tokens_estimated),
            cost: (self.cost - other.cost).max(Decimal::ZERO),
            unpriced: self.unpriced.saturating_sub(other.unpriced),
            measures: self.measures.iter().filter_map(of_measure).collect(),
            latency: self.latency.without(&other.latency),
            latency_us_total: self.latency_us_total.saturating_sub(other.latency_us_total),
        }
    }

    /// Whether nothing happened.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Failures among successes and failures, in percent with two decimal places; zero if there are neither.
    pub fn error_rate_percent(&self) -> Decimal {
        let finished = Decimal::from(self.successes.saturating_add(self.failures));
        let failures = Decimal::from(self.failures);
        (failures * Decimal::ONE_HUNDRED).checked_div(finished).unwrap_or_default().round_dp(2)
    }

    /// The mean latency in whole microseconds.
    pub fn latency_us_mean(&self) -> Option<u64> {
        self.latency_us_total.checked_div(self.latency.count())
    }

    /// The count of one event type.
    pub fn count_of(&self, event_type: &EventType) -> u64 {
        self.by_type.get(event_type).copied().unwrap_or(0)
    }

    /// The sum of all token classes.
    pub fn tokens_total(&self) -> u64 {
        self.tokens.total()
    }

    /// The count of one token class.
    pub fn tokens_of(&self, class: TokenClass) -> u64 {
        self.tokens.get(class)
    }
}

fn increase(counts: &mut BTreeMap<EventType, u64>, event_type: &EventType, by: u64) {
    match counts.get_mut(event_type) {
        Some(count) => *count = count.saturating_add(by),
        None => {
            counts.insert(event_type.clone(), by);
        }
    }
}

/// What a batch adds to one quarter hour of one tenant.
#[derive(Clone, Debug, PartialEq)]
pub struct UsageDelta {
    /// Whose.
    pub tenant_id: TenantId,
    /// Where the quarter hour starts.
    pub bucket_start: DateTime<Utc>,
    /// What is added.
    pub metrics: UsageMetrics,
}

impl UsageDelta {
    /// The deltas of some events, one for each tenant and quarter hour, in the order of both.
    pub fn of<'a>(events: impl IntoIterator<Item = &'a UsageEvent>) -> Vec<Self> {
        let mut deltas: BTreeMap<(&TenantId, DateTime<Utc>), UsageMetrics> = BTreeMap::new();
        for event in events {
            deltas.entry((&event.tenant_id, bucket_start(event.occurred_at()))).or_default().add(event);
        }
        let into_delta = |((tenant_id, bucket_start), metrics): ((&TenantId, _), _)| Self {
            tenant_id: tenant_id.clone(),
            bucket_start,
            metrics,
        };
        deltas.into_iter().map(into_delta).collect()
    }
}
