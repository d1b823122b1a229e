//! Made-up usage: tenants of unequal weight, operations of an LLM service.
#![allow(dead_code, reason = "each bench uses a part")]

use std::time::Duration;

use metertrail::usage::Latency;
use metertrail::{Cost, EventType, Label, Outcome, Result, TenantId, TokenUsage, UsageEvent};
use rust_decimal::Decimal;

/// Few tenants have most of the events: the k-th has a share in proportion to 1/k.
#[derive(Clone, Debug)]
pub(crate) struct Tenants {
    ids: Vec<TenantId>,
    /// Running sums of the weights, in units of a billionth of the first.
    weights: Vec<u64>,
}

impl Tenants {
    pub(crate) fn new(count: u32) -> Result<Self> {
        let ids = (0..count).map(|rank| TenantId::new(format!("tenant-{rank:05}"))).collect::<Result<_>>()?;
        let mut sum = 0;
        let weights = (1..=u64::from(count)).map(|rank| {
            sum += 1_000_000_000 / rank;
            sum
        });
        Ok(Self { ids, weights: weights.collect() })
    }

    /// By weight, heaviest first.
    pub(crate) fn ids(&self) -> &[TenantId] {
        &self.ids
    }

    fn pick(&self, random: &mut Random) -> &TenantId {
        let total = self.weights.last().copied().unwrap_or(1);
        let point = random.below(total);
        &self.ids[self.weights.partition_point(|sum| *sum <= point)]
    }
}

/// `SplitMix64`: the same numbers at every run.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// One operation that started so many microseconds after the first of January 2026: mostly chat, nearly always a
/// success, tokens in and out, a price, a model, a session and a user.
pub(crate) fn event(tenants: &Tenants, random: &mut Random, start_us: u64) -> Result<UsageEvent> {
    const MODELS: [&str; 4] = ["gpt-4o", "gpt-4o-mini", "claude-sonnet-4-5", "text-embedding-3-small"];
    let start = chrono::DateTime::from_timestamp(1_767_225_600, 0).unwrap_or_default();
    let occurred_at = start + Duration::from_micros(start_us);
    let event_type = match random.below(10) {
        0 => EventType::Embedding,
        1 => EventType::Search,
        _ => EventType::ChatMessage,
    };
    let outcome = if random.below(50) == 0 { Outcome::Failure } else { Outcome::Success };
    let mut event = UsageEvent::new(tenants.pick(random).clone(), event_type, outcome, occurred_at)?;
    let (input, output) = (random.below(4_000), random.below(800));
    event.tokens = TokenUsage::reported(input, output)?;
    // From 50 ms on, with a long tail.
    let latency_us = 50_000 + 4_000_000 / (1 + random.below(200));
    event.latency = Some(Latency::new(Duration::from_micros(latency_us))?);
    let pico_dollars = i64::try_from(input * 2_500_000 + output * 10_000_000).unwrap_or(0);
    event.cost = Some(Cost::usd(Decimal::new(pico_dollars, 12))?);
    let model = usize::try_from(random.below(4)).unwrap_or(0);
    event.model = Some(Label::new("model", MODELS[model])?);
    event.session_id = Some(Label::new("session_id", format!("s-{:06}", random.below(100_000)))?);
    event.user_id = Some(Label::new("user_id", format!("u-{:05}", random.below(50_000)))?);
    Ok(event)
}
