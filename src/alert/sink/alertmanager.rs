//! The Alertmanager of Prometheus.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Map, Value, json};

use crate::alert::sink::AlertSink;
use crate::alert::sink::address::AddressPolicy;
use crate::alert::sink::http::{Endpoint, Poster};
use crate::alert::{Notification, NotificationKind};
use crate::{Error, Result};

/// The longest pause between two reminders; beyond that alerts would end by themselves as the receiver is usually set up.
const REMIND_MAX: Duration = Duration::from_secs(60 * 60);

/// Sends alerts to the [API v2](https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml) of an Alertmanager:
/// again every two minutes as long as an incident fires, since an alert of which nothing is heard ends by itself there (after
/// four pauses), and once with its end. Which of several alerts is which, silences and routes are for it to know: the labels are
/// `alertname`, `severity`, `tenant_id`, `subject` and those of [`label`](Self::label).
///
/// ```
/// use metertrail::alert::{AddressPolicy, AlertmanagerSink};
///
/// let inside = AddressPolicy::public_only().allow("10.0.0.0/8")?;
/// let sink = AlertmanagerSink::new("http://alertmanager.internal:9093", inside)?.label("service", "chat")?;
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct AlertmanagerSink {
    endpoint: Endpoint,
    poster: Poster,
    labels: BTreeMap<String, String>,
    remind_every: Duration,
}

impl AlertmanagerSink {
    /// A sink for the Alertmanager at this URL, `http` or `https`, which has one of these addresses.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `url`.
    pub fn new(url: &str, addresses: AddressPolicy) -> Result<Self> {
        let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
        Ok(Self {
            endpoint: Endpoint::new(&url, true)?,
            poster: Poster::new(addresses, &[])?,
            labels: BTreeMap::new(),
            remind_every: Duration::from_secs(120),
        })
    }

    /// One label more, the same for all alerts.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `label` if the name is not letters, digits and `_`.
    pub fn label(mut self, name: &str, value: &str) -> Result<Self> {
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && name.chars().all(|other| other.is_ascii_alphanumeric() || other == '_');
        if !is_name {
            return Err(Error::invalid("label", "must have a name of letters, digits and _"));
        }
        self.labels.insert(name.to_owned(), value.to_owned());
        Ok(self)
    }

    /// Tells again after so long, as long as an incident fires.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `remind_every` if it is zero or longer than an hour.
    pub fn remind_every(mut self, remind_every: Duration) -> Result<Self> {
        if remind_every.is_zero() || remind_every > REMIND_MAX {
            return Err(Error::invalid("remind_every", "must be at most an hour, and not zero"));
        }
        self.remind_every = remind_every;
        Ok(self)
    }

    fn alert(&self, notification: &Notification, now: DateTime<Utc>) -> Value {
        let incident = &notification.incident;
        let mut labels: Map<String, Value> =
            self.labels.iter().map(|(name, value)| (name.clone(), value.clone().into())).collect();
        labels.insert("alertname".to_owned(), incident.rule.as_str().into());
        labels.insert("severity".to_owned(), incident.severity.as_str().into());
        if let Some(tenant_id) = &incident.tenant_id {
            labels.insert("tenant_id".to_owned(), tenant_id.as_str().into());
        }
        if let Some(subject) = &incident.subject {
            labels.insert("subject".to_owned(), subject.as_str().into());
        }
        let ends_at = match notification.kind() {
            NotificationKind::Resolved => incident.resolved_at.unwrap_or(now),
            _ => now + TimeDelta::from_std(self.remind_every * 4).unwrap_or(TimeDelta::hours(4)),
        };
        json!({
            "labels": labels,
            "annotations": {
                "summary": notification.summary(),
                "value": incident.value.normalize().to_string(),
                "threshold": incident.threshold.normalize().to_string(),
                "unit": incident.unit,
                "incident_id": incident.id,
            },
            "startsAt": incident.fired_at.unwrap_or(incident.opened_at),
            "endsAt": ends_at,
        })
    }
}

#[async_trait]
impl AlertSink for AlertmanagerSink {
    async fn deliver(&self, notification: &Notification, now: DateTime<Utc>) -> Result<()> {
        let body = Value::Array(vec![self.alert(notification, now)]).to_string().into_bytes();
        self.poster.post(&self.endpoint, &[], body).await
    }

    fn remind_every(&self) -> Option<Duration> {
        Some(self.remind_every)
    }
}
