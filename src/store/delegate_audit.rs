//! As [`delegate`](super::delegate), for stores of the audit trail.

/// Writes the methods of an [`AuditStore`](crate::AuditStore) that only pass the call on to another store, as
/// [`delegate_store!`](crate::delegate_store) does for a [`Store`](crate::Store).
///
/// ```
/// use std::sync::atomic::{AtomicU64, Ordering};
///
/// use metertrail::audit::{Actor, AuditLog, KbAudit, SealedBatch};
/// use metertrail::store::BatchAppended;
/// use metertrail::testing::delegate_audit_store;
/// use metertrail::{AuditStore, MemoryStore, Result, TenantId};
/// use std::sync::Arc;
///
/// /// Counts what it is given.
/// #[derive(Debug, Default)]
/// struct Counting {
///     inner: MemoryStore,
///     events: AtomicU64,
/// }
///
/// #[async_trait::async_trait]
/// impl AuditStore for Counting {
///     async fn append_audit(&self, batch: &SealedBatch) -> Result<BatchAppended> {
///         self.events.fetch_add(batch.events().len() as u64, Ordering::Relaxed);
///         self.inner.append_audit(batch).await
///     }
///
///     delegate_audit_store!(|counting| counting.inner, except append_audit);
/// }
///
/// # tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(async {
/// let store = Arc::new(Counting::default());
/// let log = AuditLog::start(Arc::clone(&store))?;
/// let crawled = KbAudit::Crawled { url: "https://example.org".into(), pages: 3 };
/// log.record(log.event(&TenantId::new("acme")?, Actor::system("crawler")?, &crawled)?).await?;
/// assert_eq!(store.events.load(Ordering::Relaxed), 1);
/// # Ok::<(), metertrail::Error>(())
/// # }).unwrap();
/// ```
#[macro_export]
#[cfg_attr(not(feature = "test-util"), doc(hidden))]
macro_rules! delegate_audit_store {
    (|$outer:ident| $inner:expr $(, except $($named:ident),+)?) => {
        $crate::delegate_audit_store!(@all [$crate::__delegated] (|$outer| $inner) [$($($named)+)?]);
    };
    // For wrappers of this crate that do the same to each method: another macro than `__delegated` writes them.
    (@all $written:tt $how:tt $named:tt) => {
        $crate::delegate_audit_store!(@unless append_audit $written $how $named);
        $crate::delegate_audit_store!(@unless audit_trail $written $how $named);
        $crate::delegate_audit_store!(@unless audit_tenants $written $how $named);
        $crate::delegate_audit_store!(@unless audit_rows $written $how $named);
        $crate::delegate_audit_store!(@unless audit_rows_by_key $written $how $named);
        $crate::delegate_audit_store!(@unless audit_batches $written $how $named);
        $crate::delegate_audit_store!(@unless unsealed_batches $written $how $named);
        $crate::delegate_audit_store!(@unless unsealed_among $written $how $named);
        $crate::delegate_audit_store!(@unless append_epoch $written $how $named);
        $crate::delegate_audit_store!(@unless audit_epochs $written $how $named);
        $crate::delegate_audit_store!(@unless audit_state $written $how $named);
        $crate::delegate_audit_store!(@unless tree_nodes $written $how $named);
        $crate::delegate_audit_store!(@unless tree_leaves $written $how $named);
        $crate::delegate_audit_store!(@unless tree_leaves_by_key $written $how $named);
        $crate::delegate_audit_store!(@unless subject_key $written $how $named);
        $crate::delegate_audit_store!(@unless put_subject_key $written $how $named);
        $crate::delegate_audit_store!(@unless erase_subject_key $written $how $named);
        $crate::delegate_audit_store!(@unless set_legal_hold $written $how $named);
    };
    (@unless append_audit $written:tt $how:tt [append_audit $($rest:ident)*]) => {};
    (@unless audit_trail $written:tt $how:tt [audit_trail $($rest:ident)*]) => {};
    (@unless audit_tenants $written:tt $how:tt [audit_tenants $($rest:ident)*]) => {};
    (@unless audit_rows $written:tt $how:tt [audit_rows $($rest:ident)*]) => {};
    (@unless audit_rows_by_key $written:tt $how:tt [audit_rows_by_key $($rest:ident)*]) => {};
    (@unless audit_batches $written:tt $how:tt [audit_batches $($rest:ident)*]) => {};
    (@unless unsealed_batches $written:tt $how:tt [unsealed_batches $($rest:ident)*]) => {};
    (@unless unsealed_among $written:tt $how:tt [unsealed_among $($rest:ident)*]) => {};
    (@unless append_epoch $written:tt $how:tt [append_epoch $($rest:ident)*]) => {};
    (@unless audit_epochs $written:tt $how:tt [audit_epochs $($rest:ident)*]) => {};
    (@unless audit_state $written:tt $how:tt [audit_state $($rest:ident)*]) => {};
    (@unless tree_nodes $written:tt $how:tt [tree_nodes $($rest:ident)*]) => {};
    (@unless tree_leaves $written:tt $how:tt [tree_leaves $($rest:ident)*]) => {};
    (@unless tree_leaves_by_key $written:tt $how:tt [tree_leaves_by_key $($rest:ident)*]) => {};
    (@unless subject_key $written:tt $how:tt [subject_key $($rest:ident)*]) => {};
    (@unless put_subject_key $written:tt $how:tt [put_subject_key $($rest:ident)*]) => {};
    (@unless erase_subject_key $written:tt $how:tt [erase_subject_key $($rest:ident)*]) => {};
    (@unless set_legal_hold $written:tt $how:tt [set_legal_hold $($rest:ident)*]) => {};
    (@unless $name:ident $written:tt $how:tt [$other:ident $($rest:ident)*]) => {
        $crate::delegate_audit_store!(@unless $name $written $how [$($rest)*]);
    };
    (@unless $name:ident $written:tt $how:tt []) => {
        $crate::__audit_store_method!($name $written $how);
    };
}

/// The signatures of all methods, as `__store_method` has those of [`Store`](crate::Store).
#[doc(hidden)]
#[macro_export]
macro_rules! __audit_store_method {
    (append_audit [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* AppendAudit append_audit ['a] (batch: &'a $crate::audit::SealedBatch) -> $crate::store::BatchAppended
        }
    };
    (audit_trail [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* AuditTrail audit_trail ['a] (query: &'a $crate::audit::AuditQuery) -> $crate::Page<$crate::audit::AuditEvent>
        }
    };
    (audit_tenants [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* AuditTenants audit_tenants ['a] (after: Option<&'a $crate::TenantId>, limit: u32) -> Vec<$crate::TenantId>
        }
    };
    (audit_rows [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* AuditRows audit_rows ['a] (tenant_id: &'a $crate::TenantId, after: Option<$crate::store::delegate::Uuid>, limit: u32) -> Vec<$crate::store::AuditRow>
        }
    };
    (audit_rows_by_key [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* AuditRowsByKey audit_rows_by_key ['a] (keys: &'a [($crate::TenantId, $crate::EventId)]) -> Vec<$crate::store::AuditRow>
        }
    };
    (audit_batches [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* AuditBatches audit_batches [] (after: Option<($crate::audit::WriterId, u64)>, limit: u32) -> Vec<$crate::audit::BatchRecord>
        }
    };
    (unsealed_batches [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* UnsealedBatches unsealed_batches [] (limit: u32) -> Vec<$crate::audit::BatchRecord>
        }
    };
    (unsealed_among [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* UnsealedAmong unsealed_among ['a] (batches: &'a [($crate::audit::WriterId, u64)]) -> Vec<($crate::audit::WriterId, u64)>
        }
    };
    (append_epoch [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* AppendEpoch append_epoch ['a] (epoch: &'a $crate::audit::NewEpoch) -> bool
        }
    };
    (audit_epochs [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* AuditEpochs audit_epochs [] (from: u64, limit: u32) -> Vec<$crate::audit::StoredEpoch>
        }
    };
    (audit_state [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* AuditState audit_state [] () -> $crate::audit::AuditState
        }
    };
    (tree_nodes [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* TreeNodes tree_nodes ['a] (tenant_id: &'a $crate::TenantId, level: u8, from: u64, limit: u32) -> Vec<$crate::audit::KeptNode>
        }
    };
    (tree_leaves [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* TreeLeaves tree_leaves ['a] (tenant_id: &'a $crate::TenantId, after: Option<$crate::EventId>, limit: u32) -> Vec<$crate::audit::TreeLeaf>
        }
    };
    (tree_leaves_by_key [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* TreeLeavesByKey tree_leaves_by_key ['a] (keys: &'a [($crate::TenantId, $crate::EventId)]) -> Vec<($crate::TenantId, $crate::audit::TreeLeaf)>
        }
    };
    (subject_key [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* SubjectKey subject_key ['a 'b] (tenant_id: &'a $crate::TenantId, subject: &'b $crate::Label) -> Option<Vec<u8>>
        }
    };
    (put_subject_key [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* PutSubjectKey put_subject_key ['a 'b 'c] (tenant_id: &'a $crate::TenantId, subject: &'b $crate::Label, key: &'c [u8]) -> Vec<u8>
        }
    };
    (erase_subject_key [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* EraseSubjectKey erase_subject_key ['a 'b] (tenant_id: &'a $crate::TenantId, subject: &'b $crate::Label) -> $crate::store::KeyErased
        }
    };
    (set_legal_hold [$($to:tt)*] $($with:tt)*) => {
        $($to)*! {
            $($with)* SetLegalHold set_legal_hold ['a 'b 'c] (tenant_id: &'a $crate::TenantId, subject: Option<&'b $crate::Label>, reason: Option<&'c $crate::Label>) -> ()
        }
    };
}
