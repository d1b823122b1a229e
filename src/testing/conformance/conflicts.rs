//! Clause 4: the first event of an id or an idempotency key stands.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::TimeDelta;
use rust_decimal::Decimal;
use serde_json::json;
use tokio::task::JoinSet;

use super::sample::{
    again, append, append_among_others, append_new, at, changed, cost, event, events, full_event, kept,
    label, latency_us, must, tenant, usage, with_key,
};
use crate::store::{Appended, Store};
use crate::usage::{
    ErrorMessage, EventType, Measures, Metadata, Outcome, StatusCode, TokenClass, UsageEvent, UsageMetrics,
};

/// An event of a known id that says something else is a conflict: the first stays and is counted, the second is not.
pub async fn a_conflict_by_id_leaves_the_first_as_it_is(store: &Arc<dyn Store>) {
    let first = event(&tenant("acme"), at("2026-03-01T10:00:00Z"));
    append_new(store, std::slice::from_ref(&first)).await;
    let second = changed(&first, |event| event.outcome = Outcome::Failure);
    assert_eq!(append(store, &[second]).await, [Appended::Conflict]);
    only(store, &first).await;
}

/// An event of a known key that says something else is a conflict, also on another day.
pub async fn a_conflict_by_key_leaves_the_first_as_it_is(store: &Arc<dyn Store>) {
    let first = with_key(event(&tenant("acme"), at("2026-03-01T10:00:00Z")), "order-7");
    append_new(store, std::slice::from_ref(&first)).await;
    for other in ["2026-03-01T10:00:01Z", "2026-03-02T10:00:00Z"] {
        let second = changed(&again(&first, at(other)), |event| event.outcome = Outcome::Failure);
        assert_eq!(append(store, &[second]).await, [Appended::Conflict], "at {other}");
    }
    only(store, &first).await;
}

/// Of two events of one id or one key in one batch the first is new and the second a conflict; the rest is kept.
pub async fn a_conflict_in_one_batch_leaves_the_first_and_the_rest(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let some = events(&acme, 4);
    let keyed = with_key(some[2].clone(), "order-7");
    let batch = [
        some[0].clone(),
        some[1].clone(),
        changed(&some[1], |event| event.outcome = Outcome::Failure),
        keyed.clone(),
        changed(&again(&keyed, keyed.occurred_at()), |event| event.outcome = Outcome::Failure),
        some[3].clone(),
    ];
    let (new, conflict) = (Appended::New, Appended::Conflict);
    assert_eq!(append(store, &batch).await, [new, new, conflict, new, conflict, new]);
    let newest_first = [some[3].clone(), keyed, some[1].clone(), some[0].clone()];
    assert_eq!(kept(store, &acme).await, newest_first);
    assert_eq!((usage(store, &acme).await.calls, usage(store, &acme).await.failures), (4, 0));
}

/// Whatever differs, be it the smallest thing, is another payload; nothing at all is a duplicate.
pub async fn every_part_of_the_payload_can_conflict(store: &Arc<dyn Store>) {
    let first = full_event(&tenant("acme"));
    append_new(store, std::slice::from_ref(&first)).await;
    assert_eq!(append(store, std::slice::from_ref(&first)).await, [Appended::Duplicate]);
    for (part, second) in changes(&first) {
        assert_eq!(append(store, &[second]).await, [Appended::Conflict], "{part} by id");
    }
    let retry = again(&first, at("2026-03-05T00:00:00Z"));
    assert_eq!(append(store, std::slice::from_ref(&retry)).await, [Appended::Duplicate]);
    for (part, second) in changes(&retry).into_iter().filter(|(part, _)| *part != "idempotency_key") {
        assert_eq!(append(store, &[second]).await, [Appended::Conflict], "{part} by key");
    }
    only(store, &first).await;
}

/// Without a key, start (below the millisecond that the id fixes) and latency belong to the payload.
pub async fn start_and_latency_conflict_without_a_key(store: &Arc<dyn Store>) {
    let mut first = event(&tenant("acme"), at("2026-03-01T10:00:00.000100Z"));
    first.latency = Some(latency_us(1_000));
    append_new(store, std::slice::from_ref(&first)).await;
    let microsecond_later = UsageEvent::from_stored(
        first.tenant_id.clone(),
        first.id(),
        first.event_type.clone(),
        first.outcome,
        first.occurred_at() + TimeDelta::microseconds(1),
    );
    let mut other_start = must("making an event", microsecond_later);
    (other_start.tokens, other_start.latency) = (first.tokens, first.latency);
    let others = [
        other_start,
        changed(&first, |event| event.latency = None),
        changed(&first, |event| event.latency = Some(latency_us(1_001))),
    ];
    for second in others {
        assert_eq!(append(store, std::slice::from_ref(&second)).await, [Appended::Conflict], "{second:?}");
    }
    only(store, &first).await;
}

/// A key that came with a conflict belongs to nobody and can be taken later.
pub async fn a_conflict_does_not_take_its_key(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let first = event(&acme, at("2026-03-01T10:00:00Z"));
    let second = with_key(first.clone(), "order-7");
    let third = with_key(event(&acme, at("2026-03-01T11:00:00Z")), "order-7");
    append_new(store, std::slice::from_ref(&first)).await;
    assert_eq!(append(store, std::slice::from_ref(&second)).await, [Appended::Conflict]);
    assert_eq!(append(store, std::slice::from_ref(&third)).await, [Appended::New]);
    assert_eq!(append(store, &[again(&third, first.occurred_at())]).await, [Appended::Duplicate]);
    assert_eq!(kept(store, &acme).await, [third, first]);
}

/// As in three batches, so in one.
pub async fn a_conflict_does_not_take_its_key_in_one_batch(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let first = event(&acme, at("2026-03-01T10:00:00Z"));
    let second = with_key(first.clone(), "order-7");
    let third = with_key(event(&acme, at("2026-03-01T11:00:00Z")), "order-7");
    let fourth = again(&third, at("2026-03-02T12:00:00Z"));
    let answers = append(store, &[first.clone(), second, third.clone(), fourth]).await;
    assert_eq!(answers, [Appended::New, Appended::Conflict, Appended::New, Appended::Duplicate]);
    assert_eq!(kept(store, &acme).await, [third, first]);
    assert_eq!(usage(store, &acme).await.calls, 2);
}

/// Callers at once that say different things under one id and one key: the one that is told "new" is the one kept.
pub async fn callers_at_once_agree_on_who_was_first(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    for round in 0..10 {
        let by_id = event(&acme, at("2026-03-01T10:00:00Z") + TimeDelta::minutes(round));
        let by_key = with_key(
            event(&acme, at("2026-03-02T10:00:00Z") + TimeDelta::minutes(round)),
            &format!("key-{round}"),
        );
        let mut callers = JoinSet::new();
        for caller in 0_u16..6 {
            let store = Arc::clone(store);
            let status = must("making a status code", StatusCode::new(200 + caller));
            let say = |event: &mut UsageEvent| event.status_code = Some(status);
            let batch = [changed(&by_id, say), changed(&again(&by_key, by_key.occurred_at()), say)];
            callers.spawn(async move { (append_among_others(&store, &batch).await.0, batch) });
        }
        let told = callers.join_all().await;
        let kept = kept(store, &acme).await;
        for position in [0, 1] {
            let new: Vec<&UsageEvent> = told
                .iter()
                .filter(|(answers, _)| answers[position] == Appended::New)
                .map(|(_, batch)| &batch[position])
                .collect();
            let [first] = new[..] else { panic!("new to {} callers of {told:?}", new.len()) };
            assert!(kept.contains(first), "told new and not kept: {first:?}");
        }
    }
    assert_eq!(kept(store, &acme).await.len(), 20);
    assert_eq!(usage(store, &acme).await.calls, 20);
}

/// This event is the only one of its tenant.
async fn only(store: &Arc<dyn Store>, event: &UsageEvent) {
    assert_eq!(kept(store, &event.tenant_id).await, std::slice::from_ref(event));
    let mut expected = UsageMetrics::default();
    expected.add(event);
    assert_eq!(usage(store, &event.tenant_id).await, expected);
}

/// Copies of an event that each differ in one thing, with its name.
fn changes(first: &UsageEvent) -> Vec<(&'static str, UsageEvent)> {
    let mut changes = Vec::new();
    let mut add = |part, change: &dyn Fn(&mut UsageEvent)| changes.push((part, changed(first, change)));
    add("event_type", &|event| event.event_type = EventType::Search);
    add("outcome", &|event| event.outcome = Outcome::Success);
    for class in TokenClass::ALL {
        add(class.as_str(), &|event| {
            event.tokens = must("making tokens", event.tokens.with(class, event.tokens.get(class) + 1));
            event.tokens = event.tokens.into_estimated();
        });
    }
    add("token source", &|event| {
        let reported =
            TokenClass::ALL.into_iter().try_fold(crate::usage::TokenUsage::NONE, |tokens, class| {
                tokens.with(class, event.tokens.get(class))
            });
        event.tokens = must("making tokens", reported);
    });
    add("status_code", &|event| event.status_code = None);
    add("cost", &|event| event.cost = None);
    add("cost to the pico-dollar", &|event| event.cost = Some(cost(Decimal::new(1_234_567_890_124, 12))));
    add("model", &|event| event.model = Some(label("GPT-4o")));
    add("provider", &|event| event.provider = None);
    add("session_id", &|event| event.session_id = Some(label("session 2")));
    add("user_id", &|event| event.user_id = None);
    add("idempotency_key", &|event| event.idempotency_key = None);
    add("measures", &|event| event.measures = Measures::default());
    add("metadata", &|event| event.metadata = Metadata::default());
    add("metadata deep inside", &|event| {
        event.metadata =
            must("making metadata", Metadata::new(json!({"a": [1, null, false], "b": {"c": "d"}})));
    });
    add("error_message", &|event| event.error_message = Some(ErrorMessage::new("another")));
    changes
}
