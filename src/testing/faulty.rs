//! A store that fails on demand.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use chrono::{DateTime, Utc};

use crate::page::Page;
use crate::quota::{
    AcquireRequest, Granted, HolderId, LimitKey, Override, Quota, Settlement, Standing, TenantQuotas, Window,
};
use crate::store::{Appended, Store};
use crate::testing::Method;
use crate::text::Label;
use crate::time::TimeRange;
use crate::usage::{Consumer, EventQuery, TopConsumersQuery, UsageEvent, UsageMetrics, UsageSummary};
use crate::{Error, ErrorKind, Result, TenantId};

/// What goes wrong with a call.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: the call does its work. For scripts in which only a later call fails.
    None,
    /// Nothing is done and this error is the answer.
    Fail(Error),
    /// The work is done and this error is the answer: a lost acknowledgement.
    FailAfter(Error),
    /// The work is done this much later, in the time of the runtime.
    Delay(Duration),
    /// Nothing is done and no answer comes.
    Hang,
    /// The work is done and no answer comes.
    HangAfter,
    /// Nothing is done and the call panics.
    Panic,
    /// The work is done and the call panics.
    PanicAfter,
}

impl Fault {
    /// The store cannot be reached: nothing is done, and trying again may help.
    pub fn unavailable() -> Self {
        Self::Fail(Error::new(ErrorKind::Unavailable, "the store cannot be reached (injected)"))
    }

    /// The work is done, but the connection breaks before the answer.
    pub fn lost_answer() -> Self {
        Self::FailAfter(Error::new(ErrorKind::Unavailable, "the answer was lost (injected)"))
    }

    /// The schema is missing or another: nothing is done.
    pub fn schema() -> Self {
        Self::Fail(Error::new(ErrorKind::Schema, "the schema is missing (injected)"))
    }
}

/// A [`Store`] around another one, with faults: by a script, for as long as told, at random from a seed, or for certain
/// events. Without any it only passes on.
///
/// Clones share their faults, so that a test keeps one and gives the other away. The first of these that has something
/// for a call decides: the script, the lasting fault, chance.
///
/// ```
/// use metertrail::store::Appended;
/// use metertrail::testing::{Fault, FaultyStore, Method};
/// use metertrail::time::{Clock, SystemClock};
/// use metertrail::{EventType, MemoryStore, Outcome, Store, TenantId, UsageEvent};
///
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let store = FaultyStore::new(MemoryStore::new());
/// store.script(Method::Append, [Fault::unavailable(), Fault::lost_answer()]);
///
/// let tenant = TenantId::new("acme")?;
/// let event = [UsageEvent::new(tenant, EventType::Search, Outcome::Success, SystemClock.now())?];
/// assert!(store.append(&event, &[]).await.unwrap_err().is_transient());
/// assert!(store.append(&event, &[]).await.unwrap_err().is_transient());
/// // The second call did its work, only its answer was lost.
/// assert_eq!(store.append(&event, &[]).await?, [Appended::Duplicate]);
/// assert_eq!(store.injected(), 2);
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[derive(Clone)]
pub struct FaultyStore {
    store: Arc<dyn Store>,
    plan: Arc<Mutex<Plan>>,
}

type IsPoison = Box<dyn Fn(&UsageEvent) -> bool + Send>;

#[derive(Default)]
struct Plan {
    scripts: HashMap<Method, VecDeque<Fault>>,
    lasting: HashMap<Method, Fault>,
    chance: Option<Chance>,
    poison: Option<(IsPoison, Error)>,
    injected: u64,
}

struct Chance {
    state: u64,
    faults: Vec<(Fault, u16)>,
}

impl FaultyStore {
    /// A store without faults as yet.
    pub fn new(store: impl Store) -> Self {
        Self::from_arc(Arc::new(store))
    }

    /// As [`new`](Self::new), for a store that somebody else holds as well.
    pub fn from_arc(store: Arc<dyn Store>) -> Self {
        Self { store, plan: Arc::default() }
    }

    /// The next calls of a method meet these faults, one each, after those that a former script has left.
    pub fn script(&self, method: Method, faults: impl IntoIterator<Item = Fault>) {
        self.plan().scripts.entry(method).or_default().extend(faults);
    }

    /// From now on every call of a method that the script has nothing for meets this fault; [`Fault::None`] ends it.
    pub fn always(&self, method: Method, fault: Fault) {
        self.plan().lasting.insert(method, fault);
    }

    /// From now on calls of all methods meet faults by chance: each of these so often in a thousand calls. The same seed
    /// gives the same faults to the same calls.
    ///
    /// ```
    /// use metertrail::testing::{Fault, FaultyStore};
    /// use metertrail::{MemoryStore, Store};
    ///
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
    /// let mut runs = Vec::new();
    /// for _ in 0..2 {
    ///     let store = FaultyStore::new(MemoryStore::new());
    ///     store.by_chance(7, [(Fault::unavailable(), 300), (Fault::lost_answer(), 100)]);
    ///     let mut failed = Vec::new();
    ///     for call in 0..100 {
    ///         if store.roll_up(1).await.is_err() {
    ///             failed.push(call);
    ///         }
    ///     }
    ///     assert!((20..60).contains(&failed.len()));
    ///     runs.push(failed);
    /// }
    /// assert_eq!(runs[0], runs[1]);
    /// # });
    /// ```
    pub fn by_chance(&self, seed: u64, faults_permille: impl IntoIterator<Item = (Fault, u16)>) {
        self.plan().chance = Some(Chance { state: seed, faults: faults_permille.into_iter().collect() });
    }

    /// From now on every append that has such an event is refused with this error, and nothing of it is done.
    pub fn poison(&self, is_poison: impl Fn(&UsageEvent) -> bool + Send + 'static, error: Error) {
        self.plan().poison = Some((Box::new(is_poison), error));
    }

    /// Ends all faults. Calls that hang go on hanging.
    pub fn heal(&self) {
        let mut plan = self.plan();
        *plan = Plan { injected: plan.injected, ..Plan::default() };
    }

    /// How many calls met a fault.
    pub fn injected(&self) -> u64 {
        self.plan().injected
    }

    async fn call<T>(&self, method: Method, work: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let fault = self.plan().next(method);
        match fault {
            Fault::None => work.await,
            Fault::Fail(error) => Err(error),
            Fault::FailAfter(error) => work.await.and(Err(error)),
            Fault::Delay(duration) => {
                tokio::time::sleep(duration).await;
                work.await
            }
            Fault::Hang => std::future::pending().await,
            Fault::HangAfter => {
                drop(work.await);
                std::future::pending().await
            }
            Fault::Panic => panic!("{method:?} panics (injected)"),
            Fault::PanicAfter => {
                drop(work.await);
                panic!("{method:?} panics after its work (injected)")
            }
        }
    }

    /// Refuses a batch with a poisonous event.
    fn taste(&self, batch: &[UsageEvent]) -> Result<()> {
        let mut plan = self.plan();
        let refused = plan.poison.as_ref().filter(|(is_poison, _)| batch.iter().any(is_poison));
        if let Some((_, error)) = refused {
            let error = error.clone();
            plan.injected += 1;
            return Err(error);
        }
        Ok(())
    }

    // A panicking closure of the test is the test's failure already; the plan itself is whole.
    fn plan(&self) -> MutexGuard<'_, Plan> {
        self.plan.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn next(&mut self, method: Method) -> Fault {
        let scripted = self.scripts.get_mut(&method).and_then(VecDeque::pop_front);
        let lasting = || self.lasting.get(&method).filter(|fault| !matches!(fault, Fault::None)).cloned();
        let fault = scripted.or_else(lasting).or_else(|| self.chance.as_mut().and_then(Chance::next));
        let fault = fault.unwrap_or(Fault::None);
        if !matches!(fault, Fault::None) {
            self.injected += 1;
        }
        fault
    }
}

impl Chance {
    /// `SplitMix64` (Steele, Lea and Flood, OOPSLA 2014): enough for tests, and the same everywhere.
    fn next(&mut self) -> Option<Fault> {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let mut drawn = (mixed ^ (mixed >> 31)) % 1_000;
        for (fault, permille) in &self.faults {
            match drawn.checked_sub(u64::from(*permille)) {
                Some(rest) => drawn = rest,
                None => return Some(fault.clone()),
            }
        }
        None
    }
}

impl fmt::Debug for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plan = self.plan();
        f.debug_struct("FaultyStore")
            .field("store", &self.store)
            .field("scripts", &plan.scripts)
            .field("lasting", &plan.lasting)
            .field("injected", &plan.injected)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl Store for FaultyStore {
    async fn append(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>> {
        let work = async {
            self.taste(batch)?;
            self.store.append(batch, settlements).await
        };
        self.call(Method::Append, work).await
    }

    async fn roll_up(&self, steps_max: u32) -> Result<u64> {
        self.call(Method::RollUp, self.store.roll_up(steps_max)).await
    }

    async fn usage(&self, tenant_id: &TenantId, periods: &[TimeRange]) -> Result<Vec<UsageMetrics>> {
        self.call(Method::Usage, self.store.usage(tenant_id, periods)).await
    }

    async fn top_consumers(&self, query: &TopConsumersQuery) -> Result<Vec<Consumer>> {
        self.call(Method::TopConsumers, self.store.top_consumers(query)).await
    }

    async fn summary(&self, range: TimeRange) -> Result<UsageSummary> {
        self.call(Method::Summary, self.store.summary(range)).await
    }

    async fn events(&self, query: &EventQuery) -> Result<Page<UsageEvent>> {
        self.call(Method::Events, self.store.events(query)).await
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Vec<Granted>> {
        self.call(Method::Acquire, self.store.acquire(request)).await
    }

    async fn give_back(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        returned: &[(LimitKey, u64)],
    ) -> Result<()> {
        self.call(Method::GiveBack, self.store.give_back(tenant_id, holder, returned)).await
    }

    async fn standing(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        keys: &[LimitKey],
        now: DateTime<Utc>,
    ) -> Result<Vec<Standing>> {
        self.call(Method::Standing, self.store.standing(tenant_id, holder, keys, now)).await
    }

    async fn tenant_quotas(&self, tenant_id: &TenantId) -> Result<TenantQuotas> {
        self.call(Method::TenantQuotas, self.store.tenant_quotas(tenant_id)).await
    }

    async fn put_plan(&self, plan: &crate::quota::Plan) -> Result<()> {
        self.call(Method::PutPlan, self.store.put_plan(plan)).await
    }

    async fn plans(&self) -> Result<Vec<crate::quota::Plan>> {
        self.call(Method::Plans, self.store.plans()).await
    }

    async fn set_plan(&self, tenant_id: &TenantId, plan: Option<&Label>, now: DateTime<Utc>) -> Result<()> {
        self.call(Method::SetPlan, self.store.set_plan(tenant_id, plan, now)).await
    }

    async fn put_override(&self, tenant_id: &TenantId, own: &Override, now: DateTime<Utc>) -> Result<()> {
        self.call(Method::PutOverride, self.store.put_override(tenant_id, own, now)).await
    }

    async fn remove_override(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        self.call(Method::RemoveOverride, self.store.remove_override(tenant_id, quota, window, now)).await
    }

    async fn quota_changes(&self, since: DateTime<Utc>) -> Result<Vec<(TenantId, u64)>> {
        self.call(Method::QuotaChanges, self.store.quota_changes(since)).await
    }
}
