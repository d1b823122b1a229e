//! Two tenants, their usage and a dashboard, in memory: `cargo run --example quickstart`.
//!
//! What people read goes to stderr. Stdout has the dashboard of one tenant as one JSON object, ready for a pipe.

use std::error::Error;
use std::time::Duration;

use metertrail::time::{Clock, SystemClock};
use metertrail::usage::UsageMetrics;
use metertrail::{
    Actual, Cost, EventQuery, EventType, Measure, MemoryStore, PageSize, Period, Quantile, TenantId,
    TimeRange, TokenUsage, UsageEvent, UsagePeriod, UsageTracker,
};
use rust_decimal::Decimal;
use serde_json::{Value, json};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let tracker = UsageTracker::start(MemoryStore::new())?;
    let (acme, globex) = (TenantId::new("acme-corp")?, TenantId::new("globex")?);
    let began = SystemClock.now();

    // Awaited, the acknowledgement says that the event is kept.
    let answer = Actual::new()
        .tokens(TokenUsage::reported(374, 44)?)
        .cost(Cost::usd("0.0021".parse()?)?)
        .latency(Duration::from_millis(850))?
        .status_code(200)?;
    let chat = tracker.track(&acme, EventType::ChatMessage).session_id("s-1")?.model("gpt-4o")?;
    let recorded = chat.record_success(answer).await?;
    eprintln!("kept       {}", recorded.id);

    // Not awaited, it is fire and forget.
    tracker.track(&acme, EventType::Embedding).record_success(TokenUsage::reported(1_200, 0)?);
    tracker.track(&acme, EventType::ChatMessage).record_failure("the provider timed out", Actual::new());
    tracker.track(&acme, EventType::ChatMessage).record_rate_limit();
    tracker.track(&globex, EventType::Search).record_success(TokenUsage::estimated(50, 0)?);

    // A client that hangs up drops its operation: recorded as abandoned and charged at the estimate.
    drop(tracker.track(&globex, EventType::ChatMessage).estimate(TokenUsage::estimated(150, 0)?));

    // The same idempotency key twice is the same event.
    for attempt in 1..=2 {
        let retried = tracker.track(&globex, EventType::ChatMessage).idempotency_key("order-7")?;
        let recorded = retried.record_success(TokenUsage::reported(396, 109)?).await?;
        eprintln!("attempt {attempt}  duplicate: {}", recorded.duplicate);
    }

    let report = tracker.shutdown(Duration::from_secs(5)).await?;
    ensure(
        report.written == 7 && report.duplicates == 1 && report.unwritten.is_empty(),
        "each event is kept once",
    )?;

    for tenant in [&acme, &globex] {
        let today = tracker.usage_today(tenant).await?.metrics;
        eprintln!("today      {tenant}: {} calls, {} tokens", today.calls, today.tokens_total());
    }
    for consumer in tracker.top_consumers(Measure::Tokens, Period::Month, 10).await? {
        eprintln!("top        {}: {} tokens", consumer.tenant_id, consumer.amount);
    }

    let range = TimeRange::new(began, SystemClock.now())?;
    let days = tracker.usage_history(&acme, range, Period::Day).await?;
    let total = sum(&days);
    ensure(
        (total.calls, total.successes, total.failures, total.rate_limited) == (4, 2, 1, 1),
        "calls add up",
    )?;
    ensure(total.tokens_total() == 374 + 44 + 1_200, "tokens add up")?;
    ensure(total.cost == Decimal::new(21, 4) && total.unpriced == 1, "an unknown price is not zero")?;

    let recent = EventQuery::new(acme.clone(), range).page_size(PageSize::new(10)?);
    let events = tracker.events(&recent).await?.items;
    ensure(events.len() == 4, "every event can be read back")?;

    println!("{:#}", dashboard(&acme, &days, &events)?);
    Ok(())
}

fn dashboard(tenant: &TenantId, days: &[UsagePeriod], events: &[UsageEvent]) -> Result<Value> {
    Ok(json!({
        "tenantId": tenant,
        "period": Period::Day,
        "usage": days.iter().map(day).collect::<Result<Vec<_>>>()?,
        "quota": null,
        "recentEvents": events.iter().map(event).collect::<Vec<_>>(),
    }))
}

fn day(day: &UsagePeriod) -> Result<Value> {
    let metrics = &day.metrics;
    Ok(json!({
        "period_start": day.start(),
        "api_calls_total": metrics.calls,
        "api_latency_p95_ms": metrics.latency.quantile(Quantile::P95).map(|us| us.div_ceil(1_000)),
        "chat_messages_sent": metrics.count_of(&EventType::ChatMessage),
        "embeddings_generated": metrics.count_of(&EventType::Embedding),
        "total_tokens_used": metrics.tokens_total(),
        "estimated_cost_usd": f64::try_from(metrics.cost)?,
        "error_rate": f64::try_from(metrics.error_rate_percent())?,
    }))
}

fn event(event: &UsageEvent) -> Value {
    json!({
        "timestamp": event.occurred_at(),
        "event_type": event.event_type,
        "action": "create",
        "result": event.outcome,
    })
}

fn sum(days: &[UsagePeriod]) -> UsageMetrics {
    days.iter().fold(UsageMetrics::default(), |mut sum, day| {
        sum.merge(&day.metrics);
        sum
    })
}

fn ensure(kept: bool, promise: &str) -> Result<()> {
    if kept { Ok(()) } else { Err(format!("a broken promise: {promise}").into()) }
}
