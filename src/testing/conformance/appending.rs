//! Clauses 1, 3 and 5: an event that is appended is kept and counted, once, however often that is done.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::TimeDelta;
use tokio::task::JoinSet;

use super::sample::{
    Dice, again, append, append_among_others, append_new, at, changed, event, events, kept, roll_up_all,
    tenant, usage, with_key,
};
use crate::TenantId;
use crate::store::{Appended, Store};
use crate::usage::{Outcome, UsageEvent};

const CALLERS: u64 = 8;

/// An empty batch is allowed and does nothing.
pub async fn an_empty_batch_is_allowed(store: &Arc<dyn Store>) {
    assert_eq!(append(store, &[]).await, []);
    assert!(usage(store, &tenant("acme")).await.is_empty());
}

/// What is appended is found among the events and counted in the metrics.
pub async fn appended_events_are_found_and_counted(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let batch = events(&acme, 100);
    append_new(store, &batch[..1]).await;
    append_new(store, &batch[1..]).await;
    check(store, &acme, &batch).await;
}

/// The answers are in the order of the batch, whatever order the store works in.
pub async fn answers_come_in_the_order_given(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let all = events(&acme, 60);
    append_new(store, &all[..40]).await;
    let mut dice = Dice::new(1);
    let mut expected: Vec<(UsageEvent, Appended)> = Vec::new();
    for (position, event) in all.iter().enumerate() {
        expected.push(match position {
            0..20 => (event.clone(), Appended::Duplicate),
            20..40 => (changed(event, |event| event.outcome = Outcome::Abandoned), Appended::Conflict),
            _ => (event.clone(), Appended::New),
        });
    }
    dice.shuffle(&mut expected);
    let (batch, expected): (Vec<UsageEvent>, Vec<Appended>) = expected.into_iter().unzip();
    assert_eq!(append(store, &batch).await, expected);
    check(store, &acme, &all).await;
}

/// The same event twice in one batch is new and then a duplicate.
pub async fn a_duplicate_in_one_batch_counts_once(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let batch = events(&acme, 3);
    let twice: Vec<UsageEvent> = batch.iter().chain(batch.iter().rev()).cloned().collect();
    let expected = [[Appended::New; 3], [Appended::Duplicate; 3]].concat();
    assert_eq!(append(store, &twice).await, expected);
    check(store, &acme, &batch).await;
}

/// The same batch again is all duplicates, and an event beside them is new.
pub async fn a_duplicate_in_another_batch_counts_once(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let batch = events(&acme, 10);
    append_new(store, &batch[..9]).await;
    assert_eq!(append(store, &batch[..9]).await, [Appended::Duplicate; 9]);
    let answers = append(store, &batch).await;
    assert_eq!((&answers[..9], answers[9]), (&[Appended::Duplicate; 9][..], Appended::New));
    check(store, &acme, &batch).await;
}

/// Rolling up does not make a store forget which events it has.
pub async fn a_duplicate_of_a_rolled_up_event_counts_once(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut batch = events(&acme, 10);
    batch[3] = with_key(batch[3].clone(), "key");
    append_new(store, &batch).await;
    roll_up_all(store).await;
    assert_eq!(append(store, &batch).await, [Appended::Duplicate; 10]);
    let retry = again(&batch[3], at("2026-03-01T23:00:00Z"));
    assert_eq!(append(store, &[retry]).await, [Appended::Duplicate]);
    check(store, &acme, &batch).await;
}

/// An event of a known key whose payload is the same is a duplicate, though its id, start and latency are its own.
pub async fn a_duplicate_by_key_may_have_another_id_start_and_latency(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let first = with_key(event(&acme, at("2026-03-01T10:00:00Z")), "order-7");
    append_new(store, std::slice::from_ref(&first)).await;
    for (seconds, latency_us) in [(1, None), (3_600, Some(5)), (-7_200, Some(9_999_999))] {
        let mut retry = again(&first, first.occurred_at() + TimeDelta::seconds(seconds));
        retry.latency = latency_us.map(super::sample::latency_us);
        assert_eq!(append(store, &[retry]).await, [Appended::Duplicate], "{seconds} s later");
    }
    check(store, &acme, &[first]).await;
}

/// A retry after midnight, a month or years later still meets its first copy.
pub async fn a_duplicate_by_key_is_found_on_another_day(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let first = with_key(event(&acme, at("2026-02-28T23:59:59.999999Z")), "order-7");
    append_new(store, std::slice::from_ref(&first)).await;
    for other in
        ["2026-03-01T00:00:00Z", "2026-04-15T12:00:00Z", "2031-01-01T00:00:00Z", "2019-05-05T05:05:05Z"]
    {
        let retry = again(&first, at(other));
        assert_eq!(append(store, &[retry]).await, [Appended::Duplicate], "at {other}");
    }
    check(store, &acme, &[first]).await;
}

/// Two attempts of one key in one batch are new and a duplicate, beside others.
pub async fn a_duplicate_by_key_in_one_batch_counts_once(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let first = with_key(event(&acme, at("2026-03-01T10:00:00Z")), "order-7");
    let retry = again(&first, at("2026-03-02T10:00:00Z"));
    let other = event(&acme, at("2026-03-01T11:00:00Z"));
    let answers = append(store, &[first.clone(), other.clone(), retry]).await;
    assert_eq!(answers, [Appended::New, Appended::New, Appended::Duplicate]);
    check(store, &acme, &[first, other]).await;
}

/// Callers at once with overlapping batches, each in its own order: each event is new to exactly one of them.
pub async fn callers_at_once_count_each_event_once(store: &Arc<dyn Store>) {
    let tenants = [tenant("acme"), tenant("globex")];
    let mut all: Vec<UsageEvent> = tenants.iter().flat_map(|tenant_id| events(tenant_id, 100)).collect();
    for (number, event) in (0..).zip(&mut all).step_by(3) {
        *event = with_key(event.clone(), &format!("key-{number}"));
    }
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (store, mut own) = (Arc::clone(store), all.clone());
        let mut dice = Dice::new(caller);
        dice.shuffle(&mut own);
        callers.spawn(async move {
            let mut answers = Vec::new();
            for batch in own.chunks(50) {
                let (appended, at_once) = append_among_others(&store, batch).await;
                answers.extend(
                    batch.iter().cloned().zip(appended).map(|(event, appended)| (event, appended, at_once)),
                );
            }
            answers
        });
    }
    let answers: Vec<(UsageEvent, Appended, bool)> = callers.join_all().await.into_iter().flatten().collect();
    for event in &all {
        let of_event = |answer: &&(UsageEvent, Appended, bool)| {
            (&answer.0.tenant_id, answer.0.id()) == (&event.tenant_id, event.id())
        };
        let own: Vec<&(UsageEvent, Appended, bool)> = answers.iter().filter(of_event).collect();
        assert!(
            own.iter().all(|answer| answer.1 != Appended::Conflict),
            "a conflict of equal events: {own:?}"
        );
        once(own.into_iter().map(|answer| (answer.1, answer.2)), event);
    }
    for tenant_id in &tenants {
        let own: Vec<UsageEvent> =
            all.iter().filter(|event| event.tenant_id == *tenant_id).cloned().collect();
        check(store, tenant_id, &own).await;
    }
}

/// Callers at once that each make their own event for the same keys: each key counts once.
pub async fn callers_at_once_count_each_key_once(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let first: Vec<UsageEvent> = (0..)
        .zip(events(&acme, 50))
        .map(|(number, event)| with_key(event, &format!("key-{number}")))
        .collect();
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let store = Arc::clone(store);
        // Some callers come after midnight.
        let later = TimeDelta::hours(if caller % 2 == 0 { 0 } else { 24 });
        let mut own: Vec<UsageEvent> =
            first.iter().map(|event| again(event, event.occurred_at() + later)).collect();
        Dice::new(caller).shuffle(&mut own);
        callers.spawn(async move {
            let (appended, at_once) = append_among_others(&store, &own).await;
            own.into_iter()
                .zip(appended)
                .map(|(event, appended)| (event, appended, at_once))
                .collect::<Vec<_>>()
        });
    }
    let answers: Vec<(UsageEvent, Appended, bool)> = callers.join_all().await.into_iter().flatten().collect();
    for event in &first {
        let own = answers.iter().filter(|answer| answer.0.idempotency_key == event.idempotency_key);
        once(own.map(|answer| (answer.1, answer.2)), event);
    }
    let metrics = usage(store, &acme).await;
    assert_eq!((metrics.calls, metrics.tokens_total()), (50, 50 * 15));
    assert_eq!(kept(store, &acme).await.len(), 50);
}

/// Exactly one caller was told that the event is new. One whose first try failed may not know that it was.
fn once(answers: impl Iterator<Item = (Appended, bool)>, event: &UsageEvent) {
    let answers: Vec<(Appended, bool)> = answers.collect();
    let new = answers.iter().filter(|(appended, _)| *appended == Appended::New).count();
    let all_at_once = answers.iter().all(|(_, at_once)| *at_once);
    assert!(new == 1 || (new == 0 && !all_at_once), "new to {new} callers: {event:?}: {answers:?}");
}

/// These events and no others of the tenant are kept and counted.
async fn check(store: &Arc<dyn Store>, tenant_id: &TenantId, events: &[UsageEvent]) {
    let model = super::model::Model(events);
    let all = super::sample::all_time();
    assert_eq!(usage(store, tenant_id).await, model.usage(tenant_id, all), "the metrics of {tenant_id:?}");
    let query = crate::usage::EventQuery::new(tenant_id.clone(), all);
    assert_eq!(kept(store, tenant_id).await, model.events(&query), "the events of {tenant_id:?}");
}
