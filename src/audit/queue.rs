//! The bounded queue between recording and the store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};

use crate::audit::AuditEvent;
use crate::time::timer::{Instant, after, is_over};
use crate::{Error, ErrorKind, Result};

/// An event on its way, and whom to tell.
#[derive(Debug)]
pub(crate) struct Pending {
    pub(crate) event: AuditEvent,
    /// Nobody may be waiting at its other end.
    pub(crate) done: oneshot::Sender<Result<()>>,
    due: Instant,
}

/// Events that wait to be written. Pushing takes a permit and a short lock; nothing here waits for I/O.
#[derive(Debug)]
pub(crate) struct Queue {
    state: Mutex<State>,
    /// One permit an event that may still come in. A permit returns when its event is written.
    room: Semaphore,
    events_max: usize,
    batch_events: usize,
    age: Duration,
    wake: Notify,
    hurried: AtomicBool,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Pending>,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(events_max: usize, batch_events: usize, age: Duration) -> Self {
        Self {
            state: Mutex::default(),
            room: Semaphore::new(events_max),
            events_max,
            batch_events,
            age,
            wake: Notify::new(),
            hurried: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        }
    }

    /// Room for one event, if there is any now.
    pub(crate) fn try_room(&self) -> Option<SemaphorePermit<'_>> {
        self.room.try_acquire().ok()
    }

    /// Room for one event, as soon as there is any.
    pub(crate) async fn room(&self) -> Result<SemaphorePermit<'_>> {
        self.room.acquire().await.map_err(|_| Self::shut_down())
    }

    /// Takes an event in; gives the end at which its fate is told.
    pub(crate) fn push(
        &self,
        room: SemaphorePermit<'_>,
        event: AuditEvent,
    ) -> Result<oneshot::Receiver<Result<()>>> {
        let (done, told) = oneshot::channel();
        let mut state = self.lock();
        if state.closed {
            return Err(Self::shut_down());
        }
        room.forget();
        state.waiting.push_back(Pending { event, done, due: after(self.age) });
        let waiting = state.waiting.len();
        drop(state);
        if waiting == 1 || waiting.is_multiple_of(self.batch_events) {
            self.wake.notify_one();
        }
        Ok(told)
    }

    /// The next batch: a full one, or whatever there is if its first event has reached its age, somebody waits or `all` is
    /// set.
    pub(crate) fn take(&self, all: bool) -> Option<Vec<Pending>> {
        let mut state = self.lock();
        let front = state.waiting.front()?;
        let is_due = state.waiting.len() >= self.batch_events || is_over(front.due);
        if !all && !is_due && !self.hurried.load(Ordering::Acquire) {
            return None;
        }
        let count = state.waiting.len().min(self.batch_events);
        let batch = state.waiting.drain(..count).collect();
        if state.waiting.is_empty() {
            self.hurried.store(false, Ordering::Release);
        }
        Some(batch)
    }

    /// When the next batch reaches its age.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.lock().waiting.front().map(|front| front.due)
    }

    /// Gives the room of written events back.
    pub(crate) fn release(&self, events: usize) {
        self.room.add_permits(events);
    }

    /// Waits until a batch has begun or is full, or somebody hurries.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Asks for what waits to be written now. The flag is set under the lock, so that it cannot outlive what it was meant
    /// for.
    pub(crate) fn hurry(&self) {
        let state = self.lock();
        if state.waiting.is_empty() {
            return;
        }
        self.hurried.store(true, Ordering::Release);
        drop(state);
        self.wake.notify_one();
    }

    /// Takes no more events. Those who wait for room are told.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.room.close();
        self.wake.notify_one();
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.room.is_closed()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lock().waiting.is_empty()
    }

    /// Events that are not yet written, those in the hands of the store included.
    pub(crate) fn pending(&self) -> usize {
        self.events_max.saturating_sub(self.room.available_permits())
    }

    pub(crate) fn count_dropped(&self) {
        if self.dropped.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::error!(
                "metertrail: the audit queue is full and an event was not waited for: it is lost"
            );
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    // Nothing panics while the lock is held, so poison carries no information.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shut_down() -> Error {
        Error::new(ErrorKind::ShutDown, "the audit log was shut down")
    }
}
