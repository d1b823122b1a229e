//! Which part of a trail.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::audit::{Actor, AuditEvent, AuditResult, AuditType, SECURITY_PREFIX, Target};
use crate::page::{Cursor, PageSize};
use crate::time::TimeRange;
use crate::usage::EventId;
use crate::{Error, Result, TenantId};

/// Which events of one tenant's trail, newest first.
///
/// ```
/// use metertrail::TenantId;
/// use metertrail::audit::{Actor, AuditQuery, AuditResult, AuditType};
/// use metertrail::time::TimeRange;
///
/// let query = AuditQuery::new(TenantId::new("acme")?, TimeRange::ALL)
///     .event_type(AuditType::new("kb.deleted")?)
///     .actor(Actor::user("u-71")?)
///     .result(AuditResult::Success);
/// assert_eq!(query.page_size.get(), 100);
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct AuditQuery {
    /// Whose.
    pub tenant_id: TenantId,
    /// When they happened.
    pub range: TimeRange,
    /// Of which types.
    pub types: TypeFilter,
    /// Done by whom, or by anybody.
    pub actor: Option<Actor>,
    /// Done to what, or to anything.
    pub target: Option<Target>,
    /// With which results; none named is any.
    pub results: Vec<AuditResult>,
    /// How many on a page.
    pub page_size: PageSize,
    /// Where the page begins, or at the newest.
    pub after: Option<Cursor>,
}

/// Events of which types.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum TypeFilter {
    /// Of any.
    #[default]
    All,
    /// Of one.
    Only(AuditType),
    /// Of those whose names begin with `security.`.
    Security,
}

impl TypeFilter {
    /// The first and the last name in byte order, both included.
    pub(crate) fn bounds(&self) -> (&str, &str) {
        match self {
            Self::All => ("", "\u{7f}"),
            Self::Only(name) => (name.as_str(), name.as_str()),
            Self::Security => (SECURITY_PREFIX, "security.\u{7f}"),
        }
    }

    fn matches(&self, event_type: &AuditType) -> bool {
        let (first, last) = self.bounds();
        (first..=last).contains(&event_type.as_str())
    }
}

impl AuditQuery {
    /// All events of a tenant in a range, 100 a page.
    pub fn new(tenant_id: TenantId, range: TimeRange) -> Self {
        Self {
            tenant_id,
            range,
            types: TypeFilter::All,
            actor: None,
            target: None,
            results: Vec::new(),
            page_size: PageSize::default(),
            after: None,
        }
    }

    /// Only events of this type.
    #[must_use]
    pub fn event_type(mut self, event_type: AuditType) -> Self {
        self.types = TypeFilter::Only(event_type);
        self
    }

    /// Only security events.
    #[must_use]
    pub fn security(mut self) -> Self {
        self.types = TypeFilter::Security;
        self
    }

    /// Only what this actor did.
    #[must_use]
    pub fn actor(mut self, actor: Actor) -> Self {
        self.actor = Some(actor);
        self
    }

    /// Only what was done to this.
    #[must_use]
    pub fn target(mut self, target: Target) -> Self {
        self.target = Some(target);
        self
    }

    /// Only events with this result; called again, with this one too.
    #[must_use]
    pub fn result(mut self, result: AuditResult) -> Self {
        self.results.push(result);
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

    /// What cursors of this query are bound to: tenant, range and filters, not the page size.
    pub fn fingerprint(&self) -> [u8; 16] {
        let (first, last) = self.types.bounds();
        let actor = self.actor.as_ref().map(|actor| (actor.kind.as_str(), actor.id.as_str()));
        let target = self.target.as_ref().map(|target| (target.kind.as_str(), target.id.as_str()));
        let results: Vec<&str> = self.results.iter().map(|result| result.as_str()).collect();
        let text = format!(
            "audit\0{}\0{}\0{first}\0{last}\0{actor:?}\0{target:?}\0{results:?}",
            self.tenant_id, self.range
        );
        Uuid::new_v5(&Uuid::NAMESPACE_OID, text.as_bytes()).into_bytes()
    }

    /// The id of the event that the page begins after, if it is not the first page.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `cursor` if it is not of this query.
    pub fn position(&self) -> Result<Option<EventId>> {
        self.after.as_ref().map(|cursor| EventId::of_cursor(cursor, self.fingerprint())).transpose()
    }

    /// Whether an event belongs to the answer, leaving the cursor aside.
    pub fn matches(&self, event: &AuditEvent) -> bool {
        event.tenant_id == self.tenant_id
            && self.range.contains(event.occurred_at())
            && self.types.matches(&event.event_type)
            && self.actor.as_ref().is_none_or(|actor| *actor == event.actor)
            && self.target.as_ref().is_none_or(|target| Some(target) == event.target.as_ref())
            && (self.results.is_empty() || self.results.contains(&event.result))
    }

    /// The last days up to an instant.
    pub(crate) fn last_days(tenant_id: TenantId, days: u16, now: DateTime<Utc>) -> Result<Self> {
        if days == 0 {
            return Err(Error::invalid("days", "must be at least 1"));
        }
        let end = now + chrono::TimeDelta::microseconds(1);
        Ok(Self::new(tenant_id, TimeRange::new(end - chrono::TimeDelta::days(days.into()), end)?))
    }
}
