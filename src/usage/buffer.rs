//! The bounded buffer between recording and the store.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, SemaphorePermit};

use crate::quota::Settling;
use crate::time::timer::{Instant, after, is_over};
use crate::usage::UsageEvent;
use crate::usage::ack::Completion;
use crate::{Error, ErrorKind, Result};

/// Vectors kept for reuse, so that a steady stream of segments allocates nothing.
const SPARE_VECTORS_MAX: usize = 8;

/// Events that wait to be written, in segments of one batch each. Pushing takes a permit and a short lock; nothing here
/// waits for I/O.
#[derive(Debug)]
pub(crate) struct Buffer {
    queue: Mutex<Queue>,
    /// One permit an event that may still come in. A permit returns when its event is written.
    room: Semaphore,
    events_max: usize,
    segment_events: usize,
    age: Duration,
    wake: Notify,
    hurried: AtomicBool,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Queue {
    /// All but the last are full.
    segments: VecDeque<Segment>,
    spare: Vec<Vec<UsageEvent>>,
    closed: bool,
}

/// Events that are written together and share one completion.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) events: Vec<UsageEvent>,
    /// What some of the events used of their tenants' limits, by position, ascending.
    pub(crate) settlings: Vec<(usize, Settling)>,
    pub(crate) completion: Arc<Completion>,
    /// Whether an attempt to write some of it ended without an answer.
    pub(crate) may_be_written: AtomicBool,
    /// When the first event reaches its age.
    due: Instant,
}

impl Buffer {
    pub(crate) fn new(events_max: usize, segment_events: usize, age: Duration) -> Self {
        Self {
            queue: Mutex::new(Queue { segments: VecDeque::new(), spare: Vec::new(), closed: false }),
            room: Semaphore::new(events_max),
            events_max,
            segment_events,
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

    /// Takes an event in; gives the completion that it shares and its place there.
    pub(crate) fn push(
        &self,
        room: SemaphorePermit<'_>,
        event: UsageEvent,
        settling: Option<Settling>,
    ) -> Result<(Arc<Completion>, usize)> {
        let mut queue = self.lock();
        if queue.closed {
            drop(queue);
            settling.iter().for_each(Settling::undo);
            return Err(Self::shut_down());
        }
        room.forget();
        let begins_segment =
            queue.segments.back().is_none_or(|last| last.events.len() >= self.segment_events);
        if begins_segment {
            let events = queue.spare.pop().unwrap_or_else(|| Vec::with_capacity(self.segment_events));
            let (settlings, completion, due) = (Vec::new(), Arc::default(), after(self.age));
            queue.segments.push_back(Segment {
                events,
                settlings,
                completion,
                may_be_written: AtomicBool::new(false),
                due,
            });
        }
        let first = queue.segments.len() == 1;
        let Some(segment) = queue.segments.back_mut() else {
            return Err(Error::new(ErrorKind::Misuse, "a segment was begun and is gone"));
        };
        let index = segment.events.len();
        segment.events.push(event);
        segment.settlings.extend(settling.map(|settling| (index, settling)));
        let completion = Arc::clone(&segment.completion);
        drop(queue);
        if (first && index == 0) || index + 1 == self.segment_events {
            self.wake.notify_one();
        }
        Ok((completion, index))
    }

    /// The next batch: a full one, or whatever there is if it has reached its age, somebody waits for it or `all` is set.
    pub(crate) fn take(&self, all: bool) -> Option<Segment> {
        let mut queue = self.lock();
        let front = queue.segments.front()?;
        let ready = front.events.len() >= self.segment_events || is_over(front.due);
        if !all && !ready && !self.hurried.load(Ordering::Acquire) {
            return None;
        }
        let segment = queue.segments.pop_front();
        if queue.segments.is_empty() {
            self.hurried.store(false, Ordering::Release);
        }
        if let Some(segment) = &segment {
            segment.completion.set_taken();
        }
        segment
    }

    /// When the next batch reaches its age.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.lock().segments.front().map(|front| front.due)
    }

    /// Gives the room of written events back and keeps their vector for reuse.
    pub(crate) fn release(&self, mut events: Vec<UsageEvent>) {
        let count = events.len();
        events.clear();
        let mut queue = self.lock();
        if queue.spare.len() < SPARE_VECTORS_MAX {
            queue.spare.push(events);
        }
        drop(queue);
        self.room.add_permits(count);
    }

    /// Waits until a batch has begun or is full, or somebody hurries.
    pub(crate) async fn changed(&self) {
        self.wake.notified().await;
    }

    /// Asks for what waits to be written now. The flag is set under the lock, so that it cannot outlive the segment it
    /// was meant for.
    pub(crate) fn hurry(&self) {
        let queue = self.lock();
        if queue.segments.is_empty() {
            return;
        }
        self.hurried.store(true, Ordering::Release);
        drop(queue);
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
        self.lock().segments.is_empty()
    }

    /// Events that are not yet written, those in the hands of the store included.
    pub(crate) fn pending(&self) -> usize {
        self.events_max.saturating_sub(self.room.available_permits())
    }

    pub(crate) fn count_dropped(&self) {
        let before = self.dropped.fetch_add(1, Ordering::Relaxed);
        if before == 0 {
            tracing::warn!(
                "metertrail: the usage buffer is full, events are dropped (counted in Health::dropped)"
            );
        }
    }

    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    // Nothing panics while the lock is held, so poison carries no information.
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn shut_down() -> Error {
        Error::new(ErrorKind::ShutDown, "the tracker was shut down")
    }
}
