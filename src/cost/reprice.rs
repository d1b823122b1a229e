//! Pricing a period again.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde::Serialize;

use crate::cost::{CostChange, PriceBook, Unpriced};
use crate::page::PageSize;
use crate::store::{COST_CHANGES_MAX, CostStore};
use crate::text::Label;
use crate::time::TimeRange;
use crate::usage::{Cost, EventQuery, Outcome, UsageEvent};
use crate::{Result, TenantId};

/// What to do with what would change.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reprice {
    /// Only say it.
    DryRun,
    /// Say it and do it.
    Apply,
}

/// What other prices do to the events of one tenant.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Repricing {
    /// Whose.
    pub tenant_id: TenantId,
    /// What was asked for.
    pub mode: Reprice,
    /// Events that were looked at.
    pub events: u64,
    /// Events whose cost somebody reported: left alone.
    pub reported: u64,
    /// Events that used something and have no price in the book; one that had a cost keeps it.
    pub unpriced: u64,
    /// Events that cost something else by the book.
    pub changed: u64,
    /// Events of these that were given their new cost; the rest was changed by somebody else in between.
    pub applied: u64,
    /// What the events that change cost so far, in US dollars.
    pub cost_before: Decimal,
    /// What they cost by the book.
    pub cost_after: Decimal,
    /// The same by the model that the events name.
    pub by_model: BTreeMap<String, ModelRepricing>,
}

/// What other prices do to the events of one model.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct ModelRepricing {
    /// Events that cost something else.
    pub changed: u64,
    /// What they cost so far.
    pub cost_before: Decimal,
    /// What they cost by the book.
    pub cost_after: Decimal,
}

/// Prices the events of one tenant again that started in a range, by the prices in force and those of each event's own time.
/// A dry run says what would change; applied twice, the second time nothing does. Roll-ups and what counts against limits
/// follow in the same step as the events. A reported cost is never touched, and an event that the book has no price for keeps
/// what it has.
///
/// Events are read a page at a time and each page is a step of its own, so that what was done stays done when a later one
/// fails: call it again.
///
/// ```
/// use metertrail::cost::{OwnPrice, PriceBook, Prices, Reprice, reprice};
/// use metertrail::{EventType, MemoryStore, Outcome, Store, TenantId, TimeRange, TokenClass, TokenUsage, UsageEvent};
/// use metertrail::time::{Clock, SystemClock};
/// use rust_decimal::Decimal;
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let (store, acme) = (MemoryStore::new(), TenantId::new("acme")?);
/// let mut event = UsageEvent::new(acme.clone(), EventType::ChatMessage, Outcome::Success, SystemClock.now())?;
/// event.tokens = TokenUsage::reported(1_000_000, 0)?;
/// store.append(&[event], &[]).await?; // of unknown price
///
/// let two_dollars = OwnPrice::builder("v1")?.per_million(TokenClass::Input, Decimal::TWO).build()?;
/// let book = PriceBook::new(Prices::new().own(two_dollars));
/// let diff = reprice(&store, &book, &acme, TimeRange::ALL, Reprice::DryRun).await?;
/// assert_eq!((diff.changed, diff.applied, diff.cost_after), (1, 0, Decimal::TWO));
/// assert_eq!(reprice(&store, &book, &acme, TimeRange::ALL, Reprice::Apply).await?.applied, 1);
/// assert_eq!(reprice(&store, &book, &acme, TimeRange::ALL, Reprice::Apply).await?.changed, 0);
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
///
/// # Errors
/// As [`Store::events`](crate::Store::events) and [`CostStore::apply_costs`].
///
/// # Cancel safety
/// Dropped, some pages are priced again.
pub async fn reprice(
    store: &(impl CostStore + ?Sized),
    prices: &PriceBook,
    tenant_id: &TenantId,
    range: TimeRange,
    mode: Reprice,
) -> Result<Repricing> {
    let mut report = Repricing::new(tenant_id.clone(), mode);
    let page_size = u16::try_from(COST_CHANGES_MAX).unwrap_or(u16::MAX);
    let mut query = EventQuery::new(tenant_id.clone(), range).page_size(PageSize::new(page_size)?);
    loop {
        let page = store.events(&query).await?;
        let changes: Vec<CostChange> =
            page.items.iter().filter_map(|event| report.look(prices, event)).collect();
        if mode == Reprice::Apply && !changes.is_empty() {
            let applied = store.apply_costs(tenant_id, &changes).await?;
            let number = applied.into_iter().filter(|applied| *applied).count();
            report.applied = report.applied.saturating_add(u64::try_from(number).unwrap_or(u64::MAX));
        }
        match page.next {
            Some(next) => query = query.after(next),
            None => return Ok(report),
        }
    }
}

impl Repricing {
    fn new(tenant_id: TenantId, mode: Reprice) -> Self {
        Self {
            tenant_id,
            mode,
            events: 0,
            reported: 0,
            unpriced: 0,
            changed: 0,
            applied: 0,
            cost_before: Decimal::ZERO,
            cost_after: Decimal::ZERO,
            by_model: BTreeMap::new(),
        }
    }

    /// Notes what the book does to an event.
    fn look(&mut self, prices: &PriceBook, event: &UsageEvent) -> Option<CostChange> {
        self.events += 1;
        if event.reported_cost().is_some() {
            self.reported += 1;
            return None;
        }
        if matches!(event.outcome, Outcome::RateLimited | Outcome::QuotaExceeded) {
            return None;
        }
        let price = match prices.price(event) {
            Ok(price) => price,
            Err(Unpriced::NothingUsed) => return None,
            Err(_) => {
                self.unpriced += 1;
                return None;
            }
        };
        let change = CostChange::between(event, &price)?;
        let before = event.cost.map_or(Decimal::ZERO, Cost::as_decimal);
        let after = price.cost.as_decimal();
        let model = event.model.as_ref().map_or("", Label::as_str);
        let of_model = self.by_model.entry(model.to_owned()).or_default();
        of_model.changed += 1;
        of_model.cost_before += before;
        of_model.cost_after += after;
        self.changed += 1;
        self.cost_before += before;
        self.cost_after += after;
        Some(change)
    }
}
