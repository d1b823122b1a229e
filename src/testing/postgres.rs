//! A throw-away Postgres for tests, benches and examples: real, empty, and gone when the process is gone.
//!
//! [`TestPostgres::shared`] is the one server of a test binary. It is started by the first test that asks, listens on a
//! Unix socket in a directory of its own under `/tmp`, and does not sync to disk. Each test takes a [`TestDatabase`] of its
//! own from it, copied from a template that is migrated once. Tests therefore isolate by data, and run side by side.
//!
//! Which Postgres: the directory `METERTRAIL_TEST_PG_BIN`; else the major version `METERTRAIL_TEST_PG_MAJOR` under
//! `/usr/lib/postgresql`; else the newest there; else what `pg_config --bindir` names; else what `PATH` has. With
//! `TEST_DATABASE_URL` set, no server is started: the databases are made on that one, and dropped.
//!
//! A runner that gives each test a process of its own (cargo-nextest) starts a server a test; give it a
//! `TEST_DATABASE_URL`.

mod admin;
mod server;

use std::collections::HashMap;
use std::env;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{OnceCell, oneshot};
use tokio_postgres::Config;
use uuid::Uuid;

use self::admin::{
    administer, administer_here, config_of, quoted, spawn_thread, thread_died, url_of_database,
};
use self::server::{Supervisor, find_bin_dir};
use crate::{Error, ErrorKind, Result};

pub use self::server::TestPostgresOptions;

const DATABASE_PREFIX: &str = "metertrail_test_";
/// A Postgres to test with, and the maker of [`TestDatabase`]s on it.
///
/// Nothing in it is bound to a tokio runtime: tests that each have their own may share one.
#[derive(Debug)]
pub struct TestPostgres {
    url: String,
    bin_dir: Option<PathBuf>,
    socket_dir: Option<PathBuf>,
    supervisor: Option<Arc<Mutex<Supervisor>>>,
    templates: Mutex<HashMap<String, Arc<OnceCell<String>>>>,
}

impl TestPostgres {
    /// The server of this process, started by the first call, which blocks its thread for about a second. It lives as
    /// long as the process; however that ends, `SIGKILL` included, the server stops and its directory vanishes.
    ///
    /// ```no_run
    /// use metertrail::testing::postgres::TestPostgres;
    ///
    /// # async fn test() -> metertrail::Result<()> {
    /// let database = TestPostgres::shared()?.create_database(None).await?;
    /// println!("psql '{}'", database.url());
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse), saying what to install or to set, if there is no Postgres or a variable names
    /// none; [`Unavailable`](ErrorKind::Unavailable), with the end of the server's log, if it does not start. A failure
    /// is kept: later calls return the same.
    pub fn shared() -> Result<&'static Self> {
        static SHARED: OnceLock<Result<TestPostgres>> = OnceLock::new();
        let shared = SHARED.get_or_init(|| match env::var("TEST_DATABASE_URL") {
            Ok(url) if !url.is_empty() => Self::elsewhere(url),
            _ => Self::start(TestPostgresOptions::new()),
        });
        shared.as_ref().map_err(Error::clone)
    }

    /// Starts a server of one's own, whatever `TEST_DATABASE_URL` says: to set it up otherwise, to stop it or to crash it.
    /// Blocks the thread for about a second. Dropping it stops the server and removes its directory before it returns.
    ///
    /// # Errors
    /// As [`shared`](Self::shared).
    pub fn start(options: TestPostgresOptions) -> Result<Self> {
        let bin_dir = find_bin_dir()?;
        let (supervisor, socket_dir) = Supervisor::spawn(&bin_dir, options)?;
        Ok(Self {
            url: format!("postgresql://postgres@/postgres?host={}&port=5432", socket_dir.display()),
            bin_dir: Some(bin_dir),
            socket_dir: Some(socket_dir),
            supervisor: Some(Arc::new(Mutex::new(supervisor))),
            templates: Mutex::default(),
        })
    }

    /// A server that somebody else runs. Databases that an earlier run left there are dropped after a day.
    fn elsewhere(url: String) -> Result<Self> {
        let this =
            Self { url, bin_dir: None, socket_dir: None, supervisor: None, templates: Mutex::default() };
        let config = config_of(&this.url)?;
        let sweep = move || {
            // The first 12 hexadecimal digits of a UUIDv7 are its millisecond.
            let old = format!(
                "SELECT datname FROM pg_database WHERE datname ~ '^{DATABASE_PREFIX}[0-9a-f]{{32}}$' AND \
                 ('x' || substr(datname, {}, 12))::bit(48)::bigint / 1000 < extract(epoch FROM now()) - 86400",
                DATABASE_PREFIX.len() + 1
            );
            for name in administer_here(&config, &old)? {
                // Best effort: another process may be dropping it as well.
                let _ = administer_here(
                    &config,
                    &format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&name)),
                );
            }
            Ok(())
        };
        let thread = spawn_thread(sweep)?;
        thread.join().unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unavailable, "the sweep of old test databases failed"))
        })?;
        Ok(this)
    }

    /// The directory of the server's programs (`psql`, `pg_dump`, …), unless it is the server of `TEST_DATABASE_URL`.
    pub fn bin_dir(&self) -> Option<&Path> {
        self.bin_dir.as_deref()
    }

    /// The directory of the server's socket, unless it is the server of `TEST_DATABASE_URL`.
    pub fn socket_dir(&self) -> Option<&Path> {
        self.socket_dir.as_deref()
    }

    /// The URL of the server's database for administration, as superuser.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes a database that no other test has: empty, or a copy of `template`, in about 50 ms.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) if the server cannot be reached or refuses: there is no such template, or
    /// somebody stays connected to it.
    ///
    /// # Cancel safety
    /// A database whose making was cancelled may remain until the server stops.
    pub async fn create_database(&self, template: Option<&str>) -> Result<TestDatabase> {
        let config = config_of(&self.url)?;
        let name = format!("{DATABASE_PREFIX}{}", Uuid::now_v7().simple());
        let template = quoted(template.unwrap_or("template0"));
        administer(config.clone(), format!("CREATE DATABASE {} TEMPLATE {template}", quoted(&name))).await?;
        // A server of this process vanishes with it; on another one the last test must not leave its database.
        let is_waited_for = self.supervisor.is_none();
        Ok(TestDatabase { url: url_of_database(&self.url, &name), name, server: Some(config), is_waited_for })
    }

    /// The database that `migrate` has prepared, to be copied by [`create_database`](Self::create_database): its name on
    /// the server. The first call of a `name` makes it, the calls meanwhile wait for it, the later ones only look it up.
    ///
    /// `migrate` is given the URL and must leave no connection behind; nobody can connect afterwards.
    ///
    /// # Errors
    /// Those of `migrate`, and [`Unavailable`](ErrorKind::Unavailable) as for [`create_database`](Self::create_database).
    /// Then the next call tries again, on a new database.
    ///
    /// # Cancel safety
    /// When cancelled, the next call or one that waits makes the template anew.
    pub async fn template<F, Fut>(&self, name: &str, migrate: F) -> Result<String>
    where
        F: FnOnce(String) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let cell = Arc::clone(lock(&self.templates).entry(name.to_owned()).or_default());
        cell.get_or_try_init(|| self.make_template(migrate)).await.cloned()
    }

    async fn make_template<F, Fut>(&self, migrate: F) -> Result<String>
    where
        F: FnOnce(String) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let database = self.create_database(None).await?;
        migrate(database.url().to_owned()).await?;
        // A connection, autovacuum's included, would hold up or fail the copies.
        let close = format!("ALTER DATABASE {} WITH ALLOW_CONNECTIONS false", quoted(database.name()));
        administer(config_of(&self.url)?, close).await?;
        Ok(database.keep())
    }

    /// A fresh copy of the [`template`](Self::template) `name`, which `migrate` prepares if nobody has yet.
    ///
    /// ```no_run
    /// use metertrail::testing::postgres::{TestDatabase, TestPostgres};
    ///
    /// # async fn migrate(url: &str) -> metertrail::Result<()> { Ok(()) }
    /// async fn database() -> metertrail::Result<TestDatabase> {
    ///     TestPostgres::shared()?.database_from("migrated", async |url| migrate(&url).await).await
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`template`](Self::template) and [`create_database`](Self::create_database).
    ///
    /// # Cancel safety
    /// As [`template`](Self::template) and [`create_database`](Self::create_database).
    pub async fn database_from<F, Fut>(&self, name: &str, migrate: F) -> Result<TestDatabase>
    where
        F: FnOnce(String) -> Fut,
        Fut: Future<Output = Result<()>>,
    {
        let template = self.template(name, migrate).await?;
        self.create_database(Some(&template)).await
    }

    /// Crashes the server and starts it again, which recovers from its log: connections break, what was committed stays.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) outside of a tokio runtime; [`Unavailable`](ErrorKind::Unavailable), with the end of
    /// its log, if the server does not start again.
    ///
    /// # Cancel safety
    /// When cancelled, the server still stops and starts.
    pub async fn restart_immediate(&mut self) -> Result<()> {
        self.order(&["crash", "start"]).await
    }

    /// Stops the server in good order, breaking its connections; the data stay.
    ///
    /// # Errors
    /// As [`restart_immediate`](Self::restart_immediate).
    ///
    /// # Cancel safety
    /// When cancelled, the server still stops.
    pub async fn stop(&mut self) -> Result<()> {
        self.order(&["stop"]).await
    }

    /// Starts a stopped server.
    ///
    /// # Errors
    /// As [`restart_immediate`](Self::restart_immediate); also if it runs.
    ///
    /// # Cancel safety
    /// When cancelled, the server still starts.
    pub async fn start_again(&mut self) -> Result<()> {
        self.order(&["start"]).await
    }

    async fn order(&self, commands: &'static [&'static str]) -> Result<()> {
        let Some(supervisor) = self.supervisor.as_ref().map(Arc::clone) else {
            return Err(Error::new(ErrorKind::Misuse, "only a server that was started here can be stopped"));
        };
        let (sender, receiver) = oneshot::channel();
        spawn_thread(move || {
            let mut supervisor = lock(&supervisor);
            // Nobody listens any more if the caller was cancelled.
            let _ = sender.send(commands.iter().try_for_each(|command| supervisor.ask(command).map(drop)));
        })?;
        receiver.await.unwrap_or_else(|_| Err(thread_died()))
    }
}

/// A database of one test. Dropping it drops the database, whoever is connected, as far as that is possible.
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    url: String,
    server: Option<Config>,
    is_waited_for: bool,
}

impl TestDatabase {
    /// The URL, for [`tokio_postgres::Config`](https://docs.rs/tokio-postgres/latest/tokio_postgres/config/struct.Config.html)
    /// as well as for `psql` and whatever else uses libpq.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The name on the server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Leaves the database on the server: its name.
    fn keep(mut self) -> String {
        self.server = None;
        std::mem::take(&mut self.name)
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        let statement = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", quoted(&self.name));
        let thread = spawn_thread(move || drop(administer_here(&server, &statement)));
        if let (true, Ok(thread)) = (self.is_waited_for, thread) {
            drop(thread.join());
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
