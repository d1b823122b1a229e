//! Changes that name who made them: what administrators do to quotas and usage, written into the audit trail.
//!
//! [`QuotaEnforcer::audited`](crate::quota::QuotaEnforcer::audited) and
//! [`UsageTracker::audited`](crate::UsageTracker::audited) give a handle whose methods make a change and record it.
//!
//! # What is recorded, and when
//! 1. Before: `admin.change_requested`, with what is going to be done, **awaited**. If the trail cannot be written, nothing is
//!    changed, and the error is that of the trail. So there is no change without a name.
//! 2. The change.
//! 3. Behind it: what became of it (`config.quota_changed` with the values before and after, …), **awaited**. A change that
//!    failed is recorded with the result `failure`, and its own error is given.
//!
//! The two have one request id: that of the [context](Audited::context), else the id of the first event. If the trail does
//! not confirm the second event [in time](Audited::within), the change stands, the error is
//! [`Unaudited`](crate::ErrorKind::Unaudited), and the event waits in the log's queue and is written when the store is
//! back. If the process ends before that, the trail has a request without an end: somebody asked for the change, and
//! it may have been made.
//!
//! The values before are those that were read just before the change: of two administrators at once, both may have read
//! the same.
//!
//! # Cancel safety
//! A dropped call may have made its change or not. That it was asked for is in the trail if the change was made.

mod quotas;
mod refusal;
mod usage;

use std::time::Duration;

use futures_util::future::join_all;

use crate::audit::{
    Actor, AdminAudit, AuditAck, AuditContext, AuditEvent, AuditLog, AuditRecord, AuditResult,
};
use crate::text::Label;
use crate::usage::ErrorMessage;
use crate::{Error, ErrorKind, Result, TenantId};

/// Makes changes of what it is around, and records who made them: see the [module](self).
///
/// ```
/// use metertrail::audit::{Actor, AuditLog};
/// use metertrail::quota::{Allowed, Catalogue, Limit, Override, Plan, Quota, QuotaEnforcer, WhenUnavailable, Window};
/// use metertrail::{Label, MemoryStore, TenantId};
/// use std::sync::Arc;
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = Arc::new(MemoryStore::new());
/// let daily = Limit::hard(Quota::Tokens, Window::Day, 2_000, WhenUnavailable::Deny)?;
/// let quotas = QuotaEnforcer::start(Arc::clone(&store), Catalogue::new(Plan::new("free", [daily])?))?;
/// let log = AuditLog::start(store)?;
/// let tenant = TenantId::new("acme")?;
///
/// let own = Override {
///     quota: Quota::Tokens,
///     window: Window::Day,
///     allowed: Allowed::AtMost(50_000),
///     expires_at: None,
///     reason: Some(Label::new("reason", "ticket 4711")?),
/// };
/// quotas.audited(&log, Actor::user("u-71")?).set_custom_quota(&tenant, &own).await?;
///
/// let trail = log.tenant_audit_trail(&tenant, 1).await?;
/// let changed = trail[0].metadata.as_map().unwrap();
/// assert_eq!(trail[0].event_type.as_str(), "config.quota_changed");
/// assert_eq!((changed["from_amount"].as_u64(), changed["to_amount"].as_u64()), (Some(2_000), Some(50_000)));
/// assert_eq!(trail[1].event_type.as_str(), "admin.change_requested");
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Audited<T> {
    subject: T,
    log: AuditLog,
    actor: Actor,
    context: AuditContext,
    reason: Option<Label>,
    limit: Duration,
}

impl<T> Audited<T> {
    fn new(subject: T, log: &AuditLog, actor: Actor) -> Self {
        Self {
            subject,
            log: log.clone(),
            actor,
            context: AuditContext::new(),
            reason: None,
            limit: Duration::from_secs(10),
        }
    }

    /// From where it is done.
    pub fn context(mut self, context: AuditContext) -> Self {
        self.context = context;
        self
    }

    /// Why it is done. An [`Override`](crate::quota::Override) has a reason of its own.
    pub fn reason(mut self, reason: Label) -> Self {
        self.reason = Some(reason);
        self
    }

    /// How long the audit trail may take to confirm an event; 10 seconds by default.
    pub fn within(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    fn reason_text(&self) -> Option<String> {
        self.reason.as_ref().map(|reason| reason.as_str().to_owned())
    }

    /// Does some work whose outcome one of these records tells, or each of several; `done` gives them as they stand behind
    /// the work.
    async fn change<R: AuditRecord, A>(
        &self,
        tenant_id: &TenantId,
        planned: Vec<R>,
        work: impl Future<Output = Result<A>>,
        done: impl FnOnce(&A, Vec<R>) -> Vec<R>,
    ) -> Result<A> {
        let mut context = self.context.clone();
        let mut requests = Vec::with_capacity(planned.len());
        for record in &planned {
            let event = self.log.event(tenant_id, self.actor.clone(), &AdminAudit::requested(record))?;
            if context.request_id.is_none() {
                context = context.request_id(event.id().to_string())?;
            }
            // What cannot be told behind the change must fail before it.
            self.log.event(tenant_id, self.actor.clone(), record)?;
            requests.push(event.with_context(context.clone()));
        }
        self.written(requests).await.map_err(|error| {
            Error::new(error.kind(), "nothing was changed: the audit trail cannot be written")
                .with_source(error)
        })?;
        let answer = work.await;
        let (records, result, message) = match &answer {
            Ok(value) => (done(value, planned), AuditResult::Success, None),
            Err(error) => (planned, AuditResult::Failure, Some(ErrorMessage::new(error.to_string()))),
        };
        let outcome = async {
            let mut events = Vec::with_capacity(records.len());
            for record in &records {
                let mut event = self.log.event(tenant_id, self.actor.clone(), record)?;
                event.result = result;
                event.error_message.clone_from(&message);
                events.push(event.with_context(context.clone()));
            }
            self.written(events).await
        };
        match (answer, outcome.await) {
            (answer, Ok(())) => answer,
            (Ok(_), Err(error)) => Err(unaudited(error)),
            (Err(failed), Err(error)) => {
                tracing::error!(%error, "metertrail: a change failed, and the audit trail does not say so yet");
                Err(failed)
            }
        }
    }

    /// Records events and waits until all are kept. What is not kept in time stays in the log's queue.
    async fn written(&self, events: Vec<AuditEvent>) -> Result<()> {
        let acks: Vec<AuditAck> = events.into_iter().map(|event| self.log.record(event)).collect();
        let kept = join_all(acks.into_iter().map(IntoFuture::into_future));
        let overdue = |_| {
            let what = format!("the audit trail did not confirm an event in {:?}", self.limit);
            Error::new(ErrorKind::Unavailable, what)
        };
        let kept = tokio::time::timeout(self.limit, kept).await.map_err(overdue)?;
        kept.into_iter().try_for_each(|recorded| recorded.map(|_| ()))
    }
}

fn unaudited(error: Error) -> Error {
    let what = "the change was made, and the audit trail has not confirmed the event that says so";
    Error::new(ErrorKind::Unaudited, what).with_source(error)
}
