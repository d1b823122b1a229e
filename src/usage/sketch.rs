//! Percentiles that can be added up.

use std::cmp::Ordering;

use crate::{Error, ErrorKind, Result};

/// How many low bits of a packed element hold the count.
const COUNT_BITS: u32 = 40;
const PACKED_COUNT_MAX: u64 = (1 << COUNT_BITS) - 1;

/// A mergeable sketch of latencies: counts in bins whose width grows with the value.
///
/// Any quantile it answers is within [`RELATIVE_ERROR_MAX`](LatencySketch::RELATIVE_ERROR_MAX) of the exact one, and
/// below 128 µs it is the exact one. Merging sketches, in any order and grouping, is the same as recording everything
/// in one: nothing is lost that a single sketch would have kept.
///
/// # Bins
/// Log-linear as in [HdrHistogram](https://github.com/HdrHistogram/HdrHistogram), 64 to the octave, with the guarantee
/// that [DDSketch](https://www.vldb.org/pvldb/vol12/p2195-masson.pdf) (Masson, Rim and Lee, VLDB 2019) names relative
/// accuracy, and computed in integers only, so that SQL and other languages get the very same bins:
///
/// ```text
/// shift(v)    = max(0, floor(log2 v) - 6)            v in µs, 0 ≤ v < 2^42; shift(0) = 0
/// bin(v)      = shift * 64 + (v >> shift)            0 to 2367
/// low(bin)    = (bin - shift * 64) << shift          where shift = max(0, floor(bin / 64) - 1)
/// middle(bin) = low + (((1 << shift) - 1) >> 1)      the estimate for every value of the bin
/// ```
///
/// # Storage
/// An array of `i64`, `bin << 40 | count` each, with `0 < count < 2^40`; see [`to_packed`](LatencySketch::to_packed).
///
/// ```
/// use metertrail::{LatencySketch, Quantile};
///
/// let (mut morning, mut evening) = (LatencySketch::new(), LatencySketch::new());
/// for latency_ms in 1..=50 {
///     morning.record(latency_ms * 1_000);
///     evening.record((latency_ms + 50) * 1_000);
/// }
/// morning.merge(&evening);
/// assert_eq!(morning.count(), 100);
/// let p95_us = morning.quantile(Quantile::P95).unwrap();
/// assert!(p95_us.abs_diff(95_000) <= 95_000 / 128);
/// ```
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct LatencySketch {
    /// Ascending and unique by bin; no count is zero.
    bins: Vec<(u16, u64)>,
}

impl LatencySketch {
    /// The bound on the error of a quantile, relative to the exact one: 1/128, less than one per cent.
    pub const RELATIVE_ERROR_MAX: f64 = 1.0 / 128.0;

    /// The greatest latency that is told apart from greater ones, in microseconds: 2^42 - 1, about 51 days.
    pub const VALUE_MAX_US: u64 = (1 << 42) - 1;

    /// How many bins there are.
    pub const BINS: u16 = 2_368;

    /// A sketch of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts one latency, in microseconds; above [`VALUE_MAX_US`](Self::VALUE_MAX_US) it counts as that.
    pub fn record(&mut self, latency_us: u64) {
        let bin = Self::bin(latency_us);
        match self.bins.binary_search_by_key(&bin, |&(bin, _)| bin) {
            Ok(at) => self.bins[at].1 = self.bins[at].1.saturating_add(1),
            Err(at) => self.bins.insert(at, (bin, 1)),
        }
    }

    /// Adds everything that the other sketch counts. Counts stop at `u64::MAX`.
    pub fn merge(&mut self, other: &Self) {
        let mut missing = Vec::new();
        let mut at = 0;
        for &(bin, count) in &other.bins {
            while self.bins.get(at).is_some_and(|&(own, _)| own < bin) {
                at += 1;
            }
            match self.bins.get_mut(at) {
                Some((own, sum)) if *own == bin => *sum = sum.saturating_add(count),
                _ => missing.push((bin, count)),
            }
        }
        if !missing.is_empty() {
            self.bins.append(&mut missing);
            // Two ascending runs, which the stable sort finds and merges in linear time.
            self.bins.sort_by_key(|&(bin, _)| bin);
        }
    }

    /// What this sketch counts and the other does not.
    pub(crate) fn without(&self, other: &Self) -> Self {
        let in_other = |bin: u16| other.bins.binary_search_by_key(&bin, |&(own, _)| own);
        let left = |&(bin, count): &(u16, u64)| {
            let taken = in_other(bin).ok().and_then(|at| other.bins.get(at)).map_or(0, |&(_, count)| count);
            Some((bin, count.checked_sub(taken).filter(|left| *left > 0)?))
        };
        Self { bins: self.bins.iter().filter_map(left).collect() }
    }

    /// How many latencies are counted.
    pub fn count(&self) -> u64 {
        self.bins.iter().fold(0, |sum, &(_, count)| sum.saturating_add(count))
    }

    /// Whether nothing is counted.
    pub fn is_empty(&self) -> bool {
        self.bins.is_empty()
    }

    /// The latency, in microseconds, that the given share of all latencies does not exceed; `None` if there are none.
    ///
    /// By nearest rank: of `n` latencies in ascending order the one at `ceil(q * n)`, counted from one; nothing is
    /// interpolated.
    ///
    /// ```
    /// use metertrail::{LatencySketch, Quantile};
    ///
    /// let mut sketch = LatencySketch::new();
    /// assert_eq!(sketch.quantile(Quantile::P50), None);
    /// for latency_us in [10, 20, 30, 40] {
    ///     sketch.record(latency_us);
    /// }
    /// assert_eq!(sketch.quantile(Quantile::P50), Some(20));
    /// assert_eq!(sketch.quantile(Quantile::P95), Some(40));
    /// ```
    pub fn quantile(&self, quantile: Quantile) -> Option<u64> {
        // Widened: neither the sum of all bins nor its product with 1000 can overflow.
        let total: u128 = self.bins.iter().map(|&(_, count)| u128::from(count)).sum();
        let rank = (total * u128::from(quantile.0)).div_ceil(1_000);
        let mut seen = 0;
        self.bins.iter().find_map(|&(bin, count)| {
            seen += u128::from(count);
            (seen >= rank).then(|| middle(bin))
        })
    }

    /// The bin that counts a latency, in microseconds.
    ///
    /// ```
    /// use metertrail::LatencySketch;
    ///
    /// assert_eq!(LatencySketch::bin(127), 127);
    /// assert_eq!(LatencySketch::bin(128), 128);
    /// assert_eq!(LatencySketch::bin(129), 128);
    /// assert_eq!(LatencySketch::bin(u64::MAX), LatencySketch::BINS - 1);
    /// ```
    pub fn bin(latency_us: u64) -> u16 {
        let value = latency_us.min(Self::VALUE_MAX_US);
        let shift = value.checked_ilog2().unwrap_or(0).saturating_sub(6);
        u16::try_from(u64::from(shift) * 64 + (value >> shift)).unwrap_or(Self::BINS - 1)
    }

    /// The storage form: an array of `bin << 40 | count`, ascending.
    ///
    /// Each bin has one element, except that a count of 2^40 or more, which no element can hold, is split over several.
    ///
    /// ```
    /// use metertrail::LatencySketch;
    ///
    /// let mut sketch = LatencySketch::new();
    /// sketch.record(3);
    /// sketch.record(3);
    /// assert_eq!(sketch.to_packed(), [3 << 40 | 2]);
    /// assert_eq!(LatencySketch::from_packed(&[3 << 40 | 1, 3 << 40 | 1])?, sketch);
    /// # Ok::<(), metertrail::Error>(())
    /// ```
    pub fn to_packed(&self) -> Vec<i64> {
        let mut packed = Vec::with_capacity(self.bins.len());
        for &(bin, count) in &self.bins {
            let mut left = count;
            // The smallest part first, so that the array ascends.
            while left > 0 {
                let part = match left % PACKED_COUNT_MAX {
                    0 => PACKED_COUNT_MAX,
                    rest => rest,
                };
                packed.push(pack(bin, part));
                left -= part;
            }
        }
        packed
    }

    /// Reads the storage form. The elements may come in any order, and several of one bin add up: a store may append
    /// sketches to each other and compact them later.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store) if an element is negative, has a count of zero, or a bin that does not exist.
    ///
    /// ```
    /// use metertrail::ErrorKind;
    /// use metertrail::LatencySketch;
    ///
    /// let error = LatencySketch::from_packed(&[-1]).unwrap_err();
    /// assert_eq!(error.kind(), ErrorKind::Store);
    /// ```
    pub fn from_packed(packed: &[i64]) -> Result<Self> {
        let mut bins = packed.iter().map(|&element| unpack(element)).collect::<Result<Vec<_>>>()?;
        bins.sort_unstable_by_key(|&(bin, _)| bin);
        bins.dedup_by(|later, first| match later.0.cmp(&first.0) {
            Ordering::Equal => {
                first.1 = first.1.saturating_add(later.1);
                true
            }
            _ => false,
        });
        Ok(Self { bins })
    }
}

/// Which latency to ask a [`LatencySketch`] for: a share of all latencies, in thousandths.
///
/// ```
/// use metertrail::Quantile;
///
/// assert_eq!(Quantile::from_permille(990)?, Quantile::P99);
/// assert_eq!(Quantile::P99.permille(), 990);
/// assert_eq!(Quantile::from_permille(0).unwrap_err().field(), Some("quantile"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Quantile(u16);

impl Quantile {
    /// The median.
    pub const P50: Self = Self(500);
    /// Ninety-five per cent are not slower.
    pub const P95: Self = Self(950);
    /// Ninety-nine per cent are not slower.
    pub const P99: Self = Self(990);
    /// The slowest of all.
    pub const MAX: Self = Self(1_000);

    /// A quantile of this many thousandths.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `quantile` if it is not 1 to 1000.
    pub fn from_permille(permille: u16) -> Result<Self> {
        match permille {
            1..=1_000 => Ok(Self(permille)),
            _ => Err(Error::invalid("quantile", format!("must be 1 to 1000 thousandths, is {permille}"))),
        }
    }

    /// The share in thousandths.
    pub fn permille(self) -> u16 {
        self.0
    }
}

fn middle(bin: u16) -> u64 {
    let shift = (bin / 64).saturating_sub(1);
    (u64::from(bin - shift * 64) << shift) + (((1 << shift) - 1) >> 1)
}

fn pack(bin: u16, count: u64) -> i64 {
    i64::from(bin) << COUNT_BITS | i64::try_from(count).unwrap_or(i64::MAX)
}

fn unpack(element: i64) -> Result<(u16, u64)> {
    let malformed =
        || Error::new(ErrorKind::Store, format!("{element} is not an element of a latency sketch"));
    let bits = u64::try_from(element).map_err(|_| malformed())?;
    let count = bits & PACKED_COUNT_MAX;
    match u16::try_from(bits >> COUNT_BITS) {
        Ok(bin) if bin < LatencySketch::BINS && count > 0 => Ok((bin, count)),
        _ => Err(malformed()),
    }
}
