//! Clause 5, and what rolling up must not change.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use chrono::TimeDelta;
use tokio::task::JoinSet;

use super::model::Model;
use super::sample::{
    Dice, append_among_others, append_new, at, between, event, events, must, roll_up_all,
    roll_up_among_others, tenant, the_day, usage,
};
use crate::store::Store;
use crate::usage::UsageEvent;

/// A read that begins after an append has succeeded includes it, rolled up or not, or in part.
pub async fn an_append_is_seen_before_and_after_a_roll_up(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let all = events(&acme, 30);
    for (position, batch) in all.chunks(5).enumerate() {
        append_new(store, batch).await;
        let model = Model(&all[..(position + 1) * 5]);
        model.check(store, the_day()).await;
        if position % 2 == 0 {
            roll_up_all(store).await;
            model.check(store, the_day()).await;
        }
    }
}

/// Whoever has appended sees that at once, while others append and roll up.
pub async fn an_append_is_seen_between_roll_ups_at_once(store: &Arc<dyn Store>) {
    let stopped = Arc::new(AtomicBool::new(false));
    let mut others = JoinSet::new();
    for _ in 0..2 {
        let (store, stopped) = (Arc::clone(store), Arc::clone(&stopped));
        others.spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                roll_up_among_others(&store, 3).await;
                tokio::task::yield_now().await;
            }
        });
    }
    let mut callers = JoinSet::new();
    for caller in 0..4 {
        let store = Arc::clone(store);
        callers.spawn(async move {
            let own = tenant(&format!("tenant-{caller}"));
            let all = events(&own, 60);
            for (calls, batch) in (1..).zip(all.chunks(2)) {
                append_among_others(&store, batch).await;
                assert_eq!(usage(&store, &own).await.calls, calls * 2, "{own:?} after its append");
            }
        });
    }
    callers.join_all().await;
    stopped.store(true, Ordering::Relaxed);
    others.join_all().await;
}

/// With nothing to do, a roll-up does nothing and says so.
pub async fn a_roll_up_of_nothing_is_zero(store: &Arc<dyn Store>) {
    assert_eq!(must("roll_up", store.roll_up(1_000).await), 0);
    assert!(usage(store, &tenant("acme")).await.is_empty());
}

/// However often it is called: no answer changes, and in the end there is nothing left to do.
pub async fn a_roll_up_changes_no_answer_and_ends_at_zero(store: &Arc<dyn Store>) {
    let all = some_events(2);
    for batch in all.chunks(37) {
        append_new(store, batch).await;
    }
    Model(&all).check(store, the_day()).await;
    roll_up_all(store).await;
    Model(&all).check(store, the_day()).await;
    assert_eq!(must("roll_up", store.roll_up(1_000).await), 0, "what was at zero stays there");
    Model(&all).check(store, the_day()).await;
}

/// A step at a time it also comes to its end, and every step leaves all answers as they were.
pub async fn a_roll_up_in_single_steps_ends_at_zero(store: &Arc<dyn Store>) {
    let all = some_events(3);
    for batch in all.chunks(50) {
        append_new(store, batch).await;
    }
    let mut steps = 0;
    while must("roll_up", store.roll_up(1).await) > 0 {
        steps += 1;
        assert!(steps < 10_000, "roll_up never came to zero");
        Model(&all).check_summary(store, the_day()).await;
    }
    Model(&all).check(store, the_day()).await;
}

/// Roll-ups at once fold everything once.
pub async fn roll_ups_at_once_change_no_answer(store: &Arc<dyn Store>) {
    let all = some_events(4);
    for batch in all.chunks(10) {
        append_new(store, batch).await;
    }
    let mut callers = JoinSet::new();
    for _ in 0..6 {
        let store = Arc::clone(store);
        callers.spawn(async move { while roll_up_among_others(&store, 5).await > 0 {} });
    }
    callers.join_all().await;
    Model(&all).check(store, the_day()).await;
    roll_up_all(store).await;
    Model(&all).check(store, the_day()).await;
}

/// An event of a time that was rolled up long ago counts in that time.
pub async fn late_events_are_counted_where_they_belong(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let range = between(at("2026-02-01T00:00:00Z"), at("2026-03-02T00:00:00Z"));
    let mut all = events(&acme, 5);
    append_new(store, &all).await;
    roll_up_all(store).await;
    for days in [1, 0, 27, 13] {
        let late = event(&acme, range.start() + TimeDelta::days(days) + TimeDelta::minutes(7));
        append_new(store, std::slice::from_ref(&late)).await;
        all.push(late);
        Model(&all).check(store, range).await;
        roll_up_all(store).await;
        Model(&all).check(store, range).await;
    }
}

/// Events of three tenants with anything in them.
fn some_events(seed: u64) -> Vec<UsageEvent> {
    let mut dice = Dice::new(seed);
    let tenants = ["acme", "globex", "initech"].map(tenant);
    let mut event = |number: usize| dice.event(&tenants[number % 3], the_day());
    (0..150).map(&mut event).collect()
}
