//! The form that genai-prices publishes its data in, version 2. Numbers are read as the digits that are written, never as
//! floating point.

use std::collections::BTreeMap;

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::extract::Extractor;
use super::rate::{Rate, RateSet};
use super::rule::Rule;
use super::unit::Unit;
use crate::{Error, Result};

/// A provider and its models.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) id: String,
    pub(super) model_match: Option<Rule>,
    pub(super) alias_match: Option<Rule>,
    pub(super) fallbacks: Vec<String>,
    pub(super) extractors: Vec<Extractor>,
    pub(super) models: Vec<Model>,
}

/// A model and its prices over time.
#[derive(Debug)]
pub(super) struct Model {
    pub(super) id: String,
    pub(super) rule: Rule,
    prices: Vec<Dated>,
    variants: Vec<Variant>,
}

/// Prices that are in force under a condition; the last whose condition holds.
#[derive(Debug)]
struct Dated {
    when: When,
    rates: Rates,
    ready: RateSet,
}

/// Prices in place of some of the others, for calls of one kind: a tier of service, a batch.
#[derive(Debug)]
struct Variant {
    context: BTreeMap<String, String>,
    when: When,
    rates: Rates,
}

/// By price key, with the unit and how many of it the price is for.
type Rates = BTreeMap<String, (Unit, Rate, Decimal)>;

#[derive(Clone, Copy, Debug)]
enum When {
    Always,
    From(NaiveDate),
    /// Between two times of day, UTC; past midnight if the second is the earlier one.
    Daily(NaiveTime, NaiveTime),
}

impl When {
    fn holds(self, at: DateTime<Utc>) -> bool {
        match self {
            Self::Always => true,
            Self::From(day) => at.date_naive() >= day,
            Self::Daily(start, end) if end < start => at.time() >= start || at.time() < end,
            Self::Daily(start, end) => at.time() >= start && at.time() < end,
        }
    }
}

impl Model {
    /// Prices of an instant for a call about which `context` knows what the data asks for.
    pub(super) fn rates<'c>(
        &self,
        at: DateTime<Utc>,
        context: impl Fn(&str) -> Option<&'c str>,
    ) -> std::result::Result<std::borrow::Cow<'_, RateSet>, String> {
        let in_force = self.prices.iter().rev().find(|dated| dated.when.holds(at));
        let Some(dated) = in_force.or_else(|| self.prices.first()) else {
            return Ok(std::borrow::Cow::Owned(RateSet::default()));
        };
        let applies = |variant: &&Variant| {
            let asked = |(key, value): (&String, &String)| context(key) == Some(value);
            variant.when.holds(at) && variant.context.iter().all(asked)
        };
        let mut rates: Option<Rates> = None;
        // The first that applies has the last word, so it comes last.
        for variant in self.variants.iter().filter(applies).collect::<Vec<_>>().into_iter().rev() {
            rates.get_or_insert_with(|| dated.rates.clone()).extend(variant.rates.clone());
        }
        match rates {
            None => Ok(std::borrow::Cow::Borrowed(&dated.ready)),
            Some(rates) => RateSet::new(rates.into_values()).map(std::borrow::Cow::Owned),
        }
    }
}

/// Reads a file of the form.
pub(super) fn providers(json: &[u8]) -> Result<Vec<Provider>> {
    let wire: Vec<WireProvider<'_>> = serde_json::from_slice(json)
        .map_err(|error| Error::invalid("prices", format!("are not of the form of genai-prices: {error}")))?;
    let providers: Vec<Provider> = wire.into_iter().map(provider).collect::<Result<_>>()?;
    for (position, provider) in providers.iter().enumerate() {
        if providers[..position].iter().any(|other| other.id == provider.id) {
            return Err(Error::invalid("prices", format!("have the provider {} twice", provider.id)));
        }
    }
    Ok(providers)
}

fn provider(wire: WireProvider<'_>) -> Result<Provider> {
    let models = wire.models.into_iter().map(|model| {
        let (id, provider) = (model.id.clone(), &wire.id);
        self::model(model).map_err(|rule| Error::invalid("prices", format!("{provider}, {id}: {rule}")))
    });
    let models: Vec<Model> = models.collect::<Result<_>>()?;
    Ok(Provider {
        model_match: wire.model_match,
        alias_match: wire.provider_match,
        fallbacks: wire.fallback_model_providers.unwrap_or_default(),
        extractors: wire.extractors.unwrap_or_default(),
        models,
        id: wire.id,
    })
}

type Decoded<T> = std::result::Result<T, String>;

fn model(wire: WireModel<'_>) -> Decoded<Model> {
    let text = wire.prices.map_or("{}", RawValue::get);
    let prices = if text.trim_start().starts_with('[') {
        let list: Vec<WireDated<'_>> = from_text(text)?;
        list.into_iter().map(dated).collect::<Decoded<Vec<_>>>()?
    } else {
        vec![dated(WireDated { constraint: None, prices: from_text(text)? })?]
    };
    if prices.iter().filter(|dated| matches!(dated.when, When::Always)).count() != 1 {
        return Err("must have one price without a constraint".to_owned());
    }
    let variants = wire.price_variants.unwrap_or_default().into_iter().map(|variant| {
        Ok(Variant { context: variant.when, when: when(variant.constraint)?, rates: rates(variant.prices)? })
    });
    Ok(Model { id: wire.id, rule: wire.rule, prices, variants: variants.collect::<Decoded<_>>()? })
}

fn dated(wire: WireDated<'_>) -> Decoded<Dated> {
    let rates = rates(wire.prices)?;
    Ok(Dated { when: when(wire.constraint)?, ready: RateSet::new(rates.values().cloned())?, rates })
}

/// Keys that nobody knows yet are left out: newer data must not stop older code.
fn rates(prices: BTreeMap<String, &RawValue>) -> Decoded<Rates> {
    let known = prices.into_iter().filter(|(_, price)| price.get() != "null");
    let known = known.filter_map(|(key, price)| Some((Unit::of_price_key(&key)?, key, price)));
    known
        .map(|((unit, per), key, price)| {
            let rate = rate(price.get()).map_err(|rule| format!("{key} {rule}"))?;
            Ok((key, (unit, rate, per)))
        })
        .collect()
}

fn rate(text: &str) -> Decoded<Rate> {
    if !text.starts_with('{') {
        return amount(text).map(Rate::flat);
    }
    let wire: WireTiered<'_> = from_text(text)?;
    let tiers = wire.tiers.into_iter().map(|tier| Ok((tier.start, amount(tier.price.get())?)));
    Ok(Rate::tiered(amount(wire.base.get())?, tiers.collect::<Decoded<_>>()?))
}

/// A price, digit by digit.
fn amount(text: &str) -> Decoded<Decimal> {
    let refused = || format!("must be a price of at most 28 digits, is {text}");
    let amount = if text.contains(['e', 'E']) {
        Decimal::from_scientific(text)
    } else {
        Decimal::from_str_exact(text)
    };
    amount.ok().filter(|amount| *amount >= Decimal::ZERO).ok_or_else(refused)
}

fn when(constraint: Option<WireConstraint>) -> Decoded<When> {
    let Some(constraint) = constraint else { return Ok(When::Always) };
    match (constraint.start_date, constraint.start_time, constraint.end_time) {
        (Some(date), None, None) => Ok(When::From(date)),
        (None, Some(start), Some(end)) => Ok(When::Daily(time_of_day(&start)?, time_of_day(&end)?)),
        _ => Err("has a constraint that is neither a start date nor two times of day".to_owned()),
    }
}

/// `HH:MM:SS` with `Z` or an offset, as a time of day of UTC.
fn time_of_day(text: &str) -> Decoded<NaiveTime> {
    let refused = || format!("has a constraint whose time of day cannot be read: {text}");
    // Any day will do to take the offset away.
    let instant = DateTime::parse_from_rfc3339(&format!("2000-01-02T{text}")).map_err(|_| refused())?;
    if instant.timestamp_subsec_nanos() >= 1_000_000_000 {
        return Err(refused());
    }
    Ok((instant.to_utc() + TimeDelta::zero()).time())
}

fn from_text<'a, T: Deserialize<'a>>(text: &'a str) -> Decoded<T> {
    serde_json::from_str(text).map_err(|error| format!("cannot be read: {error}"))
}

#[derive(Deserialize)]
struct WireProvider<'a> {
    id: String,
    model_match: Option<Rule>,
    provider_match: Option<Rule>,
    fallback_model_providers: Option<Vec<String>>,
    extractors: Option<Vec<Extractor>>,
    #[serde(borrow, default)]
    models: Vec<WireModel<'a>>,
}

#[derive(Deserialize)]
struct WireModel<'a> {
    id: String,
    #[serde(rename = "match")]
    rule: Rule,
    #[serde(borrow)]
    prices: Option<&'a RawValue>,
    #[serde(borrow)]
    price_variants: Option<Vec<WireVariant<'a>>>,
}

#[derive(Deserialize)]
struct WireDated<'a> {
    constraint: Option<WireConstraint>,
    #[serde(borrow)]
    prices: BTreeMap<String, &'a RawValue>,
}

#[derive(Deserialize)]
struct WireVariant<'a> {
    when: BTreeMap<String, String>,
    constraint: Option<WireConstraint>,
    #[serde(borrow)]
    prices: BTreeMap<String, &'a RawValue>,
}

#[derive(Deserialize)]
struct WireConstraint {
    start_date: Option<NaiveDate>,
    start_time: Option<String>,
    end_time: Option<String>,
}

#[derive(Deserialize)]
struct WireTiered<'a> {
    #[serde(borrow)]
    base: &'a RawValue,
    #[serde(borrow)]
    tiers: Vec<WireTier<'a>>,
}

#[derive(Deserialize)]
struct WireTier<'a> {
    start: u64,
    #[serde(borrow)]
    price: &'a RawValue,
}
