//! What the database's errors mean to a caller.

use std::time::Duration;

use deadpool_postgres::{Pool, PoolError};
use tokio_postgres::error::SqlState;

use crate::{Error, ErrorKind};

pub(super) const MIGRATE: &str =
    "the database has no metertrail schema, or an older one: run PostgresStore::migrate";

/// The code that `metertrail.refuse_closed_day` raises.
const CLOSED_DAY: &str = "MT001";

pub(super) fn from_postgres(error: tokio_postgres::Error) -> Error {
    if let Some(refusal) = error.as_db_error().filter(|refusal| refusal.code().code() == CLOSED_DAY) {
        return Error::invalid("occurred_at", refusal.message().to_owned()).with_source(error);
    }
    let kind = kind_of(&error);
    let message = match (kind, error.as_db_error()) {
        (ErrorKind::Schema, _) => MIGRATE.into(),
        (ErrorKind::Store, Some(refusal)) => {
            let code = refusal.code().code();
            format!("the database refused a row: {} (SQLSTATE {code})", refusal.message())
        }
        (_, Some(refusal)) => {
            let code = refusal.code().code();
            format!("the database did not do its work: {} (SQLSTATE {code})", refusal.message())
        }
        (ErrorKind::Store, None) => format!("the database and this crate disagree: {error}"),
        (_, None) => format!("the database cannot be reached or went away: {error}"),
    };
    Error::new(kind, message).with_source(error)
}

/// Only what lies in the rows themselves is final: a data exception (class 22), a broken constraint (23), a key twice in
/// one statement (21). Everything else is the state of the database, which can be mended while the events wait.
fn kind_of(error: &tokio_postgres::Error) -> ErrorKind {
    let Some(code) = error.code() else {
        let misread =
            error.to_string().contains("deserializing") || error.to_string().contains("serializing");
        return if misread { ErrorKind::Store } else { ErrorKind::Unavailable };
    };
    if is_partition_missing(error) {
        return ErrorKind::Unavailable;
    }
    match code {
        &SqlState::UNDEFINED_TABLE
        | &SqlState::UNDEFINED_COLUMN
        | &SqlState::UNDEFINED_FUNCTION
        | &SqlState::INVALID_SCHEMA_NAME => ErrorKind::Schema,
        code if ["21", "22", "23"].iter().any(|class| code.code().starts_with(class)) => ErrorKind::Store,
        _ => ErrorKind::Unavailable,
    }
}

/// Whether a row is already there.
pub(super) fn is_unique_violation(error: &tokio_postgres::Error) -> bool {
    error.code() == Some(&SqlState::UNIQUE_VIOLATION)
}

/// Whether a row found no partition.
pub(super) fn is_partition_missing(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|refusal| {
        refusal.code() == &SqlState::CHECK_VIOLATION
            && refusal.message().starts_with("no partition of relation")
    })
}

/// Whether an error of this crate comes from a row that found no partition.
pub(super) fn is_for_a_missing_partition(error: &Error) -> bool {
    let source = std::error::Error::source(error);
    source.and_then(|source| source.downcast_ref()).is_some_and(is_partition_missing)
}

pub(super) fn from_pool(error: PoolError) -> Error {
    match error {
        PoolError::Backend(error) => from_postgres(error),
        PoolError::Closed => Error::new(ErrorKind::Unavailable, "the pool is closed"),
        PoolError::Timeout(_) => {
            Error::new(ErrorKind::Unavailable, "the pool gave no connection in time").with_source(error)
        }
        // A hook of the host may fail for a while. What never works is found when the store is first used.
        other => Error::new(ErrorKind::Unavailable, "the pool cannot give a connection").with_source(other),
    }
}

/// The pool gave nothing in time: because all of its connections are out, or because the database takes none.
pub(super) fn no_connection(pool: &Pool, waited: Duration) -> Error {
    let status = pool.status();
    let message = if status.size >= status.max_size && status.available == 0 {
        format!(
            "no connection of the pool became free in {waited:?}, all {} are out: give the pool more connections, or \
             look for one that is never given back",
            status.max_size
        )
    } else {
        format!("the database did not accept a connection in {waited:?}")
    };
    Error::new(ErrorKind::Unavailable, message)
}
