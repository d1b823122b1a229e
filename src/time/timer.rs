//! The runtime's own time, for waits: monotonic, and paused with the runtime in tests.

use std::time::Duration;

pub(crate) use tokio::time::Instant;

/// As good as never, and still in the range of every platform's clock.
const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);

/// The instant so far from now; thirty years at most.
pub(crate) fn after(duration: Duration) -> Instant {
    Instant::now() + duration.min(FAR)
}

/// Whether the instant lies behind.
pub(crate) fn is_over(instant: Instant) -> bool {
    instant <= Instant::now()
}

/// Waits for an instant; for ever if there is none.
pub(crate) async fn passed(instant: Option<Instant>) {
    match instant {
        Some(instant) => tokio::time::sleep_until(instant).await,
        None => std::future::pending().await,
    }
}

/// Between a half and the whole of a duration, so that many processes do not come in step.
pub(crate) fn with_jitter(duration: Duration) -> Duration {
    let random = u32::from(uuid::Uuid::new_v4().as_bytes()[0]);
    duration / 2 + duration * random / 510
}
