//! The price book: where a price comes from, and what an event costs by it.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use chrono::{DateTime, Utc};
use rust_decimal::{Decimal, RoundingStrategy};

#[cfg(feature = "genai-prices")]
use super::cache::Places;
#[cfg(feature = "genai-prices")]
use super::catalogue::PriceCatalogue;
#[cfg(feature = "genai-prices")]
use super::markup::Markup;
use super::own::{Asked, OwnPrice};
use super::rate::Amounts;
use super::reported::ReportedUsage;
use crate::text::Label;
use crate::usage::{
    COST_SCALE_MAX, Cost, EventType, Measures, Metadata, Outcome, TokenClass, TokenUsage, UsageEvent,
};
use crate::{Error, Result, TenantId};

const MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// What something costs, and by which prices.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Price {
    /// The cost, rounded once: to a pico-dollar, half to even.
    pub cost: Cost,
    /// The same before it was rounded, by direction.
    pub amounts: Amounts,
    /// Whose prices, of which version.
    pub version: Label,
}

/// Why something has no price. It costs `None` then, and is counted; never zero.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Unpriced {
    /// Nothing was used that could have a price.
    NothingUsed,
    /// The event names no model.
    NoModel,
    /// Nobody knows the provider, or which one the model is of.
    UnknownProvider,
    /// The provider is known, the model is not.
    UnknownModel,
    /// Some of the tokens are known by their total only.
    Unclassified,
    /// The usage contradicts itself, or its price is beyond the range of [`Cost`]; says how.
    Unpriceable(String),
}

impl fmt::Display for Unpriced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NothingUsed => "nothing was used that has a price",
            Self::NoModel => "no model is named",
            Self::UnknownProvider => "the provider is not known",
            Self::UnknownModel => "the provider has no such model",
            Self::Unclassified => "tokens are known by their total only",
            Self::Unpriceable(reason) => reason,
        })
    }
}

/// What an operation will cost, as far as anybody knows.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CostEstimate {
    /// Its price, or why it has none.
    pub price: std::result::Result<Price, Unpriced>,
    /// What it counts for at most if it has none, in US dollars.
    pub ceiling: Option<Decimal>,
}

/// What is to be priced: an event, or one that is still to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subject<'a> {
    pub(super) tenant_id: &'a TenantId,
    pub(super) at: DateTime<Utc>,
    pub(super) event_type: Option<&'a EventType>,
    pub(super) provider: Option<&'a str>,
    pub(super) model: Option<&'a str>,
    pub(super) tokens: &'a TokenUsage,
    pub(super) measures: &'a Measures,
    pub(super) metadata: Option<&'a Metadata>,
    pub(super) is_done: bool,
}

impl Asked for Subject<'_> {
    fn tenant_id(&self) -> &TenantId {
        self.tenant_id
    }

    fn at(&self) -> DateTime<Utc> {
        self.at
    }

    fn event_type(&self) -> Option<&EventType> {
        self.event_type
    }

    fn provider(&self) -> Option<&str> {
        self.provider
    }

    fn model(&self) -> Option<&str> {
        self.model
    }

    fn context(&self, key: &str) -> Option<&str> {
        self.metadata.and_then(|metadata| metadata.get(key)).and_then(|value| value.as_str())
    }
}

/// Prices of one state: the host's own, the tenants' mark-ups, the list. Built once, then only read.
#[derive(Debug, Default)]
pub struct Prices {
    own: Vec<OwnPrice>,
    #[cfg(feature = "genai-prices")]
    markups: Vec<(Markup, Label)>,
    #[cfg(feature = "genai-prices")]
    catalogue: Option<(PriceCatalogue, Places)>,
    ceiling: Option<Ceiling>,
}

/// What tokens of an unknown model count for against a limit of cost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Ceiling {
    input_per_million: Decimal,
    output_per_million: Decimal,
}

impl Prices {
    /// No prices at all.
    pub fn new() -> Self {
        Self::default()
    }

    /// The list prices of the data that came with this release.
    ///
    /// # Errors
    /// None: a test reads it.
    #[cfg(feature = "genai-prices")]
    pub fn bundled() -> Result<Self> {
        Ok(Self::new().catalogue(PriceCatalogue::bundled()?))
    }

    /// With these list prices, of which a price is taken where the host has none of its own.
    #[cfg(feature = "genai-prices")]
    #[must_use]
    pub fn catalogue(mut self, catalogue: PriceCatalogue) -> Self {
        self.catalogue = Some((catalogue, Places::default()));
        self.name_markups();
        self
    }

    /// With one more price of the host's own, behind those that are there.
    #[must_use]
    pub fn own(mut self, price: OwnPrice) -> Self {
        self.own.push(price);
        self
    }

    /// With one more mark-up on list prices.
    #[cfg(feature = "genai-prices")]
    #[must_use]
    pub fn markup(mut self, markup: Markup) -> Self {
        let version = markup.version.clone();
        self.markups.push((markup, version));
        self.name_markups();
        self
    }

    /// With the highest prices that an unknown model may have, in US dollars for a million tokens: what it counts for
    /// against limits of cost that ask for it ([`WhenUnpriced::Ceiling`](crate::quota::WhenUnpriced::Ceiling)). The cost of
    /// the event stays unknown.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `ceiling` if a price is negative or over a million.
    pub fn ceiling(mut self, input_per_million: Decimal, output_per_million: Decimal) -> Result<Self> {
        for price in [input_per_million, output_per_million] {
            if !(Decimal::ZERO..=MILLION).contains(&price) {
                return Err(Error::invalid("ceiling", format!("must be in 0 to {MILLION}, is {price}")));
            }
        }
        self.ceiling = Some(Ceiling { input_per_million, output_per_million });
        Ok(self)
    }

    /// The list prices.
    #[cfg(feature = "genai-prices")]
    pub fn list(&self) -> Option<&PriceCatalogue> {
        self.catalogue.as_ref().map(|(catalogue, _)| catalogue)
    }

    /// A version names the list and what is on top of it.
    #[cfg(feature = "genai-prices")]
    fn name_markups(&mut self) {
        if let Some((catalogue, _)) = &self.catalogue {
            for (markup, version) in &mut self.markups {
                let both = format!("{}+{}", catalogue.version(), markup.version);
                *version = Label::new("version", both).unwrap_or_else(|_| markup.version.clone());
            }
        }
    }

    pub(super) fn price(&self, subject: &Subject<'_>) -> std::result::Result<Price, Unpriced> {
        let extras = self.own.iter().find(|own| own.has_extras() && own.applies(subject));
        let extra = extras.filter(|_| subject.is_done).map(|own| (own, extra_of(own, subject)));
        let has_extra = extra.as_ref().is_some_and(|(_, amount)| amount.is_some());
        let usage = ReportedUsage::of(subject.tokens, subject.measures);
        let (mut amounts, version) = if subject.tokens.total() == 0 && (has_extra || usage.is_empty()) {
            (Amounts::default(), None)
        } else {
            let (amounts, version) = self.tokens(subject, &usage)?;
            (amounts, Some(version))
        };
        let too_much = || Unpriced::Unpriceable("usage: costs more than a decimal holds".to_owned());
        let version = match (version, extra) {
            (version, Some((own, Some(amount)))) => {
                amounts.other = amounts.other.checked_add(amount?).ok_or_else(too_much)?;
                version.unwrap_or_else(|| own.version().clone())
            }
            (Some(version), _) => version,
            (None, _) => return Err(Unpriced::NothingUsed),
        };
        let total = amounts.total().ok_or_else(too_much)?;
        let rounded = total.round_dp_with_strategy(COST_SCALE_MAX, RoundingStrategy::MidpointNearestEven);
        let cost = Cost::usd(rounded).map_err(|error| Unpriced::Unpriceable(error.to_string()))?;
        Ok(Price { cost, amounts, version })
    }

    fn tokens(
        &self,
        subject: &Subject<'_>,
        usage: &ReportedUsage,
    ) -> std::result::Result<(Amounts, Label), Unpriced> {
        let unclassified = subject.tokens.get(TokenClass::Unclassified);
        let own = self.own.iter().find(|own| own.has_tokens() && own.applies(subject));
        if let Some(own) = own {
            let unpriceable = |reason: super::rate::Unpriceable| Unpriced::Unpriceable(reason.to_string());
            let mut amounts = own.tokens.amounts(usage).map_err(unpriceable)?;
            if unclassified > 0 {
                let price = own.unclassified.ok_or(Unpriced::Unclassified)?;
                let charged = price.checked_mul(Decimal::from(unclassified)).map(|amount| amount / MILLION);
                amounts.other = charged
                    .and_then(|charged| amounts.other.checked_add(charged))
                    .ok_or_else(|| unpriceable(super::rate::Unpriceable::TooMuch))?;
            }
            if own.tokens.is_empty() && !usage.is_empty() {
                return Err(Unpriced::Unpriceable(format!("{}: has no price of classes", own.version())));
            }
            return Ok((amounts, own.version().clone()));
        }
        if unclassified > 0 {
            return Err(Unpriced::Unclassified);
        }
        #[cfg(feature = "genai-prices")]
        return self.listed(subject, usage);
        #[cfg(not(feature = "genai-prices"))]
        Err(if subject.model.is_none() { Unpriced::NoModel } else { Unpriced::UnknownModel })
    }

    #[cfg(feature = "genai-prices")]
    fn listed(
        &self,
        subject: &Subject<'_>,
        usage: &ReportedUsage,
    ) -> std::result::Result<(Amounts, Label), Unpriced> {
        let model = subject.model.ok_or(Unpriced::NoModel)?;
        let (catalogue, places) = self.catalogue.as_ref().ok_or(Unpriced::UnknownModel)?;
        let place = places.find(catalogue, subject.provider, model)?;
        let mut amounts = catalogue
            .amounts(place, subject.at, |key| subject.context(key), usage)
            .map_err(Unpriced::Unpriceable)?;
        let Some((markup, version)) = self.markups.iter().find(|(markup, _)| markup.applies(subject)) else {
            return Ok((amounts, catalogue.version().clone()));
        };
        for amount in [&mut amounts.input, &mut amounts.output, &mut amounts.other] {
            let marked_up = amount.checked_mul(markup.factor);
            *amount = marked_up.ok_or_else(|| Unpriced::Unpriceable("usage: costs too much".to_owned()))?;
        }
        Ok((amounts, version.clone()))
    }

    /// What tokens of an unknown price count for at most, in US dollars, rounded up to a micro-dollar.
    pub(super) fn ceiling_of(&self, tokens: &TokenUsage) -> Option<Decimal> {
        let ceiling = self.ceiling?;
        let dearer = ceiling.input_per_million.max(ceiling.output_per_million);
        let amount = TokenClass::ALL.into_iter().fold(Decimal::ZERO, |sum, class| {
            let price = match class {
                TokenClass::Output | TokenClass::Reasoning | TokenClass::AudioOutput => {
                    ceiling.output_per_million
                }
                TokenClass::Unclassified => dearer,
                _ => ceiling.input_per_million,
            };
            sum + per_million(price, tokens.get(class))
        });
        Some(amount.round_dp_with_strategy(6, RoundingStrategy::ToPositiveInfinity))
    }
}

/// What is charged beside the tokens, if anything is.
fn extra_of(own: &OwnPrice, subject: &Subject<'_>) -> Option<std::result::Result<Decimal, Unpriced>> {
    let too_much = || Unpriced::Unpriceable("usage: costs more than a decimal holds".to_owned());
    let units = subject.measures.iter().filter_map(|(name, amount)| Some((own.per_unit.get(name)?, amount)));
    let mut parts = own
        .per_call
        .map(Some)
        .into_iter()
        .chain(units.map(|(price, amount)| price.checked_mul(amount)))
        .peekable();
    parts.peek()?;
    let sum = parts.try_fold(Decimal::ZERO, |sum, part| sum.checked_add(part?));
    Some(sum.ok_or_else(too_much))
}

/// Within the bounds of tokens and of a ceiling's prices this never overflows.
fn per_million(price: Decimal, tokens: u64) -> Decimal {
    price * Decimal::from(tokens) / MILLION
}

/// The prices in force, which can be replaced while they are used. Clones share them.
///
/// ```
/// use metertrail::cost::{OwnPrice, PriceBook, Prices, Unpriced};
/// use metertrail::time::{Clock, SystemClock};
/// use metertrail::{TenantId, TokenClass, TokenUsage};
/// use rust_decimal::Decimal;
///
/// let own = OwnPrice::builder("2026-01")?.model("our-model")?.per_million(TokenClass::Input, Decimal::TWO);
/// let book = PriceBook::new(Prices::new().own(own.build()?));
/// let (acme, now) = (TenantId::new("acme")?, SystemClock.now());
///
/// let price = book.quote(&acme, None, "our-model", &TokenUsage::reported(500_000, 0)?, now);
/// assert_eq!(price.map(|price| price.cost.as_decimal()), Ok(Decimal::ONE));
/// let unknown = book.quote(&acme, None, "their-model", &TokenUsage::reported(500_000, 0)?, now);
/// assert_eq!(unknown, Err(Unpriced::UnknownModel));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PriceBook(Arc<RwLock<Arc<Prices>>>);

impl PriceBook {
    /// A book of these prices.
    pub fn new(prices: Prices) -> Self {
        Self(Arc::new(RwLock::new(Arc::new(prices))))
    }

    /// A book of the list prices that came with this release.
    ///
    /// # Errors
    /// As [`Prices::bundled`].
    #[cfg(feature = "genai-prices")]
    pub fn bundled() -> Result<Self> {
        Prices::bundled().map(Self::new)
    }

    /// Puts other prices in force, for every clone, from the next event on. What was priced keeps its cost and version.
    pub fn replace(&self, prices: Prices) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(prices);
    }

    /// The prices in force.
    pub fn prices(&self) -> Arc<Prices> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// What an event costs, at the prices of the time when it started. What its provider reported is not looked at.
    ///
    /// # Errors
    /// Why it has no price.
    pub fn price(&self, event: &UsageEvent) -> std::result::Result<Price, Unpriced> {
        self.prices().price(&Subject {
            tenant_id: &event.tenant_id,
            at: event.occurred_at(),
            event_type: Some(&event.event_type),
            provider: event.provider.as_ref().map(Label::as_str),
            model: event.model.as_ref().map(Label::as_str),
            tokens: &event.tokens,
            measures: &event.measures,
            metadata: Some(&event.metadata),
            is_done: matches!(event.outcome, Outcome::Success | Outcome::Abandoned),
        })
    }

    /// What so many tokens of a model would cost a tenant.
    ///
    /// # Errors
    /// Why they have no price.
    pub fn quote(
        &self,
        tenant_id: &TenantId,
        provider: Option<&str>,
        model: &str,
        tokens: &TokenUsage,
        at: DateTime<Utc>,
    ) -> std::result::Result<Price, Unpriced> {
        self.prices().price(&Subject {
            tenant_id,
            at,
            event_type: None,
            provider,
            model: Some(model),
            tokens,
            measures: &Measures::default(),
            metadata: None,
            is_done: true,
        })
    }

    /// What so many tokens of a model would cost a tenant, for a limit of cost to be asked:
    /// [`QuotaEnforcer::enforce_cost`](crate::quota::QuotaEnforcer::enforce_cost).
    pub fn estimate(
        &self,
        tenant_id: &TenantId,
        provider: Option<&str>,
        model: &str,
        tokens: &TokenUsage,
        at: DateTime<Utc>,
    ) -> CostEstimate {
        let price = self.quote(tenant_id, provider, model, tokens, at);
        CostEstimate { price, ceiling: self.ceiling_of(tokens) }
    }

    /// What tokens of an unknown price count for at most against limits of cost, if a ceiling is set: in US dollars, rounded
    /// up to a micro-dollar.
    pub fn ceiling_of(&self, tokens: &TokenUsage) -> Option<Decimal> {
        self.prices().ceiling_of(tokens)
    }
}
