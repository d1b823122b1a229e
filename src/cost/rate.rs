//! Prices of one model, and what some usage costs by them.

use std::fmt;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use smallvec::SmallVec;

use super::reported::ReportedUsage;
use super::unit::Unit;

/// What usage costs, in US dollars, before anything is rounded.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Amounts {
    /// What went in.
    pub input: Decimal,
    /// What came out.
    pub output: Decimal,
    /// What is neither: calls, searches, the host's own measures.
    pub other: Decimal,
}

impl Amounts {
    /// All together.
    ///
    /// # Errors
    /// `None` if it is more than a decimal holds.
    pub fn total(&self) -> Option<Decimal> {
        self.input.checked_add(self.output)?.checked_add(self.other)
    }
}

/// Why usage has no price by the prices of its model.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Unpriceable {
    Contradiction { unit: Unit, amount: Decimal, parts: Decimal },
    Missing(String),
    TooMuch,
}

impl fmt::Display for Unpriceable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Contradiction { unit, amount, parts } => {
                write!(f, "usage.{unit}: its parts are more than it is: {parts} of {amount}")
            }
            Self::Missing(text) => write!(f, "usage.{text}"),
            Self::TooMuch => f.write_str("usage: costs more than a decimal holds"),
        }
    }
}

/// The price of one unit, by how many tokens went in.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Rate {
    base: Decimal,
    /// From above so many input tokens on another price is for all of the unit; the highest first.
    tiers: Vec<(u64, Decimal)>,
}

impl Rate {
    #[cfg(feature = "genai-prices")]
    pub(super) fn flat(base: Decimal) -> Self {
        Self { base, tiers: Vec::new() }
    }

    pub(super) fn tiered(base: Decimal, mut tiers: Vec<(u64, Decimal)>) -> Self {
        tiers.sort_by_key(|(above, _)| std::cmp::Reverse(*above));
        Self { base, tiers }
    }

    fn at(&self, input_tokens: Decimal) -> Decimal {
        let tier = self.tiers.iter().find(|(above, _)| input_tokens > Decimal::from(*above));
        tier.map_or(self.base, |(_, price)| *price)
    }
}

/// A unit with its price.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Priced {
    unit: Unit,
    rate: Rate,
    per: Decimal,
    /// Positions of the priced units that are part of this one: they come before it.
    parts: SmallVec<[usize; 6]>,
}

/// All prices of one model, made ready: each amount is charged once, by the narrowest unit that has a price.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct RateSet {
    /// The narrowest first.
    priced: Vec<Priced>,
    is_tiered: bool,
}

impl RateSet {
    /// # Errors
    /// What is missing, if a part has a price and what it is part of has none: that would be charged nothing.
    pub(super) fn new(rates: impl IntoIterator<Item = (Unit, Rate, Decimal)>) -> Result<Self, String> {
        let mut rates: Vec<(Unit, Rate, Decimal)> = rates.into_iter().collect();
        rates.sort_by_key(|(unit, _, _)| (std::cmp::Reverse(unit.depth()), *unit));
        let units: Vec<Unit> = rates.iter().map(|(unit, _, _)| *unit).collect();
        for (position, unit) in units.iter().enumerate() {
            if let Some(whole) = unit.wholes().find(|whole| !units.contains(whole)) {
                return Err(format!("has a price of {unit} and none of {whole}"));
            }
            let overlapping = units[position + 1..].iter().filter(|other| unit.is_compatible(**other));
            if let Some(join) = overlapping.map(|other| unit.join(*other)).find(|join| !units.contains(join))
            {
                return Err(format!("has prices of two units and none of what is both, {join}"));
            }
        }
        let parts_of = |unit: Unit| {
            let parts = units.iter().enumerate().filter(move |(_, part)| part.is_part_of(unit));
            parts.map(|(position, _)| position).collect()
        };
        let is_tiered = rates.iter().any(|(_, rate, _)| !rate.tiers.is_empty());
        let priced =
            rates.into_iter().map(|(unit, rate, per)| Priced { parts: parts_of(unit), unit, rate, per });
        Ok(Self { priced: priced.collect(), is_tiered })
    }

    /// What usage costs.
    pub(super) fn amounts(&self, usage: &ReportedUsage) -> Result<Amounts, Unpriceable> {
        let amount_of =
            |unit| usage.amount_of(unit).map_err(|missing| Unpriceable::Missing(missing.to_string()));
        let input_tokens = if self.is_tiered { amount_of(Unit::INPUT)? } else { Decimal::ZERO };
        let mut amounts = Amounts::default();
        // What of each unit no narrower one has: charged once.
        let mut own: SmallVec<[Decimal; 8]> = SmallVec::new();
        for priced in &self.priced {
            let rest = if priced.unit == Unit::REQUESTS {
                Decimal::ONE
            } else {
                let amount = amount_of(priced.unit)?;
                let mut parts = priced.parts.iter().filter_map(|part| own.get(*part));
                let parts = parts
                    .try_fold(Decimal::ZERO, |sum, part| sum.checked_add(*part))
                    .ok_or(Unpriceable::TooMuch)?;
                if parts > amount {
                    return Err(Unpriceable::Contradiction { unit: priced.unit, amount, parts });
                }
                amount - parts
            };
            own.push(rest);
            let sum = if priced.unit.is_input() {
                &mut amounts.input
            } else if priced.unit.is_output() {
                &mut amounts.output
            } else {
                &mut amounts.other
            };
            *sum = charged(priced.rate.at(input_tokens), rest, priced.per)
                .and_then(|charged| sum.checked_add(charged))
                .ok_or(Unpriceable::TooMuch)?;
        }
        Ok(amounts)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.priced.is_empty()
    }
}

/// A price for so many, times an amount. Where the one divides by a power of ten nothing is rounded.
fn charged(price: Decimal, amount: Decimal, per: Decimal) -> Option<Decimal> {
    let whole = price.checked_mul(amount)?;
    let places = match per.to_u64()? {
        1 => return Some(whole),
        1_000 => 3,
        1_000_000 => 6,
        1_000_000_000 => 9,
        _ => return whole.checked_div(per),
    };
    let mut moved = whole;
    match moved.set_scale(whole.scale() + places) {
        Ok(()) => Some(moved),
        Err(_) => whole.checked_div(per),
    }
}
