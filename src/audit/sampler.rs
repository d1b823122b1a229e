//! Leaves out most events of a chatty type and counts them.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::TenantId;
use crate::audit::{AuditEvent, AuditType};

/// How many, and the latest of them without what is about persons; nothing behind one that was kept.
type LeftOut = Option<(u32, AuditEvent)>;

/// Keeps one in so many events of some types, for each tenant. What is kept says for how many it stands.
#[derive(Debug, Default)]
pub(crate) struct Sampler {
    one_in: HashMap<AuditType, NonZeroU32>,
    /// What was left out since the last one that was kept: how many, and the latest of them.
    left_out: Mutex<HashMap<(TenantId, AuditType), LeftOut>>,
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
            left_out.insert(key, None);
            return true;
        };
        let before = count.take().map_or(0, |(before, _)| before);
        if before + 1 < one_in.get() {
            let mut latest = event.clone();
            // What is about a person must not outlive its erasure here.
            latest.personal.clear();
            *count = Some((before + 1, latest));
            self.total.fetch_add(1, Ordering::Relaxed);
            return false;
        }
        event.represents = before + 1;
        true
    }

    /// What was left out since the last that was kept, once and for all: the latest of each tenant and type, standing for
    /// those before it.
    pub(crate) fn drain(&self) -> Vec<AuditEvent> {
        let mut left_out = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        let left = left_out.drain().filter_map(|(_, left)| left).map(|(count, mut event)| {
            event.represents = count;
            event
        });
        let left: Vec<AuditEvent> = left.collect();
        self.total.fetch_sub(u64::try_from(left.len()).unwrap_or(0), Ordering::Relaxed);
        left
    }

    /// How many were left out.
    pub(crate) fn total(&self) -> u64 {
        self.total.load(Ordering::Relaxed)
    }
}
