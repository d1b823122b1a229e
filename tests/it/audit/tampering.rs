//! What somebody with the rights of a superuser can do to a trail, and by which names it is found.
//!
//! A trail of three tenants, written in four batches and sealed in two epochs. Each test lays one hand on it, in memory
//! through the hook of `testing`, on Postgres by SQL with the guards switched off.

use std::sync::Arc;

use chrono::TimeDelta;
use metertrail::audit::tree::Frontier;
use metertrail::audit::{
    AuditEvent, AuditKeys, AuditSigningKey, Checkpoint, NoKeys, Origin, StaticKeys, TreeLeaf, Verifier,
    WrappingKey, WriterChain,
};
use metertrail::store::AuditTables;
use metertrail::testing::tamper;
use metertrail::time::Clock;
use tokio_postgres::Client;

use super::{Bed, ada, codes, keep, label, on_both_stores, sealer_key, tenant, uploaded, writer_key};
use crate::ledger;

on_both_stores! {
    untouched,
    an_edit,
    an_edit_and_its_leaf,
    a_deletion_inside,
    a_deletion_and_a_new_numbering,
    a_swap,
    a_forged_insert,
    a_back_dated_insert,
    a_cut_tail,
    a_cut_tail_with_the_newest_epochs,
    a_deleted_tenant,
    a_deleted_trail,
    a_rewrite_without_keys,
    a_rewrite_with_one_key,
    a_rewrite_with_all_keys,
    a_lawful_erasure,
    an_edit_of_what_no_epoch_has_sealed,
    a_batch_that_is_kept_from_the_sealer,
    an_edited_key_of_a_tree,
    a_sealer_that_adds_an_event_by_itself,
    a_sealed_batch_that_is_deleted,
    a_sealer_that_has_seen_more,
    a_batch_inside_of_a_chain_that_is_deleted,
    a_deleted_epoch,
    a_forged_anchor,
    what_was_signed_for_another_trail,
    a_batch_that_was_given_up_and_put_there,
    a_process_without_the_sealers_key_begins_no_log,
}

struct Trail {
    bed: Bed,
    hand: Option<Client>,
    events: Vec<AuditEvent>,
    checkpoints: Vec<Checkpoint>,
    /// The state after the first epoch, in memory.
    before: Option<AuditTables>,
}

const TABLES: [&str; 7] = [
    "audit_events",
    "audit_batches",
    "audit_unsealed",
    "audit_epochs",
    "audit_heads",
    "audit_tree",
    "audit_subjects",
];

impl Trail {
    /// `acme` has events 0 to 5 in the first epoch and 20 to 23 in the second; `bolt` 6 to 9, `corp` 10 to 12.
    async fn new(bed: Bed) -> Self {
        let hand = match &bed.database {
            Some(database) => {
                let client = ledger::client(database.url()).await;
                client.batch_execute("SET session_replication_role = replica").await.unwrap();
                Some(client)
            }
            None => None,
        };
        let first: Vec<AuditEvent> = (0..6).map(|second| uploaded("acme", second)).collect();
        let others = (6..10).map(|second| uploaded("bolt", second));
        let others: Vec<AuditEvent> = others.chain((10..13).map(|second| uploaded("corp", second))).collect();
        let mixed = [first[3..].to_vec(), others].concat();
        let last: Vec<AuditEvent> = (20..24).map(|second| uploaded("acme", second)).collect();
        let mut this = Self { bed, hand, events: Vec::new(), checkpoints: Vec::new(), before: None };
        this.write(&keys_of(true, true), &[first[..3].to_vec(), mixed.clone()]).await;
        this.back_up().await;
        this.write(&keys_of(true, true), std::slice::from_ref(&last)).await;
        this.events = [first[..3].to_vec(), mixed, last].concat();
        this
    }

    async fn write(&mut self, keys: &StaticKeys, batches: &[Vec<AuditEvent>]) {
        let log = self.bed.builder().keys(keys.clone()).start().unwrap();
        keep(&log, batches).await;
        self.checkpoints.extend(log.seal_epoch().await.unwrap());
        assert!(log.shutdown(super::MINUTE).await.unwrap().unwritten.is_empty());
    }

    fn event(&self, second: i64) -> &AuditEvent {
        let at = super::noon() + TimeDelta::seconds(second);
        self.events.iter().find(|event| event.occurred_at() == at).unwrap()
    }

    /// Lays a hand on the tables: by SQL, or on those in memory.
    async fn touch(&self, sql: &str, hand: impl FnOnce(&mut AuditTables)) {
        match (&self.hand, &self.bed.memory) {
            (Some(client), _) => {
                client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
            }
            (None, Some(memory)) => tamper(memory, hand),
            (None, None) => unreachable!(),
        }
    }

    async fn back_up(&mut self) {
        self.before = self.bed.memory.as_ref().map(|memory| memory.audit_tables());
        if let Some(client) = &self.hand {
            for table in TABLES {
                let sql = format!("CREATE TABLE public.old_{table} AS TABLE metertrail.{table}");
                client.batch_execute(&sql).await.unwrap();
            }
        }
    }

    async fn wipe(&self) {
        let sql = TABLES.map(|table| format!("DELETE FROM metertrail.{table};")).concat();
        self.touch(&sql, |tables| *tables = AuditTables::default()).await;
    }

    /// Everything as it was after the first epoch.
    async fn restore(&self) {
        let sql = TABLES.map(|table| {
            format!("DELETE FROM metertrail.{table}; INSERT INTO metertrail.{table} SELECT * FROM public.old_{table};")
        });
        self.touch(&sql.concat(), |tables| *tables = self.before.clone().unwrap()).await;
    }

    async fn found(&self) -> Vec<&'static str> {
        codes(&self.bed.verified().await)
    }

    /// As [`found`](Self::found), by somebody who has kept the newest checkpoint.
    async fn found_with_anchor(&self) -> Vec<&'static str> {
        let verifier = self.bed.verifier().anchor(self.checkpoints[1].clone());
        codes(&verifier.full(self.bed.clock.now()).await.unwrap())
    }

    /// What is found with hashes only, with the public keys, and with an anchor as well: the columns of `docs/audit.md`.
    async fn is_found(&self, hashes: &[&str], keys: &[&str], anchor: &[&str]) {
        let now = self.bed.clock.now();
        let alone = Verifier::new(Arc::clone(&self.bed.store)).full(now).await.unwrap();
        assert_eq!(codes(&alone), hashes, "with hashes only");
        assert_eq!(self.found().await, keys, "with public keys");
        assert_eq!(self.found_with_anchor().await, anchor, "with keys and an anchor");
    }

    async fn is_found_by_all(&self, names: &[&str]) {
        self.is_found(names, names, names).await;
    }

    /// The ids of the findings of one code, as `code:second`.
    async fn named(&self) -> Vec<String> {
        let report = self.bed.verified().await;
        let findings = report.findings.iter().map(ToString::to_string);
        let second = |text: &str| {
            self.events.iter().find_map(|event| {
                let at = (event.occurred_at() - super::noon()).num_seconds();
                text.contains(&event.id().to_string())
                    .then(|| format!("{}:{at}", text.split(':').next().unwrap()))
            })
        };
        findings.map(|text| second(&text).unwrap_or(text)).collect()
    }
}

fn keys_of(writer: bool, sealer: bool) -> StaticKeys {
    let own = |name: &str| AuditSigningKey::generate(format!("example.org/{name}")).unwrap();
    StaticKeys::new()
        .writer(if writer { writer_key() } else { own("writer") })
        .sealer(if sealer { sealer_key() } else { own("sealer") })
        .wrapping(WrappingKey::from_bytes([3; 32]))
}

async fn untouched(bed: Bed) {
    let trail = Trail::new(bed).await;
    let report = trail.bed.verified().await;
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!((report.events, report.batches, report.epochs, report.tenants), (17, 3, 2, 3));
    assert!(report.are_batches_authenticated && report.are_epochs_authenticated);
    assert_eq!(trail.found_with_anchor().await, [""; 0]);
    // Nothing but hashes, and an anchor.
    let verifier = Verifier::new(Arc::clone(&trail.bed.store)).anchor(trail.checkpoints[0].clone());
    assert!(verifier.full(trail.bed.clock.now()).await.unwrap().is_clean());
    // Another trail's key.
    let stranger = AuditSigningKey::generate("example.org/stranger").unwrap().verifying_key();
    let verifier =
        Verifier::new(Arc::clone(&trail.bed.store)).writer_key(stranger.clone()).sealer_key(stranger);
    let report = verifier.full(trail.bed.clock.now()).await.unwrap();
    assert_eq!(codes(&report), ["batch_forged", "epoch_forged"]);
}

async fn an_edit(bed: Bed) {
    let trail = Trail::new(bed).await;
    let event = trail.event(8).clone();
    let sql = format!("UPDATE metertrail.audit_events SET result = 'failure' WHERE id = '{}'", event.id());
    let hand = |tables: &mut AuditTables| {
        let kept = tables.events.get_mut(&(event.tenant_id.clone(), event.id())).unwrap();
        kept.result = metertrail::audit::AuditResult::Failure;
    };
    trail.touch(&sql, hand).await;
    assert_eq!(trail.named().await, ["edited:8"]);
    trail.is_found_by_all(&["edited"]).await;
    // A sample of everything finds it as well.
    let sample = trail.bed.verifier().sampled(trail.bed.clock.now(), 400, 1).await.unwrap();
    assert_eq!(codes(&sample), ["edited"]);
    assert!(!sample.are_batches_authenticated && sample.are_epochs_authenticated);
}

async fn an_edit_and_its_leaf(bed: Bed) {
    let trail = Trail::new(bed).await;
    let event = trail.event(8).clone();
    let mut forged = event.clone();
    forged.action = label("forged");
    let leaf = forged.leaf().unwrap();
    let sql = format!(
        "UPDATE metertrail.audit_events SET action = 'forged' WHERE id = '{id}';
        UPDATE metertrail.audit_tree SET hash = '\\x{leaf}' WHERE level = 0 AND event_id = '{id}'",
        id = event.id()
    );
    let hand = |tables: &mut AuditTables| {
        let key = (event.tenant_id.clone(), event.id());
        tables.events.insert(key.clone(), forged);
        let there = tables.leaves.get_mut(&key).unwrap();
        there.hash = leaf;
        let node = (key.0, 0, there.position);
        tables.nodes.get_mut(&node).unwrap().0 = leaf;
    };
    trail.touch(&sql, hand).await;
    assert_eq!(trail.named().await, ["edited:8", "tree_altered: tenant bolt"]);
    trail.is_found_by_all(&["edited", "tree_altered"]).await;
}

async fn a_deletion_inside(bed: Bed) {
    let trail = Trail::new(bed).await;
    let event = trail.event(4).clone();
    let sql = format!("DELETE FROM metertrail.audit_events WHERE id = '{}'", event.id());
    let hand = |tables: &mut AuditTables| {
        tables.events.remove(&(event.tenant_id.clone(), event.id())).unwrap();
    };
    trail.touch(&sql, hand).await;
    assert_eq!(trail.named().await, ["missing:4"]);
    trail.is_found_by_all(&["missing"]).await;
}

/// The event, its leaf, and every trace of the gap between its neighbours: the tree looks as if it had never been there.
async fn a_deletion_and_a_new_numbering(bed: Bed) {
    let trail = Trail::new(bed).await;
    let event = trail.event(7).clone();
    let mut frontier = Frontier::default();
    for second in [6, 8, 9] {
        frontier.push(trail.event(second).leaf().unwrap(), |_| {});
    }
    let (root, edge) = (frontier.root(), hex(&frontier.to_bytes()));
    let sql = format!(
        "DELETE FROM metertrail.audit_events WHERE id = '{id}';
        DELETE FROM metertrail.audit_tree WHERE event_id = '{id}';
        UPDATE metertrail.audit_tree SET position = 1 WHERE tenant_id = 'bolt' AND level = 0 AND position = 2;
        UPDATE metertrail.audit_tree SET position = 2 WHERE tenant_id = 'bolt' AND level = 0 AND position = 3;
        UPDATE metertrail.audit_heads SET size = 3, root = '\\x{root}', frontier = '\\x{edge}' WHERE tenant_id = 'bolt'",
        id = event.id()
    );
    let hand = |tables: &mut AuditTables| {
        let bolt = event.tenant_id.clone();
        tables.events.remove(&(bolt.clone(), event.id())).unwrap();
        tables.leaves.remove(&(bolt.clone(), event.id())).unwrap();
        for position in [1, 2] {
            let next = tables.nodes[&(bolt.clone(), 0, position + 1)];
            tables.nodes.insert((bolt.clone(), 0, position), next);
            let leaf = TreeLeaf { position, hash: next.0, event_id: next.1.unwrap() };
            tables.leaves.insert((bolt.clone(), leaf.event_id), leaf);
        }
        tables.nodes.remove(&(bolt.clone(), 0, 3)).unwrap();
        let head = tables.heads.get_mut(&bolt).unwrap();
        (head.root, head.frontier) = (root, frontier.clone());
    };
    trail.touch(&sql, hand).await;
    assert_eq!(trail.named().await, ["missing:7", "tenants_altered: 3 tenants, epoch 1 sealed 3"]);
    trail.is_found_by_all(&["missing", "tenants_altered"]).await;
}

async fn a_swap(bed: Bed) {
    let trail = Trail::new(bed).await;
    let (one, other) = (trail.event(7).clone(), trail.event(8).clone());
    let sql = "UPDATE metertrail.audit_tree SET position = 99 WHERE tenant_id = 'bolt' AND level = 0 AND position = 1;
        UPDATE metertrail.audit_tree SET position = 1 WHERE tenant_id = 'bolt' AND level = 0 AND position = 2;
        UPDATE metertrail.audit_tree SET position = 2 WHERE tenant_id = 'bolt' AND level = 0 AND position = 99";
    let hand = |tables: &mut AuditTables| {
        for (event, position) in [(&one, 2), (&other, 1)] {
            let bolt = event.tenant_id.clone();
            let leaf = tables.leaves.get_mut(&(bolt.clone(), event.id())).unwrap();
            leaf.position = position;
            tables.nodes.insert((bolt, 0, position), (leaf.hash, Some(leaf.event_id)));
        }
    };
    trail.touch(sql, hand).await;
    assert_eq!(trail.named().await, ["reordered:7", "reordered:8", "tree_altered: tenant bolt"]);
    trail.is_found_by_all(&["reordered", "tree_altered"]).await;
}

async fn insert(trail: &Trail, event: AuditEvent) {
    let sql = format!(
        "INSERT INTO metertrail.audit_events (tenant_id, id, \"timestamp\", event_type, action, result)
        VALUES ('{}', '{}', '{}', 'kb.deleted', 'deleted', 'success')",
        event.tenant_id,
        event.id(),
        event.occurred_at().to_rfc3339()
    );
    let hand = |tables: &mut AuditTables| {
        tables.events.insert((event.tenant_id.clone(), event.id()), event.clone());
    };
    trail.touch(&sql, hand).await;
    let report = trail.bed.verified().await;
    assert_eq!(codes(&report), ["forged"]);
    assert!(report.findings[0].to_string().contains(&event.id().to_string()));
    trail.is_found_by_all(&["forged"]).await;
}

async fn a_forged_insert(bed: Bed) {
    let trail = Trail::new(bed).await;
    insert(&trail, uploaded("acme", 500)).await;
}

async fn a_back_dated_insert(bed: Bed) {
    let trail = Trail::new(bed).await;
    insert(&trail, uploaded("acme", 2)).await;
}

/// The newest events, with their leaves and their batch, but not the epoch that sealed them.
async fn a_cut_tail(bed: Bed) {
    let trail = Trail::new(bed).await;
    let sql = "DELETE FROM metertrail.audit_events WHERE tenant_id = 'acme' AND \"timestamp\" >= '2026-03-01T12:00:50Z';
        DELETE FROM metertrail.audit_tree WHERE tenant_id = 'acme' AND level = 0 AND position >= 6;
        DELETE FROM metertrail.audit_batches WHERE (writer_id, sequence) NOT IN
            (SELECT writer_id, sequence FROM public.old_audit_batches)";
    let hand = |tables: &mut AuditTables| {
        let old = trail.before.as_ref().unwrap();
        tables.events = old.events.clone();
        tables.batches = old.batches.clone();
        tables.nodes = old.nodes.clone();
        tables.leaves = old.leaves.clone();
    };
    trail.touch(sql, hand).await;
    assert_eq!(trail.named().await, ["truncated_tail: tenant acme has 6 leaves of 10"]);
    trail.is_found_by_all(&["truncated_tail"]).await;
}

async fn a_cut_tail_with_the_newest_epochs(bed: Bed) {
    let trail = Trail::new(bed).await;
    trail.restore().await;
    // By itself it is the trail of a while ago.
    trail.is_found(&[], &[], &["log_truncated"]).await;
}

async fn a_deleted_tenant(bed: Bed) {
    let trail = Trail::new(bed).await;
    let sql = ["audit_events", "audit_tree", "audit_heads", "audit_subjects"]
        .map(|table| format!("DELETE FROM metertrail.{table} WHERE tenant_id = 'bolt';"))
        .concat();
    let hand = |tables: &mut AuditTables| {
        let bolt = tenant("bolt");
        tables.events.retain(|key, _| key.0 != bolt);
        tables.nodes.retain(|key, _| key.0 != bolt);
        tables.leaves.retain(|key, _| key.0 != bolt);
        tables.heads.remove(&bolt);
    };
    trail.touch(&sql, hand).await;
    assert_eq!(
        trail.named().await,
        ["missing_tenant: tenant bolt", "tenants_altered: 2 tenants, epoch 1 sealed 3"]
    );
    trail.is_found_by_all(&["missing_tenant", "tenants_altered"]).await;
}

async fn a_deleted_trail(bed: Bed) {
    let trail = Trail::new(bed).await;
    trail.wipe().await;
    // An empty trail is a new one, to whoever has kept nothing.
    trail.is_found(&[], &[], &["log_truncated"]).await;
}

/// A whole new trail in which one event never was and another one is not what it was.
async fn rewrite(trail: &mut Trail, keys: impl AuditKeys + Clone) {
    trail.wipe().await;
    let mut events = trail.events.clone();
    events.remove(0);
    events[0].action = label("forged");
    for part in [&events[..9], &events[9..]] {
        let log = trail.bed.builder().keys(keys.clone()).start().unwrap();
        keep(&log, &[part.to_vec()]).await;
        log.seal_epoch().await.unwrap();
        assert!(log.shutdown(super::MINUTE).await.unwrap().unwritten.is_empty());
    }
}

async fn a_rewrite_without_keys(bed: Bed) {
    let mut trail = Trail::new(bed).await;
    rewrite(&mut trail, NoKeys).await;
    let anchored = ["batch_forged", "epoch_forged", "log_rewritten"];
    trail.is_found(&[], &["batch_forged", "epoch_forged"], &anchored).await;
    rewrite(&mut trail, keys_of(false, false)).await;
    trail.is_found(&[], &["batch_forged", "epoch_forged"], &anchored).await;
    // What hashes alone cannot see, and an anchor can.
    let hashes_only = Verifier::new(Arc::clone(&trail.bed.store));
    assert!(hashes_only.full(trail.bed.clock.now()).await.unwrap().is_clean());
    let anchored = hashes_only.anchor(trail.checkpoints[1].clone());
    assert_eq!(codes(&anchored.full(trail.bed.clock.now()).await.unwrap()), ["log_rewritten"]);
}

async fn a_rewrite_with_one_key(bed: Bed) {
    let mut trail = Trail::new(bed).await;
    rewrite(&mut trail, keys_of(true, false)).await;
    trail.is_found(&[], &["epoch_forged"], &["epoch_forged", "log_rewritten"]).await;
    rewrite(&mut trail, keys_of(false, true)).await;
    trail.is_found(&[], &["batch_forged"], &["batch_forged", "log_rewritten"]).await;
}

async fn a_rewrite_with_all_keys(bed: Bed) {
    let mut trail = Trail::new(bed).await;
    rewrite(&mut trail, keys_of(true, true)).await;
    trail.is_found(&[], &[], &["log_rewritten"]).await;
}

async fn a_lawful_erasure(bed: Bed) {
    let trail = Trail::new(bed).await;
    let log = trail.bed.log();
    let data = metertrail::audit::PersonalData::new("p-1", "ada@example.org").unwrap();
    let event = uploaded("acme", 30).with_personal("email", data).unwrap();
    log.record(event).await.unwrap();
    log.seal_epoch().await.unwrap();
    assert_eq!(trail.found().await, [""; 0]);
    log.erase_subject(&tenant("acme"), &label("p-1"), ada()).await.unwrap();
    trail.is_found_by_all(&[]).await;
    log.seal_epoch().await.unwrap();
    trail.is_found_by_all(&[]).await;
}

async fn an_edit_of_what_no_epoch_has_sealed(bed: Bed) {
    let trail = Trail::new(bed).await;
    let log = trail.bed.log();
    let events: Vec<AuditEvent> = (40..43).map(|second| uploaded("acme", second)).collect();
    keep(&log, std::slice::from_ref(&events)).await;
    assert_eq!(trail.found().await, [""; 0]);
    let (edited, deleted) = (events[0].clone(), events[1].clone());
    let sql = format!(
        "UPDATE metertrail.audit_events SET metadata = '{{\"bytes\": 1}}' WHERE id = '{}';
        DELETE FROM metertrail.audit_events WHERE id = '{}'",
        edited.id(),
        deleted.id()
    );
    let hand = |tables: &mut AuditTables| {
        let acme = tenant("acme");
        let kept = tables.events.get_mut(&(acme.clone(), edited.id())).unwrap();
        kept.metadata = metertrail::Metadata::new(serde_json::json!({"bytes": 1})).unwrap();
        tables.events.remove(&(acme, deleted.id())).unwrap();
    };
    trail.touch(&sql, hand).await;
    assert_eq!(trail.found().await, ["edited", "missing"]);
}

async fn a_batch_that_is_kept_from_the_sealer(bed: Bed) {
    let trail = Trail::new(bed).await;
    let log = trail.bed.log();
    log.record(uploaded("acme", 40)).await.unwrap();
    trail.is_found_by_all(&[]).await;
    trail.touch("DELETE FROM metertrail.audit_unsealed", |tables| tables.unsealed.clear()).await;
    assert!(log.seal_epoch().await.unwrap().is_none());
    trail.is_found_by_all(&["stale"]).await;
}

/// A trail that was put back holds together; who sealed what is gone knows better.
async fn a_sealer_that_has_seen_more(bed: Bed) {
    let trail = Trail::new(bed).await;
    let log = trail.bed.log();
    log.record(uploaded("corp", 50)).await.unwrap();
    log.seal_epoch().await.unwrap().unwrap();
    trail.restore().await;
    log.record(uploaded("corp", 51)).await.unwrap();
    let error = log.seal_epoch().await.unwrap_err();
    assert!(error.to_string().contains("cut back"), "{error}");
}

/// The sealer does not sign what was altered behind its back.
async fn an_edited_key_of_a_tree(bed: Bed) {
    let trail = Trail::new(bed).await;
    let forged = metertrail::audit::Hash::leaf(b"forged");
    let sql = format!("UPDATE metertrail.audit_heads SET root = '\\x{forged}' WHERE tenant_id = 'corp'");
    trail.touch(&sql, |tables| tables.heads.get_mut(&tenant("corp")).unwrap().root = forged).await;
    assert_eq!(trail.found().await, ["tenants_altered", "tree_altered"]);
    let log = trail.bed.log();
    log.record(uploaded("acme", 40)).await.unwrap();
    let error = log.seal_epoch().await.unwrap_err();
    assert_eq!(error.kind(), metertrail::ErrorKind::Store);
    assert!(log.health().seal_error.is_some());
}

/// Whoever has the sealer's key only can sign a tree with a leaf more, but no batch that lists it.
async fn a_sealer_that_adds_an_event_by_itself(bed: Bed) {
    let mut trail = Trail::new(bed).await;
    trail.events.push(uploaded("corp", 60));
    let forger = trail.bed.builder().keys(keys_of(false, true)).start().unwrap();
    forger.record(uploaded("corp", 60)).await.unwrap();
    forger.seal_epoch().await.unwrap();
    assert_eq!(trail.found().await, ["batch_forged"]);
    let mine = trail.bed.store.audit_batches(None, 100).await.unwrap();
    let mine =
        mine.iter().find(|batch| !batch.is_signed_by(&[writer_key().verifying_key()])).unwrap().clone();
    let sql = format!("DELETE FROM metertrail.audit_batches WHERE writer_id = '{}'", mine.writer_id);
    trail.touch(&sql, |tables| drop(tables.batches.remove(&(mine.writer_id, mine.sequence)))).await;
    let named = trail.named().await;
    assert_eq!(named.len(), 1, "{named:?}");
    assert!(named[0].starts_with("unattested:"), "{named:?}");
}

/// Its events are still there, sealed by the epoch; that their writer signed them can no longer be told.
async fn a_sealed_batch_that_is_deleted(bed: Bed) {
    let trail = Trail::new(bed).await;
    let sql = "DELETE FROM metertrail.audit_batches WHERE sequence = 1";
    trail.touch(sql, |tables| tables.batches.retain(|(_, sequence), _| *sequence != 1)).await;
    trail.is_found_by_all(&["unattested"]).await;
    assert_eq!(trail.named().await.len(), 10);
}

/// The next batch of its chain names it.
async fn a_batch_inside_of_a_chain_that_is_deleted(bed: Bed) {
    let trail = Trail::new(bed).await;
    let kept = trail.bed.store.audit_batches(None, 100).await.unwrap();
    let writer = kept.iter().find(|batch| batch.sequence == 1).unwrap().writer_id;
    let sql = format!("DELETE FROM metertrail.audit_batches WHERE writer_id = '{writer}' AND sequence = 0");
    trail.touch(&sql, |tables| drop(tables.batches.remove(&(writer, 0)))).await;
    trail.is_found_by_all(&["missing_batch", "unattested"]).await;
    assert!(trail.named().await.contains(&format!("missing_batch: batch 0 of writer {writer}")));
}

async fn a_deleted_epoch(bed: Bed) {
    let trail = Trail::new(bed).await;
    let sql = "DELETE FROM metertrail.audit_epochs WHERE number = 0";
    trail.touch(sql, |tables| drop(tables.epochs.remove(&0))).await;
    trail.is_found_by_all(&["missing_epoch"]).await;
    assert_eq!(trail.named().await, ["missing_epoch: epoch 0"]);
}

async fn a_forged_anchor(bed: Bed) {
    let trail = Trail::new(bed).await;
    let now = trail.bed.clock.now();
    let newest = &trail.checkpoints[1];
    let bare = || Checkpoint::new(Origin::default(), newest.size(), newest.root());
    let stranger = AuditSigningKey::generate("example.org/sealer").unwrap();
    for forged in [bare(), bare().signed(&stranger)] {
        let report = trail.bed.verifier().anchor(forged).full(now).await.unwrap();
        assert_eq!(codes(&report), ["anchor_forged"]);
    }
    let foreign = Checkpoint::new(Origin::new("example.org/other").unwrap(), newest.size(), newest.root());
    let verifier = trail.bed.verifier().origin(Origin::default());
    let report = verifier.anchor(foreign.signed(&sealer_key())).full(now).await.unwrap();
    assert_eq!(codes(&report), ["anchor_forged"]);
}

/// Signed by the right keys, for another trail.
async fn what_was_signed_for_another_trail(bed: Bed) {
    let mut trail = Trail::new(bed).await;
    let other = Origin::new("example.org/other").unwrap();
    let chain = WriterChain::new(other.clone());
    let foreign = chain.seal(vec![uploaded("acme", 30)], Some(&writer_key()), trail.bed.clock.now()).unwrap();
    trail.bed.store.append_audit(&foreign).await.unwrap();
    trail.is_found_by_all(&["batch_forged"]).await;
    // A sealer leaves it alone, and seals what is behind it.
    let log = trail.bed.log();
    log.record(uploaded("corp", 31)).await.unwrap();
    trail.checkpoints.extend(log.seal_epoch().await.unwrap());
    assert!(log.health().seal_error.is_some());
    let left = trail.bed.store.unsealed_batches(10).await.unwrap();
    assert_eq!(left, std::slice::from_ref(foreign.record()));
    // A sealer of the other trail does not go on with this log, and who asks for the other one finds nothing of it.
    let stranger = trail.bed.builder().origin(other.clone()).start().unwrap();
    assert!(stranger.seal_epoch().await.unwrap_err().to_string().contains("another trail"));
    let report = trail.bed.verifier().origin(other).full(trail.bed.clock.now()).await.unwrap();
    assert_eq!(codes(&report), ["batch_forged", "epoch_forged"]);
}

/// A batch that a writer signed and never committed, of events that another one has: it hides that one's deletion.
async fn a_batch_that_was_given_up_and_put_there(bed: Bed) {
    let trail = Trail::new(bed).await;
    let mine: Vec<AuditEvent> = (6..10).map(|second| trail.event(second).clone()).collect();
    let chain = WriterChain::new(Origin::default());
    let given_up = chain.seal(mine, Some(&writer_key()), trail.bed.clock.now()).unwrap();
    let record = given_up.record();
    let [header, manifest, signature] =
        [&record.header, &record.manifest, record.signature.as_ref().unwrap()].map(|bytes| hex(bytes));
    let sql = format!(
        "INSERT INTO metertrail.audit_batches VALUES ('{}', 0, '\\x{header}', '\\x{manifest}', '\\x{signature}')",
        record.writer_id
    );
    trail.touch(&sql, |tables| drop(tables.batches.insert((record.writer_id, 0), record.clone()))).await;
    assert!(trail.found().await.contains(&"batch_forged"));
}

/// Keys that are kept apart: who writes does not seal, and the log begins with the first signed epoch.
async fn a_process_without_the_sealers_key_begins_no_log(bed: Bed) {
    let writer = bed.builder().keys(StaticKeys::new().writer(writer_key())).start().unwrap();
    writer.record(uploaded("acme", 1)).await.unwrap();
    assert_eq!(writer.seal_epoch().await.unwrap(), None);
    let bare = bed.builder().keys(NoKeys).start().unwrap();
    assert_eq!(bare.seal_epoch().await.unwrap(), None);
    let public = StaticKeys::new().sealer(sealer_key()).other_writer(writer_key().verifying_key());
    let sealer = bed.builder().keys(public).start().unwrap();
    assert!(sealer.seal_epoch().await.unwrap().is_some());
    assert_eq!(codes(&bed.verified().await), [""; 0]);
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}
