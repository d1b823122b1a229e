//! What goes in comes out: every field, every text, every number.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use rust_decimal::Decimal;
use serde_json::{Value, json};

use super::sample::{
    Dice, append, append_new, at, event, events, full_event, kept, label, must, roll_up_all, tenant, the_day,
    usage,
};
use crate::store::{Appended, Store};
use crate::usage::{
    ERROR_MESSAGE_BYTES_MAX, ErrorMessage, EventQuery, METADATA_BYTES_MAX, METADATA_DEPTH_MAX, Measure,
    Measures, Metadata, TopConsumersQuery, UsageEvent, UsageMetrics,
};
use crate::{LABEL_BYTES_MAX, TENANT_ID_BYTES_MAX, TenantId};

/// Texts that mean something to SQL, JSON, arrays, COPY, LIKE, shells and terminals, and to nobody else.
const HOSTILE: [&str; 16] = [
    "'",
    "''; DROP TABLE events; --",
    "\"quoted\"",
    "back\\slash\\n\\.",
    "$1 $$ $tag$",
    "{a,b}",
    "{\"a\": null}",
    "NULL",
    "\\N",
    "%_%",
    "a\u{2028}b",
    "comma, semicolon; tab",
    "\u{202e}right to left",
    "日本語 \u{1F468}\u{200D}\u{1F469}\u{200D}\u{1F467}",
    "e\u{301} is not \u{e9}",
    "</script><!--",
];

/// An event in which everything is set comes back equal, and so does one in which nothing is.
pub async fn every_field_comes_back_as_it_was_given(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let full = full_event(&acme);
    let mut bare = event(&acme, the_day().start());
    bare.tokens = crate::usage::TokenUsage::NONE;
    append_new(store, &[full.clone(), bare.clone()]).await;
    assert_eq!(kept(store, &acme).await, [full.clone(), bare.clone()]);
    roll_up_all(store).await;
    assert_eq!(kept(store, &acme).await, [full.clone(), bare.clone()]);
    assert_eq!(append(store, &[full, bare]).await, [Appended::Duplicate; 2]);
}

/// In every text field: kept letter by letter, compared letter by letter, never run.
pub async fn strings_are_data_and_never_code(store: &Arc<dyn Store>) {
    let mut all = Vec::new();
    for text in HOSTILE {
        let own = tenant(text);
        let mut event = full_event(&own);
        for field in [&mut event.model, &mut event.provider, &mut event.session_id, &mut event.user_id] {
            *field = Some(label(text));
        }
        event.idempotency_key = Some(label(text));
        event.measures = must("making measures", Measures::default().with(text, Decimal::ONE));
        event.metadata = must("making metadata", Metadata::new(json!({text: [text, {text: text}]})));
        event.error_message = Some(ErrorMessage::new(text));
        all.push(event);
    }
    append_new(store, &all).await;
    assert_eq!(append(store, &all).await, [Appended::Duplicate; 16]);
    for event in &all {
        check(store, event).await;
        let [measure] = &event.measures.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>()[..] else {
            panic!("an event of one measure has more");
        };
        let query = TopConsumersQuery::new(Measure::Custom(measure.clone()), the_day(), 10);
        let top = must("top_consumers", store.top_consumers(&must("making a query", query)).await);
        assert_eq!(top.iter().map(|consumer| &consumer.tenant_id).collect::<Vec<_>>(), [&event.tenant_id]);
    }
}

/// Ids, labels, keys, messages and metadata of the greatest length, in letters of one byte and of four.
pub async fn the_longest_texts_are_kept(store: &Arc<dyn Store>) {
    for letter in ["x", "é", "\u{1F600}", "'", "\\"] {
        let longest = |bytes: usize| letter.repeat(bytes / letter.len());
        let mut event = full_event(&tenant(&longest(TENANT_ID_BYTES_MAX)));
        let text = label(&longest(LABEL_BYTES_MAX));
        for field in [&mut event.model, &mut event.provider, &mut event.session_id, &mut event.user_id] {
            *field = Some(text.clone());
        }
        event.idempotency_key = Some(text.clone());
        event.measures = Measures::default();
        for number in 0..16_u8 {
            let name = format!("{number:02}{}", longest(LABEL_BYTES_MAX - 4));
            event.measures = must("making measures", event.measures.with(name, Decimal::from(number)));
        }
        event.error_message = Some(ErrorMessage::new(longest(ERROR_MESSAGE_BYTES_MAX)));
        event.metadata =
            must("making metadata", Metadata::new(json!({"text": "x".repeat(METADATA_BYTES_MAX - 11)})));
        append_new(store, std::slice::from_ref(&event)).await;
        assert_eq!(append(store, std::slice::from_ref(&event)).await, [Appended::Duplicate], "of {letter:?}");
        check(store, &event).await;
    }
}

/// Numbers at the ends of their types, whole ones written as fractions, and those that no integer type holds.
pub async fn metadata_numbers_come_back(store: &Arc<dyn Store>) {
    let numbers = [
        "0",
        "-0.0",
        "0.0",
        "1.0",
        "1e0",
        "-1",
        "0.1",
        "1e-7",
        "-1e-7",
        "1.5e300",
        "-1.5e-300",
        "1e15",
        "1e16",
        "1e21",
        "1e22",
        "1e23",
        "123456789012345678",
        "123456789012345680000000",
        "1.7976931348623157e308",
        "-1.7976931348623157e308",
        "2.2250738585072014e-308",
        "5e-324",
        "0.30000000000000004",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807",
        "-9223372036854775808",
        "-9223372036854775809",
        "9007199254740993",
        "3.141592653589793",
    ];
    let mut lost = Vec::new();
    for text in numbers {
        let number: Value =
            serde_json::from_str(text).unwrap_or_else(|error| panic!("{text} is no number: {error}"));
        // A tenant each: one number that cannot be read back must not hide the others.
        let mut event = event(&tenant(text), the_day().start());
        let metadata = Metadata::new(json!({"number": number, "inside": [[number]]}));
        event.metadata = must("making metadata", metadata);
        let first = store.append(std::slice::from_ref(&event), &[]).await;
        let read = store.events(&EventQuery::new(event.tenant_id.clone(), the_day())).await;
        let second = store.append(std::slice::from_ref(&event), &[]).await;
        let is_kept = read.as_ref().is_ok_and(|page| page.items == [event]);
        let is_new = first.as_ref().is_ok_and(|answers| *answers == [Appended::New]);
        let is_known = second.as_ref().is_ok_and(|answers| *answers == [Appended::Duplicate]);
        if !is_new || !is_kept || !is_known {
            lost.push((text, first, read.map(|page| page.items), second));
        }
    }
    assert!(lost.is_empty(), "numbers that do not come back: {lost:#?}");
}

/// Fractions come back to the last bit, such as scores and probabilities have by the thousand, and doubles of any size.
pub async fn metadata_fractions_come_back(store: &Arc<dyn Store>) {
    let mut dice = Dice::new(19);
    for (name, any) in [("scores", false), ("doubles", true)] {
        let mut all = events(&tenant(name), 40);
        for event in &mut all {
            let numbers: Vec<f64> =
                (0..50).map(|_| if any { dice.double() } else { dice.fraction() }).collect();
            event.metadata = must("making metadata", Metadata::new(json!({"numbers": numbers})));
        }
        append_new(store, &all).await;
        let again = append(store, &all).await;
        all.reverse();
        let lost: Vec<String> = kept(store, &tenant(name))
            .await
            .iter()
            .zip(&all)
            .filter(|(kept, given)| kept.metadata != given.metadata)
            .map(|(kept, given)| different_numbers(&kept.metadata, &given.metadata))
            .collect();
        assert!(lost.is_empty(), "{name} of {} of 40 events are others: {}", lost.len(), lost[0]);
        assert_eq!(again, [Appended::Duplicate; 40], "{name}");
    }
}

/// Objects and arrays to the deepest level, empty ones, and keys of every kind.
pub async fn nested_metadata_comes_back(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    // The object itself is level 0.
    let deepest =
        |wrap: &dyn Fn(Value) -> Value| (1..METADATA_DEPTH_MAX).fold(json!("bottom"), |value, _| wrap(value));
    let values = [
        json!({}),
        json!({"": ""}),
        json!({"a": {}, "b": [], "c": [[], {}, ""], "d": null}),
        json!({"list": deepest(&|value| json!([value]))}),
        json!({"map": deepest(&|value| json!({"x": value}))}),
        json!({"z": 1, "a": 2, "aa": 3, "Z": 4, "é": 5, "10": 6, "9": 7}),
        json!({"line\nbreak\ttab\r\u{7f}\u{1}": "line\nbreak\ttab\r\u{7f}\u{1}"}),
        json!({"true": true, "false": false, "null": null, "text": "true"}),
    ];
    let mut all = events(&acme, 8);
    for (event, value) in all.iter_mut().zip(values) {
        event.metadata = must("making metadata", Metadata::new(value));
    }
    append_new(store, &all).await;
    assert_eq!(append(store, &all).await, [Appended::Duplicate; 8]);
    all.reverse();
    assert_eq!(kept(store, &acme).await, all);
    assert_eq!(at("2026-03-01T00:00:07Z"), all[0].occurred_at());
}

fn different_numbers(kept: &Metadata, given: &Metadata) -> String {
    let numbers = |metadata: &Metadata| match metadata.get("numbers") {
        Some(Value::Array(numbers)) => numbers.clone(),
        _ => Vec::new(),
    };
    let pairs = numbers(kept).into_iter().zip(numbers(given)).filter(|(kept, given)| kept != given);
    pairs.map(|(kept, given)| format!("{given} became {kept}")).collect::<Vec<_>>().join("; ")
}

/// The event is the only one of its tenant, is found under its id, and counted.
async fn check(store: &Arc<dyn Store>, event: &UsageEvent) {
    let own: &TenantId = &event.tenant_id;
    assert_eq!(kept(store, own).await, std::slice::from_ref(event));
    let mut expected = UsageMetrics::default();
    expected.add(event);
    assert_eq!(usage(store, own).await, expected, "the metrics of {own:?}");
}
