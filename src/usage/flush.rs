//! When the buffer is written, and what happens when it is full.

use std::time::Duration;

/// When the buffer is written. Whoever awaits an [`Ack`](crate::Ack) does not wait for these bounds: what has gathered is written
/// at once.
///
/// ```
/// use metertrail::FlushPolicy;
/// use std::time::Duration;
///
/// assert_eq!(FlushPolicy::relaxed().age, Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct FlushPolicy {
    /// As soon as so many events have gathered; also the size of a batch. 1 to 10,000.
    pub events: usize,
    /// At the latest this long after the first of them.
    pub age: Duration,
    /// How many batches may be on their way at once. At least 1.
    pub concurrency: usize,
}

impl FlushPolicy {
    /// Batches of 100 events, at the latest after 10 seconds, one at a time: few, regular writes.
    pub fn relaxed() -> Self {
        Self { events: 100, age: Duration::from_secs(10), concurrency: 1 }
    }

    /// A copy with another bound on the number of events.
    #[must_use]
    pub fn with_events(mut self, events: usize) -> Self {
        self.events = events;
        self
    }

    /// A copy with another bound on the age.
    #[must_use]
    pub fn with_age(mut self, age: Duration) -> Self {
        self.age = age;
        self
    }

    /// A copy with another number of batches on their way at once.
    #[must_use]
    pub fn with_concurrency(mut self, concurrency: usize) -> Self {
        self.concurrency = concurrency;
        self
    }
}

impl Default for FlushPolicy {
    /// Batches of 1,000 events, at the latest after 50 milliseconds, two at a time.
    fn default() -> Self {
        Self { events: 1_000, age: Duration::from_millis(50), concurrency: 2 }
    }
}

/// What happens to an event that finds the buffer full.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Overflow {
    /// It is accepted once there is room, for which its [`Ack`](crate::Ack) has to be awaited: back-pressure.
    #[default]
    Wait,
    /// It is dropped and counted in [`Health::dropped`](crate::Health::dropped).
    Drop,
}
