//! Usage as a provider reports it, and what it is in classes.

use std::fmt;

use rust_decimal::Decimal;
use rust_decimal::prelude::ToPrimitive;
use serde::Serialize;
use smallvec::SmallVec;

use super::unit::Unit;
use crate::usage::{Measures, TokenClass, TokenUsage};
use crate::{Error, Result};

/// Usage as a provider reports it: counts that contain each other. The `input_tokens` have the `cache_read_tokens` in them,
/// the `output_tokens` those of reasoning; [`tokens`](Self::tokens) takes them apart.
///
/// ```
/// use metertrail::TokenClass;
/// use metertrail::cost::{ReportedUsage, Unit};
/// use rust_decimal::Decimal;
///
/// let mut usage = ReportedUsage::default();
/// usage.add(Unit::INPUT, Decimal::from(1_000))?;
/// usage.add(Unit::CACHE_READ, Decimal::from(800))?;
/// assert_eq!(usage.tokens()?.get(TokenClass::Input), 200);
///
/// usage.add(Unit::CACHE_READ, Decimal::from(800))?;
/// let error = usage.tokens().unwrap_err();
/// assert_eq!(error.field(), Some("usage.cache_read_tokens"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Default, Eq, PartialEq)]
pub struct ReportedUsage(SmallVec<[(Unit, Decimal); 8]>);

impl ReportedUsage {
    /// What an event says of its usage: its classes of tokens, and those of its measures that are named like units.
    pub fn of(tokens: &TokenUsage, measures: &Measures) -> Self {
        let mut usage = Self::of_tokens(tokens);
        for (name, amount) in measures.iter() {
            if let Ok(unit) = name.as_str().parse() {
                usage.set(unit, amount);
            }
        }
        usage
    }

    fn of_tokens(tokens: &TokenUsage) -> Self {
        let mut usage = Self::default();
        let sum = |classes: &[TokenClass]| {
            classes.iter().fold(0_u64, |sum, class| sum.saturating_add(tokens.get(*class)))
        };
        let cached = sum(&[TokenClass::CacheRead, TokenClass::AudioCacheRead]);
        let audio = sum(&[TokenClass::AudioInput, TokenClass::AudioCacheRead]);
        let uncached = sum(&[TokenClass::Input, TokenClass::CacheWrite, TokenClass::AudioInput]);
        let output = sum(&[TokenClass::Output, TokenClass::Reasoning, TokenClass::AudioOutput]);
        for (unit, count) in [
            (Unit::INPUT, uncached.saturating_add(cached)),
            (Unit::OUTPUT, output),
            (Unit::CACHE_READ, cached),
            (Unit::CACHE_WRITE, tokens.get(TokenClass::CacheWrite)),
            (Unit::REASONING, tokens.get(TokenClass::Reasoning)),
            (Unit::AUDIO_INPUT, audio),
            (Unit::AUDIO_OUTPUT, tokens.get(TokenClass::AudioOutput)),
        ] {
            if count > 0 {
                usage.set(unit, count.into());
            }
        }
        if cached > 0 && audio > 0 {
            // What is both is known, even where it is nothing.
            usage.set(Unit::AUDIO_CACHE_READ, tokens.get(TokenClass::AudioCacheRead).into());
        }
        usage
    }

    /// Adds an amount to what is reported of a unit.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `usage.<unit>` if the amount is negative or the sum is beyond
    /// what a decimal holds.
    pub fn add(&mut self, unit: Unit, amount: Decimal) -> Result<()> {
        if amount < Decimal::ZERO {
            return Err(invalid(unit, format!("must not be negative, is {amount}")));
        }
        let sum = self.get(unit).unwrap_or_default().checked_add(amount);
        self.set(unit, sum.ok_or_else(|| invalid(unit, "is more than a decimal holds"))?);
        Ok(())
    }

    fn set(&mut self, unit: Unit, amount: Decimal) {
        match self.0.iter_mut().find(|(other, _)| *other == unit) {
            Some((_, kept)) => *kept = amount,
            None => self.0.push((unit, amount)),
        }
    }

    /// What is reported of a unit, if anything is.
    pub fn get(&self, unit: Unit) -> Option<Decimal> {
        self.0.iter().find(|(other, _)| *other == unit).map(|(_, amount)| *amount)
    }

    /// What is reported, by the name of the unit.
    pub fn iter(&self) -> impl Iterator<Item = (Unit, Decimal)> {
        let mut sorted: Vec<(String, Unit, Decimal)> =
            self.0.iter().map(|(unit, amount)| (unit.to_string(), *unit, *amount)).collect();
        sorted.sort_unstable();
        sorted.into_iter().map(|(_, unit, amount)| (unit, amount))
    }

    /// A copy without what is reported as zero.
    #[must_use]
    pub fn without_zeros(mut self) -> Self {
        self.0.retain(|(_, amount)| !amount.is_zero());
        self
    }

    /// Whether nothing is reported.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How much there is of a unit: what is reported, else zero unless something that is reported is part of it.
    pub(super) fn amount_of(&self, unit: Unit) -> Result<Decimal, Missing> {
        if let Some(amount) = self.get(unit) {
            return Ok(amount);
        }
        let positive = || self.0.iter().filter(|(_, amount)| !amount.is_zero()).map(|(other, _)| *other);
        if let Some(part) = positive().find(|part| part.is_part_of(unit)) {
            return Err(Missing { unit, part });
        }
        for left in positive() {
            let overlaps = |right: &Unit| {
                let is_apart = *right != left && !left.is_part_of(*right) && !right.is_part_of(left);
                is_apart && left.is_compatible(*right) && left.join(*right) == unit
            };
            if let Some(part) = positive().find(overlaps) {
                return Err(Missing { unit, part });
            }
        }
        Ok(Decimal::ZERO)
    }

    /// The tokens by disjoint class. What is reported of images and video is in [`Input`](TokenClass::Input) and
    /// [`Output`](TokenClass::Output); [`measures`](Self::measures) has it by itself.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `usage.<unit>` if a part is larger than what it is part of, a
    /// count is not whole, or parts are given without their whole.
    pub fn tokens(&self) -> Result<TokenUsage> {
        let (input, output) = (self.whole(Unit::INPUT)?, self.whole(Unit::OUTPUT)?);
        let (cached, written) = (self.part(Unit::CACHE_READ, input)?, self.part(Unit::CACHE_WRITE, input)?);
        let (audio, reasoning) = (self.part(Unit::AUDIO_INPUT, input)?, self.part(Unit::REASONING, output)?);
        let audio_cached = self.part(Unit::AUDIO_CACHE_READ, cached.min(audio))?;
        let audio_output = self.part(Unit::AUDIO_OUTPUT, output)?;
        let parts = cached.saturating_add(written).saturating_add(audio - audio_cached);
        let text = input.checked_sub(parts).ok_or_else(|| beyond(Unit::INPUT, parts, input))?;
        let parts = reasoning.saturating_add(audio_output);
        let shown = output.checked_sub(parts).ok_or_else(|| beyond(Unit::OUTPUT, parts, output))?;
        TokenUsage::reported(text, shown)?
            .with(TokenClass::CacheRead, cached - audio_cached)?
            .with(TokenClass::CacheWrite, written)?
            .with(TokenClass::Reasoning, reasoning)?
            .with(TokenClass::AudioInput, audio - audio_cached)?
            .with(TokenClass::AudioCacheRead, audio_cached)?
            .with(TokenClass::AudioOutput, audio_output)
    }

    /// What is reported beyond the classes of tokens and may have a price of its own: images, video, searches, a cache that
    /// is kept for an hour, by the name of the unit.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `measure` or `measures`, as [`Measures::with`].
    pub fn measures(&self) -> Result<Measures> {
        const IN_CLASSES: [Unit; 8] = [
            Unit::INPUT,
            Unit::OUTPUT,
            Unit::CACHE_READ,
            Unit::CACHE_WRITE,
            Unit::REASONING,
            Unit::AUDIO_INPUT,
            Unit::AUDIO_CACHE_READ,
            Unit::AUDIO_OUTPUT,
        ];
        let is_extra = |unit: Unit| !IN_CLASSES.contains(&unit) && !unit.is_never_priced();
        let extra = self.iter().filter(|(unit, amount)| is_extra(*unit) && !amount.is_zero());
        extra.into_iter().try_fold(Measures::default(), |all, (unit, amount)| {
            // Seconds of audio are the only amounts that are not whole.
            all.with(unit.to_string(), amount.round_dp(crate::usage::MEASURE_SCALE_MAX))
        })
    }

    fn whole(&self, unit: Unit) -> Result<u64> {
        let amount = self.amount_of(unit).map_err(|missing| invalid(unit, missing.to_string()))?;
        count(unit, amount)
    }

    fn part(&self, unit: Unit, most: u64) -> Result<u64> {
        let part = count(unit, self.get(unit).unwrap_or_default())?;
        if part > most {
            return Err(beyond(unit, part, most));
        }
        Ok(part)
    }
}

fn count(unit: Unit, amount: Decimal) -> Result<u64> {
    let whole = amount.is_integer().then(|| amount.to_u64()).flatten();
    whole.ok_or_else(|| invalid(unit, format!("must be a whole number of 64 bits, is {amount}")))
}

fn beyond(unit: Unit, part: u64, most: u64) -> Error {
    invalid(unit, format!("its parts and their whole contradict each other: {part} of {most}"))
}

fn invalid(unit: Unit, rule: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::invalid(format!("usage.{unit}"), rule)
}

/// A unit that is not reported though a part of it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Missing {
    unit: Unit,
    part: Unit,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is not reported, though {} is", self.unit, self.part)
    }
}

impl fmt::Debug for ReportedUsage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// An object of the names of units: whole amounts as numbers, others as texts.
impl Serialize for ReportedUsage {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(untagged)]
        enum Amount {
            Whole(u64),
            Other(Decimal),
        }
        let amount = |amount: Decimal| match amount.to_u64().filter(|_| amount.is_integer()) {
            Some(whole) => Amount::Whole(whole),
            None => Amount::Other(amount),
        };
        serializer.collect_map(self.iter().map(|(unit, value)| (unit.to_string(), amount(value))))
    }
}
