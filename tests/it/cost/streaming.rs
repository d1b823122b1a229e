//! Answers that come in pieces.

use std::sync::LazyLock;

use metertrail::cost::{Estimator, PriceCatalogue, StreamUsage, Streamed};
use metertrail::{Actual, EventType, MemoryStore, TokenClass, TokenSource, UsageTracker};
use serde_json::{Value, json};

use super::acme;

static CATALOGUE: LazyLock<PriceCatalogue> = LazyLock::new(|| PriceCatalogue::bundled().unwrap());

/// The events as server-sent ones.
fn sse(events: &[Value]) -> String {
    let written = events.iter().map(|event| format!("event: e\r\ndata: {event}\r\n\r\n"));
    written.collect::<Vec<_>>().concat()
}

fn streamed(provider: &str, flavor: &str, text: &str, piece: usize) -> Streamed {
    let mut stream = StreamUsage::new(&CATALOGUE, provider, flavor).unwrap();
    for piece in text.as_bytes().chunks(piece) {
        stream.push(piece).unwrap();
    }
    stream.finish(&Estimator::default(), Some("eight by"))
}

fn openai() -> Vec<Value> {
    vec![
        json!({"model": "gpt-4o", "usage": null, "choices": [{"delta": {"content": "Good morning"}, "finish_reason": null}]}),
        json!({"model": "gpt-4o", "usage": null, "choices": [{"delta": {"content": ", you."}, "finish_reason": null}]}),
        json!({"model": "gpt-4o", "usage": null, "choices": [{"delta": {}, "finish_reason": "stop"}]}),
        json!({"model": "gpt-4o", "choices": [], "usage": {"prompt_tokens": 30, "completion_tokens": 6,
            "prompt_tokens_details": {"cached_tokens": 10}}}),
    ]
}

#[test]
fn usage_is_found_wherever_a_provider_puts_it() {
    let anthropic = [
        json!({"type": "message_start", "message": {"model": "claude-sonnet-4-5", "usage":
            {"input_tokens": 20, "cache_read_input_tokens": 10, "output_tokens": 1}}}),
        json!({"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Good morning, you."}}),
        json!({"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 6}}),
        json!({"type": "message_stop"}),
    ];
    let responses = [
        json!({"type": "response.created", "response": {"model": "gpt-4o", "usage": null}}),
        json!({"type": "response.output_text.delta", "delta": "Good morning, you."}),
        json!({"type": "response.output_text.done", "text": "Good morning, you."}),
        json!({"type": "response.completed", "response": {"model": "gpt-4o", "usage":
            {"input_tokens": 30, "output_tokens": 6, "input_tokens_details": {"cached_tokens": 10}}}}),
    ];
    let google = [
        json!({"modelVersion": "gemini-2.5-flash", "candidates": [{"content": {"parts": [{"text": "Good"}]}}],
            "usageMetadata": {"promptTokenCount": 30, "cachedContentTokenCount": 10, "candidatesTokenCount": 1}}),
        json!({"modelVersion": "gemini-2.5-flash", "candidates": [{"finishReason": "STOP"}],
            "usageMetadata": {"promptTokenCount": 30, "cachedContentTokenCount": 10, "candidatesTokenCount": 6}}),
    ];
    for (provider, flavor, text) in [
        ("openai", "chat", sse(&openai()) + "data: [DONE]\n\n"),
        ("anthropic", "default", sse(&anthropic)),
        ("openai", "responses", sse(&responses)),
        ("google", "default", sse(&google)),
    ] {
        for piece in [1, 7, 100_000] {
            let done = streamed(provider, flavor, &text, piece);
            assert!(done.is_complete, "{provider} {flavor}");
            let of = |class| done.tokens.get(class);
            assert_eq!(
                (
                    of(TokenClass::Input),
                    of(TokenClass::CacheRead),
                    of(TokenClass::Output),
                    done.tokens.source()
                ),
                (20, 10, 6, TokenSource::Reported),
                "{provider} {flavor} by {piece}"
            );
            assert!(done.reported.unwrap().model.is_some());
        }
    }
}

#[test]
fn a_stream_that_is_cut_is_estimated_and_never_free() {
    let all = sse(&openai());
    let mut last = 0;
    for end in 0..all.len() - 200 {
        let cut = streamed("openai", "chat", &all[..end], 64);
        if cut.is_complete {
            break;
        }
        assert_eq!(cut.tokens.source(), TokenSource::Estimated);
        // Two tokens for the question, and what was seen of the answer.
        assert_eq!(cut.tokens.get(TokenClass::Input), 2);
        assert!(cut.tokens.get(TokenClass::Output) >= last, "at byte {end}");
        last = cut.tokens.get(TokenClass::Output);
        assert!(cut.reported.is_err());
    }
    assert_eq!(last, 5);
}

#[test]
fn a_malformed_event_is_told_and_the_rest_is_read() {
    let mut stream = StreamUsage::new(&CATALOGUE, "openai", "chat").unwrap();
    let error = stream.push(b"data: {\"usage\": {\"prompt\n\n").unwrap_err();
    assert_eq!(error.field(), Some("stream"));
    stream.push(sse(&openai()).as_bytes()).unwrap();
    assert_eq!(stream.so_far(&Estimator::default()).total(), 36);
    let done = stream.finish(&Estimator::default(), None);
    assert_eq!((done.is_complete, done.tokens.total()), (true, 36));
    let unknown = StreamUsage::new(&CATALOGUE, "openai", "songs").err().unwrap();
    assert_eq!(unknown.field(), Some("api_flavor"));
}

#[tokio::test]
async fn a_cut_answer_is_recorded_as_incomplete() {
    let tracker = UsageTracker::start(MemoryStore::new()).unwrap();
    let cut = streamed("openai", "chat", &sse(&openai()[..1]), 50);
    let operation = tracker.track(&acme(), EventType::ChatMessage);
    operation.record_failure("cut", Actual::new().tokens(cut.tokens).incomplete()).await.unwrap();
    let query = metertrail::EventQuery::new(acme(), metertrail::TimeRange::ALL);
    let event = tracker.events(&query).await.unwrap().items.remove(0);
    assert_eq!(event.metadata.get("incomplete"), Some(&json!(true)));
    assert_eq!(event.tokens.total(), 5);
    assert_eq!(tracker.usage_today(&acme()).await.unwrap().metrics.tokens_estimated, 5);
}
