//! Rows of the tables to values of the domain and back: the only place that knows the order of columns.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::{FromSql, ToSql, Type};
use uuid::Uuid;

use crate::text::Label;
use crate::time::TimeRange;
use crate::usage::{
    Cost, ErrorMessage, EventId, EventType, Latency, LatencySketch, Measures, Metadata, Outcome, StatusCode,
    TokenClass, TokenCounts, TokenSource, UsageDelta, UsageEvent, UsageMetrics,
};
use crate::{Error, ErrorKind, Result, TenantId};

/// The columns of an event, in the order of every statement that names them.
pub(super) const EVENT_TYPES: [Type; 27] = [
    Type::TEXT,
    Type::UUID,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::BOOL,
    Type::INT8,
    Type::INT2,
    Type::NUMERIC,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::JSONB,
    Type::JSONB,
    Type::TEXT,
    Type::TEXT,
];

/// One event as a row.
pub(super) struct EventRow<'a> {
    tenant_id: &'a str,
    id: Uuid,
    timestamp: DateTime<Utc>,
    event_type: &'a str,
    outcome: &'static str,
    tokens: [i64; 9],
    tokens_estimated: bool,
    latency_us: Option<i64>,
    status_code: Option<i16>,
    cost_usd: Option<Decimal>,
    model: Option<&'a str>,
    provider: Option<&'a str>,
    session_id: Option<&'a str>,
    user_id: Option<&'a str>,
    idempotency_key: Option<&'a str>,
    measures: Option<Value>,
    metadata: Option<Value>,
    error_message: Option<&'a str>,
    price_version: Option<&'a str>,
}

impl<'a> EventRow<'a> {
    pub(super) fn new(event: &'a UsageEvent) -> Result<Self> {
        let mut tokens = [0; 9];
        for (slot, class) in tokens.iter_mut().zip(TokenClass::ALL) {
            *slot = count("tokens", event.tokens.get(class))?;
        }
        let latency_us = event.latency.map(|latency| count("latency", latency.as_micros())).transpose()?;
        let status_code = event.status_code.map(|code| i16::try_from(code.as_u16())).transpose();
        let amounts = event.measures.iter().map(|(name, amount)| (name.as_str(), amount));
        Ok(Self {
            tenant_id: event.tenant_id.as_str(),
            id: event.id().as_uuid(),
            timestamp: event.occurred_at(),
            event_type: event.event_type.as_str(),
            outcome: event.outcome.as_str(),
            tokens,
            tokens_estimated: event.tokens.source() == TokenSource::Estimated,
            latency_us,
            status_code: status_code.map_err(|_| Error::invalid("status_code", "must be below 600"))?,
            cost_usd: event.cost.map(Cost::as_decimal),
            model: event.model.as_ref().map(Label::as_str),
            provider: event.provider.as_ref().map(Label::as_str),
            session_id: event.session_id.as_ref().map(Label::as_str),
            user_id: event.user_id.as_ref().map(Label::as_str),
            idempotency_key: event.idempotency_key.as_ref().map(Label::as_str),
            measures: amounts_to_json(amounts),
            metadata: event.metadata.as_map().map(|map| Value::Object(map.clone())),
            error_message: event.error_message.as_ref().map(ErrorMessage::as_str),
            price_version: event.price_version.as_ref().map(Label::as_str),
        })
    }

    pub(super) fn values(&self) -> [&(dyn ToSql + Sync); 27] {
        [
            &self.tenant_id,
            &self.id,
            &self.timestamp,
            &self.event_type,
            &self.outcome,
            &self.tokens[0],
            &self.tokens[1],
            &self.tokens[2],
            &self.tokens[3],
            &self.tokens[4],
            &self.tokens[5],
            &self.tokens[6],
            &self.tokens[7],
            &self.tokens[8],
            &self.tokens_estimated,
            &self.latency_us,
            &self.status_code,
            &self.cost_usd,
            &self.model,
            &self.provider,
            &self.session_id,
            &self.user_id,
            &self.idempotency_key,
            &self.measures,
            &self.metadata,
            &self.error_message,
            &self.price_version,
        ]
    }
}

/// Events as one array a column, for a statement that unnests them.
pub(super) fn event_columns(rows: &[EventRow<'_>]) -> Vec<(Box<dyn ToSql + Sync + Send>, Type)> {
    fn column<'r, 'a, T: ToSql + Sync + Send + 'static>(
        rows: &'r [EventRow<'a>],
        of: impl Fn(&'r EventRow<'a>) -> T,
        array: Type,
    ) -> (Box<dyn ToSql + Sync + Send>, Type) {
        (Box::new(rows.iter().map(of).collect::<Vec<T>>()), array)
    }
    let text = |of: fn(&EventRow<'_>) -> Option<String>| column(rows, of, Type::TEXT_ARRAY);
    let mut columns = vec![
        text(|row| Some(row.tenant_id.to_owned())),
        column(rows, |row| row.id, Type::UUID_ARRAY),
        column(rows, |row| row.timestamp, Type::TIMESTAMPTZ_ARRAY),
        text(|row| Some(row.event_type.to_owned())),
        text(|row| Some(row.outcome.to_owned())),
    ];
    columns.extend((0..9).map(|class| column(rows, |row| row.tokens[class], Type::INT8_ARRAY)));
    columns.extend([
        column(rows, |row| row.tokens_estimated, Type::BOOL_ARRAY),
        column(rows, |row| row.latency_us, Type::INT8_ARRAY),
        column(rows, |row| row.status_code, Type::INT2_ARRAY),
        column(rows, |row| row.cost_usd, Type::NUMERIC_ARRAY),
        text(|row| row.model.map(str::to_owned)),
        text(|row| row.provider.map(str::to_owned)),
        text(|row| row.session_id.map(str::to_owned)),
        text(|row| row.user_id.map(str::to_owned)),
        text(|row| row.idempotency_key.map(str::to_owned)),
        column(rows, |row| row.measures.clone(), Type::JSONB_ARRAY),
        column(rows, |row| row.metadata.clone(), Type::JSONB_ARRAY),
        text(|row| row.error_message.map(str::to_owned)),
        text(|row| row.price_version.map(str::to_owned)),
    ]);
    columns
}

/// An event from a row that has the columns in the order of [`EVENT_TYPES`].
pub(super) fn event(row: &Row) -> Result<UsageEvent> {
    let tenant_id = TenantId::new(get::<&str>(row, 0)?)?;
    let id = EventId::from_uuid(get(row, 1)?)?;
    let event_type = get::<&str>(row, 3)?.parse::<EventType>()?;
    let outcome = get::<&str>(row, 4)?.parse::<Outcome>()?;
    let mut event = UsageEvent::from_stored(tenant_id, id, event_type, outcome, get(row, 2)?)?;
    for (index, class) in TokenClass::ALL.into_iter().enumerate() {
        event.tokens = event.tokens.with(class, get::<i64>(row, 5 + index)?)?;
    }
    if get(row, 14)? {
        event.tokens = event.tokens.into_estimated();
    }
    let latency = get::<Option<i64>>(row, 15)?.map(|us| natural(row, 15, us)).transpose()?;
    event.latency = latency.map(|us| Latency::new(std::time::Duration::from_micros(us))).transpose()?;
    let status_code =
        get::<Option<i16>>(row, 16)?.map(|code| natural(row, 16, i64::from(code))).transpose()?;
    event.status_code =
        status_code.map(|code| StatusCode::new(u16::try_from(code).unwrap_or(u16::MAX))).transpose()?;
    event.cost = get::<Option<Decimal>>(row, 17)?.map(Cost::usd).transpose()?;
    let label =
        |index, field| get::<Option<&str>>(row, index)?.map(|text| Label::new(field, text)).transpose();
    event.model = label(18, "model")?;
    event.provider = label(19, "provider")?;
    event.session_id = label(20, "session_id")?;
    event.user_id = label(21, "user_id")?;
    event.idempotency_key = label(22, "idempotency_key")?;
    let measures = amounts_from_json(get(row, 23)?)?;
    event.measures =
        measures.into_iter().try_fold(Measures::default(), |all, (name, amount)| all.with(name, amount))?;
    event.metadata = get::<Option<Value>>(row, 24)?.map(Metadata::new).transpose()?.unwrap_or_default();
    event.error_message = get::<Option<&str>>(row, 25)?.map(ErrorMessage::new);
    event.price_version = label(26, "price_version")?;
    Ok(event)
}

/// The columns of a journal row.
pub(super) const JOURNAL_TYPES: [Type; 30] = [
    Type::TEXT,
    Type::UUID,
    Type::TIMESTAMPTZ,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::NUMERIC,
    Type::INT8,
    Type::INT8,
    Type::INT8,
    Type::JSONB,
    Type::JSONB,
    Type::INT8_ARRAY,
];

/// What a batch adds, as a journal row.
pub(super) struct JournalRow<'a> {
    tenant_id: &'a str,
    batch_id: Uuid,
    period_start: DateTime<Utc>,
    /// Up to the cost.
    counts: [i64; 20],
    cost: Decimal,
    unpriced: i64,
    latency_us_total: i64,
    latency_count: i64,
    custom_events: Option<Value>,
    measures: Option<Value>,
    latency_sketch: Vec<i64>,
}

impl<'a> JournalRow<'a> {
    pub(super) fn new(delta: &'a UsageDelta, batch_id: Uuid) -> Result<Self> {
        let metrics = &delta.metrics;
        let class = |class| metrics.tokens_of(class);
        let counts = [
            metrics.calls,
            metrics.successes,
            metrics.failures,
            metrics.rate_limited,
            metrics.quota_exceeded,
            metrics.abandoned,
            metrics.count_of(&EventType::ChatMessage),
            metrics.count_of(&EventType::Embedding),
            metrics.count_of(&EventType::Search),
            metrics.count_of(&EventType::ApiCall),
            metrics.tokens_total(),
            class(TokenClass::Input),
            class(TokenClass::CacheRead),
            class(TokenClass::CacheWrite),
            class(TokenClass::Output),
            class(TokenClass::Reasoning),
            class(TokenClass::AudioInput),
            class(TokenClass::AudioCacheRead),
            class(TokenClass::AudioOutput),
            metrics.tokens_estimated,
        ];
        let mut row = Self {
            tenant_id: delta.tenant_id.as_str(),
            batch_id,
            period_start: delta.bucket_start,
            counts: [0; 20],
            cost: metrics.cost,
            unpriced: count("unpriced", metrics.unpriced)?,
            latency_us_total: count("latency", metrics.latency_us_total)?,
            latency_count: count("latency", metrics.latency.count())?,
            custom_events: amounts_to_json(custom_events(metrics)),
            measures: amounts_to_json(metrics.measures.iter().map(|(name, amount)| (name.as_str(), *amount))),
            latency_sketch: metrics.latency.to_packed(),
        };
        for (slot, value) in row.counts.iter_mut().zip(counts) {
            *slot = count("metrics", value)?;
        }
        Ok(row)
    }

    pub(super) fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        let mut values: Vec<&(dyn ToSql + Sync)> = vec![&self.tenant_id, &self.batch_id, &self.period_start];
        values.extend(self.counts.iter().map(|count| -> &(dyn ToSql + Sync) { count }));
        let rest: [&(dyn ToSql + Sync); 7] = [
            &self.cost,
            &self.unpriced,
            &self.latency_us_total,
            &self.latency_count,
            &self.custom_events,
            &self.measures,
            &self.latency_sketch,
        ];
        values.extend(rest);
        values
    }
}

/// Where a period of metrics starts, and the metrics: of a row that begins with `period_start` and goes on as
/// `usage.sql` does.
pub(super) fn metrics(row: &Row) -> Result<(DateTime<Utc>, UsageMetrics)> {
    let at = |index: usize| get::<i64>(row, index).and_then(|count| natural(row, index, count));
    let mut metrics = UsageMetrics {
        calls: at(1)?,
        successes: at(2)?,
        failures: at(3)?,
        rate_limited: at(4)?,
        quota_exceeded: at(5)?,
        abandoned: at(6)?,
        tokens_estimated: at(20)?,
        cost: get(row, 21)?,
        unpriced: at(22)?,
        latency_us_total: at(23)?,
        latency: LatencySketch::from_packed(&get::<Vec<i64>>(row, 27)?)?,
        ..UsageMetrics::default()
    };
    for (index, event_type) in EventType::BUILT_IN.into_iter().enumerate() {
        let count = at(7 + index)?;
        if count > 0 {
            metrics.by_type.insert(event_type, count);
        }
    }
    for (name, amount) in amounts_from_json(get(row, 25)?)? {
        let count = u64::try_from(amount).map_err(|_| misread("custom_events holds a count that is none"))?;
        metrics.by_type.insert(EventType::custom(name)?, count);
    }
    for (name, amount) in amounts_from_json(get(row, 26)?)? {
        metrics.measures.insert(Label::new("measure", name)?, amount);
    }
    metrics.tokens =
        token_counts(at(11)?, [at(12)?, at(13)?, at(14)?, at(15)?, at(16)?, at(17)?, at(18)?, at(19)?]);
    Ok((get(row, 0)?, metrics))
}

/// The total is kept beside the classes; what no class claims (a row put in by hand, say) is unclassified.
fn token_counts(total: u64, classes: [u64; 8]) -> TokenCounts {
    let mut counts = TokenCounts::default();
    for (class, count) in TokenClass::ALL.into_iter().zip(classes) {
        counts.set(class, count);
    }
    counts.set(TokenClass::Unclassified, total.saturating_sub(counts.total()));
    counts
}

/// The position of the period that an instant lies in.
pub(super) fn period_of(periods: &[TimeRange], instant: DateTime<Utc>) -> Option<usize> {
    let after = periods.partition_point(|period| period.start() <= instant);
    after.checked_sub(1).filter(|position| periods[*position].contains(instant))
}

fn custom_events(metrics: &UsageMetrics) -> impl Iterator<Item = (&str, Decimal)> {
    let custom = metrics.by_type.iter().filter(|(event_type, _)| matches!(event_type, EventType::Custom(_)));
    custom.map(|(event_type, count)| (event_type.as_str(), Decimal::from(*count)))
}

/// Decimals as JSON texts: exact, and `numeric` reads them.
fn amounts_to_json<'a>(amounts: impl Iterator<Item = (&'a str, Decimal)>) -> Option<Value> {
    let map: Map<String, Value> =
        amounts.map(|(name, amount)| (name.to_owned(), Value::String(amount.to_string()))).collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

pub(super) fn amounts_from_json(json: Option<Value>) -> Result<BTreeMap<String, Decimal>> {
    let Some(json) = json else {
        return Ok(BTreeMap::new());
    };
    serde_json::from_value(json)
        .map_err(|error| misread("a column of amounts holds something else").with_source(error))
}

pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, index: usize) -> Result<T> {
    row.try_get(index).map_err(|error| misread(format!("column {index} cannot be read")).with_source(error))
}

/// A count that a hand in the tables could have made negative.
pub(super) fn natural(row: &Row, index: usize, count: i64) -> Result<u64> {
    let name = row.columns().get(index).map_or("?", |column| column.name());
    u64::try_from(count).map_err(|_| misread(format!("{name} is negative: {count}")))
}

pub(super) fn count(field: &'static str, count: u64) -> Result<i64> {
    i64::try_from(count).map_err(|_| Error::invalid(field, format!("must fit into 63 bits, is {count}")))
}

pub(super) fn misread(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::Store, message)
}
