//! Calls that are given up at every await point.

use std::pin::Pin;
use std::task::{Context, Poll};

use metertrail::TokenUsage;
use metertrail::testing::{Fault, FaultyStore, Method};

use super::*;

on_both_stores! {
    an_enforce_dropped_at_any_poll_holds_nothing,
    an_operation_dropped_at_any_poll_holds_nothing,
    a_wait_behind_another_can_be_given_up,
}

const POLLS_MAX: u32 = 500;

/// Polls a future so many times at most, and then drops it.
struct Polled<'a, T> {
    call: Pin<Box<dyn Future<Output = T> + Send + 'a>>,
    left: u32,
}

impl<'a, T> Polled<'a, T> {
    fn new(call: impl Future<Output = T> + Send + 'a, left: u32) -> Self {
        Self { call: Box::pin(call), left }
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
            Poll::Pending if self.left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    }
}

async fn an_enforce_dropped_at_any_poll_holds_nothing(bed: Bed) {
    let limits = [hard(Quota::Tokens, 100), hard(Quota::ApiCalls, 10)];
    let amounts = [(Quota::Tokens, 60), (Quota::ApiCalls, 6)];
    for polls in 0..POLLS_MAX {
        // A new enforcer and a new day each time, so that all is to be asked for.
        bed.clock.advance(Duration::from_secs(24 * 60 * 60));
        let quotas = bed.quotas(catalogue(limits.clone()));
        let done = Polled::new(quotas.enforce_multiple(&acme(), &amounts), polls).await;
        if let Some(done) = done {
            assert!(done.unwrap().is_allowed(), "undisturbed");
            assert!(polls > 0);
            return;
        }
        let all = [(Quota::Tokens, 100), (Quota::ApiCalls, 10)];
        // What was dropped may still be on its way in the store.
        let mut tries = 0;
        let all = loop {
            let decision = quotas.enforce_multiple(&acme(), &all).await.unwrap();
            if decision.is_allowed() || tries > 100 {
                break decision;
            }
            tries += 1;
            bed.clock.advance(Duration::from_millis(300));
        };
        assert!(all.is_allowed(), "dropped at poll {polls}: {all}");
        drop(all);
        for quota in [Quota::Tokens, Quota::ApiCalls] {
            let seen = view(&quotas, &quota).await;
            assert_eq!((seen.held, seen.used), (0, 0), "dropped at poll {polls}: {seen:?}");
        }
    }
    panic!("enforce does not end within {POLLS_MAX} polls");
}

async fn an_operation_dropped_at_any_poll_holds_nothing(bed: Bed) {
    for polls in 0..POLLS_MAX {
        bed.clock.advance(Duration::from_secs(24 * 60 * 60));
        let quotas = bed.quotas(tokens(100));
        let tracker = bed.tracker(&quotas);
        let handler = async {
            let held = hold(&quotas, 60).await;
            let operation = tracker.track(&acme(), EventType::ChatMessage).hold(held);
            tokio::task::yield_now().await;
            operation.record_success(TokenUsage::total_only(50).unwrap()).await
        };
        let done = Polled::new(handler, polls).await.is_some();
        tracker.track(&acme(), EventType::Search).record_rate_limit().await.unwrap();
        // What was dropped was before it in the buffer, but may be on its way in another batch, at the same time.
        crate::ledger::until("all is written", async || tracker.health().pending == 0).await;
        let seen = view(&quotas, &Quota::Tokens).await;
        let used = seen.used;
        assert!(matches!(used, 0 | 50 | 60), "dropped at poll {polls}: {used}");
        let rest = admitted_soon(&bed, &quotas, 100 - used).await;
        assert_eq!(rest.amount_of(&Quota::Tokens), 100 - used, "dropped at poll {polls}");
        drop(rest);
        let seen = view(&quotas, &Quota::Tokens).await;
        assert_eq!((seen.held, seen.used), (0, used), "dropped at poll {polls}: {seen:?}");
        if done {
            assert_eq!(used, 50);
            return;
        }
    }
    panic!("the handler does not end within {POLLS_MAX} polls");
}

async fn a_wait_behind_another_can_be_given_up(bed: Bed) {
    let faulty = FaultyStore::from_arc(Arc::clone(&bed.store));
    let quotas = QuotaEnforcer::builder(faulty.clone(), tokens(100))
        .clock(bed.clock.clone())
        .tick(None)
        .store_timeout(Duration::from_millis(400))
        .start()
        .unwrap();
    drop(quotas.tenant(&acme()).await.unwrap());
    faulty.script(Method::Acquire, [Fault::Hang]);
    let first = {
        let quotas = quotas.clone();
        tokio::spawn(async move { admits(&quotas, 50).await })
    };
    crate::ledger::until("the first hangs", async || faulty.injected() == 1).await;
    for _ in 0..4 {
        assert!(Polled::new(quotas.enforce(&acme(), &Quota::Tokens, 100), 1).await.is_none());
    }
    assert!(!first.await.unwrap());
    assert!(admits(&quotas, 100).await);
    assert_eq!(view(&quotas, &Quota::Tokens).await.held, 0);
}
