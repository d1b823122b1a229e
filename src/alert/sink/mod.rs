//! Where notifications go.

#[cfg(feature = "webhook")]
mod address;
#[cfg(feature = "webhook")]
mod alertmanager;
#[cfg(feature = "email")]
mod email;
#[cfg(feature = "webhook")]
mod http;
mod log;
#[cfg(feature = "webhook")]
mod signature;
#[cfg(feature = "webhook")]
mod webhook;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

#[cfg(feature = "webhook")]
pub use self::address::AddressPolicy;
#[cfg(feature = "webhook")]
pub use self::alertmanager::AlertmanagerSink;
#[cfg(feature = "email")]
pub use self::email::{EmailSecurity, EmailSink, EmailSinkBuilder};
pub use self::log::LogSink;
#[cfg(feature = "webhook")]
pub use self::signature::WebhookSecret;
#[cfg(feature = "webhook")]
pub use self::webhook::{WebhookSink, WebhookSinkBuilder};

use crate::Result;
use crate::alert::Notification;

/// Where notifications go. Write your own by implementing this.
///
/// A notification comes at least once: again, after an attempt whose end nobody saw, with the same
/// [`idempotency_id`](Notification::idempotency_id). Of one notification there is at most one attempt at a time, whatever number
/// of processes deliver.
#[async_trait]
pub trait AlertSink: Debug + Send + Sync + 'static {
    /// Delivers a notification.
    ///
    /// # Errors
    /// A transient one ([`Error::is_transient`](crate::Error::is_transient)) is tried again later, any other makes the
    /// notification a dead letter. What an error says is stored: it holds no secrets.
    ///
    /// # Cancel safety
    /// It is dropped when it takes longer than the engine allows, and counts as not delivered.
    async fn deliver(&self, notification: &Notification, now: DateTime<Utc>) -> Result<()>;

    /// How often it wants to be told again of an incident that goes on firing; not, by default.
    fn remind_every(&self) -> Option<Duration> {
        None
    }
}
