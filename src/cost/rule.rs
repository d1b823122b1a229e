//! Rules of genai-prices that say which names mean a model or a provider.

use std::fmt;

use fancy_regex::Regex;
use serde::Deserialize;

/// A rule over names. All but patterns ignore case.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Rule {
    And(Vec<Rule>),
    Or(Vec<Rule>),
    Equals(Folded),
    StartsWith(Folded),
    EndsWith(Folded),
    Contains(Folded),
    Regex(Pattern),
}

impl Rule {
    pub(super) fn matches(&self, name: &Name<'_>) -> bool {
        match self {
            Self::And(rules) => rules.iter().all(|rule| rule.matches(name)),
            Self::Or(rules) => rules.iter().any(|rule| rule.matches(name)),
            Self::Equals(text) => name.folded == text.0,
            Self::StartsWith(text) => name.folded.starts_with(&text.0),
            Self::EndsWith(text) => name.folded.ends_with(&text.0),
            Self::Contains(text) => name.folded.contains(&text.0),
            // One that gives up, after a million steps back, has not matched.
            Self::Regex(pattern) => pattern.0.is_match(name.raw).unwrap_or(false),
        }
    }
}

/// A name, folded once for all rules.
pub(super) struct Name<'a> {
    raw: &'a str,
    folded: String,
}

impl<'a> Name<'a> {
    pub(super) fn new(raw: &'a str) -> Self {
        Self { raw, folded: raw.to_lowercase() }
    }
}

/// A text in lower case.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "String")]
pub(super) struct Folded(String);

impl From<String> for Folded {
    fn from(text: String) -> Self {
        Self(text.to_lowercase())
    }
}

#[derive(Clone, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Pattern(Regex);

impl TryFrom<String> for Pattern {
    type Error = fancy_regex::Error;

    fn try_from(pattern: String) -> Result<Self, Self::Error> {
        Regex::new(&pattern).map(Self)
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.0.as_str(), f)
    }
}
