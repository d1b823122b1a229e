//! A store that fails on demand.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;

use crate::audit::{AuditEvent, SealedBatch};
use crate::quota::Settlement;
use crate::store::delegate::Answer;
use crate::store::{Appended, AuditStore, BatchAppended, Store};
use crate::testing::Method;
use crate::usage::UsageEvent;
use crate::{Error, ErrorKind, Result};

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
/// events. Without any it only passes on. Around an [`AuditStore`] it is one, and around a store that is both it is both.
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
pub struct FaultyStore<S: ?Sized = dyn Store> {
    store: Arc<S>,
    plan: Arc<Mutex<Plan>>,
}

type Poison<E> = (Box<dyn Fn(&E) -> bool + Send>, Error);

#[derive(Default)]
struct Plan {
    scripts: HashMap<Method, VecDeque<Fault>>,
    lasting: HashMap<Method, Fault>,
    chance: Option<Chance>,
    poison: Option<Poison<UsageEvent>>,
    audit_poison: Option<Poison<AuditEvent>>,
    injected: u64,
}

struct Chance {
    state: u64,
    faults: Vec<(Fault, u16)>,
}

impl<S> FaultyStore<S> {
    /// A store without faults as yet.
    pub fn new(store: S) -> Self {
        Self::from_arc(Arc::new(store))
    }
}

impl<S: ?Sized> FaultyStore<S> {
    /// As [`new`](Self::new), for a store that somebody else holds as well.
    pub fn from_arc(store: Arc<S>) -> Self {
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

    /// Likewise for batches of the audit trail.
    pub fn poison_audit(&self, is_poison: impl Fn(&AuditEvent) -> bool + Send + 'static, error: Error) {
        self.plan().audit_poison = Some((Box::new(is_poison), error));
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
    fn taste<E>(&self, batch: &[E], poison: impl FnOnce(&Plan) -> Option<&Poison<E>>) -> Result<()> {
        let mut plan = self.plan();
        let refused = poison(&plan).filter(|(is_poison, _)| batch.iter().any(is_poison));
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

impl<S: ?Sized> Clone for FaultyStore<S> {
    fn clone(&self) -> Self {
        Self { store: Arc::clone(&self.store), plan: Arc::clone(&self.plan) }
    }
}

impl<S: fmt::Debug + ?Sized> fmt::Debug for FaultyStore<S> {
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

/// One method that meets the faults of the plan.
macro_rules! faulty_method {
    (
        ()
        $variant:ident $name:ident [$($reference:lifetime)*] ($($argument:ident: $type:ty),*) -> $answer:ty
    ) => {
        fn $name<'own, $($reference,)* 'call>(&'own self, $($argument: $type,)*) -> Answer<'call, $answer>
        where
            'own: 'call,
            $($reference: 'call,)*
            Self: 'call,
        {
            Box::pin(self.call(Method::$variant, self.store.$name($($argument),*)))
        }
    };
}
use faulty_method;

#[async_trait]
impl<S: Store + ?Sized> Store for FaultyStore<S> {
    async fn append(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>> {
        let work = async {
            self.taste(batch, |plan| plan.poison.as_ref())?;
            self.store.append(batch, settlements).await
        };
        self.call(Method::Append, work).await
    }

    crate::delegate_store!(@all [crate::testing::faulty::faulty_method] () [append]);
}

#[async_trait]
impl<S: AuditStore + ?Sized> AuditStore for FaultyStore<S> {
    async fn append_audit(&self, batch: &SealedBatch) -> Result<BatchAppended> {
        let work = async {
            self.taste(batch.events(), |plan| plan.audit_poison.as_ref())?;
            self.store.append_audit(batch).await
        };
        self.call(Method::AppendAudit, work).await
    }

    crate::delegate_audit_store!(@all [crate::testing::faulty::faulty_method] () [append_audit]);
}
