//! Any endpoint over HTTP.

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use serde_json::json;

use crate::alert::Notification;
use crate::alert::sink::AlertSink;
use crate::alert::sink::address::AddressPolicy;
use crate::alert::sink::http::{Endpoint, Poster};
use crate::alert::sink::signature::WebhookSecret;
use crate::{Error, Result};

/// Posts notifications as JSON to an endpoint, signed as [Standard Webhooks](https://www.standardwebhooks.com) has it.
///
/// The body is `{"type": "incident.firing", "timestamp": .., "data": {the incident}}`, the types are `incident.firing`,
/// `incident.resolved` and `incident.test`. `webhook-id` is the same at every attempt. While secrets are exchanged there is one
/// signature of each. Only `https` and only public addresses, unless otherwise allowed; nothing is redirected; of the answer
/// only the status is looked at: 2xx is a success, 408, 425, 429 and 5xx are tried again, everything else is not.
///
/// ```
/// use metertrail::alert::{WebhookSecret, WebhookSink};
///
/// let secret = WebhookSecret::new("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")?;
/// let sink = WebhookSink::builder("https://hooks.example.org/T0/B0/secret-path").secret(secret).build()?;
/// assert!(!format!("{sink:?}").contains("secret-path"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WebhookSink {
    endpoint: Endpoint,
    poster: Poster,
    secrets: Vec<WebhookSecret>,
}

impl WebhookSink {
    /// A sink for this URL, which needs a secret.
    pub fn builder(url: &str) -> WebhookSinkBuilder {
        WebhookSinkBuilder {
            url: url.to_owned(),
            secrets: Vec::new(),
            policy: AddressPolicy::public_only(),
            authorities: Vec::new(),
            may_be_plain: false,
        }
    }
}

#[async_trait]
impl AlertSink for WebhookSink {
    async fn deliver(&self, notification: &Notification, now: DateTime<Utc>) -> Result<()> {
        let incident = &notification.incident;
        let happened_at = incident.resolved_at.or(incident.fired_at).unwrap_or(incident.opened_at);
        let body = json!({
            "type": format!("incident.{}", notification.kind()),
            "timestamp": happened_at,
            "data": incident,
        });
        let body = body.to_string().into_bytes();
        let (id, timestamp) = (notification.idempotency_id().to_string(), now.timestamp());
        let signatures: Vec<String> =
            self.secrets.iter().map(|secret| secret.sign(&id, timestamp, &body)).collect();
        let headers = [
            ("webhook-id", id),
            ("webhook-timestamp", timestamp.to_string()),
            ("webhook-signature", signatures.join(" ")),
        ];
        self.poster.post(&self.endpoint, &headers, body).await
    }
}

/// Settings of a [`WebhookSink`].
#[derive(Clone)]
#[must_use]
pub struct WebhookSinkBuilder {
    url: String,
    secrets: Vec<WebhookSecret>,
    policy: AddressPolicy,
    authorities: Vec<Vec<u8>>,
    may_be_plain: bool,
}

impl WebhookSinkBuilder {
    /// Signs with this secret, too.
    pub fn secret(mut self, secret: WebhookSecret) -> Self {
        self.secrets.push(secret);
        self
    }

    /// Which addresses may be connected to; public ones by default.
    pub fn addresses(mut self, policy: AddressPolicy) -> Self {
        self.policy = policy;
        self
    }

    /// Also plain `http`.
    pub fn allow_plain_http(mut self) -> Self {
        self.may_be_plain = true;
        self
    }

    /// Trusts this authority, a certificate in DER, besides the usual ones.
    pub fn root_certificate(mut self, der: impl Into<Vec<u8>>) -> Self {
        self.authorities.push(der.into());
        self
    }

    /// The sink.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `url`, on `root_certificate`, on `secret` if there is none.
    pub fn build(self) -> Result<WebhookSink> {
        if self.secrets.is_empty() {
            return Err(Error::invalid("secret", "must be given: a receiver could not tell who sends"));
        }
        Ok(WebhookSink {
            endpoint: Endpoint::new(&self.url, self.may_be_plain)?,
            poster: Poster::new(self.policy, &self.authorities)?,
            secrets: self.secrets,
        })
    }
}

/// Shows no path, which may hold a secret.
impl std::fmt::Debug for WebhookSinkBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("WebhookSinkBuilder").field("policy", &self.policy).finish_non_exhaustive()
    }
}
