//! The handle of one operation, from its start to the one call that says how it ended.

use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::Result;
use crate::quota::{Hold, Quota};
use crate::text::Label;
use crate::usage::tracker::Handle;
use crate::usage::{
    Ack, Cost, ErrorMessage, EventId, Latency, Measures, Metadata, Outcome, StatusCode, TokenClass,
    TokenUsage, UNPRICED_CEILING_MEASURE, UsageEvent,
};

/// A unit of work, begun by [`UsageTracker::track`](crate::UsageTracker::track).
///
/// Exactly one event comes of it: by [`record_success`](Self::record_success) or one of its like, or, if it is dropped
/// before (a cancelled handler, a panic, a client gone), as [`Abandoned`](Outcome::Abandoned), charged at the
/// [`estimate`](Self::estimate) if there is one. [`cancel`](Self::cancel) makes none.
///
/// Recording is one call without I/O: the event goes into the tracker's buffer and an [`Ack`] comes back.
///
/// ```
/// use metertrail::{Actual, EventType, MemoryStore, TenantId, TokenUsage, UsageTracker};
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let tracker = UsageTracker::start(MemoryStore::new())?;
/// let tenant = TenantId::new("acme")?;
///
/// let operation = tracker.track(&tenant, EventType::ChatMessage).session_id("s-1")?.model("gpt-4o")?;
/// let tokens = TokenUsage::reported(374, 44)?;
/// operation.record_success(Actual::new().tokens(tokens).status_code(200)?).await?;
///
/// assert_eq!(tracker.usage_today(&tenant).await?.metrics.tokens_total(), 418);
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[must_use = "an operation that is dropped is recorded as abandoned"]
pub struct Operation {
    handle: Arc<Handle>,
    /// Taken by the one call that ends the operation.
    event: Option<UsageEvent>,
    started: Duration,
    estimate: Option<TokenUsage>,
    hold: Option<Hold>,
}

impl Operation {
    pub(super) fn start(handle: Arc<Handle>, event: UsageEvent, started: Duration) -> Self {
        Self { handle, event: Some(event), started, estimate: None, hold: None }
    }

    /// The id that the event will have.
    pub fn id(&self) -> Option<EventId> {
        self.event.as_ref().map(UsageEvent::id)
    }

    /// The session that the operation belongs to.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `session_id`, as [`Label::new`]. As with all setters, the
    /// operation is then gone and no event comes of it.
    pub fn session_id(self, session_id: impl AsRef<str>) -> Result<Self> {
        self.set_label(Label::new("session_id", session_id), |event| &mut event.session_id)
    }

    /// The user who asked for it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `user_id`.
    pub fn user_id(self, user_id: impl AsRef<str>) -> Result<Self> {
        self.set_label(Label::new("user_id", user_id), |event| &mut event.user_id)
    }

    /// The model that does it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `model`.
    pub fn model(self, model: impl AsRef<str>) -> Result<Self> {
        self.set_label(Label::new("model", model), |event| &mut event.model)
    }

    /// The provider of the model.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `provider`.
    pub fn provider(self, provider: impl AsRef<str>) -> Result<Self> {
        self.set_label(Label::new("provider", provider), |event| &mut event.provider)
    }

    /// The caller's own name for the operation: however often it is tried and recorded under this key, it counts once.
    /// The first record stands; a later one that says something else (other than start and latency) is a conflict.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `idempotency_key`.
    pub fn idempotency_key(self, key: impl AsRef<str>) -> Result<Self> {
        self.set_label(Label::new("idempotency_key", key), |event| &mut event.idempotency_key)
    }

    /// What else to remember: a JSON object of at most 16 KiB.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `metadata`, as [`Metadata::new`].
    pub fn metadata(mut self, metadata: impl Into<Value>) -> Result<Self> {
        let metadata = self.keep(Metadata::new(metadata))?;
        if let Some(event) = &mut self.event {
            event.metadata = metadata;
        }
        Ok(self)
    }

    /// What the operation will use at a guess; charged, marked as estimated, if it is abandoned.
    pub fn estimate(mut self, tokens: TokenUsage) -> Self {
        self.estimate = Some(tokens.into_estimated());
        self
    }

    /// Raises the estimate to what was seen of an answer so far, class by class: an operation that is cancelled in the middle
    /// of a stream is charged for that, and never less.
    pub fn raise_estimate(&mut self, seen: TokenUsage) {
        let known = self.estimate.unwrap_or_default();
        let raised = TokenClass::ALL
            .into_iter()
            .try_fold(TokenUsage::NONE, |all, class| all.with(class, known.get(class).max(seen.get(class))));
        self.estimate = Some(raised.unwrap_or(seen).into_estimated());
    }

    /// Units that were admitted for it, settled by the record: what it did not use goes back, what it used beyond them is
    /// booked.
    pub fn hold(mut self, hold: impl Into<Option<Hold>>) -> Self {
        self.hold = hold.into();
        self
    }

    /// It did its work and used this.
    pub fn record_success(self, actual: impl Into<Actual>) -> Ack {
        self.record(Outcome::Success, actual.into(), None)
    }

    /// It failed, after it had used this ([`Actual::new`] if nothing).
    pub fn record_failure(self, error: impl Display, actual: impl Into<Actual>) -> Ack {
        self.record(Outcome::Failure, actual.into(), Some(ErrorMessage::new(error.to_string())))
    }

    /// It was refused because it came too soon.
    pub fn record_rate_limit(self) -> Ack {
        self.record(Outcome::RateLimited, Actual::new(), None)
    }

    /// It was refused because a quota is used up.
    pub fn record_quota_exceeded(self) -> Ack {
        self.record(Outcome::QuotaExceeded, Actual::new(), None)
    }

    /// It never happened: no event comes of it.
    pub fn cancel(mut self) {
        self.event = None;
    }

    fn record(mut self, outcome: Outcome, actual: Actual, error_message: Option<ErrorMessage>) -> Ack {
        // `event` is None only after a call that consumed the operation, so there is always one here.
        match self.event.take() {
            Some(event) => self.finish(event, outcome, actual, error_message),
            None => Ack::refused(
                EventId::at(self.handle.clock().now()),
                crate::Error::new(crate::ErrorKind::Misuse, "the operation has already ended"),
            ),
        }
    }

    fn finish(
        &mut self,
        mut event: UsageEvent,
        outcome: Outcome,
        actual: Actual,
        error: Option<ErrorMessage>,
    ) -> Ack {
        let measured = || Latency::saturating(self.handle.clock().monotonic().saturating_sub(self.started));
        event.outcome = outcome;
        event.latency = Some(actual.latency.unwrap_or_else(measured));
        event.tokens = actual.tokens;
        event.status_code = actual.status_code;
        event.cost = actual.cost;
        event.measures = actual.measures;
        event.error_message = error;
        if actual.model.is_some() {
            event.model = actual.model;
        }
        if actual.provider.is_some() {
            event.provider = actual.provider;
        }
        if actual.is_incomplete {
            event.metadata = event.metadata.marked("incomplete");
        }
        // What was held is only a guess at the cost of what nobody saw the end of: a price goes before it.
        let held = event.cost.take_if(|_| outcome == Outcome::Abandoned);
        self.handle.price(&mut event, self.hold.as_ref());
        if event.cost.is_none() && event.measures.get(UNPRICED_CEILING_MEASURE).is_none() {
            event.cost = held;
        }
        Handle::record(&self.handle, event, self.hold.take())
    }

    /// The tokens that are held for it, as the estimate that the admission was asked for.
    fn held_tokens(&self) -> TokenUsage {
        let held = self.hold.as_ref().map_or(0, |hold| hold.amount_of(&Quota::Tokens));
        TokenUsage::total_only(held).unwrap_or_default().into_estimated()
    }

    fn set_label(
        mut self,
        label: Result<Label>,
        field: impl Fn(&mut UsageEvent) -> &mut Option<Label>,
    ) -> Result<Self> {
        let label = self.keep(label)?;
        if let Some(event) = &mut self.event {
            *field(event) = Some(label);
        }
        Ok(self)
    }

    /// A refused value ends the operation without an event: nothing has happened yet.
    fn keep<T>(&mut self, value: Result<T>) -> Result<T> {
        if value.is_err() {
            self.event = None;
        }
        value
    }
}

/// An operation that nobody ended is recorded as abandoned.
impl Drop for Operation {
    fn drop(&mut self) {
        if let Some(event) = self.event.take() {
            let tokens = self.estimate.unwrap_or_else(|| self.held_tokens());
            let (cost, measures) = self.hold.as_ref().map(Hold::estimates).unwrap_or_default();
            let actual = Actual { tokens, cost, measures, ..Actual::default() };
            drop(self.finish(event, Outcome::Abandoned, actual, None));
        }
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Operation")
            .field("event", &self.event)
            .field("estimate", &self.estimate)
            .finish_non_exhaustive()
    }
}

/// What an operation used in the end. Plain [`TokenUsage`] turns into it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Actual {
    tokens: TokenUsage,
    latency: Option<Latency>,
    status_code: Option<StatusCode>,
    cost: Option<Cost>,
    model: Option<Label>,
    provider: Option<Label>,
    measures: Measures,
    is_incomplete: bool,
}

impl Actual {
    /// Nothing used; the latency is measured by the operation.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its tokens.
    #[must_use]
    pub fn tokens(mut self, tokens: TokenUsage) -> Self {
        self.tokens = tokens;
        self
    }

    /// How long it took, instead of the time between `track` and the record.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `latency` if it is longer than seven days.
    pub fn latency(mut self, latency: Duration) -> Result<Self> {
        self.latency = Some(Latency::new(latency)?);
        Ok(self)
    }

    /// The HTTP status it was answered with.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `status_code` if it is not in 100 to 599.
    pub fn status_code(mut self, code: u16) -> Result<Self> {
        self.status_code = Some(StatusCode::new(code)?);
        Ok(self)
    }

    /// What it cost.
    #[must_use]
    pub fn cost(mut self, cost: Cost) -> Self {
        self.cost = Some(cost);
        self
    }

    /// The model that answered, if only the answer tells.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `model`.
    pub fn model(mut self, model: impl AsRef<str>) -> Result<Self> {
        self.model = Some(Label::new("model", model)?);
        Ok(self)
    }

    /// The provider that answered, if only the answer tells.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `provider`.
    pub fn provider(mut self, provider: impl AsRef<str>) -> Result<Self> {
        self.provider = Some(Label::new("provider", provider)?);
        Ok(self)
    }

    /// The answer was cut in the middle: the event's metadata say `"incomplete": true`.
    #[must_use]
    pub fn incomplete(mut self) -> Self {
        self.is_incomplete = true;
        self
    }

    /// The tokens of a response, the model and provider that it names, and what else of it may have a price
    /// ([`ReportedUsage::measures`](crate::cost::ReportedUsage::measures)). What the provider says that it cost is not taken:
    /// that is for [`cost`](Self::cost).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `usage.<unit>` if the usage contradicts itself.
    #[cfg(feature = "genai-prices")]
    pub fn extracted(mut self, extraction: &crate::cost::Extraction) -> Result<Self> {
        self.tokens = extraction.tokens()?;
        for (name, amount) in extraction.measures()?.iter() {
            self.measures = self.measures.with(name.as_str(), amount)?;
        }
        self.model = extraction.model.clone().or(self.model);
        self.provider = Some(extraction.provider.clone());
        Ok(self)
    }

    /// The host's own quantities.
    #[must_use]
    pub fn measures(mut self, measures: Measures) -> Self {
        self.measures = measures;
        self
    }
}

impl From<TokenUsage> for Actual {
    fn from(tokens: TokenUsage) -> Self {
        Self::new().tokens(tokens)
    }
}
