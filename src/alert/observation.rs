//! What a rule says when it is asked.

use std::time::Duration;

use rust_decimal::Decimal;

use crate::TenantId;
use crate::alert::Severity;
use crate::text::Label;

/// How one thing looks to a rule. Between the threshold and the lower one at which an incident ends it is neither: that
/// keeps an incident from flapping.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Level {
    /// As it should be.
    Calm,
    /// Not bad enough to open an incident, not good enough to end one.
    Near,
    /// Past the threshold.
    Breach,
}

impl Level {
    /// The level of a value: past the threshold, past the lower one, or past neither.
    pub fn of(value: Decimal, threshold: Decimal, resolve_at: Decimal) -> Self {
        if value > threshold {
            Self::Breach
        } else if value > resolve_at {
            Self::Near
        } else {
            Self::Calm
        }
    }
}

/// What a rule measured of one tenant or thing.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Observation {
    /// Of whom.
    pub tenant_id: Option<TenantId>,
    /// Of what, where a rule looks at several things.
    pub subject: Option<Label>,
    /// How it looks.
    pub level: Level,
    /// How bad it is, if it differs from the rule's.
    pub severity: Option<Severity>,
    /// What was measured.
    pub value: Decimal,
    /// What it was held against.
    pub threshold: Decimal,
}

impl Observation {
    /// Something measured, of nobody in particular.
    pub fn new(level: Level, value: Decimal, threshold: Decimal) -> Self {
        Self { tenant_id: None, subject: None, level, severity: None, value, threshold }
    }

    /// Of this tenant.
    #[must_use]
    pub fn tenant(mut self, tenant_id: TenantId) -> Self {
        self.tenant_id = Some(tenant_id);
        self
    }

    /// Of this thing.
    #[must_use]
    pub fn subject(mut self, subject: Label) -> Self {
        self.subject = Some(subject);
        self
    }

    /// So bad.
    #[must_use]
    pub fn severity(mut self, severity: Severity) -> Self {
        self.severity = Some(severity);
        self
    }
}

/// When a rule is asked, and how long what it says must hold.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Timing {
    /// How often it is asked, by all processes together; every minute by default.
    pub interval: Duration,
    /// How long a breach must last before it fires; at once by default.
    pub pending_for: Duration,
    /// How long it must be calm before a firing incident is resolved; at once by default.
    pub resolve_after: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { interval: Duration::from_secs(60), pending_for: Duration::ZERO, resolve_after: Duration::ZERO }
    }
}

impl Timing {
    /// Asked every minute; fires and resolves at once.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asked so often.
    #[must_use]
    pub fn interval(mut self, interval: Duration) -> Self {
        self.interval = interval;
        self
    }

    /// Fires after so long.
    #[must_use]
    pub fn pending_for(mut self, pending_for: Duration) -> Self {
        self.pending_for = pending_for;
        self
    }

    /// Resolves after so long.
    #[must_use]
    pub fn resolve_after(mut self, resolve_after: Duration) -> Self {
        self.resolve_after = resolve_after;
        self
    }
}
