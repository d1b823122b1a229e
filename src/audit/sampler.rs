//! Leaves out most events of a chatty type and counts them.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::TenantId;
use crate::audit::{AuditEvent, AuditType};

/// Keeps one in so many events of some types, for each tenant. What is kept says for how many it stands.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    one_in: HashMap<AuditType, NonZeroU32>,
    /// How many were left out since the last one that was kept.
    left_out: Mutex<HashMap<(TenantId, AuditType), u32>>,
    total: AtomicU64,
}

impl Sampler {
    pub(crate) fn new(one_in: HashMap<AuditType, NonZeroU32>) -> Self {
        Self { one_in, ..Self::default() }
    }

    /// Whether the event is kept; it then stands for those before it. The first of a tenant and type always is.
    pub(crate) fn keeps(&self, event: &mut AuditEvent) -> bool {
        let Some(one_in) = self.one_in.get(&event.event_type).filter(|_| event.may_be_sampled()) else {
            return true;
        };
        let key = (event.tenant_id.clone(), event.event_type.clone());
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(count) = left_out.get_mut(&key) else {
            left_out.insert(key, 0);
            return true;
        };
        if *count + 1 < one_in.get() {
            *count += 1;
            self.total.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        event.represents = *count + 1;
        *count = 0;
        true
    }

    /// How many were left out.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}
