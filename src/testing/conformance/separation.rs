//! Clause 7: tenants do not meet.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use super::model::Model;
use super::sample::{
    Dice, again, append, append_new, at, event, events, kept, must, roll_up_all, tenant, the_day, usage,
    with_key,
};
use crate::TenantId;
use crate::store::{Appended, Store};
use crate::usage::{EventQuery, UsageEvent};

/// The same id of two tenants is two events, in one batch and in two.
pub async fn equal_ids_of_two_tenants_are_two_events(store: &Arc<dyn Store>) {
    let (acme, globex, initech) = (tenant("acme"), tenant("globex"), tenant("initech"));
    let first = event(&acme, the_day().start());
    let [second, third] = [&globex, &initech].map(|own| of_tenant(&first, own));
    append_new(store, &[first.clone(), second.clone()]).await;
    append_new(store, std::slice::from_ref(&third)).await;
    for event in [first, second, third] {
        assert_eq!(append(store, std::slice::from_ref(&event)).await, [Appended::Duplicate]);
        assert_eq!(usage(store, &event.tenant_id).await.calls, 1);
        assert_eq!(kept(store, &event.tenant_id.clone()).await, [event]);
    }
}

/// The same idempotency key of two tenants is two events, in one batch and in two.
pub async fn equal_keys_of_two_tenants_are_two_events(store: &Arc<dyn Store>) {
    let tenants = [tenant("acme"), tenant("globex"), tenant("initech")];
    let all = tenants.clone().map(|own| with_key(event(&own, the_day().start()), "order-7"));
    append_new(store, &all[..2]).await;
    append_new(store, &all[2..]).await;
    for (own, first) in tenants.iter().zip(&all) {
        let retry = again(first, at("2026-03-04T00:00:00Z"));
        assert_eq!(append(store, &[retry]).await, [Appended::Duplicate]);
        assert_eq!(kept(store, own).await, std::slice::from_ref(first));
    }
}

/// Ids are compared byte by byte: case, accents, their composition and inner spaces make other tenants.
pub async fn tenants_that_look_alike_are_different(store: &Arc<dyn Store>) {
    let ids = [
        "acme",
        "ACME",
        "Acme",
        "ac me",
        "ac  me",
        "acm\u{e9}",
        "acme\u{301}",
        "ｱcme",
        "acme%",
        "acm_",
        "a%",
    ];
    let mut all = Vec::new();
    for (number, id) in (1..).zip(ids) {
        let mut own = events(&tenant(id), number);
        own[0] = with_key(own[0].clone(), "key");
        all.extend(own);
    }
    append_new(store, &all).await;
    for rolled_up in [false, true] {
        for (number, id) in (1..).zip(ids) {
            assert_eq!(usage(store, &tenant(id)).await.calls, number, "{id:?}, rolled up: {rolled_up}");
            assert_eq!(kept(store, &tenant(id)).await.iter().map(|_| 1).sum::<u64>(), number, "{id:?}");
        }
        roll_up_all(store).await;
    }
}

/// Whatever others do in between, one tenant's metrics, events and pages stay as they are.
pub async fn other_tenants_change_no_answer(store: &Arc<dyn Store>) {
    let acme = tenant("acme");
    let mut dice = Dice::new(17);
    let own: Vec<UsageEvent> = (0..50).map(|_| dice.event(&acme, the_day())).collect();
    append_new(store, &own).await;
    for round in 0..4 {
        let other = tenant(["acm", "acme2", "a", "globex"][round]);
        let noise: Vec<UsageEvent> = (0..100).map(|_| dice.event(&other, the_day())).collect();
        append_new(store, &noise).await;
        must("roll_up", store.roll_up(2).await);
        let query = EventQuery::new(acme.clone(), the_day());
        assert_eq!(usage(store, &acme).await, Model(&own).usage(&acme, the_day()), "beside {other:?}");
        assert_eq!(kept(store, &acme).await, Model(&own).events(&query), "beside {other:?}");
    }
}

/// The same event, id included, of another tenant.
fn of_tenant(event: &UsageEvent, tenant_id: &TenantId) -> UsageEvent {
    let mut other = event.clone();
    other.tenant_id = tenant_id.clone();
    other
}
