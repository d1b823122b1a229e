//! Rows of the audit tables to values of the domain and back: the only place that knows the order of their columns.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::{ToSql, Type};
use uuid::Uuid;

use super::exact::ExactJson;
use crate::audit::tree::{Frontier, TreeNode};
use crate::audit::{
    Actor, AuditContext, AuditEvent, AuditResult, AuditType, BatchRecord, ClientIp, Hash, KeptNode,
    PersonalData, Severity, StoredEpoch, Target, TenantHead, TreeLeaf, UserAgent, WriterId,
};
use crate::store::AuditRow;
use crate::store::postgres::rows::{get, misread, natural};
use crate::text::Label;
use crate::usage::{ErrorMessage, EventId, Metadata};
use crate::{Result, TenantId};

/// The columns of an audit event, in the order of every statement that names them.
pub(super) const EVENT_TYPES: [Type; 20] = [
    Type::TEXT,
    Type::UUID,
    Type::TIMESTAMPTZ,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::JSONB,
    Type::TEXT,
    Type::INT4,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::TEXT,
    Type::INT8,
    Type::JSONB,
];

/// The columns of a node of a tree.
pub(super) const NODE_TYPES: [Type; 5] = [Type::TEXT, Type::INT2, Type::INT8, Type::BYTEA, Type::UUID];

/// One event as a row.
pub(super) struct EventRow<'a> {
    tenant_id: &'a str,
    id: Uuid,
    timestamp: DateTime<Utc>,
    event_type: &'a str,
    action: &'a str,
    result: &'static str,
    metadata: Option<Value>,
    error_message: Option<&'a str>,
    schema_version: i32,
    severity: &'static str,
    actor: (&'a str, &'a str),
    target: (&'a str, &'a str),
    ip: Option<String>,
    user_agent: Option<&'a str>,
    request_id: Option<&'a str>,
    trace_id: Option<&'a str>,
    represents: i64,
    personal: Option<Value>,
}

impl<'a> EventRow<'a> {
    pub(super) fn new(event: &'a AuditEvent) -> Self {
        Self {
            tenant_id: event.tenant_id.as_str(),
            id: event.id().as_uuid(),
            timestamp: event.occurred_at(),
            event_type: event.event_type.as_str(),
            action: event.action.as_str(),
            result: event.result.as_str(),
            metadata: event.metadata.as_map().map(|map| Value::Object(map.clone())),
            error_message: event.error_message.as_ref().map(ErrorMessage::as_str),
            schema_version: event.schema_version.into(),
            severity: event.severity.as_str(),
            actor: (event.actor.kind.as_str(), event.actor.id.as_str()),
            target: event
                .target
                .as_ref()
                .map_or(("", ""), |target| (target.kind.as_str(), target.id.as_str())),
            ip: event.context.ip.map(|ip| ip.to_string()),
            user_agent: event.context.user_agent.as_ref().map(UserAgent::as_str),
            request_id: event.context.request_id.as_ref().map(Label::as_str),
            trace_id: event.context.trace_id.as_ref().map(Label::as_str),
            represents: event.represents.into(),
            personal: personal_to_json(&event.personal),
        }
    }

    pub(super) fn values(&self) -> [&(dyn ToSql + Sync); 20] {
        [
            &self.tenant_id,
            &self.id,
            &self.timestamp,
            &self.event_type,
            &self.action,
            &self.result,
            &self.metadata,
            &self.error_message,
            &self.schema_version,
            &self.severity,
            &self.actor.0,
            &self.actor.1,
            &self.target.0,
            &self.target.1,
            &self.ip,
            &self.user_agent,
            &self.request_id,
            &self.trace_id,
            &self.represents,
            &self.personal,
        ]
    }
}

/// A piece of personal data in the column of that name.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct StoredPersonal {
    subject: Label,
    commitment: Hash,
    ciphertext: String,
}

fn personal_to_json(personal: &BTreeMap<Label, PersonalData>) -> Option<Value> {
    let stored = personal.iter().filter_map(|(name, data)| {
        let (commitment, ciphertext) = data.sealed()?;
        let (subject, ciphertext) = (data.subject().clone(), crate::audit::hash::to_hex(ciphertext));
        let stored = StoredPersonal { subject, commitment, ciphertext };
        Some((name.as_str().to_owned(), serde_json::to_value(stored).ok()?))
    });
    let map: serde_json::Map<String, Value> = stored.collect();
    (!map.is_empty()).then_some(Value::Object(map))
}

fn personal_from_json(json: Option<Value>) -> Result<BTreeMap<Label, PersonalData>> {
    let Some(json) = json else {
        return Ok(BTreeMap::new());
    };
    let stored: BTreeMap<String, StoredPersonal> = serde_json::from_value(json)
        .map_err(|error| misread("the column personal holds something else").with_source(error))?;
    let data = |(name, stored): (String, StoredPersonal)| {
        let ciphertext = crate::audit::hash::from_hex(&stored.ciphertext);
        let ciphertext = ciphertext.ok_or_else(|| misread("a ciphertext is none"))?;
        let data = PersonalData::from_stored(stored.subject, stored.commitment, ciphertext);
        Ok((Label::new("personal", name)?, data))
    };
    stored.into_iter().map(data).collect()
}

/// An event from a row that has the columns in the order of [`EVENT_TYPES`].
pub(super) fn event(row: &Row) -> Result<AuditEvent> {
    let mut event = AuditEvent::from_stored(
        TenantId::new(get::<&str>(row, 0)?)?,
        EventId::from_uuid(get(row, 1)?)?,
        get(row, 2)?,
        AuditType::new(get::<&str>(row, 3)?)?,
        Actor::new(get::<&str>(row, 10)?, get::<&str>(row, 11)?)?,
        Label::new("action", get::<&str>(row, 4)?)?,
        get::<&str>(row, 5)?.parse::<AuditResult>()?,
    )?;
    let metadata = get::<Option<ExactJson>>(row, 6)?;
    event.metadata = metadata.map(|json| Metadata::new(json.0)).transpose()?.unwrap_or_default();
    event.error_message = get::<Option<&str>>(row, 7)?.map(ErrorMessage::new);
    event.schema_version =
        u16::try_from(get::<i32>(row, 8)?).map_err(|_| misread("schema_version is none"))?;
    event.severity = get::<&str>(row, 9)?.parse::<Severity>()?;
    event.target = match (get::<&str>(row, 12)?, get::<&str>(row, 13)?) {
        ("", "") => None,
        (kind, id) => Some(Target::new(kind, id)?),
    };
    let label =
        |index, field| get::<Option<&str>>(row, index)?.map(|text| Label::new(field, text)).transpose();
    event.context = AuditContext {
        ip: get::<Option<&str>>(row, 14)?.map(str::parse::<ClientIp>).transpose()?,
        user_agent: get::<Option<&str>>(row, 15)?.and_then(UserAgent::new),
        request_id: label(16, "request_id")?,
        trace_id: label(17, "trace_id")?,
    };
    event.represents = u32::try_from(get::<i64>(row, 18)?).map_err(|_| misread("represents is none"))?;
    event.personal = personal_from_json(get(row, 19)?)?;
    if is_as_kept(row, &event)? { Ok(event) } else { Err(misread("a text is not as it was written")) }
}

/// Texts that reading would tidy up are not as they were written: the difference must not vanish.
fn is_as_kept(row: &Row, event: &AuditEvent) -> Result<bool> {
    let message = event.error_message.as_ref().map(ErrorMessage::as_str);
    let user_agent = event.context.user_agent.as_ref().map(UserAgent::as_str);
    Ok(get::<Option<&str>>(row, 7)? == message
        && get::<Option<&str>>(row, 15)? == user_agent
        && get::<Option<Value>>(row, 6)?.is_none() == event.metadata.is_empty()
        && get::<Option<Value>>(row, 19)? == personal_to_json(&event.personal))
}

/// An event as it is kept, readable or not.
pub(super) fn audit_row(row: &Row) -> Result<AuditRow> {
    Ok(AuditRow { tenant_id: TenantId::new(get::<&str>(row, 0)?)?, id: get(row, 1)?, event: event(row) })
}

/// The key of a batch from a row of writer, sequence.
pub(super) fn batch_key(row: &Row) -> Result<(WriterId, u64)> {
    Ok((WriterId::from_uuid(get(row, 0)?), natural(row, 1, get(row, 1)?)?))
}

/// A batch from a row of writer, sequence, header, manifest, signature.
pub(super) fn batch(row: &Row) -> Result<BatchRecord> {
    Ok(BatchRecord {
        writer_id: WriterId::from_uuid(get(row, 0)?),
        sequence: natural(row, 1, get(row, 1)?)?,
        header: get(row, 2)?,
        manifest: get(row, 3)?,
        signature: get(row, 4)?,
    })
}

/// An epoch from a row of number, record, checkpoint, frontier.
pub(super) fn epoch(row: &Row) -> Result<StoredEpoch> {
    Ok(StoredEpoch {
        number: natural(row, 0, get(row, 0)?)?,
        record: get(row, 1)?,
        checkpoint: get(row, 2)?,
        frontier: get(row, 3)?,
    })
}

/// A head from a row of tenant, size, root, frontier. One that does not hold together is for the verifier to find.
pub(super) fn head(row: &Row) -> Result<TenantHead> {
    let size = natural(row, 1, get(row, 1)?)?;
    Ok(TenantHead {
        tenant_id: TenantId::new(get::<&str>(row, 0)?)?,
        root: Hash::try_from(get::<&[u8]>(row, 2)?).unwrap_or(Hash::ZERO),
        frontier: Frontier::from_bytes_or_damaged(size, get(row, 3)?),
    })
}

/// A node from a row of level, position, hash, event.
pub(super) fn node(row: &Row) -> Result<KeptNode> {
    let level = u8::try_from(get::<i16>(row, 0)?).map_err(|_| misread("a level of a tree is none"))?;
    let hash = Hash::try_from(get::<&[u8]>(row, 2)?).unwrap_or(Hash::ZERO);
    let node = TreeNode { level, position: natural(row, 1, get(row, 1)?)?, hash };
    Ok(KeptNode { node, event_id: get::<Option<Uuid>>(row, 3)?.map(EventId::bound) })
}

/// A leaf from a row of tenant, position, hash, event.
pub(super) fn leaf(row: &Row) -> Result<(TenantId, TreeLeaf)> {
    let hash = Hash::try_from(get::<&[u8]>(row, 2)?).unwrap_or(Hash::ZERO);
    let position = natural(row, 1, get(row, 1)?)?;
    let leaf = TreeLeaf { position, hash, event_id: EventId::bound(get(row, 3)?) };
    Ok((TenantId::new(get::<&str>(row, 0)?)?, leaf))
}
