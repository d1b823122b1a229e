//! What is told, to whom, and what became of it.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::alert::{Incident, IncidentId};
use crate::text::Label;
use crate::{Error, Result, TenantId};

/// What is told of an incident.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum NotificationKind {
    /// It fires.
    Firing,
    /// It is over.
    Resolved,
    /// It is none: somebody tries a sink.
    Test,
}

impl NotificationKind {
    /// The name in storage, JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for NotificationKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for NotificationKind {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = [Self::Firing, Self::Resolved, Self::Test].into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| Error::invalid("kind", "must be firing, resolved or test"))
    }
}

/// The place of a notification: one of each kind for an incident and sink.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct NotificationKey {
    /// Whose incident.
    pub tenant_id: Option<TenantId>,
    /// Which.
    pub incident_id: IncidentId,
    /// What is told.
    pub kind: NotificationKind,
    /// To which sink.
    pub sink: Label,
}

impl NotificationKey {
    /// The same at every attempt, and another one for every sink: by it a receiver knows what it was told before.
    pub fn idempotency_id(&self) -> Uuid {
        let text = format!("{}\0{}\0{}", self.incident_id, self.kind, self.sink);
        Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
    }
}

/// An incident on its way to a sink.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Notification {
    /// Which one it is.
    pub key: NotificationKey,
    /// The incident as it was when the notification was taken for delivery.
    pub incident: Incident,
    /// Which attempt this is, from 1; those of processes that died count.
    pub attempt: u32,
}

impl Notification {
    /// A notification on its way for the so-manieth time; for stores.
    pub fn new(key: NotificationKey, incident: Incident, attempt: u32) -> Self {
        Self { key, incident, attempt }
    }

    /// What is told.
    pub fn kind(&self) -> NotificationKind {
        self.key.kind
    }

    /// By what a receiver knows it when it comes again.
    pub fn idempotency_id(&self) -> Uuid {
        self.key.idempotency_id()
    }

    /// One line for people: what, whose, how much.
    pub fn summary(&self) -> String {
        let Incident { tenant_id, rule, subject, value, threshold, unit, .. } = &self.incident;
        let of = |name: &str| format!(" of {name}");
        let tenant = tenant_id.as_ref().map(|tenant_id| of(tenant_id.as_str())).unwrap_or_default();
        let subject = subject.as_ref().map(|subject| format!(" ({subject})")).unwrap_or_default();
        let (value, threshold) = (value.normalize(), threshold.normalize());
        format!("[{}] {rule}{subject}{tenant}: {value} {unit}, threshold {threshold}", self.kind())
    }
}

/// What became of an attempt to deliver.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Attempted {
    /// It arrived. If the incident still fires then, the sink wants to be told again at this instant.
    Delivered {
        /// When, if the sink wants to be reminded.
        again_at: Option<DateTime<Utc>>,
    },
    /// It did not, and is tried again at this instant.
    Failed {
        /// When.
        retry_at: DateTime<Utc>,
        /// Why, without secrets.
        error: String,
    },
    /// It did not, and is tried no more until somebody says so: a dead letter.
    Dead {
        /// Why, without secrets.
        error: String,
    },
}

/// A notification that could not be delivered.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct DeadLetter {
    /// Which one it is.
    pub key: NotificationKey,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was last tried.
    pub died_at: DateTime<Utc>,
    /// Why it failed.
    pub error: String,
}

impl DeadLetter {
    /// A notification that was given up; for stores.
    pub fn new(key: NotificationKey, attempts: u32, died_at: DateTime<Utc>, error: String) -> Self {
        Self { key, attempts, died_at, error }
    }
}
