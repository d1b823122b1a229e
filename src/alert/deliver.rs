//! Takes up notifications and hands them to their sinks.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use uuid::Uuid;

use crate::alert::engine::{AlertEngine, Outlet, guarded};
use crate::alert::{AlertReport, Attempted, IncidentState, Notification, NotificationKind};
use crate::text::Label;
use crate::time::timer;
use crate::{Error, Result};

/// Notifications on their way from one process at a time.
const AT_ONCE: u32 = 16;
/// And in one run.
const ROUNDS_MAX: u32 = 64;
/// The most that is kept of an error.
const ERROR_CHARACTERS_MAX: usize = 500;

impl AlertEngine {
    /// Delivers what is due. A lease is counted from before it was asked for, and no attempt begins that could outlast it.
    pub(super) async fn deliver_into(&self, report: &mut AlertReport, now: DateTime<Utc>) -> Result<()> {
        let inner = &self.inner;
        let names: Vec<Label> = inner.outlets.iter().map(|outlet| outlet.name.clone()).collect();
        if names.is_empty() {
            return Ok(());
        }
        let elapsing = Elapsing { from: now, started: timer::after(Duration::ZERO) };
        for _ in 0..ROUNDS_MAX {
            let asked_at = elapsing.now();
            let round = Round { claim_id: Uuid::new_v4(), until: asked_at + delta(inner.settings.lease) };
            let alerts = &inner.alerts;
            let claimed =
                alerts.claim_notifications(&names, round.claim_id, asked_at, round.until, AT_ONCE).await?;
            if claimed.is_empty() {
                break;
            }
            let settled =
                claimed.iter().map(|notification| self.deliver_one(notification, &round, &elapsing));
            for settled in join_all(settled).await {
                match settled? {
                    Some(Attempted::Delivered { .. }) => report.delivered += 1,
                    Some(Attempted::Failed { .. }) => report.retried += 1,
                    Some(Attempted::Dead { .. }) => report.dead += 1,
                    None => {}
                }
            }
        }
        Ok(())
    }

    /// Gives what became of it, unless somebody else has it by now.
    async fn deliver_one(
        &self,
        notification: &Notification,
        round: &Round,
        elapsing: &Elapsing,
    ) -> Result<Option<Attempted>> {
        let inner = &self.inner;
        let outlet = inner.outlets.iter().find(|outlet| outlet.name == notification.key.sink);
        let is_late = elapsing.now() > round.until - delta(inner.settings.delivery_timeout);
        let Some(outlet) = outlet.filter(|_| !is_late) else {
            return Ok(None);
        };
        let attempted = self.attempted(outlet, notification, elapsing).await;
        let (key, at) = (&notification.key, elapsing.now());
        let held = inner.alerts.settle_notification(key, round.claim_id, &attempted, at).await?;
        Ok(held.then_some(attempted))
    }

    pub(super) async fn attempt(
        &self,
        outlet: &Outlet,
        notification: &Notification,
        now: DateTime<Utc>,
    ) -> Result<()> {
        let delivery = outlet.sink.deliver(notification, now);
        guarded("the delivery", self.inner.settings.delivery_timeout, delivery).await
    }

    async fn attempted(
        &self,
        outlet: &Outlet,
        notification: &Notification,
        elapsing: &Elapsing,
    ) -> Attempted {
        let error = match self.attempt(outlet, notification, elapsing.now()).await {
            Ok(()) => {
                let again_at = again_at(outlet, notification, elapsing.now());
                return Attempted::Delivered { again_at };
            }
            Err(error) => error,
        };
        let (sink, incident) = (&outlet.name, notification.incident.id);
        let attempt = notification.attempt;
        if error.is_transient() && attempt < self.inner.settings.attempts_max {
            tracing::warn!(%sink, %incident, attempt, %error, "metertrail: a notification did not arrive, trying again");
            let retry_at = elapsing.now() + self.wait_after(attempt);
            return Attempted::Failed { retry_at, error: text_of(&error) };
        }
        tracing::error!(%sink, %incident, attempt, %error, "metertrail: a notification did not arrive and is a dead letter");
        Attempted::Dead { error: text_of(&error) }
    }

    /// Twice as long after each attempt, with jitter, so that many do not come in step.
    fn wait_after(&self, attempt: u32) -> TimeDelta {
        let settings = &self.inner.settings;
        let doubled = 1_u32.checked_shl(attempt.saturating_sub(1)).unwrap_or(u32::MAX);
        let wait = settings.retry_min.saturating_mul(doubled).min(settings.retry_max);
        delta(timer::with_jitter(wait))
    }
}

/// The host's time at the beginning of a run, and what has passed since.
struct Elapsing {
    from: DateTime<Utc>,
    started: timer::Instant,
}

impl Elapsing {
    fn now(&self) -> DateTime<Utc> {
        self.from + delta(self.started.elapsed())
    }
}

/// What is taken up together.
struct Round {
    claim_id: Uuid,
    until: DateTime<Utc>,
}

fn delta(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::days(365))
}

/// When the sink wants to be told again.
fn again_at(outlet: &Outlet, notification: &Notification, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
    let goes_on = notification.kind() == NotificationKind::Firing
        && notification.incident.state == IncidentState::Firing;
    let every = outlet.sink.remind_every().filter(|_| goes_on)?;
    Some(now + delta(every))
}

/// An error as it is stored: bounded, and without NUL, which not every store takes.
fn text_of(error: &Error) -> String {
    error.to_string().replace('\0', " ").chars().take(ERROR_CHARACTERS_MAX).collect()
}
