//! Stores that break one sentence about quotas or reconciling each, and the cases that find them out.

use std::collections::{BTreeSet, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use chrono::{DateTime, Utc};
use futures_util::FutureExt;
use metertrail::quota::{
    AcquireRequest, Drift, Granted, HolderId, LimitKey, Override, Plan, Quota, Reconcile, Reconciliation,
    Returned, Settlement, SliceRequest, Standing, TenantQuotas, Window,
};
use metertrail::store::{Appended, Store};
use metertrail::testing::conformance::{CASES, Case};
use metertrail::testing::delegate_store;
use metertrail::{
    Label, MemoryStore, PageSize, Period, Result, TenantId, TimeRange, UsageEvent, UsageSummary, Zone,
};
use uuid::Uuid;

use super::in_between;

/// The groups of which every case must be failed by a flawed store.
const GROUPS: [&str; 4] = ["quota", "leasing", "assigning", "reconciling"];

flaws! {
    Case:
    a_store_that_grants_past_the_limit: GrantsPastTheLimit =>
        [grants_follow_the_rule, callers_at_once_never_pass_a_limit];
    a_store_whose_callers_do_not_take_turns: GrantsWithoutTurns => [callers_at_once_never_pass_a_limit];
    a_store_that_counts_nothing_in_a_minute: ForgetsMinutes => [recorded_usage_counts_in_its_windows];
    a_store_that_leases_what_is_used: LeasesWhatIsUsed => [usage_without_a_slice_counts];
    a_store_that_leases_what_is_not_recorded_yet: IgnoresUnrecorded => [unrecorded_usage_is_not_granted];
    a_store_that_forgets_settlements: ForgetsSettlements => [
        a_settlement_moves_units_in_one_step,
        settlements_of_a_batch_are_added_up,
        only_new_events_settle,
        expired_slices_are_forfeited_or_reclaimed
    ];
    a_store_that_settles_in_two_steps: SettlesInTwoSteps => [a_settlement_moves_units_in_one_step];
    a_store_that_settles_one_slice_of_a_batch: SettlesTheFirstOnly => [settlements_of_a_batch_are_added_up];
    a_store_that_settles_repetitions: SettlesEveryTime => [only_new_events_settle];
    a_store_that_forgets_lost_grants: ForgetsLostGrants => [lost_grants_are_found];
    a_store_that_counts_a_return_twice: AddsReturns => [units_given_back_count_once];
    a_store_that_ignores_all_or_none: IgnoresAllOrNone => [all_or_none_grants_all_or_none];
    a_store_that_sells_forfeited_units: SellsForfeited => [expired_slices_are_forfeited_or_reclaimed];
    a_store_that_never_reclaims: NeverReclaims => [expired_slices_are_forfeited_or_reclaimed];
    a_store_that_never_renews: NeverRenews => [a_request_renews_slices, holders_are_renewed_together];
    a_store_that_renews_to_earlier: RenewsForAMoment => [holders_are_renewed_together];
    a_store_that_tells_revisions_backwards: TellsRevisionsBackwards => [a_renewal_tells_revisions];
    a_store_that_takes_the_first_return_only: TakesTheFirstReturn =>
        [units_of_several_tenants_are_given_back_together];
    a_store_that_forgets_windows_that_moved: ForgetsMovedWindows => [units_leased_in_an_overlapping_window_count];
    a_store_that_keeps_no_zone: KeepsNoZone => [a_zone_comes_back];
    a_store_that_takes_one_holder_for_another: SharesHolders => [slices_are_separate];
    a_store_that_takes_one_window_for_another: ConfusesWindows => [slices_are_separate];
    a_store_that_answers_standings_backwards: StandsBackwards => [standings_come_in_order_and_change_nothing];
    a_store_whose_standings_take_units: StandingsTake => [standings_come_in_order_and_change_nothing];
    a_store_that_keeps_a_tenant_on_its_plan: NeverUnassigns => [a_plan_comes_back];
    a_store_whose_revision_stands_still: StandsStill => [a_plan_comes_back, overrides_come_back];
    a_store_that_forgets_reasons: ForgetsReasons => [overrides_come_back];
    a_store_that_keeps_removed_overrides: KeepsOverrides => [overrides_come_back, changes_are_told];
    a_store_that_misses_a_change: MissesAChange => [changes_are_told];
    a_store_that_tells_old_revisions: TellsOldRevisions => [changes_are_told];
    a_store_that_keeps_the_first_plan_of_a_name: KeepsTheFirstPlan => [plans_come_back];
    a_store_that_lists_plans_backwards: ListsBackwards => [plans_come_back];
    a_store_that_finds_what_is_not_there: FindsTooMuch =>
        [what_nobody_touched_has_no_drift, repairs_among_writers_find_and_lose_nothing];
    a_store_that_loses_an_event_in_a_repair: RepairsAway => [what_nobody_touched_has_no_drift];
    a_store_that_finds_nothing: FindsNothing => [more_settled_than_granted_is_found_and_mended];
    a_store_whose_dry_run_mends: MendsInADryRun => [more_settled_than_granted_is_found_and_mended];
    a_store_that_only_says_that_it_mended: MendsNothing => [more_settled_than_granted_is_found_and_mended];
    a_store_that_mends_other_tenants: MendsOthers => [more_settled_than_granted_is_found_and_mended];
    a_store_that_begins_each_page_anew: TurnsNoPage => [tenants_come_a_page_at_a_time];
    a_store_that_lists_tenants_of_other_days: ListsOtherDays => [tenants_come_a_page_at_a_time];
    a_store_that_reconciles_any_range: TakesAnyRange => [ranges_that_cannot_be_reconciled_are_refused];
}

#[test]
fn every_case_is_failed_by_a_store() {
    let cases: BTreeSet<&str> =
        CASES.iter().filter(|case| GROUPS.contains(&case.group())).map(Case::name).collect();
    assert_eq!(FAILED.iter().copied().collect::<BTreeSet<&str>>(), cases);
}

/// It is the flaws that are found, and not the store around them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_a_flaw_passes() {
    for case in CASES.iter().filter(|case| GROUPS.contains(&case.group())) {
        case.run(FlawedStore::new(Flaw::None)).await;
    }
}

/// The memory store with something wrong.
#[derive(Debug)]
struct FlawedStore {
    flaw: Flaw,
    store: MemoryStore,
    returned: Mutex<HashMap<(TenantId, HolderId, LimitKey), u64>>,
    expiries: Mutex<HashMap<HolderId, DateTime<Utc>>>,
    is_hiding: AtomicBool,
}

impl FlawedStore {
    fn new(flaw: Flaw) -> Self {
        Self {
            flaw,
            store: MemoryStore::new(),
            returned: Mutex::default(),
            expiries: Mutex::default(),
            is_hiding: AtomicBool::new(false),
        }
    }

    fn key(&self, key: &LimitKey) -> LimitKey {
        let range = if self.flaw == Flaw::ConfusesWindows { TimeRange::ALL } else { key.range };
        let quota = match self.flaw {
            Flaw::ForgetsMovedWindows => {
                Quota::custom(format!("{} from {}", key.quota, key.range.start().timestamp())).unwrap()
            }
            _ => key.quota.clone(),
        };
        LimitKey { quota, range, ..key.clone() }
    }

    fn holder(&self, holder: HolderId) -> HolderId {
        if self.flaw == Flaw::SharesHolders { HolderId::from_uuid(Uuid::nil()) } else { holder }
    }

    fn used(&self, key: &LimitKey, used: u64) -> u64 {
        if self.flaw == Flaw::ForgetsMinutes && key.window == Window::Minute { 0 } else { used }
    }

    fn slice(&self, slice: &SliceRequest, standing: &Standing) -> SliceRequest {
        let mut slice = SliceRequest { key: self.key(&slice.key), ..slice.clone() };
        match self.flaw {
            Flaw::GrantsPastTheLimit => slice.allowed = slice.allowed.saturating_mul(2),
            Flaw::IgnoresUnrecorded => slice.unrecorded = 0,
            Flaw::LeasesWhatIsUsed => slice.allowed += standing.used,
            Flaw::ForgetsLostGrants => slice.known_granted = u64::MAX,
            Flaw::GrantsWithoutTurns => {
                let granted = standing.grant(&slice);
                (slice.allowed, slice.known_granted) = (u64::MAX, u64::MAX);
                (slice.need, slice.want) = (granted, granted);
            }
            _ => {}
        }
        slice
    }

    /// Gives units back without a holder's having said so.
    async fn free(&self, tenant_id: &TenantId, settlement: &Settlement) -> Result<()> {
        let sum = {
            let mut returned = self.returned.lock().unwrap_or_else(PoisonError::into_inner);
            let place = (tenant_id.clone(), settlement.holder, settlement.key.clone());
            let sum = returned.entry(place).or_default();
            *sum += settlement.amount;
            *sum
        };
        let (holder, key) = (settlement.holder, settlement.key.clone());
        self.store.give_back(&[Returned { tenant_id: tenant_id.clone(), holder, key, total: sum }]).await
    }
}

#[async_trait::async_trait]
impl Store for FlawedStore {
    async fn append(&self, batch: &[UsageEvent], settlements: &[Settlement]) -> Result<Vec<Appended>> {
        match self.flaw {
            Flaw::ForgetsSettlements => self.store.append(batch, &[]).await,
            Flaw::SettlesTheFirstOnly => {
                self.store.append(batch, settlements.get(..1).unwrap_or_default()).await
            }
            Flaw::SettlesInTwoSteps => {
                for settlement in settlements {
                    self.free(&batch[settlement.event].tenant_id, settlement).await?;
                }
                in_between().await;
                self.store.append(batch, &[]).await
            }
            Flaw::SettlesEveryTime => {
                let appended = self.store.append(batch, settlements).await?;
                for settlement in settlements.iter().filter(|own| appended[own.event] != Appended::New) {
                    self.free(&batch[settlement.event].tenant_id, settlement).await?;
                }
                Ok(appended)
            }
            _ => self.store.append(batch, settlements).await,
        }
    }

    async fn acquire(&self, request: &AcquireRequest) -> Result<Vec<Granted>> {
        let mut request = AcquireRequest { holder: self.holder(request.holder), ..request.clone() };
        let keys: Vec<LimitKey> = request.slices.iter().map(|slice| self.key(&slice.key)).collect();
        let seen = self.store.standing(&request.tenant_id, request.holder, &keys, request.now).await?;
        if self.flaw == Flaw::GrantsWithoutTurns {
            in_between().await;
        }
        let slices = request.slices.iter().zip(&seen);
        request.slices = slices.map(|(slice, standing)| self.slice(slice, standing)).collect();
        match self.flaw {
            Flaw::IgnoresAllOrNone => request.all_or_none = false,
            Flaw::SellsForfeited => request.reclaim = true,
            Flaw::NeverReclaims => request.reclaim = false,
            Flaw::NeverRenews => {
                let mut expiries = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
                request.expires_at = *expiries.entry(request.holder).or_insert(request.expires_at);
            }
            _ => {}
        }
        let mut granted = self.store.acquire(&request).await?;
        for (answer, slice) in granted.iter_mut().zip(&request.slices) {
            answer.standing.used = self.used(&slice.key, answer.standing.used);
        }
        Ok(granted)
    }

    async fn give_back(&self, returned: &[Returned]) -> Result<()> {
        if self.flaw == Flaw::AddsReturns {
            for Returned { tenant_id, holder, key, total } in returned {
                let told = Settlement { event: 0, holder: *holder, key: key.clone(), amount: *total };
                self.free(tenant_id, &told).await?;
            }
            return Ok(());
        }
        let flawed = |told: &Returned| Returned {
            key: self.key(&told.key),
            holder: self.holder(told.holder),
            ..told.clone()
        };
        let taken = if self.flaw == Flaw::TakesTheFirstReturn { 1 } else { returned.len() };
        let returned: Vec<Returned> = returned.iter().take(taken).map(flawed).collect();
        self.store.give_back(&returned).await
    }

    async fn renew(&self, held: &[(TenantId, HolderId)], expires_at: DateTime<Utc>) -> Result<Vec<u64>> {
        let expires_at = match self.flaw {
            Flaw::NeverRenews => DateTime::<Utc>::MIN_UTC,
            Flaw::RenewsForAMoment => expires_at - chrono::TimeDelta::seconds(40),
            _ => expires_at,
        };
        let mut revisions = self.store.renew(held, expires_at).await?;
        if self.flaw == Flaw::TellsRevisionsBackwards {
            revisions.reverse();
        }
        Ok(revisions)
    }

    async fn set_zone(&self, tenant_id: &TenantId, zone: Option<Zone>, now: DateTime<Utc>) -> Result<()> {
        let zone = zone.filter(|_| self.flaw != Flaw::KeepsNoZone);
        self.store.set_zone(tenant_id, zone, now).await
    }

    async fn standing(
        &self,
        tenant_id: &TenantId,
        holder: HolderId,
        keys: &[LimitKey],
        now: DateTime<Utc>,
    ) -> Result<Vec<Standing>> {
        let (holder, keys) = (self.holder(holder), keys.iter().map(|key| self.key(key)).collect::<Vec<_>>());
        let mut standings = self.store.standing(tenant_id, holder, &keys, now).await?;
        for (standing, key) in standings.iter_mut().zip(&keys) {
            standing.used = self.used(key, standing.used);
        }
        match self.flaw {
            Flaw::StandsBackwards => standings.reverse(),
            Flaw::StandingsTake => {
                for key in &keys {
                    let told = Settlement { event: 0, holder, key: key.clone(), amount: 1 };
                    self.free(tenant_id, &told).await?;
                }
            }
            _ => {}
        }
        Ok(standings)
    }

    async fn tenant_quotas(&self, tenant_id: &TenantId) -> Result<TenantQuotas> {
        let mut quotas = self.store.tenant_quotas(tenant_id).await?;
        if self.flaw == Flaw::StandsStill {
            quotas.revision = quotas.revision.min(1);
        }
        Ok(quotas)
    }

    async fn put_plan(&self, plan: &Plan) -> Result<()> {
        let is_there = self.store.plans().await?.iter().any(|kept| kept.name() == plan.name());
        if self.flaw == Flaw::KeepsTheFirstPlan && is_there {
            return Ok(());
        }
        self.store.put_plan(plan).await
    }

    async fn plans(&self) -> Result<Vec<Plan>> {
        let mut plans = self.store.plans().await?;
        if self.flaw == Flaw::ListsBackwards {
            plans.reverse();
        }
        Ok(plans)
    }

    async fn set_plan(&self, tenant_id: &TenantId, plan: Option<&Label>, now: DateTime<Utc>) -> Result<()> {
        if self.flaw == Flaw::NeverUnassigns && plan.is_none() {
            return Ok(());
        }
        self.store.set_plan(tenant_id, plan, now).await
    }

    async fn put_override(&self, tenant_id: &TenantId, own: &Override, now: DateTime<Utc>) -> Result<()> {
        let mut own = own.clone();
        if self.flaw == Flaw::ForgetsReasons {
            own.reason = None;
        }
        self.store.put_override(tenant_id, &own, now).await
    }

    async fn remove_override(
        &self,
        tenant_id: &TenantId,
        quota: &Quota,
        window: Window,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        if self.flaw == Flaw::KeepsOverrides {
            return Ok(true);
        }
        self.store.remove_override(tenant_id, quota, window, now).await
    }

    async fn quota_changes(&self, since: DateTime<Utc>) -> Result<Vec<(TenantId, u64)>> {
        let mut changes = self.store.quota_changes(since).await?;
        match self.flaw {
            Flaw::MissesAChange => drop(changes.pop()),
            Flaw::TellsOldRevisions => changes.iter_mut().for_each(|(_, revision)| *revision -= 1),
            _ => {}
        }
        Ok(changes)
    }

    async fn reconcile(
        &self,
        tenant_id: &TenantId,
        range: TimeRange,
        mode: Reconcile,
    ) -> Result<Reconciliation> {
        let done = match self.flaw {
            Flaw::MendsInADryRun => Reconcile::Repair,
            Flaw::MendsNothing => Reconcile::DryRun,
            _ => mode,
        };
        let taken = if self.flaw == Flaw::TakesAnyRange {
            Period::QuarterHour.range_at(range.start(), Zone::UTC)
        } else {
            range
        };
        let mut report = self.store.reconcile(tenant_id, taken, done).await?;
        (report.range, report.mode) = (range, mode);
        match self.flaw {
            Flaw::FindsTooMuch => report.note(Drift::Unreadable {
                period: Period::Day,
                start: range.start(),
                reason: "the moon".to_owned(),
            }),
            Flaw::RepairsAway if mode == Reconcile::Repair => {
                self.is_hiding.store(true, Ordering::Relaxed);
            }
            Flaw::FindsNothing => report = Reconciliation::new(tenant_id.clone(), range, mode),
            Flaw::MendsOthers => {
                for other in self.store.tenants(range, None, PageSize::default()).await? {
                    self.store.reconcile(&other, range, mode).await?;
                }
            }
            _ => {}
        }
        Ok(report)
    }

    async fn tenants(
        &self,
        range: TimeRange,
        after: Option<&TenantId>,
        page_size: PageSize,
    ) -> Result<Vec<TenantId>> {
        let after = after.filter(|_| self.flaw != Flaw::TurnsNoPage);
        let range = match self.flaw {
            Flaw::ListsOtherDays => TimeRange::ALL,
            Flaw::TakesAnyRange => Period::QuarterHour.range_at(range.start(), Zone::UTC),
            _ => range,
        };
        self.store.tenants(range, after, page_size).await
    }

    async fn summary(&self, range: TimeRange) -> Result<UsageSummary> {
        let mut summary = self.store.summary(range).await?;
        summary.calls -= u64::from(self.is_hiding.load(Ordering::Relaxed));
        Ok(summary)
    }

    delegate_store!(|flawed| flawed.store, except append, acquire, give_back, renew, standing, tenant_quotas, put_plan,
        plans, set_plan, set_zone, put_override, remove_override, quota_changes, reconcile, tenants, summary);
}
