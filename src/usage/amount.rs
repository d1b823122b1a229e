//! The amounts of an event that are not tokens: latency, status code, cost and the host's own measures.

use std::collections::BTreeMap;
use std::time::Duration;

use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::text::Label;
use crate::{Error, Result};

/// The longest latency that an event may have: seven days.
pub const LATENCY_MAX: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// The most that one event may cost: a million US dollars.
pub const COST_USD_MAX: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 0);
/// The finest fraction of a dollar that is kept, in decimal places: a pico-dollar.
pub const COST_SCALE_MAX: u32 = 12;
/// The most measures of one event.
pub const MEASURES_PER_EVENT_MAX: usize = 16;
/// The most that one event may have of one measure: 10^12.
pub const MEASURE_MAX: Decimal = Decimal::from_parts(0xD4A5_1000, 0xE8, 0, false, 0);
/// The measure that says what an event of an unknown price counts for against limits of cost, in US dollars. A tracker adds it
/// where a limit asks for it; it is no part of the cost.
pub const UNPRICED_CEILING_MEASURE: &str = "unpriced_ceiling_usd";
/// The finest fraction of a measure that is kept, in decimal places.
pub const MEASURE_SCALE_MAX: u32 = 6;

/// How long an operation took, in whole microseconds; at most seven days.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct Latency(u64);

impl Latency {
    /// Takes a duration, cut to whole microseconds.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `latency` if it is longer than [`LATENCY_MAX`].
    pub fn new(duration: Duration) -> Result<Self> {
        if duration > LATENCY_MAX {
            let rule = format!("must not be longer than {LATENCY_MAX:?}, is {duration:?}");
            return Err(Error::invalid("latency", rule));
        }
        Ok(Self::saturating(duration))
    }

    /// A measured duration; beyond the bound it is the bound.
    pub(crate) fn saturating(duration: Duration) -> Self {
        Self(u64::try_from(duration.min(LATENCY_MAX).as_micros()).unwrap_or(u64::MAX))
    }

    /// The latency in microseconds.
    pub fn as_micros(self) -> u64 {
        self.0
    }
}

impl TryFrom<u64> for Latency {
    type Error = Error;

    fn try_from(microseconds: u64) -> Result<Self> {
        Self::new(Duration::from_micros(microseconds))
    }
}

impl From<Latency> for u64 {
    fn from(latency: Latency) -> Self {
        latency.0
    }
}

/// An HTTP status code: 100 to 599.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct StatusCode(u16);

impl StatusCode {
    /// Checks and takes a code.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `status_code` if it is not in 100 to 599.
    pub fn new(code: u16) -> Result<Self> {
        if !(100..600).contains(&code) {
            return Err(Error::invalid("status_code", format!("must be in 100 to 599, is {code}")));
        }
        Ok(Self(code))
    }

    /// The code as a number.
    pub fn as_u16(self) -> u16 {
        self.0
    }
}

impl TryFrom<u16> for StatusCode {
    type Error = Error;

    fn try_from(code: u16) -> Result<Self> {
        Self::new(code)
    }
}

impl From<StatusCode> for u16 {
    fn from(code: StatusCode) -> Self {
        code.0
    }
}

/// What an operation cost, in US dollars: 0 to 1,000,000 with at most 12 decimal places.
///
/// ```
/// use metertrail::Cost;
/// use rust_decimal::Decimal;
///
/// let cost = Cost::usd(Decimal::new(2_50, 2))?;
/// assert_eq!(cost.as_decimal(), Decimal::new(25, 1));
/// assert!(Cost::usd(Decimal::NEGATIVE_ONE).is_err());
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "Decimal", into = "Decimal")]
pub struct Cost(Decimal);

impl Cost {
    /// Checks and takes an amount of US dollars.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `cost` if it is negative, over [`COST_USD_MAX`], or has
    /// more than [`COST_SCALE_MAX`] decimal places: rounding is the caller's decision, once.
    pub fn usd(amount: Decimal) -> Result<Self> {
        checked_decimal("cost", amount, COST_USD_MAX, COST_SCALE_MAX).map(Self)
    }

    /// The amount in US dollars.
    pub fn as_decimal(self) -> Decimal {
        self.0
    }
}

impl TryFrom<Decimal> for Cost {
    type Error = Error;

    fn try_from(amount: Decimal) -> Result<Self> {
        Self::usd(amount)
    }
}

impl From<Cost> for Decimal {
    fn from(cost: Cost) -> Self {
        cost.0
    }
}

/// The host's own quantities of one event, by name: at most 16, each 0 to 10^12 with at most 6 decimal places.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "BTreeMap<Label, Decimal>", into = "BTreeMap<Label, Decimal>")]
pub struct Measures(BTreeMap<Label, Decimal>);

impl Measures {
    /// A copy in which the measure has this amount.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `measures` if there are more than
    /// [`MEASURES_PER_EVENT_MAX`], on `measure` if the name is not a label or the amount is out of range.
    pub fn with(mut self, name: impl AsRef<str>, amount: Decimal) -> Result<Self> {
        let name = Label::new("measure", name)?;
        self.0.insert(name, checked_decimal("measure", amount, MEASURE_MAX, MEASURE_SCALE_MAX)?);
        if self.0.len() > MEASURES_PER_EVENT_MAX {
            return Err(Error::invalid(
                "measures",
                format!("must not be more than {MEASURES_PER_EVENT_MAX}"),
            ));
        }
        Ok(self)
    }

    /// Names and amounts, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&Label, Decimal)> {
        self.0.iter().map(|(name, amount)| (name, *amount))
    }

    /// The amount of one measure.
    pub fn get(&self, name: &str) -> Option<Decimal> {
        self.0.iter().find(|(own, _)| own.as_str() == name).map(|(_, amount)| *amount)
    }

    /// Those that the host gave.
    pub(crate) fn reported(&self) -> impl Iterator<Item = (&Label, Decimal)> {
        self.iter().filter(|(name, _)| name.as_str() != UNPRICED_CEILING_MEASURE)
    }

    /// A copy of those that the host gave.
    pub(crate) fn without_ceiling(mut self) -> Self {
        self.0.retain(|name, _| name.as_str() != UNPRICED_CEILING_MEASURE);
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<BTreeMap<Label, Decimal>> for Measures {
    type Error = Error;

    fn try_from(map: BTreeMap<Label, Decimal>) -> Result<Self> {
        map.into_iter()
            .try_fold(Self::default(), |measures, (name, amount)| measures.with(name.as_str(), amount))
    }
}

impl From<Measures> for BTreeMap<Label, Decimal> {
    fn from(measures: Measures) -> Self {
        measures.0
    }
}

fn checked_decimal(field: &'static str, amount: Decimal, max: Decimal, scale_max: u32) -> Result<Decimal> {
    let amount = amount.normalize();
    if amount.is_sign_negative() && !amount.is_zero() {
        return Err(Error::invalid(field, format!("must not be negative, is {amount}")));
    }
    if amount > max {
        return Err(Error::invalid(field, format!("must not be over {max}, is {amount}")));
    }
    if amount.scale() > scale_max {
        let rule = format!("must not have more than {scale_max} decimal places, is {amount}");
        return Err(Error::invalid(field, rule));
    }
    Ok(amount.abs())
}
