//! A store behind a shared pointer is a store.

use std::sync::Arc;

use crate::store::Store;

impl<S: Store + ?Sized> Store for Arc<S> {
    crate::delegate_store!(|shared| **shared);
}
