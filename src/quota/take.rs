//! Units on their way from slots into a hold and back.

use crate::quota::allowance::Epoch;

/// So many are kept without the heap.
const INLINE: usize = 3;

/// Units taken from one slot.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Take {
    pub(crate) amount: u64,
    pub(crate) epoch: Epoch,
    slot: u32,
}

impl Take {
    #[inline]
    pub(crate) fn new(slot: usize, epoch: Epoch, amount: u64) -> Self {
        // A cell has far fewer slots.
        Self { amount, epoch, slot: u32::try_from(slot).unwrap_or(u32::MAX) }
    }

    /// The slot's position in its cell.
    #[inline]
    pub(crate) fn slot(&self) -> usize {
        usize::try_from(self.slot).unwrap_or(usize::MAX)
    }
}

/// Units taken from some slots. A single one, the common case, is written field by field to where it stays: copied as a
/// whole, the processor would have to wait for its parts (a failed store-to-load forwarding, as long as two atomics).
#[derive(Debug, Default)]
pub(crate) struct Takes {
    inline: [Take; INLINE],
    inlined: usize,
    more: Vec<Take>,
}

impl Takes {
    #[inline]
    pub(crate) fn new() -> Self {
        Self::default()
    }

    #[inline]
    pub(crate) fn one(take: Take) -> Self {
        Self { inline: [take, Take::default(), Take::default()], inlined: 1, more: Vec::new() }
    }

    /// The only one, if there is one.
    #[inline]
    pub(crate) fn only(&self) -> Option<&Take> {
        if self.inlined == 1 { self.inline.first() } else { None }
    }

    #[inline]
    pub(crate) fn push(&mut self, take: Take) {
        match self.inline.get_mut(self.inlined) {
            Some(place) => {
                *place = take;
                self.inlined += 1;
            }
            None => self.more.push(take),
        }
    }

    /// Adds units; those of a slot and epoch that are already there are added up.
    pub(crate) fn add(&mut self, take: Take) {
        let mut all = self.inline.iter_mut().take(self.inlined).chain(&mut self.more);
        if let Some(other) = all.find(|other| other.slot == take.slot && other.epoch == take.epoch) {
            other.amount = other.amount.saturating_add(take.amount);
            return;
        }
        self.push(take);
    }

    #[inline]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Take> {
        self.inline.iter().take(self.inlined).chain(&self.more)
    }
}
