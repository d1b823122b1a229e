//! Recording what operations used, and asking about it.
//!
//! Plain data: [`UsageEvent`] and what is in it, [`UsageMetrics`], the questions of [`query`](self). The moving part is
//! [`UsageTracker`].

mod ack;
mod amount;
mod buffer;
mod drift;
mod event;
mod flush;
pub(crate) mod flusher;
mod health;
mod id;
mod metadata;
mod operation;
mod query;
mod rollup;
mod sketch;
mod tokens;
mod tracker;

pub use self::ack::{Ack, Recorded};
pub use self::amount::{
    COST_SCALE_MAX, COST_USD_MAX, Cost, LATENCY_MAX, Latency, MEASURE_MAX, MEASURE_SCALE_MAX,
    MEASURES_PER_EVENT_MAX, Measures, StatusCode, UNPRICED_CEILING_MEASURE,
};
pub use self::drift::{UsageDrift, UsageField};
pub use self::event::{
    CustomEventType, ERROR_MESSAGE_BYTES_MAX, EVENT_TYPE_BYTES_MAX, ErrorMessage, EventType, Outcome,
    UsageEvent,
};
pub use self::flush::{FlushPolicy, Overflow};
pub use self::health::{Health, ShutdownReport};
pub use self::id::EventId;
pub use self::metadata::{METADATA_BYTES_MAX, METADATA_DEPTH_MAX, Metadata};
pub use self::operation::{Actual, Operation};
pub use self::query::{
    Consumer, EventQuery, Measure, SUMMARY_EXCEEDED_MAX, TOP_CONSUMERS_MAX, TopConsumersQuery, UsagePeriod,
    UsageSummary,
};
pub use self::rollup::{UsageDelta, UsageMetrics};
pub use self::sketch::{LatencySketch, Quantile};
pub use self::tokens::{TOKENS_PER_EVENT_MAX, TokenClass, TokenCounts, TokenSource, TokenUsage};
pub use self::tracker::{UsageTracker, UsageTrackerBuilder};
