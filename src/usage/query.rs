//! Questions about usage and their answers.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use crate::page::{Cursor, PageSize};
use crate::text::Label;
use crate::time::TimeRange;
use crate::usage::{EventId, EventType, Outcome, UsageMetrics};
use crate::{Error, Result, TenantId};

/// The most tenants in a list of top consumers.
pub const TOP_CONSUMERS_MAX: u16 = 1_000;

/// The metrics of one tenant in one period.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct UsagePeriod {
    /// The period.
    pub range: TimeRange,
    /// What its events add up to.
    pub metrics: UsageMetrics,
}

impl UsagePeriod {
    /// Metrics of a period.
    pub fn new(range: TimeRange, metrics: UsageMetrics) -> Self {
        Self { range, metrics }
    }

    /// Where the period starts.
    pub fn start(&self) -> DateTime<Utc> {
        self.range.start()
    }
}

/// What top consumers are ranked by.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Measure {
    /// All tokens.
    Tokens,
    /// The known cost in US dollars.
    Cost,
    /// Operations of every kind and outcome.
    Calls,
    /// Operations that failed.
    Errors,
    /// One of the host's own quantities.
    Custom(Label),
}

impl Measure {
    /// The amount of this measure.
    pub fn of(&self, metrics: &UsageMetrics) -> Decimal {
        match self {
            Self::Tokens => metrics.tokens_total().into(),
            Self::Cost => metrics.cost,
            Self::Calls => metrics.calls.into(),
            Self::Errors => metrics.failures.into(),
            Self::Custom(name) => metrics.measures.get(name).copied().unwrap_or_default(),
        }
    }
}

/// Which tenants used most of something.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TopConsumersQuery {
    /// What they are ranked by.
    pub measure: Measure,
    /// When; both ends on a quarter hour.
    pub range: TimeRange,
    /// How many at most: 1 to 1,000.
    pub limit: u16,
}

impl TopConsumersQuery {
    /// Checks and takes a query.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `limit` if it is not in 1 to [`TOP_CONSUMERS_MAX`].
    pub fn new(measure: Measure, range: TimeRange, limit: u16) -> Result<Self> {
        if !(1..=TOP_CONSUMERS_MAX).contains(&limit) {
            return Err(Error::invalid("limit", format!("must be in 1 to {TOP_CONSUMERS_MAX}, is {limit}")));
        }
        Ok(Self { measure, range, limit })
    }
}

/// A tenant and how much it used. Tenants that used nothing of the measure are in no list.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Consumer {
    /// Who.
    pub tenant_id: TenantId,
    /// How much of the measure, in its own unit.
    pub amount: Decimal,
}

impl Consumer {
    /// A tenant and its amount.
    pub fn new(tenant_id: TenantId, amount: Decimal) -> Self {
        Self { tenant_id, amount }
    }
}

/// What all tenants did together.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct UsageSummary {
    /// Tenants with at least one event.
    pub tenants: u64,
    /// Operations of every kind and outcome.
    pub calls: u64,
    /// Operations that failed.
    pub failures: u64,
    /// All tokens.
    pub tokens: u64,
    /// The known cost in US dollars.
    pub cost: Decimal,
    /// Operations that used tokens at an unknown price.
    pub unpriced: u64,
    /// The mean latency of successes and failures, in whole microseconds.
    pub latency_us_mean: Option<u64>,
    /// Tenants that were refused because a quota was used up and how often, most often first, equals in the byte order of
    /// their ids; at most 100.
    pub quota_exceeded: Vec<(TenantId, u64)>,
}

/// The most tenants that a summary lists as refused.
pub const SUMMARY_EXCEEDED_MAX: usize = 100;

/// Which events of one tenant, newest first.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct EventQuery {
    /// Whose.
    pub tenant_id: TenantId,
    /// When they started.
    pub range: TimeRange,
    /// Of which type, or of any.
    pub event_type: Option<EventType>,
    /// With which outcome, or with any.
    pub outcome: Option<Outcome>,
    /// How many on a page.
    pub page_size: PageSize,
    /// Where the page begins, or at the newest.
    pub after: Option<Cursor>,
}

impl EventQuery {
    /// All events of a tenant in a range, 100 a page.
    pub fn new(tenant_id: TenantId, range: TimeRange) -> Self {
        Self {
            tenant_id,
            range,
            event_type: None,
            outcome: None,
            page_size: PageSize::default(),
            after: None,
        }
    }

    /// Only events of this type.
    #[must_use]
    pub fn event_type(mut self, event_type: impl Into<EventType>) -> Self {
        self.event_type = Some(event_type.into());
        self
    }

    /// Only events with this outcome.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = Some(outcome);
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
        let text = format!(
            "{}\0{}\0{}\0{}",
            self.tenant_id,
            self.range,
            self.event_type.as_ref().map_or("", EventType::as_str),
            self.outcome.map_or("", Outcome::as_str),
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
    pub fn matches(
        &self,
        tenant_id: &TenantId,
        occurred_at: DateTime<Utc>,
        of: &EventType,
        with: Outcome,
    ) -> bool {
        *tenant_id == self.tenant_id
            && self.range.contains(occurred_at)
            && self.event_type.as_ref().is_none_or(|event_type| event_type == of)
            && self.outcome.is_none_or(|outcome| outcome == with)
    }
}
