//! Both stores against a naive model: a list of events, looked through from one end to the other at every question.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use metertrail::store::Appended;
use metertrail::time::{Period, TimeRange, Zone};
use metertrail::usage::{
    Latency, Measures, StatusCode, TokenCounts, TokenSource, TopConsumersQuery, UsageMetrics, UsageSummary,
};
use metertrail::{
    Cost, EventId, EventQuery, EventType, Label, Measure, MemoryStore, Metadata, Outcome, PageSize,
    PostgresStore, Quantile, Store, TenantId, TokenClass, TokenUsage, UsageEvent,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use rust_decimal::Decimal;
use serde_json::json;
use uuid::Builder;

use crate::ledger::{check_books, database, roll_up_all, store};

/// Where something changes: days, months, a leap day, clocks in several zones, and the ends of time.
const INSTANTS: [&str; 12] = [
    "2026-03-29T00:59:59.999Z",
    "2026-03-29T01:00:00Z",
    "2026-03-31T23:59:59.999Z",
    "2026-04-01T00:00:00Z",
    "2026-03-31T22:00:00Z",
    "2026-03-31T18:14:59.999Z",
    "2026-03-31T18:15:00Z",
    "2026-04-04T14:59:59.999Z",
    "2026-04-04T15:00:00Z",
    "2026-03-08T07:00:00Z",
    "2024-02-29T23:45:00Z",
    "2199-12-31T23:59:59.998Z",
];

const ZONES: [&str; 8] = [
    "UTC",
    "Europe/Berlin",
    "Asia/Kathmandu",
    "America/New_York",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Chatham",
    "Pacific/Apia",
];

/// Byte order and the order of a language differ for these.
const TENANTS: [&str; 4] = ["B", "a", "ä b", "acme"];

/// An event in terms in which equality is easy to see.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Spec {
    tenant: usize,
    /// Chooses the id and with it the millisecond.
    slot: usize,
    /// Microseconds after the millisecond.
    micros: u8,
    key: Option<u8>,
    /// Chooses all of the payload that two attempts of one caller share.
    variant: u8,
    /// Chooses the latency, which two attempts do not share.
    attempt: u8,
}

impl Spec {
    fn event(&self) -> UsageEvent {
        let instant: DateTime<Utc> = INSTANTS[self.slot % INSTANTS.len()].parse().unwrap();
        let millisecond = u64::try_from(instant.timestamp_millis()).unwrap();
        // Spread, so that ids of one millisecond do not sort by slot.
        let random = [self.slot as u8 ^ 0x5a, self.slot as u8, 0, 0, 0, 0, 0, 0, 0, 7];
        let id = Builder::from_unix_timestamp_millis(millisecond, &random).into_uuid();
        let event_type = match self.variant % 6 {
            4 => EventType::custom("ocr.page").unwrap(),
            5 => EventType::custom("x-2").unwrap(),
            built_in => EventType::BUILT_IN[usize::from(built_in)].clone(),
        };
        let mut event = UsageEvent::from_stored(
            TenantId::new(TENANTS[self.tenant]).unwrap(),
            EventId::from_uuid(id).unwrap(),
            event_type,
            Outcome::ALL[usize::from(self.variant % 5)],
            instant + TimeDelta::microseconds(self.micros.into()),
        )
        .unwrap();
        let variant = u64::from(self.variant);
        event.tokens = TokenUsage::reported(variant * 100, variant).unwrap();
        if self.variant % 3 == 1 {
            let class = TokenClass::ALL[usize::from(self.variant % 9)];
            event.tokens = event.tokens.with(class, variant * 7).unwrap().into_estimated();
        }
        if self.variant % 4 < 2 {
            event.cost = Some(Cost::usd(Decimal::new(i64::from(self.variant) * 10_007, 12)).unwrap());
        }
        if self.variant % 5 > 1 {
            let amount = Decimal::new(i64::from(self.variant) * 15, 1);
            event.measures = Measures::default().with("pages", amount).unwrap();
            event.measures = event.measures.with("GB \"hours\"", Decimal::new(1, 6)).unwrap();
            event.status_code = Some(StatusCode::new(200 + u16::from(self.variant)).unwrap());
            event.metadata = Metadata::new(json!({"n": variant, "deep": [1.5, null, {"ü": true}]})).unwrap();
            event.model = Some(Label::new("model", "gpt-4o").unwrap());
        }
        if self.attempt > 0 {
            let micros = u64::from(self.attempt) * 999 * (variant + 1).pow(3);
            event.latency = Some(Latency::new(Duration::from_micros(micros)).unwrap());
        }
        event.idempotency_key =
            self.key.map(|key| Label::new("idempotency_key", format!("key {key}")).unwrap());
        event
    }

    fn is_repetition_of(&self, kept: &Self) -> bool {
        match self.key {
            Some(_) => self.variant == kept.variant && self.key == kept.key,
            None => self == kept,
        }
    }
}

/// All that was kept, in the order of its coming.
#[derive(Debug, Default)]
struct Model {
    kept: Vec<(Spec, UsageEvent)>,
}

impl Model {
    fn append(&mut self, spec: &Spec) -> Appended {
        let same = |other: &&(Spec, UsageEvent)| other.0.tenant == spec.tenant;
        let by_key =
            self.kept.iter().filter(same).find(|(kept, _)| spec.key.is_some() && kept.key == spec.key);
        let by_id = || self.kept.iter().filter(same).find(|(kept, _)| kept.slot == spec.slot);
        match by_key.or_else(by_id) {
            Some((kept, _)) if spec.is_repetition_of(kept) => Appended::Duplicate,
            Some(_) => Appended::Conflict,
            None => {
                self.kept.push((spec.clone(), spec.event()));
                Appended::New
            }
        }
    }

    fn events<'a>(&'a self, tenant: &'a str, range: TimeRange) -> impl Iterator<Item = &'a UsageEvent> {
        let events = self.kept.iter().map(|(_, event)| event);
        events.filter(move |event| event.tenant_id.as_str() == tenant && range.contains(event.occurred_at()))
    }

    fn check_usage(&self, tenant: &str, range: TimeRange, metrics: &UsageMetrics) {
        let events: Vec<&UsageEvent> = self.events(tenant, range).collect();
        let with = |outcome| events.iter().filter(|event| event.outcome == outcome).count() as u64;
        let counts = (metrics.calls, metrics.successes, metrics.failures, metrics.rate_limited);
        let expected =
            (events.len() as u64, with(Outcome::Success), with(Outcome::Failure), with(Outcome::RateLimited));
        assert_eq!(counts, expected, "{tenant} {range}");
        let counts = (metrics.quota_exceeded, metrics.abandoned);
        assert_eq!(counts, (with(Outcome::QuotaExceeded), with(Outcome::Abandoned)), "{tenant} {range}");
        let mut by_type: BTreeMap<EventType, u64> = BTreeMap::new();
        let mut tokens = TokenCounts::default();
        let (mut estimated, mut unpriced, mut cost) = (0, 0, Decimal::ZERO);
        let mut measures: BTreeMap<String, Decimal> = BTreeMap::new();
        let mut latencies = Vec::new();
        for event in &events {
            if matches!(event.outcome, Outcome::Success | Outcome::Abandoned) {
                *by_type.entry(event.event_type.clone()).or_default() += 1;
            }
            for class in TokenClass::ALL {
                tokens.set(class, tokens.get(class) + event.tokens.get(class));
            }
            let total: u64 = TokenClass::ALL.iter().map(|class| event.tokens.get(*class)).sum();
            estimated += if event.tokens.source() == TokenSource::Estimated { total } else { 0 };
            unpriced += u64::from(event.cost.is_none() && total > 0);
            cost += event.cost.map_or(Decimal::ZERO, Cost::as_decimal);
            for (name, amount) in event.measures.iter() {
                *measures.entry(name.to_string()).or_default() += amount;
            }
            if matches!(event.outcome, Outcome::Success | Outcome::Failure) {
                latencies.extend(event.latency.map(Latency::as_micros));
            }
        }
        assert_eq!(metrics.by_type, by_type, "{tenant} {range}");
        assert_eq!(metrics.tokens, tokens, "{tenant} {range}");
        assert_eq!((metrics.tokens_estimated, metrics.unpriced), (estimated, unpriced), "{tenant} {range}");
        assert_eq!(metrics.cost, cost, "{tenant} {range}");
        let found = metrics.measures.iter().map(|(name, amount)| (name.to_string(), *amount));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), measures, "{tenant} {range}");
        assert_eq!(metrics.latency_us_total, latencies.iter().sum::<u64>(), "{tenant} {range}");
        assert_eq!(metrics.latency.count(), latencies.len() as u64, "{tenant} {range}");
        latencies.sort_unstable();
        for quantile in [Quantile::P50, Quantile::P95, Quantile::P99, Quantile::MAX] {
            let rank = (latencies.len() * usize::from(quantile.permille())).div_ceil(1_000);
            let exact = rank.checked_sub(1).map(|index| latencies[index]);
            let near = |us: u64| exact.is_some_and(|exact| us.abs_diff(exact) * 128 <= exact);
            let answer = metrics.latency.quantile(quantile);
            assert!(
                answer.map_or(exact.is_none(), near),
                "{answer:?} instead of {exact:?}, {tenant} {range}"
            );
        }
    }

    fn consumers(&self, measure: &Measure, range: TimeRange) -> Vec<(String, Decimal)> {
        let amount = |event: &UsageEvent| match measure {
            Measure::Tokens => event.tokens.total().into(),
            Measure::Cost => event.cost.map_or(Decimal::ZERO, Cost::as_decimal),
            Measure::Calls => Decimal::ONE,
            Measure::Errors => Decimal::from(u8::from(event.outcome == Outcome::Failure)),
            Measure::Custom(name) => {
                event.measures.iter().find(|(of, _)| *of == name).map_or(Decimal::ZERO, |(_, amount)| amount)
            }
            _ => unreachable!("a measure that the model does not know"),
        };
        let sum = |tenant: &&str| -> Decimal { self.events(tenant, range).map(amount).sum() };
        let mut consumers: Vec<(String, Decimal)> =
            TENANTS.iter().map(|tenant| ((*tenant).to_owned(), sum(tenant))).collect();
        consumers.retain(|(_, amount)| *amount > Decimal::ZERO);
        consumers.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.as_bytes().cmp(b.0.as_bytes())));
        consumers
    }

    fn check_summary(&self, range: TimeRange, summary: &UsageSummary) {
        let events: Vec<&UsageEvent> = TENANTS.iter().flat_map(|tenant| self.events(tenant, range)).collect();
        let tenants: BTreeSet<&str> = events.iter().map(|event| event.tenant_id.as_str()).collect();
        assert_eq!((summary.tenants, summary.calls), (tenants.len() as u64, events.len() as u64));
        let failures = events.iter().filter(|event| event.outcome == Outcome::Failure).count() as u64;
        assert_eq!(summary.failures, failures);
        assert_eq!(summary.tokens, events.iter().map(|event| event.tokens.total()).sum::<u64>());
        assert_eq!(summary.cost, events.iter().filter_map(|event| event.cost).map(Cost::as_decimal).sum());
        let latencies: Vec<u64> = events
            .iter()
            .filter(|event| matches!(event.outcome, Outcome::Success | Outcome::Failure))
            .filter_map(|event| event.latency.map(Latency::as_micros))
            .collect();
        let mean = latencies.iter().sum::<u64>().checked_div(latencies.len() as u64);
        assert_eq!(summary.latency_us_mean, mean);
        let refused = |tenant: &&str| {
            self.events(tenant, range).filter(|event| event.outcome == Outcome::QuotaExceeded).count() as u64
        };
        let mut exceeded: Vec<(String, u64)> =
            TENANTS.iter().map(|tenant| ((*tenant).to_owned(), refused(tenant))).collect();
        exceeded.retain(|(_, count)| *count > 0);
        exceeded.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.as_bytes().cmp(b.0.as_bytes())));
        let found = summary.quota_exceeded.iter().map(|(tenant, count)| (tenant.to_string(), *count));
        assert_eq!(found.collect::<Vec<_>>(), exceeded);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Append(Vec<Spec>),
    RollUp(u32),
    Ask(Question),
}

#[derive(Clone, Debug)]
struct Question {
    tenant: usize,
    zone: usize,
    period: Period,
    around: usize,
    hours: i64,
    /// Which of the periods are asked for, so that they need not touch.
    mask: u16,
    limit: u16,
    event_type: Option<usize>,
    outcome: Option<usize>,
    page_size: u16,
    /// Microseconds by which the range of a page is off the period.
    offset: i64,
}

fn spec() -> impl Strategy<Value = Spec> {
    let key = prop_oneof![3 => Just(None), 2 => (0..5_u8).prop_map(Some)];
    (0..TENANTS.len(), 0..16_usize, prop_oneof![3 => Just(0), 1 => Just(1_u8)], key, 0..12_u8, 0..3_u8)
        .prop_map(|(tenant, slot, micros, key, variant, attempt)| Spec {
            tenant,
            slot,
            micros,
            key,
            variant,
            attempt,
        })
}

/// Batches that repeat themselves and what came before: a few slots, few variants, and events doubled within a batch.
fn batch() -> impl Strategy<Value = Vec<Spec>> {
    let repeated = prop::collection::vec((spec(), 1..3_usize), 1..12);
    repeated.prop_map(|specs| {
        let mut batch: Vec<Spec> = Vec::new();
        for (spec, times) in specs {
            // The second copy goes to the front, so that copies do not stand side by side.
            batch.extend((1..times).map(|_| spec.clone()));
            batch.insert(0, spec);
        }
        batch
    })
}

fn question() -> impl Strategy<Value = Question> {
    let period = prop::sample::select(Period::ALL.to_vec());
    let place = (0..TENANTS.len(), 0..ZONES.len(), period, 0..INSTANTS.len(), 1..60_i64, any::<u16>());
    let filter = (
        1..5_u16,
        prop::option::of(0..6_usize),
        prop::option::of(0..5_usize),
        1..6_u16,
        prop_oneof![Just(0), -1_001..1_001_i64],
    );
    (place, filter).prop_map(
        |((tenant, zone, period, around, hours, mask), (limit, event_type, outcome, page_size, offset))| {
            Question {
                tenant,
                zone,
                period,
                around,
                hours,
                mask,
                limit,
                event_type,
                outcome,
                page_size,
                offset,
            }
        },
    )
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => batch().prop_map(Step::Append),
        2 => (1..30_u32).prop_map(Step::RollUp),
        4 => question().prop_map(Step::Ask),
    ];
    prop::collection::vec(step, 6..22)
}

#[test]
fn both_stores_answer_as_a_naive_model_does() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let cases =
        std::env::var("METERTRAIL_MODEL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(24);
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 60, ..Config::default() };
    TestRunner::new(config)
        .run(&steps(), |steps| {
            runtime.block_on(run(&steps));
            Ok(())
        })
        .unwrap();
}

async fn run(steps: &[Step]) {
    let database = database().await;
    let mut model = Model::default();
    let (memory, postgres) = (MemoryStore::new(), store(database.url()));
    for step in steps {
        match step {
            Step::Append(batch) => {
                let events: Vec<UsageEvent> = batch.iter().map(Spec::event).collect();
                let expected: Vec<Appended> = batch.iter().map(|spec| model.append(spec)).collect();
                assert_eq!(memory.append(&events, &[]).await.unwrap(), expected, "memory, {batch:?}");
                assert_eq!(postgres.append(&events, &[]).await.unwrap(), expected, "Postgres, {batch:?}");
            }
            Step::RollUp(most) => {
                memory.roll_up(*most).await.unwrap();
                assert!(postgres.roll_up(*most).await.unwrap() <= u64::from(*most));
            }
            Step::Ask(question) => ask(&model, &memory, &postgres, question).await,
        }
    }
    for round in 0..2 {
        for (tenant, around) in (0..TENANTS.len()).zip([1, 3, 7, 10]) {
            let question = Question {
                tenant,
                zone: (tenant + round) % ZONES.len(),
                period: Period::Day,
                around,
                hours: 40,
                mask: u16::MAX,
                limit: 10,
                event_type: None,
                outcome: None,
                page_size: 3,
                offset: 0,
            };
            ask(&model, &memory, &postgres, &question).await;
        }
        roll_up_all(&postgres).await;
    }
    assert_eq!(check_books(database.url()).await, model.kept.len() as i64);
}

async fn ask(model: &Model, memory: &MemoryStore, postgres: &PostgresStore, question: &Question) {
    let zone = Zone::new(ZONES[question.zone]).unwrap();
    let centre: DateTime<Utc> = INSTANTS[question.around].parse().unwrap();
    let span = TimeDelta::hours(
        if question.period == Period::QuarterHour { question.hours / 5 } else { question.hours } + 1,
    );
    let end = (centre + span).min(metertrail::time::TIME_MAX);
    let periods = question.period.ranges(TimeRange::new(centre - span, end).unwrap(), zone).unwrap();
    let whole = TimeRange::new(periods[0].start(), periods[periods.len() - 1].end()).unwrap();
    let tenant = TenantId::new(TENANTS[question.tenant]).unwrap();

    let chosen: Vec<TimeRange> = periods
        .iter()
        .enumerate()
        .filter(|(index, _)| question.mask >> (index % 16) & 1 == 1)
        .map(|(_, period)| *period)
        .collect();
    let answers =
        (memory.usage(&tenant, &chosen).await.unwrap(), postgres.usage(&tenant, &chosen).await.unwrap());
    assert_eq!(answers.0, answers.1, "{tenant} {chosen:?}");
    assert_eq!(answers.0.len(), chosen.len());
    for (period, metrics) in chosen.iter().zip(&answers.0) {
        model.check_usage(tenant.as_str(), *period, metrics);
    }

    // The parts sum to the whole.
    for store in [memory as &dyn Store, postgres] {
        let mut sum = UsageMetrics::default();
        store.usage(&tenant, &periods).await.unwrap().iter().for_each(|part| sum.merge(part));
        assert_eq!(store.usage(&tenant, &[whole]).await.unwrap(), [sum], "{tenant} {whole}");
    }

    let custom = Measure::Custom(Label::new("measure", "pages").unwrap());
    let quoted = Measure::Custom(Label::new("measure", "GB \"hours\"").unwrap());
    for measure in [Measure::Tokens, Measure::Cost, Measure::Calls, Measure::Errors, custom, quoted] {
        let mut expected = model.consumers(&measure, whole);
        expected.truncate(question.limit.into());
        let query = TopConsumersQuery::new(measure, whole, question.limit).unwrap();
        for store in [memory as &dyn Store, postgres] {
            let found = store.top_consumers(&query).await.unwrap();
            let found = found.iter().map(|consumer| (consumer.tenant_id.to_string(), consumer.amount));
            assert_eq!(found.collect::<Vec<_>>(), expected, "{query:?}");
        }
    }

    let summaries = (memory.summary(whole).await.unwrap(), postgres.summary(whole).await.unwrap());
    assert_eq!(summaries.0, summaries.1, "{whole}");
    model.check_summary(whole, &summaries.0);

    page_through(model, memory, postgres, question, &tenant, whole).await;
}

async fn page_through(
    model: &Model,
    memory: &MemoryStore,
    postgres: &PostgresStore,
    question: &Question,
    tenant: &TenantId,
    whole: TimeRange,
) {
    let offset = TimeDelta::microseconds(question.offset);
    let end = (whole.end() + offset).min(metertrail::time::TIME_MAX);
    let range = TimeRange::new(whole.start() + offset, end).unwrap();
    let mut query =
        EventQuery::new(tenant.clone(), range).page_size(PageSize::new(question.page_size).unwrap());
    if let Some(index) = question.event_type {
        let custom = [EventType::custom("ocr.page").unwrap(), EventType::custom("x-2").unwrap()];
        query = query.event_type(EventType::BUILT_IN.iter().chain(&custom).nth(index).unwrap().clone());
    }
    if let Some(index) = question.outcome {
        query = query.outcome(Outcome::ALL[index]);
    }
    let mut expected: Vec<&UsageEvent> = model
        .events(tenant.as_str(), range)
        .filter(|event| query.event_type.as_ref().is_none_or(|only| *only == event.event_type))
        .filter(|event| query.outcome.is_none_or(|only| only == event.outcome))
        .collect();
    expected.sort_by_key(|event| std::cmp::Reverse(event.id()));
    let pages = expected.chunks(question.page_size.into()).collect::<Vec<_>>();
    for number in 0..pages.len().max(1) {
        let (one, other) = (memory.events(&query).await.unwrap(), postgres.events(&query).await.unwrap());
        assert_eq!(one, other, "page {number} of {query:?}");
        assert_eq!(one.items.iter().collect::<Vec<_>>(), pages.get(number).map_or(&[][..], |page| page));
        assert_eq!(one.next.is_some(), number + 1 < pages.len(), "page {number} of {query:?}");
        match one.next {
            // As it comes back from a client.
            Some(cursor) => query = query.after(cursor.to_string().parse().unwrap()),
            None => break,
        }
    }
}

/// The outcome of a batch is that of its events one after the other: the third one's key belongs, by then, to the second.
#[tokio::test]
async fn a_key_claimed_earlier_in_the_batch_goes_before_an_id_that_is_taken() {
    let spec = |slot, key, variant| Spec { tenant: 0, slot, micros: 0, key, variant, attempt: 0 };
    let (first, batch) =
        (spec(3, None, 0), [spec(3, Some(1), 11), spec(0, Some(1), 11), spec(3, Some(1), 11)]);
    let batch: Vec<UsageEvent> = batch.iter().map(Spec::event).collect();
    let database = database().await;
    let (memory, postgres) = (MemoryStore::new(), store(database.url()));
    for store in [&memory as &dyn Store, &postgres] {
        assert_eq!(store.append(&[first.event()], &[]).await.unwrap(), [Appended::New]);
        let expected = [Appended::Conflict, Appended::New, Appended::Duplicate];
        assert_eq!(store.append(&batch, &[]).await.unwrap(), expected, "{store:?}");
    }
}
