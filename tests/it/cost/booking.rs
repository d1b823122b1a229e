//! Where a price comes from.

use chrono::TimeDelta;
use metertrail::cost::{Markup, OwnPrice, Price, PriceBook, Prices, Unpriced};
use metertrail::{
    EventType, Label, Measures, Metadata, Outcome, TenantId, TokenClass, TokenUsage, UsageEvent,
};
use serde_json::json;

use super::{acme, catalogue, dec, noon};

fn book(change: impl FnOnce(Prices) -> Prices) -> PriceBook {
    let version = Label::new("version", "list-1").unwrap();
    PriceBook::new(change(Prices::new().catalogue(catalogue().with_version(version))))
}

/// A million input tokens of a model at noon of the first of March 2026.
fn event(model: &str) -> UsageEvent {
    let mut event = UsageEvent::new(acme(), EventType::ChatMessage, Outcome::Success, noon()).unwrap();
    event.tokens = TokenUsage::reported(1_000_000, 0).unwrap();
    event.model = Some(Label::new("model", model).unwrap());
    event
}

fn at(mut event: UsageEvent, when: &str) -> UsageEvent {
    let other =
        UsageEvent::new(acme(), EventType::ChatMessage, Outcome::Success, when.parse().unwrap()).unwrap();
    let (tokens, model) = (event.tokens, event.model.take());
    event = other;
    (event.tokens, event.model) = (tokens, model);
    event
}

fn cost(result: Result<Price, Unpriced>) -> String {
    match result {
        Ok(price) => format!("{} by {}", price.cost.as_decimal(), price.version),
        Err(why) => why.to_string(),
    }
}

#[test]
fn list_prices_follow_the_date_the_hour_and_the_size() {
    let book = book(|prices| prices);
    assert_eq!(cost(book.price(&event("gpt-a"))), "2.2 by list-1");
    assert_eq!(cost(book.price(&at(event("gpt-a"), "2026-02-28T23:59:59.999999Z"))), "4 by list-1");
    assert_eq!(cost(book.price(&at(event("gpt-a"), "2026-03-01T00:00:00Z"))), "2.2 by list-1");
    // Cheaper from half past four in the afternoon to half past midnight.
    for (when, price) in
        [("16:29:59", "2"), ("16:30:00", "1"), ("23:59:59", "1"), ("00:29:59", "1"), ("00:30:00", "2")]
    {
        let when = format!("2026-03-01T{when}Z");
        assert_eq!(cost(book.price(&at(event("gpt-night"), &when))), format!("{price} by list-1"), "{when}");
    }
    for (tokens, price) in [(200_000, "0.2"), (200_001, "0.400002")] {
        let mut event = event("gpt-long");
        event.tokens = TokenUsage::reported(tokens, 0).unwrap();
        assert_eq!(cost(book.price(&event)), format!("{price} by list-1"));
    }
    let mut flex = event("gpt-a");
    flex.metadata = Metadata::new(json!({"service_tier": "flex"})).unwrap();
    assert_eq!(cost(book.price(&flex)), "1.1 by list-1");
}

#[test]
fn a_cost_is_rounded_once_half_to_even() {
    let book = book(|prices| prices);
    let mut event = event("gpt-exact");
    event.tokens = TokenUsage::reported(10, 0).unwrap();
    let price = book.price(&event).unwrap();
    assert_eq!(price.amounts.input, dec("0.000001234567890123"));
    assert_eq!(price.amounts.other, dec("0.005"));
    assert_eq!(price.cost.as_decimal(), dec("0.005001234568"));
}

#[test]
fn what_nobody_knows_is_said() {
    let book = book(|prices| prices);
    assert_eq!(book.price(&event("gpt-unheard-of")), Err(Unpriced::UnknownModel));
    assert_eq!(book.price(&event("unheard-of")), Err(Unpriced::UnknownProvider));
    let mut nameless = event("gpt-a");
    nameless.model = None;
    assert_eq!(book.price(&nameless), Err(Unpriced::NoModel));
    let mut total = event("gpt-a");
    total.tokens = TokenUsage::total_only(10).unwrap();
    assert_eq!(book.price(&total), Err(Unpriced::Unclassified));
    let mut nothing = event("gpt-a");
    nothing.tokens = TokenUsage::NONE;
    assert_eq!(book.price(&nothing), Err(Unpriced::NothingUsed));
    let mut dear = event("gpt-a");
    dear.tokens = TokenUsage::reported(10_000_000_000_u64, 0).unwrap();
    assert_eq!(cost(book.price(&dear)), "22000 by list-1");
}

#[test]
fn the_hosts_own_price_goes_first_while_it_is_in_force() {
    let own = |version: &str, price: &str| {
        OwnPrice::builder(version).unwrap().model("GPT-a").unwrap().per_million(TokenClass::Input, dec(price))
    };
    let book = book(|prices| {
        prices
            .own(own("bolt", "9").tenant(TenantId::new("bolt").unwrap()).build().unwrap())
            .own(own("flex", "0.1").when("service_tier", "flex").build().unwrap())
            .own(own("may", "7").from(noon()).until(noon() + TimeDelta::hours(1)).build().unwrap())
            .own(own("searches", "8").event_type(EventType::Search).build().unwrap())
    });
    assert_eq!(cost(book.price(&event("gpt-a"))), "7 by may");
    assert_eq!(cost(book.price(&at(event("gpt-a"), "2026-03-01T12:00:29Z"))), "2.2 by list-1");
    assert_eq!(cost(book.price(&at(event("gpt-a"), "2026-03-01T13:00:30Z"))), "2.2 by list-1");
    let mut other = event("gpt-a");
    other.tenant_id = TenantId::new("bolt").unwrap();
    assert_eq!(cost(book.price(&other)), "9 by bolt");
    other = event("gpt-a");
    other.metadata = Metadata::new(json!({"service_tier": "flex"})).unwrap();
    assert_eq!(cost(book.price(&other)), "0.1 by flex");
    let mut search = at(event("gpt-a"), "2026-04-01T00:00:00Z");
    search.event_type = EventType::Search;
    assert_eq!(cost(book.price(&search)), "8 by searches");
}

#[test]
fn own_prices_know_classes_sizes_calls_and_measures() {
    let price = OwnPrice::builder("own").unwrap().model("m").unwrap();
    let price = price
        .per_million(TokenClass::Input, dec("4"))
        .per_million_above(TokenClass::Input, 1_000, dec("8"))
        .per_million(TokenClass::CacheRead, dec("1"))
        .per_million(TokenClass::Output, dec("10"))
        .per_million(TokenClass::Unclassified, dec("3"))
        .per_call(dec("0.5"))
        .per_unit("pages", dec("0.25"))
        .unwrap();
    let book = PriceBook::new(Prices::new().own(price.build().unwrap()));
    let mut event = event("m");
    event.tokens = TokenUsage::reported(900, 100).unwrap().with(TokenClass::CacheRead, 100).unwrap();
    event.tokens = event.tokens.with(TokenClass::Reasoning, 50).unwrap();
    event.measures = Measures::default().with("pages", dec("3")).unwrap();
    // 900 × 4 + 100 × 1 + 150 × 10 millionths, a call and three pages.
    assert_eq!(cost(book.price(&event)), "1.2552 by own");
    event.tokens = event.tokens.with(TokenClass::Input, 901).unwrap();
    assert_eq!(cost(book.price(&event)), "1.258808 by own");
    // A failure is charged for what it used, and is no call.
    event.outcome = Outcome::Failure;
    assert_eq!(cost(book.price(&event)), "0.008808 by own");
    event.outcome = Outcome::Success;
    event.tokens = TokenUsage::NONE;
    assert_eq!(cost(book.price(&event)), "1.25 by own");
    event.tokens = TokenUsage::total_only(1_000_000).unwrap();
    assert_eq!(cost(book.price(&event)), "4.25 by own");

    let built =
        |price: metertrail::cost::OwnPriceBuilder| price.build().err().unwrap().field().unwrap().to_owned();
    let builder = || OwnPrice::builder("own").unwrap();
    assert_eq!(built(builder().per_million(TokenClass::CacheRead, dec("1"))), "price");
    assert_eq!(built(builder().per_million_above(TokenClass::Input, 5, dec("1"))), "price");
    assert_eq!(built(builder().per_call(dec("-1"))), "price");
}

#[test]
fn a_mark_up_is_on_top_of_list_prices_only() {
    let markup = |version: &str, factor: &str| Markup::new(version, acme(), dec(factor)).unwrap();
    let own = OwnPrice::builder("own").unwrap().model("gpt-long").unwrap();
    let book = book(|prices| {
        prices
            .own(own.per_million(TokenClass::Input, dec("3")).build().unwrap())
            .markup(markup("m-1", "1.15").until(noon()))
            .markup(markup("m-2", "1.2").from(noon()))
    });
    assert_eq!(cost(book.price(&event("gpt-a"))), "2.64 by list-1+m-2");
    assert_eq!(cost(book.price(&at(event("gpt-a"), "2026-03-01T12:00:29Z"))), "2.53 by list-1+m-1");
    assert_eq!(cost(book.price(&event("gpt-long"))), "3 by own");
    let mut other = event("gpt-a");
    other.tenant_id = TenantId::new("bolt").unwrap();
    assert_eq!(cost(book.price(&other)), "2.2 by list-1");
    assert_eq!(Markup::new("m", acme(), dec("1000.1")).unwrap_err().field(), Some("factor"));
}

#[test]
fn prices_are_replaced_while_they_are_used() {
    let book = book(|prices| prices);
    let clone = book.clone();
    assert_eq!(cost(clone.price(&event("gpt-a"))), "2.2 by list-1");
    let own = OwnPrice::builder("v2").unwrap().per_million(TokenClass::Input, dec("1"));
    book.replace(Prices::new().own(own.build().unwrap()));
    assert_eq!(cost(clone.price(&event("gpt-a"))), "1 by v2");
    // Names from outside do not grow without a bound, and are found again.
    book.replace(Prices::new().catalogue(catalogue().with_version(Label::new("version", "v3").unwrap())));
    for number in 0..10_000 {
        assert_eq!(clone.price(&event(&format!("gpt-{number}"))), Err(Unpriced::UnknownModel));
    }
    assert_eq!(cost(clone.price(&event("gpt-a"))), "2.2 by v3");
}
