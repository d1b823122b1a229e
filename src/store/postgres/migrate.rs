//! Versioned migrations: numbered files, forward only, each applied once and known by its checksum.

use sha2::{Digest, Sha256};
use tokio_postgres::types::Type;
use tokio_postgres::{GenericClient, Transaction};

use super::error::{MIGRATE, from_postgres};
use super::rows::get;
use super::sql;
use crate::{Error, ErrorKind, Result};

struct Migration {
    version: i32,
    name: &'static str,
    sql: &'static str,
}

const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "usage", sql: include_str!("migrations/0001_usage.sql") },
    Migration { version: 2, name: "quota", sql: include_str!("migrations/0002_quota.sql") },
    Migration { version: 3, name: "audit", sql: include_str!("migrations/0003_audit.sql") },
    Migration { version: 4, name: "cost", sql: include_str!("migrations/0004_cost.sql") },
    Migration {
        version: 5,
        name: "upkeep",
        sql: concat!(
            include_str!("migrations/0005_upkeep.sql"),
            "\n",
            include_str!("migrations/0005_upkeep_aggregate.sql")
        ),
    },
    Migration { version: 6, name: "alerts", sql: include_str!("migrations/0006_alerts.sql") },
];

/// What [`PostgresStore::migrate`](super::PostgresStore::migrate) did.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Migrated {
    /// The schema's version now.
    pub version: i32,
    /// The names of the migrations that were applied by this call, in order.
    pub applied: Vec<String>,
}

impl Migration {
    fn checksum(&self) -> String {
        format!("{:x}", Sha256::digest(self.sql.as_bytes()))
    }
}

/// All SQL that a new database is given.
pub(super) fn script() -> String {
    let migrations = MIGRATIONS.iter().map(|migration| {
        format!("\n-- Migration {}: {}\n\n{}", migration.version, migration.name, migration.sql)
    });
    std::iter::once(sql::CREATE_SCHEMA.to_owned()).chain(migrations).collect()
}

/// Applies what is missing. All or nothing; those who call it at once take turns.
pub(super) async fn migrate(transaction: &Transaction<'_>) -> Result<Migrated> {
    transaction.query_typed(sql::LOCK_MIGRATIONS, &[]).await.map_err(from_postgres)?;
    transaction.batch_execute(sql::CREATE_SCHEMA).await.map_err(from_postgres)?;
    let known = applied(transaction).await?;
    check_known(&known)?;
    let mut done = Migrated { version: latest(), applied: Vec::new() };
    for migration in MIGRATIONS.iter().skip(known.len()) {
        transaction.batch_execute(migration.sql).await.map_err(from_postgres)?;
        let checksum = migration.checksum();
        transaction
            .query_typed(
                sql::INSERT_MIGRATION,
                &[(&migration.version, Type::INT4), (&migration.name, Type::TEXT), (&checksum, Type::TEXT)],
            )
            .await
            .map_err(from_postgres)?;
        done.applied.push(migration.name.to_owned());
    }
    Ok(done)
}

/// Whether the schema is the one that this crate knows.
pub(super) async fn check(client: &impl GenericClient) -> Result<()> {
    let known = applied(client).await?;
    check_known(&known)?;
    if known.len() < MIGRATIONS.len() {
        return Err(Error::new(ErrorKind::Schema, MIGRATE));
    }
    Ok(())
}

struct Applied {
    version: i32,
    name: String,
    checksum: String,
}

async fn applied(client: &impl GenericClient) -> Result<Vec<Applied>> {
    let rows = client.query_typed(sql::SELECT_MIGRATIONS, &[]).await.map_err(from_postgres)?;
    let applied = |row| Ok(Applied { version: get(row, 0)?, name: get(row, 1)?, checksum: get(row, 2)? });
    rows.iter().map(applied).collect()
}

fn check_known(applied: &[Applied]) -> Result<()> {
    if let Some(newest) = applied.get(MIGRATIONS.len()..).and_then(<[Applied]>::last) {
        let message = format!(
            "the database's metertrail schema is at version {}, this crate knows up to {}: use a newer metertrail",
            newest.version,
            latest()
        );
        return Err(Error::new(ErrorKind::Schema, message));
    }
    for (applied, migration) in applied.iter().zip(MIGRATIONS) {
        if applied.version != migration.version || applied.checksum != migration.checksum() {
            let message = format!(
                "migration {} ({}) of the database is not the one that this crate knows: its schema was made by \
                 another build",
                applied.version, applied.name
            );
            return Err(Error::new(ErrorKind::Schema, message));
        }
    }
    Ok(())
}

fn latest() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}
