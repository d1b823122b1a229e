//! How long things are kept.

use chrono::{DateTime, Utc};

use super::tasks::keep_from;
use crate::store::KeepFrom;
use crate::text::Label;
use crate::time::Period;
use crate::{Error, Result};

/// For how many days each table's rows are kept; `None` is for ever.
///
/// Roll-ups of a day are kept at least as long as the events that they are made of, whatever this says, so that each can be
/// held against the other. Of tenants whose usage is held everything is kept.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[must_use]
pub struct Keep {
    /// Usage events. With the archive, it is the archive that drops them; leave it `None`.
    pub events_days: Option<u32>,
    /// Roll-ups by the quarter hour: questions about days of zones that are not whole hours from UTC need them.
    pub quarter_hours_days: Option<u32>,
    /// Roll-ups by the hour: questions about days of other zones than UTC need them.
    pub hours_days: Option<u32>,
    /// Roll-ups by the day.
    pub days_days: Option<u32>,
    /// Roll-ups by the month.
    pub months_days: Option<u32>,
}

impl Keep {
    pub(super) fn metrics_days(&self, period: Period) -> Option<u32> {
        match period {
            Period::QuarterHour => self.quarter_hours_days,
            Period::Hour => self.hours_days,
            Period::Day => self.days_days,
            Period::Month => self.months_days,
        }
    }

    fn check(&self) -> Result<()> {
        let ascending = [self.quarter_hours_days, self.hours_days, self.days_days, self.months_days];
        let days = |days: Option<u32>| days.unwrap_or(u32::MAX);
        if self.events_days == Some(0) || ascending.contains(&Some(0)) {
            return Err(Error::invalid("retention", "must keep everything for a day at least"));
        }
        if ascending.windows(2).any(|pair| days(pair[0]) > days(pair[1])) {
            return Err(Error::invalid("retention", "must keep longer periods as long as shorter ones"));
        }
        Ok(())
    }
}

/// How long things are kept: by everybody, and by tenants on some plans.
///
/// ```
/// use metertrail::upkeep::{Keep, Retention};
///
/// let keep = Keep { events_days: Some(30), quarter_hours_days: Some(90), ..Keep::default() };
/// let trial = Keep { events_days: Some(7), ..keep };
/// let retention = Retention::new(keep).plan("trial", trial)?;
/// # let _ = retention;
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
#[must_use]
pub struct Retention {
    everybody: Keep,
    by_plan: Vec<(Label, Keep)>,
    pub(super) quota_rows_days: u32,
    pub(super) runs_days: u32,
}

impl Default for Retention {
    fn default() -> Self {
        Self::new(Keep::default())
    }
}

impl Retention {
    /// The same for everybody; quota rows of ended windows are kept for 2 days, records of runs for 90.
    pub fn new(everybody: Keep) -> Self {
        Self { everybody, by_plan: Vec::new(), quota_rows_days: 2, runs_days: 90 }
    }

    /// Another one for tenants on a plan. Their events are deleted earlier, or keep the whole day from being dropped.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `plan` if it cannot be a name.
    pub fn plan(mut self, plan: impl AsRef<str>, keep: Keep) -> Result<Self> {
        self.by_plan.push((Label::new("plan", plan)?, keep));
        Ok(self)
    }

    /// For how many days slices of windows that have ended are kept; at least 1.
    pub fn quota_rows_days(mut self, days: u32) -> Self {
        self.quota_rows_days = days.max(1);
        self
    }

    /// For how many days records of runs are kept; at least 1.
    pub fn runs_days(mut self, days: u32) -> Self {
        self.runs_days = days.max(1);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        self.keeps().try_for_each(Keep::check)
    }

    fn keeps(&self) -> impl Iterator<Item = &Keep> {
        std::iter::once(&self.everybody).chain(self.by_plan.iter().map(|(_, keep)| keep))
    }

    /// After how many days nobody keeps an event any more.
    pub(super) fn events_all_days(&self) -> Option<u32> {
        self.keeps().map(|keep| keep.events_days).reduce(|a, b| Some(a?.max(b?))).flatten()
    }

    /// From when on something is kept; `None` if everybody keeps it for ever.
    pub(super) fn keep_from(
        &self,
        now: DateTime<Utc>,
        days: impl Fn(&Keep) -> Option<u32>,
    ) -> Option<KeepFrom> {
        self.keeps().any(|keep| days(keep).is_some()).then(|| {
            let by_plan = self.by_plan.iter().map(|(plan, keep)| (plan.clone(), days(keep)));
            keep_from(now, days(&self.everybody), by_plan)
        })
    }
}
