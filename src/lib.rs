//! Usage metering for multi-tenant services.
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
pub mod page;
pub mod store;
mod tenant;
#[cfg(feature = "test-util")]
pub mod testing;
mod text;
pub mod time;
mod upkeep;
pub mod usage;

pub use crate::error::{Error, ErrorKind, Result};
pub use crate::page::{Cursor, Page, PageSize};
#[cfg(feature = "postgres")]
pub use crate::store::PostgresStore;
pub use crate::store::{MemoryStore, Store};
pub use crate::tenant::{TENANT_ID_BYTES_MAX, TenantId};
pub use crate::text::{LABEL_BYTES_MAX, Label};
pub use crate::time::{Period, TimeRange, Zone};
pub use crate::usage::{
    Ack, Actual, Consumer, Cost, EventId, EventQuery, EventType, FlushPolicy, Health, LatencySketch, Measure,
    Measures, Metadata, Operation, Outcome, Overflow, Quantile, Recorded, ShutdownReport, TokenClass,
    TokenSource, TokenUsage, UsageEvent, UsageMetrics, UsagePeriod, UsageSummary, UsageTracker,
};
