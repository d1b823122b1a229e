//! Bad input is refused where it comes in, by the name of its field, and takes nothing down with it.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use metertrail::store::{APPEND_EVENTS_MAX, USAGE_PERIODS_MAX};
use metertrail::time::{Clock, Period, SystemClock, TIME_MAX, TIME_MIN, TimeRange, Zone};
use metertrail::usage::{
    COST_USD_MAX, ErrorMessage, LATENCY_MAX, Latency, MEASURE_MAX, METADATA_BYTES_MAX, METADATA_DEPTH_MAX,
    StatusCode, TOKENS_PER_EVENT_MAX, TopConsumersQuery,
};
use metertrail::{
    Actual, Cost, Cursor, Error, ErrorKind, EventId, EventQuery, EventType, FlushPolicy, LABEL_BYTES_MAX,
    Label, LatencySketch, Measure, Measures, MemoryStore, Metadata, Outcome, PageSize, PostgresStore,
    Quantile, Result, Store, TENANT_ID_BYTES_MAX, TenantId, TokenClass, TokenUsage, UsageEvent, UsageTracker,
};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::ledger::{check_books, database, store, within};

const MINUTE: Duration = Duration::from_secs(60);

/// The refusal names this field, and says something.
#[track_caller]
fn refused<T>(field: &str, result: Result<T>) -> Error {
    let Err(error) = result else { panic!("{field} was not refused") };
    assert_eq!((error.kind(), error.field()), (ErrorKind::InvalidInput, Some(field)), "{error}");
    assert!(
        error.to_string().starts_with(&format!("{field}: ")) && error.to_string().len() > field.len() + 8
    );
    assert!(!error.is_transient());
    assert!(
        error.to_string().len() < 600,
        "the refusal repeats what it was given: {} bytes",
        error.to_string().len()
    );
    error
}

fn tenant() -> TenantId {
    TenantId::new("acme").unwrap()
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn event(occurred_at: DateTime<Utc>) -> UsageEvent {
    UsageEvent::new(tenant(), EventType::ApiCall, Outcome::Success, occurred_at).unwrap()
}

/// Texts that no short text may be.
fn bad_texts(bytes_max: usize) -> Vec<String> {
    let mut texts: Vec<String> = [
        "",
        " ",
        " a",
        "a ",
        "\ta",
        "a\n",
        "\u{a0}a",
        "a\u{2003}",
        "\u{3000}",
        "a\0b",
        "\0",
        "bell\u{7}",
        "a\u{7f}b",
        "a\u{85}b",
        "line\nbreak",
        "a\r\nb",
        "\u{1b}[31mred",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("x".repeat(bytes_max + 1));
    // Bytes and not characters are counted.
    texts.push("é".repeat(bytes_max / 2 + 1));
    texts.push("x".repeat(1 << 20));
    texts
}

fn good_texts(bytes_max: usize) -> Vec<String> {
    let mut texts: Vec<String> = [
        "a",
        "a b",
        "Ünïcode",
        "'; DROP TABLE tenants; --",
        "%s%n",
        "\\",
        "\"",
        "a\u{200b}b",
        "👩‍👩‍👧",
        "..",
        "NULL",
        "\u{feff}x",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("x".repeat(bytes_max));
    texts.push("é".repeat(bytes_max / 2));
    texts
}

#[test]
fn tenant_ids() {
    for text in bad_texts(TENANT_ID_BYTES_MAX) {
        refused("tenant_id", TenantId::new(&text));
        refused("tenant_id", text.parse::<TenantId>());
        refused("tenant_id", TenantId::try_from(text.clone()));
        let json = serde_json::to_string(&text).unwrap();
        let error = serde_json::from_str::<TenantId>(&json).unwrap_err();
        assert!(error.to_string().contains("tenant_id"), "{error}");
    }
    for text in good_texts(TENANT_ID_BYTES_MAX) {
        assert_eq!(TenantId::new(&text).unwrap().as_str(), text);
    }
}

#[tokio::test]
async fn labels() {
    let tracker = UsageTracker::start(MemoryStore::new()).unwrap();
    let operation = || tracker.track(&tenant(), EventType::Search);
    for text in bad_texts(LABEL_BYTES_MAX) {
        refused("session_id", operation().session_id(&text));
        refused("user_id", operation().user_id(&text));
        refused("model", operation().model(&text));
        refused("provider", operation().provider(&text));
        refused("idempotency_key", operation().idempotency_key(&text));
        refused("model", Actual::new().model(&text));
        refused("provider", Actual::new().provider(&text));
        refused("measure", Measures::default().with(&text, Decimal::ONE));
        refused("anything", Label::new("anything", &text));
    }
    // A refused setter ends the operation without an event.
    assert_eq!(tracker.shutdown(MINUTE).await.unwrap().written, 0);
}

#[test]
fn event_types() {
    for name in bad_texts(64) {
        refused("event_type", EventType::custom(name));
    }
    for name in ["OCR page", "Ocr", "ocr/page", "ocr,page", "öcr", "ocr page", "a\u{7f}"] {
        refused("event_type", EventType::custom(name));
        refused("event_type", name.parse::<EventType>());
        assert!(serde_json::from_value::<EventType>(json!(name)).is_err());
    }
    assert_eq!(EventType::custom("x".repeat(64)).unwrap().as_str().len(), 64);
    assert_eq!(EventType::custom("search").unwrap(), EventType::Search);
    refused("outcome", "succes".parse::<Outcome>());
}

#[test]
fn tokens() {
    refused("tokens.input", TokenUsage::reported(-1, 0));
    refused("tokens.output", TokenUsage::reported(0, -1));
    refused("tokens.input", TokenUsage::reported(i64::MIN, 0));
    refused("tokens.output", TokenUsage::estimated(1_u64, i128::MIN));
    refused("tokens.input", TokenUsage::reported(u128::MAX, 0));
    refused("tokens.unclassified", TokenUsage::total_only(-1));
    refused("tokens.cache_read", TokenUsage::NONE.with(TokenClass::CacheRead, -5_i8));
    for over in [u64::MAX, TOKENS_PER_EVENT_MAX + 1, i64::MAX as u64] {
        refused("tokens", TokenUsage::reported(over, 0_u64));
        refused("tokens", TokenUsage::reported(0_u64, over));
        refused("tokens", TokenUsage::total_only(over));
    }
    // The sum counts, and it does not overflow on its way to the bound.
    let full = TokenUsage::reported(TOKENS_PER_EVENT_MAX, 0).unwrap();
    refused("tokens", full.with(TokenClass::Reasoning, 1));
    refused("tokens", full.with(TokenClass::Reasoning, u64::MAX));
    refused("tokens", TokenUsage::reported(u64::MAX, u64::MAX));
    refused("tokens", TokenUsage::reported(TOKENS_PER_EVENT_MAX / 2 + 1, TOKENS_PER_EVENT_MAX / 2));
}

#[test]
fn tokens_in_json() {
    for (json, field) in [
        (json!({"input": -1}), "tokens.input"),
        (json!({"output": -1}), "tokens.output"),
        (json!({"input": 1, "cache_write": -3}), "tokens.cache_write"),
        (json!({"audio_output": i64::MIN}), "tokens.audio_output"),
        (json!({"input": i64::MAX, "output": i64::MAX}), "tokens"),
        (json!({"input": TOKENS_PER_EVENT_MAX, "output": 1}), "tokens"),
    ] {
        let error = serde_json::from_value::<TokenUsage>(json.clone()).unwrap_err();
        assert!(error.to_string().starts_with(&format!("{field}: ")), "{json}: {error}");
    }
    for json in
        [json!({"input": 1.5}), json!({"inputs": 1}), json!({"input": "1"}), json!({"input": u64::MAX})]
    {
        assert!(serde_json::from_value::<TokenUsage>(json.clone()).is_err(), "{json}");
    }
    let tokens = TokenUsage::estimated(3, 4).unwrap().with(TokenClass::CacheRead, 9).unwrap();
    let again: TokenUsage = serde_json::from_value(serde_json::to_value(tokens).unwrap()).unwrap();
    assert_eq!(again, tokens);
}

#[test]
fn latencies() {
    let year = Duration::from_secs(365 * 86_400);
    for long in [year, LATENCY_MAX + Duration::from_nanos(1), Duration::MAX] {
        refused("latency", Latency::new(long));
        refused("latency", Actual::new().latency(long));
    }
    assert_eq!(Latency::new(LATENCY_MAX).unwrap().as_micros(), 7 * 86_400 * 1_000_000);
    assert_eq!(Latency::new(Duration::from_nanos(1_999)).unwrap().as_micros(), 1);
    assert!(serde_json::from_value::<Latency>(json!(-1)).is_err());
    assert_eq!(LatencySketch::from_packed(&[-1]).unwrap_err().kind(), ErrorKind::Store);
    refused("quantile", Quantile::from_permille(0));
    refused("quantile", Quantile::from_permille(1_001));
}

#[test]
fn a_latency_in_json_has_the_same_bound() {
    let longest: Latency = serde_json::from_value(json!(7_u64 * 86_400 * 1_000_000)).unwrap();
    assert_eq!(longest, Latency::new(LATENCY_MAX).unwrap());
    for long in [longest.as_micros() + 1, u64::MAX] {
        assert!(serde_json::from_value::<Latency>(json!(long)).is_err(), "{long}");
    }
}

#[test]
fn status_codes() {
    for code in [0, 1, 99, 600, 999, u16::MAX] {
        refused("status_code", StatusCode::new(code));
        refused("status_code", Actual::new().status_code(code));
        assert!(serde_json::from_value::<StatusCode>(json!(code)).is_err());
    }
    assert_eq!((StatusCode::new(100).unwrap().as_u16(), StatusCode::new(599).unwrap().as_u16()), (100, 599));
}

#[test]
fn costs_and_measures() {
    let pico = Decimal::new(1, 12);
    for amount in [
        Decimal::NEGATIVE_ONE,
        -pico,
        COST_USD_MAX + pico,
        Decimal::MAX,
        Decimal::MIN,
        Decimal::new(1, 13),
        Decimal::new(10_000_000_000_001, 13),
    ] {
        refused("cost", Cost::usd(amount));
        assert!(serde_json::from_value::<Cost>(json!(amount.to_string())).is_err(), "{amount}");
    }
    // Zeros at the end are no precision, and there is no negative zero.
    assert_eq!(Cost::usd(Decimal::new(10, 13)).unwrap(), Cost::usd(pico).unwrap());
    assert!(!Cost::usd(-Decimal::ZERO).unwrap().as_decimal().is_sign_negative());
    assert_eq!(Cost::usd(COST_USD_MAX).unwrap().as_decimal(), COST_USD_MAX);

    let micro = Decimal::new(1, 6);
    for amount in [Decimal::NEGATIVE_ONE, MEASURE_MAX + micro, Decimal::new(1, 7), Decimal::MAX] {
        refused("measure", Measures::default().with("pages", amount));
        let json = json!({"pages": amount.to_string()});
        assert!(serde_json::from_value::<Measures>(json).is_err(), "{amount}");
    }
    assert!(Measures::default().with("pages", MEASURE_MAX).is_ok());
    let many = |count: u8| {
        (0..count).try_fold(Measures::default(), |all, name| all.with(format!("m{name}"), Decimal::ONE))
    };
    assert!(many(16).unwrap().with("m3", Decimal::TWO).is_ok());
    refused("measures", many(17));
}

fn nested(depth: usize) -> Value {
    (1..depth).fold(json!({}), |inner, _| json!({"a": inner}))
}

#[tokio::test]
async fn metadata() {
    let tracker = UsageTracker::start(MemoryStore::new()).unwrap();
    let padded = |bytes: usize| json!({"a": "x".repeat(bytes - r#"{"a":""}"#.len())});
    for value in [
        json!(null),
        json!(1),
        json!("text"),
        json!([{}]),
        json!({"a": "nul\0"}),
        json!({"nul\0": 1}),
        json!({"a": [{"b": ["\0"]}]}),
        padded(METADATA_BYTES_MAX + 1),
        padded(1 << 20),
        json!({"a": vec![0_u8; METADATA_BYTES_MAX]}),
        nested(METADATA_DEPTH_MAX + 2),
        nested(200),
        json!({"a": nested(METADATA_DEPTH_MAX + 1)}),
    ] {
        refused("metadata", Metadata::new(value.clone()));
        refused("metadata", tracker.track(&tenant(), EventType::Search).metadata(value.clone()));
        assert!(serde_json::from_value::<Metadata>(value).is_err());
    }
    assert!(Metadata::new(padded(METADATA_BYTES_MAX)).is_ok());
    assert!(Metadata::new(nested(METADATA_DEPTH_MAX)).is_ok());
    assert_eq!(tracker.shutdown(MINUTE).await.unwrap().written, 0);
}

#[test]
fn zones_and_periods() {
    let long = "x".repeat(100_000);
    for name in [
        "",
        "Mars/Phobos",
        "utc",
        "europe/berlin",
        "Europe/Berlin ",
        "+01:00",
        "Europe\0",
        "../etc/passwd",
        &long,
    ] {
        refused("zone", Zone::new(name));
        assert!(serde_json::from_value::<Zone>(json!(name)).is_err());
    }
    refused("period", "weekly".parse::<Period>());
    refused("period", "Daily".parse::<Period>());
}

#[tokio::test]
async fn ranges() {
    let (early, late) = (at("2026-03-01T00:00:00Z"), at("2026-03-02T00:00:00Z"));
    refused("end", TimeRange::new(late, early));
    refused("end", TimeRange::new(late, late));
    refused("end", TimeRange::new(late, late + TimeDelta::nanoseconds(1)));
    refused("start", TimeRange::new(TIME_MIN - TimeDelta::microseconds(1), late));
    refused("end", TimeRange::new(early, TIME_MAX + TimeDelta::microseconds(1)));
    refused("start", TimeRange::new(DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC));
    let upside_down = json!({"start": "2026-03-02T00:00:00Z", "end": "2026-03-01T00:00:00Z"});
    assert!(serde_json::from_value::<TimeRange>(upside_down).is_err());

    let all = TimeRange::new(TIME_MIN, TIME_MAX).unwrap();
    let day = TimeRange::new(early, late).unwrap();
    let odd_start = TimeRange::new(early + TimeDelta::seconds(1), late).unwrap();
    let odd_end = TimeRange::new(early, late - TimeDelta::microseconds(1)).unwrap();
    refused("range", Period::Day.ranges(all, Zone::UTC));
    refused("range", Period::QuarterHour.ranges(all, Zone::UTC));
    let database = database().await;
    let (memory, postgres) = (MemoryStore::new(), store(database.url()));
    for store in [&memory as &dyn Store, &postgres] {
        refused("start", store.usage(&tenant(), &[odd_start]).await);
        refused("end", store.usage(&tenant(), &[odd_end]).await);
        refused("periods", store.usage(&tenant(), &[day, day]).await);
        let hours = Period::Hour.ranges(day, Zone::UTC).unwrap();
        refused("periods", store.usage(&tenant(), &[hours[1], hours[0]]).await);
        refused("periods", store.usage(&tenant(), &[day, hours[3]]).await);
        refused("start", store.summary(odd_start).await);
        refused("end", store.summary(odd_end).await);
        refused(
            "start",
            store.top_consumers(&TopConsumersQuery::new(Measure::Calls, odd_start, 1).unwrap()).await,
        );
        refused(
            "end",
            store.top_consumers(&TopConsumersQuery::new(Measure::Calls, odd_end, 1).unwrap()).await,
        );
        let quarters = (0..=USAGE_PERIODS_MAX as i64).map(|index| {
            let start = early + TimeDelta::minutes(15 * index);
            TimeRange::new(start, start + TimeDelta::minutes(15)).unwrap()
        });
        let quarters: Vec<TimeRange> = quarters.collect();
        refused("periods", store.usage(&tenant(), &quarters).await);
        let most = store.usage(&tenant(), &quarters[1..]).await.unwrap();
        assert_eq!(most.len(), USAGE_PERIODS_MAX);
        assert_eq!(store.usage(&tenant(), &[]).await.unwrap(), []);
        // The events of a range, unlike its metrics, may begin at any microsecond.
        assert_eq!(store.events(&EventQuery::new(tenant(), odd_start)).await.unwrap().items, []);
    }
    let tracker = UsageTracker::start(memory).unwrap();
    refused("range", tracker.usage_history(&tenant(), all, Period::Hour).await);
    refused("start", tracker.summary_in(odd_start).await);
    refused("end", tracker.top_consumers_in(Measure::Cost, odd_end, 10).await);
}

#[tokio::test]
async fn pages_limits_and_cursors() {
    for size in [0, 1_001, u16::MAX] {
        refused("page_size", PageSize::new(size));
    }
    let day = Period::Day.range_at(at("2026-03-01T12:00:00Z"), Zone::UTC);
    for limit in [0, 1_001, u16::MAX] {
        refused("limit", TopConsumersQuery::new(Measure::Calls, day, limit));
    }
    let long = "0".repeat(1 << 20);
    let (short, odd, signed) = ("0".repeat(63), "é".repeat(32), "+".repeat(64));
    for text in ["", "x", &short, &odd, &long, &signed, "-1", "' OR 1=1 --"] {
        refused("cursor", text.parse::<Cursor>());
        assert!(serde_json::from_value::<Cursor>(json!(text)).is_err());
    }

    let database = database().await;
    let (memory, postgres) = (MemoryStore::new(), store(database.url()));
    for store in [&memory as &dyn Store, &postgres] {
        let events: Vec<UsageEvent> =
            (0..3).map(|second| event(day.start() + TimeDelta::seconds(second))).collect();
        store.append(&events, &[]).await.unwrap();
        let query = EventQuery::new(tenant(), day).page_size(PageSize::new(1).unwrap());
        let cursor = store.events(&query).await.unwrap().next.unwrap();
        for other in [
            EventQuery::new(TenantId::new("other").unwrap(), day),
            EventQuery::new(tenant(), Period::Month.range_at(day.start(), Zone::UTC)),
            EventQuery::new(tenant(), day).event_type(EventType::ApiCall),
            EventQuery::new(tenant(), day).outcome(Outcome::Success),
        ] {
            refused("cursor", store.events(&other.after(cursor.clone())).await);
        }
        // A position that is no event's id: nobody is hurt by it, whatever is answered.
        let made_up = Cursor::new([0xff; 16], query.fingerprint());
        match store.events(&query.clone().after(made_up)).await {
            Ok(page) => assert!(page.items.len() <= 1),
            Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput),
        }
    }
}

/// Both stores say the same of a cursor that was tampered with.
#[tokio::test]
async fn a_cursor_that_holds_no_event_id_is_refused_by_every_store() {
    let day = Period::Day.range_at(at("2026-03-01T12:00:00Z"), Zone::UTC);
    let database = database().await;
    let (memory, postgres) = (MemoryStore::new(), store(database.url()));
    for store in [&memory as &dyn Store, &postgres] {
        store.append(&[event(day.start())], &[]).await.unwrap();
        for position in [[0xff; 16], [0; 16]] {
            let query = EventQuery::new(tenant(), day);
            let made_up = Cursor::new(position, query.fingerprint());
            refused("cursor", store.events(&query.after(made_up)).await);
        }
    }
}

#[tokio::test]
async fn flush_policies() {
    for events in [0, 10_001, usize::MAX] {
        let builder =
            UsageTracker::builder(MemoryStore::new()).flush(FlushPolicy::default().with_events(events));
        refused("flush.events", builder.start());
    }
    let flush = FlushPolicy::default().with_concurrency(0);
    refused("flush.concurrency", UsageTracker::builder(MemoryStore::new()).flush(flush).start());
    for flush in [
        FlushPolicy::default().with_events(10_000).with_age(Duration::MAX),
        FlushPolicy::default().with_events(1).with_age(Duration::ZERO).with_concurrency(usize::MAX),
    ] {
        let builder = UsageTracker::builder(MemoryStore::new()).flush(flush);
        let tracker = builder.append_timeout(Duration::MAX).roll_up_interval(Duration::MAX).start().unwrap();
        let acks: Vec<_> = (0..50).map(|_| tracker.record(event(SystemClock.now()))).collect();
        for ack in acks {
            within("an acknowledgement", MINUTE, ack.into_future()).await.unwrap();
        }
        let report = within("the shutdown", MINUTE, tracker.shutdown(Duration::MAX)).await.unwrap();
        assert_eq!(report.written, 50);
    }
}

#[test]
fn a_tracker_outside_of_a_runtime() {
    let error = UsageTracker::start(MemoryStore::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Misuse);
    assert!(error.to_string().contains("tokio runtime"), "{error}");
    // Also one without timers, or a Postgres store: an error now, and not a panic in a task later.
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let recorded = runtime.block_on(async {
        match UsageTracker::start(MemoryStore::new()) {
            Ok(tracker) => tracker.record(event(SystemClock.now())).await.map(|_| ()),
            Err(error) => Err(error),
        }
    });
    let error = recorded.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Misuse | ErrorKind::ShutDown), "{error:?}");
}

#[test]
fn event_times_and_ids() {
    let new = |instant| UsageEvent::new(tenant(), EventType::Search, Outcome::Success, instant);
    for instant in [
        TIME_MIN - TimeDelta::microseconds(1),
        TIME_MAX,
        DateTime::<Utc>::MIN_UTC,
        DateTime::<Utc>::MAX_UTC,
        DateTime::UNIX_EPOCH,
    ] {
        refused("occurred_at", new(instant));
    }
    for id in [
        Uuid::nil(),
        Uuid::max(),
        Uuid::new_v4(),
        Uuid::new_v5(&Uuid::NAMESPACE_DNS, b"x"),
        // A version 7 of another variant, of the year 1970 and of the year 2200 and later.
        Uuid::from_u128(0x0195_0000_0000_7000_0000_0000_0000_0000),
        Uuid::from_u128(0x0000_0000_0001_7000_8000_0000_0000_0000),
        Uuid::from_u128(0x0700_0000_0000_7000_8000_0000_0000_0000),
        Uuid::from_u128(0xffff_ffff_ffff_7000_8000_0000_0000_0000),
    ] {
        refused("id", EventId::from_uuid(id));
        assert!(serde_json::from_value::<EventId>(json!(id)).is_err());
    }
    let id = EventId::at(at("2026-03-01T00:00:00Z"));
    let other = at("2026-03-01T00:00:00.001Z");
    refused("id", UsageEvent::from_stored(tenant(), id, EventType::Search, Outcome::Success, other));
}

#[test]
fn the_first_and_the_last_instant_are_kept_as_they_are() {
    let micro = TimeDelta::microseconds(1);
    for instant in [TIME_MIN, TIME_MIN + micro, TIME_MAX - micro, TIME_MAX - TimeDelta::milliseconds(1)] {
        let event = UsageEvent::new(tenant(), EventType::Search, Outcome::Success, instant).unwrap();
        assert_eq!(event.occurred_at(), instant);
    }
}

#[test]
fn error_messages_are_never_refused() {
    for (text, kept) in [
        ("", "unknown"),
        (" \0\n", "unknown"),
        ("a\0b\r\nc", "a b  c"),
        ("  spaced  ", "spaced"),
        (&"é".repeat(2_000), &"é".repeat(512)),
        (&format!("x{}", "é".repeat(2_000)), &format!("x{}", "é".repeat(511))),
    ] {
        assert_eq!(ErrorMessage::new(text).as_str(), kept);
    }
}

#[tokio::test]
async fn batches() {
    let database = database().await;
    let (memory, postgres) = (MemoryStore::new(), store(database.url()));
    let start = at("2026-03-01T00:00:00Z");
    let batch: Vec<UsageEvent> =
        (0..=APPEND_EVENTS_MAX as i64).map(|ms| event(start + TimeDelta::milliseconds(ms))).collect();
    for store in [&memory as &dyn Store, &postgres] {
        refused("batch", store.append(&batch, &[]).await);
        assert_eq!(store.append(&[], &[]).await.unwrap(), []);
        let day = Period::Day.range_at(start, Zone::UTC);
        assert_eq!(store.usage(&tenant(), &[day]).await.unwrap()[0].calls, 0, "a part of it was kept");
        assert_eq!(store.append(&batch[1..], &[]).await.unwrap().len(), APPEND_EVENTS_MAX);
        assert_eq!(store.usage(&tenant(), &[day]).await.unwrap()[0].calls, APPEND_EVENTS_MAX as u64);
    }
    assert_eq!(check_books(database.url()).await, APPEND_EVENTS_MAX as i64);
}

#[test]
fn database_urls() {
    for url in [
        "",
        "not a url",
        "mysql://localhost/x",
        "postgres://localhost:99999999/x",
        "postgres://localhost/x?sslmode=require",
        "postgres://localhost/x?sslmode=verify-full",
        "host=localhost sslmode=require",
        "host=localhost nonsense=1",
    ] {
        if PostgresStore::from_url(url).is_ok() {
            assert!(url.is_empty(), "{url:?} was taken");
            continue;
        }
        refused("url", PostgresStore::from_url(url));
    }
}

/// Everything at its bound or just inside of it, odd but allowed: it is kept, and read back as it was.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_accepted_comes_back_as_it_was() {
    let database = database().await;
    let (memory, postgres) = (MemoryStore::new(), store(database.url()));
    let mut events = Vec::new();
    let start = at("2026-03-01T23:59:59.999999Z");
    for (index, text) in good_texts(LABEL_BYTES_MAX).into_iter().enumerate() {
        let mut event = event(start + TimeDelta::microseconds(index as i64));
        let label = || Label::new("text", &text).unwrap();
        (event.model, event.provider) = (Some(label()), Some(label()));
        (event.session_id, event.user_id) = (Some(label()), Some(label()));
        event.idempotency_key = Some(label());
        event.tokens = TokenUsage::reported(TOKENS_PER_EVENT_MAX, 0).unwrap();
        event.latency = Some(Latency::new(LATENCY_MAX).unwrap());
        event.cost = Some(Cost::usd(COST_USD_MAX - Decimal::new(1, 12)).unwrap());
        event.status_code = Some(StatusCode::new(599).unwrap());
        event.measures =
            Measures::default().with(&text, MEASURE_MAX).unwrap().with("b", Decimal::new(1, 6)).unwrap();
        event.metadata = Metadata::new(json!({
            text.clone(): text.clone(),
            "numbers": [0.1, -0.0, 1e300, 5e-324, u64::MAX, i64::MIN, 1.0, 1e16, 12_345_678_901_234_567_890_u64],
            "texts": ["\u{1}", "\u{fffd}", "\u{10ffff}", "\\u0000", "a\tb"],
            "": {"": [[], {}, null, true]},
        }))
        .unwrap();
        event.error_message = Some(ErrorMessage::new(&text));
        events.push(event);
    }
    for outcome in Outcome::ALL {
        let mut event =
            UsageEvent::new(tenant(), EventType::custom("a.b-c_9").unwrap(), outcome, start).unwrap();
        event.metadata = Metadata::new(json!({"a": "x".repeat(METADATA_BYTES_MAX - 8)})).unwrap();
        event.tokens = TokenUsage::total_only(7).unwrap().into_estimated();
        events.push(event);
    }
    let tracker = UsageTracker::start(postgres.clone()).unwrap();
    let acks: Vec<_> = events.iter().cloned().map(|event| tracker.record(event)).collect();
    for ack in acks {
        within("an acknowledgement", MINUTE, ack.into_future()).await.unwrap();
    }
    memory.append(&events, &[]).await.unwrap();
    let month = Period::Month.range_at(start, Zone::UTC);
    events.sort_by_key(|event| std::cmp::Reverse(event.id()));
    for store in [&memory as &dyn Store, &postgres] {
        assert_eq!(store.events(&EventQuery::new(tenant(), month)).await.unwrap().items, events);
        // Said again, also as it was read back, it is the same event.
        let again = store.append(&events, &[]).await.unwrap();
        assert!(
            again.iter().all(|appended| *appended == metertrail::store::Appended::Duplicate),
            "{again:?}"
        );
    }
    let usage = (
        memory.usage(&tenant(), &[month]).await.unwrap(),
        postgres.usage(&tenant(), &[month]).await.unwrap(),
    );
    assert_eq!(usage.0, usage.1);
    assert_eq!(check_books(database.url()).await, events.len() as i64);
}

/// Refusals between good events: what was accepted is kept, all of it.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_accepted_is_lost_by_refusals() {
    let database = database().await;
    let tracker = UsageTracker::start(store(database.url())).unwrap();
    let mut acks = Vec::new();
    for number in 0..120_u32 {
        let operation = tracker.track(&tenant(), EventType::ChatMessage);
        acks.push(match number % 6 {
            0 => {
                refused("model", operation.model("\0"));
                continue;
            }
            1 => {
                refused("metadata", operation.metadata(json!([number])));
                continue;
            }
            2 => {
                refused("tokens.input", TokenUsage::reported(-i64::from(number), 1));
                operation.record_failure("no tokens\0", Actual::new())
            }
            3 => {
                operation.cancel();
                continue;
            }
            _ => operation.record_success(TokenUsage::reported(number, 1).unwrap()),
        });
    }
    let accepted = acks.len();
    for ack in acks {
        within("an acknowledgement", MINUTE, ack.into_future()).await.unwrap();
    }
    let report = tracker.shutdown(MINUTE).await.unwrap();
    assert_eq!((report.written, report.rejected.len(), report.unwritten.len()), (accepted as u64, 0, 0));
    assert_eq!((accepted, check_books(database.url()).await), (60, 60));
}
