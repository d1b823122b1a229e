//! Usage kept in the host's own Postgres.

mod alert;
mod append;
mod audit;
mod careful;
mod contract;
mod cost;
mod error;
mod lease;
mod loan;
mod migrate;
mod query;
mod quota;
mod reconcile;
mod rows;
mod sql;
mod upkeep;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::NaiveDate;
use deadpool_postgres::{Client, Manager, ManagerConfig, Pool, RecyclingMethod, Runtime};
use tokio_postgres::types::Type;
use tokio_postgres::{Config, IsolationLevel, NoTls, Transaction};

pub use self::migrate::Migrated;

use self::append::Failed;
use self::error::{from_pool, from_postgres, is_for_a_missing_partition, is_unique_violation, no_connection};
use self::loan::Loan;
use crate::quota::Settlement;
use crate::store::{Appended, check_batch};
use crate::usage::UsageEvent;
use crate::{Error, ErrorKind, Result};

/// Connections of a pool that this crate makes.
const CONNECTIONS_MAX: usize = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs one step of the store, given as if it were a closure, in a transaction of its own and within the store's time. (A
/// function that takes an asynchronous closure cannot promise that its future may be sent to another thread.)
macro_rules! transact {
    ($store:expr, |$transaction:ident| $step:expr) => {
        $store
            .timed(async {
                let mut loan = $crate::store::postgres::Loan::default();
                let begun = $store.begin($store.lend(&mut loan).await?).await?;
                let $transaction: &tokio_postgres::Transaction<'_> = &begun;
                let answer = $step.await?;
                begun.commit().await.map_err($crate::store::postgres::from_postgres)?;
                loan.give_back();
                Ok(answer)
            })
            .await
    };
}
use transact;

/// Usage kept in the host's own Postgres, in the schema `metertrail`.
///
/// It connects when it is first used. [`migrate`](Self::migrate) makes the schema and brings it up to date; nothing else
/// does. Every wait has an end: for a connection 5 seconds, for a call 30, see [`with_timeout`](Self::with_timeout).
/// Works behind `PgBouncer` in transaction mode. `PostgreSQL` 15 and later.
///
/// ```no_run
/// use metertrail::{PostgresStore, UsageTracker};
///
/// # async fn example() -> metertrail::Result<()> {
/// let store = PostgresStore::from_url("postgres://app@localhost/app")?;
/// store.migrate().await?;
/// let tracker = UsageTracker::start(store)?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct PostgresStore {
    pool: Pool,
    timeout: Duration,
    /// Days whose partition was seen, so that only the first batch of a day asks for it.
    days: Arc<Mutex<BTreeSet<NaiveDate>>>,
    /// Likewise of audit events.
    audit_days: Arc<Mutex<BTreeSet<NaiveDate>>>,
}

impl PostgresStore {
    /// A store with a pool of its own: 10 connections at most, without TLS. For other settings bring a pool.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `url` if it is not one, or demands TLS.
    pub fn from_url(url: &str) -> Result<Self> {
        let mut config = Config::from_str(url)
            .map_err(|error| Error::invalid("url", "is not a Postgres URL").with_source(error))?;
        if config.get_ssl_mode() == tokio_postgres::config::SslMode::Require {
            return Err(Error::invalid(
                "url",
                "demands TLS: make a pool with it and use PostgresStore::from_pool",
            ));
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(CONNECT_TIMEOUT);
        }
        if config.get_application_name().is_none() {
            config.application_name("metertrail");
        }
        let manager =
            Manager::from_config(config, NoTls, ManagerConfig { recycling_method: RecyclingMethod::Fast });
        let pool =
            Pool::builder(manager).max_size(CONNECTIONS_MAX).runtime(Runtime::Tokio1).build().map_err(
                |error| Error::new(ErrorKind::Misuse, "the pool cannot be built").with_source(error),
            )?;
        Ok(Self::from_pool(pool))
    }

    /// A store on the host's own pool, with the host's TLS, size and limits.
    pub fn from_pool(pool: Pool) -> Self {
        Self { pool, timeout: CALL_TIMEOUT, days: Arc::default(), audit_days: Arc::default() }
    }

    /// A store on this database, which is reached and whose schema is looked at.
    ///
    /// # Errors
    /// As [`from_url`](Self::from_url) and [`check`](Self::check).
    pub async fn connect(url: &str) -> Result<Self> {
        let store = Self::from_url(url)?;
        store.check().await?;
        Ok(store)
    }

    /// A copy in which a call takes at most this long; 30 seconds by default. The database is told as well, so that what
    /// was given up here also ends there.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Makes the schema, or brings it up to date. Does nothing if it is; any number of processes may call it at once.
    ///
    /// # Errors
    /// [`Schema`](ErrorKind::Schema) if the schema was made by a newer or another build;
    /// [`Unavailable`](ErrorKind::Unavailable) if the database cannot be reached or its role may not.
    pub async fn migrate(&self) -> Result<Migrated> {
        transact!(self, |transaction| migrate::migrate(transaction))
    }

    /// The SQL that [`migrate`](Self::migrate) runs on a new database, for those who apply it by other means or want to
    /// read it first.
    pub fn migration_sql() -> String {
        migrate::script()
    }

    /// Whether the database can be reached and its schema is the one that this crate knows.
    ///
    /// # Errors
    /// [`Schema`](ErrorKind::Schema) if the schema is missing, older, newer or another;
    /// [`Unavailable`](ErrorKind::Unavailable) if the database cannot be reached.
    pub async fn check(&self) -> Result<()> {
        transact!(self, |transaction| migrate::check(transaction))
    }

    /// Keeps and counts events inside of the caller's own transaction, so that they commit with the caller's rows or not
    /// at all. Only inserts: it never waits for the roll-up or another tenant, however long the transaction stays open.
    ///
    /// A partition that an event's day does not have yet is made on a connection of the store.
    ///
    /// # Errors
    /// As [`Store::append`](crate::Store::append); the caller's transaction is then lost, as after any error in it.
    pub async fn append_in(
        &self,
        transaction: &Transaction<'_>,
        batch: &[UsageEvent],
    ) -> Result<Vec<Appended>> {
        check_batch(batch)?;
        let missing = append::missing_days(transaction, batch).await?;
        if !missing.is_empty() {
            self.timed(self.make_partitions(missing)).await?;
        }
        careful::append_careful(transaction, batch).await
    }

    async fn lend<'a>(&self, loan: &'a mut Loan) -> Result<&'a mut Client> {
        // Less than the call's own time, so that the error says what it was.
        let wait = CONNECT_TIMEOUT.min(self.timeout / 2);
        match tokio::time::timeout(wait, self.pool.get()).await {
            Ok(client) => client.map(|client| loan.of(client)).map_err(from_pool),
            Err(_) => Err(no_connection(&self.pool, wait)),
        }
    }

    /// Runs a call within the store's time.
    async fn timed<T>(&self, call: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let overdue = || {
            Error::new(ErrorKind::Unavailable, format!("the database did not answer in {:?}", self.timeout))
        };
        tokio::time::timeout(self.timeout, call).await.unwrap_or_else(|_| Err(overdue()))
    }

    /// Makes the partitions of a batch that were not seen before.
    async fn ensure_partitions(&self, batch: &[UsageEvent]) -> Result<()> {
        let mut missing = append::days_of(batch);
        {
            let seen = self.days.lock().unwrap_or_else(PoisonError::into_inner);
            missing.retain(|day| !seen.contains(day));
        }
        if missing.is_empty() { Ok(()) } else { self.make_partitions(missing).await }
    }

    /// One transaction a day: each holds its lock on the parent for a moment only.
    async fn make_partitions(&self, days: BTreeSet<NaiveDate>) -> Result<()> {
        let mut loan = Loan::default();
        let client = self.lend(&mut loan).await?;
        for day in days {
            let transaction = self.begin(client).await?;
            append::ensure_partition(&transaction, day).await?;
            transaction.commit().await.map_err(from_postgres)?;
            self.days.lock().unwrap_or_else(PoisonError::into_inner).insert(day);
        }
        loan.give_back();
        Ok(())
    }

    /// A transaction in which a statement sees what was committed while it waited for a lock, whatever the role's default
    /// is.
    async fn begin<'a>(&self, client: &'a mut Client) -> Result<deadpool_postgres::Transaction<'a>> {
        let transaction = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted);
        let transaction = transaction.start().await.map_err(from_postgres)?;
        // The database takes 1 to 2^31 - 1; zero would be no bound at all.
        let milliseconds = self.timeout.as_millis().clamp(1, 2_147_483_647).to_string();
        transaction.query_typed(sql::BEGIN, &[(&milliseconds, Type::TEXT)]).await.map_err(from_postgres)?;
        Ok(transaction)
    }

    /// Appends, and once more if retention dropped a partition that this process had seen.
    async fn append_checked(
        &self,
        batch: &[UsageEvent],
        settlements: &[Settlement],
    ) -> Result<Vec<Appended>> {
        match self.append_once(batch, settlements).await {
            Err(error) if is_for_a_missing_partition(&error) => {
                self.days.lock().unwrap_or_else(PoisonError::into_inner).clear();
                self.append_once(batch, settlements).await
            }
            done => done,
        }
    }

    async fn append_once(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>> {
        self.ensure_partitions(batch).await?;
        let mut loan = Loan::default();
        let client = self.lend(&mut loan).await?;
        if careful::all_distinct(batch) {
            let transaction = self.begin(client).await?;
            match append::append_new(&transaction, batch).await {
                Ok(()) => {
                    let appended = vec![Appended::New; batch.len()];
                    settle(&transaction, batch, &appended, settlements).await?;
                    transaction.commit().await.map_err(from_postgres)?;
                    loan.give_back();
                    return Ok(appended);
                }
                Err(Failed::Database(error)) if is_unique_violation(&error) => {
                    transaction.rollback().await.map_err(from_postgres)?;
                }
                Err(failed) => return Err(failed.into_error()),
            }
        }
        let transaction = self.begin(client).await?;
        let appended = careful::append_careful(&transaction, batch).await?;
        settle(&transaction, batch, &appended, settlements).await?;
        transaction.commit().await.map_err(from_postgres)?;
        loan.give_back();
        Ok(appended)
    }
}

async fn settle(
    transaction: &Transaction<'_>,
    batch: &[UsageEvent],
    appended: &[Appended],
    settlements: &[Settlement],
) -> Result<()> {
    let batch_id = uuid::Uuid::new_v4();
    lease::copy_settlements(transaction, batch, appended, settlements, batch_id)
        .await
        .map_err(Failed::into_error)
}

/// Shows the pool's state and no secrets.
impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("pool", &self.pool.status())
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}
