//! Batches: kept once, in whole, to the byte, and for ever.

#![allow(clippy::missing_panics_doc)]

use std::sync::Arc;

use chrono::TimeDelta;
use serde_json::json;
use tokio::task::JoinSet;

use super::sample::{
    at, event, events, ids, label, new_chain, next_epoch, ok, seal, sealed, sealed_at, tenant, trail,
};
use crate::ErrorKind;
use crate::audit::{
    Actor, AuditContext, AuditEvent, AuditResult, AuditSigningKey, ClientIp, Hash, KbAudit, PersonalData,
    Severity, Target,
};
use crate::store::{AuditStore, BatchAppended};
use crate::testing::conformance::cancelling::Polled;
use crate::usage::{ErrorMessage, Metadata};

/// Beyond so many polls a call is taken to have an end.
const POLLS_MAX: u32 = 500;

/// A batch is kept once under (writer, sequence), and no other one.
pub async fn a_batch_is_kept_once(store: &Arc<dyn AuditStore>) {
    let mut chain = new_chain();
    let other = ok(chain.seal(vec![event("acme", 9)], None, at(0)));
    let batch = sealed_at(&mut chain, vec![event("acme", 1), event("bolt", 2)], 0);
    assert_eq!(ok(store.append_audit(&batch).await), BatchAppended::New);
    assert_eq!(ok(store.append_audit(&batch).await), BatchAppended::Duplicate);
    assert_eq!(ok(store.append_audit(&other).await), BatchAppended::Conflict);
    assert_eq!(ok(store.audit_batches(None, 10).await), [batch.record().clone()]);
    assert_eq!(ids(store, "acme").await, [batch.events()[0].id()], "a batch that conflicts leaves nothing");
    // Sealed in the meantime, it is the same batch.
    let epoch = next_epoch(store).await;
    assert!(ok(store.append_epoch(&epoch).await));
    assert_eq!(ok(store.append_audit(&batch).await), BatchAppended::Duplicate);
    assert_eq!(ok(store.append_audit(&other).await), BatchAppended::Conflict);
    assert!(ok(store.unsealed_batches(10).await).is_empty(), "a repetition is to be sealed again");
}

/// An event whose id is taken leaves nothing of its batch; one id of two tenants is two ids.
pub async fn a_batch_is_all_or_nothing(store: &Arc<dyn AuditStore>) {
    let taken = event("acme", 1);
    ok(store.append_audit(&sealed(vec![taken.clone()])).await);
    let mut of_another_tenant = taken.clone();
    of_another_tenant.tenant_id = tenant("zeta");
    let batch = sealed(vec![event("acme", 2), taken.clone(), event("bolt", 3)]);
    let error = store.append_audit(&batch).await.err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::Conflict));
    let twice = event("corp", 4);
    let error = store.append_audit(&sealed(vec![twice.clone(), twice])).await.err().map(|error| error.kind());
    assert_eq!(error, Some(ErrorKind::Conflict), "an id that is twice in one batch");
    assert_eq!(ok(store.audit_tenants(None, 10).await), [tenant("acme")]);
    assert_eq!(ids(store, "acme").await, [taken.id()]);
    assert_eq!(ok(store.audit_batches(None, 10).await).len(), 1);
    assert_eq!(ok(store.unsealed_batches(10).await).len(), 1);
    assert_eq!(ok(store.append_audit(&sealed(vec![of_another_tenant])).await), BatchAppended::New);
}

/// Whoever looks while batches are written sees each in whole: its row, its mark, and all of its events.
pub async fn a_batch_is_seen_whole(store: &Arc<dyn AuditStore>) {
    const EVENTS: usize = 40;
    let writer = tokio::spawn({
        let store = Arc::clone(store);
        async move {
            for _ in 0..25 {
                ok(store.append_audit(&sealed(events("acme", 40))).await);
            }
        }
    });
    let mut is_last = false;
    while !is_last {
        is_last = writer.is_finished();
        let batches = ok(store.audit_batches(None, 1_000).await).len();
        let unsealed = ok(store.unsealed_batches(1_000).await).len();
        let rows = ids(store, "acme").await.len();
        let after = ok(store.audit_batches(None, 1_000).await).len();
        assert_eq!(rows % EVENTS, 0, "part of a batch is seen");
        assert!(batches <= unsealed && unsealed <= after, "{batches} batches, {unsealed} to be sealed");
        assert!(batches * EVENTS <= rows && rows <= after * EVENTS, "{batches} batches, {rows} events");
        tokio::task::yield_now().await;
    }
    assert!(writer.await.is_ok());
}

/// An append dropped after any number of polls has kept the batch or not; repeated, it is kept.
pub async fn a_dropped_append_has_done_all_or_nothing(store: &Arc<dyn AuditStore>) {
    for polls in 0..POLLS_MAX {
        let own = format!("tenant-{polls}");
        // On a day of its own, so that the store has more to do than on a day that it knows.
        let day = i64::from(polls % 20) * 86_400;
        let batch = sealed((0..6).map(|second| event(&own, day + second)).collect());
        let done = Polled::new(store.append_audit(&batch), polls).await;
        let seen = ids(store, &own).await.len();
        assert!(seen == 0 || seen == 6, "{seen} of 6 events after a drop at poll {polls}");
        let again = persistently(store, &batch).await;
        assert!(again != BatchAppended::Conflict, "poll {polls}");
        assert!(seen == 0 || again == BatchAppended::Duplicate, "poll {polls}: seen and then new");
        assert_eq!(ids(store, &own).await.len(), 6, "dropped at poll {polls}");
        if let Some(done) = done {
            assert_eq!(ok(done), BatchAppended::New, "undisturbed");
            assert_eq!(
                ok(store.audit_batches(None, 1_000).await).len(),
                usize::try_from(polls).unwrap_or_default() + 1
            );
            return;
        }
    }
    panic!("append_audit does not end within {POLLS_MAX} polls");
}

/// Of callers with one batch one is first; of callers with batches of one name one wins.
pub async fn callers_at_once_keep_a_batch_once(store: &Arc<dyn AuditStore>) {
    for round in 0..10 {
        let own = format!("tenant-{round}");
        let chain = new_chain();
        let one = ok(chain.seal(events(&own, 5), None, at(0)));
        let other = ok(chain.seal(events(&own, 5), None, at(0)));
        let mut callers = JoinSet::new();
        for caller in 0..8 {
            let (store, batch) =
                (Arc::clone(store), if caller % 2 == 0 { one.clone() } else { other.clone() });
            callers.spawn(async move { (caller % 2, persistently(&store, &batch).await) });
        }
        let told = callers.join_all().await;
        let winners: Vec<u32> =
            told.iter().filter(|(_, told)| *told == BatchAppended::New).map(|(side, _)| *side).collect();
        assert_eq!(winners.len(), 1, "{told:?}");
        for (side, told) in &told {
            let is_winner = *side == winners[0];
            assert_eq!(*told != BatchAppended::Conflict, is_winner, "{told:?} to a batch of side {side}");
        }
        let kept = if winners[0] == 0 { one } else { other };
        assert_eq!(ids(store, &own).await, kept.events().iter().map(AuditEvent::id).collect::<Vec<_>>());
        let batches = ok(store.audit_batches(None, 1_000).await);
        let own: Vec<_> = batches.iter().filter(|batch| batch.writer_id == chain.writer_id()).collect();
        assert_eq!(own, [kept.record()]);
    }
}

/// Every read that starts after an append includes it.
pub async fn an_append_is_seen_at_once(store: &Arc<dyn AuditStore>) {
    for second in 0..5 {
        let own = event("acme", second);
        ok(store.append_audit(&sealed(vec![own.clone()])).await);
        let seen = usize::try_from(second).unwrap_or_default() + 1;
        assert_eq!(trail(store, "acme").await.len(), seen);
        assert_eq!(ids(store, "acme").await.len(), seen);
        assert_eq!(ok(store.audit_rows_by_key(&[(tenant("acme"), own.id())]).await).len(), 1);
        assert_eq!(ok(store.audit_batches(None, 10).await).len(), seen);
        assert_eq!(ok(store.unsealed_batches(10).await).len(), seen);
        assert_eq!(ok(store.audit_tenants(None, 10).await), [tenant("acme")]);
    }
    for number in 0..3 {
        let before = ok(store.audit_epochs(0, 10).await).len();
        seal(store, vec![event("acme", 10 + number)]).await;
        assert_eq!(ok(store.audit_epochs(0, 10).await).len(), before + 1);
        let state = ok(store.audit_state().await);
        let last = state.epoch.map(|epoch| epoch.number);
        assert_eq!(last, u64::try_from(number).ok());
        let size = state.heads.first().map(|head| head.frontier.size());
        assert_eq!(size, u64::try_from(6 + number).ok());
        assert_eq!(
            ok(store.tree_leaves(&tenant("acme"), None, 100).await).len(),
            ok(store.tree_nodes(&tenant("acme"), 0, 0, 100).await).len()
        );
    }
}

/// Every field of an event comes back as it was sealed, and so do batches, signed or not.
pub async fn everything_comes_back_to_the_byte(store: &Arc<dyn AuditStore>) {
    let plain = event("acme", 1);
    let moment = at(2) + TimeDelta::microseconds(123_457);
    let record = KbAudit::Deleted { document: label("d"), reason: None };
    let mut full = ok(AuditEvent::new(tenant("acme"), moment, ok(Actor::user("u")), &record));
    full.schema_version = 7;
    full.actor = ok(Actor::new("partner", "p-\u{e9}\u{1f980}"));
    full.target = ok(Target::new("file", "'; DROP TABLE x; --").map(Some));
    full.action = label("tidied up");
    full.result = AuditResult::Denied;
    full.severity = Severity::Critical;
    full.context = ok(ok(AuditContext::new()
        .ip(ClientIp::exact("2001:db8::7".parse().unwrap_or_else(|_| panic!("an address"))))
        .user_agent("curl/8 \u{201c}x\u{201d}")
        .request_id("r-1"))
    .trace_id("t-1"));
    full.represents = 12;
    let fields =
        json!({"n": i64::MAX, "m": i64::MIN, "f": 0.1, "t": "\u{e9}\\\"", "deep": {"a": [1, null, true]}});
    full.metadata = ok(Metadata::new(fields.as_object().cloned().unwrap_or_default()));
    full.error_message = Some(ErrorMessage::new("it's \"broken\""));
    full.personal.insert(
        label("email"),
        PersonalData::from_stored(label("u-1"), Hash::of(b"salted"), vec![0, 255, 7, b'\'']),
    );
    let key = ok(AuditSigningKey::from_seed("example.org/conformance", [7; 32]));
    let mut chain = new_chain();
    let unsigned = sealed_at(&mut chain, vec![plain.clone()], 1);
    let signed = ok(chain.seal(vec![full.clone()], Some(&key), at(2)));
    for batch in [&unsigned, &signed] {
        ok(store.append_audit(batch).await);
    }
    let rows = ok(store.audit_rows(&tenant("acme"), None, 10).await);
    let read: Vec<AuditEvent> = rows.into_iter().map(|row| ok(row.event)).collect();
    let bytes = |events: &[AuditEvent]| -> Vec<Vec<u8>> {
        events.iter().map(|event| ok(event.canonical_bytes())).collect()
    };
    let written = [plain, full];
    assert_eq!(bytes(&read), bytes(&written));
    let mut newest_first = trail(store, "acme").await;
    newest_first.reverse();
    assert_eq!(bytes(&newest_first), bytes(&written));
    let keys: Vec<_> = written.iter().map(|event| (event.tenant_id.clone(), event.id())).collect();
    let mut found: Vec<AuditEvent> =
        ok(store.audit_rows_by_key(&keys).await).into_iter().map(|row| ok(row.event)).collect();
    found.sort_by_key(AuditEvent::id);
    assert_eq!(bytes(&found), bytes(&written));
    assert_eq!(ok(store.audit_batches(None, 10).await), [unsigned.record().clone(), signed.record().clone()]);
}

/// What later batches and epochs add changes nothing of what is there.
pub async fn what_was_written_stays_as_it_is(store: &Arc<dyn AuditStore>) {
    let first = sealed(events("acme", 3));
    ok(store.append_audit(&first).await);
    let epoch = next_epoch(store).await;
    assert!(ok(store.append_epoch(&epoch).await));
    let nodes = ok(store.tree_nodes(&tenant("acme"), 0, 0, 3).await);
    for round in 1..4 {
        seal(store, vec![event("acme", 10 * round), event("bolt", 10 * round)]).await;
        let rows = ok(store.audit_rows(&tenant("acme"), None, 3).await);
        let kept: Vec<AuditEvent> = rows.into_iter().map(|row| ok(row.event)).collect();
        assert_eq!(kept, first.events());
        assert!(ok(store.audit_batches(None, 100).await).contains(first.record()));
        assert_eq!(ok(store.audit_epochs(0, 1).await), std::slice::from_ref(&epoch.epoch));
        assert_eq!(ok(store.tree_nodes(&tenant("acme"), 0, 0, 3).await), nodes);
        let leaf = ok(store.tree_leaves_by_key(&[(tenant("acme"), first.events()[1].id())]).await);
        assert_eq!(leaf[0].1.position, 1);
    }
}

/// A gap in a chain is for a verifier to find: a store that refused it would keep events out of the trail.
pub async fn a_store_verifies_no_batch(store: &Arc<dyn AuditStore>) {
    let mut chain = new_chain();
    let skipped = sealed_at(&mut chain, vec![event("acme", 1)], 5);
    let behind = sealed_at(&mut chain, vec![event("acme", 2)], 5);
    let key = ok(AuditSigningKey::from_seed("example.org/nobody", [9; 32]));
    let strange = ok(chain.seal(vec![event("acme", 3)], Some(&key), at(4)));
    for batch in [&behind, &strange, &skipped] {
        assert_eq!(ok(store.append_audit(batch).await), BatchAppended::New);
    }
    assert_eq!(ids(store, "acme").await.len(), 3);
}

/// As a writer does: what may pass is tried again.
async fn persistently(store: &Arc<dyn AuditStore>, batch: &crate::audit::SealedBatch) -> BatchAppended {
    for _ in 0..100 {
        match store.append_audit(batch).await {
            Err(error) if error.is_transient() => {}
            told => return ok(told),
        }
    }
    panic!("append_audit fails a hundred times");
}
