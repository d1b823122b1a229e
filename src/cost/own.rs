//! Prices of the host's own.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::rate::{Rate, RateSet};
use super::unit::Unit;
use crate::text::Label;
use crate::usage::{EventType, TokenClass};
use crate::{Error, Result, TenantId};

const PER_MILLION: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);

/// A price of the host's own, for some time: of tokens by class and context size, of a call, of a measure.
///
/// What is not said applies to all: without a model it is the price of every model. Of several that match, the first of the
/// price book that is in force is taken. Times are half-open.
///
/// ```
/// use metertrail::TokenClass;
/// use metertrail::cost::OwnPrice;
/// use rust_decimal::Decimal;
///
/// let price = OwnPrice::builder("contract-7")?
///     .provider("openai")?
///     .model("gpt-4o")?
///     .per_million(TokenClass::Input, Decimal::new(2_25, 2))
///     .per_million_above(TokenClass::Input, 128_000, Decimal::new(4_50, 2))
///     .per_million(TokenClass::Output, Decimal::from(9))
///     .per_call(Decimal::new(1, 4))
///     .build()?;
/// assert_eq!(price.version().as_str(), "contract-7");
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct OwnPrice {
    version: Label,
    tenant_id: Option<TenantId>,
    provider: Option<Label>,
    model: Option<Label>,
    event_type: Option<EventType>,
    context: BTreeMap<String, String>,
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
    pub(super) tokens: RateSet,
    pub(super) unclassified: Option<Decimal>,
    pub(super) per_call: Option<Decimal>,
    pub(super) per_unit: BTreeMap<Label, Decimal>,
}

/// Builds an [`OwnPrice`].
#[derive(Clone, Debug)]
#[must_use]
pub struct OwnPriceBuilder {
    price: OwnPrice,
    rates: BTreeMap<TokenClass, ClassRate>,
}

/// The price of a million tokens, and those from above so many input tokens on.
type ClassRate = (Option<Decimal>, Vec<(u64, Decimal)>);

/// What a price is looked up by.
pub(super) trait Asked {
    fn tenant_id(&self) -> &TenantId;
    fn at(&self) -> DateTime<Utc>;
    fn event_type(&self) -> Option<&EventType>;
    fn provider(&self) -> Option<&str>;
    fn model(&self) -> Option<&str>;
    fn context(&self, key: &str) -> Option<&str>;
}

impl OwnPrice {
    /// A price of nothing yet, under the version that events will be marked with.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `version`, as [`Label::new`].
    pub fn builder(version: impl AsRef<str>) -> Result<OwnPriceBuilder> {
        let price = Self {
            version: Label::new("version", version)?,
            tenant_id: None,
            provider: None,
            model: None,
            event_type: None,
            context: BTreeMap::new(),
            from: None,
            until: None,
            tokens: RateSet::default(),
            unclassified: None,
            per_call: None,
            per_unit: BTreeMap::new(),
        };
        Ok(OwnPriceBuilder { price, rates: BTreeMap::new() })
    }

    /// What events that are priced by it are marked with.
    pub fn version(&self) -> &Label {
        &self.version
    }

    pub(super) fn has_tokens(&self) -> bool {
        !self.tokens.is_empty() || self.unclassified.is_some()
    }

    pub(super) fn has_extras(&self) -> bool {
        self.per_call.is_some() || !self.per_unit.is_empty()
    }

    pub(super) fn applies(&self, asked: &impl Asked) -> bool {
        let is = |own: &Option<Label>, asked: Option<&str>| {
            own.as_ref().is_none_or(|own| asked.is_some_and(|asked| asked.eq_ignore_ascii_case(own.as_str())))
        };
        is(&self.model, asked.model())
            && is(&self.provider, asked.provider())
            && self.tenant_id.as_ref().is_none_or(|own| own == asked.tenant_id())
            && self.event_type.as_ref().is_none_or(|own| asked.event_type() == Some(own))
            && self.from.is_none_or(|from| from <= asked.at())
            && self.until.is_none_or(|until| asked.at() < until)
            && self.context.iter().all(|(key, value)| asked.context(key) == Some(value))
    }
}

impl OwnPriceBuilder {
    /// Of one tenant only.
    pub fn tenant(mut self, tenant_id: TenantId) -> Self {
        self.price.tenant_id = Some(tenant_id);
        self
    }

    /// Of one provider only, by the name that events have.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `provider`.
    pub fn provider(mut self, provider: impl AsRef<str>) -> Result<Self> {
        self.price.provider = Some(Label::new("provider", provider)?);
        Ok(self)
    }

    /// Of one model only, by the name that events have; upper and lower case are one.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `model`.
    pub fn model(mut self, model: impl AsRef<str>) -> Result<Self> {
        self.price.model = Some(Label::new("model", model)?);
        Ok(self)
    }

    /// Of one type of operation only.
    pub fn event_type(mut self, event_type: impl Into<EventType>) -> Self {
        self.price.event_type = Some(event_type.into());
        self
    }

    /// Only of calls whose metadata say so: `service_tier` is `flex`, say.
    pub fn when(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.price.context.insert(key.into(), value.into());
        self
    }

    /// From an instant on.
    pub fn from(mut self, from: DateTime<Utc>) -> Self {
        self.price.from = Some(from);
        self
    }

    /// Until an instant, which is not in it.
    pub fn until(mut self, until: DateTime<Utc>) -> Self {
        self.price.until = Some(until);
        self
    }

    /// US dollars for a million tokens of a class. A class without a price of its own is charged as what it is part of: read
    /// from a cache as input, reasoning as output.
    pub fn per_million(mut self, class: TokenClass, price: Decimal) -> Self {
        self.rates.entry(class).or_default().0 = Some(price);
        self
    }

    /// US dollars for a million tokens of a class, for all of them, if more than so many tokens went in.
    pub fn per_million_above(mut self, class: TokenClass, input_tokens: u64, price: Decimal) -> Self {
        self.rates.entry(class).or_default().1.push((input_tokens, price));
        self
    }

    /// US dollars for each operation that did its work.
    pub fn per_call(mut self, price: Decimal) -> Self {
        self.price.per_call = Some(price);
        self
    }

    /// US dollars for one of a measure of the host's own.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `measure`.
    pub fn per_unit(mut self, measure: impl AsRef<str>, price: Decimal) -> Result<Self> {
        self.price.per_unit.insert(Label::new("measure", measure)?, price);
        Ok(self)
    }

    /// Checks the price.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `price` if one is negative, a class has only a price above a
    /// context size, or a class has a price and what it is part of has none.
    pub fn build(self) -> Result<OwnPrice> {
        let Self { mut price, rates } = self;
        let refused = |rule: String| Error::invalid("price", format!("{}: {rule}", price.version));
        let extras = price.per_call.iter().chain(price.per_unit.values());
        let above =
            rates.values().flat_map(|(base, tiers)| base.iter().chain(tiers.iter().map(|(_, price)| price)));
        if let Some(negative) = extras.chain(above).find(|price| **price < Decimal::ZERO) {
            return Err(refused(format!("must not be negative, is {negative}")));
        }
        let mut units = Vec::new();
        let mut unclassified = None;
        for (class, (base, tiers)) in rates {
            let base = base.ok_or_else(|| {
                refused(format!("{} has a price above a size and none below", class.as_str()))
            })?;
            match unit_of(class) {
                Some(unit) => units.push((unit, Rate::tiered(base, tiers), PER_MILLION)),
                None => unclassified = Some(base),
            }
        }
        let tokens = RateSet::new(units).map_err(refused)?;
        price.tokens = tokens;
        price.unclassified = unclassified;
        Ok(price)
    }
}

/// What a price of a class is for. The class itself is what no narrower price takes.
fn unit_of(class: TokenClass) -> Option<Unit> {
    Some(match class {
        TokenClass::Input => Unit::INPUT,
        TokenClass::CacheRead => Unit::CACHE_READ,
        TokenClass::CacheWrite => Unit::CACHE_WRITE,
        TokenClass::Output => Unit::OUTPUT,
        TokenClass::Reasoning => Unit::REASONING,
        TokenClass::AudioInput => Unit::AUDIO_INPUT,
        TokenClass::AudioCacheRead => Unit::AUDIO_CACHE_READ,
        TokenClass::AudioOutput => Unit::AUDIO_OUTPUT,
        TokenClass::Unclassified => return None,
    })
}
