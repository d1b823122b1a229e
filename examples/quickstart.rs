//! Two tenants, their limits, usage and audit trail, and a dashboard, in memory: `cargo run --example quickstart`.
//!
//! What people read goes to stderr. Stdout has the dashboard of one tenant as one JSON object, ready for a pipe.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use metertrail::audit::{Actor, AuditLog, AuditSigningKey, ChatAudit, ErrorAudit, StaticKeys, Verifier};
use metertrail::quota::{
    Allowed, Catalogue, Limit, Plan, Quota, QuotaEnforcer, QuotaStatus, WhenUnavailable, Window,
};
use metertrail::time::{Clock, SystemClock};
use metertrail::usage::UsageMetrics;
use metertrail::{
    Actual, Cost, EventQuery, EventType, Label, Measure, MemoryStore, PageSize, Period, Quantile, TenantId,
    TimeRange, TokenUsage, UsageEvent, UsagePeriod, UsageTracker,
};
use rust_decimal::Decimal;
use serde_json::{Value, json};

type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

#[tokio::main]
async fn main() -> Result<()> {
    let store = Arc::new(MemoryStore::new());
    let quotas = QuotaEnforcer::start(Arc::clone(&store), plans()?)?;
    let tracker = UsageTracker::builder(Arc::clone(&store)).quotas(&quotas).start()?;
    let (writer, sealer) =
        (AuditSigningKey::generate("example.org/writer")?, AuditSigningKey::generate("example.org/sealer")?);
    let verifier = Verifier::new(Arc::clone(&store))
        .writer_key(writer.verifying_key())
        .sealer_key(sealer.verifying_key());
    let log = AuditLog::builder(store).keys(StaticKeys::new().writer(writer).sealer(sealer)).start()?;
    let (acme, globex) = (TenantId::new("acme-corp")?, TenantId::new("globex")?);
    let began = SystemClock.now();

    // Asked for before the work: several limits, all or nothing. The decision holds the estimate.
    let estimate = [(Quota::Tokens, 500), (Quota::ApiCalls, 1)];
    let decision = quotas.enforce_multiple(&acme, &estimate).await?;
    ensure(decision.is_allowed(), "a tenant within its limits is admitted")?;

    // Awaited, the acknowledgement says that the event is kept. What was held and not used goes back.
    let answer = Actual::new()
        .tokens(TokenUsage::reported(374, 44)?)
        .cost(Cost::usd("0.0021".parse()?)?)
        .latency(Duration::from_millis(850))?
        .status_code(200)?;
    let chat = tracker.track(&acme, EventType::ChatMessage).session_id("s-1")?.model("gpt-4o")?;
    let recorded = chat.hold(decision.into_hold()).record_success(answer).await?;
    eprintln!("kept       {}", recorded.id);
    let session = Label::new("session", "s-1")?;
    let sent = ChatAudit::ResponseSent { session, characters: 170, tokens: Some(44), tool_calls: 0 };
    log.record(log.event(&acme, Actor::user("u-71")?, &sent)?);

    // Not awaited, it is fire and forget.
    tracker.track(&acme, EventType::Embedding).record_success(TokenUsage::reported(1_200, 0)?);
    tracker.track(&acme, EventType::ChatMessage).record_failure("the provider timed out", Actual::new());
    tracker.track(&acme, EventType::ChatMessage).record_rate_limit();
    tracker.track(&globex, EventType::Search).record_success(TokenUsage::estimated(50, 0)?);

    // A refusal is a value that explains itself, and it takes nothing.
    let refused = quotas.enforce(&acme, &Quota::Tokens, 1_500).await?;
    ensure(!refused.is_allowed(), "a hard limit is not passed")?;
    eprintln!("{refused}");
    let exceeded = ErrorAudit::quota_exceeded(&refused).ok_or("a refusal names its limit")?;
    log.record(log.event(&acme, Actor::user("u-71")?, &exceeded)?);
    tracker.track(&acme, EventType::ChatMessage).record_quota_exceeded();

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
        report.written == 8 && report.duplicates == 1 && report.unwritten.is_empty(),
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
        (total.calls, total.successes, total.failures, total.rate_limited) == (5, 2, 1, 1),
        "calls add up",
    )?;
    ensure(total.quota_exceeded == 1, "a refusal is told from a failure")?;
    ensure(total.tokens_total() == 374 + 44 + 1_200, "tokens add up")?;
    ensure(total.cost == Decimal::new(21, 4) && total.unpriced == 1, "an unknown price is not zero")?;

    let recent = EventQuery::new(acme.clone(), range).page_size(PageSize::new(10)?);
    let events = tracker.events(&recent).await?.items;
    ensure(events.len() == 5, "every event can be read back")?;

    let status = quotas.quota_status(&acme).await?;
    let tokens = status.tightest().into_iter().find(|limit| limit.quota == Quota::Tokens);
    let left = tokens.and_then(|limit| limit.remaining);
    ensure(left == Some(2_000 - 374 - 44 - 1_200), "what is left of a limit is what was not used")?;
    println!("{:#}", dashboard(&acme, &days, &status, &events)?);
    quotas.shutdown(Duration::from_secs(5)).await?;

    // The trail proves itself to whoever has the public keys.
    ensure(log.shutdown(Duration::from_secs(5)).await?.unwritten.is_empty(), "the trail is written")?;
    let trail = log.tenant_audit_trail(&acme, 1).await?;
    let report = verifier.full(SystemClock.now()).await?;
    ensure(trail.len() == 2 && report.is_clean(), "an untouched trail verifies")?;
    eprintln!("audit      {} events, sealed and verified", trail.len());
    Ok(())
}

/// One plan for everybody. When the store cannot be reached, its limits refuse.
fn plans() -> Result<Catalogue> {
    let deny = WhenUnavailable::Deny;
    let free = Plan::new(
        "free",
        [
            Limit::hard(Quota::Tokens, Window::Day, 2_000, deny)?,
            Limit::hard(Quota::ApiCalls, Window::Minute, 120, deny)?,
            Limit::hard(Quota::ApiCalls, Window::Day, 1_000, deny)?,
        ],
    )?;
    Ok(Catalogue::new(free))
}

fn dashboard(
    tenant: &TenantId,
    days: &[UsagePeriod],
    status: &QuotaStatus,
    events: &[UsageEvent],
) -> Result<Value> {
    Ok(json!({
        "tenantId": tenant,
        "period": Period::Day,
        "usage": days.iter().map(day).collect::<Result<Vec<_>>>()?,
        "quota": quota(status)?,
        "recentEvents": events.iter().map(event).collect::<Vec<_>>(),
    }))
}

fn quota(status: &QuotaStatus) -> Result<Value> {
    let mut quotas = serde_json::Map::new();
    for limit in status.tightest() {
        let allowed = if let Allowed::AtMost(amount) = limit.allowed { Some(amount) } else { None };
        let view = json!({
            "limit": allowed,
            "used": limit.used,
            "remaining": limit.remaining,
            "percentage": f64::try_from(limit.percentage())?,
        });
        quotas.insert(limit.quota.to_string(), view);
    }
    Ok(json!({"plan": status.plan, "quotas": quotas, "anyExceeded": status.any_exceeded}))
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
