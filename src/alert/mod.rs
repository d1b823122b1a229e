//! Alerts: rules look at the service, what they find is kept as incidents, and each incident is told once, to the right place.
//!
//! ```text
//! run(now) ─► AlertRule::observe ─► Observation ─► pending ─► firing ─► resolved   (Incident, in the AlertStore)
//!                   │                                           │          │
//!                   ▼                                           ▼          ▼      in the transaction of the change
//!     AlertStore::breaches, Store::summary, Reading        Notification, one for each sink
//!                                                               │
//!                                    claimed with a lease ◄─────┘─► AlertSink::deliver ─► done, tried again, or a dead letter
//! ```
//!
//! An [`AlertEngine`] does this when it is told to. There may be one in every process: an evaluation is begun by one of them
//! ([`AlertStore::begin_evaluation`](crate::store::AlertStore::begin_evaluation)), a later one makes the changes of an earlier
//! one void, and a notification belongs to whoever has claimed it until its lease ends.
//!
//! Rules about tenants ask the store for those tenants alone that stand out ([`TenantCheck`]): one query for all tenants, and
//! an answer that is as large as what is wrong.

mod builder;
mod change;
mod check;
mod deliver;
mod engine;
mod evaluate;
mod incident;
mod notification;
mod observation;
mod report;
mod rule;
mod rules;
mod silence;
mod sink;
mod task;

pub use self::builder::AlertEngineBuilder;
pub use self::change::Change;
pub use self::check::{AggregationBacklog, Breach, QuotaUse, QuotaWindows, TenantCheck};
pub use self::engine::AlertEngine;
pub use self::incident::{
    Acknowledgement, Incident, IncidentId, IncidentQuery, IncidentState, Severity, fingerprint,
};
pub use self::notification::{Attempted, DeadLetter, Notification, NotificationKey, NotificationKind};
pub use self::observation::{Level, Observation, Timing};
pub use self::report::AlertReport;
pub use self::rule::{AlertRule, AlertView, HealthSource, Reach, Reading};
pub use self::rules::{
    AGGREGATION_AGE_SECONDS, AUDIT_EVENTS_DROPPED, AUDIT_EVENTS_PENDING, AggregationOverdue, CostAnomaly,
    EVENTS_DROPPED, EVENTS_PENDING, EVENTS_REJECTED, HealthRule, HighErrorRate, HighLatency, QuotaExceeded,
    QuotaThresholds, SealOverdue, UnpricedShare,
};
pub use self::silence::{Silence, SilenceId};
#[cfg(feature = "webhook")]
pub use self::sink::{AddressPolicy, AlertmanagerSink, WebhookSecret, WebhookSink, WebhookSinkBuilder};
pub use self::sink::{AlertSink, LogSink};
#[cfg(feature = "email")]
pub use self::sink::{EmailSecurity, EmailSink, EmailSinkBuilder};
