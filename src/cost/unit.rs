//! What a price is for: tokens of some kind, pages, seconds, searches, calls.

use std::fmt;
use std::str::FromStr;

#[cfg(feature = "genai-prices")]
use rust_decimal::Decimal;

use crate::{Error, Result};

/// The words that names of units are made of, in the order in which a name has them. Those of one group exclude each other.
const WORDS: [(&str, Group); 20] = [
    ("input", Group::Direction),
    ("output", Group::Direction),
    ("annotated", Group::Annotated),
    ("document", Group::Document),
    ("web", Group::Tool),
    ("social", Group::Tool),
    ("storage", Group::Tool),
    ("rerank", Group::Tool),
    ("code", Group::Tool),
    ("text", Group::Modality),
    ("audio", Group::Modality),
    ("image", Group::Modality),
    ("video", Group::Modality),
    ("read", Group::Kind),
    ("write", Group::Kind),
    ("5m", Group::Lifetime),
    ("1h", Group::Lifetime),
    ("tool", Group::Kind),
    ("reasoning", Group::Kind),
    ("citation", Group::Kind),
];
const INPUT: u32 = 1;
const OUTPUT: u32 = 1 << 1;
const TEXT: u32 = 1 << 9;
const AUDIO: u32 = 1 << 10;
const READ: u32 = 1 << 13;
const WRITE: u32 = 1 << 14;
const TOOL: u32 = 1 << 17;
const REASONING: u32 = 1 << 18;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Group {
    Direction,
    Annotated,
    Document,
    Tool,
    Modality,
    Kind,
    Lifetime,
}

impl Group {
    const ALL: [Self; 7] = [
        Self::Direction,
        Self::Annotated,
        Self::Document,
        Self::Tool,
        Self::Modality,
        Self::Kind,
        Self::Lifetime,
    ];

    fn mask(self) -> u32 {
        let bits = (0_u32..).zip(WORDS).filter(|(_, (_, group))| *group == self);
        bits.fold(0, |mask, (bit, _)| mask | 1 << bit)
    }
}

/// What is counted, before any word narrows it.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Family {
    Tokens,
    Characters,
    Pages,
    Pixels,
    Seconds,
    Messages,
    Searches,
    Executions,
    Requests,
}

impl Family {
    const ALL: [Self; 9] = [
        Self::Tokens,
        Self::Characters,
        Self::Pages,
        Self::Pixels,
        Self::Seconds,
        Self::Messages,
        Self::Searches,
        Self::Executions,
        Self::Requests,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Tokens => "tokens",
            Self::Characters => "characters",
            Self::Pages => "pages",
            Self::Pixels => "pixels",
            Self::Seconds => "seconds",
            Self::Messages => "messages",
            Self::Searches => "searches",
            Self::Executions => "executions",
            Self::Requests => "requests",
        }
    }
}

/// What a price is for, by the names of genai-prices: `input_tokens`, `cache_read_tokens`, `cache_audio_read_tokens`,
/// `output_reasoning_tokens`, `web_searches`, `requests`. A name with more words is a part of one with fewer:
/// `cache_read_tokens` are some of the `input_tokens`.
///
/// ```
/// use metertrail::cost::Unit;
///
/// let cached: Unit = "cache_read_tokens".parse()?;
/// assert!(cached.is_part_of("input_tokens".parse()?));
/// assert_eq!(cached.to_string(), "cache_read_tokens");
/// assert_eq!("gold_tokens".parse::<Unit>().unwrap_err().field(), Some("unit"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Unit {
    family: Family,
    words: u32,
}

impl Unit {
    /// All tokens that went in, cached ones and audio among them.
    pub const INPUT: Self = Self::tokens(INPUT);
    /// All tokens that came out, those of reasoning and audio among them.
    pub const OUTPUT: Self = Self::tokens(OUTPUT);
    /// Tokens that were read from a cache.
    pub const CACHE_READ: Self = Self::tokens(INPUT | READ);
    /// Tokens that were written to a cache.
    pub const CACHE_WRITE: Self = Self::tokens(INPUT | WRITE);
    /// Tokens of reasoning.
    pub const REASONING: Self = Self::tokens(OUTPUT | REASONING);
    /// Tokens of audio that went in.
    pub const AUDIO_INPUT: Self = Self::tokens(INPUT | AUDIO);
    /// Tokens of audio that were read from a cache.
    pub const AUDIO_CACHE_READ: Self = Self::tokens(INPUT | AUDIO | READ);
    /// Tokens of audio that came out.
    pub const AUDIO_OUTPUT: Self = Self::tokens(OUTPUT | AUDIO);
    /// The call itself: one for each event.
    pub const REQUESTS: Self = Self { family: Family::Requests, words: 0 };

    const fn tokens(words: u32) -> Self {
        Self { family: Family::Tokens, words }
    }

    /// The unit that a price key of genai-prices is for, and how many of it the price is for: `input_mtok` is for a million
    /// `input_tokens`, `audio_hours` for 3,600 `audio_seconds`.
    #[cfg(feature = "genai-prices")]
    pub(crate) fn of_price_key(key: &str) -> Option<(Self, Decimal)> {
        const SUFFIXES: [(&str, &str, u32); 6] = [
            ("_mtok", "_tokens", 1_000_000),
            ("_mchars", "_characters", 1_000_000),
            ("_gpixels", "_pixels", 1_000_000_000),
            ("_kpages", "_pages", 1_000),
            ("_hours", "_seconds", 3_600),
            ("_kcount", "", 1_000),
        ];
        SUFFIXES.into_iter().find_map(|(suffix, counted, per)| {
            let stem = key.strip_suffix(suffix)?;
            let unit = format!("{stem}{counted}").parse().ok()?;
            Some((unit, per.into()))
        })
    }

    /// Whether everything of this unit is also of the other one, and not the other way round.
    pub fn is_part_of(self, other: Self) -> bool {
        self != other && self.family == other.family && self.words & other.words == other.words
    }

    /// Whether something can be of both.
    pub(crate) fn is_compatible(self, other: Self) -> bool {
        let agrees = |group: Group| {
            let (own, others) = (self.words & group.mask(), other.words & group.mask());
            own == 0 || others == 0 || own == others
        };
        self.family == other.family && Group::ALL.into_iter().all(agrees)
    }

    /// What is of both.
    pub(crate) fn join(self, other: Self) -> Self {
        Self { family: self.family, words: self.words | other.words }
    }

    /// The units that this one is part of.
    pub(crate) fn wholes(self) -> impl Iterator<Item = Self> {
        let subsets = (0..WORDS.len()).fold(vec![0_u32], |mut subsets, bit| {
            let word = self.words & 1 << bit;
            if word != 0 {
                subsets.extend(subsets.clone().into_iter().map(|subset| subset | word));
            }
            subsets
        });
        let wholes = subsets.into_iter().map(move |words| Self { family: self.family, words });
        wholes.filter(move |whole| *whole != self && whole.is_well_formed())
    }

    pub(crate) fn is_input(self) -> bool {
        self.words & INPUT != 0
    }

    pub(crate) fn is_output(self) -> bool {
        self.words & OUTPUT != 0
    }

    pub(crate) fn is_tokens(self) -> bool {
        self.family == Family::Tokens
    }

    /// How many words narrow it: more words, fewer things.
    pub(crate) fn depth(self) -> u32 {
        self.words.count_ones()
    }

    /// Whether it says more than the classes of tokens can and no price was ever given for it: text is what is left when
    /// all else is told, and tools are paid by the call.
    pub(crate) fn is_never_priced(self) -> bool {
        self.is_tokens() && self.words & (TEXT | TOOL) != 0
    }

    fn is_well_formed(self) -> bool {
        let of = |group: Group| self.words & group.mask();
        let is_single = Group::ALL.into_iter().all(|group| of(group).count_ones() <= 1);
        // What a name of the family has at least.
        let needed: &[Group] = match self.family {
            Family::Tokens | Family::Characters | Family::Pixels => &[Group::Direction],
            Family::Pages => &[Group::Direction, Group::Document],
            Family::Messages => &[Group::Direction, Group::Modality],
            Family::Seconds => &[Group::Modality],
            Family::Searches | Family::Executions => &[Group::Tool],
            Family::Requests => &[],
        };
        let is_complete = needed.iter().all(|group| of(*group) != 0);
        let is_cached = self.words & (READ | WRITE) != 0;
        let has_lifetime = of(Group::Lifetime) != 0;
        is_single
            && is_complete
            && (!is_cached || self.words & INPUT != 0)
            && (!has_lifetime || self.words & WRITE != 0)
    }
}

impl FromStr for Unit {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || Error::invalid("unit", format!("is not known: {name:?}"));
        let (words, family) = name.rsplit_once('_').unwrap_or(("", name));
        let family = Family::ALL.into_iter().find(|known| known.as_str() == family).ok_or_else(unknown)?;
        let mut unit = Self { family, words: 0 };
        for word in words.split('_').filter(|_| !words.is_empty()) {
            let bit = match word {
                "cache" => INPUT,
                _ => 1 << WORDS.iter().position(|(known, _)| *known == word).ok_or_else(unknown)?,
            };
            if unit.words & bit != 0 {
                return Err(unknown());
            }
            unit.words |= bit;
        }
        // A name is read only in the one way in which it is written.
        if unit.is_well_formed() && unit.to_string() == name { Ok(unit) } else { Err(unknown()) }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_cached = self.words & (READ | WRITE) != 0;
        for (bit, (word, _)) in (0_u32..).zip(WORDS) {
            if self.words & 1 << bit != 0 {
                write!(f, "{}_", if bit == 0 && is_cached { "cache" } else { word })?;
            }
        }
        f.write_str(self.family.as_str())
    }
}

impl fmt::Debug for Unit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
