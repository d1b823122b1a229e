//! Which Postgres: the one that is named, else a throw-away one where that is built in.

use std::env;

use metertrail::PostgresStore;
#[cfg(feature = "test-util")]
use metertrail::testing::postgres::{TestPostgres, TestPostgresOptions};

use crate::Result;

/// A Postgres. A throw-away one ends with this value.
#[derive(Debug)]
pub(crate) struct Database {
    url: String,
    #[cfg(feature = "test-util")]
    _server: Option<TestPostgres>,
}

impl Database {
    /// The argument's, else that of `DATABASE_URL`, else a throw-away one.
    pub(crate) fn find(argument: Option<String>) -> Result<Self> {
        match argument.or_else(|| env::var("DATABASE_URL").ok()).filter(|url| !url.is_empty()) {
            Some(url) => Ok(Self {
                url,
                #[cfg(feature = "test-util")]
                _server: None,
            }),
            None => Self::throw_away(),
        }
    }

    /// It syncs to disk, as a Postgres that is not thrown away does: the speed is that of real commits.
    #[cfg(feature = "test-util")]
    fn throw_away() -> Result<Self> {
        eprintln!(
            "no --database-url and no DATABASE_URL: starting a throw-away Postgres, which ends with this replay"
        );
        let server = TestPostgres::start(TestPostgresOptions::new().fsync(true))?;
        Ok(Self { url: server.url().to_owned(), _server: Some(server) })
    }

    #[cfg(not(feature = "test-util"))]
    fn throw_away() -> Result<Self> {
        Err("--store postgres needs --database-url or DATABASE_URL".into())
    }

    /// A store on it, with its schema brought up to date.
    pub(crate) async fn store(&self) -> Result<PostgresStore> {
        let store = PostgresStore::from_url(&self.url)?;
        store.migrate().await?;
        Ok(store)
    }
}
