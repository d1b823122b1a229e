//! What is limited.

use std::fmt;
use std::str::FromStr;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::{Deserialize, Serialize};

use crate::text::Label;
use crate::usage::{Cost, EventType, Outcome, UNPRICED_CEILING_MEASURE, UsageEvent, UsageMetrics};
use crate::{Error, Result};

/// Units of a `cost` quota in one US dollar: it is counted in nano-dollars.
pub const COST_UNITS_PER_USD: u64 = 1_000_000_000;

/// What is limited: the `tokens`, `api_calls`, `chat_messages`, `embeddings`, the `cost`, or one of the host's measures.
///
/// An operation counts against `api_calls`, `chat_messages` and `embeddings` if it did its work or was abandoned; one that
/// failed or was refused does not.
///
/// ```
/// use metertrail::quota::Quota;
///
/// assert_eq!("tokens".parse::<Quota>()?, Quota::Tokens);
/// assert_eq!(Quota::custom("pages")?.to_string(), "pages");
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Quota {
    /// All tokens of all classes.
    Tokens,
    /// Operations of every type.
    ApiCalls,
    /// Operations of the type `chat_message`.
    ChatMessages,
    /// Operations of the type `embedding`.
    Embeddings,
    /// The known cost, and what of unknown cost counts at a ceiling ([`WhenUnpriced`](crate::quota::WhenUnpriced)), in
    /// nano-dollars.
    Cost,
    /// One of the host's measures, in whole units; a fraction counts as a whole.
    Custom(Label),
}

impl Quota {
    /// The quotas that every host has.
    pub const BUILT_IN: [Self; 5] =
        [Self::Tokens, Self::ApiCalls, Self::ChatMessages, Self::Embeddings, Self::Cost];

    /// The quota of this name: a built-in one, or the host's measure.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `quota`, as [`Label::new`].
    pub fn custom(name: impl AsRef<str>) -> Result<Self> {
        let name = Label::new("quota", name)?;
        Ok(Self::BUILT_IN
            .into_iter()
            .find(|quota| quota.as_str() == name.as_str())
            .unwrap_or(Self::Custom(name)))
    }

    /// The name in JSON and SQL.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Tokens => "tokens",
            Self::ApiCalls => "api_calls",
            Self::ChatMessages => "chat_messages",
            Self::Embeddings => "embeddings",
            Self::Cost => "cost",
            Self::Custom(name) => name.as_str(),
        }
    }

    /// How much of this quota an event used.
    pub fn used_by(&self, event: &UsageEvent) -> u64 {
        let counts = matches!(event.outcome, Outcome::Success | Outcome::Abandoned);
        match self {
            Self::Tokens => event.tokens.total(),
            Self::ApiCalls => u64::from(counts),
            Self::ChatMessages => u64::from(counts && event.event_type == EventType::ChatMessage),
            Self::Embeddings => u64::from(counts && event.event_type == EventType::Embedding),
            Self::Cost => {
                let cost = event.cost.map(Cost::as_decimal);
                let charged = cost.or_else(|| event.measures.get(UNPRICED_CEILING_MEASURE));
                charged.map_or(0, nano_dollars)
            }
            Self::Custom(name) => {
                event.measures.iter().find(|(other, _)| *other == name).map_or(0, |(_, amount)| whole(amount))
            }
        }
    }

    /// How much of this quota some events used together.
    pub fn used_in(&self, metrics: &UsageMetrics) -> u64 {
        match self {
            Self::Tokens => metrics.tokens_total(),
            Self::ApiCalls => metrics.successes.saturating_add(metrics.abandoned),
            Self::ChatMessages => metrics.count_of(&EventType::ChatMessage),
            Self::Embeddings => metrics.count_of(&EventType::Embedding),
            Self::Cost => {
                let ceiling =
                    metrics.measures.iter().find(|(name, _)| name.as_str() == UNPRICED_CEILING_MEASURE);
                let ceiling = ceiling.map_or(Decimal::ZERO, |(_, amount)| *amount);
                metrics.cost.checked_add(ceiling).map_or(u64::MAX, nano_dollars)
            }
            Self::Custom(name) => metrics.measures.get(name).copied().map_or(0, whole),
        }
    }
}

pub(super) fn nano_dollars(amount: Decimal) -> u64 {
    amount.checked_mul(Decimal::from(COST_UNITS_PER_USD)).map_or(u64::MAX, whole)
}

fn whole(amount: Decimal) -> u64 {
    amount.ceil().to_u64().unwrap_or(if amount.is_sign_negative() { 0 } else { u64::MAX })
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Quota {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::custom(name)
    }
}

impl TryFrom<String> for Quota {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::custom(name)
    }
}

impl From<Quota> for String {
    fn from(quota: Quota) -> Self {
        quota.as_str().to_owned()
    }
}
