//! Events to try a store with, and calls that say what they were for when they fail.

use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde_json::json;

use crate::page::{Page, PageSize};
use crate::store::{Appended, Store};
use crate::text::Label;
use crate::time::{TIME_MAX, TIME_MIN, TimeRange};
use crate::usage::{
    Cost, ErrorMessage, EventQuery, EventType, Latency, Measures, Metadata, Outcome, StatusCode, TokenClass,
    TokenUsage, UsageEvent, UsageMetrics,
};
use crate::{Error, ErrorKind, Result, TenantId};

/// Tries of a call that fails as transient while several callers are at work.
const TRIES_MAX: usize = 200;

/// The value, or a panic that says what failed.
#[track_caller]
pub(super) fn must<T>(doing: &str, result: Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(error) => panic!("{doing} failed: {error} ({error:?})"),
    }
}

pub(super) fn tenant(id: &str) -> TenantId {
    must("making a tenant id", TenantId::new(id))
}

pub(super) fn label(text: &str) -> Label {
    must("making a label", Label::new("label", text))
}

pub(super) fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap_or_else(|error| panic!("{text} is no instant: {error}"))
}

pub(super) fn between(start: DateTime<Utc>, end: DateTime<Utc>) -> TimeRange {
    must("making a range", TimeRange::new(start, end))
}

/// The day on which events happen unless a case says otherwise.
pub(super) fn the_day() -> TimeRange {
    between(at("2026-03-01T00:00:00Z"), at("2026-03-02T00:00:00Z"))
}

pub(super) fn all_time() -> TimeRange {
    between(TIME_MIN, TIME_MAX)
}

/// A successful chat message of 10 and 5 tokens.
pub(super) fn event(tenant_id: &TenantId, occurred_at: DateTime<Utc>) -> UsageEvent {
    let made = UsageEvent::new(tenant_id.clone(), EventType::ChatMessage, Outcome::Success, occurred_at);
    let mut event = must("making an event", made);
    event.tokens = must("making tokens", TokenUsage::reported(10, 5));
    event
}

/// One event a second of [`the_day`].
pub(super) fn events(tenant_id: &TenantId, number: i32) -> Vec<UsageEvent> {
    let second = |second| event(tenant_id, the_day().start() + TimeDelta::seconds(i64::from(second)));
    (0..number).map(second).collect()
}

pub(super) fn with_key(mut event: UsageEvent, key: &str) -> UsageEvent {
    event.idempotency_key = Some(label(key));
    event
}

/// The same event, that is of the same id, with something changed.
pub(super) fn changed(event: &UsageEvent, change: impl FnOnce(&mut UsageEvent)) -> UsageEvent {
    let mut other = event.clone();
    change(&mut other);
    other
}

/// An event of the other's payload and key with its own id.
pub(super) fn again(event: &UsageEvent, occurred_at: DateTime<Utc>) -> UsageEvent {
    let made = UsageEvent::new(event.tenant_id.clone(), event.event_type.clone(), event.outcome, occurred_at);
    let mut other = must("making an event", made);
    other.tokens = event.tokens;
    other.status_code = event.status_code;
    other.cost = event.cost;
    other.price_version.clone_from(&event.price_version);
    other.model.clone_from(&event.model);
    other.provider.clone_from(&event.provider);
    other.session_id.clone_from(&event.session_id);
    other.user_id.clone_from(&event.user_id);
    other.idempotency_key.clone_from(&event.idempotency_key);
    other.measures = event.measures.clone();
    other.metadata = event.metadata.clone();
    other.error_message.clone_from(&event.error_message);
    other
}

pub(super) async fn append(store: &Arc<dyn Store>, batch: &[UsageEvent]) -> Vec<Appended> {
    let appended = must("append", store.append(batch, &[]).await);
    assert_eq!(appended.len(), batch.len(), "append answered for another number of events than it was given");
    appended
}

/// Appends events that nobody has appended before.
pub(super) async fn append_new(store: &Arc<dyn Store>, batch: &[UsageEvent]) {
    let appended = append(store, batch).await;
    assert!(appended.iter().all(|appended| *appended == Appended::New), "not all are new: {appended:?}");
}

/// Appends although others do: what is transient is tried again. Says whether the first try succeeded.
pub(super) async fn append_among_others(
    store: &Arc<dyn Store>,
    batch: &[UsageEvent],
) -> (Vec<Appended>, bool) {
    let mut tries = 1;
    loop {
        match store.append(batch, &[]).await {
            Err(error) if error.is_transient() && tries < TRIES_MAX => tries += 1,
            result => return (must("append, with others at work,", result), tries == 1),
        }
    }
}

/// Rolls up until nothing is left.
pub(super) async fn roll_up_all(store: &Arc<dyn Store>) {
    for _ in 0..10_000 {
        if must("roll_up", store.roll_up(1_000).await) == 0 {
            return;
        }
    }
    panic!("roll_up never came to zero");
}

/// Rolls up once although others do.
pub(super) async fn roll_up_among_others(store: &Arc<dyn Store>, steps_max: u32) -> u64 {
    let mut tries = 1;
    loop {
        match store.roll_up(steps_max).await {
            Err(error) if error.is_transient() && tries < TRIES_MAX => tries += 1,
            result => return must("roll_up, with others at work,", result),
        }
    }
}

pub(super) async fn usage_in(
    store: &Arc<dyn Store>,
    tenant_id: &TenantId,
    periods: &[TimeRange],
) -> Vec<UsageMetrics> {
    let usage = must("usage", store.usage(tenant_id, periods).await);
    assert_eq!(usage.len(), periods.len(), "usage answered for another number of periods than it was given");
    usage
}

/// What all events of a tenant add up to.
pub(super) async fn usage(store: &Arc<dyn Store>, tenant_id: &TenantId) -> UsageMetrics {
    usage_in(store, tenant_id, &[all_time()]).await.remove(0)
}

pub(super) async fn page(store: &Arc<dyn Store>, query: &EventQuery) -> Page<UsageEvent> {
    let page = must("events", store.events(query).await);
    let size = usize::from(query.page_size.get());
    assert!(page.items.len() <= size, "a page of {size} has {} events", page.items.len());
    page
}

/// All pages of a query, of this size.
pub(super) async fn all_pages(store: &Arc<dyn Store>, query: &EventQuery, size: u16) -> Vec<UsageEvent> {
    let mut query = query.clone().page_size(must("making a page size", PageSize::new(size)));
    let mut items = Vec::new();
    for _ in 0..100_000 {
        let page = page(store, &query).await;
        let is_empty = page.items.is_empty();
        items.extend(page.items);
        match page.next {
            Some(next) => {
                assert!(!is_empty, "an empty page has a cursor to the next");
                query = query.after(next);
            }
            None => return items,
        }
    }
    panic!("the pages never end");
}

/// Everything that a store has of a tenant.
pub(super) async fn kept(store: &Arc<dyn Store>, tenant_id: &TenantId) -> Vec<UsageEvent> {
    all_pages(store, &EventQuery::new(tenant_id.clone(), all_time()), 1_000).await
}

/// The error of a call that has to be refused as invalid input on one of these fields.
#[track_caller]
pub(super) fn refused<T>(what: &str, result: Result<T>, fields: &[&str]) -> Error {
    let Err(error) = result else { panic!("{what} was not refused") };
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{what}: {error:?}");
    let field = error.field().unwrap_or("none");
    assert!(fields.contains(&field), "{what}: the field is {field}, not one of {fields:?}: {error}");
    error
}

/// Pseudo-random numbers (`SplitMix64`), the same in every run.
#[derive(Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`.
    pub(super) fn below(&mut self, bound: u32) -> u32 {
        u32::try_from(self.next() % u64::from(bound.max(1))).unwrap_or(0)
    }

    /// A number in 0 to 1, itself excluded, with all the digits that a double has.
    pub(super) fn fraction(&mut self) -> f64 {
        // A double of 1 to 2 by its bits: exponent zero, 52 random bits.
        f64::from_bits(0x3FF0_0000_0000_0000 | (self.next() >> 12)) - 1.0
    }

    /// Any finite number.
    pub(super) fn double(&mut self) -> f64 {
        loop {
            let double = f64::from_bits(self.next());
            if double.is_finite() {
                return double;
            }
        }
    }

    pub(super) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        let index = self.below(u32::try_from(items.len()).unwrap_or(u32::MAX));
        &items[usize::try_from(index).unwrap_or(0)]
    }

    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.below(u32::try_from(last + 1).unwrap_or(u32::MAX));
            items.swap(last, usize::try_from(other).unwrap_or(0));
        }
    }

    pub(super) fn instant(&mut self, range: TimeRange) -> DateTime<Utc> {
        let length = u64::try_from(range.duration().as_micros()).unwrap_or(u64::MAX);
        range.start() + TimeDelta::microseconds(i64::try_from(self.next() % length).unwrap_or(0))
    }

    /// An event in which anything may be set.
    pub(super) fn event(&mut self, tenant_id: &TenantId, range: TimeRange) -> UsageEvent {
        let mut event = event(tenant_id, self.instant(range));
        let custom = must("making an event type", EventType::custom("ocr.page-2"));
        event.event_type = match self.below(5) {
            4 => custom,
            _ => self.pick(&EventType::BUILT_IN).clone(),
        };
        event.outcome = *self.pick(&Outcome::ALL);
        event.tokens = self.tokens();
        if self.below(4) > 0 {
            event.latency = Some(latency_us(self.next() % 100_000_000));
        }
        if self.below(2) == 0 {
            event.cost = Some(cost(Decimal::new(i64::from(self.below(1_000_000)), self.below(13))));
        }
        for name in ["pages", "gpu seconds"] {
            if self.below(3) == 0 {
                let amount = Decimal::new(i64::from(self.below(1_000_000)), self.below(7));
                event.measures = must("making a measure", event.measures.with(name, amount));
            }
        }
        if self.below(3) == 0 {
            event.model = Some(label("gpt-4o"));
            event.status_code = Some(must("making a status code", StatusCode::new(200)));
        }
        event
    }

    fn tokens(&mut self) -> TokenUsage {
        let mut tokens = TokenUsage::NONE;
        for class in TokenClass::ALL {
            if self.below(3) == 0 {
                tokens = must("making tokens", tokens.with(class, self.below(1_000_000)));
            }
        }
        if self.below(3) == 0 { tokens.into_estimated() } else { tokens }
    }
}

pub(super) fn latency_us(microseconds: u64) -> Latency {
    must("making a latency", Latency::new(Duration::from_micros(microseconds)))
}

pub(super) fn cost(dollars: Decimal) -> Cost {
    must("making a cost", Cost::usd(dollars))
}

/// An event in which everything is set.
pub(super) fn full_event(tenant_id: &TenantId) -> UsageEvent {
    let mut event = event(tenant_id, at("2026-03-01T12:34:56.789012Z"));
    event.event_type = must("making an event type", EventType::custom("ocr_page"));
    event.outcome = Outcome::Failure;
    for (class, count) in TokenClass::ALL.into_iter().zip(1_u32..) {
        event.tokens = must("making tokens", event.tokens.with(class, count * 1_001));
    }
    event.tokens = event.tokens.into_estimated();
    event.latency = Some(latency_us(1_234_567));
    event.status_code = Some(must("making a status code", StatusCode::new(503)));
    event.cost = Some(cost(Decimal::new(1_234_567_890_123, 12)));
    event.model = Some(label("gpt-4o"));
    event.provider = Some(label("openai"));
    event.session_id = Some(label("session 1"));
    event.user_id = Some(label("user 1"));
    event.idempotency_key = Some(label("key 1"));
    let measures = Measures::default().with("pages", Decimal::new(25, 1));
    event.measures = must("making measures", measures.and_then(|some| some.with("zero", Decimal::ZERO)));
    event.metadata = must("making metadata", Metadata::new(json!({"a": [1, null, true], "b": {"c": "d"}})));
    event.error_message = Some(ErrorMessage::new("the provider timed out"));
    event
}
