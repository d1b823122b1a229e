//! Writes the buffer to the store, batch by batch, until everything accepted is kept or the time for it is over.

use std::collections::VecDeque;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::watch;
use tokio::time::timeout;

use crate::quota::{Settlement, Settling};
use crate::store::{Appended, Store};
use crate::time::timer::{Instant, passed, with_jitter};
use crate::usage::ack::Completion;
use crate::usage::buffer::{Buffer, Segment};
use crate::usage::{FlushPolicy, UsageEvent};
use crate::{Error, ErrorKind, Result};

const BACKOFF_MIN: Duration = Duration::from_millis(20);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Refused events kept for the shutdown report.
const REJECTED_KEPT_MAX: usize = 1_000;

/// What the flusher has done, for [`Health`](crate::usage::Health) and the shutdown report.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) written: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) conflicts: AtomicU64,
    pub(crate) rejected: AtomicU64,
    pub(crate) retries: AtomicU64,
    kept_aside: Mutex<VecDeque<(UsageEvent, Error)>>,
    last_error: Mutex<Option<Error>>,
}

impl Tally {
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn take_rejected(&self) -> Vec<(UsageEvent, Error)> {
        self.kept_aside.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect()
    }

    fn count(&self, appended: Appended) {
        let counter = match appended {
            Appended::New => &self.written,
            Appended::Duplicate => &self.duplicates,
            Appended::Conflict => &self.conflicts,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn reject(&self, event: &UsageEvent, error: &Error) {
        self.rejected.fetch_add(1, Ordering::Relaxed);
        tracing::error!(tenant = %event.tenant_id, id = %event.id(), %error, "metertrail: the store refused an event");
        let mut kept = self.kept_aside.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= REJECTED_KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((event.clone(), error.clone()));
    }

    fn set_last_error(&self, error: Option<Error>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }
}

/// The writing side of one tracker. [`run`](Self::run) is its whole life.
#[derive(Debug)]
pub(crate) struct Flusher {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) buffer: Arc<Buffer>,
    pub(crate) tally: Arc<Tally>,
    pub(crate) policy: FlushPolicy,
    pub(crate) append_timeout: Duration,
    /// Set to the deadline when the tracker is shut down.
    pub(crate) stop: watch::Receiver<Option<Instant>>,
}

impl Flusher {
    /// Writes until the tracker is shut down and the buffer drained, or its deadline is over. Gives the events that are
    /// not known to be written.
    pub(crate) async fn run(mut self) -> Vec<UsageEvent> {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Arc<Segment>>> = FuturesUnordered::new();
        let mut unwritten: Vec<Arc<Segment>> = Vec::new();
        loop {
            let deadline = *self.stop.borrow_and_update();
            while in_flight.len() < self.policy.concurrency
                && let Some(segment) = self.buffer.take(deadline.is_some())
            {
                let segment = Arc::new(segment);
                unwritten.push(Arc::clone(&segment));
                in_flight.push(self.writer(segment));
            }
            if deadline.is_some() && in_flight.is_empty() && self.buffer.is_empty() {
                return Vec::new();
            }
            // A batch that is due but finds every connection busy waits for one to come back.
            let due = self.buffer.due().filter(|_| in_flight.len() < self.policy.concurrency);
            tokio::select! {
                Some(segment) = in_flight.next(), if !in_flight.is_empty() => {
                    unwritten.retain(|other| !Arc::ptr_eq(other, &segment));
                    if let Ok(segment) = Arc::try_unwrap(segment) {
                        self.buffer.release(segment.into_events());
                    }
                }
                () = self.buffer.changed() => {}
                () = passed(due) => {}
                _ = self.stop.changed(), if deadline.is_none() => {}
                () = passed(deadline) => {
                    drop(in_flight);
                    return self.give_up(unwritten);
                }
            }
        }
    }

    fn writer(&self, segment: Arc<Segment>) -> BoxFuture<'static, Arc<Segment>> {
        let store = Arc::clone(&self.store);
        let tally = Arc::clone(&self.tally);
        let append_timeout = self.append_timeout;
        async move {
            let results = write(&*store, &tally, append_timeout, &segment).await;
            segment.completion.resolve(results);
            segment
        }
        .boxed()
    }

    /// Out of time: tells every waiter and hands the events over.
    fn give_up(&self, mut unwritten: Vec<Arc<Segment>>) -> Vec<UsageEvent> {
        while let Some(segment) = self.buffer.take(true) {
            unwritten.push(Arc::new(segment));
        }
        let error =
            Error::new(ErrorKind::ShutDown, "the tracker was shut down before the store confirmed the event");
        let hand_over = |segment: Arc<Segment>| {
            segment.completion.resolve(vec![Err(error.clone()); segment.events.len()]);
            match Arc::try_unwrap(segment) {
                Ok(segment) => segment.into_events(),
                Err(segment) => segment.events.clone(),
            }
        };
        unwritten.into_iter().flat_map(hand_over).collect()
    }
}

/// Writes a batch whatever it takes: waits out what passes, and halves a batch that the store refuses until the refused
/// events stand alone.
async fn write(
    store: &dyn Store,
    tally: &Tally,
    append_timeout: Duration,
    segment: &Segment,
) -> Vec<Result<Appended>> {
    let mut results: Vec<Result<Appended>> = Vec::with_capacity(segment.events.len());
    let whole = 0..segment.events.len();
    let mut parts = Vec::from([whole]);
    while let Some(part) = parts.pop() {
        match append_until_decided(store, tally, append_timeout, segment, part.clone()).await {
            Ok(appended) => {
                for outcome in &appended {
                    tally.count(*outcome);
                }
                results.extend(appended.into_iter().map(Ok));
            }
            Err(error) if part.len() <= 1 => {
                for event in &segment.events[part.clone()] {
                    tally.reject(event, &error);
                }
                segment.settle(&part, &[]);
                results.extend(part.map(|_| Err(error.clone())));
            }
            Err(_) => {
                let middle = part.start + part.len() / 2;
                parts.push(middle..part.end);
                parts.push(part.start..middle);
            }
        }
    }
    results
}

/// Appends until the store has kept the events or refused them for good.
async fn append_until_decided(
    store: &dyn Store,
    tally: &Tally,
    append_timeout: Duration,
    segment: &Segment,
    part: Range<usize>,
) -> Result<Vec<Appended>> {
    let events = &segment.events[part.clone()];
    let settlements = segment.settlements(&part);
    let mut backoff = BACKOFF_MIN;
    loop {
        let error = match append_once(store, append_timeout, events, &settlements).await {
            Appending::Done(Ok(appended)) if appended.len() == events.len() => {
                tally.set_last_error(None);
                segment.settle(&part, &appended);
                return Ok(appended);
            }
            Appending::Done(Err(error)) if !error.is_transient() => error,
            open => {
                segment.may_be_written.store(true, Ordering::Release);
                open.into_error()
            }
        };
        tally.set_last_error(Some(error.clone()));
        if !error.may_pass() {
            return Err(error);
        }
        tally.retries.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(%error, events = events.len(), "metertrail: writing usage failed, trying again");
        tokio::time::sleep(with_jitter(backoff)).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

async fn append_once(
    store: &dyn Store,
    append_timeout: Duration,
    events: &[UsageEvent],
    settlements: &[Settlement],
) -> Appending {
    let append = AssertUnwindSafe(store.append(events, settlements)).catch_unwind();
    match timeout(append_timeout, append).await {
        Ok(Ok(result)) => Appending::Done(result),
        Ok(Err(_panic)) => Appending::Panicked,
        Err(_) => Appending::Overdue(append_timeout),
    }
}

/// How an attempt ended. Only an answer says whether something was written.
enum Appending {
    Done(Result<Vec<Appended>>),
    Panicked,
    Overdue(Duration),
}

impl Appending {
    fn into_error(self) -> Error {
        match self {
            Self::Done(Err(error)) => error,
            Self::Done(Ok(_)) => Error::new(
                ErrorKind::Store,
                "the store answered for another number of events than it was given",
            ),
            Self::Panicked => Error::new(ErrorKind::Store, "the store panicked while it appended"),
            Self::Overdue(limit) => {
                Error::new(ErrorKind::Unavailable, format!("the store did not answer in {limit:?}"))
            }
        }
    }
}

impl Segment {
    fn settlings_of(&self, part: &Range<usize>) -> &[(usize, Settling)] {
        let from = self.settlings.partition_point(|(position, _)| *position < part.start);
        let to = self.settlings.partition_point(|(position, _)| *position < part.end);
        &self.settlings[from..to]
    }

    /// The settlements of a part of the segment; positions count from the part's start.
    fn settlements(&self, part: &Range<usize>) -> Vec<Settlement> {
        let settlements = self.settlings_of(part).iter().flat_map(|(position, settling)| {
            let (event, holder) = (position - part.start, settling.holder());
            settling.settled().map(move |(key, amount)| Settlement { event, holder, key, amount })
        });
        settlements.collect()
    }

    /// Tells the limits what became of a part; of one that was refused there are no answers. Units of an event that did not
    /// come to count go back, unless an attempt whose answer is not known may have written both: then they stay used.
    fn settle(&self, part: &Range<usize>, appended: &[Appended]) {
        let may_be_written = self.may_be_written.load(Ordering::Acquire);
        for (position, settling) in self.settlings_of(part) {
            if may_be_written || appended.get(position - part.start) == Some(&Appended::New) {
                settling.recorded();
            } else {
                settling.undo();
            }
        }
    }
}

/// A flusher that is dropped in the middle, with its runtime, leaves nobody waiting: not those whose events are in the
/// buffer, nor those who record later.
impl Drop for Flusher {
    fn drop(&mut self) {
        self.buffer.close();
        while self.buffer.take(true).is_some() {}
    }
}

impl Completion {
    /// For events that were dropped with the runtime: the waiters are told instead of waiting for ever.
    pub(crate) fn abandon(&self, events: usize) {
        let error =
            Error::new(ErrorKind::ShutDown, "the tracker's runtime ended before the event was written");
        self.resolve(vec![Err(error); events]);
    }
}

impl Segment {
    /// The events, once their waiters have been told.
    fn into_events(mut self) -> Vec<UsageEvent> {
        std::mem::take(&mut self.events)
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        self.completion.abandon(self.events.len());
    }
}
