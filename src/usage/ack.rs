//! The acknowledgement of a recorded event.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use tokio::sync::Notify;

use crate::quota::Settling;
use crate::store::Appended;
use crate::usage::tracker::Handle;
use crate::usage::{EventId, UsageEvent};
use crate::{Error, ErrorKind, Result};

/// The word of the store that an event is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Recorded {
    /// The event's id.
    pub id: EventId,
    /// Whether the same event was already kept, so that nothing was counted now. It may have been kept a moment ago by an
    /// attempt of this very record whose answer was lost.
    pub duplicate: bool,
}

/// What recording an event gives back: await it to know that the event is committed, or drop it and forget.
///
/// Awaiting also asks for the buffer to be written at once instead of at its bounds, so that the wait is one commit.
///
/// # Errors
/// Awaited, it gives [`Conflict`](ErrorKind::Conflict) if the id or idempotency key belongs to another event,
/// [`BufferFull`](ErrorKind::BufferFull) if the event was not accepted for want of room, [`ShutDown`](ErrorKind::ShutDown)
/// after the shutdown, and the store's own error if it refused the event for good. While the store cannot be reached it
/// waits: an accepted event is tried until it is kept or the tracker is shut down.
///
/// # Cancel safety
/// Dropping it, or the future that awaits it, loses nothing that was accepted. Only under
/// [`Overflow::Wait`](crate::usage::Overflow::Wait) and with a full buffer the event is not accepted until it is
/// awaited; dropped before that it counts as [`Health::dropped`](crate::usage::Health::dropped).
#[derive(Debug)]
pub struct Ack {
    id: EventId,
    state: State,
}

/// An event for which there was no room, and what it used of its tenant's limits.
type Waiter = (UsageEvent, Option<Settling>);

#[derive(Debug)]
enum State {
    /// In the buffer, at this place of a segment.
    Accepted { handle: Arc<Handle>, segment: Arc<Completion>, index: usize },
    /// There was no room; it is accepted when there is.
    Waiting { handle: Arc<Handle>, event: Box<Option<Waiter>> },
    /// Refused.
    Refused(Error),
}

impl Ack {
    pub(super) fn accepted(id: EventId, handle: Arc<Handle>, segment: Arc<Completion>, index: usize) -> Self {
        Self { id, state: State::Accepted { handle, segment, index } }
    }

    pub(super) fn waiting(handle: Arc<Handle>, event: UsageEvent, settling: Option<Settling>) -> Self {
        Self { id: event.id(), state: State::Waiting { handle, event: Box::new(Some((event, settling))) } }
    }

    pub(super) fn refused(id: EventId, error: Error) -> Self {
        Self { id, state: State::Refused(error) }
    }

    /// The event's id, known before it is kept.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Whether the event is in the buffer, on its way to the store.
    pub fn is_accepted(&self) -> bool {
        matches!(self.state, State::Accepted { .. })
    }

    async fn wait(mut self) -> Result<Recorded> {
        loop {
            match &mut self.state {
                State::Accepted { handle, segment, index } => {
                    if !segment.is_taken() {
                        handle.buffer().hurry();
                    }
                    return into_recorded(self.id, segment.wait(*index).await);
                }
                State::Waiting { handle, event } => {
                    let handle = Arc::clone(handle);
                    handle.buffer().hurry();
                    let room = handle.buffer().room().await?;
                    let Some((event, settling)) = event.take() else {
                        return Err(Error::new(ErrorKind::Misuse, "the event was already taken"));
                    };
                    self.state = match handle.buffer().push(room, event, settling) {
                        Ok((segment, index)) => State::Accepted { handle, segment, index },
                        Err(error) => State::Refused(error),
                    };
                }
                State::Refused(error) => return Err(error.clone()),
            }
        }
    }
}

/// An event that was neither accepted nor waited for is counted as dropped.
impl Drop for Ack {
    fn drop(&mut self) {
        if let State::Waiting { handle, event } = &mut self.state
            && let Some((_, settling)) = event.take()
        {
            settling.iter().for_each(Settling::undo);
            handle.buffer().count_dropped();
        }
    }
}

impl IntoFuture for Ack {
    type Output = Result<Recorded>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}

fn into_recorded(id: EventId, appended: Result<Appended>) -> Result<Recorded> {
    match appended? {
        Appended::New => Ok(Recorded { id, duplicate: false }),
        Appended::Duplicate => Ok(Recorded { id, duplicate: true }),
        Appended::Conflict => {
            let message =
                format!("event {id}: its id or idempotency key belongs to an event with another payload");
            Err(Error::new(ErrorKind::Conflict, message))
        }
    }
}

/// The shared end of all events of one segment: one wake-up for many waiters.
#[derive(Debug, Default)]
pub(crate) struct Completion {
    results: OnceLock<Vec<Result<Appended>>>,
    taken: AtomicBool,
    done: Notify,
}

impl Completion {
    /// Tells all waiters. The first call wins.
    pub(crate) fn resolve(&self, results: Vec<Result<Appended>>) {
        if self.results.set(results).is_ok() {
            self.done.notify_waiters();
        }
    }

    /// Notes that the segment is on its way to the store, so that nobody needs to hurry it.
    pub(crate) fn set_taken(&self) {
        self.taken.store(true, Ordering::Release);
    }

    fn is_taken(&self) -> bool {
        self.taken.load(Ordering::Acquire)
    }

    async fn wait(&self, index: usize) -> Result<Appended> {
        let missing =
            || Err(Error::new(ErrorKind::Store, "the store answered for fewer events than it was given"));
        loop {
            let done = self.done.notified();
            if let Some(results) = self.results.get() {
                return results.get(index).cloned().unwrap_or_else(missing);
            }
            done.await;
        }
    }
}
