//! Usage metering for multi-tenant services, over the Postgres that the service already has: what every tenant did, how
//! many tokens it took, what it cost and how long, exact to the unit and fresh to the instant. A library that the service
//! links; no sidecar, no queue, no second database.
//!
//! ```
//! use metertrail::{Actual, EventType, MemoryStore, Period, TenantId, TokenUsage, UsageTracker};
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! let tracker = UsageTracker::start(MemoryStore::new())?; // or PostgresStore::connect(url).await?
//! let tenant = TenantId::new("acme-corp")?;
//!
//! // Around a handler: track, work, record. Recording is one call without I/O.
//! let operation = tracker.track(&tenant, EventType::ChatMessage).session_id("s-1")?.model("gpt-4o")?;
//! let tokens = TokenUsage::reported(374, 44)?; // what the provider answered
//! let ack = operation.record_success(Actual::new().tokens(tokens).status_code(200)?);
//! ack.await?; // only if the caller wants to know that it is committed
//!
//! let today = tracker.usage_today(&tenant).await?.metrics;
//! assert_eq!((today.calls, today.tokens_total()), (1, 418));
//! assert_eq!(tracker.summary(Period::Month).await?.tenants, 1);
//!
//! let report = tracker.shutdown(std::time::Duration::from_secs(5)).await?;
//! assert!(report.unwritten.is_empty());
//! # Ok::<(), metertrail::Error>(())
//! # }).unwrap();
//! ```
//!
//! # How it flows
//! ```text
//! track ─► Operation ─► record_* ─► buffer ─► flusher ─► Store::append (events and journal, one transaction)
//!                          │                                  │
//!                         Ack ◄──────── committed ────────────┤
//!                                                             ▼
//!                    queries ◄─── roll-ups + journal ◄─── Store::roll_up drains the journal
//!
//! response ─► tokens by class ─► price book ─► cost and price version on the event, as it is recorded
//!
//! upkeep ─► each due step by one of any number of processes: aggregate, partitions, prune, archive
//!
//! AlertEngine::run ─► rules ask the store ─► incidents and notifications ─► sinks
//!
//! enforce ─► units at hand ─(none)─► Store::acquire ─► Hold ─► settled with the operation's event, in its transaction
//! ```
//!
//! # Where things are
//! | module | what it does |
//! |---|---|
//! | [`alert`] | rules that look at usage, limits and the process; incidents; silences; sinks that are told |
//! | [`audit`] | what happened, sealed so that nobody can change it unseen; the log, the verifier |
//! | [`audited`] | changes of quotas and repairs of usage that name who made them, refusals as audit events |
//! | [`cost`] | prices and where they come from, usage from responses and streams, pricing a period again |
//! | [`usage`] | events and what is in them, the tracker, questions and answers |
//! | [`quota`] | plans and limits, the enforcer that admits within them, holds that recording settles |
//! | [`store`] | the traits [`Store`], [`AuditStore`], [`CostStore`], [`UpkeepStore`](store::UpkeepStore) and [`AlertStore`], which are contracts, and the stores: [`MemoryStore`], `PostgresStore` |
//! | [`time`](mod@time) | the only clock; zones, periods, billing cycles, all half-open |
//! | [`page`] | keyset paging |
//! | [`upkeep`] | what is done again and again, by one of any number of processes: aggregation, partitions, retention |
//! | `archive` | old events as Parquet (feature `archive`) |
//! | `testing` | for those who test a service or write a store (feature `test-util`) |
//!
//! # What holds
//! - **Never lost, never twice.** An event whose [`Ack`] resolved is committed and counted once: through retries, crashes,
//!   restarts and cut connections. A second event with its id or idempotency key is a repetition or a reported conflict.
//! - **Never over-admitted.** A hard limit is not passed by what [`quota::QuotaEnforcer`] admits, whatever number of tasks and
//!   processes share it, whatever crashes. What a crash strands is bounded: the slice of the limit that the process held.
//! - **Never stale.** A query includes every acknowledged event. Roll-ups make answers cheaper, not fresher.
//! - **Never drifting unseen.** [`UsageTracker::reconcile`] holds the roll-ups against the events and leased units against
//!   their rules, names each number that differs, and mends it if told to, while others go on writing.
//! - **Never silently altered.** An edit, a deletion, a reordering or a cut of the audit trail is found by a
//!   [`Verifier`](audit::Verifier) that needs no trust in the database: what it is told of keys and anchors decides how much.
//! - **Never a guess sold as a fact.** Estimated tokens are marked, an unknown cost is `None` and counted, percentiles are
//!   off by less than 1 % ([`LatencySketch`]), also after hours were merged into months.
//! - **Never slow.** Recording takes no I/O and does not wait; whoever wants to wait awaits the [`Ack`].
//! - **Bounded.** Buffers, pages, batches, texts and metadata have bounds; what passes one is refused by name or counted.
//!
//! # What it does not do
//! Events that were recorded and not yet acknowledged are in this process's memory: a kill loses them (about the last
//! [`FlushPolicy::age`]; none if the ack is awaited). The dashboard is not built yet.
//!
//! # Features
//! - `genai-prices` (default): list prices and the shapes of responses of many providers.
//! - `archive`: [`archive`](https://docs.rs/metertrail/latest/metertrail/archive/), old events as Parquet in a directory or
//!   in the host's object store.
//! - `postgres` (default): `PostgresStore`. `PostgreSQL` 15 or later.
//! - `email`: the mail sink of alerts. `webhook`: the sinks for webhooks and Alertmanager.
//! - `test-util`: [`testing`](https://docs.rs/metertrail/latest/metertrail/testing/), a manual clock, test doubles, a
//!   throw-away Postgres and the conformance suite of stores.
//!
//! # Semantic versioning
//! The public API follows it. Not covered: the text of errors, `Debug` output, the layout of tables (their names and the
//! columns of the views in `public` are), the content of cursors, and anything in `testing`. The minimum supported Rust
//! version is 1.89; raising it is a minor change.
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod alert;
#[cfg(feature = "archive")]
pub mod archive;
mod atomic;
pub mod audit;
pub mod audited;
pub mod cost;
mod error;
pub mod page;
pub mod quota;
pub mod store;
mod tenant;
#[cfg(feature = "test-util")]
pub mod testing;
mod text;
pub mod time;
pub mod upkeep;
pub mod usage;

pub use crate::error::{Error, ErrorKind, Result};
pub use crate::page::{Cursor, Page, PageSize};
#[cfg(feature = "postgres")]
pub use crate::store::PostgresStore;
pub use crate::store::{AlertStore, AuditStore, CostStore, MemoryStore, Store};
pub use crate::tenant::{TENANT_ID_BYTES_MAX, TenantId};
pub use crate::text::{LABEL_BYTES_MAX, Label};
pub use crate::time::{Period, TimeRange, Zone};
pub use crate::usage::{
    Ack, Actual, Consumer, Cost, EventId, EventQuery, EventType, FlushPolicy, Health, LatencySketch, Measure,
    Measures, Metadata, Operation, Outcome, Overflow, Quantile, Recorded, ShutdownReport, TokenClass,
    TokenSource, TokenUsage, UsageEvent, UsageMetrics, UsagePeriod, UsageSummary, UsageTracker,
};

/// The README's example is a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}
