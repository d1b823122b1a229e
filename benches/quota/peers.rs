//! The peers, set up for the same work.

use std::collections::HashMap;
use std::hint::black_box;
use std::num::NonZeroU32;

use governor::DefaultKeyedRateLimiter;
use limitador::RateLimiter;
use limitador::limit::{Context, Expression, Limit, Namespace};

use crate::Outcome;
use crate::sample::{Batch, Contender};

/// One keyed limiter for each quota. It has no call for several at once, so the sum of the calls is what they cost; they
/// are not all-or-nothing: what the first gave stays given if the second refuses.
pub(crate) struct Governor {
    limiters: Vec<DefaultKeyedRateLimiter<String>>,
    keys: Vec<String>,
}

impl Governor {
    /// The last quota is exhausted for everybody if `denied`.
    pub(crate) fn new(quotas: usize, keys: &[String], denied: bool) -> Self {
        let far = governor::Quota::per_second(NonZeroU32::new(1_000_000_000).unwrap_or(NonZeroU32::MAX));
        let near = governor::Quota::per_hour(NonZeroU32::MIN);
        let limiters = (1..=quotas)
            .map(|quota| DefaultKeyedRateLimiter::keyed(if denied && quota == quotas { near } else { far }));
        let this = Self { limiters: limiters.collect(), keys: keys.to_vec() };
        // Everybody is known, and denied who shall be.
        for key in keys {
            black_box(this.limiters.iter().all(|limiter| limiter.check_key(key).is_ok()));
        }
        this
    }

    pub(crate) fn contender<'a>(&'a self, order: &'a [usize]) -> Contender<'a> {
        let thread = move |thread: usize| -> Batch<'a> {
            let mut order = order.iter().cycle().skip(thread * order.len() / 2);
            Box::new(move |decisions| {
                for index in order.by_ref().take(count(decisions)) {
                    let key = &self.keys[*index];
                    black_box(self.limiters.iter().all(|limiter| limiter.check_key(key).is_ok()));
                }
            })
        };
        Contender { thread: Box::new(thread) }
    }
}

/// One limiter with as many limits as quotas, the tenant as their variable. The contexts are made beforehand, which a
/// service cannot do.
pub(crate) struct Limitador {
    limiter: RateLimiter,
    contexts: Vec<Context<'static>>,
    namespace: Namespace,
}

impl Limitador {
    /// The last quota is exhausted for everybody if `denied`.
    pub(crate) fn new(quotas: usize, keys: &[String], denied: bool) -> Outcome<Self> {
        let limiter = RateLimiter::new(1_000_000);
        let tenant = Expression::parse("tenant").map_err(|error| error.to_string())?;
        for (quota, seconds) in (1..=quotas).zip([3_600, 86_400, 2_592_000]) {
            let most = if denied && quota == quotas { 1 } else { 1 << 43 };
            limiter.add_limit(Limit::new("bench", most, seconds, Vec::new(), vec![tenant.clone()]));
        }
        let context = |key: &String| Context::from(HashMap::from([("tenant".to_owned(), key.clone())]));
        let contexts = keys.iter().map(context).collect();
        let this = Self { limiter, contexts, namespace: "bench".into() };
        for context in &this.contexts {
            this.is_limited(context)?;
        }
        let Some(first) = this.contexts.first() else { return Ok(this) };
        if this.is_limited(first)? != denied {
            return Err("limitador does not do what it shall".into());
        }
        Ok(this)
    }

    fn is_limited(&self, context: &Context<'_>) -> Outcome<bool> {
        let check = self.limiter.check_rate_limited_and_update(&self.namespace, context, 1);
        // Its error cannot be sent to another thread.
        check.map(|check| check.limited).map_err(|error| error.to_string().into())
    }

    pub(crate) fn contender<'a>(&'a self, order: &'a [usize]) -> Contender<'a> {
        let thread = move |thread: usize| -> Batch<'a> {
            let mut order = order.iter().cycle().skip(thread * order.len() / 2);
            Box::new(move |decisions| {
                for index in order.by_ref().take(count(decisions)) {
                    drop(black_box(self.is_limited(&self.contexts[*index])));
                }
            })
        };
        Contender { thread: Box::new(thread) }
    }
}

pub(crate) fn count(decisions: u64) -> usize {
    usize::try_from(decisions).unwrap_or(usize::MAX)
}
