//! Reconciling on Postgres: damage done by hand is found, named and mended, whoever writes meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use metertrail::quota::{
    AcquireRequest, Catalogue, Drift, HolderId, Limit, LimitKey, Plan, Quota, QuotaEnforcer, Reconcile,
    Reconciliation, Settlement, SliceRequest, WhenUnavailable, Window,
};
use metertrail::store::{Appended, reconcile_page};
use metertrail::testing::postgres::TestDatabase;
use metertrail::time::{Period, TimeRange, Zone};
use metertrail::usage::{Latency, UsageField, UsageMetrics};
use metertrail::{
    Cost, EventQuery, EventType, Label, Measures, Outcome, PageSize, PostgresStore, Store, TenantId,
    TokenClass, UsageEvent, UsageTracker,
};
use rust_decimal::Decimal;
use tokio::task::JoinSet;
use tokio_postgres::Client;

use crate::ledger::{check_books, client, count, database, persistently, roll_up_all, store, until, within};

const MINUTE: Duration = Duration::from_secs(60);

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn acme() -> TenantId {
    tenant("acme")
}

fn at(text: &str) -> DateTime<Utc> {
    text.parse().unwrap()
}

fn march() -> TimeRange {
    Period::Month.range_at(at("2026-03-02T00:00:00Z"), Zone::UTC)
}

/// One event in which every number of the metrics has its part.
fn event(own: &TenantId, occurred_at: DateTime<Utc>, number: u32) -> UsageEvent {
    let types = [
        EventType::ChatMessage,
        EventType::Embedding,
        EventType::Search,
        EventType::ApiCall,
        EventType::custom("ocr.page").unwrap(),
    ];
    let at = |of: u32| usize::try_from(of).unwrap();
    let event_type = types[at(number % 5)].clone();
    let outcome = Outcome::ALL[at(number / 5 % 5)];
    let mut event = UsageEvent::new(own.clone(), event_type, outcome, occurred_at).unwrap();
    for (class, more) in TokenClass::ALL.into_iter().zip(1_u32..) {
        event.tokens = event.tokens.with(class, number * more).unwrap();
    }
    if number.is_multiple_of(3) {
        event.tokens = event.tokens.into_estimated();
    }
    event.latency = Some(Latency::new(Duration::from_micros(u64::from(number).pow(3) * 97)).unwrap());
    event.cost = (!number.is_multiple_of(4)).then(|| Cost::usd(Decimal::new(number.into(), 7)).unwrap());
    event.measures = Measures::default().with("pages", Decimal::new(number.into(), 1)).unwrap();
    event
}

fn events(own: &TenantId, start: &str, number: u32) -> Vec<UsageEvent> {
    let start = at(start);
    (0..number).map(|second| event(own, start + TimeDelta::seconds((second * 97).into()), second)).collect()
}

/// A database with two tenants on two days of March: most is rolled up, some of both days is not.
async fn bed() -> (TestDatabase, PostgresStore, Client) {
    let database = database().await;
    let store = store(database.url());
    for own in [acme(), tenant("globex")] {
        for day in ["2026-03-01T22:40:00Z", "2026-03-02T09:00:00Z"] {
            store.append(&events(&own, day, 75), &[]).await.unwrap();
        }
    }
    roll_up_all(&store).await;
    for own in [acme(), tenant("globex")] {
        for day in ["2026-03-01T23:50:00Z", "2026-03-02T10:00:00Z"] {
            store.append(&events(&own, day, 30), &[]).await.unwrap();
        }
    }
    let client = client(database.url()).await;
    (database, store, client)
}

/// All rows of one tenant, or of all others.
async fn rows(client: &Client, which: &str) -> Vec<String> {
    let statement = format!(
        "SELECT row::text FROM (
            SELECT to_jsonb(metrics) AS row FROM metertrail.tenant_usage_metrics AS metrics WHERE tenant_id {which}
            UNION ALL
            SELECT to_jsonb(journal) FROM metertrail.usage_journal AS journal WHERE tenant_id {which}
            UNION ALL
            SELECT to_jsonb(slices) FROM metertrail.quota_slices AS slices WHERE tenant_id {which}
            UNION ALL
            SELECT to_jsonb(settlements) FROM metertrail.quota_settlements AS settlements WHERE tenant_id {which}
        ) AS rows ORDER BY 1"
    );
    client.query(&statement, &[]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn reconcile(store: &PostgresStore, range: TimeRange, mode: Reconcile) -> Reconciliation {
    let own = acme();
    within("reconcile", MINUTE, persistently(|| store.reconcile(&own, range, mode))).await.unwrap()
}

fn fields(report: &Reconciliation) -> BTreeSet<(Period, String, UsageField)> {
    let field = |drift: &Drift| match drift {
        Drift::Usage { period, start, field, .. } => Some((*period, start.to_rfc3339(), field.clone())),
        _ => None,
    };
    report.drifts.iter().filter_map(field).collect()
}

/// Every answer about the tenant is that of its events.
async fn assert_answers(store: &PostgresStore) {
    let mut query = EventQuery::new(acme(), march()).page_size(PageSize::new(1_000).unwrap());
    let mut events = Vec::new();
    loop {
        let page = store.events(&query).await.unwrap();
        events.extend(page.items);
        match page.next {
            Some(next) => query = query.after(next),
            None => break,
        }
    }
    for period in Period::ALL {
        let ranges = period.ranges(march(), Zone::UTC).unwrap();
        let usage = store.usage(&acme(), &ranges).await.unwrap();
        for (range, usage) in ranges.iter().zip(usage) {
            let mut expected = UsageMetrics::default();
            events
                .iter()
                .filter(|event| range.contains(event.occurred_at()))
                .for_each(|event| expected.add(event));
            assert_eq!(usage, expected, "{period} {range}");
        }
    }
}

/// Does the damage, and sees it found, left alone by a dry run, mended by a repair, and gone.
async fn mends(damage: &str) -> Reconciliation {
    let (database, store, client) = bed().await;
    let clean = reconcile(&store, march(), Reconcile::DryRun).await;
    assert!(clean.is_clean() && clean.unverifiable_total == 0, "{clean:?}");
    let changed = client.execute(damage, &[]).await.unwrap_or_else(|error| panic!("{damage}: {error:?}"));
    assert!(changed > 0, "{damage} changes nothing");
    let before = rows(&client, "IS NOT NULL").await;
    let others = rows(&client, "<> 'acme'").await;
    let found = reconcile(&store, march(), Reconcile::DryRun).await;
    assert!(!found.is_clean(), "{damage} is not found");
    assert_eq!(rows(&client, "IS NOT NULL").await, before, "a dry run of {damage} changed something");
    let is_untouched = store.reconcile(&tenant("globex"), march(), Reconcile::Repair).await.unwrap();
    assert!(is_untouched.is_clean(), "{damage}: {is_untouched:?}");
    assert_eq!(rows(&client, "IS NOT NULL").await, before, "a repair of another tenant changed something");

    let mended = reconcile(&store, march(), Reconcile::Repair).await;
    assert_eq!(mended.mode, Reconcile::Repair);
    assert_eq!((&mended.drifts, mended.drifts_total), (&found.drifts, found.drifts_total), "{damage}");
    if count(&client, "SELECT count(*) FROM metertrail.usage_journal").await > 0 {
        assert_eq!(
            rows(&client, "<> 'acme'").await,
            others,
            "a repair after {damage} changed another tenant"
        );
    }
    assert_answers(&store).await;
    let after = rows(&client, "IS NOT NULL").await;
    for mode in [Reconcile::DryRun, Reconcile::Repair] {
        let again = reconcile(&store, march(), mode).await;
        assert!(again.is_clean(), "after a repair of {damage}: {again:?}");
        assert_eq!(rows(&client, "IS NOT NULL").await, after, "repairing {damage} twice");
    }
    check_books(database.url()).await;
    assert!(reconcile(&store, march(), Reconcile::DryRun).await.is_clean(), "{damage}, rolled up");
    found
}

/// Damage to single numbers of single rows, and what it is called.
#[tokio::test(flavor = "multi_thread")]
async fn a_number_that_is_wrong_is_named_and_mended() {
    let day = "period_type = 'daily' AND period_start = '2026-03-02T00:00Z'";
    let hour = "period_type = 'hourly' AND period_start = '2026-03-02T09:00Z'";
    let month = "period_type = 'monthly' AND period_start = '2026-03-01T00:00Z'";
    let quarter = "period_type = 'quarter_hourly' AND period_start = '2026-03-01T23:45Z'";
    let places = [
        (day, Period::Day, "2026-03-02T00:00:00+00:00"),
        (hour, Period::Hour, "2026-03-02T09:00:00+00:00"),
        (month, Period::Month, "2026-03-01T00:00:00+00:00"),
        (quarter, Period::QuarterHour, "2026-03-01T23:45:00+00:00"),
    ];
    let custom = UsageField::OfType(EventType::custom("ocr.page").unwrap());
    let class = UsageField::Tokens;
    let damages = [
        ("api_calls_total = api_calls_total + 7", vec![UsageField::Calls]),
        ("api_calls_success = 0, api_calls_failure = 99", vec![UsageField::Successes, UsageField::Failures]),
        (
            "rate_limited_count = 99, quota_exceeded_count = 99, abandoned_count = 99",
            vec![UsageField::RateLimited, UsageField::QuotaExceeded, UsageField::Abandoned],
        ),
        (
            "chat_messages_sent = 99, embeddings_generated = 99, searches_performed = 99, api_requests = 99",
            vec![
                UsageField::OfType(EventType::ChatMessage),
                UsageField::OfType(EventType::Embedding),
                UsageField::OfType(EventType::Search),
                UsageField::OfType(EventType::ApiCall),
            ],
        ),
        ("custom_events = '{\"ocr.page\": \"99\"}'", vec![custom.clone()]),
        ("total_tokens_used = total_tokens_used + 9999", vec![class(TokenClass::Unclassified)]),
        (
            "tokens_input = 0, tokens_output = 0",
            vec![class(TokenClass::Input), class(TokenClass::Output), class(TokenClass::Unclassified)],
        ),
        ("tokens_estimated = tokens_estimated + 1", vec![UsageField::TokensEstimated]),
        ("estimated_cost_usd = estimated_cost_usd + 0.000000000001", vec![UsageField::Cost]),
        ("unpriced_count = unpriced_count + 1", vec![UsageField::Unpriced]),
        (
            "measures = '{\"pages\": \"0.1\", \"gpus\": \"2\"}'",
            vec![
                UsageField::Measure(Label::new("measure", "pages").unwrap()),
                UsageField::Measure(Label::new("measure", "gpus").unwrap()),
            ],
        ),
        ("latency_us_total = latency_us_total + 1", vec![UsageField::LatencyTotal]),
        ("latency_count = latency_count + 1", vec![UsageField::LatencyCount]),
        ("latency_sketch = ARRAY[1::bigint << 40 | 99]", vec![UsageField::Latencies]),
    ];
    for (number, (set, expected)) in damages.into_iter().enumerate() {
        // Each kind of damage in another kind of period.
        let (place, period, start) = places[number % places.len()];
        let damage =
            format!("UPDATE metertrail.tenant_usage_metrics SET {set} WHERE tenant_id = 'acme' AND {place}");
        let found = mends(&damage).await;
        let expected = expected.into_iter().map(|field| (period, start.to_owned(), field)).collect();
        assert_eq!(fields(&found), expected, "{damage}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_cannot_be_read_is_named_and_mended() {
    for set in ["latency_sketch = '{-1}'", "measures = '[7]'", "custom_events = '{\"ocr.page\": \"-3\"}'"] {
        let found = mends(&format!(
            "UPDATE metertrail.tenant_usage_metrics SET {set} WHERE tenant_id = 'acme' AND period_type = 'daily' AND \
             period_start = '2026-03-01T00:00Z'"
        ))
        .await;
        let [Drift::Unreadable { period: Period::Day, start, .. }] = &found.drifts[..] else {
            panic!("{set}: {found:?}")
        };
        assert_eq!(*start, at("2026-03-01T00:00:00Z"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_gone_are_made_again() {
    let day = mends(
        "DELETE FROM metertrail.tenant_usage_metrics WHERE tenant_id = 'acme' AND period_type = 'daily'",
    )
    .await;
    assert!(fields(&day).iter().all(|(period, _, _)| *period == Period::Day), "{day:?}");
    let places: BTreeSet<String> = fields(&day).into_iter().map(|(_, start, _)| start).collect();
    assert_eq!(places.len(), 2, "{places:?}");
    mends("DELETE FROM metertrail.tenant_usage_metrics WHERE tenant_id = 'acme'").await;
    mends("DELETE FROM metertrail.usage_journal WHERE tenant_id = 'acme'").await;
}

/// Metrics that no event stands for, as the mission's own section on testing makes them.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_events_is_found_and_removed() {
    let found = mends(
        "INSERT INTO tenant_usage_metrics (tenant_id, period_type, period_start, total_tokens_used, quota_limit)
         VALUES ('acme', 'hourly', '2026-03-02T20:00Z', 9999, 10000)",
    )
    .await;
    let [Drift::Usage { period: Period::Hour, field, events, kept, .. }] = &found.drifts[..] else {
        panic!("{found:?}")
    };
    let expected = (UsageField::Tokens(TokenClass::Unclassified), Decimal::ZERO, Decimal::from(9_999));
    assert_eq!((field.clone(), *events, *kept), expected);
    assert_eq!(
        serde_json::to_value(&found.drifts[0]).unwrap(),
        serde_json::json!({
            "kind": "usage",
            "period": "hourly",
            "start": "2026-03-02T20:00:00Z",
            "field": {"tokens": "unclassified"},
            "events": "0",
            "kept": "9999",
        })
    );
}

/// The mission's row by hand is respected as long as nobody says that it is to be mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_put_in_by_hand_counts_until_a_repair() {
    let (_database, store, client) = bed().await;
    let insert = "INSERT INTO tenant_usage_metrics (tenant_id, period_type, total_tokens_used, quota_limit)
                  VALUES ('test', 'daily', 9999, 10000)";
    client.execute(insert, &[]).await.unwrap();
    // The row is of today by the clock of the database, and somebody has events of today.
    let now: DateTime<Utc> = client.query_one("SELECT now()", &[]).await.unwrap().get(0);
    store.append(&[event(&acme(), now, 1)], &[]).await.unwrap();
    let tracker = UsageTracker::start(store.clone()).unwrap();
    let test = tenant("test");
    let admits = async |amount| {
        let limit = Limit::hard(Quota::Tokens, Window::Day, 10_000, WhenUnavailable::Deny).unwrap();
        let catalogue = Catalogue::new(Plan::new("free", [limit]).unwrap());
        let quotas = QuotaEnforcer::start(store.clone(), catalogue).unwrap();
        let is_allowed = quotas.enforce(&test, &Quota::Tokens, amount).await.unwrap().is_allowed();
        quotas.shutdown(MINUTE).await.unwrap();
        is_allowed
    };
    let today = Period::Day.range_at(now, Zone::UTC);
    for mode in [Reconcile::DryRun, Reconcile::Repair] {
        assert!(!admits(2).await && admits(1).await);
        assert_eq!(tracker.reconcile(&test, today, mode).await.unwrap().drifts_total, 1);
    }
    assert!(admits(10_000).await);
    assert!(tracker.usage_today(&test).await.unwrap().metrics.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_journal_rows_changed_by_hand_are_followed() {
    mends(
        "DELETE FROM metertrail.tenant_usage_realtime WHERE tenant_id = 'acme' AND tokens_input IN (3, 17, 29)",
    )
    .await;
    mends("UPDATE metertrail.tenant_usage_realtime SET tokens_input = 77, cost_usd = 1 WHERE tenant_id = 'acme' AND tokens_input = 5").await;
    // More in the journal than in all events: no row of metrics could make up for it.
    mends("UPDATE metertrail.usage_journal SET api_calls_total = api_calls_total + 1000 WHERE tenant_id = 'acme'").await;
    mends("UPDATE metertrail.usage_journal SET latency_count = latency_count + 1 WHERE tenant_id = 'acme'")
        .await;
    mends("UPDATE metertrail.usage_journal SET measures = NULL WHERE tenant_id = 'acme'").await;
}

/// Beyond the bound drifts are counted; all are mended.
#[tokio::test(flavor = "multi_thread")]
async fn many_drifts_are_counted_and_all_mended() {
    let (_database, store, client) = bed().await;
    let damage = "
        SELECT metertrail.ensure_usage_partition('2026-03-10'::date + day) FROM generate_series(0, 15) AS day;
        INSERT INTO metertrail.tenant_usage_metrics (tenant_id, period_type, period_start, api_calls_total)
        SELECT 'acme', 'quarter_hourly', '2026-03-10T00:00Z'::timestamptz + make_interval(mins => 15 * quarter), 1
        FROM generate_series(0, 1499) AS quarter";
    client.batch_execute(damage).await.unwrap();
    for mode in [Reconcile::DryRun, Reconcile::Repair] {
        let found = reconcile(&store, march(), mode).await;
        assert_eq!((found.drifts_total, found.drifts.len(), found.unverifiable_total), (1_500, 1_000, 0));
    }
    assert!(reconcile(&store, march(), Reconcile::DryRun).await.is_clean());
    assert_answers(&store).await;
}

/// Only what lies in the range as a whole is looked at and touched.
#[tokio::test(flavor = "multi_thread")]
async fn a_range_bounds_what_is_mended() {
    let (_database, store, client) = bed().await;
    let damage = "UPDATE metertrail.tenant_usage_metrics SET api_calls_total = 999 WHERE tenant_id = 'acme'";
    client.execute(damage, &[]).await.unwrap();
    let range = TimeRange::new(at("2026-03-01T23:30:00Z"), at("2026-03-02T09:45:00Z")).unwrap();
    let found = reconcile(&store, range, Reconcile::Repair).await;
    let kinds: BTreeSet<Period> = fields(&found).into_iter().map(|(period, _, _)| period).collect();
    assert_eq!(kinds, BTreeSet::from([Period::QuarterHour, Period::Hour]), "23:30 to 09:45 has no whole day");
    assert!(found.drifts.iter().all(|drift| match drift {
        Drift::Usage { start, .. } => range.contains(*start),
        _ => false,
    }));
    assert!(reconcile(&store, range, Reconcile::DryRun).await.is_clean());
    let wrong = "SELECT count(*) FROM metertrail.tenant_usage_metrics WHERE tenant_id = 'acme' AND api_calls_total = 999 \
                 AND period_type IN ('daily', 'monthly')";
    assert_eq!(count(&client, wrong).await, 3);
    reconcile(&store, march(), Reconcile::Repair).await;
    assert_answers(&store).await;
}

/// What retention took the events of is all that is known: it is named and left as it is, and the rest is mended.
#[tokio::test(flavor = "multi_thread")]
async fn a_day_whose_events_are_gone_is_left_as_it_is() {
    for gone in [
        "DROP TABLE metertrail.tenant_usage_realtime_20260301",
        "ALTER TABLE metertrail.tenant_usage_realtime DETACH PARTITION metertrail.tenant_usage_realtime_20260301",
    ] {
        let (_database, store, client) = bed().await;
        client.batch_execute(gone).await.unwrap();
        let first = "SELECT count(*), sum(api_calls_total)::bigint, sum(length(metrics::text))::bigint FROM metertrail.tenant_usage_metrics AS metrics \
                     WHERE period_type = 'monthly' OR period_start < '2026-03-02T00:00Z'";
        let known = async || {
            let row = client.query_one(first, &[]).await.unwrap();
            (row.get::<_, i64>(0), row.get::<_, i64>(1), row.get::<_, i64>(2))
        };
        let before = known().await;
        let damage = "UPDATE metertrail.tenant_usage_metrics SET api_calls_total = 999 \
                      WHERE tenant_id = 'acme' AND period_type = 'daily' AND period_start = '2026-03-02T00:00Z'";
        assert_eq!(client.execute(damage, &[]).await.unwrap(), 1);
        for mode in [Reconcile::DryRun, Reconcile::Repair] {
            let found = reconcile(&store, march(), mode).await;
            let day = (Period::Day, "2026-03-02T00:00:00+00:00".to_owned(), UsageField::Calls);
            assert_eq!(fields(&found), BTreeSet::from([day]), "{gone}");
            let unverifiable: BTreeSet<_> = found.unverifiable.iter().copied().collect();
            assert!(unverifiable.contains(&(Period::Month, at("2026-03-01T00:00:00Z"))), "{found:?}");
            assert!(unverifiable.contains(&(Period::Day, at("2026-03-01T00:00:00Z"))), "{found:?}");
            let first_day = TimeRange::new(at("2026-03-01T00:00:00Z"), at("2026-03-02T00:00:00Z")).unwrap();
            assert!(unverifiable.iter().all(|(_, start)| first_day.contains(*start)), "{found:?}");
            // 22:40 to 23:59 in quarter hours and hours, the day, the month.
            assert_eq!(found.unverifiable_total, 6 + 2 + 2, "{found:?}");
        }
        assert_eq!(known().await, before, "{gone}");
        let again = reconcile(&store, march(), Reconcile::Repair).await;
        assert!(again.is_clean() && again.unverifiable_total == 10, "{again:?}");
    }
}

/// A row for a day of which nobody ever had an event cannot be told from one whose events are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_on_a_day_without_a_partition_is_unverifiable() {
    let (_database, store, client) = bed().await;
    let damage = "INSERT INTO tenant_usage_metrics (tenant_id, period_type, period_start, total_tokens_used) \
                  VALUES ('acme', 'daily', '2026-03-07T00:00Z', 9999)";
    client.execute(damage, &[]).await.unwrap();
    let found = reconcile(&store, march(), Reconcile::Repair).await;
    assert!(found.is_clean());
    let march_itself = (Period::Month, at("2026-03-01T00:00:00Z"));
    assert_eq!(found.unverifiable, [(Period::Day, at("2026-03-07T00:00:00Z")), march_itself]);
}

/// A host's transaction that is still open is not seen, and counts once when it commits; so does a roll-up.
#[tokio::test(flavor = "multi_thread")]
async fn what_commits_after_a_repair_counts_once() {
    let (database, store, other) = bed().await;
    let (mut host, mut roller) = (client(database.url()).await, client(database.url()).await);
    let late = events(&acme(), "2026-03-02T09:20:00Z", 10);
    let appending = host.transaction().await.unwrap();
    assert_eq!(store.append_in(&appending, &late).await.unwrap(), [Appended::New; 10]);
    let damage = "UPDATE metertrail.tenant_usage_metrics SET api_calls_total = 999 WHERE tenant_id = 'acme'";
    other.execute(damage, &[]).await.unwrap();

    // Rolled up, not committed: the repair has to wait for these rows, and then finds them folded.
    let rolling = roller.transaction().await.unwrap();
    rolling.execute("SELECT metertrail.aggregate_usage_metrics()", &[]).await.unwrap();
    let repair = {
        let store = store.clone();
        tokio::spawn(async move { reconcile(&store, march(), Reconcile::Repair).await })
    };
    let waiting = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    until("the repair waits for the roll-up", async || count(&other, waiting).await > 0).await;
    rolling.commit().await.unwrap();
    let found = within("the repair", MINUTE, repair).await.unwrap();
    assert!(!found.is_clean());
    assert_answers(&store).await;
    appending.commit().await.unwrap();
    assert_answers(&store).await;
    assert_eq!(check_books(database.url()).await, 430);
    assert!(reconcile(&store, march(), Reconcile::DryRun).await.is_clean());
}

/// The argument of the repair, tried: rows are damaged, and repaired while others append to the same periods and fold the
/// same journal. When all are done nothing is found any more: no repair has lost or doubled what others wrote.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn repairs_among_writers_and_roll_ups_lose_nothing() {
    const ROUNDS: i64 = 24;
    const WRITERS: i64 = 3;
    let (database, store, client) = bed().await;
    let stores: Vec<PostgresStore> = (0..4).map(|_| crate::ledger::store(database.url())).collect();
    let damages = [
        "UPDATE metertrail.tenant_usage_metrics SET api_calls_total = api_calls_total + 1 WHERE tenant_id = 'acme'",
        "DELETE FROM metertrail.tenant_usage_metrics WHERE tenant_id = 'acme' AND period_type <> 'monthly'",
        "UPDATE metertrail.tenant_usage_metrics SET measures = NULL, latency_sketch = '{}' WHERE tenant_id = 'acme'",
        "DELETE FROM metertrail.tenant_usage_metrics WHERE tenant_id = 'acme'",
    ];
    let mut repaired = 0;
    for (round, damage) in (0..ROUNDS).zip(damages.into_iter().cycle()) {
        client.execute(damage, &[]).await.unwrap();
        let (mut writers, mut rollers) = (JoinSet::new(), JoinSet::new());
        let stopped = Arc::new(AtomicBool::new(false));
        for (writer, store) in (0..WRITERS).zip(stores.iter().cloned()) {
            writers.spawn(async move {
                for batch in 0..6_i64 {
                    let start = at("2026-03-01T23:00:00Z")
                        + TimeDelta::milliseconds(round * 90_000 + batch * 10_000 + writer * 10);
                    let millisecond = |number| start + TimeDelta::milliseconds(i64::from(number));
                    let batch: Vec<UsageEvent> =
                        (0..4).map(|number| event(&acme(), millisecond(number), number)).collect();
                    assert_eq!(persistently(|| store.append(&batch, &[])).await.unwrap(), [Appended::New; 4]);
                }
            });
        }
        for (steps, store) in [1, 6].into_iter().zip(stores.iter().cloned()) {
            let stopped = Arc::clone(&stopped);
            rollers.spawn(async move {
                while !stopped.load(Ordering::Relaxed) {
                    persistently(|| store.roll_up(steps)).await.unwrap();
                }
            });
        }
        let repairs = [
            reconcile(&store, march(), Reconcile::Repair),
            reconcile(&stores[3], march(), Reconcile::Repair),
        ];
        let repairs = futures_util::future::join_all(repairs).await;
        repaired += repairs.iter().map(|report| report.drifts_total).sum::<u64>();
        within("the writers", MINUTE, writers.join_all()).await;
        stopped.store(true, Ordering::Relaxed);
        within("the roll-ups", MINUTE, rollers.join_all()).await;
        let left = reconcile(&store, march(), Reconcile::DryRun).await;
        assert!(left.is_clean(), "round {round}, {damage}: {left:?}");
    }
    println!("{repaired} drifts were repaired");
    assert!(repaired > 1_000, "{repaired}");
    assert_answers(&store).await;
    assert_eq!(check_books(database.url()).await, 420 + ROUNDS * WRITERS * 24);
}

fn limit() -> LimitKey {
    LimitKey {
        quota: Quota::Tokens,
        window: Window::Day,
        range: Window::Day.range_at(at("2026-03-02T09:00:00Z"), Zone::UTC),
    }
}

async fn lease(store: &PostgresStore, holder: HolderId, amount: u64) -> u64 {
    let slice = SliceRequest {
        key: limit(),
        allowed: 1_000_000_000,
        known_granted: 0,
        need: amount,
        want: amount,
        unrecorded: 0,
        binding: true,
    };
    let request = AcquireRequest {
        tenant_id: acme(),
        holder,
        now: at("2026-03-02T09:00:00Z"),
        expires_at: at("2026-03-02T09:00:30Z"),
        reclaim: false,
        all_or_none: false,
        slices: vec![slice],
    };
    store.acquire(&request).await.unwrap()[0].granted
}

#[tokio::test(flavor = "multi_thread")]
async fn slices_that_cannot_be_are_found_and_mended() {
    let (_database, store, client) = bed().await;
    let (holder, stranger) = (HolderId::random(), HolderId::random());
    assert_eq!(lease(&store, holder, 100).await, 100);
    let settlement = Settlement { event: 0, holder, key: limit(), amount: 15 };
    let settled = events(&acme(), "2026-03-02T11:00:00Z", 1);
    store.append(&settled, &[settlement]).await.unwrap();
    assert!(reconcile(&store, march(), Reconcile::DryRun).await.is_clean());
    client
        .execute("UPDATE metertrail.quota_slices SET settled = settled + 200, returned = 10", &[])
        .await
        .unwrap();
    let orphan = "INSERT INTO metertrail.quota_settlements \
                  VALUES ('acme', gen_random_uuid(), 'tokens', 'day', '2026-03-02T00:00Z', $1, 33)";
    client.execute(orphan, &[&stranger.as_uuid()]).await.unwrap();
    let before = rows(&client, "IS NOT NULL").await;
    for mode in [Reconcile::DryRun, Reconcile::Repair] {
        assert_eq!(rows(&client, "IS NOT NULL").await, before);
        let found = reconcile(&store, march(), mode).await;
        assert_eq!(found.drifts_total, 2, "{found:?}");
        for drift in &found.drifts {
            match drift {
                Drift::OverSettled { slice, granted, returned, settled } => {
                    assert_eq!((slice.holder, *granted, *returned, *settled), (holder, 100, 10, 215));
                }
                Drift::NoSlice { slice, settled } => {
                    assert_eq!((slice.holder, slice.window.as_str(), *settled), (stranger, "day", 33));
                    assert_eq!((&slice.quota, slice.window_start), (&Quota::Tokens, limit().range.start()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    assert!(reconcile(&store, march(), Reconcile::Repair).await.is_clean());
    let kept = client
        .query_one("SELECT granted, returned, settled FROM metertrail.quota_slices", &[])
        .await
        .unwrap();
    assert_eq!((kept.get(0), kept.get(1), kept.get(2)), (100_i64, 10_i64, 90_i64));
    assert_eq!(count(&client, "SELECT count(*) FROM metertrail.quota_settlements").await, 0);
    assert_eq!(lease(&store, HolderId::random(), 50).await, 50);
}

/// Tenants are walked through, also those that have lost all of their metrics.
#[tokio::test(flavor = "multi_thread")]
async fn all_tenants_are_walked_through() {
    let (database, store, client) = bed().await;
    store.append(&events(&tenant("initech"), "2026-03-02T12:00:00Z", 20), &[]).await.unwrap();
    for damage in [
        "DELETE FROM metertrail.tenant_usage_metrics WHERE tenant_id = 'globex'",
        "DELETE FROM metertrail.usage_journal WHERE tenant_id = 'globex'",
        "INSERT INTO tenant_usage_metrics (tenant_id, period_type, period_start, total_tokens_used) \
         VALUES ('test', 'daily', '2026-03-02T00:00Z', 9999)",
    ] {
        client.execute(damage, &[]).await.unwrap();
    }
    let two = PageSize::new(2).unwrap();
    for expected in [[true, false, true, false], [true; 4]] {
        let (mut after, mut seen) = (None, Vec::new());
        loop {
            let page = reconcile_page(&store, march(), Reconcile::Repair, after.as_ref(), two).await.unwrap();
            seen.extend(page.reports.iter().map(|report| (report.tenant_id.to_string(), report.is_clean())));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        // The row of the last one is gone after the first round, and with it the tenant.
        assert_eq!(seen.len(), if expected[1] { 3 } else { 4 });
        let names = ["acme", "globex", "initech", "test"].map(str::to_owned);
        let mut expected: Vec<(String, bool)> = names.into_iter().zip(expected).collect();
        expected.truncate(seen.len());
        assert_eq!(seen, expected);
    }
    check_books(database.url()).await;
}
