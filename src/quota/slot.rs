//! One limit of one tenant in this process: the units at hand and what is known of the rest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use chrono::{DateTime, TimeDelta, Utc};

use crate::quota::allowance::{Allowance, Epoch};
use crate::quota::{
    Allowed, Enforcement, Granted, Limit, LimitKey, LimitSource, Quota, SliceRequest, Standing,
};
use crate::time::{TimeRange, Zone};

/// Windows whose holds can still be settled into them.
const PAST_WINDOWS: usize = 64;
/// A slice is at most this part of its limit.
const SLICE_PART: u64 = 50;
/// Requests that follow each other within this time ask for twice as much each time.
const GROWS_WITHIN: TimeDelta = TimeDelta::seconds(2);
/// How long a refusal is repeated without asking again.
const REFUSAL_KEEPS_US: i64 = 250_000;

/// A limit, the units of it that are at hand, and its books. What an admission looks at comes first; the whole fits into a
/// cache line.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slot {
    pub(crate) allowance: Allowance,
    /// When the window of the present epoch starts, in microseconds.
    starts_at_us: AtomicI64,
    /// When it ends; the past before the first, and while one window follows another.
    ends_at_us: AtomicI64,
    /// The limit's own, at hand.
    pub(crate) quota: Quota,
    pub(crate) is_unlimited: bool,
    /// What an admission does not look at.
    rest: Box<Rest>,
}

#[derive(Debug)]
struct Rest {
    limit: Limit,
    source: LimitSource,
    /// Units that callers wait for.
    awaited: AtomicU64,
    books: RwLock<Books>,
}

/// What the slot knows, beside the units themselves.
#[derive(Debug)]
pub(crate) struct Books {
    present: Account,
    /// Windows that were left, latest last.
    past: VecDeque<Account>,
    /// The latest start of any window so far: only a later window is surely one without grants.
    latest_start: Option<DateTime<Utc>>,
    /// Used beyond the slices and not yet in the store.
    unrecorded: u64,
    /// As of the last contact with the store.
    pub(crate) standing: Standing,
    pub(crate) seen_at: Option<DateTime<Utc>>,
    refused_until_us: i64,
    last_want: u64,
}

/// What this process was granted in one window.
#[derive(Clone, Copy, Debug)]
struct Account {
    epoch: Epoch,
    range: Option<TimeRange>,
    /// All units granted in the window, as far as is known here; [`UNKNOWN`] if the books of the window are lost.
    known_granted: u64,
    /// All units given back in the window.
    returned: u64,
    /// So many of them the store knows of.
    returned_told: u64,
    /// Units that were at hand when the window was left: at hand again if a clock that jumped comes back to it.
    at_hand: u64,
}

/// No grant is taken for a lost one if it is not known what was granted.
const UNKNOWN: u64 = u64::MAX;

impl Slot {
    pub(crate) fn new(limit: Limit, source: LimitSource) -> Self {
        let allowance = Allowance::new();
        let (epoch, _) = allowance.look();
        let books = Books {
            present: Account {
                epoch,
                range: None,
                known_granted: 0,
                returned: 0,
                returned_told: 0,
                at_hand: 0,
            },
            past: VecDeque::new(),
            latest_start: None,
            unrecorded: 0,
            standing: Standing::default(),
            seen_at: None,
            refused_until_us: i64::MIN,
            last_want: 0,
        };
        Self {
            allowance,
            starts_at_us: AtomicI64::new(i64::MIN),
            ends_at_us: AtomicI64::new(i64::MIN),
            quota: limit.quota().clone(),
            is_unlimited: limit.allowed() == Allowed::Unlimited,
            rest: Box::new(Rest { limit, source, awaited: AtomicU64::new(0), books: RwLock::new(books) }),
        }
    }

    pub(crate) fn limit(&self) -> &Limit {
        &self.rest.limit
    }

    pub(crate) fn source(&self) -> &LimitSource {
        &self.rest.source
    }

    /// The amount that is allowed, unless it is unlimited.
    pub(crate) fn allowed(&self) -> Option<u64> {
        match self.rest.limit.allowed() {
            Allowed::AtMost(amount) => Some(amount),
            Allowed::Unlimited => None,
        }
    }

    /// Whether the window of the units at hand contains this instant.
    #[inline]
    pub(crate) fn is_present(&self, now_us: i64) -> bool {
        now_us < self.ends_at_us.load(Ordering::Acquire)
            && now_us >= self.starts_at_us.load(Ordering::Acquire)
    }

    /// Takes an amount from the units at hand, or nothing.
    #[inline]
    pub(crate) fn take(&self, now_us: i64, amount: u64) -> Option<Epoch> {
        if self.is_present(now_us) { self.allowance.take(amount) } else { None }
    }

    /// Begins the window of this instant, if it is another than the present one. Units of the old one are gone with it.
    /// A clock that jumped back leads into a window that was left before; its books are taken up where they were.
    pub(crate) fn enter(&self, now: DateTime<Utc>, zone: Zone) {
        let mut books = self.write();
        if books.present.range.is_some_and(|range| range.contains(now)) {
            return;
        }
        let range = self.rest.limit.window().range_at(now, zone);
        if books.present.range == Some(range) {
            return;
        }
        // Nobody finds the window present between the two: not the old one, whose units are gone, nor the new one.
        self.ends_at_us.store(i64::MIN, Ordering::Release);
        let (epoch, at_hand) = self.allowance.roll();
        let mut left = books.present;
        left.at_hand = at_hand;
        if left.range.is_some() {
            books.past.push_back(left);
        }
        let known = books.past.iter().rposition(|account| account.range == Some(range));
        let earlier = known.and_then(|position| books.past.get_mut(position)).map(|account| {
            let earlier = *account;
            account.at_hand = 0;
            earlier
        });
        if books.past.len() > PAST_WINDOWS {
            books.past.pop_front();
        }
        let is_new = books.latest_start.is_none_or(|latest| latest < range.start());
        let known_granted = earlier.map_or(if is_new { 0 } else { UNKNOWN }, |account| account.known_granted);
        let returned = earlier.map_or(0, |account| account.returned);
        let returned_told = earlier.map_or(0, |account| account.returned_told);
        books.present =
            Account { epoch, range: Some(range), known_granted, returned, returned_told, at_hand: 0 };
        self.allowance.put(epoch, earlier.map_or(0, |account| account.at_hand));
        books.latest_start = books.latest_start.max(Some(range.start()));
        books.unrecorded = 0;
        books.standing = Standing::default();
        books.seen_at = None;
        books.refused_until_us = i64::MIN;
        books.last_want /= 2;
        self.starts_at_us.store(range.start().timestamp_micros(), Ordering::Release);
        self.ends_at_us.store(range.end().timestamp_micros(), Ordering::Release);
    }

    /// What units of an epoch belong to, if its window is not too long past.
    pub(crate) fn key_of(&self, epoch: Epoch) -> Option<LimitKey> {
        let books = self.read();
        let mut accounts = std::iter::once(&books.present).chain(books.past.iter().rev());
        let range = accounts.find(|account| account.epoch == epoch)?.range?;
        Some(self.key(range))
    }

    /// Whether an instant lies in the window that units of an epoch belong to.
    pub(crate) fn is_in_window(&self, epoch: Epoch, instant: DateTime<Utc>) -> bool {
        let books = self.read();
        let mut accounts = std::iter::once(&books.present).chain(books.past.iter().rev());
        let account = accounts.find(|account| account.epoch == epoch);
        account.and_then(|account| account.range).is_some_and(|range| range.contains(instant))
    }

    fn key(&self, range: TimeRange) -> LimitKey {
        LimitKey { quota: self.rest.limit.quota().clone(), window: self.rest.limit.window(), range }
    }

    /// A request for units, and the epoch that they will belong to.
    pub(crate) fn request(
        &self,
        now: DateTime<Utc>,
        need: u64,
        slices: bool,
    ) -> Option<(Epoch, SliceRequest)> {
        let allowed = self.allowed()?;
        let awaited = self.rest.awaited.load(Ordering::Relaxed);
        let mut books = self.write();
        let grows = books.seen_at.is_some_and(|seen_at| now - seen_at < GROWS_WITHIN);
        let adapted = if grows { books.last_want.saturating_mul(2) } else { books.last_want / 2 };
        let part = if slices { adapted.min(allowed / SLICE_PART) } else { 0 };
        let want = part.max(need.saturating_add(awaited));
        books.last_want = want;
        let request = SliceRequest {
            key: self.key(books.present.range?),
            allowed,
            known_granted: books.present.known_granted,
            need,
            want,
            unrecorded: books.unrecorded,
            binding: self.rest.limit.enforcement() == Enforcement::Hard,
        };
        Some((books.present.epoch, request))
    }

    /// Notes what the store answered: gives the units that are new here, to be used in that epoch.
    pub(crate) fn granted(
        &self,
        epoch: Epoch,
        now: DateTime<Utc>,
        request: &SliceRequest,
        answer: Granted,
    ) -> u64 {
        let mut books = self.write();
        if books.present.epoch != epoch {
            return 0;
        }
        let total = answer.standing.granted_here.saturating_add(answer.granted);
        let lost = answer.standing.granted_here.saturating_sub(books.present.known_granted);
        let fresh = lost.saturating_add(answer.granted);
        books.present.known_granted = total;
        books.standing = answer.standing;
        books.standing.granted_here = total;
        books.standing.leased_here = books.standing.leased_here.saturating_add(answer.granted);
        books.seen_at = Some(now);
        books.refused_until_us = if answer.standing.can_meet(request) {
            i64::MIN
        } else {
            now.timestamp_micros().saturating_add(REFUSAL_KEEPS_US)
        };
        fresh
    }

    /// Whether the store said a moment ago that an amount is not to be had.
    pub(crate) fn is_known_refused(&self, now_us: i64, need: u64) -> bool {
        let Some(allowed) = self.allowed() else {
            return false;
        };
        let books = self.read();
        // A clock that jumped back does not make a refusal last.
        let recent = (1..=REFUSAL_KEEPS_US).contains(&books.refused_until_us.saturating_sub(now_us));
        recent && need > books.standing.left(allowed).saturating_sub(books.unrecorded)
    }

    /// Takes all units at hand out, to be given back to the store; gives the key and the total given back so far.
    pub(crate) fn give_back(&self) -> Option<(LimitKey, u64)> {
        let mut books = self.write();
        let range = books.present.range?;
        let units = self.allowance.take_up_to(books.present.epoch, u64::MAX);
        books.present.returned = books.present.returned.saturating_add(units);
        books.standing.leased_here = books.standing.leased_here.saturating_sub(units);
        (books.present.returned > books.present.returned_told)
            .then(|| (self.key(range), books.present.returned))
    }

    /// The store knows of what was given back.
    pub(crate) fn given_back(&self, key: &LimitKey, total: u64) {
        let mut books = self.write();
        if books.present.range == Some(key.range) {
            books.present.returned_told = books.present.returned_told.max(total);
        }
    }

    /// The present window's key, for a limit that slices are leased of.
    pub(crate) fn present_key(&self) -> Option<LimitKey> {
        let range = self.read().present.range?;
        Some(self.key(range))
    }

    /// Notes how the limit stands, if its window is still the present one.
    pub(crate) fn seen(&self, key: &LimitKey, now: DateTime<Utc>, standing: Standing) {
        let mut books = self.write();
        let known = books.present.known_granted;
        // A look that was overtaken by a grant knows less than these books.
        let is_old = known != UNKNOWN && standing.granted_here < known;
        if books.present.range == Some(key.range) && !is_old {
            books.standing = standing;
            books.seen_at = Some(now);
        }
    }

    /// A request that asks for nothing, if the store has leased anything.
    pub(crate) fn renewal(&self, now: DateTime<Utc>) -> Option<(Epoch, SliceRequest)> {
        let allowed = self.allowed()?;
        let books = self.read();
        let range = books.present.range.filter(|range| range.contains(now))?;
        // What was asked for may have been granted without this process hearing of it.
        let leased = books.present.known_granted > books.present.returned || books.last_want > 0;
        let request = SliceRequest {
            key: self.key(range),
            allowed,
            known_granted: books.present.known_granted,
            need: 0,
            want: 0,
            unrecorded: books.unrecorded,
            binding: false,
        };
        leased.then_some((books.present.epoch, request))
    }

    /// Uses units of the present window for what was used without a hold, or beyond it. Gives the epoch and how much of
    /// the amount the slice covered; the rest is noted as unrecorded until the store has it.
    pub(crate) fn charge(&self, amount: u64) -> (Epoch, u64) {
        let mut books = self.write();
        let covered = self.allowance.take_up_to(books.present.epoch, amount);
        books.unrecorded = books.unrecorded.saturating_add(amount - covered);
        (books.present.epoch, covered)
    }

    /// What an event used is now in the store.
    pub(crate) fn recorded(&self, epoch: Epoch, covered: u64, excess: u64) {
        let mut books = self.write();
        if books.present.epoch == epoch {
            books.unrecorded = books.unrecorded.saturating_sub(excess);
            books.standing.used = books.standing.used.saturating_add(covered).saturating_add(excess);
            books.standing.leased_here = books.standing.leased_here.saturating_sub(covered);
        }
    }

    /// What was unrecorded will never be in the store.
    pub(crate) fn forget(&self, epoch: Epoch, excess: u64) {
        let mut books = self.write();
        if books.present.epoch == epoch {
            books.unrecorded = books.unrecorded.saturating_sub(excess);
        }
    }

    pub(crate) fn await_units(&self, amount: u64) {
        self.rest.awaited.fetch_add(amount, Ordering::Relaxed);
    }

    pub(crate) fn stop_awaiting(&self, amount: u64) {
        self.rest.awaited.fetch_sub(amount, Ordering::Relaxed);
    }

    /// The books, to look at: those who are refused do not wait for each other.
    // Nothing panics while the lock is held, so poison carries no information.
    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Books> {
        self.rest.books.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Books> {
        self.rest.books.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Books {
    /// The present window.
    pub(crate) fn range(&self) -> Option<TimeRange> {
        self.present.range
    }

    /// Used beyond the slices and not yet in the store.
    pub(crate) fn unrecorded(&self) -> u64 {
        self.unrecorded
    }
}
