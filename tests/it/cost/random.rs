//! A million random usages.

use chrono::TimeDelta;
use metertrail::cost::{PriceBook, Prices, ReportedUsage, Unit};
use metertrail::{EventType, Outcome, TokenClass, UsageEvent, UsageMetrics};
use rust_decimal::Decimal;

use super::{acme, catalogue, noon};

const USAGES: u32 = 1_000_000;

/// xorshift64*: the same numbers each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn up_to(&mut self, most: u64) -> u64 {
        self.next() % (most + 1)
    }

    /// Mostly small, sometimes nothing, sometimes beyond every context size.
    fn count(&mut self) -> u64 {
        let most = [0, 1, 100, 10_000, 300_000, 5_000_000][usize::try_from(self.up_to(5)).unwrap()];
        self.up_to(most)
    }
}

#[test]
fn classes_of_a_million_usages_are_disjoint_and_add_up() {
    let book = PriceBook::new(Prices::new().catalogue(catalogue()));
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    let mut whole = UsageMetrics::default();
    let mut parts = vec![UsageMetrics::default(); 7];
    let (mut sum, mut tokens_sum, mut refused) = (Decimal::ZERO, 0, 0);
    for number in 0..USAGES {
        let (input, output) = (random.count(), random.count());
        let (cached, reasoning) = (random.up_to(input), random.up_to(output));
        let written = random.up_to(input - cached);
        let audio = random.up_to(input - cached - written);
        let audio_out = random.up_to(output - reasoning);
        let mut usage = ReportedUsage::default();
        for (unit, count) in [
            (Unit::INPUT, input),
            (Unit::OUTPUT, output),
            (Unit::CACHE_READ, cached),
            (Unit::CACHE_WRITE, written),
            (Unit::REASONING, reasoning),
            (Unit::AUDIO_INPUT, audio),
            (Unit::AUDIO_OUTPUT, audio_out),
        ] {
            usage.add(unit, count.into()).unwrap();
        }
        let tokens = usage.tokens().unwrap();
        // Each token is in one class, the parts are the whole, and the classes say again what was reported.
        assert_eq!(tokens.total(), input + output);
        let of = |class| tokens.get(class);
        assert_eq!((of(TokenClass::CacheRead), of(TokenClass::CacheWrite)), (cached, written));
        assert_eq!(of(TokenClass::Input), input - cached - written - audio);
        assert_eq!(of(TokenClass::Output), output - reasoning - audio_out);
        let again = ReportedUsage::of(&tokens, &metertrail::Measures::default());
        for unit in [Unit::INPUT, Unit::OUTPUT, Unit::CACHE_READ, Unit::REASONING, Unit::AUDIO_INPUT] {
            assert_eq!(again.get(unit).unwrap_or_default(), usage.get(unit).unwrap_or_default());
        }

        // A part that is larger than its whole is refused, and nothing becomes negative.
        if number % 16 == 0 {
            let mut contradiction = usage.clone();
            contradiction.add(Unit::CACHE_READ, Decimal::from(input + 1)).unwrap();
            assert!(contradiction.tokens().is_err());
            refused += 1;
        }

        let at = noon() + TimeDelta::seconds(i64::from(number % 86_400));
        let mut event = UsageEvent::new(acme(), EventType::ChatMessage, Outcome::Success, at).unwrap();
        event.tokens = tokens;
        event.model = Some(
            metertrail::Label::new("model", ["gpt-a", "gpt-long", "gpt-9"][number as usize % 3]).unwrap(),
        );
        if let Ok(price) = book.price(&event) {
            assert!(price.amounts.input >= Decimal::ZERO && price.amounts.output >= Decimal::ZERO);
            assert_eq!(price.cost.as_decimal(), price.amounts.total().unwrap().round_dp(12));
            sum += price.cost.as_decimal();
            event.cost = Some(price.cost);
            event.price_version = Some(price.version);
        }
        tokens_sum += tokens.total();
        whole.add(&event);
        parts[number as usize % 7].add(&event);
    }
    let mut merged = UsageMetrics::default();
    for part in &parts {
        merged.merge(part);
    }
    assert_eq!(merged, whole, "merging is exact");
    assert_eq!((whole.cost, whole.tokens_total()), (sum, tokens_sum));
    assert_eq!(refused, USAGES / 16);
    assert!(
        whole.unpriced > 300_000 && whole.unpriced < 334_000,
        "a third is of a model that nobody knows: {}",
        whole.unpriced
    );
}

/// The price of a million tokens by hand, with whole numbers only: in millionths of a millionth of a dollar.
#[test]
fn prices_are_those_of_a_naive_computation() {
    let catalogue = catalogue();
    let mut random = Random(42);
    for _ in 0..20_000 {
        let (input, output) = (random.count(), random.count());
        let cached = random.up_to(input);
        for (model, naive) in [
            (
                "gpt-a",
                i128::from(input - cached) * 2_200_000
                    + i128::from(cached) * 550_000
                    + i128::from(output) * 6_600_000,
            ),
            (
                "gpt-long",
                if input > 200_000 {
                    i128::from(input) * 2_000_000 + i128::from(output) * 7_500_000
                } else {
                    i128::from(input) * 1_000_000 + i128::from(output) * 5_000_000
                },
            ),
        ] {
            let response = serde_json::json!({"model": model, "usage": {"prompt_tokens": input, "completion_tokens": output,
                "prompt_tokens_details": {"cached_tokens": cached}}});
            let extraction = catalogue.extract("openai", "chat", &response).unwrap();
            let total = catalogue.price(&extraction, noon()).unwrap().total().unwrap();
            assert_eq!(total, Decimal::from_i128_with_scale(naive, 12), "{model}: {input} {cached} {output}");
        }
    }
}
