//! Mark-ups of tenants.

use chrono::{DateTime, Utc};
use rust_decimal::Decimal;

use super::own::Asked;
use crate::text::Label;
use crate::{Error, Result, TenantId};

/// What a tenant pays on top of list prices, for some time. Prices of the host's own are what they are.
///
/// ```
/// use metertrail::TenantId;
/// use metertrail::cost::Markup;
/// use rust_decimal::Decimal;
///
/// let fifteen_percent = Markup::new("partner-1", TenantId::new("acme")?, Decimal::new(115, 2))?;
/// assert!(Markup::new("partner-1", TenantId::new("acme")?, Decimal::NEGATIVE_ONE).is_err());
/// # let _ = fifteen_percent;
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Markup {
    pub(super) version: Label,
    pub(super) tenant_id: TenantId,
    pub(super) factor: Decimal,
    from: Option<DateTime<Utc>>,
    until: Option<DateTime<Utc>>,
}

impl Markup {
    /// List prices times a factor: 1.15 is 15 % more, 0.9 is 10 % less.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `version`, as [`Label::new`]; on `factor` if it is negative, over
    /// 1,000 or has more than six decimal places.
    pub fn new(version: impl AsRef<str>, tenant_id: TenantId, factor: Decimal) -> Result<Self> {
        let is_in_range = (Decimal::ZERO..=Decimal::ONE_THOUSAND).contains(&factor);
        if !is_in_range || factor.normalize().scale() > 6 {
            let rule = format!("must be in 0 to 1000 with at most six decimal places, is {factor}");
            return Err(Error::invalid("factor", rule));
        }
        let version = Label::new("version", version)?;
        Ok(Self { version, tenant_id, factor: factor.normalize(), from: None, until: None })
    }

    /// From an instant on.
    #[must_use]
    pub fn from(mut self, from: DateTime<Utc>) -> Self {
        self.from = Some(from);
        self
    }

    /// Until an instant, which is not in it.
    #[must_use]
    pub fn until(mut self, until: DateTime<Utc>) -> Self {
        self.until = Some(until);
        self
    }

    pub(super) fn applies(&self, asked: &impl Asked) -> bool {
        self.tenant_id == *asked.tenant_id()
            && self.from.is_none_or(|from| from <= asked.at())
            && self.until.is_none_or(|until| asked.at() < until)
    }
}
