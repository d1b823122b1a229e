//! Tokens by disjoint class.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The most tokens that one event may have over all classes: ten billion.
pub const TOKENS_PER_EVENT_MAX: u64 = 10_000_000_000;

/// A class of tokens. Classes are disjoint: a token is counted in exactly one, so the total is their sum.
///
/// Providers differ: OpenAI reports cached tokens inside its input figure, Anthropic beside it. Here a cached token is
/// in [`CacheRead`](TokenClass::CacheRead) only, an audio token in its audio class only, and a reasoning token is not
/// in [`Output`](TokenClass::Output).
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum TokenClass {
    /// Text read by the model that no cache held.
    Input,
    /// Text read from a prompt cache.
    CacheRead,
    /// Text written to a prompt cache.
    CacheWrite,
    /// Text that the model wrote and showed.
    Output,
    /// Text that the model wrote for itself.
    Reasoning,
    /// Audio read by the model that no cache held.
    AudioInput,
    /// Audio read from a prompt cache.
    AudioCacheRead,
    /// Audio that the model wrote.
    AudioOutput,
    /// Tokens known by their total only.
    Unclassified,
}

impl TokenClass {
    /// Every class, in the order of the columns in SQL.
    pub const ALL: [Self; 9] = [
        Self::Input,
        Self::CacheRead,
        Self::CacheWrite,
        Self::Output,
        Self::Reasoning,
        Self::AudioInput,
        Self::AudioCacheRead,
        Self::AudioOutput,
        Self::Unclassified,
    ];

    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Input => "input",
            Self::CacheRead => "cache_read",
            Self::CacheWrite => "cache_write",
            Self::Output => "output",
            Self::Reasoning => "reasoning",
            Self::AudioInput => "audio_input",
            Self::AudioCacheRead => "audio_cache_read",
            Self::AudioOutput => "audio_output",
            Self::Unclassified => "unclassified",
        }
    }

    fn index(self) -> usize {
        match self {
            Self::Input => 0,
            Self::CacheRead => 1,
            Self::CacheWrite => 2,
            Self::Output => 3,
            Self::Reasoning => 4,
            Self::AudioInput => 5,
            Self::AudioCacheRead => 6,
            Self::AudioOutput => 7,
            Self::Unclassified => 8,
        }
    }
}

/// Where a token count comes from.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokenSource {
    /// The provider said so.
    #[default]
    Reported,
    /// The caller, or an estimator, guessed.
    Estimated,
}

/// Counts by class, without a bound: what a roll-up sums.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct TokenCounts([u64; 9]);

impl TokenCounts {
    /// The count of one class.
    pub fn get(&self, class: TokenClass) -> u64 {
        self.0[class.index()]
    }

    /// Sets the count of one class.
    pub fn set(&mut self, class: TokenClass, count: u64) {
        self.0[class.index()] = count;
    }

    /// The sum of all classes.
    pub fn total(&self) -> u64 {
        self.0.iter().fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Adds class by class.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.0.iter_mut().zip(other.0) {
            *mine = mine.saturating_add(theirs);
        }
    }
}

impl Serialize for TokenCounts {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(TokenClass::ALL.map(|class| (class.as_str(), self.get(class))))
    }
}

/// The tokens of one operation: a count for each class and where they come from.
///
/// ```
/// use metertrail::{TokenClass, TokenUsage};
///
/// let tokens = TokenUsage::reported(374, 44)?.with(TokenClass::CacheRead, 1_024)?;
/// assert_eq!(tokens.get(TokenClass::Input), 374);
/// assert_eq!(tokens.total(), 1_442);
///
/// let error = TokenUsage::reported(-1, 44).unwrap_err();
/// assert_eq!(error.field(), Some("tokens.input"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Copy, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct TokenUsage {
    counts: TokenCounts,
    source: TokenSource,
}

impl TokenUsage {
    /// No tokens at all.
    pub const NONE: Self = Self { counts: TokenCounts([0; 9]), source: TokenSource::Reported };

    /// Input and output as the provider reported them; further classes by [`with`](Self::with).
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `tokens.input` or `tokens.output` if a count is negative,
    /// on `tokens` if the total is over [`TOKENS_PER_EVENT_MAX`].
    pub fn reported(input: impl TryInto<u64>, output: impl TryInto<u64>) -> Result<Self> {
        Self::NONE.with(TokenClass::Input, input)?.with(TokenClass::Output, output)
    }

    /// Input and output as somebody guessed them.
    ///
    /// # Errors
    /// As [`reported`](Self::reported).
    pub fn estimated(input: impl TryInto<u64>, output: impl TryInto<u64>) -> Result<Self> {
        Self::reported(input, output).map(Self::into_estimated)
    }

    /// Tokens known by their total only.
    ///
    /// # Errors
    /// As [`reported`](Self::reported), on `tokens.unclassified`.
    pub fn total_only(total: impl TryInto<u64>) -> Result<Self> {
        Self::NONE.with(TokenClass::Unclassified, total)
    }

    /// A copy in which `class` has this count.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `tokens.<class>` if the count is negative, on `tokens` if
    /// the total is over [`TOKENS_PER_EVENT_MAX`].
    pub fn with(mut self, class: TokenClass, count: impl TryInto<u64>) -> Result<Self> {
        let count = count.try_into().map_err(|_| {
            Error::invalid(
                format!("tokens.{}", class.as_str()),
                "must not be negative or over the range of u64",
            )
        })?;
        self.counts.set(class, count);
        let total = self.counts.0.iter().try_fold(0_u64, |sum, count| sum.checked_add(*count));
        match total {
            Some(total) if total <= TOKENS_PER_EVENT_MAX => Ok(self),
            _ => {
                let rule =
                    format!("must not be over {TOKENS_PER_EVENT_MAX} in all, {} is {count}", class.as_str());
                Err(Error::invalid("tokens", rule))
            }
        }
    }

    /// A copy that says of itself that it is a guess.
    #[must_use]
    pub fn into_estimated(mut self) -> Self {
        self.source = TokenSource::Estimated;
        self
    }

    /// The count of one class.
    pub fn get(&self, class: TokenClass) -> u64 {
        self.counts.get(class)
    }

    /// The counts of all classes.
    pub fn counts(&self) -> &TokenCounts {
        &self.counts
    }

    /// The sum of all classes.
    pub fn total(&self) -> u64 {
        self.counts.total()
    }

    /// Where the counts come from.
    pub fn source(&self) -> TokenSource {
        self.source
    }
}

impl fmt::Debug for TokenUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for class in TokenClass::ALL.into_iter().filter(|class| self.get(*class) > 0) {
            map.entry(&class, &self.get(class));
        }
        map.entry(&"source", &self.source).finish()
    }
}

/// The JSON form: signed, so that a negative count is named and not merely unparsable.
#[derive(Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
struct Wire {
    input: i64,
    cache_read: i64,
    cache_write: i64,
    output: i64,
    reasoning: i64,
    audio_input: i64,
    audio_cache_read: i64,
    audio_output: i64,
    unclassified: i64,
    source: TokenSource,
}

impl TryFrom<Wire> for TokenUsage {
    type Error = Error;

    fn try_from(wire: Wire) -> Result<Self> {
        let usage = Self::reported(wire.input, wire.output)?
            .with(TokenClass::CacheRead, wire.cache_read)?
            .with(TokenClass::CacheWrite, wire.cache_write)?
            .with(TokenClass::Reasoning, wire.reasoning)?
            .with(TokenClass::AudioInput, wire.audio_input)?
            .with(TokenClass::AudioCacheRead, wire.audio_cache_read)?
            .with(TokenClass::AudioOutput, wire.audio_output)?
            .with(TokenClass::Unclassified, wire.unclassified)?;
        Ok(Self { source: wire.source, ..usage })
    }
}

impl From<TokenUsage> for Wire {
    fn from(usage: TokenUsage) -> Self {
        // Counts are at most TOKENS_PER_EVENT_MAX, far inside of i64.
        let count = |class| i64::try_from(usage.get(class)).unwrap_or(i64::MAX);
        Self {
            input: count(TokenClass::Input),
            cache_read: count(TokenClass::CacheRead),
            cache_write: count(TokenClass::CacheWrite),
            output: count(TokenClass::Output),
            reasoning: count(TokenClass::Reasoning),
            audio_input: count(TokenClass::AudioInput),
            audio_cache_read: count(TokenClass::AudioCacheRead),
            audio_output: count(TokenClass::AudioOutput),
            unclassified: count(TokenClass::Unclassified),
            source: usage.source,
        }
    }
}
