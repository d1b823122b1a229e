//! Responses of providers to usage and list prices.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{env, fs};

use metertrail::TokenClass;
use metertrail::cost::{PriceCatalogue, Unpriced};
use serde_json::{Value, json};

use super::{catalogue, dec, noon};

fn field_of(result: metertrail::Result<impl Sized>) -> String {
    result.err().expect("it is refused").field().unwrap_or_default().to_owned()
}

#[test]
fn tokens_of_a_response_are_disjoint() {
    let response = json!({"model": "gpt-a-20260101", "usage": {
        "prompt_tokens": 1_000, "completion_tokens": 100, "total_tokens": 1_100,
        "prompt_tokens_details": {"cached_tokens": 600}, "completion_tokens_details": {"reasoning_tokens": 40},
    }});
    let extraction = catalogue().extract("openai", "chat", &response).unwrap();
    let tokens = extraction.tokens().unwrap();
    assert_eq!(tokens.total(), 1_100);
    let of = |class| tokens.get(class);
    assert_eq!((of(TokenClass::Input), of(TokenClass::CacheRead)), (400, 600));
    assert_eq!((of(TokenClass::Output), of(TokenClass::Reasoning)), (60, 40));
    let amounts = catalogue().price(&extraction, noon()).unwrap();
    assert_eq!((amounts.input, amounts.output), (dec("0.00121"), dec("0.00066")));
}

#[test]
fn bad_responses_are_refused_by_name() {
    let catalogue = catalogue();
    let chat = |usage: Value| catalogue.extract("openai", "chat", &json!({"model": "gpt-a", "usage": usage}));
    for (usage, field) in [
        (json!({"prompt_tokens": -1, "completion_tokens": 1}), "response.usage.prompt_tokens"),
        (json!({"prompt_tokens": "12", "completion_tokens": 1}), "response.usage.prompt_tokens"),
        (json!({"prompt_tokens": 1e300, "completion_tokens": 1}), "response.usage.prompt_tokens"),
        (json!({"prompt_tokens": true, "completion_tokens": 1}), "response.usage.prompt_tokens"),
        (json!({"prompt_tokens": 1}), "response.usage.completion_tokens"),
        (
            json!({"prompt_tokens": 1, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": "1"}}),
            "response.usage.prompt_tokens_details.cached_tokens",
        ),
        (json!(null), "response.usage"),
        (json!([]), "response.usage"),
    ] {
        assert_eq!(field_of(chat(usage.clone())), field, "{usage}");
    }
    // What contradicts itself is still there as it was reported.
    for (usage, field) in [
        (
            json!({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}}),
            "usage.cache_read_tokens",
        ),
        (json!({"prompt_tokens": 5.5, "completion_tokens": 1}), "usage.input_tokens"),
        (
            json!({"prompt_tokens": 5, "completion_tokens": 1, "completion_tokens_details": {"reasoning_tokens": 2}}),
            "usage.output_reasoning_tokens",
        ),
        (json!({"prompt_tokens": 18_446_744_073_709_551_615_u64, "completion_tokens": 1}), "tokens"),
    ] {
        let extraction = chat(usage.clone()).unwrap();
        assert_eq!(field_of(extraction.tokens()), field, "{usage}");
        assert!(!extraction.usage.is_empty());
    }
    assert_eq!(
        field_of(catalogue.extract_json("openai", "chat", b"{\"model\": \"gpt-a\", \"usa")),
        "response"
    );
    assert_eq!(field_of(catalogue.extract("openai", "chat", &json!({"model": "gpt-a"}))), "response.usage");
    assert_eq!(field_of(catalogue.extract("openai", "chat", &json!([1]))), "response");
    assert_eq!(field_of(catalogue.extract("openai", "songs", &json!({}))), "api_flavor");
    assert_eq!(field_of(catalogue.extract("nobody", "chat", &json!({}))), "provider");
}

#[test]
fn what_contradicts_itself_has_no_price() {
    let usage =
        json!({"prompt_tokens": 5, "completion_tokens": 1, "prompt_tokens_details": {"cached_tokens": 6}});
    let extraction =
        catalogue().extract("openai", "chat", &json!({"model": "gpt-a", "usage": usage})).unwrap();
    let unpriced = catalogue().price(&extraction, noon()).unwrap_err();
    assert!(
        matches!(&unpriced, Unpriced::Unpriceable(reason) if reason.contains("input_tokens")),
        "{unpriced}"
    );
}

#[test]
fn models_are_found_by_rule_alias_and_fallback() {
    let catalogue = catalogue();
    assert_eq!(catalogue.model_id(Some("openai"), "GPT-A"), Some("gpt-a"));
    assert_eq!(catalogue.model_id(Some("my-openai-proxy"), "gpt-a-20251231"), Some("gpt-a"));
    assert_eq!(catalogue.model_id(Some("azure"), "gpt-long"), Some("gpt-long"));
    assert_eq!(catalogue.model_id(None, "gpt-night"), Some("gpt-night"));
    assert_eq!(catalogue.model_id(Some("openai"), "gpt-a-2025"), None);
    assert_eq!(catalogue.model_id(None, "claude"), None);
}

#[test]
fn malformed_prices_are_refused_by_name() {
    let with = |prices: &str| {
        let text = format!(
            r#"[{{"id": "p", "models": [{{"id": "m", "match": {{"equals": "m"}}, "prices": {prices}}}]}}]"#
        );
        PriceCatalogue::from_json(text.as_bytes())
    };
    for prices in [
        r#"{"input_mtok": -1}"#,
        r#"{"input_mtok": "1"}"#,
        r#"{"input_mtok": 0.12345678901234567890123456789012345}"#,
        r#"{"cache_read_mtok": 1}"#,
        r#"{"input_mtok": 1, "cache_read_mtok": 1, "input_audio_mtok": 1}"#,
        r#"{"input_mtok": {"base": 1}}"#,
        "[]",
        r#"[{"constraint": {"start_date": "2026-13-01"}, "prices": {}}]"#,
        r#"[{"constraint": {"start_time": "12:00:00Z"}, "prices": {}}]"#,
    ] {
        let error = with(prices).err().unwrap_or_else(|| panic!("{prices} is taken"));
        assert_eq!(error.field(), Some("prices"), "{prices}");
    }
    assert!(PriceCatalogue::from_json(b"[{\"id\": ").is_err());
    // What newer data may have is left out.
    assert!(with(r#"{"input_mtok": 1, "output_hologram_mtok": 5}"#).is_ok());
}

#[test]
fn the_bundled_prices_can_be_read() {
    let catalogue = PriceCatalogue::bundled().unwrap();
    assert!(catalogue.api_flavors().count() > 50);
    for (provider, model) in
        [("openai", "gpt-4o"), ("anthropic", "claude-sonnet-4-5"), ("google", "gemini-2.5-pro")]
    {
        assert!(catalogue.model_id(Some(provider), model).is_some(), "{model}");
    }
}

/// Each case of the file of real responses, to the last digit. The prices that the file was made with are those of a day before
/// the 30th of July 2026: on that day one of its models became cheaper, see `docs/cost.md`.
#[test]
#[ignore = "needs METERTRAIL_DATA_DIR"]
fn real_responses_are_read_and_priced_to_the_last_digit() {
    let folder =
        env::var_os("METERTRAIL_DATA_DIR").expect("METERTRAIL_DATA_DIR must name the folder of the data");
    let read = |name: &str| {
        let path = PathBuf::from(&folder).join(name);
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let catalogue = PriceCatalogue::from_json(&read("genai_prices_v2.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&read("provider_usages_sample.json")).unwrap();
    let (mut looked_at, mut cheaper) = (0, Vec::new());
    for (number, case) in cases.iter().enumerate() {
        for group in case["extracted"].as_array().unwrap() {
            for shape in group["extractors"].as_array().unwrap() {
                looked_at += 1;
                let (provider, flavor) =
                    (shape["provider_id"].as_str().unwrap(), shape["api_flavor"].as_str().unwrap());
                let place = format!("case {number}, {provider}, {flavor}");
                let extraction = catalogue.extract(provider, flavor, &case["body"]).unwrap();
                let usage = serde_json::to_value(extraction.usage.clone().without_zeros()).unwrap();
                assert_eq!(usage, group["usage"], "{place}");
                extraction.tokens().unwrap_or_else(|error| panic!("{place}: {error}"));
                let price = |day: &str| {
                    let amounts = catalogue.price(&extraction, day.parse().unwrap()).ok();
                    amounts.map(|amounts| (amounts.input, amounts.output))
                };
                let expected = shape.get("input_price").map(|input| {
                    (dec(input.as_str().unwrap()), dec(shape["output_price"].as_str().unwrap()))
                });
                assert_eq!(price("2026-07-29T12:00:00Z"), expected, "{place}");
                if price("2026-08-21T12:00:00Z") != expected {
                    cheaper.push((number, provider.to_owned(), extraction.model.unwrap().to_string()));
                }
            }
        }
    }
    assert_eq!(looked_at, 2_721);
    assert_eq!(cheaper, [(141, "aws".to_owned(), "openai.gpt-5.6-luna".to_owned())]);
}

#[test]
fn classes_and_measures_of_a_response_cost_what_it_costs() {
    let catalogue = PriceCatalogue::bundled().unwrap();
    let at = "2026-10-01T00:00:00Z".parse().unwrap();
    let responses = BTreeMap::from([
        (
            ("anthropic", "default"),
            json!({"model": "claude-sonnet-4-5", "usage": {"input_tokens": 10, "output_tokens": 7,
            "cache_creation_input_tokens": 300, "cache_read_input_tokens": 4_000,
            "cache_creation": {"ephemeral_1h_input_tokens": 200, "ephemeral_5m_input_tokens": 100},
            "server_tool_use": {"web_search_requests": 2}}}),
        ),
        (
            ("google", "default"),
            json!({"modelVersion": "gemini-2.5-flash", "usageMetadata": {"promptTokenCount": 900,
            "candidatesTokenCount": 50, "thoughtsTokenCount": 25,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 100}, {"modality": "AUDIO", "tokenCount": 800}]}}),
        ),
    ]);
    for ((provider, flavor), response) in responses {
        let extraction = catalogue.extract(provider, flavor, &response).unwrap();
        let (tokens, measures) = (extraction.tokens().unwrap(), extraction.measures().unwrap());
        let listed = catalogue.price(&extraction, at).unwrap();
        let book = metertrail::cost::PriceBook::bundled().unwrap();
        let mut event = metertrail::UsageEvent::new(
            super::acme(),
            metertrail::EventType::ChatMessage,
            metertrail::Outcome::Success,
            at,
        )
        .unwrap();
        (event.tokens, event.measures) = (tokens, measures);
        event.model = extraction.model.clone();
        event.provider = Some(extraction.provider.clone());
        assert_eq!(book.price(&event).unwrap().amounts, listed, "{provider}");
        assert!(listed.total().unwrap() > dec("0"), "{provider}");
    }
}
