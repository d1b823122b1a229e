//! Incidents: what a rule found, from its first sight to its end.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::page::{Cursor, PageSize};
use crate::text::Label;
use crate::usage::EventId;
use crate::{Error, Result, TenantId};

/// The id of an incident: a `UUIDv7` of the instant at which it was opened.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct IncidentId(Uuid);

impl IncidentId {
    /// A new id for an incident that is opened at this instant.
    pub fn at(instant: DateTime<Utc>) -> Self {
        Self(EventId::at(instant).as_uuid())
    }

    /// An id that was read back.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for IncidentId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let id = text.parse().map_err(|_| Error::invalid("incident_id", "must be a UUID"))?;
        Ok(Self(id))
    }
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// To be known.
    Info,
    /// To be looked at in working hours.
    Warning,
    /// To be looked at now.
    Critical,
}

impl Severity {
    /// All of them, from mild to severe.
    pub const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Critical];

    /// The name in storage, JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|severity| severity.as_str() == name);
        found.ok_or_else(|| Error::invalid("severity", "must be info, warning or critical"))
    }
}

/// Where an incident is on its way.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IncidentState {
    /// Seen, and not yet for long enough to tell anybody.
    Pending,
    /// Told, unless it is silenced, and not over.
    Firing,
    /// Over.
    Resolved,
}

impl IncidentState {
    /// All of them, in order.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Firing, Self::Resolved];

    /// The name in storage, JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

impl fmt::Display for IncidentState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for IncidentState {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|state| state.as_str() == name);
        found.ok_or_else(|| Error::invalid("state", "must be pending, firing or resolved"))
    }
}

/// Who has taken an incident up.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Acknowledgement {
    /// Who.
    pub by: Label,
    /// When.
    pub at: DateTime<Utc>,
}

/// What a rule found about a tenant, or about the service as a whole. Of one rule, tenant and subject there is at most one
/// that is not resolved, whatever number of processes evaluate the rule.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Incident {
    /// Its id.
    pub id: IncidentId,
    /// About whom; about nobody in particular if there is none.
    pub tenant_id: Option<TenantId>,
    /// The rule that found it.
    pub rule: Label,
    /// What of the tenant or the service, where a rule looks at several things: a limit, a process.
    pub subject: Option<Label>,
    /// How bad it is.
    pub severity: Severity,
    /// Where it is on its way.
    pub state: IncidentState,
    /// What was measured when it was last looked at.
    pub value: Decimal,
    /// What it was held against.
    pub threshold: Decimal,
    /// The unit of the two, such as `ms`, `percent` or `usd`.
    pub unit: Label,
    /// When it was first seen.
    pub opened_at: DateTime<Utc>,
    /// When it began to fire.
    pub fired_at: Option<DateTime<Utc>>,
    /// Since when it looks as if it were over.
    pub calm_since: Option<DateTime<Utc>>,
    /// When a rule last said something of it, to within a few minutes.
    pub observed_at: DateTime<Utc>,
    /// When it was over.
    pub resolved_at: Option<DateTime<Utc>>,
    /// When its notifications were written down for delivery; not, as long as it is silenced.
    pub notified_at: Option<DateTime<Utc>>,
    /// Who has taken it up.
    pub acknowledged: Option<Acknowledgement>,
    /// Counts its changes; what a change must know to be made.
    pub revision: u64,
}

impl Incident {
    /// An incident as a rule first sees it: pending, of revision 1.
    pub fn opened(
        tenant_id: Option<TenantId>,
        rule: Label,
        subject: Option<Label>,
        severity: Severity,
        (value, threshold, unit): (Decimal, Decimal, Label),
        now: DateTime<Utc>,
    ) -> Self {
        Self {
            id: IncidentId::at(now),
            tenant_id,
            rule,
            subject,
            severity,
            state: IncidentState::Pending,
            value,
            threshold,
            unit,
            opened_at: now,
            fired_at: None,
            calm_since: None,
            observed_at: now,
            resolved_at: None,
            notified_at: None,
            acknowledged: None,
            revision: 1,
        }
    }

    /// The same for every incident of one rule and subject; what is told apart within a tenant by it.
    pub fn fingerprint(&self) -> Uuid {
        fingerprint(&self.rule, self.subject.as_ref())
    }

    /// Whether it is not over.
    pub fn is_open(&self) -> bool {
        self.state != IncidentState::Resolved
    }
}

/// The fingerprint of the incidents of a rule and subject.
pub fn fingerprint(rule: &Label, subject: Option<&Label>) -> Uuid {
    // Labels have no control characters.
    let text = format!("{rule}\0{}", subject.map_or("", Label::as_str));
    Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes())
}

/// Which incidents, newest first (by id, descending).
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct IncidentQuery {
    /// Of one tenant, or of all and of none.
    pub tenant_id: Option<TenantId>,
    /// In this state, or in any.
    pub state: Option<IncidentState>,
    /// Of this rule, or of any.
    pub rule: Option<Label>,
    /// How many on a page.
    pub page_size: PageSize,
    /// Where the page begins, or at the newest.
    pub after: Option<Cursor>,
}

impl IncidentQuery {
    /// All incidents, 100 a page.
    pub fn new() -> Self {
        Self::default()
    }

    /// Only those of this tenant.
    #[must_use]
    pub fn tenant(mut self, tenant_id: TenantId) -> Self {
        self.tenant_id = Some(tenant_id);
        self
    }

    /// Only those in this state.
    #[must_use]
    pub fn state(mut self, state: IncidentState) -> Self {
        self.state = Some(state);
        self
    }

    /// Only those of this rule.
    #[must_use]
    pub fn rule(mut self, rule: Label) -> Self {
        self.rule = Some(rule);
        self
    }

    /// So many on a page.
    #[must_use]
    pub fn page_size(mut self, page_size: PageSize) -> Self {
        self.page_size = page_size;
        self
    }

    /// The page after this cursor, which must come from the same query.
    #[must_use]
    pub fn after(mut self, cursor: Cursor) -> Self {
        self.after = Some(cursor);
        self
    }

    /// What cursors of this query are bound to: all of it but the page size.
    pub fn fingerprint(&self) -> [u8; 16] {
        let text = format!(
            "incidents\0{}\0{}\0{}",
            self.tenant_id.as_ref().map_or("", TenantId::as_str),
            self.state.map_or("", IncidentState::as_str),
            self.rule.as_ref().map_or("", Label::as_str),
        );
        Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).into_bytes()
    }

    /// The id that the page begins below, if it is not the first page.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `cursor` if it is not of this query.
    pub fn position(&self) -> Result<Option<Uuid>> {
        let fingerprint = self.fingerprint();
        self.after.as_ref().map(|cursor| Ok(Uuid::from_bytes(cursor.position(fingerprint)?))).transpose()
    }

    /// Whether an incident belongs to the answer, leaving the cursor aside.
    pub fn matches(&self, incident: &Incident) -> bool {
        self.tenant_id.as_ref().is_none_or(|tenant_id| incident.tenant_id.as_ref() == Some(tenant_id))
            && self.state.is_none_or(|state| incident.state == state)
            && self.rule.as_ref().is_none_or(|rule| incident.rule == *rule)
    }

    /// The cursor after an incident.
    pub fn cursor(&self, last: IncidentId) -> Cursor {
        Cursor::new(last.as_uuid().into_bytes(), self.fingerprint())
    }
}
