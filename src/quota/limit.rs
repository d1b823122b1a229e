//! How much of a quota a tenant may use in a window.

use serde::{Deserialize, Serialize};

use crate::quota::{Quota, Window};
use crate::{Error, Result};

/// The largest amount of a limit: what 43 bits hold, about 8.8 × 10^12.
pub const LIMIT_AMOUNT_MAX: u64 = (1 << 43) - 1;

/// How much is allowed.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Allowed {
    /// At most this much; zero allows nothing.
    AtMost(u64),
    /// As much as the tenant likes. Usage is counted all the same.
    Unlimited,
}

impl Allowed {
    /// Whether an amount is within the whole limit.
    pub fn admits(self, amount: u64) -> bool {
        match self {
            Self::AtMost(most) => amount <= most,
            Self::Unlimited => true,
        }
    }
}

/// What happens at the limit.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// It refuses.
    #[default]
    Hard,
    /// It allows and says in the decision that the limit is passed.
    Soft,
    /// It allows, says nothing in the decision and writes a log line: for trying a limit out.
    Shadow,
}

/// What happens when the store cannot be reached and nothing is left locally.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnavailable {
    /// It refuses, and says that it was not for the quota.
    Deny,
    /// It allows, counted, and past the limit if need be.
    Allow,
}

/// What happens to an operation whose price nobody knows, at a limit of [`Quota::Cost`]. Its cost stays unknown and is counted
/// as such ([`UsageMetrics::unpriced`](crate::UsageMetrics::unpriced)) in any case.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WhenUnpriced {
    /// It is allowed, and counts for nothing.
    #[default]
    Allow,
    /// It counts at the ceiling of the price book; refused if there is none.
    Ceiling,
    /// It is refused. What turns out to have no price only afterwards (another model answered) counts at the ceiling of the price
    /// book: set one.
    Deny,
}

/// How much of a quota may be used in a window. There is no default for [`WhenUnavailable`]: whoever makes a limit says.
///
/// ```
/// use metertrail::quota::{Limit, Quota, WhenUnavailable, Window};
///
/// let limit = Limit::hard(Quota::Tokens, Window::Day, 500_000, WhenUnavailable::Deny)?;
/// assert_eq!(limit.quota(), &Quota::Tokens);
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "Wire")]
pub struct Limit {
    quota: Quota,
    window: Window,
    allowed: Allowed,
    enforcement: Enforcement,
    when_unavailable: WhenUnavailable,
    when_unpriced: WhenUnpriced,
}

impl Limit {
    /// A limit that refuses what passes it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `limit` if the amount is over [`LIMIT_AMOUNT_MAX`].
    pub fn hard(
        quota: Quota,
        window: Window,
        amount: u64,
        when_unavailable: WhenUnavailable,
    ) -> Result<Self> {
        Self::unlimited(quota, window)
            .with_when_unavailable(when_unavailable)
            .with_allowed(Allowed::AtMost(amount))
    }

    /// No limit, said aloud.
    pub fn unlimited(quota: Quota, window: Window) -> Self {
        Self {
            quota,
            window,
            allowed: Allowed::Unlimited,
            enforcement: Enforcement::Hard,
            when_unavailable: WhenUnavailable::Allow,
            when_unpriced: WhenUnpriced::Allow,
        }
    }

    /// A copy that counts over this.
    #[must_use]
    pub fn with_window(mut self, window: Window) -> Self {
        self.window = window;
        self
    }

    /// A copy that does this at the limit.
    #[must_use]
    pub fn with_enforcement(mut self, enforcement: Enforcement) -> Self {
        self.enforcement = enforcement;
        self
    }

    /// A copy that does this when the store cannot be reached.
    #[must_use]
    pub fn with_when_unavailable(mut self, when_unavailable: WhenUnavailable) -> Self {
        self.when_unavailable = when_unavailable;
        self
    }

    /// A copy that does this with what has no price. Of several limits of cost the strictest decides.
    #[must_use]
    pub fn with_when_unpriced(mut self, when_unpriced: WhenUnpriced) -> Self {
        self.when_unpriced = when_unpriced;
        self
    }

    /// A copy that allows so much.
    ///
    /// # Errors
    /// As [`hard`](Self::hard).
    pub fn with_allowed(mut self, allowed: Allowed) -> Result<Self> {
        if let Allowed::AtMost(amount) = allowed
            && amount > LIMIT_AMOUNT_MAX
        {
            let rule = format!("must not be over {LIMIT_AMOUNT_MAX}, is {amount}; use unlimited");
            return Err(Error::invalid("limit", rule));
        }
        self.allowed = allowed;
        Ok(self)
    }

    /// What is limited.
    pub fn quota(&self) -> &Quota {
        &self.quota
    }

    /// Over what time.
    pub fn window(&self) -> Window {
        self.window
    }

    /// How much is allowed.
    pub fn allowed(&self) -> Allowed {
        self.allowed
    }

    /// What happens at the limit.
    pub fn enforcement(&self) -> Enforcement {
        self.enforcement
    }

    /// What happens to what has no price.
    pub fn when_unpriced(&self) -> WhenUnpriced {
        self.when_unpriced
    }

    /// What happens when the store cannot be reached.
    pub fn when_unavailable(&self) -> WhenUnavailable {
        self.when_unavailable
    }
}

/// What is read back, before it is checked.
#[derive(Deserialize)]
struct Wire {
    quota: Quota,
    window: Window,
    allowed: Allowed,
    enforcement: Enforcement,
    when_unavailable: WhenUnavailable,
    #[serde(default)]
    when_unpriced: WhenUnpriced,
}

impl TryFrom<Wire> for Limit {
    type Error = Error;

    fn try_from(wire: Wire) -> Result<Self> {
        Self::unlimited(wire.quota, wire.window)
            .with_enforcement(wire.enforcement)
            .with_when_unavailable(wire.when_unavailable)
            .with_when_unpriced(wire.when_unpriced)
            .with_allowed(wire.allowed)
    }
}
