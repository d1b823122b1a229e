//! The acknowledgement of a recorded audit event.

use std::future::IntoFuture;
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::audit::AuditEvent;
use crate::audit::queue::Queue;
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result};

/// The word of the store that an audit event is kept and sealed in a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AuditRecorded {
    /// The event's id.
    pub id: EventId,
    /// Whether its type is sampled and this one was left out, to be counted by a later one.
    pub is_sampled_out: bool,
}

/// What recording an audit event gives back: await it to know that the event is committed, or drop it and forget.
///
/// # Errors
/// Awaited, it gives [`ShutDown`](ErrorKind::ShutDown) after the shutdown, [`Conflict`](ErrorKind::Conflict) if the event's
/// id is taken, and the store's own error if it refused the event for good. While the store cannot be reached it waits.
///
/// # Cancel safety
/// Dropping it, or the future that awaits it, loses nothing that was accepted. With a full queue the event is not accepted
/// until it is awaited; dropped before that it is lost and counts as [`AuditHealth::dropped`](crate::audit::AuditHealth).
#[derive(Debug)]
pub struct AuditAck {
    id: EventId,
    queue: Arc<Queue>,
    state: State,
}

#[derive(Debug)]
enum State {
    Accepted(oneshot::Receiver<Result<()>>),
    Waiting(Box<Option<AuditEvent>>),
    SampledOut,
    Refused(Error),
}

impl AuditAck {
    pub(super) fn of(queue: &Arc<Queue>, event: AuditEvent) -> Self {
        let (id, queue) = (event.id(), Arc::clone(queue));
        let state = match queue.try_room() {
            Some(room) => queue.push(room, event).map_or_else(State::Refused, State::Accepted),
            None if queue.is_closed() => State::Refused(Queue::shut_down()),
            None => State::Waiting(Box::new(Some(event))),
        };
        Self { id, queue, state }
    }

    pub(super) fn sampled_out(queue: &Arc<Queue>, id: EventId) -> Self {
        Self { id, queue: Arc::clone(queue), state: State::SampledOut }
    }

    /// The event's id, known before it is kept.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// Whether the event is in the queue, on its way to the store.
    pub fn is_accepted(&self) -> bool {
        matches!(self.state, State::Accepted(_))
    }

    async fn wait(mut self) -> Result<AuditRecorded> {
        let (id, queue) = (self.id, Arc::clone(&self.queue));
        if let State::Waiting(event) = &mut self.state {
            queue.hurry();
            let room = queue.room().await?;
            if let Some(event) = event.take() {
                self.state = State::Accepted(queue.push(room, event)?);
            }
        }
        match std::mem::replace(&mut self.state, State::SampledOut) {
            State::Accepted(told) => {
                queue.hurry();
                let ended =
                    || Error::new(ErrorKind::ShutDown, "the runtime ended before the event was written");
                told.await.map_err(|_| ended())??;
                Ok(AuditRecorded { id, is_sampled_out: false })
            }
            State::SampledOut => Ok(AuditRecorded { id, is_sampled_out: true }),
            State::Waiting(_) => Err(Error::new(ErrorKind::Misuse, "the event was already taken")),
            State::Refused(error) => Err(error),
        }
    }
}

/// An event that was neither accepted nor waited for is counted as dropped.
impl Drop for AuditAck {
    fn drop(&mut self) {
        if let State::Waiting(event) = &mut self.state
            && event.take().is_some()
        {
            self.queue.count_dropped();
        }
    }
}

impl IntoFuture for AuditAck {
    type Output = Result<AuditRecorded>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.wait())
    }
}
