//! Events in the forms that other systems take.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use crate::audit::{AuditEvent, AuditResult, Severity};
use crate::{Error, ErrorKind, Result};

/// A form in which events leave, one JSON object a line.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ExportFormat {
    /// This crate's own fields.
    Jsonl,
    /// `CloudEvents` 1.0 (<https://github.com/cloudevents/spec>), with this crate's own fields as data.
    CloudEvents,
    /// OCSF 1.3 (<https://schema.ocsf.io>): class Authentication for failed authentication, API Activity for the rest.
    Ocsf,
}

/// The version of OCSF that events are written in.
const OCSF_VERSION: &str = "1.3.0";

impl ExportFormat {
    /// An event as one line, without its end.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if it cannot be written as JSON, which does not happen.
    pub fn line(self, event: &AuditEvent) -> Result<String> {
        let own = || serde_json::to_value(event).map_err(unwritable);
        let value = match self {
            Self::Jsonl => own()?,
            Self::CloudEvents => cloud_event(event, &own()?),
            Self::Ocsf => ocsf(event, &own()?),
        };
        serde_json::to_string(&Sorted(&value)).map_err(unwritable)
    }
}

/// A value with the keys of all objects in their order, which a feature of `serde_json` in another crate must not change: what
/// is written has to be the same to the byte wherever it is read.
struct Sorted<'a>(&'a Value);

impl Serialize for Sorted<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Array(items) => serializer.collect_seq(items.iter().map(Sorted)),
            Value::Object(map) => {
                let sorted: BTreeMap<&String, Sorted<'_>> =
                    map.iter().map(|(key, value)| (key, Sorted(value))).collect();
                serializer.collect_map(sorted)
            }
            other => other.serialize(serializer),
        }
    }
}

fn unwritable(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Misuse, "the event cannot be written as JSON").with_source(error)
}

fn cloud_event(event: &AuditEvent, own: &Value) -> Value {
    json!({
        "specversion": "1.0",
        "id": event.id(),
        "source": "metertrail/audit",
        "type": format!("metertrail.audit.{}", event.event_type),
        "subject": event.tenant_id,
        "time": own["timestamp"],
        "datacontenttype": "application/json",
        "data": own,
    })
}

fn ocsf(event: &AuditEvent, own: &Value) -> Value {
    let is_authentication = event.event_type.as_str() == "security.auth_failed";
    let (class_uid, class_name, category_uid, category_name) = if is_authentication {
        (3002, "Authentication", 3, "Identity & Access Management")
    } else {
        (6003, "API Activity", 6, "Application Activity")
    };
    let (activity_id, activity_name) = if is_authentication { (1, "Logon") } else { activity(event) };
    let (status_id, status) = match event.result {
        AuditResult::Success => (1, "Success"),
        AuditResult::Failure | AuditResult::Denied => (2, "Failure"),
    };
    let (severity_id, severity) = match event.severity {
        Severity::Info => (1, "Informational"),
        Severity::Warning => (3, "Medium"),
        Severity::Error => (4, "High"),
        Severity::Critical => (5, "Critical"),
    };
    let user = json!({ "uid": event.actor.id, "type": event.actor.kind, "type_id": 99 });
    // A network is no address there; it is in the fields of our own.
    let address = event.context.ip.filter(|ip| !ip.is_network()).map(|ip| ip.to_string());
    json!({
        "metadata": {
            "version": OCSF_VERSION,
            "product": { "name": "metertrail", "vendor_name": "metertrail" },
            "uid": event.id(),
            "tenant_uid": event.tenant_id,
            "event_code": event.event_type,
        },
        "class_uid": class_uid,
        "class_name": class_name,
        "category_uid": category_uid,
        "category_name": category_name,
        "activity_id": activity_id,
        "activity_name": activity_name,
        "type_uid": class_uid * 100 + activity_id,
        "time": event.occurred_at().timestamp_millis(),
        "severity_id": severity_id,
        "severity": severity,
        "status_id": status_id,
        "status": status,
        "status_detail": event.error_message,
        "count": event.represents,
        "actor": { "user": user.clone() },
        "user": user,
        "api": { "operation": event.action, "request": { "uid": event.context.request_id } },
        "src_endpoint": { "ip": address },
        "http_request": { "user_agent": event.context.user_agent },
        "resources": event.target.iter().map(|target| json!({ "type": target.kind, "uid": target.id })).collect::<Vec<_>>(),
        "unmapped": own,
    })
}

/// What an action is called there: create, read, update, delete, or other.
fn activity(event: &AuditEvent) -> (u32, &'static str) {
    const WORDS: [(&[&str], u32, &str); 4] = [
        (&["created", "uploaded", "added", "manual_added", "crawled"], 1, "Create"),
        (&["access", "read", "exported"], 2, "Read"),
        (&["updated", "upgraded", "extended", "changed", "assigned", "rotated"], 3, "Update"),
        (&["deleted", "erased", "expired", "cancelled"], 4, "Delete"),
    ];
    let action = event.action.as_str();
    let is_it = |word: &&str| action == *word || action.ends_with(&format!("_{word}"));
    let known = WORDS.iter().find(|(words, ..)| words.iter().any(is_it));
    known.map_or((99, "Other"), |(_, id, name)| (*id, *name))
}
