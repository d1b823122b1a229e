//! The log of the process.

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::Result;
use crate::TenantId;
use crate::alert::sink::AlertSink;
use crate::alert::{Notification, NotificationKind, Severity};
use crate::text::Label;

/// Writes notifications as events of `tracing`, under the target `metertrail::alert`: those of critical incidents as errors,
/// of others as warnings, the ends of incidents and tests as information.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogSink;

#[async_trait]
impl AlertSink for LogSink {
    async fn deliver(&self, notification: &Notification, _now: DateTime<Utc>) -> Result<()> {
        let incident = &notification.incident;
        // The level of an event is part of its call site, so there is one of each.
        macro_rules! write_as {
            ($level:ident) => {
                tracing::$level!(
                    target: "metertrail::alert",
                    incident = %incident.id,
                    rule = %incident.rule,
                    tenant = incident.tenant_id.as_ref().map(TenantId::as_str),
                    subject = incident.subject.as_ref().map(Label::as_str),
                    severity = %incident.severity,
                    value = %incident.value.normalize(),
                    threshold = %incident.threshold.normalize(),
                    unit = %incident.unit,
                    "metertrail: {}",
                    notification.summary(),
                )
            };
        }
        match (notification.kind(), incident.severity) {
            (NotificationKind::Firing, Severity::Critical) => write_as!(error),
            (NotificationKind::Firing, _) => write_as!(warn),
            _ => write_as!(info),
        }
        Ok(())
    }
}
