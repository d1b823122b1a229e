//! Where metrics that are kept differ from what the events add up to.

use std::collections::BTreeSet;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::text::Label;
use crate::usage::{EventType, TokenClass, UsageMetrics};

/// One number of [`UsageMetrics`].
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum UsageField {
    /// [`UsageMetrics::calls`].
    Calls,
    /// [`UsageMetrics::successes`].
    Successes,
    /// [`UsageMetrics::failures`].
    Failures,
    /// [`UsageMetrics::rate_limited`].
    RateLimited,
    /// [`UsageMetrics::quota_exceeded`].
    QuotaExceeded,
    /// [`UsageMetrics::abandoned`].
    Abandoned,
    /// The count of one type in [`UsageMetrics::by_type`].
    OfType(EventType),
    /// The count of one class in [`UsageMetrics::tokens`].
    Tokens(TokenClass),
    /// [`UsageMetrics::tokens_estimated`].
    TokensEstimated,
    /// [`UsageMetrics::cost`].
    Cost,
    /// [`UsageMetrics::unpriced`].
    Unpriced,
    /// One of [`UsageMetrics::measures`].
    Measure(Label),
    /// [`UsageMetrics::latency_us_total`].
    LatencyTotal,
    /// How many latencies there are, where a store keeps that beside the sketch.
    LatencyCount,
    /// The sketch in [`UsageMetrics::latency`]. Its two numbers are how many latencies each side has that the other has
    /// not.
    Latencies,
}

/// A number that differs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UsageDrift {
    /// Which.
    pub field: UsageField,
    /// What the events say.
    pub events: Decimal,
    /// What is kept.
    pub kept: Decimal,
}

impl UsageDrift {
    /// All numbers in which what is kept differs from what the events add up to. A type, class or measure that one of them
    /// does not have counts as zero.
    pub fn between(events: &UsageMetrics, kept: &UsageMetrics) -> Vec<Self> {
        if events == kept {
            return Vec::new();
        }
        let mut pairs: Vec<(UsageField, Decimal, Decimal)> = Vec::new();
        let mut count = |field, events: u64, kept: u64| pairs.push((field, events.into(), kept.into()));
        count(UsageField::Calls, events.calls, kept.calls);
        count(UsageField::Successes, events.successes, kept.successes);
        count(UsageField::Failures, events.failures, kept.failures);
        count(UsageField::RateLimited, events.rate_limited, kept.rate_limited);
        count(UsageField::QuotaExceeded, events.quota_exceeded, kept.quota_exceeded);
        count(UsageField::Abandoned, events.abandoned, kept.abandoned);
        let types: BTreeSet<&EventType> = events.by_type.keys().chain(kept.by_type.keys()).collect();
        for of in types {
            count(UsageField::OfType(of.clone()), events.count_of(of), kept.count_of(of));
        }
        for class in TokenClass::ALL {
            count(UsageField::Tokens(class), events.tokens_of(class), kept.tokens_of(class));
        }
        count(UsageField::TokensEstimated, events.tokens_estimated, kept.tokens_estimated);
        count(UsageField::Unpriced, events.unpriced, kept.unpriced);
        count(UsageField::LatencyTotal, events.latency_us_total, kept.latency_us_total);
        let (only_events, only_kept) =
            (events.latency.without(&kept.latency), kept.latency.without(&events.latency));
        count(UsageField::Latencies, only_events.count(), only_kept.count());
        pairs.push((UsageField::Cost, events.cost, kept.cost));
        let measures: BTreeSet<&Label> = events.measures.keys().chain(kept.measures.keys()).collect();
        for name in measures {
            let of = |metrics: &UsageMetrics| metrics.measures.get(name).copied().unwrap_or_default();
            pairs.push((UsageField::Measure(name.clone()), of(events), of(kept)));
        }
        pairs.retain(|(_, events, kept)| events != kept);
        pairs.into_iter().map(|(field, events, kept)| Self { field, events, kept }).collect()
    }
}
