//! Tokens of texts whose provider says nothing.

use std::fmt;
use std::sync::Arc;

use crate::usage::{TOKENS_PER_EVENT_MAX, TokenUsage};

/// Guesses how many tokens a text has. What comes of it is marked as estimated.
///
/// ```
/// use metertrail::TokenSource;
/// use metertrail::cost::Estimator;
///
/// let by_words = Estimator::new(|text| text.split_whitespace().count());
/// let tokens = by_words.tokens("how are you", "fine");
/// assert_eq!((tokens.total(), tokens.source()), (4, TokenSource::Estimated));
/// assert_eq!(Estimator::default().tokens("twelve chars", "").total(), 3);
/// ```
#[derive(Clone)]
pub struct Estimator(Arc<dyn Fn(&str) -> usize + Send + Sync>);

impl Estimator {
    /// An estimator of the host's own: a tokenizer, or a rule of thumb.
    pub fn new(count: impl Fn(&str) -> usize + Send + Sync + 'static) -> Self {
        Self(Arc::new(count))
    }

    /// How many tokens a text has at a guess; at most as many as an event may have.
    pub fn count(&self, text: &str) -> u64 {
        u64::try_from((self.0)(text)).unwrap_or(u64::MAX).min(TOKENS_PER_EVENT_MAX / 2)
    }

    /// The tokens of a question and its answer.
    pub fn tokens(&self, input: &str, output: &str) -> TokenUsage {
        // Half of the bound each is within the bound.
        TokenUsage::estimated(self.count(input), self.count(output)).unwrap_or_default()
    }
}

impl Default for Estimator {
    /// A token for each four bytes that were begun: about right for English.
    fn default() -> Self {
        Self::new(|text| text.len().div_ceil(4))
    }
}

impl fmt::Debug for Estimator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Estimator")
    }
}
