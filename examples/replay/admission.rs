//! What each tenant of a run may use, and who was refused.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use metertrail::quota::{
    Allowed, Catalogue, Decision, Enforcement, Limit, Plan, Quota, QuotaEnforcer, WhenUnavailable, Window,
};
use metertrail::time::{Clock, SystemClock};
use metertrail::{Store, TenantId};
use serde::Serialize;

use crate::Result;
use crate::trace::{Request, Totals};

/// The tokens that each tenant may use, as an argument says it.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TokenLimit {
    Tokens(u64),
    None,
}

impl TokenLimit {
    /// A tenant alone may use all; several may use the same share of the trace each.
    pub(crate) fn fair(read: &Totals, tenants: usize) -> Result<Self> {
        match u64::try_from(tenants)? {
            0 | 1 => Ok(Self::None),
            tenants => Ok(Self::Tokens((read.input_tokens + read.output_tokens).div_ceil(tenants))),
        }
    }
}

impl FromStr for TokenLimit {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            number => number.parse().map(Self::Tokens).map_err(|error| format!("{error}; or say none")),
        }
    }
}

/// The time of the trace: that of the row that is being replayed.
#[derive(Clone, Debug, Default)]
pub(crate) struct TraceClock(Arc<AtomicI64>);

impl TraceClock {
    pub(crate) fn set(&self, now: DateTime<Utc>) {
        self.0.store(now.timestamp_micros(), Ordering::Relaxed);
    }
}

impl Clock for TraceClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0.load(Ordering::Relaxed)).unwrap_or(DateTime::UNIX_EPOCH)
    }

    fn monotonic(&self) -> Duration {
        SystemClock.monotonic()
    }
}

/// Admits rows of the trace.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) quotas: QuotaEnforcer,
    limit: TokenLimit,
}

/// Who was refused.
#[derive(Debug, Default)]
pub(crate) struct Refusals(BTreeMap<TenantId, Refusal>);

/// The refusals of one tenant, and why the first was.
#[derive(Debug, Serialize)]
pub(crate) struct Refusal {
    pub(crate) tenant_id: TenantId,
    pub(crate) count: u64,
    pub(crate) quota: Quota,
    pub(crate) window: Window,
    pub(crate) limit: u64,
    pub(crate) used: u64,
    pub(crate) first_line: u64,
    pub(crate) reason: String,
}

impl Admission {
    pub(crate) fn start(store: impl Store, limit: TokenLimit) -> Result<Self> {
        let tokens = match limit {
            TokenLimit::Tokens(tokens) => {
                Limit::hard(Quota::Tokens, Window::Lifetime, tokens, WhenUnavailable::Deny)?
            }
            TokenLimit::None => Limit::unlimited(Quota::Tokens, Window::Lifetime),
        };
        let calls = Limit::unlimited(Quota::ApiCalls, Window::Lifetime).with_enforcement(Enforcement::Shadow);
        let plan = Plan::new("replay", [tokens, calls])?;
        // A lifetime has no days of the trace: the time is that of this machine.
        Ok(Self { quotas: QuotaEnforcer::start(store, Catalogue::new(plan))?, limit })
    }

    /// A run that was recorded before has used its tenants' limits up: replayed under them it would be refused.
    pub(crate) async fn check_unused(&self, tenants: &[TenantId]) -> Result<()> {
        if let TokenLimit::None = self.limit {
            return Ok(());
        }
        for tenant in tenants {
            let status = self.quotas.quota_status(tenant).await?;
            if let Some(limit) = status.limits.iter().find(|limit| limit.used > 0) {
                let message = format!(
                    "{tenant} has used {} tokens already: to replay a run again, say --limit none",
                    limit.used
                );
                return Err(message.into());
            }
        }
        Ok(())
    }

    /// Asks for the tokens of a row.
    pub(crate) async fn ask(&self, request: &Request, tenant: &TenantId) -> Result<Decision> {
        let tokens = request.tokens.total();
        let amounts = [(Quota::ApiCalls, 1), (Quota::Tokens, tokens)];
        let asked = if tokens == 0 { &amounts[..1] } else { &amounts[..] };
        Ok(self.quotas.enforce_multiple(tenant, asked).await?)
    }
}

impl Refusals {
    /// Notes a refusal, if it is one.
    pub(crate) fn note(&mut self, request: &Request, tenant: &TenantId, decision: &Decision) -> Result<()> {
        if decision.is_allowed() {
            return Ok(());
        }
        if let Some(refusal) = self.0.get_mut(tenant) {
            refusal.count += 1;
            return Ok(());
        }
        let blocking =
            decision.blocking().ok_or_else(|| format!("{tenant} is refused by no limit: {decision}"))?;
        let Allowed::AtMost(limit) = blocking.allowed else {
            return Err(format!("{tenant} is refused by a limit that allows all: {decision}").into());
        };
        let refusal = Refusal {
            tenant_id: tenant.clone(),
            count: 1,
            limit,
            used: blocking.used,
            first_line: request.line,
            reason: decision.to_string(),
            quota: blocking.quota,
            window: blocking.window,
        };
        self.0.insert(tenant.clone(), refusal);
        Ok(())
    }

    /// By tenant.
    pub(crate) fn into_vec(self) -> Vec<Refusal> {
        self.0.into_values().collect()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant_id, count, first_line, reason, .. } = self;
        write!(f, "{tenant_id}  {count} from line {first_line} on, {reason}")
    }
}
