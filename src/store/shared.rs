//! A store behind a shared pointer is a store.

use std::sync::Arc;

use async_trait::async_trait;

use crate::cost::{CostChange, CostShare, CostSharesQuery};
use crate::store::{CostStore, Store};
use crate::{Result, TenantId};

impl<S: Store + ?Sized> Store for Arc<S> {
    crate::delegate_store!(|shared| **shared);
}

#[async_trait]
impl<S: CostStore + ?Sized> CostStore for Arc<S> {
    async fn apply_costs(&self, tenant_id: &TenantId, changes: &[CostChange]) -> Result<Vec<bool>> {
        (**self).apply_costs(tenant_id, changes).await
    }

    async fn cost_shares(&self, query: &CostSharesQuery) -> Result<Vec<CostShare>> {
        (**self).cost_shares(query).await
    }
}
