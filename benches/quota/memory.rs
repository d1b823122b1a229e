//! In memory, beside the peers.

use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use metertrail::quota::{
    Catalogue, Decision, LIMIT_AMOUNT_MAX, Limit, Plan, Quota, QuotaEnforcer, TenantHandle, WhenUnavailable,
    Window,
};
use metertrail::{MemoryStore, TenantId};
use tokio::runtime::{Builder, Runtime};

use crate::Outcome;
use crate::peers::{Governor, Limitador, count};
use crate::sample::{Batch, Contender, Effort, medians, nanoseconds, ratio};

const TENANTS: usize = 10_000;
/// A multiple of the number of tenants would repeat itself too soon for the caches' taste.
const ORDER: usize = 1 << 16;

#[derive(Clone, Copy, Eq, PartialEq)]
enum Scene {
    Hot,
    Many,
    Denied,
}

pub(crate) fn run(quick: bool, profile: usize) -> Outcome<()> {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let effort = Effort::new(quick);
    println!("## In memory: nanoseconds per decision, median\n");
    println!(
        "Ours with the hold's release by drop; peers have nothing to release. The handle is asked with `try_hold` and \
         with `try_enforce`, where it is denied with `enforce`.\n"
    );
    println!(
        "| tenant | quotas | threads | try_hold | try_enforce | by id | governor | limitador | by id ÷ governor | \
         try_hold ÷ governor | by id ÷ limitador |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (scene, name) in [(Scene::Hot, "hot"), (Scene::Many, "10,000"), (Scene::Denied, "denied")] {
        for quotas in [1, 3] {
            let keys = keys(if scene == Scene::Many { TENANTS } else { 1 });
            let denied = scene == Scene::Denied;
            let governor = Governor::new(quotas, &keys, denied);
            let limitador = Limitador::new(quotas, &keys, denied)?;
            let order = order(keys.len());
            let ours = Ours::new(&runtime, quotas, &keys, denied)?;
            let mut contenders = vec![
                ours.contender(&order, Way::Hold),
                ours.contender(&order, Way::Handle),
                ours.contender(&order, Way::Id),
            ];
            if profile > 0 {
                medians(&contenders[profile - 1..profile], 1, Effort { rounds: 100, ..effort });
                return Ok(());
            }
            contenders.extend([governor.contender(&order), limitador.contender(&order)]);
            for threads in [1, 2] {
                let medians = medians(&contenders, threads, effort);
                let cells: Vec<String> = medians.iter().copied().map(nanoseconds).collect();
                let [handle, _, by_id, governor, limitador] = medians[..] else { continue };
                println!(
                    "| {name} | {quotas} | {threads} | {} | {} | {} | {} |",
                    cells.join(" | "),
                    ratio(by_id, governor),
                    ratio(handle, governor),
                    ratio(by_id, limitador),
                );
            }
        }
    }
    println!();
    Ok(())
}

/// How ours is asked.
#[derive(Clone, Copy)]
enum Way {
    /// A handle's `try_hold`.
    Hold,
    /// A handle's `try_enforce`.
    Handle,
    /// `enforce_multiple`.
    Id,
}

struct Ours<'r> {
    runtime: &'r Runtime,
    quotas: QuotaEnforcer,
    handles: Vec<TenantHandle>,
    tenants: Vec<TenantId>,
    amounts: Vec<(Quota, u64)>,
    denied: bool,
    /// What a denied tenant has already.
    taken: Vec<Decision>,
}

impl<'r> Ours<'r> {
    fn new(runtime: &'r Runtime, quotas: usize, keys: &[String], denied: bool) -> Outcome<Self> {
        let names = [Quota::Tokens, Quota::ApiCalls, Quota::ChatMessages];
        let amounts: Vec<(Quota, u64)> = names.into_iter().take(quotas).map(|quota| (quota, 1)).collect();
        let limits = amounts.iter().enumerate().map(|(position, (quota, _))| {
            let most = if denied && position + 1 == quotas { 1 } else { LIMIT_AMOUNT_MAX };
            Limit::hard(quota.clone(), Window::Month, most, WhenUnavailable::Deny)
        });
        let plan = Plan::new("bench", limits.collect::<metertrail::Result<Vec<_>>>()?)?;
        let _entered = runtime.enter();
        let enforcer = QuotaEnforcer::start(MemoryStore::new(), Catalogue::new(plan))?;
        let mut this = Self {
            runtime,
            quotas: enforcer,
            handles: Vec::new(),
            tenants: keys.iter().map(TenantId::new).collect::<metertrail::Result<_>>()?,
            amounts,
            denied,
            taken: Vec::new(),
        };
        for tenant in &this.tenants {
            this.handles.push(runtime.block_on(this.quotas.tenant(tenant))?);
            // What is taken and given back at once leaves more units at hand than the bench takes.
            let first = if denied { 1 } else { 1 << 36 };
            let first: Vec<_> = this.amounts.iter().map(|(quota, _)| (quota.clone(), first)).collect();
            let taken = runtime.block_on(this.quotas.enforce_multiple(tenant, &first))?;
            if denied {
                this.taken.push(taken);
            }
        }
        for handle in &this.handles {
            if runtime.block_on(handle.enforce(&this.amounts))?.is_allowed() == denied {
                return Err("the enforcer does not do what it shall".into());
            }
        }
        Ok(this)
    }

    fn contender<'a>(&'a self, order: &'a [usize], way: Way) -> Contender<'a> {
        let thread = move |thread: usize| -> Batch<'a> {
            let entered = self.runtime.enter();
            let mut order = order.iter().cycle().skip(thread * order.len() / 2);
            Box::new(move |decisions| {
                let _entered = &entered;
                for index in order.by_ref().take(count(decisions)) {
                    let (handle, amounts) = (&self.handles[*index], &self.amounts);
                    // By reference: a copy of the answer is not part of the work.
                    match (way, self.denied) {
                        (Way::Id, _) => {
                            black_box(&now(self.quotas.enforce_multiple(&self.tenants[*index], amounts)));
                        }
                        (Way::Hold | Way::Handle, true) => {
                            black_box(&now(handle.enforce(amounts)));
                        }
                        (Way::Handle, false) => {
                            black_box(&handle.try_enforce(amounts));
                        }
                        (Way::Hold, false) => {
                            black_box(&handle.try_hold(amounts));
                        }
                    }
                }
            })
        };
        Contender { thread: Box::new(thread) }
    }
}

/// The answer of a future that rarely waits, and then for another thread: polled until it is there, without a runtime's
/// own costs.
fn now(answer: impl Future<Output = metertrail::Result<Decision>>) -> Option<Decision> {
    let mut answer = pin!(answer);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match answer.as_mut().poll(&mut context) {
            Poll::Ready(decision) => return decision.ok(),
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

fn keys(number: usize) -> Vec<String> {
    (0..number).map(|number| format!("tenant-{number:08}")).collect()
}

/// In which order tenants ask: at random, the same for all contenders.
fn order(tenants: usize) -> Vec<usize> {
    // Knuth's linear congruential generator; its high bits are good.
    let mut seed: u64 = 42;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap_or(0) % tenants
    };
    (0..ORDER).map(|_| next()).collect()
}
