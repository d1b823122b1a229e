//! One thing that happened, as it stands in the trail.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::audit::canonical::Canonical;
use crate::audit::hash::to_hex;
use crate::audit::{
    Actor, AuditContext, AuditRecord, AuditResult, AuditType, Hash, PERSONAL_FIELDS_MAX, PersonalData,
    Severity, Target,
};
use crate::text::Label;
use crate::time::{TIME_MAX, TIME_MIN, truncated};
use crate::usage::{ErrorMessage, EventId, Metadata};
use crate::{Error, ErrorKind, Result, TenantId};

/// One thing that happened. Its key is (tenant, [`id`](Self::id)); it is written once and never changed.
///
/// ```
/// use metertrail::TenantId;
/// use metertrail::audit::{Actor, AuditEvent, TrialAudit};
/// use metertrail::time::{Clock, SystemClock};
///
/// let created = TrialAudit::Created { plan: "pro".into(), days: 14 };
/// let event = AuditEvent::new(TenantId::new("acme")?, SystemClock.now(), Actor::user("u-71")?, &created)?;
/// assert_eq!((event.event_type.as_str(), event.action.as_str()), ("trial.created", "created"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct AuditEvent {
    /// Whose trail it is in.
    pub tenant_id: TenantId,
    id: EventId,
    #[serde(rename = "timestamp")]
    occurred_at: DateTime<Utc>,
    /// What kind of thing happened.
    pub event_type: AuditType,
    /// The version of the type's schema.
    pub schema_version: u16,
    /// Who did it.
    pub actor: Actor,
    /// What it was done to.
    pub target: Option<Target>,
    /// What was done.
    pub action: Label,
    /// How it ended.
    pub result: AuditResult,
    /// How grave it is.
    pub severity: Severity,
    /// From where it was done.
    pub context: AuditContext,
    /// For how many events of its type it stands: more than one where a chatty type is sampled.
    pub represents: u32,
    /// What the type's schema has, and nothing about a person.
    pub metadata: Metadata,
    /// What went wrong.
    pub error_message: Option<ErrorMessage>,
    /// What is about a person, by name.
    #[serde(serialize_with = "serialize_personal")]
    pub personal: BTreeMap<Label, PersonalData>,
}

impl AuditEvent {
    /// An event of a known type, with a new id. The instant is kept to the microsecond and moved into the crate's range of
    /// time.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `metadata` if the record's fields are not those of its schema, or too
    /// large; on `event_type` or `action` if the schema's are no names.
    pub fn new(
        tenant_id: TenantId,
        occurred_at: DateTime<Utc>,
        actor: Actor,
        record: &(impl AuditRecord + ?Sized),
    ) -> Result<Self> {
        let schema = record.schema();
        let fields = record.fields();
        schema.check(&fields)?;
        let occurred_at = truncated(occurred_at.clamp(TIME_MIN, TIME_MAX - TimeDelta::microseconds(1)));
        Ok(Self {
            tenant_id,
            id: EventId::at(occurred_at),
            occurred_at,
            event_type: AuditType::new(schema.event_type)?,
            schema_version: schema.version,
            actor,
            target: record.target(),
            action: Label::new("action", schema.action)?,
            result: record.result(),
            severity: schema.severity,
            context: AuditContext::default(),
            represents: 1,
            metadata: Metadata::new(fields)?,
            error_message: record.error_message(),
            personal: BTreeMap::new(),
        })
    }

    /// An event read back from a store, without what is optional.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `id` if its time is not that of `occurred_at` to the millisecond.
    pub fn from_stored(
        tenant_id: TenantId,
        id: EventId,
        occurred_at: DateTime<Utc>,
        event_type: AuditType,
        actor: Actor,
        action: Label,
        result: AuditResult,
    ) -> Result<Self> {
        if id.millisecond().timestamp_millis() != occurred_at.timestamp_millis() {
            return Err(Error::invalid("id", format!("its time is not that of occurred_at, {occurred_at}")));
        }
        Ok(Self {
            tenant_id,
            id,
            occurred_at,
            event_type,
            schema_version: 1,
            actor,
            target: None,
            action,
            result,
            severity: Severity::Info,
            context: AuditContext::default(),
            represents: 1,
            metadata: Metadata::default(),
            error_message: None,
            personal: BTreeMap::new(),
        })
    }

    /// The same event with where it came from.
    #[must_use]
    pub fn with_context(mut self, context: AuditContext) -> Self {
        self.context = context;
        self
    }

    /// The same event with what it was done to.
    #[must_use]
    pub fn with_target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// The same event with something about a person.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `personal` if there are too many or the name is no label.
    pub fn with_personal(mut self, name: impl AsRef<str>, data: PersonalData) -> Result<Self> {
        self.personal.insert(Label::new("personal", name)?, data);
        if self.personal.len() > PERSONAL_FIELDS_MAX {
            let rule = format!("must not be more than {PERSONAL_FIELDS_MAX} in one event");
            return Err(Error::invalid("personal", rule));
        }
        Ok(self)
    }

    /// The id, unique for the tenant.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// When it happened, to the microsecond.
    pub fn occurred_at(&self) -> DateTime<Utc> {
        self.occurred_at
    }

    /// Whether it may be left out where its type is sampled: it went well, and is neither a security event nor about what is
    /// kept of persons.
    pub fn may_be_sampled(&self) -> bool {
        let is_privacy = self.event_type.as_str().starts_with("privacy.");
        self.result == AuditResult::Success && !self.event_type.is_security() && !is_privacy
    }

    /// The bytes that are sealed, in version 1 of their encoding: every field, in a fixed order.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if something about a person is not encrypted yet.
    pub fn canonical_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Canonical::new("metertrail/audit/event/1");
        bytes.text(self.tenant_id.as_str());
        bytes.fixed(self.id.as_uuid().as_bytes());
        bytes.i64(self.occurred_at.timestamp_micros());
        bytes.text(self.event_type.as_str());
        bytes.u32(self.schema_version.into());
        bytes.text(self.actor.kind.as_str());
        bytes.text(self.actor.id.as_str());
        bytes.option(self.target.as_ref().map(|target| target.kind.as_str()));
        bytes.option(self.target.as_ref().map(|target| target.id.as_str()));
        bytes.text(self.action.as_str());
        bytes.text(self.result.as_str());
        bytes.text(self.severity.as_str());
        let AuditContext { ip, user_agent, request_id, trace_id } = &self.context;
        bytes.option(ip.map(|ip| ip.to_string()).as_deref());
        bytes.option(user_agent.as_ref().map(crate::audit::UserAgent::as_str));
        bytes.option(request_id.as_ref().map(Label::as_str));
        bytes.option(trace_id.as_ref().map(Label::as_str));
        bytes.u32(self.represents);
        match self.metadata.as_map() {
            Some(map) => bytes.object(map),
            None => bytes.count(0),
        }
        bytes.option(self.error_message.as_ref().map(ErrorMessage::as_str));
        bytes.count(self.personal.len());
        for (name, data) in &self.personal {
            let (commitment, ciphertext) = data.sealed().ok_or_else(unsealed)?;
            bytes.text(name.as_str());
            bytes.text(data.subject().as_str());
            bytes.hash(commitment);
            bytes.bytes(ciphertext);
        }
        Ok(bytes.into_bytes())
    }

    /// The hash of the event's leaf in the trees.
    ///
    /// # Errors
    /// As [`canonical_bytes`](Self::canonical_bytes).
    pub fn leaf(&self) -> Result<Hash> {
        Ok(Hash::leaf(&self.canonical_bytes()?))
    }
}

fn unsealed() -> Error {
    Error::new(ErrorKind::Misuse, "the event has personal data that is not encrypted yet")
}

/// What is not sealed yet is left out: it must not leave the process.
fn serialize_personal<S: Serializer>(
    personal: &BTreeMap<Label, PersonalData>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(None)?;
    for (name, data) in personal {
        if let Some((commitment, ciphertext)) = data.sealed() {
            let sealed =
                SealedField { subject: data.subject().as_str(), commitment, ciphertext: to_hex(ciphertext) };
            map.serialize_entry(name.as_str(), &sealed)?;
        }
    }
    map.end()
}

#[derive(Serialize)]
struct SealedField<'a> {
    subject: &'a str,
    commitment: Hash,
    ciphertext: String,
}
