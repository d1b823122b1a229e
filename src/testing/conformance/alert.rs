//! The contract of [`AlertStore`] as cases. Each takes an **empty** store; [`all`] runs them one after the other. Those about
//! checks also append usage, so the store is a [`Store`] too.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::checks::{checks_find_what_the_events_say, limits_are_the_tenants_own_else_the_plans};
use crate::TenantId;
use crate::alert::{
    Attempted, Change, Incident, IncidentId, IncidentQuery, IncidentState, Notification, NotificationKind,
    Severity, Silence,
};
use crate::page::PageSize;
use crate::store::{AlertStore, OpenIncidents, Store};
use crate::text::Label;
use crate::time::TIME_MIN;

/// Runs every case, each on a store of its own.
pub async fn all<S: AlertStore + Store>(mut empty_store: impl AsyncFnMut() -> S) {
    one_incident_is_open(Arc::new(empty_store().await)).await;
    a_change_needs_its_revision(&empty_store().await).await;
    turns_are_taken_once(Arc::new(empty_store().await)).await;
    a_turn_that_is_over_changes_nothing(&empty_store().await).await;
    a_notification_is_claimed_once(Arc::new(empty_store().await)).await;
    a_lease_that_has_ended_is_taken_over(&empty_store().await).await;
    the_end_is_told_after_the_beginning(&empty_store().await).await;
    reminders_end_with_the_incident(&empty_store().await).await;
    dead_letters_are_driven_again(&empty_store().await).await;
    incidents_are_paged(&empty_store().await).await;
    the_first_acknowledgement_stays(&empty_store().await).await;
    silences_are_kept_until_they_end(&empty_store().await).await;
    old_incidents_are_forgotten(&empty_store().await).await;
    checks_find_what_the_events_say(&empty_store().await).await;
    limits_are_the_tenants_own_else_the_plans(&empty_store().await).await;
}

pub(super) fn ok<T>(result: crate::Result<T>) -> T {
    result.unwrap_or_else(|error| panic!("{error:?}"))
}

pub(super) fn tenant(name: &str) -> TenantId {
    ok(TenantId::new(name))
}

pub(super) fn label(text: &str) -> Label {
    ok(Label::new("label", text))
}

/// So many seconds after the start of a day.
pub(super) fn at(second: i64) -> DateTime<Utc> {
    TIME_MIN + TimeDelta::days(9_000) + TimeDelta::seconds(second)
}

fn firing(name: Option<&str>, rule: &str, second: i64) -> Incident {
    let measured = (Decimal::new(725, 2), Decimal::from(5), label("percent"));
    let tenant_id = name.map(tenant);
    let mut incident = Incident::opened(
        tenant_id,
        label(rule),
        Some(label("of it")),
        Severity::Warning,
        measured,
        at(second),
    );
    incident.state = IncidentState::Firing;
    incident.fired_at = Some(at(second));
    incident.notified_at = Some(at(second));
    incident
}

fn sink() -> Label {
    label("pager")
}

async fn open(store: &impl AlertStore, incident: &Incident) {
    let change = Change::open(incident.clone()).notify(vec![sink()]);
    assert_eq!(ok(store.change_incidents(None, &[change], incident.opened_at).await), [true]);
}

async fn resolve(store: &impl AlertStore, incident: &Incident, second: i64) {
    let change = Change::resolve(incident.clone(), at(second)).notify(vec![sink()]);
    assert_eq!(ok(store.change_incidents(None, &[change], at(second)).await), [true]);
}

async fn claim(store: &impl AlertStore, claim_id: Uuid, second: i64) -> Vec<Notification> {
    ok(store.claim_notifications(&[sink()], claim_id, at(second), at(second + 60), 100).await)
}

async fn settle(store: &impl AlertStore, of: &Notification, claim_id: Uuid, attempted: &Attempted) -> bool {
    ok(store.settle_notification(&of.key, claim_id, attempted, at(9)).await)
}

const DELIVERED: Attempted = Attempted::Delivered { again_at: None };

/// Clause 3: of many that open the same incident one does; and what was kept comes back as it was.
pub async fn one_incident_is_open(store: Arc<impl AlertStore>) {
    let openers = (0..8).map(|second| {
        let store = Arc::clone(&store);
        async move {
            let change = Change::open(firing(Some("acme"), "r", second));
            ok(store.change_incidents(None, &[change], at(second)).await)[0]
        }
    });
    let made = futures_util::future::join_all(openers).await;
    assert_eq!(made.iter().filter(|made| **made).count(), 1);
    open(&*store, &firing(Some("bolt"), "r", 1)).await;
    open(&*store, &firing(None, "r", 1)).await;
    let other = firing(Some("acme"), "other", 2);
    open(&*store, &other).await;
    let kept = ok(store.open_incidents(&OpenIncidents::OfRule(label("other")), None, 10).await);
    assert_eq!(kept, std::slice::from_ref(&other), "as it was");
    resolve(&*store, &other, 3).await;
    assert!(ok(store.open_incidents(&OpenIncidents::OfRule(label("other")), None, 10).await).is_empty());
    open(&*store, &firing(Some("acme"), "other", 4)).await;
    let tenants = ok(store.open_incidents(&OpenIncidents::OfRule(label("r")), None, 10).await);
    let tenants: Vec<_> = tenants.into_iter().map(|incident| incident.tenant_id).collect();
    assert_eq!(tenants, [None, Some(tenant("acme")), Some(tenant("bolt"))], "those of no tenant first");
}

/// Clause 4: a change of an incident that is other than expected is not made, and tells nobody.
pub async fn a_change_needs_its_revision(store: &impl AlertStore) {
    let first = firing(Some("acme"), "r", 1);
    ok(store.change_incidents(None, &[Change::open(first.clone())], at(1)).await);
    let mut next = first.clone();
    next.value = Decimal::from(9);
    let change = Change::update(next);
    assert_eq!(ok(store.change_incidents(None, std::slice::from_ref(&change), at(2)).await), [true]);
    let late = Change::resolve(first.clone(), at(3)).notify(vec![sink()]);
    let both = [late, Change::withdraw(first)];
    assert_eq!(ok(store.change_incidents(None, &both, at(3)).await), [false, false]);
    assert!(claim(store, Uuid::new_v4(), 4).await.is_empty());
    assert_eq!(
        ok(store.change_incidents(None, &[Change::withdraw(change.incident)], at(5)).await),
        [true],
        "as expected"
    );
    assert!(ok(store.incidents(&IncidentQuery::new()).await).items.is_empty());
    let too_many = vec![Change::open(firing(None, "r", 1)); 1_001];
    let refused = store.change_incidents(None, &too_many, at(6)).await.err();
    assert_eq!(refused.as_ref().and_then(|error| error.field()), Some("changes"));
}

/// Of many that begin an evaluation one does, and no other until the interval is over; a clock that runs ahead ends nothing.
pub async fn turns_are_taken_once(store: Arc<impl AlertStore>) {
    let interval = TimeDelta::seconds(60);
    let begin = async |second| ok(store.begin_evaluation("r", at(second), interval).await);
    let first = futures_util::future::join_all((0..8).map(|_| begin(0))).await;
    assert_eq!(first.iter().flatten().count(), 1);
    assert_eq!(begin(59).await, None);
    let second = begin(60).await.map(|turn| turn.generation);
    assert!(second > first.into_iter().flatten().map(|turn| turn.generation).next());
    assert_eq!(begin(50).await, None, "a clock that is a little behind");
    let ahead = begin(86_400).await.map(|turn| turn.generation);
    assert!(ahead > second, "a clock that runs ahead");
    assert!(begin(120).await.map(|turn| turn.generation) > ahead, "and is no hindrance");
    assert!(ok(store.begin_evaluation("other", at(120), interval).await).is_some());
}

/// Clause 4: what an evaluation found is void once a later one has begun.
pub async fn a_turn_that_is_over_changes_nothing(store: &impl AlertStore) {
    let begin = async |second| ok(store.begin_evaluation("r", at(second), TimeDelta::seconds(1)).await);
    let (early, late) = (begin(1).await, begin(2).await);
    let change = |second| [Change::open(firing(Some("acme"), "r", second)).notify(vec![sink()])];
    assert_eq!(ok(store.change_incidents(early.as_ref(), &change(1), at(3)).await), [false]);
    assert!(claim(store, Uuid::new_v4(), 3).await.is_empty());
    assert_eq!(ok(store.change_incidents(late.as_ref(), &change(2), at(3)).await), [true]);
}

/// Clause 5: of many that claim at once each notification has one holder; only for sinks that were named, and when due.
pub async fn a_notification_is_claimed_once(store: Arc<impl AlertStore>) {
    for second in 0..20 {
        open(&*store, &firing(Some(&format!("t-{second}")), "r", second)).await;
    }
    assert!(
        ok(store.claim_notifications(&[label("other")], Uuid::new_v4(), at(30), at(90), 100).await)
            .is_empty()
    );
    assert!(claim(&*store, Uuid::new_v4(), -1).await.is_empty(), "not due");
    let claims = (0..6).map(|_| {
        let store = Arc::clone(&store);
        async move { claim(&*store, Uuid::new_v4(), 30).await }
    });
    let claimed: Vec<Notification> =
        futures_util::future::join_all(claims).await.into_iter().flatten().collect();
    let ids: BTreeSet<Uuid> = claimed.iter().map(Notification::idempotency_id).collect();
    assert_eq!((claimed.len(), ids.len()), (20, 20));
    assert!(claimed.iter().all(|claimed| claimed.attempt == 1 && claimed.kind() == NotificationKind::Firing));
}

/// Clause 5: a lease that has ended is taken over, and whoever held it settles nothing.
pub async fn a_lease_that_has_ended_is_taken_over(store: &impl AlertStore) {
    let incident = firing(Some("acme"), "r", 0);
    open(store, &incident).await;
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    assert_eq!(claim(store, one, 1).await.len(), 1);
    assert!(claim(store, other, 60).await.is_empty());
    let taken = claim(store, other, 61).await;
    assert_eq!((taken[0].attempt, &taken[0].incident), (2, &incident));
    assert!(!settle(store, &taken[0], one, &DELIVERED).await);
    let failed = Attempted::Failed { retry_at: at(100), error: "no".to_owned() };
    assert!(settle(store, &taken[0], other, &failed).await);
    assert!(claim(store, one, 99).await.is_empty());
    let taken = claim(store, one, 100).await;
    assert_eq!(taken[0].attempt, 3);
    assert!(settle(store, &taken[0], one, &DELIVERED).await);
    assert!(!settle(store, &taken[0], one, &DELIVERED).await);
    assert!(claim(store, other, 10_000).await.is_empty());
}

/// Clause 5: the end waits for the beginning, whether that is due or on its way.
pub async fn the_end_is_told_after_the_beginning(store: &impl AlertStore) {
    let incident = firing(Some("acme"), "r", 0);
    open(store, &incident).await;
    resolve(store, &incident, 1).await;
    let id = Uuid::new_v4();
    let taken = claim(store, id, 2).await;
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].kind(), NotificationKind::Firing);
    assert!(claim(store, Uuid::new_v4(), 3).await.is_empty(), "on its way");
    assert!(settle(store, &taken[0], id, &Attempted::Dead { error: "gone".to_owned() }).await);
    let taken = claim(store, id, 4).await;
    assert_eq!((taken.len(), taken[0].kind()), (1, NotificationKind::Resolved));
    assert_eq!(taken[0].incident.resolved_at, Some(at(1)));
}

/// Whoever wants to be reminded is, as long as the incident fires.
pub async fn reminders_end_with_the_incident(store: &impl AlertStore) {
    let incident = firing(None, "r", 0);
    open(store, &incident).await;
    let id = Uuid::new_v4();
    let again = Attempted::Delivered { again_at: Some(at(200)) };
    let taken = claim(store, id, 1).await;
    assert!(settle(store, &taken[0], id, &again).await);
    assert!(claim(store, id, 199).await.is_empty());
    let taken = claim(store, id, 200).await;
    assert_eq!(taken[0].attempt, 1, "attempts are counted anew");
    resolve(store, &incident, 201).await;
    assert!(claim(store, Uuid::new_v4(), 202).await.is_empty(), "the reminder is on its way");
    assert!(settle(store, &taken[0], id, &again).await);
    let taken = claim(store, id, 300).await;
    assert_eq!((taken.len(), taken[0].kind()), (1, NotificationKind::Resolved));
    assert!(settle(store, &taken[0], id, &again).await);
    assert!(claim(store, id, 10_000).await.is_empty(), "the end is told once");
}

/// What was given up is listed in order and is tried anew when somebody says so.
pub async fn dead_letters_are_driven_again(store: &impl AlertStore) {
    for name in [None, Some("acme"), Some("bolt")] {
        open(store, &firing(name, "r", 0)).await;
    }
    let id = Uuid::new_v4();
    for taken in claim(store, id, 1).await {
        assert!(settle(store, &taken, id, &Attempted::Dead { error: "410".to_owned() }).await);
    }
    let dead = ok(store.dead_letters(None, 2).await);
    assert_eq!(
        (dead.len(), &dead[0].key.tenant_id, &dead[1].key.tenant_id),
        (2, &None, &Some(tenant("acme")))
    );
    assert_eq!((dead[1].attempts, dead[1].died_at, dead[1].error.as_str()), (1, at(9), "410"));
    let rest = ok(store.dead_letters(Some(&dead[1].key), 2).await);
    assert_eq!((rest.len(), &rest[0].key.tenant_id), (1, &Some(tenant("bolt"))));
    assert!(ok(store.redrive(&dead[1].key, at(20)).await));
    assert!(!ok(store.redrive(&dead[1].key, at(20)).await));
    let taken = claim(store, id, 20).await;
    assert_eq!((taken.len(), taken[0].attempt, &taken[0].key), (1, 1, &dead[1].key));
}

/// Pages of incidents, newest first, of all or of one tenant, state and rule.
pub async fn incidents_are_paged(store: &impl AlertStore) {
    let mut kept = Vec::new();
    for second in 0..9 {
        let name = [None, Some("acme"), Some("bolt")][usize::try_from(second % 3).unwrap_or(0)];
        let incident = firing(name, &format!("r-{second}"), second);
        open(store, &incident).await;
        kept.push(incident);
    }
    resolve(store, &kept[4], 20).await;
    kept.reverse();
    let mut query = IncidentQuery::new().page_size(ok(PageSize::new(4)));
    let mut seen = Vec::new();
    loop {
        let page = ok(store.incidents(&query).await);
        seen.extend(page.items.into_iter().map(|incident| incident.id));
        let Some(next) = page.next else { break };
        query = query.after(next);
    }
    assert_eq!(seen, kept.iter().map(|incident| incident.id).collect::<Vec<_>>());
    let found = async |query: IncidentQuery| ok(store.incidents(&query).await).items.len();
    assert_eq!(found(IncidentQuery::new().tenant(tenant("acme"))).await, 3);
    let firing = IncidentQuery::new().tenant(tenant("acme")).state(IncidentState::Firing);
    assert_eq!(found(firing).await, 2);
    assert_eq!(found(IncidentQuery::new().state(IncidentState::Resolved)).await, 1);
    assert_eq!(found(IncidentQuery::new().rule(label("r-2"))).await, 1);
    let foreign = store.incidents(&query.rule(label("r-2"))).await.err();
    assert_eq!(foreign.as_ref().and_then(|error| error.field()), Some("cursor"));
    let unseen = ok(store.open_incidents(&OpenIncidents::NotObservedSince(at(5)), None, 3).await);
    assert_eq!(unseen.len(), 3);
    let after = unseen.last().map(|last| (last.tenant_id.as_ref(), last.id));
    let rest = ok(store.open_incidents(&OpenIncidents::NotObservedSince(at(5)), after, 3).await);
    assert_eq!(rest.len(), 1, "four of five: one is resolved");
}

/// Who takes it up first is noted, as long as it is open.
pub async fn the_first_acknowledgement_stays(store: &impl AlertStore) {
    let incident = firing(Some("acme"), "r", 0);
    open(store, &incident).await;
    let acme = tenant("acme");
    let acknowledge = async |by: &str, second| {
        ok(store.acknowledge(Some(&acme), incident.id, &label(by), at(second)).await)
    };
    let taken = acknowledge("ada", 1).await;
    assert_eq!(taken.as_ref().and_then(|taken| taken.acknowledged.as_ref()).map(|by| by.at), Some(at(1)));
    assert_eq!(acknowledge("bob", 2).await, taken);
    let stale = Change::resolve(incident.clone(), at(3));
    assert_eq!(ok(store.change_incidents(None, &[stale], at(3)).await), [false], "it has another revision");
    let foreign = store.acknowledge(Some(&tenant("bolt")), incident.id, &label("eve"), at(4)).await;
    assert_eq!(ok(foreign), None);
    let unknown = store.acknowledge(None, IncidentId::at(at(0)), &label("eve"), at(4)).await;
    assert_eq!(ok(unknown), None);
}

/// Silences come back as they were, until they end or are ended.
pub async fn silences_are_kept_until_they_end(store: &impl AlertStore) {
    let made = |from, to| ok(Silence::new(at(from), at(to), label("moving"), label("ada")));
    let narrow = made(0, 100).tenant(tenant("acme")).rule(label("r"));
    let wide = made(50, 200);
    for silence in [&narrow, &wide] {
        ok(store.put_silence(silence).await);
    }
    assert_eq!(ok(store.silences(at(0)).await), [wide.clone(), narrow.clone()]);
    assert_eq!(ok(store.silences(at(100)).await), std::slice::from_ref(&wide));
    assert!(ok(store.end_silence(wide.id, at(10)).await), "one that is still to come");
    assert!(!ok(store.end_silence(wide.id, at(10)).await));
    assert_eq!(ok(store.silences(at(10)).await), [narrow]);
}

/// Only what was resolved before goes, with its notifications.
pub async fn old_incidents_are_forgotten(store: &impl AlertStore) {
    for (rule, end) in [("old", Some(10)), ("young", Some(100)), ("open", None)] {
        let incident = firing(Some("acme"), rule, 0);
        open(store, &incident).await;
        if let Some(end) = end {
            resolve(store, &incident, end).await;
        }
    }
    assert_eq!(ok(store.forget_incidents(at(50), 10).await), 1);
    assert_eq!(ok(store.forget_incidents(at(50), 10).await), 0);
    let left = ok(store.incidents(&IncidentQuery::new()).await).items;
    let left: BTreeSet<String> = left.into_iter().map(|incident| incident.rule.to_string()).collect();
    assert_eq!(left, BTreeSet::from(["open".to_owned(), "young".to_owned()]));
    assert_eq!(claim(store, Uuid::new_v4(), 200).await.len(), 2);
}
