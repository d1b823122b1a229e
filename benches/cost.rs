//! What a price costs: one event with a warm price book, and what recording costs with one.

mod report;

use std::hint::black_box;
use std::time::{Duration, Instant};

use metertrail::cost::{Markup, PriceBook, PriceCatalogue, Prices};
use metertrail::time::{Clock, SystemClock};
use metertrail::{EventType, Label, Outcome, TenantId, TokenClass, TokenUsage, UsageEvent};
use rust_decimal::Decimal;
use serde_json::json;

use self::report::{Table, is_quick, median, verdict};

const AIM: Duration = Duration::from_micros(1);

type Result<T, E = Box<dyn std::error::Error>> = std::result::Result<T, E>;

fn main() -> Result<()> {
    let acme = TenantId::new("acme")?;
    let event = |provider: &str, model: &str| -> Result<UsageEvent> {
        let mut event =
            UsageEvent::new(acme.clone(), EventType::ChatMessage, Outcome::Success, SystemClock.now())?;
        event.tokens = TokenUsage::reported(374, 44)?
            .with(TokenClass::CacheRead, 1_024)?
            .with(TokenClass::Reasoning, 64)?;
        event.provider = Some(Label::new("provider", provider)?);
        event.model = Some(Label::new("model", model)?);
        Ok(event)
    };
    let book = PriceBook::bundled()?;
    let markup = Markup::new("m", acme.clone(), Decimal::new(115, 2))?;
    let marked_up = PriceBook::new(Prices::bundled()?.markup(markup));
    let mut table =
        Table::new("One event with a warm price book".to_owned(), &["case", "median", "aim: below 1 µs"]);
    for (case, book, event) in [
        ("flat prices", &book, event("openai", "gpt-4o")?),
        ("prices by size", &book, event("google", "gemini-2.5-pro")?),
        ("seven prices", &book, event("openai", "gpt-4o-audio-preview")?),
        ("a mark-up", &marked_up, event("openai", "gpt-4o")?),
        ("an unknown model", &book, event("openai", "gpt-unheard-of")?),
    ] {
        let time = timed(|| drop(black_box(book.price(black_box(&event)))));
        table.row(&[&case, &format!("{} ns", time.as_nanos()), &verdict(time < AIM)]);
    }
    let catalogue = PriceCatalogue::bundled()?;
    let response = json!({"model": "gpt-4o", "usage": {"prompt_tokens": 1_398, "completion_tokens": 108,
        "prompt_tokens_details": {"cached_tokens": 1_024}, "completion_tokens_details": {"reasoning_tokens": 64}}});
    let time = timed(|| {
        let extraction = catalogue.extract("openai", "chat", black_box(&response));
        drop(black_box(extraction.and_then(|extraction| extraction.tokens())));
    });
    table.row(&[&"usage from a parsed response", &format!("{} ns", time.as_nanos()), &"none"]);
    table.print();

    let started = Instant::now();
    let loaded = PriceCatalogue::bundled()?;
    println!("\nThe bundled prices were read in {:?}: {loaded:?}", started.elapsed());
    Ok(())
}

/// The median of the time of one call over samples of many.
fn timed(mut call: impl FnMut()) -> Duration {
    let (samples, calls) = if is_quick() { (3, 10) } else { (50, 20_000) };
    let times: Vec<Duration> = (0..samples)
        .map(|_| {
            let started = Instant::now();
            (0..calls).for_each(|_| call());
            started.elapsed() / calls
        })
        .collect();
    median(&times)
}
