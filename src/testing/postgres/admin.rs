//! Statements for administration, and the names and URLs of databases.

use std::thread;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio_postgres::{Config, NoTls, SimpleQueryMessage};

use crate::{Error, ErrorKind, Result};

const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
pub(super) fn config_of(url: &str) -> Result<Config> {
    let config = url.parse::<Config>();
    config.map_err(|error| {
        Error::new(ErrorKind::Misuse, "TEST_DATABASE_URL is not the URL of a Postgres").with_source(error)
    })
}

/// The URL of another database of a server, in either form that libpq takes.
pub(super) fn url_of_database(server: &str, database: &str) -> String {
    let Some((scheme, rest)) = server.split_once("://") else {
        // Of two values for a keyword the last one stands.
        return format!("{server} dbname={database}");
    };
    let (place, parameters) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    let authority = place.split('/').next().unwrap_or(place);
    format!("{scheme}://{authority}/{database}{parameters}")
}

pub(super) fn quoted(identifier: &str) -> String {
    format!("\"{}\"", identifier.replace('"', "\"\""))
}

/// Executes a statement for administration on a thread and a connection of its own: neither the runtime of the caller,
/// whose clock may be paused, nor its end matters to it.
pub(super) async fn administer(server: Config, statement: String) -> Result<()> {
    let (sender, receiver) = oneshot::channel();
    spawn_thread(move || {
        // Nobody listens any more if the caller was cancelled.
        let _ = sender.send(administer_here(&server, &statement).map(drop));
    })?;
    receiver.await.unwrap_or_else(|_| Err(thread_died()))
}

/// Executes a statement: the first column of its rows. Blocks the thread, which must not be one of a runtime.
pub(super) fn administer_here(server: &Config, statement: &str) -> Result<Vec<String>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| unavailable("no runtime for administration", error))?;
    let work = async {
        let connected = server.connect(NoTls).await;
        let (client, connection) =
            connected.map_err(|error| unavailable("the test server cannot be reached", error))?;
        tokio::spawn(connection);
        let refused = |error| unavailable(format!("the test server refuses `{statement}`"), error);
        client.simple_query(statement).await.map_err(refused)
    };
    let slow = |error| unavailable(format!("the test server takes too long over `{statement}`"), error);
    let rows =
        runtime.block_on(async { tokio::time::timeout(STATEMENT_TIMEOUT, work).await.map_err(slow) })??;
    let names = rows.iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(names.collect())
}

pub(super) fn spawn_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<thread::JoinHandle<T>> {
    let thread = thread::Builder::new().name("metertrail-test".to_owned()).spawn(work);
    thread.map_err(|error| unavailable("no thread for administration", error))
}

pub(super) fn unavailable(
    message: impl Into<String>,
    source: impl std::error::Error + Send + Sync + 'static,
) -> Error {
    Error::new(ErrorKind::Unavailable, message.into()).with_source(source)
}

pub(super) fn thread_died() -> Error {
    Error::new(ErrorKind::Unavailable, "the thread for administration died")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_either_form_is_pointed_at_another_database() {
        for (server, expected) in [
            ("postgresql://u:p@h:1/postgres?sslmode=disable", "postgresql://u:p@h:1/x?sslmode=disable"),
            ("postgres://h", "postgres://h/x"),
            ("postgresql://u@/?host=/run/pg", "postgresql://u@/x?host=/run/pg"),
            ("host=/run/pg dbname=postgres", "host=/run/pg dbname=postgres dbname=x"),
        ] {
            assert_eq!(url_of_database(server, "x"), expected);
            assert_eq!(expected.parse::<Config>().unwrap().get_dbname(), Some("x"));
        }
    }
}
