//! Clauses 1 and 10: a call that is dropped has done all of its work or none of it.

#![allow(clippy::missing_panics_doc)]

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use chrono::TimeDelta;

use super::model::Model;
use super::sample::{
    append, append_among_others, append_new, event, events, kept, roll_up_all, tenant, the_day, usage,
    with_key,
};
use crate::store::{Appended, Store};
use crate::usage::UsageEvent;

/// Beyond so many polls a call is taken to have an end.
const POLLS_MAX: u32 = 500;

/// An append dropped after any number of polls, and then repeated, counts each event once; in between, all of its events
/// are there or none.
pub async fn a_dropped_append_has_done_all_or_nothing(store: &Arc<dyn Store>) {
    for polls in 0..POLLS_MAX {
        let own = tenant(&format!("tenant-{polls}"));
        let mut batch = events(&own, 6);
        batch[2] = with_key(batch[2].clone(), "key");
        // On a day of its own, so that the store has more to do than on a day that it knows.
        let days = TimeDelta::days(i64::from(polls % 40));
        batch.push(event(&own, the_day().start() + days));
        let done = Polled::new(store.append(&batch, &[]), polls).await;
        // What was dropped may still be on its way: it is there in whole or not at all, now and later.
        let seen = kept(store, &own).await.len();
        assert!(seen == 0 || seen == 7, "{seen} of 7 events after a drop at poll {polls}");
        let (appended, _) = append_among_others(store, &batch).await;
        let alike = |of: Appended| appended.iter().all(|appended| *appended == of);
        assert!(alike(Appended::New) || alike(Appended::Duplicate), "poll {polls}: {appended:?}");
        assert!(seen == 0 || alike(Appended::Duplicate), "poll {polls}: seen and then new");
        check(store, &batch, polls).await;
        if let Some(done) = done {
            assert!(done.is_ok(), "undisturbed, append failed: {done:?}");
            return;
        }
    }
    panic!("append does not end within {POLLS_MAX} polls");
}

/// A roll-up dropped after any number of polls changes no answer, and the next one does the rest.
pub async fn a_dropped_roll_up_changes_no_answer(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut all: Vec<UsageEvent> = Vec::new();
    for polls in 0..POLLS_MAX {
        let batch: Vec<UsageEvent> =
            (0..5).map(|number| event(&acme, the_day().start() + TimeDelta::minutes(number * 20))).collect();
        append_new(store, &batch).await;
        all.extend(batch);
        let done = Polled::new(store.roll_up(100), polls).await;
        assert_eq!(usage(store, &acme).await, Model(&all).usage(&acme, the_day()), "dropped at poll {polls}");
        if let Some(done) = done {
            assert!(done.is_ok(), "undisturbed, roll_up failed: {done:?}");
            roll_up_all(store).await;
            Model(&all).check(store, the_day()).await;
            return;
        }
    }
    panic!("roll_up does not end within {POLLS_MAX} polls");
}

async fn check(store: &Arc<dyn Store>, batch: &[UsageEvent], polls: u32) {
    let Some(first) = batch.first() else { return };
    let own = &first.tenant_id;
    let all = super::sample::all_time();
    assert_eq!(usage(store, own).await, Model(batch).usage(own, all), "dropped at poll {polls}");
    let query = crate::usage::EventQuery::new(own.clone(), all);
    assert_eq!(kept(store, own).await, Model(batch).events(&query), "dropped at poll {polls}");
    assert!(append(store, batch).await.iter().all(|appended| *appended == Appended::Duplicate));
}

/// Gives up a call that is not done after some polls.
pub(super) struct Polled<'a, T> {
    call: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    left: u32,
}

impl<'a, T> Polled<'a, T> {
    pub(super) fn new(call: Pin<Box<dyn Future<Output = T> + Send + 'a>>, left: u32) -> Self {
        Self { call, left }
    }
}

impl<T> Future for Polled<'_, T> {
    type Output = Option<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        match self.call.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            // Not to be polled again, it need not wake anybody.
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}
