//! The tenants that this process knows: one look-up finds a tenant's limits.

use std::hash::BuildHasher;
use std::sync::{Arc, PoisonError, RwLock};

use foldhash::quality::RandomState;
use hashbrown::HashTable;

use crate::TenantId;
use crate::quota::cell::Cell;

const SHARDS: usize = 16;

/// All cells in use, by tenant.
#[derive(Debug, Default)]
pub(crate) struct Cells {
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

/// On cache lines of its own, so that tenants of different shards do not meet.
#[derive(Debug, Default)]
#[repr(align(128))]
struct Shard(RwLock<HashTable<Entry>>);

/// The id stands beside the cell, so that both are fetched from memory at the same time.
#[derive(Debug)]
struct Entry {
    tenant_id: TenantId,
    cell: Arc<Cell>,
}

impl Entry {
    fn new(cell: &Arc<Cell>) -> Self {
        Self { tenant_id: cell.tenant_id.clone(), cell: Arc::clone(cell) }
    }
}

impl Cells {
    /// The tenant's cell.
    pub(crate) fn get(&self, tenant_id: &TenantId) -> Option<Arc<Cell>> {
        self.get_after(tenant_id, |_| ()).map(|(cell, ())| cell)
    }

    /// The tenant's cell, and what a short function made of it under the lock. It looks at the cell before its count of
    /// references goes up: a locked instruction keeps the processor from fetching the rest at the same time.
    #[inline]
    pub(crate) fn get_after<T>(
        &self,
        tenant_id: &TenantId,
        first: impl FnOnce(&Cell) -> T,
    ) -> Option<(Arc<Cell>, T)> {
        let hash = self.hasher.hash_one(tenant_id);
        let cells = self.shard(hash).0.read().unwrap_or_else(PoisonError::into_inner);
        let entry = cells.find(hash, |entry| entry.tenant_id == *tenant_id)?;
        let made = first(&entry.cell);
        Some((Arc::clone(&entry.cell), made))
    }

    /// Puts a cell in place of the tenant's present one, which is given back; nothing is done if the present one is to be
    /// kept, or if the whole must not be done any more.
    pub(crate) fn replace(
        &self,
        fresh: &Arc<Cell>,
        keep: impl FnOnce(&Cell) -> bool,
        refuses: impl FnOnce() -> bool,
    ) -> Replaced {
        let hash = self.hasher.hash_one(&fresh.tenant_id);
        let mut cells = self.shard(hash).0.write().unwrap_or_else(PoisonError::into_inner);
        if refuses() {
            return Replaced::Refused;
        }
        if let Some(present) = cells.find_mut(hash, |entry| entry.tenant_id == fresh.tenant_id) {
            if keep(&present.cell) {
                return Replaced::Kept(Arc::clone(&present.cell));
            }
            return Replaced::Done(Some(std::mem::replace(&mut present.cell, Arc::clone(fresh))));
        }
        cells.insert_unique(hash, Entry::new(fresh), |entry| self.hasher.hash_one(&entry.tenant_id));
        Replaced::Done(None)
    }

    /// Takes a tenant's cell out.
    pub(crate) fn remove(&self, tenant_id: &TenantId) -> Option<Arc<Cell>> {
        let hash = self.hasher.hash_one(tenant_id);
        let mut cells = self.shard(hash).0.write().unwrap_or_else(PoisonError::into_inner);
        let entry = cells.find_entry(hash, |entry| entry.tenant_id == *tenant_id).ok()?;
        Some(entry.remove().0.cell)
    }

    /// All cells, in no order.
    pub(crate) fn all(&self) -> Vec<Arc<Cell>> {
        let of = |shard: &Shard| -> Vec<Arc<Cell>> {
            let cells = shard.0.read().unwrap_or_else(PoisonError::into_inner);
            cells.iter().map(|entry| Arc::clone(&entry.cell)).collect()
        };
        self.shards.iter().flat_map(of).collect()
    }

    #[inline]
    fn shard(&self, hash: u64) -> &Shard {
        // The table itself uses the lowest and the highest seven bits.
        let index = usize::try_from((hash >> 32) % 16).unwrap_or(0);
        &self.shards[index]
    }
}

/// What became of [`Cells::replace`].
#[derive(Debug)]
pub(crate) enum Replaced {
    /// The new cell is in place; the old one, if there was one.
    Done(Option<Arc<Cell>>),
    /// The present one stays.
    Kept(Arc<Cell>),
    /// Nothing was done.
    Refused,
}
