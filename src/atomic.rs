//! The atomics of the lock-free parts; their model checker puts its own in this place.

pub(crate) use std::sync::atomic::{AtomicU64, Ordering};
