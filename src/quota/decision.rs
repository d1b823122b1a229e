//! The answer to a request: a value that explains itself. A refusal is no error.

use std::fmt;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;
use serde::Serialize;
use smallvec::SmallVec;

use crate::quota::cell::Cell;
use crate::quota::slot::Slot;
use crate::quota::{Allowed, Enforcement, Hold, Quota, Standing, Window};
use crate::text::Label;
use crate::time::TimeRange;

/// Where a limit comes from.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitSource {
    /// The tenant's own.
    Override,
    /// The tenant's plan.
    Plan(Label),
    /// The catalogue's default plan: the tenant's own plan does not name the quota.
    Default(Label),
}

/// How one limit stands, as far as this process knows.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LimitView {
    /// What is limited.
    pub quota: Quota,
    /// Over what kind of window.
    pub window: Window,
    /// Where the limit comes from.
    pub source: LimitSource,
    /// What happens at it.
    pub enforcement: Enforcement,
    /// How much is allowed.
    pub allowed: Allowed,
    /// Recorded usage.
    pub used: u64,
    /// Units that operations of this process hold.
    pub held: u64,
    /// Units leased to other processes, or lost with one.
    pub elsewhere: u64,
    /// What could still be admitted here; `None` if it is unlimited.
    pub remaining: Option<u64>,
    /// The window; `None` before this process first asked.
    pub range: Option<TimeRange>,
}

/// The moving part of a view, copied at the moment of the decision.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The slot's position in its cell.
    pub(super) slot: usize,
    at_hand: u64,
    standing: Standing,
    unrecorded: u64,
    range: Option<TimeRange>,
}

impl Seen {
    pub(super) fn of(position: usize, slot: &Slot) -> Self {
        let (_, at_hand) = slot.allowance.look();
        let books = slot.read();
        Self {
            slot: position,
            at_hand,
            standing: books.standing,
            unrecorded: books.unrecorded(),
            range: books.range(),
        }
    }

    /// What could still be admitted here of so much.
    pub(super) fn remaining(&self, allowed: u64) -> u64 {
        self.standing.left(allowed).saturating_add(self.at_hand).saturating_sub(self.unrecorded)
    }

    pub(super) fn ends_at(&self) -> Option<DateTime<Utc>> {
        self.range.map(|range| range.end())
    }
}

impl LimitView {
    /// How a slot stands now.
    pub(super) fn of(slot: &Slot) -> Self {
        Self::seen(slot, Seen::of(0, slot))
    }

    fn seen(slot: &Slot, seen: Seen) -> Self {
        let Seen { at_hand, standing, unrecorded, range, .. } = seen;
        let remaining = slot.allowed().map(|allowed| seen.remaining(allowed));
        Self {
            quota: slot.limit().quota().clone(),
            window: slot.limit().window(),
            source: slot.source().clone(),
            enforcement: slot.limit().enforcement(),
            allowed: slot.limit().allowed(),
            used: standing.used.saturating_add(unrecorded),
            held: standing.leased_here.saturating_sub(at_hand),
            elsewhere: standing.leased_elsewhere.saturating_add(standing.forfeited),
            remaining,
            range,
        }
    }

    /// When the window ends and the limit is whole again; `None` for one that never ends, too.
    pub fn resets_at(&self) -> Option<DateTime<Utc>> {
        self.range.filter(|_| self.window != Window::Lifetime).map(|range| range.end())
    }

    /// What is used, held or leased elsewhere, in percent of the limit with one decimal place; zero if it is unlimited, a
    /// hundred if nothing is allowed.
    pub fn percentage(&self) -> Decimal {
        let Allowed::AtMost(allowed) = self.allowed else {
            return Decimal::ZERO;
        };
        let taken = self.used.saturating_add(self.held).saturating_add(self.elsewhere);
        let percent = (Decimal::from(taken) * Decimal::ONE_HUNDRED).checked_div(Decimal::from(allowed));
        percent.unwrap_or(Decimal::ONE_HUNDRED).round_dp(1)
    }

    /// Whether nothing is left.
    pub fn is_exceeded(&self) -> bool {
        match self.allowed {
            Allowed::AtMost(allowed) => self.used >= allowed,
            Allowed::Unlimited => false,
        }
    }
}

/// Whether and when trying again helps.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// From then on; earlier if others give units back.
    At(DateTime<Utc>),
    /// Never: it is more than the whole limit, or what is left of one whose window never ends.
    Never,
    /// As soon as the store can be reached.
    WhenAvailable,
}

/// What was decided.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// It may go on.
    Allowed,
    /// It is over a limit.
    Refused,
    /// The store cannot be reached and the limit says to refuse then. Nothing is said about the quota.
    Unavailable,
    /// Nobody knows the price and a limit of cost says to refuse then.
    Unpriced,
}

/// The answer to a request for units.
#[must_use = "it says whether the operation may go on, and holds units for it"]
pub struct Decision {
    hold: Option<Hold>,
    details: Option<Box<Details>>,
}

/// What an admission from the units at hand does not need to say.
#[derive(Debug)]
pub(super) struct Details {
    pub(super) cell: Arc<Cell>,
    pub(super) verdict: Verdict,
    pub(super) limits: SmallVec<[Seen; 3]>,
    /// Positions in `limits`.
    pub(super) blocking: Option<usize>,
    pub(super) passed: SmallVec<[usize; 3]>,
    pub(super) exceeded: SmallVec<[usize; 3]>,
    /// How much was asked for of what blocks.
    pub(super) asked: u64,
    pub(super) retry: Option<Retry>,
}

impl Details {
    fn view(&self, seen: Seen) -> Option<LimitView> {
        Some(LimitView::seen(self.cell.slots.get(seen.slot)?, seen))
    }

    fn view_at(&self, position: usize) -> Option<LimitView> {
        self.view(*self.limits.get(position)?)
    }
}

impl Decision {
    pub(super) fn admitted(hold: Hold) -> Self {
        Self { hold: Some(hold), details: None }
    }

    pub(super) fn explained(hold: Option<Hold>, details: Details) -> Self {
        Self { hold, details: Some(Box::new(details)) }
    }

    pub(super) fn set_retry(&mut self, retry: Retry) {
        if let Some(details) = &mut self.details {
            details.retry = Some(retry);
        }
    }

    /// What was decided.
    pub fn verdict(&self) -> Verdict {
        self.details.as_ref().map_or(Verdict::Allowed, |details| details.verdict)
    }

    /// Whether the operation may go on.
    pub fn is_allowed(&self) -> bool {
        self.verdict() == Verdict::Allowed
    }

    /// The units that are held for the operation, to be given to it. `None` if it was refused, or if it was only a look.
    pub fn into_hold(self) -> Option<Hold> {
        self.hold
    }

    /// The limits that were looked at, in the order of the request; of an admission from units at hand, those that have an
    /// amount.
    pub fn limits(&self) -> Vec<LimitView> {
        match (&self.details, &self.hold) {
            (Some(details), _) => details.limits.iter().filter_map(|seen| details.view(*seen)).collect(),
            (None, Some(hold)) => {
                let slots = hold.takes().filter_map(|take| hold.cell().slots.get(take.slot()));
                slots.map(LimitView::of).collect()
            }
            (None, None) => Vec::new(),
        }
    }

    /// The limit that refused.
    pub fn blocking(&self) -> Option<LimitView> {
        let details = self.details.as_ref()?;
        details.view_at(details.blocking?)
    }

    /// How much was asked for of what [`blocking`](Self::blocking) names.
    pub fn asked(&self) -> Option<u64> {
        let details = self.details.as_ref()?;
        details.blocking.map(|_| details.asked)
    }

    /// All limits that the request was too much for, the one that [`blocking`](Self::blocking) names among them. The others
    /// are told as far as this process knows them.
    pub fn exceeded(&self) -> impl Iterator<Item = LimitView> {
        let details = self.details.as_ref();
        details
            .into_iter()
            .flat_map(|details| details.exceeded.iter().filter_map(|position| details.view_at(*position)))
    }

    /// Soft limits that are passed by this admission.
    pub fn passed(&self) -> impl Iterator<Item = LimitView> {
        let details = self.details.as_ref();
        details
            .into_iter()
            .flat_map(|details| details.passed.iter().filter_map(|position| details.view_at(*position)))
    }

    /// Whether and when trying again helps; `None` if it was allowed, or if nobody knows the price.
    pub fn retry(&self) -> Option<Retry> {
        self.details.as_ref()?.retry
    }
}

impl fmt::Debug for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decision")
            .field("verdict", &self.verdict())
            .field("hold", &self.hold)
            .finish_non_exhaustive()
    }
}

/// Why, in a sentence.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(limit) = self.blocking() else {
            return f.write_str(match self.verdict() {
                Verdict::Allowed => "allowed",
                Verdict::Refused => "refused",
                Verdict::Unavailable => "refused: the quota store cannot be reached",
                Verdict::Unpriced => "refused: the price is not known",
            });
        };
        if self.verdict() == Verdict::Unavailable {
            return write!(f, "refused: the store of {} by {} cannot be reached", limit.quota, limit.window);
        }
        if self.verdict() == Verdict::Unpriced {
            return write!(
                f,
                "refused: the price is not known, and {} by {} needs one",
                limit.quota, limit.window
            );
        }
        let asked = self.details.as_ref().map_or(0, |details| details.asked);
        let allowed = match limit.allowed {
            Allowed::AtMost(amount) => amount.to_string(),
            Allowed::Unlimited => "unlimited".to_owned(),
        };
        write!(
            f,
            "refused: {} of {allowed} {} by {} are used, {} are held or leased, {asked} were asked for",
            limit.used,
            limit.quota,
            limit.window,
            limit.held.saturating_add(limit.elsewhere),
        )?;
        match self.retry() {
            Some(Retry::At(instant)) => write!(f, "; again from {instant}"),
            Some(Retry::Never) if limit.allowed.admits(asked) => f.write_str("; for good"),
            Some(Retry::Never) => f.write_str("; the request is more than the whole limit"),
            Some(Retry::WhenAvailable) | None => Ok(()),
        }
    }
}
