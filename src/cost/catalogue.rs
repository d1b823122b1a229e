//! Prices of many providers and models, in the form of genai-prices.

use std::fmt;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::book::Unpriced;
use super::decode::{self, Model, Provider};
use super::extract::Extraction;
use super::rate::Amounts;
use super::rule::Name;
use crate::text::Label;
use crate::{Error, Result};

/// The data of genai-prices 0.2.1, without descriptions; MIT, see `LICENSE-genai-prices` beside it.
const BUNDLED: &[u8] = include_bytes!("data/genai-prices.json");

/// The list prices of many providers, and the shapes of their responses: the data of
/// [genai-prices](https://github.com/pydantic/genai-prices), bundled or read from a file of the same form.
///
/// ```
/// use metertrail::cost::PriceCatalogue;
/// use serde_json::json;
///
/// let catalogue = PriceCatalogue::bundled()?;
/// let response = json!({"model": "gpt-4o", "usage": {
///     "prompt_tokens": 1_000, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 600},
/// }});
/// let extraction = catalogue.extract("openai", "chat", &response)?;
/// assert_eq!(extraction.tokens()?.get(metertrail::TokenClass::Input), 400);
/// # Ok::<(), metertrail::Error>(())
/// ```
pub struct PriceCatalogue {
    providers: Vec<Provider>,
    version: Label,
}

impl PriceCatalogue {
    /// The data that came with this release.
    ///
    /// # Errors
    /// None: a test reads it.
    pub fn bundled() -> Result<Self> {
        Self::from_json(BUNDLED)
    }

    /// Reads data in the form of genai-prices, version 2. Its version is `genai-prices:` and the first 12 digits of its
    /// SHA-256.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `prices`, with the provider and model where one is at fault.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let providers = decode::providers(json)?;
        let digest = format!("{:x}", Sha256::digest(json));
        let version = Label::new("version", format!("genai-prices:{}", digest.get(..12).unwrap_or(&digest)))?;
        Ok(Self { providers, version })
    }

    /// A copy of that name, for hosts that number their price data.
    #[must_use]
    pub fn with_version(mut self, version: Label) -> Self {
        self.version = version;
        self
    }

    /// What an event that is priced by it is marked with.
    pub fn version(&self) -> &Label {
        &self.version
    }

    /// The providers and shapes of responses that [`extract`](Self::extract) knows.
    pub fn api_flavors(&self) -> impl Iterator<Item = (&str, &str)> {
        self.providers.iter().flat_map(|provider| {
            let flavors = provider.extractors.iter().map(|extractor| extractor.api_flavor.as_str());
            flavors.map(|flavor| (provider.id.as_str(), flavor))
        })
    }

    /// Usage from a response, read as one of the provider's shapes.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `provider` or `api_flavor` if they are not known, on
    /// `response.<path>` if something that has to be there is missing, is no number, is negative or too large.
    pub fn extract(&self, provider: &str, api_flavor: &str, response: &Value) -> Result<Extraction> {
        let (provider, extractor) = self.extractor(provider, api_flavor)?;
        extractor.extract(provider, response)
    }

    /// As [`extract`](Self::extract), from the bytes of a response.
    ///
    /// # Errors
    /// As [`extract`](Self::extract); on `response` if it is not JSON or cut.
    pub fn extract_json(&self, provider: &str, api_flavor: &str, response: &[u8]) -> Result<Extraction> {
        let unreadable = |error| Error::invalid("response", format!("is not JSON: {error}"));
        self.extract(provider, api_flavor, &serde_json::from_slice(response).map_err(unreadable)?)
    }

    /// What the usage of a response costs at list prices, not rounded, by the prices of an instant.
    ///
    /// # Errors
    /// Why it has no price.
    pub fn price(
        &self,
        extraction: &Extraction,
        at: DateTime<Utc>,
    ) -> std::result::Result<Amounts, Unpriced> {
        let model = extraction.model.as_ref().ok_or(Unpriced::NoModel)?;
        let place = self.find(Some(extraction.provider.as_str()), model.as_str())?;
        self.amounts(place, at, |_| None, &extraction.usage).map_err(Unpriced::Unpriceable)
    }

    pub(super) fn extractor(
        &self,
        provider: &str,
        api_flavor: &str,
    ) -> Result<(&str, &super::extract::Extractor)> {
        let unknown = || Error::invalid("provider", format!("is not in the price data: {provider:?}"));
        let provider = self.provider(provider).ok_or_else(unknown)?;
        let extractor = provider.extractors.iter().find(|extractor| extractor.api_flavor == api_flavor);
        let unknown = || {
            let known: Vec<&str> = provider.extractors.iter().map(|own| own.api_flavor.as_str()).collect();
            let rule = format!("is none of {}: {}, is {api_flavor:?}", provider.id, known.join(", "));
            Error::invalid("api_flavor", rule)
        };
        Ok((&provider.id, extractor.ok_or_else(unknown)?))
    }

    /// The provider of this id, else the first that the name means.
    fn provider(&self, name: &str) -> Option<&Provider> {
        let folded = name.trim().to_lowercase();
        let by_id = self.providers.iter().find(|provider| provider.id == folded);
        let name = Name::new(&folded);
        let means =
            |provider: &&Provider| provider.alias_match.as_ref().is_some_and(|rule| rule.matches(&name));
        by_id.or_else(|| self.providers.iter().find(means))
    }

    /// Where a model is in the data: of a provider or one that it falls back on; of any provider that the model's name
    /// means, if none is given.
    pub(super) fn find(&self, provider: Option<&str>, model: &str) -> std::result::Result<Place, Unpriced> {
        let folded = model.to_lowercase();
        let name = Name::new(&folded);
        let selected = match provider {
            Some(provider) => self.provider(provider),
            None => self
                .providers
                .iter()
                .find(|provider| provider.model_match.as_ref().is_some_and(|rule| rule.matches(&name))),
        };
        let selected = selected.ok_or(Unpriced::UnknownProvider)?;
        let fallbacks = selected.fallbacks.iter();
        let fallbacks = fallbacks.filter_map(|id| self.providers.iter().find(|provider| provider.id == *id));
        let mut places = std::iter::once(selected).chain(fallbacks).filter_map(|provider| {
            let model = provider.models.iter().position(|model| model.rule.matches(&name))?;
            let provider = self.providers.iter().position(|other| std::ptr::eq(other, provider))?;
            Some(Place { provider, model })
        });
        places.next().ok_or(Unpriced::UnknownModel)
    }

    pub(super) fn model(&self, place: Place) -> Option<&Model> {
        self.providers.get(place.provider)?.models.get(place.model)
    }

    /// Whether a model has a price: its id in the data.
    pub fn model_id(&self, provider: Option<&str>, model: &str) -> Option<&str> {
        let place = self.find(provider, model).ok()?;
        self.model(place).map(|model| model.id.as_str())
    }

    pub(super) fn amounts<'c>(
        &self,
        place: Place,
        at: DateTime<Utc>,
        context: impl Fn(&str) -> Option<&'c str>,
        usage: &super::ReportedUsage,
    ) -> std::result::Result<Amounts, String> {
        let model = self.model(place).ok_or_else(|| "its model is gone".to_owned())?;
        model.rates(at, context)?.amounts(usage).map_err(|reason| reason.to_string())
    }
}

/// A model's place in the data.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Place {
    provider: usize,
    model: usize,
}

impl fmt::Debug for PriceCatalogue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PriceCatalogue")
            .field("version", &self.version)
            .field("providers", &self.providers.len())
            .finish_non_exhaustive()
    }
}
