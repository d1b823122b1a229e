//! Events read back from this crate's own JSON.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Deserialize;

use crate::audit::hash::from_hex;
use crate::audit::{
    Actor, AuditContext, AuditEvent, AuditResult, AuditType, ClientIp, ExportFormat, Hash, PersonalData,
    Severity, Target, UserAgent,
};
use crate::text::Label;
use crate::usage::{ErrorMessage, EventId, Metadata};
use crate::{Error, Result, TenantId};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredEvent {
    tenant_id: TenantId,
    id: EventId,
    timestamp: DateTime<Utc>,
    event_type: AuditType,
    schema_version: u16,
    actor: Actor,
    target: Option<Target>,
    action: Label,
    result: AuditResult,
    severity: Severity,
    context: StoredContext,
    represents: u32,
    metadata: Metadata,
    error_message: Option<String>,
    personal: BTreeMap<Label, StoredPersonal>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredContext {
    ip: Option<ClientIp>,
    user_agent: Option<String>,
    request_id: Option<Label>,
    trace_id: Option<Label>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredPersonal {
    subject: Label,
    commitment: Hash,
    ciphertext: String,
}

impl AuditEvent {
    /// Reads an event from a line of [`ExportFormat::Jsonl`](crate::audit::ExportFormat::Jsonl), byte for byte as it was
    /// written: nothing that reading would tidy away, such as a field twice or digits that no number holds, can hide in it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `event` if it is anything else.
    pub fn from_json(line: &str) -> Result<Self> {
        let malformed = || Error::invalid("event", "is none that this crate wrote");
        let stored: StoredEvent =
            serde_json::from_str(line).map_err(|error| malformed().with_source(error))?;
        let mut event = Self::from_stored(
            stored.tenant_id,
            stored.id,
            stored.timestamp,
            stored.event_type,
            stored.actor,
            stored.action,
            stored.result,
        )?;
        event.schema_version = stored.schema_version;
        event.target = stored.target;
        event.severity = stored.severity;
        event.context = AuditContext {
            ip: stored.context.ip,
            user_agent: stored.context.user_agent.and_then(UserAgent::new),
            request_id: stored.context.request_id,
            trace_id: stored.context.trace_id,
        };
        event.represents = stored.represents;
        event.metadata = stored.metadata;
        event.error_message = stored.error_message.map(ErrorMessage::new);
        for (name, data) in stored.personal {
            let ciphertext = from_hex(&data.ciphertext).ok_or_else(malformed)?;
            let data = PersonalData::from_stored(data.subject, data.commitment, ciphertext);
            event.personal.insert(name, data);
        }
        if ExportFormat::Jsonl.line(&event)? == line { Ok(event) } else { Err(malformed()) }
    }
}
