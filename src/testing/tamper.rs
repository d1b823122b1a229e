//! A hand in a trail that should not be there.

use crate::MemoryStore;
use crate::store::AuditTables;

/// Lets a test do to a trail in memory what a superuser can do to tables.
///
/// ```
/// use metertrail::MemoryStore;
/// use metertrail::testing::tamper;
///
/// let store = MemoryStore::new();
/// let had = tamper(&store, |tables| std::mem::take(&mut tables.events));
/// assert!(had.is_empty());
/// ```
pub fn tamper<T>(store: &MemoryStore, hand: impl FnOnce(&mut AuditTables) -> T) -> T {
    hand(&mut store.audit_write())
}
