//! A store and an archive's files in a process that kills itself at a step of its own choosing.

use std::fmt;
use std::ops::Range;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use chrono::{DateTime, NaiveDate, Utc};
use futures_util::stream::BoxStream;
use metertrail::store::{
    ClaimRun, Claimed, ClosedDay, DayDigest, DayDropped, DayOpened, DayTable, DropDay, Fence, Prune, RunEnd,
    TaskRun, TaskState, UpkeepStore,
};
use metertrail::testing::delegate_store;
use metertrail::{EventId, Label, PostgresStore, Result, Store, TenantId, TimeRange, UsageEvent};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult,
};

/// How many steps are left.
#[derive(Clone, Debug)]
pub(super) struct Life(Arc<AtomicU64>);

impl Life {
    pub(super) fn of(steps: u64) -> Self {
        Self(Arc::new(AtomicU64::new(steps)))
    }

    /// Kills this process, as anybody else would, when no step is left.
    fn step(&self) {
        if self.0.fetch_sub(1, Ordering::SeqCst) == 1 {
            let pid = std::process::id().to_string();
            Command::new("sh").args(["-c", "kill -9 \"$0\"", &pid]).status().unwrap();
            loop {
                std::thread::park();
            }
        }
    }

    /// A step before something and one behind it.
    async fn around<T>(&self, work: impl Future<Output = T>) -> T {
        self.step();
        let done = work.await;
        self.step();
        done
    }
}

#[derive(Debug)]
pub(super) struct MortalStore {
    pub(super) inner: PostgresStore,
    pub(super) life: Life,
}

#[async_trait::async_trait]
impl Store for MortalStore {
    delegate_store!(|mortal| mortal.inner);
}

#[async_trait::async_trait]
impl UpkeepStore for MortalStore {
    async fn claim_run(&self, claim: &ClaimRun) -> Result<Claimed> {
        self.life.around(self.inner.claim_run(claim)).await
    }

    async fn renew_run(&self, fence: &Fence, lease_until: DateTime<Utc>) -> Result<bool> {
        self.life.around(self.inner.renew_run(fence, lease_until)).await
    }

    async fn finish_run(&self, fence: &Fence, end: &RunEnd) -> Result<bool> {
        self.life.around(self.inner.finish_run(fence, end)).await
    }

    async fn task_states(&self) -> Result<Vec<TaskState>> {
        self.life.around(self.inner.task_states()).await
    }

    async fn task_runs(&self, task: &Label, limit: u32) -> Result<Vec<TaskRun>> {
        self.life.around(self.inner.task_runs(task, limit)).await
    }

    async fn make_days(&self, table: DayTable, days: &[NaiveDate]) -> Result<u64> {
        self.life.around(self.inner.make_days(table, days)).await
    }

    async fn days(&self, table: DayTable) -> Result<Vec<NaiveDate>> {
        self.life.around(self.inner.days(table)).await
    }

    async fn day_digest(&self, day: NaiveDate) -> Result<DayDigest> {
        self.life.around(self.inner.day_digest(day)).await
    }

    async fn day_events(
        &self,
        day: NaiveDate,
        after: Option<(&TenantId, EventId)>,
        limit: u32,
    ) -> Result<Vec<UsageEvent>> {
        self.life.around(self.inner.day_events(day, after, limit)).await
    }

    async fn drop_day(&self, fence: &Fence, drop: &DropDay) -> Result<DayDropped> {
        self.life.around(self.inner.drop_day(fence, drop)).await
    }

    async fn replace_archive(&self, fence: &Fence, before_sha256: &str, after: &DropDay) -> Result<bool> {
        self.life.around(self.inner.replace_archive(fence, before_sha256, after)).await
    }

    async fn closed_days(&self, table: DayTable) -> Result<Vec<ClosedDay>> {
        self.life.around(self.inner.closed_days(table)).await
    }

    async fn stage_events(&self, events: &[UsageEvent]) -> Result<()> {
        self.life.around(self.inner.stage_events(events)).await
    }

    async fn unstage_day(&self, day: NaiveDate) -> Result<()> {
        self.life.around(self.inner.unstage_day(day)).await
    }

    async fn open_day(&self, fence: &Fence, day: NaiveDate, kept_until: DateTime<Utc>) -> Result<DayOpened> {
        self.life.around(self.inner.open_day(fence, day, kept_until)).await
    }

    async fn prune(&self, prune: &Prune, rows_max: u32) -> Result<u64> {
        self.life.around(self.inner.prune(prune, rows_max)).await
    }

    async fn aggregate(&self, range: TimeRange) -> Result<u64> {
        self.life.around(self.inner.aggregate(range)).await
    }

    async fn set_usage_hold(&self, tenant_id: &TenantId, reason: Option<&Label>) -> Result<()> {
        self.life.around(self.inner.set_usage_hold(tenant_id, reason)).await
    }

    async fn usage_holds(&self) -> Result<Vec<(TenantId, Label)>> {
        self.life.around(self.inner.usage_holds()).await
    }

    async fn erase_usage(&self, tenant_id: &TenantId) -> Result<u64> {
        self.life.around(self.inner.erase_usage(tenant_id)).await
    }
}

#[derive(Debug)]
pub(super) struct MortalFiles<F> {
    pub(super) inner: F,
    pub(super) life: Life,
}

impl<F: ObjectStore> fmt::Display for MortalFiles<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.inner, f)
    }
}

#[async_trait::async_trait]
impl<F: ObjectStore> ObjectStore for MortalFiles<F> {
    async fn put_opts(
        &self,
        path: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> object_store::Result<PutResult> {
        self.life.around(self.inner.put_opts(path, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> object_store::Result<Box<dyn MultipartUpload>> {
        self.life.around(self.inner.put_multipart_opts(path, options)).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> object_store::Result<GetResult> {
        self.life.around(self.inner.get_opts(path, options)).await
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> object_store::Result<Vec<Bytes>> {
        self.life.around(self.inner.get_ranges(path, ranges)).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, object_store::Result<Path>>,
    ) -> BoxStream<'static, object_store::Result<Path>> {
        self.life.step();
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, object_store::Result<ObjectMeta>> {
        self.life.step();
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> object_store::Result<ListResult> {
        self.life.around(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> object_store::Result<()> {
        self.life.around(self.inner.copy_opts(from, to, options)).await
    }
}
