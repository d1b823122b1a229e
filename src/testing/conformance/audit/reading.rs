//! Reads: their orders, their filters, their bounds.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::TimeDelta;
use uuid::Uuid;

use super::sample::{at, event, events, ids, label, new_chain, ok, seal, sealed, sealed_at, tenant};
use crate::audit::{
    Actor, AuditEvent, AuditQuery, AuditRecord, AuditResult, BatchRecord, KbAudit, SecurityAudit, Target,
    TrialAudit,
};
use crate::page::PageSize;
use crate::store::{AUDIT_READ_MAX, AuditStore};
use crate::time::TimeRange;
use crate::usage::EventId;

/// Newest first, a page at a time, and no event of another tenant.
pub async fn a_trail_is_paged(store: &Arc<dyn AuditStore>) {
    let own = events("acme", 7);
    let others = [events("acm", 3), events("acme-2", 3)].concat();
    ok(store.append_audit(&sealed([own.clone(), others].concat())).await);
    for size in [1, 3, 7, 8] {
        let query = AuditQuery::new(tenant("acme"), TimeRange::ALL).page_size(ok(PageSize::new(size)));
        let mut seen = read_all(store, query, usize::from(size)).await;
        seen.reverse();
        assert_eq!(seen, own, "in pages of {size}");
    }
}

/// Pages of a query, one behind the other, none of which is larger than it may be.
async fn read_all(store: &Arc<dyn AuditStore>, mut query: AuditQuery, size: usize) -> Vec<AuditEvent> {
    let mut seen = Vec::new();
    loop {
        let page = ok(store.audit_trail(&query).await);
        assert!(page.items.len() <= size && (page.items.len() == size || page.next.is_none()));
        seen.extend(page.items);
        match page.next {
            Some(next) => query = query.after(next),
            None => return seen,
        }
    }
}

/// By type, actor, target, result and range, alone and together, on every page.
pub async fn a_trail_is_filtered(store: &Arc<dyn AuditStore>) {
    let actors = [ok(Actor::user("u-1")), ok(Actor::user("u-2")), ok(Actor::service("u-1"))];
    let all = of_all_kinds(&actors);
    ok(store.append_audit(&sealed([all.clone(), events("bolt", 5)].concat())).await);
    let any = || AuditQuery::new(tenant("acme"), TimeRange::ALL);
    let middle = ok(TimeRange::new(at(5), at(15)));
    let deleted = || any().event_type(all[0].event_type.clone());
    let queries = [
        deleted(),
        any().security(),
        any().actor(actors[0].clone()),
        any().actor(actors[2].clone()),
        any().target(ok(Target::new("document", "d-1"))),
        any().target(ok(Target::new("folder", "d-1"))),
        any().result(AuditResult::Failure),
        any().result(AuditResult::Failure).result(AuditResult::Denied),
        any().result(AuditResult::Denied),
        AuditQuery::new(tenant("acme"), middle),
        AuditQuery::new(tenant("acme"), middle).actor(actors[1].clone()).result(AuditResult::Success),
        deleted().actor(actors[0].clone()).result(AuditResult::Failure),
    ];
    for query in queries {
        let mut expected: Vec<AuditEvent> =
            all.iter().filter(|event| query.matches(event)).cloned().collect();
        expected.reverse();
        let query = query.page_size(ok(PageSize::new(2)));
        assert_eq!(read_all(store, query.clone(), 2).await, expected, "{query:?}");
    }
}

/// Two dozen events, of every type by every actor.
fn of_all_kinds(actors: &[Actor; 3]) -> Vec<AuditEvent> {
    let records: [Box<dyn AuditRecord>; 4] = [
        Box::new(KbAudit::Deleted { document: label("d-1"), reason: None }),
        Box::new(KbAudit::Uploaded { document: label("d-2"), bytes: 1, chunks: None }),
        Box::new(TrialAudit::Expired { plan: "pro".into() }),
        Box::new(SecurityAudit::AuthFailed { method: "oauth".into(), reason: "no".into() }),
    ];
    let mut all = Vec::new();
    for second in 0..24_u8 {
        let record = &records[usize::from(second % 4)];
        let actor = actors[usize::from(second % 3)].clone();
        let mut event = ok(AuditEvent::new(tenant("acme"), at(second.into()), actor, record.as_ref()));
        if second % 5 == 0 {
            event.result = AuditResult::Failure;
        }
        all.push(event);
    }
    all
}

/// A cursor belongs to its query.
pub async fn a_cursor_of_another_query_is_refused(store: &Arc<dyn AuditStore>) {
    ok(store.append_audit(&sealed([events("acme", 4), events("bolt", 4)].concat())).await);
    let query = AuditQuery::new(tenant("acme"), TimeRange::ALL).page_size(ok(PageSize::new(2)));
    let next = ok(store.audit_trail(&query).await).next.unwrap_or_else(|| panic!("there is one page only"));
    let others = [
        AuditQuery::new(tenant("bolt"), TimeRange::ALL).after(next.clone()),
        query.clone().security().after(next.clone()),
        query.clone().result(AuditResult::Success).after(next.clone()),
        AuditQuery::new(tenant("acme"), ok(TimeRange::new(at(0), at(9)))).after(next.clone()),
    ];
    for other in others {
        let error = store.audit_trail(&other).await.err();
        let field = error.as_ref().and_then(|error| error.field());
        assert_eq!(field, Some("cursor"), "{other:?}");
    }
    let larger = query.page_size(ok(PageSize::new(100))).after(next);
    assert_eq!(ok(store.audit_trail(&larger).await).items.len(), 2, "the size of a page is free");
}

/// In the byte order of their ids, after one, that it exists or not.
pub async fn tenants_come_in_byte_order(store: &Arc<dyn AuditStore>) {
    let names = ["Zeta", "a", "a b", "a-2", "a.x", "aa", "ab", "a\u{e9}", "b", "\u{e9}"];
    for (second, name) in (0..).zip(names.iter().rev()) {
        ok(store.append_audit(&sealed(vec![event(name, second), event(name, second + 100)])).await);
    }
    let mut expected: Vec<_> = names.iter().map(|name| tenant(name)).collect();
    expected.sort_by(|a, b| a.as_str().as_bytes().cmp(b.as_str().as_bytes()));
    assert_eq!(ok(store.audit_tenants(None, 100).await), expected);
    assert_eq!(ok(store.audit_tenants(None, 3).await), expected[..3]);
    assert_eq!(ok(store.audit_tenants(Some(&expected[2]), 4).await), expected[3..7]);
    let absent = tenant("a.");
    let behind: Vec<_> = expected.iter().filter(|name| **name > absent).cloned().collect();
    assert_eq!(ok(store.audit_tenants(Some(&absent), 100).await), behind);
    assert!(ok(store.audit_tenants(expected.last(), 100).await).is_empty());
}

/// Ascending by id, after one, of one tenant.
pub async fn rows_come_in_the_order_of_their_ids(store: &Arc<dyn AuditStore>) {
    let mut own = events("acme", 9);
    for part in [&own[6..], &own[..3], &own[3..6]] {
        ok(store.append_audit(&sealed([part.to_vec(), vec![event("bolt", 5)]].concat())).await);
    }
    own.sort_by_key(AuditEvent::id);
    let expected: Vec<EventId> = own.iter().map(AuditEvent::id).collect();
    assert_eq!(ids(store, "acme").await, expected);
    let page = async |after: Option<Uuid>, limit| {
        let rows = ok(store.audit_rows(&tenant("acme"), after, limit).await);
        assert!(rows.iter().all(|row| row.tenant_id == tenant("acme")));
        rows.into_iter().map(|row| EventId::bound(row.id)).collect::<Vec<_>>()
    };
    assert_eq!(page(None, 4).await, expected[..4]);
    assert_eq!(page(Some(expected[3].as_uuid()), 4).await, expected[4..8]);
    assert_eq!(page(Some(EventId::lower_bound(at(6))), 4).await, expected[6..]);
    assert!(page(Some(expected[8].as_uuid()), 4).await.is_empty());
    assert!(ok(store.audit_rows(&tenant("corp"), None, 4).await).is_empty());
}

/// What there is of what is asked for; an id of one tenant is none of another.
pub async fn rows_are_found_by_their_keys(store: &Arc<dyn AuditStore>) {
    let (acme, bolt) = (events("acme", 5), events("bolt", 5));
    ok(store.append_audit(&sealed([acme.clone(), bolt.clone()].concat())).await);
    let key = |event: &AuditEvent| (event.tenant_id.clone(), event.id());
    let absent = [(tenant("bolt"), acme[0].id()), (tenant("acme"), EventId::at(at(9)))];
    let keys = [&[key(&acme[3]), key(&bolt[1]), key(&acme[0])][..], &absent[..]].concat();
    let found = ok(store.audit_rows_by_key(&keys).await);
    let mut found: Vec<_> = found.into_iter().map(|row| (row.tenant_id, EventId::bound(row.id))).collect();
    found.sort();
    assert_eq!(found, [key(&acme[0]), key(&acme[3]), key(&bolt[1])]);
    assert!(ok(store.audit_rows_by_key(&[]).await).is_empty());
}

/// By writer, then by sequence, after one.
pub async fn batches_come_in_the_order_of_their_chains(store: &Arc<dyn AuditStore>) {
    let mut chains = [new_chain(), new_chain(), new_chain()];
    let mut expected: Vec<BatchRecord> = Vec::new();
    for second in 0..12_u8 {
        let chain = &mut chains[usize::from(second % 3)];
        let batch = sealed_at(chain, vec![event("acme", second.into())], 50 - i64::from(second));
        ok(store.append_audit(&batch).await);
        expected.push(batch.record().clone());
    }
    let key = |batch: &BatchRecord| (batch.writer_id, batch.sequence);
    expected.sort_by_key(key);
    assert_eq!(ok(store.audit_batches(None, 100).await), expected);
    assert_eq!(ok(store.audit_batches(None, 5).await), expected[..5]);
    assert_eq!(ok(store.audit_batches(Some(key(&expected[4])), 5).await), expected[5..10]);
    assert!(ok(store.audit_batches(expected.last().map(key), 5).await).is_empty());
}

/// One call gives [`AUDIT_READ_MAX`] at most, and the next goes on behind it.
pub async fn no_more_is_read_than_one_call_gives(store: &Arc<dyn AuditStore>) {
    let most = usize::try_from(AUDIT_READ_MAX).unwrap_or(usize::MAX);
    let own: Vec<AuditEvent> = events("acme", i64::from(AUDIT_READ_MAX) + 5);
    let mut chain = new_chain();
    for part in own.chunks(most) {
        ok(store.append_audit(&sealed_at(&mut chain, part.to_vec(), 0)).await);
    }
    seal(store, vec![event("bolt", 1)]).await;
    let acme = tenant("acme");
    let rows = ok(store.audit_rows(&acme, None, u32::MAX).await);
    assert_eq!(rows.len(), most);
    assert_eq!(ok(store.audit_rows(&acme, rows.last().map(|row| row.id), u32::MAX).await).len(), 5);
    let nodes = ok(store.tree_nodes(&acme, 0, 0, u32::MAX).await);
    assert_eq!(nodes.len(), most);
    let leaves = ok(store.tree_leaves(&acme, None, u32::MAX).await);
    assert_eq!(leaves.len(), most);
    let rest = ok(store.tree_leaves(&acme, leaves.last().map(|leaf| leaf.event_id), u32::MAX).await);
    assert_eq!(rest.len(), 5);
    let day = ok(TimeRange::new(at(0), at(0) + TimeDelta::seconds(20)));
    let page = AuditQuery::new(acme, day).page_size(ok(PageSize::new(20)));
    assert_eq!(ok(store.audit_trail(&page).await).items.len(), 20);
}
