//! What another cost does to an event.

use rust_decimal::Decimal;

use crate::cost::Price;
use crate::text::Label;
use crate::usage::{Cost, EventId, UNPRICED_CEILING_MEASURE, UsageEvent};

/// Another cost for one event. It applies while the event has the cost and version that it was made from.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct CostChange {
    /// Which event; its time is in it.
    pub event_id: EventId,
    /// What it cost so far and by which prices; `None` if that was not known.
    pub from: Option<(Cost, Label)>,
    /// What it costs now, and by which prices.
    pub to: (Cost, Label),
    /// Whether it was counted as of unknown price.
    pub was_unpriced: bool,
    /// What it counted for against limits of cost while its price was not known.
    pub ceiling: Decimal,
}

impl CostChange {
    /// What a price changes of an event; `None` if nothing, or if somebody reported its cost.
    pub fn between(event: &UsageEvent, price: &Price) -> Option<Self> {
        if event.reported_cost().is_some() || event.cost == Some(price.cost) {
            return None;
        }
        Some(Self {
            event_id: event.id(),
            from: event.cost.zip(event.price_version.clone()),
            to: (price.cost, price.version.clone()),
            was_unpriced: event.cost.is_none() && event.tokens.total() > 0,
            ceiling: event.measures.get(UNPRICED_CEILING_MEASURE).unwrap_or_default(),
        })
    }

    /// Whether it applies to an event as it is.
    pub fn applies_to(&self, event: &UsageEvent) -> bool {
        event.id() == self.event_id
            && event.cost.is_some() == event.price_version.is_some()
            && event.cost.zip(event.price_version.clone()) == self.from
    }

    /// What it adds to the cost of the period.
    pub fn difference(&self) -> Decimal {
        let from = self.from.as_ref().map_or(Decimal::ZERO, |(cost, _)| cost.as_decimal());
        self.to.0.as_decimal() - from
    }

    /// The event as it is afterwards.
    pub(crate) fn apply(&self, event: &mut UsageEvent) {
        event.cost = Some(self.to.0);
        event.price_version = Some(self.to.1.clone());
        event.measures = event.measures.clone().without_ceiling();
    }
}
