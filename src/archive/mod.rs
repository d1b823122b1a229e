//! The archive: old usage events as Parquet in a directory or an object store (feature `archive`).
//!
//! A day that is old enough is written, file after file; each file is read back and compared with what was written. Then the
//! manifest is written, and the day is dropped by one transaction, under an exclusive lock, in which the day still has exactly
//! the events that the manifest counts. Whatever ends before leaves the day in the database and is begun anew, or gone on with
//! where the files that are there are what the database has. Roll-ups stay: no sum changes.
//!
//! ```
//! # fn main() -> metertrail::Result<()> {
//! # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
//! use std::sync::Arc;
//!
//! use metertrail::archive::Archive;
//! use metertrail::upkeep::Upkeep;
//! use metertrail::usage::EventQuery;
//! use metertrail::{EventType, MemoryStore, Outcome, Store, TenantId, TimeRange, UsageEvent};
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let directory = directory.path();
//! let store = Arc::new(MemoryStore::new()); // or a PostgresStore
//! let acme = TenantId::new("acme")?;
//! let noon = "2026-03-01T12:00:00Z".parse().unwrap();
//! store.append(&[UsageEvent::new(acme.clone(), EventType::Search, Outcome::Success, noon)?], &[]).await?;
//!
//! let archive = Archive::local(directory)?;
//! let upkeep = Upkeep::builder(Arc::clone(&store)).task(archive.archiving(Arc::clone(&store))).build()?;
//! let april = "2026-04-15T00:00:00Z".parse().unwrap();
//! assert!(upkeep.run_task("archive", april).await?.outcome.is_success());
//!
//! let query = EventQuery::new(acme, TimeRange::new(noon, april)?);
//! assert!(store.events(&query).await?.items.is_empty());
//! assert_eq!(archive.events(&store, &query).await?.items.len(), 1);
//! # Ok::<(), metertrail::Error>(())
//! # })
//! # }
//! ```

mod files;
mod manifest;
mod parquet;
mod read;
mod task;

pub use self::files::Archive;
pub use self::manifest::{Manifest, Part};
pub use self::task::{Archiving, Erasing, Restoring};
