//! What this process may still admit of one limit, in one atomic word: pure, lock-free, without a clock.
//!
//! The word holds an epoch (20 bits) and units (44 bits). The epoch stands for one window; it changes in the same
//! compare-and-swap that takes the units away, so units of one window can never be spent in, or returned to, another.

use crate::atomic::{AtomicU64, Ordering};

const UNIT_BITS: u32 = 44;
const UNITS: u64 = (1 << UNIT_BITS) - 1;

/// The window that units belong to, as a number that is good for comparison only.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct Epoch(u32);

impl Epoch {
    #[inline]
    fn of(word: u64) -> Self {
        // Twenty bits always fit.
        Self(u32::try_from(word >> UNIT_BITS).unwrap_or(u32::MAX))
    }
}

/// Units that can be taken without a lock.
#[derive(Debug)]
pub(crate) struct Allowance(AtomicU64);

impl Allowance {
    /// No units, in the first epoch.
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// The present epoch and its units.
    #[inline]
    pub(crate) fn look(&self) -> (Epoch, u64) {
        let word = self.0.load(Ordering::Acquire);
        (Epoch::of(word), word & UNITS)
    }

    /// Takes all of an amount, or nothing.
    #[inline]
    pub(crate) fn take(&self, amount: u64) -> Option<Epoch> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word & UNITS < amount {
                return None;
            }
            match self.0.compare_exchange_weak(word, word - amount, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(Epoch::of(word)),
                Err(now) => word = now,
            }
        }
    }

    /// Takes as much as there is of an amount in an epoch; nothing if the epoch has passed.
    #[inline]
    pub(crate) fn take_up_to(&self, epoch: Epoch, amount: u64) -> u64 {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let taken = amount.min(word & UNITS);
            if Epoch::of(word) != epoch || taken == 0 {
                return 0;
            }
            match self.0.compare_exchange_weak(word, word - taken, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return taken,
                Err(now) => word = now,
            }
        }
    }

    /// Adds units to the epoch that they belong to: a refill, or what an operation did not use. Says whether the epoch
    /// was still present; if not, the units are gone with it.
    #[inline]
    pub(crate) fn put(&self, epoch: Epoch, amount: u64) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if Epoch::of(word) != epoch {
                return false;
            }
            let units = (word & UNITS).saturating_add(amount).min(UNITS);
            let next = (word & !UNITS) | units;
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Ends the present epoch, with whatever units are left in it, and begins the next without any. Gives the new epoch
    /// and the units that were left.
    pub(crate) fn roll(&self) -> (Epoch, u64) {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            // The epoch wraps within its 20 bits by the shift.
            let next = ((word >> UNIT_BITS) + 1) << UNIT_BITS;
            match self.0.compare_exchange_weak(word, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return (Epoch::of(next), word & UNITS),
                Err(now) => word = now,
            }
        }
    }
}
