//! Events are priced when they are recorded, and limits of cost are enforced in dollars.

use std::sync::Arc;

use metertrail::cost::{OwnPrice, PriceBook, Prices, Reprice, reprice};
use metertrail::quota::{
    COST_UNITS_PER_USD, Catalogue, Limit, Plan, Quota, QuotaEnforcer, Verdict, WhenUnavailable, WhenUnpriced,
    Window,
};
use metertrail::testing::ManualClock;
use metertrail::time::TimeRange;
use metertrail::{
    Actual, Cost, EventQuery, EventType, Measure, Period, TokenClass, TokenSource, TokenUsage, UsageEvent,
    UsageTracker,
};

use super::{Bed, MINUTE, acme, dec, noon};

macro_rules! on_both_stores {
    ($($name:ident,)*) => {
        mod memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::cost::Bed::memory()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(crate::cost::Bed::postgres().await).await;
            })*
        }
    };
}

on_both_stores! {
    events_are_priced_at_their_time_and_keep_the_version,
    a_repetition_under_other_prices_is_a_duplicate,
    a_limit_of_cost_is_enforced_in_dollars,
    what_has_no_price_is_allowed_capped_or_refused,
    an_abandoned_operation_costs_its_estimate,
}

/// A dollar for a million input tokens of the model `m`, two for output.
fn prices(version: &str) -> Prices {
    let price = OwnPrice::builder(version).unwrap().model("m").unwrap();
    let price = price.per_million(TokenClass::Input, dec("1")).per_million(TokenClass::Output, dec("2"));
    Prices::new().own(price.build().unwrap())
}

fn tracker(bed: &Bed, book: &PriceBook, quotas: Option<&QuotaEnforcer>) -> UsageTracker {
    let builder = UsageTracker::builder(Arc::clone(&bed.store)).clock(ManualClock::new(noon())).prices(book);
    match quotas {
        Some(quotas) => builder.quotas(quotas).start().unwrap(),
        None => builder.start().unwrap(),
    }
}

fn quotas(bed: &Bed, dollars: u64, when_unpriced: WhenUnpriced) -> QuotaEnforcer {
    let limit =
        Limit::hard(Quota::Cost, Window::Day, dollars * COST_UNITS_PER_USD, WhenUnavailable::Deny).unwrap();
    let plan = Plan::new("pro", [limit.with_when_unpriced(when_unpriced)]).unwrap();
    QuotaEnforcer::builder(Arc::clone(&bed.store), Catalogue::new(plan))
        .clock(ManualClock::new(noon()))
        .start()
        .unwrap()
}

fn tokens(input: u64) -> TokenUsage {
    TokenUsage::reported(input, 0).unwrap()
}

async fn events(bed: &Bed) -> Vec<UsageEvent> {
    let mut events = bed.store.events(&EventQuery::new(acme(), TimeRange::ALL)).await.unwrap().items;
    events.reverse();
    events
}

fn version(event: &UsageEvent) -> Option<&str> {
    event.price_version.as_ref().map(metertrail::Label::as_str)
}

async fn events_are_priced_at_their_time_and_keep_the_version(bed: Bed) {
    let book = PriceBook::new(prices("v1"));
    let tracker = tracker(&bed, &book, None);
    let operation = |model: &str| tracker.track(&acme(), EventType::ChatMessage).model(model).unwrap();
    operation("m").record_success(tokens(1_500_000)).await.unwrap();
    book.replace(prices("v2"));
    operation("m").record_failure("cut", tokens(500_000)).await.unwrap();
    operation("m")
        .record_success(Actual::new().tokens(tokens(9)).cost(Cost::usd(dec("0.75")).unwrap()))
        .await
        .unwrap();
    operation("unknown").record_success(tokens(10)).await.unwrap();
    operation("m").record_rate_limit().await.unwrap();
    let kept = events(&bed).await;
    let mut told: Vec<(Option<String>, Option<&str>)> = kept
        .iter()
        .map(|event| (event.cost.map(|cost| cost.as_decimal().to_string()), version(event)))
        .collect();
    told.sort();
    let dollars = |text: &str| Some(text.to_owned());
    assert_eq!(
        told,
        [
            (None, None),
            (None, None),
            (dollars("0.5"), Some("v2")),
            (dollars("0.75"), None),
            (dollars("1.5"), Some("v1"))
        ]
    );
    let today = tracker.usage_today(&acme()).await.unwrap().metrics;
    assert_eq!((today.cost, today.unpriced), (dec("2.75"), 1));
    let top = tracker.top_consumers(Measure::Cost, Period::Day, 5).await.unwrap();
    assert_eq!(top[0].amount, dec("2.75"));
    // Repricing leaves what was reported.
    let report = reprice(&*bed.store, &book, &acme(), TimeRange::ALL, Reprice::Apply).await.unwrap();
    assert_eq!((report.events, report.reported, report.unpriced, report.changed), (5, 1, 1, 0));
}

async fn a_repetition_under_other_prices_is_a_duplicate(bed: Bed) {
    let book = PriceBook::new(prices("v1"));
    let tracker = tracker(&bed, &book, None);
    let record = || {
        let operation = tracker.track(&acme(), EventType::ChatMessage).model("m").unwrap();
        operation.idempotency_key("once").unwrap().record_success(tokens(1_000_000))
    };
    assert!(!record().await.unwrap().duplicate);
    let dearer = OwnPrice::builder("v2").unwrap().per_million(TokenClass::Input, dec("5"));
    book.replace(Prices::new().own(dearer.build().unwrap()));
    assert!(record().await.unwrap().duplicate);
    assert_eq!(tracker.usage_today(&acme()).await.unwrap().metrics.cost, dec("1"));
}

async fn a_limit_of_cost_is_enforced_in_dollars(bed: Bed) {
    let book = PriceBook::new(prices("v1"));
    let quotas = quotas(&bed, 10, WhenUnpriced::Deny);
    let tracker = tracker(&bed, &book, Some(&quotas));
    let mut admitted = 0;
    for _ in 0..5 {
        let estimate = book.estimate(&acme(), None, "m", &tokens(3_000_000), noon());
        let decision = quotas.enforce_cost(&acme(), &estimate).await.unwrap();
        if !decision.is_allowed() {
            assert_eq!(decision.verdict(), Verdict::Refused);
            continue;
        }
        admitted += 1;
        let operation = tracker.track(&acme(), EventType::ChatMessage).model("m").unwrap();
        operation.hold(decision.into_hold()).record_success(tokens(3_000_000)).await.unwrap();
    }
    assert_eq!(admitted, 3, "three times three dollars of ten");
    let status = quotas.quota_status(&acme()).await.unwrap();
    assert_eq!(status.limits[0].used, 9 * COST_UNITS_PER_USD);
    // One more dollar is left, to the nano-dollar.
    let estimate = book.estimate(&acme(), None, "m", &tokens(1_000_000), noon());
    assert!(quotas.enforce_cost(&acme(), &estimate).await.unwrap().is_allowed());
    // A period that becomes cheaper makes room.
    let cheaper = OwnPrice::builder("v2").unwrap().per_million(TokenClass::Input, dec("0.5"));
    let cheaper = PriceBook::new(Prices::new().own(cheaper.build().unwrap()));
    reprice(&*bed.store, &cheaper, &acme(), TimeRange::ALL, Reprice::Apply).await.unwrap();
    let status = quotas.quota_status(&acme()).await.unwrap();
    assert_eq!(status.limits[0].used, 4_500_000_000);
    assert!(tracker.shutdown(MINUTE).await.unwrap().unwritten.is_empty());
    quotas.shutdown(MINUTE).await.unwrap();
}

async fn what_has_no_price_is_allowed_capped_or_refused(bed: Bed) {
    let with_ceiling = PriceBook::new(prices("v1").ceiling(dec("30"), dec("60")).unwrap());
    let without = PriceBook::new(prices("v1"));
    let asked = |book: &PriceBook| book.estimate(&acme(), None, "unknown", &tokens(100_000), noon());

    let denying = quotas(&bed, 10, WhenUnpriced::Deny);
    let decision = denying.enforce_cost(&acme(), &asked(&with_ceiling)).await.unwrap();
    assert_eq!((decision.verdict(), decision.retry()), (Verdict::Unpriced, None));
    assert_eq!(decision.to_string(), "refused: the price is not known, and cost by day needs one");

    let allowing = quotas(&bed, 10, WhenUnpriced::Allow);
    let decision = allowing.enforce_cost(&acme(), &asked(&without)).await.unwrap();
    assert!(decision.is_allowed());
    let tracker_of_allowing = tracker(&bed, &with_ceiling, Some(&allowing));
    let unknown =
        |tracker: &UsageTracker| tracker.track(&acme(), EventType::ChatMessage).model("unknown").unwrap();
    unknown(&tracker_of_allowing).hold(decision.into_hold()).record_success(tokens(100_000)).await.unwrap();
    let today = tracker_of_allowing.usage_today(&acme()).await.unwrap().metrics;
    assert_eq!((today.cost, today.unpriced), (dec("0"), 1));
    assert_eq!(allowing.quota_status(&acme()).await.unwrap().limits[0].used, 0);

    let capping = quotas(&bed, 10, WhenUnpriced::Ceiling);
    assert_eq!(capping.enforce_cost(&acme(), &asked(&without)).await.unwrap().verdict(), Verdict::Unpriced);
    let tracker = tracker(&bed, &with_ceiling, Some(&capping));
    let mut admitted = 0;
    for _ in 0..5 {
        let decision = capping.enforce_cost(&acme(), &asked(&with_ceiling)).await.unwrap();
        if decision.is_allowed() {
            admitted += 1;
            unknown(&tracker).hold(decision.into_hold()).record_success(tokens(100_000)).await.unwrap();
        }
    }
    assert_eq!(admitted, 3, "three dollars each at the ceiling");
    let today = tracker.usage_today(&acme()).await.unwrap().metrics;
    assert_eq!((today.cost, today.unpriced), (dec("0"), 4), "the cost itself stays unknown");
    assert_eq!(capping.quota_status(&acme()).await.unwrap().limits[0].used, 9 * COST_UNITS_PER_USD);

    // Once the price is known it takes the place of the ceiling.
    let known = OwnPrice::builder("v2").unwrap().per_million(TokenClass::Input, dec("1"));
    let known = PriceBook::new(Prices::new().own(known.build().unwrap()));
    let report = reprice(&*bed.store, &known, &acme(), TimeRange::ALL, Reprice::Apply).await.unwrap();
    assert_eq!((report.changed, report.applied, report.cost_after), (4, 4, dec("0.4")));
    assert_eq!(capping.quota_status(&acme()).await.unwrap().limits[0].used, 400_000_000);
}

async fn an_abandoned_operation_costs_its_estimate(bed: Bed) {
    let book = PriceBook::new(prices("v1"));
    let quotas = quotas(&bed, 10, WhenUnpriced::Deny);
    let tracker = tracker(&bed, &book, Some(&quotas));
    let estimate = book.estimate(&acme(), None, "m", &tokens(3_000_000), noon());
    let decision = quotas.enforce_cost(&acme(), &estimate).await.unwrap();
    let mut operation =
        tracker.track(&acme(), EventType::ChatMessage).model("m").unwrap().hold(decision.into_hold());
    // So much was seen of the answer before the client went.
    operation.raise_estimate(TokenUsage::reported(1_000_000, 250_000).unwrap());
    operation.raise_estimate(TokenUsage::reported(1_000_000, 100_000).unwrap());
    drop(operation);
    assert!(tracker.shutdown(MINUTE).await.unwrap().unwritten.is_empty());
    let event = events(&bed).await.remove(0);
    assert_eq!((event.cost.map(Cost::as_decimal), version(&event)), (Some(dec("1.5")), Some("v1")));
    assert_eq!(event.tokens.source(), TokenSource::Estimated);
}
