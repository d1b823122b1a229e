//! The contract of [`UpkeepStore`] as cases. Each takes an **empty** store; [`all`] runs them one after the other.

use std::sync::Arc;

use chrono::{DateTime, NaiveDate, TimeDelta, Utc};
use futures_util::future::join_all;

use super::sample::{at, between, changed, event, events, label, must, tenant, the_day, with_key};
use crate::ErrorKind;
use crate::TenantId;
use crate::page::PageSize;
use crate::quota::Reconcile;
use crate::store::{
    ClaimRun, Claimed, DayDigest, DayDropped, DayOpened, DayTable, DropDay, Fence, KeepFrom, Prune, RunEnd,
    RunStatus, Store, UpkeepStore,
};
use crate::time::{Period, TimeRange, Zone};
use crate::usage::{EventQuery, UsageEvent, UsageMetrics};

/// Runs every case, each on a store of its own.
pub async fn all<S: Store + UpkeepStore>(mut empty_store: impl AsyncFnMut() -> S) {
    one_of_many_is_granted_a_step(Arc::new(empty_store().await)).await;
    a_step_that_was_done_is_not_granted_again(&empty_store().await).await;
    a_failed_step_is_tried_again_later(&empty_store().await).await;
    a_step_whose_lease_ended_is_granted_again(&empty_store().await).await;
    an_earlier_token_changes_nothing(&empty_store().await).await;
    runs_are_recorded(&empty_store().await).await;
    days_are_made_once(&empty_store().await).await;
    a_day_is_read_in_the_order_of_keys(&empty_store().await).await;
    a_day_that_changed_is_not_dropped(&empty_store().await).await;
    a_dropped_day_keeps_its_sums_and_is_closed(&empty_store().await).await;
    a_dropped_day_is_not_reconciled_away(&empty_store().await).await;
    a_restored_day_is_as_it_was(&empty_store().await).await;
    a_hold_keeps_usage(&empty_store().await).await;
    events_are_pruned_by_plan(&empty_store().await).await;
    roll_ups_of_kept_days_are_not_pruned(&empty_store().await).await;
    aggregating_anew_changes_nothing(&empty_store().await).await;
    aggregating_anew_mends(&empty_store().await).await;
    erasing_leaves_others(&empty_store().await).await;
}

fn noon() -> DateTime<Utc> {
    at("2026-04-15T12:00:00Z")
}

fn first_of_march() -> NaiveDate {
    the_day().start().date_naive()
}

fn claim(task: &str, minute: i64, now: DateTime<Utc>) -> ClaimRun {
    ClaimRun {
        task: label(task),
        due_at: noon() + TimeDelta::minutes(minute),
        now,
        lease_until: now + TimeDelta::seconds(60),
        owner: label("conformance"),
    }
}

async fn granted(store: &impl UpkeepStore, claim: &ClaimRun) -> Fence {
    match must("claim", store.claim_run(claim).await) {
        Claimed::Granted { fence, .. } => fence,
        other => panic!("the step was not granted: {other:?}"),
    }
}

async fn succeed(store: &impl UpkeepStore, fence: &Fence) -> bool {
    must("finish", store.finish_run(fence, &RunEnd::Succeeded { at: noon(), rows: 7 }).await)
}

async fn drop_with(store: &impl UpkeepStore, fence: &Fence, digest: DayDigest) -> DayDropped {
    let drop = DropDay { day: first_of_march(), digest, manifest: None, now: noon() };
    must("drop a day", store.drop_day(fence, &drop).await)
}

/// Drops the day with what it has.
async fn drop_day(store: &impl UpkeepStore, fence: &Fence) -> DayDropped {
    let digest = must("digest", store.day_digest(first_of_march()).await);
    drop_with(store, fence, digest).await
}

async fn keep_new(store: &impl Store, batch: &[UsageEvent]) {
    must("append", store.append(batch, &[]).await);
}

async fn fold(store: &impl Store) {
    while must("roll up", store.roll_up(1_000).await) > 0 {}
}

/// What a tenant has in the quarter hours, hours, days and months of March and April.
async fn sums(store: &impl Store, own: &TenantId) -> Vec<UsageMetrics> {
    let spring = between(at("2026-03-01T00:00:00Z"), at("2026-05-01T00:00:00Z"));
    let mut sums = Vec::new();
    for period in Period::ALL {
        let periods = must("periods", period.ranges(spring, Zone::UTC));
        sums.extend(must("usage", store.usage(own, &periods).await));
    }
    sums
}

async fn events_of(store: &impl Store, own: &TenantId, range: TimeRange) -> Vec<UsageEvent> {
    let query = EventQuery::new(own.clone(), range).page_size(must("page size", PageSize::new(1_000)));
    must("events", store.events(&query).await).items
}

/// Clause 1: of callers at once one is granted the step, and nobody another one while it is at work.
pub async fn one_of_many_is_granted_a_step(store: Arc<impl UpkeepStore>) {
    for minute in 0..20 {
        let claims = (0..8).map(|_| {
            let store = Arc::clone(&store);
            async move { store.claim_run(&claim("sweep", minute, noon())).await }
        });
        let answers: Vec<Claimed> =
            join_all(claims).await.into_iter().map(|answer| must("claim", answer)).collect();
        let fences: Vec<&Fence> = answers
            .iter()
            .filter_map(|answer| if let Claimed::Granted { fence, .. } = answer { Some(fence) } else { None })
            .collect();
        assert_eq!(fences.len(), 1, "{answers:?}");
        let next = must("claim", store.claim_run(&claim("sweep", minute + 1, noon())).await);
        assert!(matches!(next, Claimed::Running { .. }), "two steps of one task at once: {next:?}");
        let other = granted(&*store, &claim("other", minute, noon())).await;
        assert!(succeed(&*store, &other).await && succeed(&*store, fences[0]).await);
    }
}

/// Clause 1: neither a step that succeeded nor an earlier one.
pub async fn a_step_that_was_done_is_not_granted_again(store: &impl UpkeepStore) {
    let fence = granted(store, &claim("sweep", 5, noon())).await;
    assert!(succeed(store, &fence).await);
    for minute in [5, 4, 0] {
        let late = noon() + TimeDelta::days(1);
        assert_eq!(must("claim", store.claim_run(&claim("sweep", minute, late)).await), Claimed::Done);
    }
    match must("claim", store.claim_run(&claim("sweep", 6, noon())).await) {
        Claimed::Granted { fence: next, attempt: 1, since } => {
            assert_eq!(since, Some(noon() + TimeDelta::minutes(5)));
            assert!(next.token > fence.token);
        }
        other => panic!("the next step is not granted: {other:?}"),
    }
}

/// Clause 3: after the time that was said, and the step after it at once.
pub async fn a_failed_step_is_tried_again_later(store: &impl UpkeepStore) {
    let fail = async |fence: &Fence| {
        let retry_at = noon() + TimeDelta::minutes(1);
        let end = RunEnd::Failed { at: noon(), error: "no".to_owned(), retry_at };
        assert!(must("finish", store.finish_run(fence, &end).await));
        retry_at
    };
    let fence = granted(store, &claim("sweep", 0, noon())).await;
    let retry_at = fail(&fence).await;
    let again = must("claim", store.claim_run(&claim("sweep", 0, noon())).await);
    assert_eq!(again, Claimed::Later { at: retry_at });
    match must("claim", store.claim_run(&claim("sweep", 0, retry_at)).await) {
        Claimed::Granted { fence, attempt: 2, since: None } => drop(fail(&fence).await),
        other => panic!("the second attempt is not granted: {other:?}"),
    }
    granted(store, &claim("sweep", 1, noon())).await;
}

/// Clause 3: and the one before is refused from then on (clause 2), whatever it tries.
pub async fn a_step_whose_lease_ended_is_granted_again(store: &impl UpkeepStore) {
    let first = granted(store, &claim("sweep", 0, noon())).await;
    assert!(must("renew", store.renew_run(&first, noon() + TimeDelta::seconds(90)).await));
    let soon = must("claim", store.claim_run(&claim("sweep", 0, noon() + TimeDelta::seconds(89))).await);
    assert_eq!(soon, Claimed::Running { until: noon() + TimeDelta::seconds(90) });
    let second = granted(store, &claim("sweep", 0, noon() + TimeDelta::seconds(90))).await;
    assert!(second.token > first.token);
    assert!(!must("renew", store.renew_run(&first, noon() + TimeDelta::days(1)).await));
    assert!(!succeed(store, &first).await);
    assert!(succeed(store, &second).await);
    assert!(!succeed(store, &second).await, "a run ends once");
    let runs = must("runs", store.task_runs(&label("sweep"), 10).await);
    let statuses: Vec<RunStatus> = runs.iter().map(|run| run.status).collect();
    assert_eq!(statuses, [RunStatus::Succeeded, RunStatus::Lost]);
}

/// Clause 2: neither a day is dropped under it nor opened.
pub async fn an_earlier_token_changes_nothing(store: &(impl Store + UpkeepStore)) {
    keep_new(store, &events(&tenant("acme"), 3)).await;
    let first = granted(store, &claim("archive", 0, noon())).await;
    let second = granted(store, &claim("archive", 0, noon() + TimeDelta::hours(1))).await;
    assert_eq!(drop_day(store, &first).await, DayDropped::Fenced);
    assert_eq!(must("digest", store.day_digest(first_of_march()).await).events, 3);
    assert_eq!(drop_day(store, &second).await, DayDropped::Dropped);
    let opened = must("open", store.open_day(&first, first_of_march(), noon()).await);
    assert_eq!(opened, DayOpened::Fenced);
    assert!(succeed(store, &second).await);
    let opened = must("open", store.open_day(&second, first_of_march(), noon()).await);
    assert_eq!(opened, DayOpened::Fenced, "a run that ended holds nothing");
}

/// Each run with what became of it; old ones can be deleted, the latest not.
pub async fn runs_are_recorded(store: &impl UpkeepStore) {
    assert_eq!(must("states", store.task_states().await), []);
    for minute in 0..3 {
        let fence = granted(store, &claim("sweep", minute, noon() + TimeDelta::minutes(minute + 1))).await;
        assert!(succeed(store, &fence).await);
    }
    granted(store, &claim("count", 0, noon())).await;
    let states = must("states", store.task_states().await);
    let names: Vec<&str> = states.iter().map(|state| state.latest.task.as_str()).collect();
    assert_eq!(names, ["count", "sweep"]);
    assert_eq!((states[0].latest.status, states[0].last_success_at), (RunStatus::Running, None));
    let sweep = &states[1];
    assert_eq!(sweep.last_success_due_at, Some(noon() + TimeDelta::minutes(2)));
    assert_eq!((sweep.last_success_at, sweep.latest.rows), (Some(noon()), Some(7)));
    assert_eq!(sweep.latest.lag(), std::time::Duration::from_secs(60));
    assert_eq!(must("runs", store.task_runs(&label("sweep"), 2).await).len(), 2, "clause 7: bounded");
    let prune = Prune::Runs { finished_before: noon() + TimeDelta::days(1) };
    assert_eq!(must("prune", store.prune(&prune, 1).await), 1, "clause 7: bounded");
    assert_eq!(must("prune", store.prune(&prune, 100).await), 1);
    let left = must("runs", store.task_runs(&label("sweep"), 10).await);
    assert_eq!(left, std::slice::from_ref(&sweep.latest));
}

/// A day is made once; what an append made is there.
pub async fn days_are_made_once(store: &(impl Store + UpkeepStore)) {
    let days: Vec<NaiveDate> = first_of_march().iter_days().take(4).collect();
    keep_new(store, &events(&tenant("acme"), 1)).await;
    for table in [DayTable::Usage, DayTable::Audit] {
        let there = u64::from(table == DayTable::Usage);
        assert_eq!(must("make days", store.make_days(table, &days).await), 4 - there);
        assert_eq!(must("make days", store.make_days(table, &days).await), 0);
        assert_eq!(must("days", store.days(table).await), days);
    }
}

/// Every event of the day once, and no other day's.
pub async fn a_day_is_read_in_the_order_of_keys(store: &(impl Store + UpkeepStore)) {
    let mut batch = Vec::new();
    for name in ["acme", "bolt", "corp"] {
        batch.extend(events(&tenant(name), 7));
        batch.push(event(&tenant(name), the_day().end()));
    }
    keep_new(store, &batch).await;
    let mut expected: Vec<&UsageEvent> =
        batch.iter().filter(|event| the_day().contains(event.occurred_at())).collect();
    expected.sort_by(|a, b| (&a.tenant_id, a.id()).cmp(&(&b.tenant_id, b.id())));
    let mut read: Vec<UsageEvent> = Vec::new();
    loop {
        let after = read.last().map(|event| (&event.tenant_id, event.id()));
        let page = must("day events", store.day_events(first_of_march(), after, 4).await);
        assert!(page.len() <= 4, "clause 7: bounded");
        if page.is_empty() {
            break;
        }
        read.extend(page);
    }
    assert_eq!(read.iter().collect::<Vec<_>>(), expected);
    let mut digest = DayDigest::default();
    for event in &expected {
        digest.add(event.id());
    }
    assert_eq!(must("digest", store.day_digest(first_of_march()).await), digest);
}

/// Clause 4.
pub async fn a_day_that_changed_is_not_dropped(store: &(impl Store + UpkeepStore)) {
    let own = tenant("acme");
    let batch = events(&own, 3);
    keep_new(store, &batch).await;
    let fence = granted(store, &claim("archive", 0, noon())).await;
    let before = must("digest", store.day_digest(first_of_march()).await);
    keep_new(store, &[event(&own, the_day().start())]).await;
    assert_eq!(drop_with(store, &fence, before).await, DayDropped::Changed);
    let same_count = DayDigest { events: 4, ..before };
    assert_eq!(drop_with(store, &fence, same_count).await, DayDropped::Changed);
    assert_eq!(events_of(store, &own, the_day()).await.len(), 4);
    assert_eq!(drop_day(store, &fence).await, DayDropped::Dropped);
    assert_eq!(drop_day(store, &fence).await, DayDropped::Gone);
}

/// Clauses 4 and 5: the sums are what they were, and what comes late is refused by name and counted by nobody.
pub async fn a_dropped_day_keeps_its_sums_and_is_closed(store: &(impl Store + UpkeepStore)) {
    let own = tenant("acme");
    let mut batch = events(&own, 5);
    batch.push(with_key(event(&own, the_day().start()), "k-1"));
    batch.push(event(&own, the_day().end()));
    keep_new(store, &batch).await;
    let before = sums(store, &own).await;
    let fence = granted(store, &claim("archive", 0, noon())).await;
    assert_eq!(drop_day(store, &fence).await, DayDropped::Dropped);
    assert_eq!(sums(store, &own).await, before);
    fold(store).await;
    assert_eq!(sums(store, &own).await, before);
    assert_eq!(events_of(store, &own, the_day()).await, []);
    for late in [batch[0].clone(), event(&own, the_day().start())] {
        let refused = store.append(&[event(&own, noon()), late], &[]).await;
        let error = refused.err().map(|error| (error.kind(), error.field().map(str::to_owned)));
        assert_eq!(error, Some((ErrorKind::InvalidInput, Some("occurred_at".to_owned()))));
    }
    assert_eq!(sums(store, &own).await, before);
    let days = must("days", store.days(DayTable::Usage).await);
    assert!(!days.contains(&first_of_march()));
    assert_eq!(must("make days", store.make_days(DayTable::Usage, &[first_of_march()]).await), 0);
    let closed = must("closed days", store.closed_days(DayTable::Usage).await);
    assert_eq!(closed.len(), 1);
    assert_eq!((closed[0].day, closed[0].digest.events, closed[0].is_restored), (first_of_march(), 6, false));
    // A key is forgotten with its event: today it is free.
    keep_new(store, &[with_key(event(&own, noon()), "k-1")]).await;
}

/// Clause 5: what has no events any more is not taken for drift, and no repair takes it away.
pub async fn a_dropped_day_is_not_reconciled_away(store: &(impl Store + UpkeepStore)) {
    let own = tenant("acme");
    keep_new(store, &events(&own, 5)).await;
    keep_new(store, &[event(&own, the_day().end())]).await;
    fold(store).await;
    let before = sums(store, &own).await;
    let fence = granted(store, &claim("archive", 0, noon())).await;
    assert_eq!(drop_day(store, &fence).await, DayDropped::Dropped);
    let march = between(the_day().start(), at("2026-04-01T00:00:00Z"));
    let report = must("reconcile", store.reconcile(&own, march, Reconcile::Repair).await);
    assert!(report.drifts_total == 0 && report.unverifiable_total > 0, "{report:?}");
    must("aggregate", store.aggregate(march).await);
    assert_eq!(sums(store, &own).await, before);
}

/// Every event is back, each counted once, and a repetition is one again.
pub async fn a_restored_day_is_as_it_was(store: &(impl Store + UpkeepStore)) {
    let own = tenant("acme");
    let mut batch = events(&own, 5);
    batch.push(with_key(event(&own, the_day().start()), "k-1"));
    keep_new(store, &batch).await;
    fold(store).await;
    let (before, kept) = (sums(store, &own).await, events_of(store, &own, the_day()).await);
    let fence = granted(store, &claim("archive", 0, noon())).await;
    let until = noon() + TimeDelta::days(7);
    let open = async || must("open", store.open_day(&fence, first_of_march(), until).await);
    assert_eq!(open().await, DayOpened::Open);
    assert_eq!(drop_day(store, &fence).await, DayDropped::Dropped);
    must("stage", store.stage_events(&batch[..4]).await);
    assert_eq!(open().await, DayOpened::Changed);
    assert_eq!(events_of(store, &own, the_day()).await, [], "what is staged is not seen");
    must("stage", store.stage_events(&batch[2..]).await);
    must("unstage", store.unstage_day(first_of_march()).await);
    assert_eq!(open().await, DayOpened::Changed);
    must("stage", store.stage_events(&batch[..4]).await);
    must("stage", store.stage_events(&batch[2..]).await);
    assert_eq!(open().await, DayOpened::Opened);
    assert_eq!(open().await, DayOpened::Open);
    assert_eq!(events_of(store, &own, the_day()).await, kept);
    let again = must("append", store.append(&batch, &[]).await);
    assert!(again.iter().all(|appended| *appended == crate::store::Appended::Duplicate), "{again:?}");
    assert_eq!(sums(store, &own).await, before);
    let report = must("reconcile", store.reconcile(&own, the_day(), Reconcile::Repair).await);
    assert!(report.is_clean() && report.unverifiable_total == 0, "{report:?}");
    let closed = must("closed days", store.closed_days(DayTable::Usage).await);
    assert_eq!((closed[0].is_restored, closed[0].kept_until), (true, Some(until)));
    keep_new(store, &[event(&own, the_day().start())]).await;
    assert_eq!(drop_day(store, &fence).await, DayDropped::Dropped);
}

/// Clause 6.
pub async fn a_hold_keeps_usage(store: &(impl Store + UpkeepStore)) {
    let (held, free) = (tenant("acme"), tenant("bolt"));
    let reason = label("case 71");
    keep_new(store, &events(&held, 3)).await;
    keep_new(store, &events(&free, 3)).await;
    must("hold", store.set_usage_hold(&held, Some(&reason)).await);
    assert_eq!(must("holds", store.usage_holds().await), [(held.clone(), reason)]);
    let fence = granted(store, &claim("archive", 0, noon())).await;
    assert_eq!(drop_day(store, &fence).await, DayDropped::Held);
    let everything = KeepFrom { instant: noon(), by_plan: Vec::new() };
    assert_eq!(must("prune", store.prune(&Prune::Events(everything), 100).await), 3);
    let erased = store.erase_usage(&held).await.err().map(|error| error.kind());
    assert_eq!(erased, Some(ErrorKind::Conflict));
    assert_eq!(events_of(store, &held, the_day()).await.len(), 3);
    assert_eq!(events_of(store, &free, the_day()).await, []);
    must("release", store.set_usage_hold(&held, None).await);
    assert_eq!(drop_day(store, &fence).await, DayDropped::Dropped);
}

/// Clause 5: and they are not taken for drift afterwards.
pub async fn events_are_pruned_by_plan(store: &(impl Store + UpkeepStore)) {
    let (trial, paid, none) = (tenant("acme"), tenant("bolt"), tenant("corp"));
    for (own, plan) in [(&trial, Some("trial")), (&paid, Some("paid")), (&none, None)] {
        let plan = plan.map(label);
        must("set plan", store.set_plan(own, plan.as_ref(), noon()).await);
        keep_new(store, &events(own, 4)).await;
        keep_new(store, &[event(own, the_day().end())]).await;
    }
    fold(store).await;
    let before = [sums(store, &trial).await, sums(store, &paid).await, sums(store, &none).await];
    let never = crate::time::TIME_MIN;
    let prune = Prune::Events(KeepFrom {
        instant: never,
        by_plan: vec![(label("trial"), the_day().end()), (label("paid"), never)],
    });
    assert_eq!(must("prune", store.prune(&prune, 3).await), 3, "clause 7: bounded");
    assert_eq!(must("prune", store.prune(&prune, 3).await), 1);
    assert_eq!(must("prune", store.prune(&prune, 3).await), 0);
    let both_days = between(the_day().start(), the_day().end() + TimeDelta::days(1));
    for (own, left) in [(&trial, 1), (&paid, 5), (&none, 5)] {
        assert_eq!(events_of(store, own, both_days).await.len(), left);
        let report = must("reconcile", store.reconcile(own, both_days, Reconcile::Repair).await);
        assert_eq!(report.drifts_total, 0, "{report:?}");
    }
    must("aggregate", store.aggregate(both_days).await);
    let after = [sums(store, &trial).await, sums(store, &paid).await, sums(store, &none).await];
    assert_eq!(after, before);
}

/// Roll-ups go when their events have gone; longer periods stay.
pub async fn roll_ups_of_kept_days_are_not_pruned(store: &(impl Store + UpkeepStore)) {
    let own = tenant("acme");
    keep_new(store, &events(&own, 4)).await;
    fold(store).await;
    let keep = KeepFrom { instant: at("2026-04-02T00:00:00Z"), by_plan: Vec::new() };
    let day = [the_day()];
    let before = must("usage", store.usage(&own, &day).await);
    for period in [Period::QuarterHour, Period::Hour] {
        assert_eq!(must("prune", store.prune(&Prune::Metrics(period, keep.clone()), 100).await), 0);
    }
    let fence = granted(store, &claim("archive", 0, noon())).await;
    assert_eq!(drop_day(store, &fence).await, DayDropped::Dropped);
    for period in [Period::QuarterHour, Period::Hour] {
        must("prune", store.prune(&Prune::Metrics(period, keep.clone()), 100).await);
    }
    assert_eq!(must("usage", store.usage(&own, &day).await), before, "a day is not made of hours any more");
    for period in [Period::Day, Period::Month] {
        must("prune", store.prune(&Prune::Metrics(period, keep.clone()), 100).await);
    }
    let march = [between(the_day().start(), at("2026-04-01T00:00:00Z"))];
    assert_eq!(must("usage", store.usage(&own, &march).await), [UsageMetrics::default()]);
}

/// Clause 5, with part of the events folded and part not.
pub async fn aggregating_anew_changes_nothing(store: &(impl Store + UpkeepStore)) {
    let (one, other) = (tenant("acme"), tenant("bolt"));
    let mut batch = events(&one, 40);
    batch.extend(events(&other, 3));
    batch.push(event(&one, the_day().end()));
    batch.push(event(&one, the_day().end() - TimeDelta::microseconds(1)));
    for (number, event) in (0..).zip(&mut batch) {
        let latency = std::time::Duration::from_micros(number * number * 37);
        event.latency = Some(must("latency", crate::usage::Latency::new(latency)));
    }
    let custom = must("type", crate::EventType::custom("ocr_page"));
    batch[3] = changed(&batch[3], |event| event.event_type = custom);
    batch[4] = changed(&batch[4], |event| {
        event.measures =
            must("measures", crate::Measures::default().with("pages", rust_decimal::Decimal::new(125, 2)));
    });
    keep_new(store, &batch[..20]).await;
    fold(store).await;
    keep_new(store, &batch[20..]).await;
    let before = [sums(store, &one).await, sums(store, &other).await];
    for range in [the_day(), between(at("2026-03-01T07:00:00Z"), at("2026-03-03T00:15:00Z"))] {
        must("aggregate", store.aggregate(range).await);
        assert_eq!([sums(store, &one).await, sums(store, &other).await], before);
        fold(store).await;
        assert_eq!([sums(store, &one).await, sums(store, &other).await], before);
    }
    for own in [&one, &other] {
        let march = between(the_day().start(), at("2026-04-01T00:00:00Z"));
        let report = must("reconcile", store.reconcile(own, march, Reconcile::DryRun).await);
        assert!(report.is_clean(), "{report:?}");
    }
}

/// A late event re-opens its own window, and nothing else.
pub async fn aggregating_anew_mends(store: &(impl Store + UpkeepStore)) {
    let own = tenant("acme");
    keep_new(store, &events(&own, 4)).await;
    must("aggregate", store.aggregate(the_day()).await);
    keep_new(store, &[event(&own, the_day().start() + TimeDelta::hours(9))]).await;
    let hours = must("hours", Period::Hour.ranges(the_day(), Zone::UTC));
    let counted = |usage: Vec<UsageMetrics>| usage.iter().map(|metrics| metrics.calls).collect::<Vec<_>>();
    let mut expected = vec![0; 24];
    (expected[0], expected[9]) = (4, 1);
    assert_eq!(counted(must("usage", store.usage(&own, &hours).await)), expected);
    fold(store).await;
    assert_eq!(counted(must("usage", store.usage(&own, &hours).await)), expected);
    must("aggregate", store.aggregate(the_day()).await);
    assert_eq!(counted(must("usage", store.usage(&own, &hours).await)), expected);
}

/// Everything of the tenant, folded or not, and nothing of anybody else.
pub async fn erasing_leaves_others(store: &(impl Store + UpkeepStore)) {
    let (one, other) = (tenant("acme"), tenant("bolt"));
    for own in [&one, &other] {
        keep_new(store, &events(own, 4)).await;
        keep_new(store, &[with_key(event(own, the_day().end()), "k-1")]).await;
    }
    fold(store).await;
    for own in [&one, &other] {
        keep_new(store, &[event(own, the_day().end())]).await;
    }
    let before = sums(store, &other).await;
    assert!(must("erase", store.erase_usage(&one).await) >= 6);
    fold(store).await;
    assert_eq!(sums(store, &one).await.iter().filter(|metrics| !metrics.is_empty()).count(), 0);
    assert_eq!(sums(store, &other).await, before);
    keep_new(store, &[with_key(event(&one, noon()), "k-1")]).await;
    assert_eq!(must("erase", store.erase_usage(&tenant("nobody")).await), 0);
}
