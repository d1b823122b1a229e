//! Changes of quotas and repairs of usage name who made them, whatever fails in between.

use metertrail::audit::{AuditContext, AuditResult};
use metertrail::quota::{
    Allowed, Catalogue, Limit, Override, Plan, Quota, QuotaEnforcer, Reconcile, WhenUnavailable, Window,
};
use metertrail::testing::{Fault, FaultyStore, Method};
use metertrail::{ErrorKind, EventType, Outcome, PageSize, Period, Store, UsageEvent, UsageTracker, Zone};
use serde_json::{Map, Value, json};

use super::*;

on_both_stores! {
    every_change_is_recorded_with_its_values,
    plans_are_recorded_in_the_trail_of_the_host,
    nothing_is_changed_if_the_trail_cannot_be_written,
    a_change_that_failed_is_recorded_as_failed,
    a_change_stands_though_the_trail_does_not_confirm_it,
    what_is_refused_is_not_asked_for,
}

struct Office {
    store: FaultyStore,
    trail: FaultyStore<dyn AuditStore>,
    quotas: QuotaEnforcer,
    log: AuditLog,
}

fn office(bed: &Bed) -> Office {
    let store: Arc<dyn Store> = match (&bed.memory, &bed.database) {
        (Some(memory), _) => Arc::<MemoryStore>::clone(memory),
        (None, database) => Arc::new(ledger::store(database.as_ref().unwrap().url())),
    };
    let (store, trail) = (FaultyStore::from_arc(store), FaultyStore::from_arc(Arc::clone(&bed.store)));
    let quotas =
        QuotaEnforcer::builder(store.clone(), catalogue(2_000)).clock(bed.clock.clone()).start().unwrap();
    let builder = AuditLog::builder(trail.clone()).clock(bed.clock.clone()).keys(keys());
    let log = builder.seal_interval(None).start().unwrap();
    Office { store, trail, quotas, log }
}

fn tokens(amount: u64) -> Limit {
    Limit::hard(Quota::Tokens, Window::Day, amount, WhenUnavailable::Deny).unwrap()
}

fn catalogue(amount: u64) -> Catalogue {
    let free = Plan::new("free", [tokens(amount)]).unwrap();
    Catalogue::new(free).with(Plan::new("pro", [tokens(90_000)]).unwrap()).unwrap()
}

fn own(allowed: Allowed) -> Override {
    let (quota, window) = (Quota::Tokens, Window::Day);
    Override { quota, window, allowed, expires_at: None, reason: Some(label("ticket 4711")) }
}

impl Office {
    fn admin(&self) -> metertrail::audited::Audited<QuotaEnforcer> {
        self.quotas.audited(&self.log, ada())
    }

    /// The trail of a tenant, the oldest first.
    async fn trail(&self, name: &str) -> Vec<AuditEvent> {
        let mut trail = self.log.tenant_audit_trail(&tenant(name), 1).await.unwrap();
        trail.reverse();
        trail
    }

    /// What became of the changes, each behind a request of its own.
    async fn changes(&self, bed: &Bed, name: &str) -> Vec<(String, Map<String, Value>)> {
        let trail = self.trail(name).await;
        let mut changes = Vec::new();
        for event in &trail {
            assert_eq!(event.actor, ada());
            let fields = event.metadata.as_map().unwrap().clone();
            if event.event_type.as_str() == "admin.change_requested" {
                continue;
            }
            let is_asked = |other: &&AuditEvent| {
                let requested = other.metadata.as_map().unwrap();
                other.context.request_id == event.context.request_id
                    && requested.get("change") == Some(&json!(event.event_type.as_str()))
                    && other.target == event.target
                    && other.occurred_at() <= event.occurred_at()
            };
            assert!(trail.iter().any(|other| is_asked(&other)), "nobody asked for {event:?}");
            changes.push((event.event_type.as_str().to_owned(), fields));
        }
        assert_eq!(trail.len(), 2 * changes.len(), "a request without an end");
        self.log.seal_epoch().await.unwrap();
        assert!(bed.verified().await.is_clean());
        changes
    }
}

async fn every_change_is_recorded_with_its_values(bed: Bed) {
    let office = office(&bed);
    let (acme, admin) = (tenant("acme"), office.admin());
    // Ids are those of the clock: each change has a time of its own.
    let tick = || bed.clock.advance(Duration::from_millis(2));
    admin.set_custom_quota(&acme, &own(Allowed::AtMost(50_000))).await.unwrap();
    tick();
    let expiring = Override {
        allowed: Allowed::Unlimited,
        expires_at: Some(noon() + TimeDelta::hours(1)),
        reason: None,
        ..own(Allowed::Unlimited)
    };
    let with_reason = admin.clone().reason(label("a big customer"));
    with_reason.set_custom_quota(&acme, &expiring).await.unwrap();
    tick();
    assert!(admin.remove_custom_quota(&acme, &Quota::Tokens, Window::Day).await.unwrap());
    tick();
    admin.assign_plan(&acme, Some("pro")).await.unwrap();
    tick();
    let context = AuditContext::new().request_id("r-7").unwrap();
    admin.clone().context(context).set_zone(&acme, Some(Zone::new("Europe/Berlin").unwrap())).await.unwrap();
    tick();
    assert!(!admin.remove_custom_quota(&acme, &Quota::Tokens, Window::Day).await.unwrap());

    let changes = office.changes(&bed, "acme").await;
    let quota = |fields: Value| {
        let mut all = json!({"quota": "tokens", "window": "day"});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        ("config.quota_changed".to_owned(), all)
    };
    let expected = [
        quota(json!({
            "from_amount": 2_000, "from_source": "plan:free", "to_amount": 50_000, "to_source": "override",
            "reason": "ticket 4711",
        })),
        quota(json!({
            "from_amount": 50_000, "from_source": "override", "to_source": "override",
            "expires_at": "2026-03-01T13:00:30+00:00", "reason": "a big customer",
        })),
        quota(json!({"from_source": "override", "to_amount": 2_000, "to_source": "plan:free"})),
        ("config.plan_changed".to_owned(), json!({"to_plan": "pro"})),
        ("config.zone_changed".to_owned(), json!({"to_zone": "Europe/Berlin"})),
        quota(json!({
            "from_amount": 90_000, "from_source": "plan:pro", "to_amount": 90_000, "to_source": "plan:pro",
        })),
    ];
    let changes: Vec<_> = changes.into_iter().map(|(name, fields)| (name, Value::Object(fields))).collect();
    assert_eq!(changes, expected);
    let zone = office.trail("acme").await.into_iter().rfind(|event| event.action.as_str() == "zone_changed");
    assert_eq!(zone.unwrap().context.request_id, Some(label("r-7")));
    // The changes were made, too.
    let status = office.quotas.quota_status(&acme).await.unwrap();
    assert_eq!((status.plan.as_str(), status.limits[0].allowed), ("pro", Allowed::AtMost(90_000)));
}

async fn plans_are_recorded_in_the_trail_of_the_host(bed: Bed) {
    let office = office(&bed);
    let (host, admin) = (tenant("host"), office.admin());
    let tick = || bed.clock.advance(Duration::from_millis(2));
    let pro = |amount| Plan::new("pro", [tokens(amount)]).unwrap();
    for amount in [90_000, 95_000] {
        admin.put_plan(&host, &pro(amount)).await.unwrap();
        tick();
    }
    admin.replace_catalogue(&host, catalogue(2_000)).await.unwrap();
    assert_eq!(office.trail("host").await.len(), 4, "the same catalogue is no change");
    let trial = Plan::new("trial", [tokens(10)]).unwrap();
    admin.replace_catalogue(&host, Catalogue::new(trial).with(pro(95_000)).unwrap()).await.unwrap();
    let mut changes = office.changes(&bed, "host").await;
    let (kept, in_force) = changes.split_at_mut(2);
    let text = |amount: u64| json!([format!("tokens by day: {amount}, hard, deny when unavailable")]);
    assert_eq!(kept[0].1.get("from_limits"), None);
    assert_eq!(kept[0].1["to_limits"], text(90_000));
    assert_eq!((&kept[1].1["from_limits"], &kept[1].1["to_limits"]), (&text(90_000), &text(95_000)));
    assert!(kept.iter().all(|(_, fields)| fields["is_in_force"] == json!(false)));
    in_force.sort_by_key(|(name, fields)| (name.clone(), json!(fields).to_string()));
    let replaced = |fields: Value| ("config.plan_replaced".to_owned(), fields.as_object().unwrap().clone());
    let default = json!({"from_plan": "free", "to_plan": "trial"});
    assert_eq!(in_force[0], ("config.default_plan_changed".to_owned(), default.as_object().unwrap().clone()));
    assert_eq!(
        in_force[1..],
        [
            replaced(json!({"from_limits": text(2_000), "is_in_force": true})),
            replaced(json!({"from_limits": text(90_000), "is_in_force": true, "to_limits": text(95_000)})),
            replaced(json!({"is_in_force": true, "to_limits": text(10)})),
        ]
    );
    assert_eq!(office.store.plans().await.unwrap(), [pro(95_000)]);
    let status = office.quotas.quota_status(&tenant("acme")).await.unwrap();
    assert_eq!((status.plan.as_str(), status.limits[0].allowed), ("trial", Allowed::AtMost(10)));
}

async fn nothing_is_changed_if_the_trail_cannot_be_written(bed: Bed) {
    let office = office(&bed);
    let (acme, admin) = (tenant("acme"), office.admin().within(Duration::from_millis(50)));
    office.trail.always(Method::AppendAudit, Fault::unavailable());
    let error = admin.set_custom_quota(&acme, &own(Allowed::AtMost(7))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("nothing was changed"), "{error}");
    assert!(office.quotas.custom_quotas(&acme).await.unwrap().is_empty());
    office.trail.heal();
    assert!(office.log.shutdown(MINUTE).await.unwrap().unwritten.is_empty());
    let error = admin.assign_plan(&acme, Some("pro")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ShutDown, "a log that is shut down records nothing");
    assert_eq!(office.store.tenant_quotas(&acme).await.unwrap().plan, None);
    let trail = office.trail("acme").await;
    assert_eq!(trail.len(), 1, "what was asked for, and no end");
    assert_eq!(trail[0].event_type.as_str(), "admin.change_requested");
}

async fn a_change_that_failed_is_recorded_as_failed(bed: Bed) {
    let office = office(&bed);
    office.store.script(Method::PutOverride, [Fault::schema()]);
    let error = office.admin().set_custom_quota(&tenant("acme"), &own(Allowed::AtMost(7))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Schema, "the change's own error");
    let failed = office.log.failed_operations(&tenant("acme"), 1).await.unwrap();
    assert_eq!(failed.len(), 1);
    assert_eq!(
        (failed[0].event_type.as_str(), failed[0].result),
        ("config.quota_changed", AuditResult::Failure)
    );
    assert!(failed[0].error_message.as_ref().unwrap().as_str().contains("injected"));
    assert_eq!(office.changes(&bed, "acme").await.len(), 1);
}

async fn a_change_stands_though_the_trail_does_not_confirm_it(bed: Bed) {
    let office = office(&bed);
    let (acme, admin) = (tenant("acme"), office.admin().within(Duration::from_secs(1)));
    office.trail.script(Method::AppendAudit, [Fault::None]);
    office.trail.always(Method::AppendAudit, Fault::unavailable());
    let error = admin.set_custom_quota(&acme, &own(Allowed::AtMost(7))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unaudited);
    assert!(std::error::Error::source(&error).is_some() && !error.is_transient(), "{error:?}");
    assert_eq!(office.quotas.custom_quotas(&acme).await.unwrap(), [own(Allowed::AtMost(7))]);
    let trail = office.trail("acme").await;
    let asked = trail[0].metadata.as_map().unwrap();
    assert_eq!((trail.len(), &asked["change"]), (1, &json!("config.quota_changed")));
    assert!(asked["details"].as_array().unwrap().contains(&json!("to_amount=7")), "{asked:?}");
    // The event is not lost: it is written as soon as that is possible.
    office.trail.heal();
    assert!(office.log.shutdown(MINUTE).await.unwrap().unwritten.is_empty());
    let changes = office.changes(&bed, "acme").await;
    assert_eq!((changes.len(), &changes[0].1["to_amount"]), (1, &json!(7)));
}

async fn what_is_refused_is_not_asked_for(bed: Bed) {
    let office = office(&bed);
    let (acme, admin) = (tenant("acme"), office.admin());
    let error = admin.assign_plan(&acme, Some("gold")).await.unwrap_err();
    assert_eq!(error.field(), Some("plan"));
    let error = admin.set_custom_quota(&acme, &own(Allowed::AtMost(u64::MAX))).await.unwrap_err();
    assert_eq!(error.field(), Some("limit"));
    assert!(office.trail("acme").await.is_empty());
}

/// A row that no event stands behind is found, told and mended; a dry run only finds it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_says_what_it_mended() {
    let bed = Bed::postgres().await;
    let office = office(&bed);
    let url = bed.database.as_ref().unwrap().url();
    let (acme, now) = (tenant("acme"), noon());
    for name in ["acme", "bolt"] {
        let event = UsageEvent::new(tenant(name), EventType::Search, Outcome::Success, now).unwrap();
        office.store.append(&[event], &[]).await.unwrap();
    }
    ledger::roll_up_all(&office.store).await;
    let hand = ledger::client(url).await;
    hand.batch_execute(
        "UPDATE metertrail.tenant_usage_metrics SET api_calls_total = api_calls_total + 4
        WHERE tenant_id = 'acme' AND period_type = 'daily'",
    )
    .await
    .unwrap();
    let tracker = UsageTracker::builder(office.store.clone()).clock(bed.clock.clone()).start().unwrap();
    let admin = tracker.audited(&office.log, ada()).reason(label("the nightly check"));
    let day = Period::Day.range_at(now, Zone::UTC);
    let found = admin.reconcile(&acme, day, Reconcile::DryRun).await.unwrap();
    assert!(found.drifts_total > 0 && office.trail("acme").await.is_empty(), "{found:?}");
    let page = admin.reconcile_page(day, Reconcile::Repair, None, PageSize::new(5).unwrap()).await.unwrap();
    assert_eq!((page.reports.len(), page.next), (2, None));
    assert_eq!(page.reports[0].drifts, found.drifts);
    assert!(tracker.reconcile(&acme, day, Reconcile::DryRun).await.unwrap().is_clean());
    let changes = office.changes(&bed, "acme").await;
    let fields = &changes[0].1;
    assert_eq!((changes.len(), changes[0].0.as_str()), (1, "admin.usage_reconciled"));
    assert_eq!(fields["drifts_total"], json!(found.drifts_total));
    let told: Vec<Value> = fields["drifts"].as_array().unwrap().iter().map(parsed).collect();
    assert_eq!(json!(told), json!(found.drifts));
    assert_eq!(
        (&fields["range_start"], &fields["reason"]),
        (&json!("2026-03-01T00:00:00+00:00"), &json!("the nightly check"))
    );
    assert_eq!(office.changes(&bed, "bolt").await[0].1["drifts_total"], json!(0));
    // A repair that fails says so, and not what it found.
    office.store.script(Method::Reconcile, [Fault::unavailable()]);
    admin.reconcile(&acme, day, Reconcile::Repair).await.unwrap_err();
    let failed = office.log.failed_operations(&acme, 1).await.unwrap();
    assert_eq!((failed.len(), failed[0].metadata.as_map().unwrap().get("periods")), (1, None));
}

fn parsed(text: &Value) -> Value {
    serde_json::from_str(text.as_str().unwrap()).unwrap()
}
