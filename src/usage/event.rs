//! What an operation became.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::text::{Label, checked_text};
use crate::time::{TIME_MAX, TIME_MIN};
use crate::usage::{Cost, EventId, Latency, Measures, Metadata, StatusCode, TokenUsage};
use crate::{Error, Result, TenantId};

/// The longest name of a custom event type, in bytes.
pub const EVENT_TYPE_BYTES_MAX: usize = 64;
/// The longest error message kept with an event, in bytes; longer ones are cut.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 1024;

/// What kind of operation it was.
///
/// ```
/// use metertrail::EventType;
///
/// assert_eq!(EventType::ChatMessage.as_str(), "chat_message");
/// assert_eq!("chat_message".parse::<EventType>()?, EventType::ChatMessage);
/// assert_eq!(EventType::custom("ocr_page")?.as_str(), "ocr_page");
/// assert!(EventType::custom("OCR page").is_err());
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum EventType {
    /// A message of a chat and its answer.
    ChatMessage,
    /// A text turned into a vector.
    Embedding,
    /// A search.
    Search,
    /// Any other call of the host's interface.
    ApiCall,
    /// The host's own kind; made by [`EventType::custom`].
    Custom(CustomEventType),
}

/// The checked name of a custom event type.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CustomEventType(Arc<str>);

impl EventType {
    /// The built-in types.
    pub const BUILT_IN: [Self; 4] = [Self::ChatMessage, Self::Embedding, Self::Search, Self::ApiCall];

    /// The type of this name: 1 to 64 bytes of `a-z`, `0-9`, `_`, `.` and `-`. The name of a built-in type gives that.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `event_type`.
    pub fn custom(name: impl AsRef<str>) -> Result<Self> {
        let name = checked_text("event_type", name.as_ref(), EVENT_TYPE_BYTES_MAX)?;
        if let Some(built_in) = Self::BUILT_IN.into_iter().find(|built_in| built_in.as_str() == name) {
            return Ok(built_in);
        }
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        if !name.bytes().all(allowed) {
            return Err(Error::invalid(
                "event_type",
                format!("must be of a-z, 0-9, _, . and - only, is {name:?}"),
            ));
        }
        Ok(Self::Custom(CustomEventType(name.into())))
    }

    /// The name in JSON and SQL.
    pub fn as_str(&self) -> &str {
        match self {
            Self::ChatMessage => "chat_message",
            Self::Embedding => "embedding",
            Self::Search => "search",
            Self::ApiCall => "api_call",
            Self::Custom(CustomEventType(name)) => name,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EventType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::custom(name)
    }
}

impl TryFrom<String> for EventType {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::custom(name)
    }
}

impl From<EventType> for String {
    fn from(event_type: EventType) -> Self {
        event_type.as_str().to_owned()
    }
}

/// How an operation ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Outcome {
    /// It did its work.
    Success,
    /// It failed.
    Failure,
    /// It was refused because it came too soon.
    RateLimited,
    /// It was refused because a quota is used up.
    QuotaExceeded,
    /// It was dropped before anybody said how it ended: a cancelled handler, a client gone.
    Abandoned,
}

impl Outcome {
    /// Every outcome.
    pub const ALL: [Self; 5] =
        [Self::Success, Self::Failure, Self::RateLimited, Self::QuotaExceeded, Self::Abandoned];

    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::RateLimited => "rate_limited",
            Self::QuotaExceeded => "quota_exceeded",
            Self::Abandoned => "abandoned",
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || Error::invalid("outcome", format!("is not known: {name:?}"));
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == name).ok_or_else(unknown)
    }
}

/// A usage event: what an operation became. Plain data; every field can only hold what every store can keep.
///
/// The key is (tenant, [`id`](Self::id)), and (tenant, [`idempotency_key`](Self::idempotency_key)) where there is one.
///
/// ```
/// use metertrail::{EventType, Outcome, TenantId, TokenUsage, UsageEvent};
/// use metertrail::time::{Clock, SystemClock};
///
/// let mut event =
///     UsageEvent::new(TenantId::new("acme")?, EventType::ChatMessage, Outcome::Success, SystemClock.now())?;
/// event.tokens = TokenUsage::reported(374, 44)?;
/// assert!(event.same_payload(&event.clone()));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
#[non_exhaustive]
pub struct UsageEvent {
    /// Who did it.
    pub tenant_id: TenantId,
    id: EventId,
    #[serde(rename = "timestamp")]
    occurred_at: DateTime<Utc>,
    /// What kind of operation it was.
    pub event_type: EventType,
    /// How it ended.
    pub outcome: Outcome,
    /// Its tokens by class.
    pub tokens: TokenUsage,
    /// How long it took, if that was measured.
    pub latency: Option<Latency>,
    /// The HTTP status it was answered with.
    pub status_code: Option<StatusCode>,
    /// What it cost in US dollars, or `None` where that is not known.
    #[serde(rename = "cost_usd")]
    pub cost: Option<Cost>,
    /// By which prices the cost was found; `None` where it is not known or somebody reported it.
    pub price_version: Option<Label>,
    /// The model that did it.
    pub model: Option<Label>,
    /// The provider of the model.
    pub provider: Option<Label>,
    /// The session it belongs to.
    pub session_id: Option<Label>,
    /// The user who asked for it.
    pub user_id: Option<Label>,
    /// The caller's own name for it: a second event with the same key is the same event.
    pub idempotency_key: Option<Label>,
    /// The host's own quantities.
    pub measures: Measures,
    /// Whatever else the caller wants to remember.
    pub metadata: Metadata,
    /// What went wrong.
    pub error_message: Option<ErrorMessage>,
}

impl UsageEvent {
    /// An event without tokens and details, with a new id, for an operation that started at `occurred_at` (kept to the
    /// microsecond).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `occurred_at` if it lies outside of [`TIME_MIN`] to
    /// [`TIME_MAX`].
    pub fn new(
        tenant_id: TenantId,
        event_type: EventType,
        outcome: Outcome,
        occurred_at: DateTime<Utc>,
    ) -> Result<Self> {
        if occurred_at < TIME_MIN || occurred_at >= TIME_MAX {
            let rule = format!("must lie in {TIME_MIN} to {TIME_MAX}, is {occurred_at}");
            return Err(Error::invalid("occurred_at", rule));
        }
        Ok(Self::started(tenant_id, event_type, outcome, occurred_at))
    }

    /// An event read back from a store.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `id` if its time is not that of `occurred_at` to the
    /// millisecond.
    pub fn from_stored(
        tenant_id: TenantId,
        id: EventId,
        event_type: EventType,
        outcome: Outcome,
        occurred_at: DateTime<Utc>,
    ) -> Result<Self> {
        if id.millisecond().timestamp_millis() != occurred_at.timestamp_millis() {
            return Err(Error::invalid("id", format!("its time is not that of occurred_at, {occurred_at}")));
        }
        Ok(Self { id, ..Self::new(tenant_id, event_type, outcome, occurred_at)? })
    }

    /// As [`new`](Self::new) for the clock's own time, which is moved into the crate's range if the clock is mad.
    pub(crate) fn started(
        tenant_id: TenantId,
        event_type: EventType,
        outcome: Outcome,
        occurred_at: DateTime<Utc>,
    ) -> Self {
        let is_whole = occurred_at.timestamp_subsec_nanos().is_multiple_of(1_000);
        let occurred_at = if is_whole && (TIME_MIN..TIME_MAX).contains(&occurred_at) {
            occurred_at
        } else {
            let clamped = occurred_at.clamp(TIME_MIN, TIME_MAX - chrono::TimeDelta::microseconds(1));
            DateTime::from_timestamp_micros(clamped.timestamp_micros()).unwrap_or(clamped)
        };
        Self {
            tenant_id,
            id: EventId::at_checked(occurred_at),
            occurred_at,
            event_type,
            outcome,
            tokens: TokenUsage::NONE,
            latency: None,
            status_code: None,
            cost: None,
            price_version: None,
            model: None,
            provider: None,
            session_id: None,
            user_id: None,
            idempotency_key: None,
            measures: Measures::default(),
            metadata: Metadata::default(),
            error_message: None,
        }
    }

    /// The id, unique for the tenant.
    pub fn id(&self) -> EventId {
        self.id
    }

    /// When the operation started, to the microsecond.
    pub fn occurred_at(&self) -> DateTime<Utc> {
        self.occurred_at
    }

    /// The cost as somebody reported it; `None` where a price book found it.
    pub fn reported_cost(&self) -> Option<Cost> {
        self.cost.filter(|_| self.price_version.is_none())
    }

    /// Whether `other` says the same of the same operation, so that the second of the two is a repetition and not a
    /// conflict. With an idempotency key, what differs between two attempts of one caller by nature is left out: id,
    /// start and latency. A cost that was not reported but found by a price book is none of the payload: other prices may be
    /// in force when an event is repeated.
    pub fn same_payload(&self, other: &Self) -> bool {
        let attempt_equal = self.idempotency_key.is_some()
            || (self.id == other.id
                && self.occurred_at == other.occurred_at
                && self.latency == other.latency);
        attempt_equal
            && self.tenant_id == other.tenant_id
            && self.event_type == other.event_type
            && self.outcome == other.outcome
            && self.tokens == other.tokens
            && self.status_code == other.status_code
            && self.reported_cost() == other.reported_cost()
            && self.model == other.model
            && self.provider == other.provider
            && self.session_id == other.session_id
            && self.user_id == other.user_id
            && self.idempotency_key == other.idempotency_key
            && self.measures.reported().eq(other.measures.reported())
            && self.metadata == other.metadata
            && self.error_message == other.error_message
    }
}

/// What went wrong, for people to read: at most 1,024 bytes, longer texts are cut, control characters become spaces.
/// A failure is never lost because its text is odd.
#[derive(Clone, Eq, PartialEq, Serialize)]
pub struct ErrorMessage(Box<str>);

impl ErrorMessage {
    /// Takes any text; an empty one becomes `"unknown"`.
    pub fn new(text: impl AsRef<str>) -> Self {
        let text = text.as_ref();
        let end = (0..=ERROR_MESSAGE_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        let cut = &text[..end.unwrap_or(0)];
        let clean: String = cut.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        let clean = clean.trim();
        Self(if clean.is_empty() { "unknown".into() } else { clean.into() })
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ErrorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for ErrorMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
