//! The rules that come with the crate.

mod aggregation;
mod cost;
mod errors;
mod health;
mod latency;
mod quota;
mod quota_use;
mod seal;
mod unpriced;

use chrono::{DateTime, TimeDelta, Utc};

pub use self::aggregation::{AGGREGATION_AGE_SECONDS, AggregationOverdue};
pub use self::cost::CostAnomaly;
pub use self::errors::HighErrorRate;
pub use self::health::{
    AUDIT_EVENTS_DROPPED, AUDIT_EVENTS_PENDING, EVENTS_DROPPED, EVENTS_PENDING, EVENTS_REJECTED, HealthRule,
};
pub use self::latency::HighLatency;
pub use self::quota::QuotaExceeded;
pub use self::quota_use::QuotaThresholds;
pub use self::seal::SealOverdue;
pub use self::unpriced::UnpricedShare;

use crate::Result;
use crate::text::Label;
use crate::time::{TimeRange, bucket_start};

/// The quarter hours that the last stretch of time lies in.
fn recent(now: DateTime<Utc>, window: std::time::Duration) -> Result<TimeRange> {
    let window = TimeDelta::from_std(window).unwrap_or(TimeDelta::days(1));
    TimeRange::new(bucket_start(now - window), bucket_start(now) + TimeDelta::minutes(15))
}

/// A name that is written in this crate.
fn named(name: &'static str) -> Result<Label> {
    Label::new("rule", name)
}

/// Writes the methods of a rule that only tell what it was made with, and the setters for them.
macro_rules! rule_settings {
    ($rule:ident) => {
        impl $rule {
            /// With another name: to have two of a kind.
            #[must_use]
            pub fn named(mut self, name: $crate::text::Label) -> Self {
                self.name = name;
                self
            }

            /// With another severity.
            #[must_use]
            pub fn severity(mut self, severity: $crate::alert::Severity) -> Self {
                self.severity = severity;
                self
            }

            /// With another timing.
            #[must_use]
            pub fn timing(mut self, timing: $crate::alert::Timing) -> Self {
                self.timing = timing;
                self
            }
        }
    };
}
use rule_settings;

/// The same for the trait.
macro_rules! rule_told {
    ($unit:literal) => {
        fn name(&self) -> &$crate::text::Label {
            &self.name
        }

        fn severity(&self) -> $crate::alert::Severity {
            self.severity
        }

        fn unit(&self) -> &'static str {
            $unit
        }

        fn timing(&self) -> $crate::alert::Timing {
            self.timing
        }
    };
}
use rule_told;
