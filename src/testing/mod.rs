//! For tests of services that use this crate, and for those who write a store.

mod clock;
#[cfg(feature = "postgres")]
pub mod postgres;

pub use self::clock::ManualClock;
