//! For tests of services that use this crate, and for those who write a store.

mod clock;
pub mod conformance;
mod faulty;
#[cfg(feature = "postgres")]
pub mod postgres;
mod spy;
mod tamper;

pub use crate::{delegate_audit_store, delegate_store};

pub use self::clock::ManualClock;
pub use self::faulty::{Fault, FaultyStore};
pub use self::spy::{Call, Method, SpyStore};
pub use self::tamper::tamper;
