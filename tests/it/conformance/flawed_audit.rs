//! Stores that break one sentence about the audit trail each, and the cases that find them out.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::AssertUnwindSafe;
use std::sync::{Mutex, PoisonError};

use futures_util::FutureExt;
use metertrail::audit::{
    AuditEvent, AuditQuery, AuditState, BatchRecord, KeptNode, NewEpoch, SealedBatch, StoredEpoch, TreeLeaf,
    WriterChain, WriterId,
};
use metertrail::store::{AUDIT_READ_MAX, AuditRow, AuditStore, BatchAppended, KeyErased};
use metertrail::testing::conformance::audit::{AuditCase, CASES};
use metertrail::testing::{delegate_audit_store, tamper};
use metertrail::{Error, ErrorKind, EventId, Label, MemoryStore, Page, Result, TenantId};
use uuid::Uuid;

use super::in_between;

flaws! {
    AuditCase:
    a_store_that_takes_a_batch_for_another: TakesAnyBatchForTheFirst =>
        [a_batch_is_kept_once, callers_at_once_keep_a_batch_once];
    a_store_that_seals_repetitions_again: MarksRepetitions => [a_batch_is_kept_once];
    a_store_that_keeps_what_is_new_of_a_batch: KeepsTheRest => [a_batch_is_all_or_nothing];
    a_store_that_writes_in_two_steps: WritesInTwoSteps =>
        [a_batch_is_seen_whole, a_dropped_append_has_done_all_or_nothing];
    a_store_that_marks_a_batch_later: MarksLater => [a_batch_is_seen_whole, a_dropped_append_has_done_all_or_nothing];
    a_store_that_tells_all_callers_that_they_are_new: LooksBeforeItWrites => [callers_at_once_keep_a_batch_once];
    a_store_that_is_a_read_late: ReadsLate => [an_append_is_seen_at_once];
    a_store_whose_state_is_an_epoch_late: StatesLate => [an_append_is_seen_at_once];
    a_store_that_cuts_microseconds: CutsMicroseconds => [everything_comes_back_to_the_byte];
    a_store_that_forgets_what_events_stand_for: ForgetsRepresents => [everything_comes_back_to_the_byte];
    a_store_that_forgets_persons: ForgetsPersons => [everything_comes_back_to_the_byte];
    a_store_that_forgets_signatures: ForgetsSignatures => [everything_comes_back_to_the_byte];
    a_store_that_changes_events_later: ChangesEvents => [what_was_written_stays_as_it_is];
    a_store_that_changes_nodes_later: ChangesNodes => [what_was_written_stays_as_it_is];
    a_store_that_wants_whole_chains: WantsWholeChains => [a_store_verifies_no_batch];
    a_store_whose_pages_overlap: PagesOverlap => [a_trail_is_paged, a_trail_is_filtered];
    a_store_that_ignores_results: IgnoresResults => [a_trail_is_filtered];
    a_store_that_ignores_targets: IgnoresTargets => [a_trail_is_filtered];
    a_store_that_ignores_who_an_actor_is: IgnoresActors => [a_trail_is_filtered];
    a_store_that_takes_any_cursor: TakesAnyCursor => [a_cursor_of_another_query_is_refused];
    a_store_that_folds_case_in_its_order: OrdersLikePeople => [tenants_come_in_byte_order];
    a_store_that_begins_with_the_tenant_itself: BeginsWithTheTenant => [tenants_come_in_byte_order];
    a_store_that_reads_rows_backwards: ReadsRowsBackwards => [rows_come_in_the_order_of_their_ids];
    a_store_that_begins_with_the_row_itself: BeginsWithTheRow => [rows_come_in_the_order_of_their_ids];
    a_store_that_takes_one_tenant_for_another: ConfusesTenants => [rows_are_found_by_their_keys];
    a_store_that_orders_batches_by_sequence: OrdersBatchesBySequence => [batches_come_in_the_order_of_their_chains];
    a_store_that_reads_without_bounds: ReadsWithoutBounds => [no_more_is_read_than_one_call_gives];
    a_store_that_begins_with_the_newest_batch: SealsNewestFirst => [unsealed_batches_come_oldest_first];
    a_store_that_notes_all_that_is_asked: NotesAll => [batches_wait_until_they_are_sealed];
    a_store_that_leaves_gaps_in_chains: LeavesGaps => [unsealed_batches_come_oldest_first];
    a_store_that_takes_epochs_over_sealed_batches: SealsAgain =>
        [an_epoch_is_kept_once, an_epoch_is_all_or_nothing];
    a_store_that_leaves_numbers_out: LeavesNumbersOut => [an_epoch_is_kept_once];
    a_store_that_tells_all_sealers_that_they_are_first: TellsAllSealers =>
        [an_epoch_is_kept_once, of_sealers_at_once_one_is_kept, a_dropped_epoch_is_kept_or_not];
    a_store_that_keeps_heads_of_refused_epochs: KeepsRefusedHeads => [an_epoch_is_all_or_nothing];
    a_store_that_seals_in_two_steps: SealsInTwoSteps => [the_state_is_one_snapshot, a_dropped_epoch_is_kept_or_not];
    a_store_that_begins_behind_the_number: BeginsBehindTheNumber => [epochs_come_from_a_number_on];
    a_store_that_orders_heads_otherwise: OrdersHeadsBackwards => [the_state_is_one_snapshot];
    a_store_that_keeps_no_upper_nodes: KeepsLeavesOnly => [nodes_come_by_level_and_position];
    a_store_that_begins_behind_the_position: BeginsBehindThePosition => [nodes_come_by_level_and_position];
    a_store_that_orders_leaves_by_position: OrdersLeavesByPosition => [leaves_come_by_event];
    a_store_that_finds_leaves_of_other_tenants: ConfusesLeaves => [leaves_come_by_event];
    a_store_that_checks_checkpoints: ChecksCheckpoints => [a_store_verifies_no_epoch];
    a_store_whose_last_key_stays: KeepsTheLastKey => [the_first_key_of_a_person_stays];
    a_store_whose_callers_do_not_take_turns: PutsWithoutTurns => [the_first_key_of_a_person_stays];
    a_store_that_only_says_that_a_key_is_gone: ErasesNothing => [an_erased_key_is_gone];
    a_store_that_erases_a_tenant: ErasesTheTenant => [an_erased_key_is_gone];
    a_store_that_ignores_holds: IgnoresHolds => [a_hold_keeps_the_keys_it_names, a_hold_is_released];
    a_store_that_holds_persons_only: HoldsPersonsOnly => [a_hold_keeps_the_keys_it_names];
    a_store_that_holds_everybody: HoldsEverybody => [a_hold_keeps_the_keys_it_names];
    a_store_that_never_releases: NeverReleases => [a_hold_is_released];
    a_store_that_releases_all_at_once: ReleasesAll => [a_hold_is_released];
}

#[test]
fn every_case_is_failed_by_a_store() {
    let cases: BTreeSet<&str> = CASES.iter().map(AuditCase::name).collect();
    assert_eq!(cases.len(), CASES.len(), "a case is listed twice");
    assert_eq!(FAILED.iter().copied().collect::<BTreeSet<&str>>(), cases);
}

/// It is the flaws that are found, and not the store around them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_a_flaw_passes() {
    for case in CASES {
        case.run(FlawedStore::new(Flaw::None)).await;
    }
}

/// The memory store with something wrong.
#[derive(Debug)]
struct FlawedStore {
    flaw: Flaw,
    store: MemoryStore,
    trails: Mutex<BTreeMap<TenantId, Vec<AuditEvent>>>,
    states: Mutex<AuditState>,
}

impl FlawedStore {
    fn new(flaw: Flaw) -> Self {
        Self { flaw, store: MemoryStore::new(), trails: Mutex::default(), states: Mutex::default() }
    }

    /// The same events in a chain of their own, which leave their own record aside.
    async fn append_apart(&self, events: Vec<AuditEvent>) -> Result<BatchAppended> {
        let batch = WriterChain::new(metertrail::audit::Origin::default()).seal(
            events,
            None,
            metertrail::time::TIME_MIN,
        )?;
        let record = batch.record().clone();
        let appended = self.store.append_audit(&batch).await?;
        tamper(&self.store, |tables| {
            tables.batches.remove(&(record.writer_id, record.sequence));
            tables.unsealed.retain(|(_, writer, _)| *writer != record.writer_id);
        });
        Ok(appended)
    }

    fn change_events(&self, change: impl Fn(&mut AuditEvent)) {
        tamper(&self.store, |tables| tables.events.values_mut().for_each(change));
    }

    fn has(&self, batch: &SealedBatch) -> bool {
        let key = (batch.record().writer_id, batch.record().sequence);
        tamper(&self.store, |tables| tables.batches.contains_key(&key))
    }

    fn is_taken(&self, event: &AuditEvent) -> bool {
        let key = (event.tenant_id.clone(), event.id());
        tamper(&self.store, |tables| tables.events.contains_key(&key))
    }
}

fn without_microseconds(event: &AuditEvent) -> Result<AuditEvent> {
    let cut = event.occurred_at().timestamp_millis();
    let mut other = AuditEvent::from_stored(
        event.tenant_id.clone(),
        event.id(),
        chrono::DateTime::from_timestamp_millis(cut).unwrap(),
        event.event_type.clone(),
        event.actor.clone(),
        event.action.clone(),
        event.result,
    )?;
    other.schema_version = event.schema_version;
    other.target.clone_from(&event.target);
    other.severity = event.severity;
    other.context = event.context.clone();
    other.represents = event.represents;
    other.metadata = event.metadata.clone();
    other.error_message.clone_from(&event.error_message);
    other.personal.clone_from(&event.personal);
    Ok(other)
}

#[async_trait::async_trait]
impl AuditStore for FlawedStore {
    async fn append_audit(&self, batch: &SealedBatch) -> Result<BatchAppended> {
        let (record, is_known) = (batch.record(), self.has(batch));
        match self.flaw {
            Flaw::TakesAnyBatchForTheFirst if is_known => return Ok(BatchAppended::Duplicate),
            Flaw::KeepsTheRest if !is_known => {
                let rest: Vec<AuditEvent> =
                    batch.events().iter().filter(|event| !self.is_taken(event)).cloned().collect();
                if rest.len() < batch.events().len() {
                    self.append_apart(rest).await?;
                    return Err(Error::new(ErrorKind::Conflict, "an id is taken"));
                }
            }
            Flaw::WritesInTwoSteps if !is_known => {
                let (left, right) = batch.events().split_at(batch.events().len() / 2);
                if !left.is_empty() && !batch.events().iter().any(|event| self.is_taken(event)) {
                    self.append_apart(left.to_vec()).await?;
                    in_between().await;
                    self.append_apart(right.to_vec()).await?;
                    tamper(&self.store, |tables| {
                        tables.batches.insert((record.writer_id, record.sequence), record.clone());
                        tables.unsealed.insert((batch.sealed_at(), record.writer_id, record.sequence));
                    });
                    return Ok(BatchAppended::New);
                }
            }
            Flaw::MarksLater if !is_known && !batch.events().iter().any(|event| self.is_taken(event)) => {
                self.append_apart(batch.events().to_vec()).await?;
                in_between().await;
                tamper(&self.store, |tables| {
                    tables.batches.insert((record.writer_id, record.sequence), record.clone());
                    tables.unsealed.insert((batch.sealed_at(), record.writer_id, record.sequence));
                });
                return Ok(BatchAppended::New);
            }
            Flaw::LooksBeforeItWrites if !is_known => {
                in_between().await;
                return Ok(match self.store.append_audit(batch).await? {
                    BatchAppended::Conflict => BatchAppended::Conflict,
                    _ => BatchAppended::New,
                });
            }
            Flaw::WantsWholeChains => {
                let before = record.sequence.checked_sub(1).map(|before| (record.writer_id, before));
                if before
                    .is_some_and(|before| tamper(&self.store, |tables| !tables.batches.contains_key(&before)))
                {
                    return Err(Error::invalid("batch", "does not follow the one before"));
                }
            }
            _ => {}
        }
        let appended = self.store.append_audit(batch).await?;
        match self.flaw {
            Flaw::MarksRepetitions => tamper(&self.store, |tables| {
                tables.unsealed.insert((batch.sealed_at(), record.writer_id, record.sequence));
            }),
            Flaw::ForgetsRepresents => self.change_events(|event| event.represents = 1),
            Flaw::ForgetsPersons => self.change_events(|event| event.personal.clear()),
            Flaw::CutsMicroseconds => {
                self.change_events(|event| *event = without_microseconds(event).unwrap());
            }
            Flaw::ForgetsSignatures => tamper(&self.store, |tables| {
                tables.batches.values_mut().for_each(|batch| batch.signature = None);
            }),
            Flaw::ChangesEvents => tamper(&self.store, |tables| {
                if tables.events.len() > 4 {
                    tables.events.values_mut().for_each(|event| event.represents = 2);
                }
            }),
            _ => {}
        }
        Ok(appended)
    }

    async fn audit_trail(&self, query: &AuditQuery) -> Result<Page<AuditEvent>> {
        let mut asked = query.clone();
        match self.flaw {
            Flaw::IgnoresResults => asked.results.clear(),
            Flaw::IgnoresTargets => asked.target = None,
            Flaw::IgnoresActors => asked.actor = None,
            Flaw::TakesAnyCursor if query.position().is_err() => asked.after = None,
            _ => {}
        }
        if matches!(self.flaw, Flaw::IgnoresResults | Flaw::IgnoresTargets | Flaw::IgnoresActors) {
            // Its cursors are those of another query, so it reads them all again.
            asked.after = None;
            asked.page_size = metertrail::PageSize::new(1_000)?;
        }
        let mut page = self.store.audit_trail(&asked).await?;
        if self.flaw == Flaw::PagesOverlap
            && let Some(first) = page.items.first().cloned()
        {
            page.items.insert(0, first);
            page.items.truncate(query.page_size.get().into());
        }
        if self.flaw == Flaw::ReadsLate {
            let mut trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
            let before = trails.insert(query.tenant_id.clone(), page.items.clone());
            page.items = before.unwrap_or_default();
        }
        Ok(page)
    }

    async fn audit_tenants(&self, after: Option<&TenantId>, limit: u32) -> Result<Vec<TenantId>> {
        let mut all = self.store.audit_tenants(None, AUDIT_READ_MAX).await?;
        if self.flaw == Flaw::OrdersLikePeople {
            all.sort_by_key(|tenant| (tenant.as_str().to_lowercase(), tenant.clone()));
        }
        let is_behind = |tenant: &TenantId| match self.flaw {
            Flaw::BeginsWithTheTenant => after.is_none_or(|after| tenant >= after),
            _ => after.is_none_or(|after| tenant > after),
        };
        all.retain(is_behind);
        all.truncate(limit as usize);
        Ok(all)
    }

    async fn audit_rows(
        &self,
        tenant_id: &TenantId,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<AuditRow>> {
        match self.flaw {
            Flaw::ReadsRowsBackwards => {
                let mut rows = self.store.audit_rows(tenant_id, after, limit).await?;
                rows.reverse();
                Ok(rows)
            }
            Flaw::BeginsWithTheRow => {
                let before = after.map(|after| Uuid::from_u128(after.as_u128().saturating_sub(1)));
                self.store.audit_rows(tenant_id, before, limit).await
            }
            Flaw::ReadsWithoutBounds => {
                let mut rows = self.store.audit_rows(tenant_id, after, limit).await?;
                while rows.len() < limit as usize {
                    let more = self.store.audit_rows(tenant_id, rows.last().map(|row| row.id), limit).await?;
                    if more.is_empty() {
                        break;
                    }
                    rows.extend(more);
                }
                Ok(rows)
            }
            _ => self.store.audit_rows(tenant_id, after, limit).await,
        }
    }

    async fn audit_rows_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<AuditRow>> {
        if self.flaw != Flaw::ConfusesTenants {
            return self.store.audit_rows_by_key(keys).await;
        }
        let ids: BTreeSet<EventId> = keys.iter().map(|(_, id)| *id).collect();
        let found: Vec<(TenantId, EventId)> = tamper(&self.store, |tables| {
            tables.events.keys().filter(|(_, id)| ids.contains(id)).cloned().collect()
        });
        // As many as keys ask for the id, under the tenant that asks.
        let asked = keys.iter().filter_map(|(tenant_id, id)| {
            let (owner, _) = found.iter().find(|(_, other)| other == id)?;
            Some((tenant_id.clone(), (owner.clone(), *id)))
        });
        let mut rows = Vec::new();
        for (tenant_id, key) in asked {
            rows.extend(
                self.store
                    .audit_rows_by_key(&[key])
                    .await?
                    .into_iter()
                    .map(|row| AuditRow { tenant_id: tenant_id.clone(), ..row }),
            );
        }
        Ok(rows)
    }

    async fn audit_batches(&self, after: Option<(WriterId, u64)>, limit: u32) -> Result<Vec<BatchRecord>> {
        let mut batches = self.store.audit_batches(after, limit).await?;
        if self.flaw == Flaw::OrdersBatchesBySequence {
            batches.sort_by_key(|batch| (batch.sequence, batch.writer_id));
        }
        Ok(batches)
    }

    async fn unsealed_batches(&self, limit: u32) -> Result<Vec<BatchRecord>> {
        match self.flaw {
            Flaw::SealsNewestFirst => {
                let mut all = self.store.unsealed_batches(AUDIT_READ_MAX).await?;
                all.reverse();
                // The chains are whole, so that it is the order between them alone.
                all.truncate(limit as usize);
                Ok(all)
            }
            Flaw::LeavesGaps => {
                let mut all = self.store.unsealed_batches(AUDIT_READ_MAX).await?;
                let instant = |batch: &BatchRecord| batch.open().unwrap().0.sealed_at;
                all.sort_by_key(|batch| (instant(batch), std::cmp::Reverse(batch.sequence)));
                all.truncate(limit as usize);
                Ok(all)
            }
            _ => self.store.unsealed_batches(limit).await,
        }
    }

    async fn unsealed_among(&self, batches: &[(WriterId, u64)]) -> Result<Vec<(WriterId, u64)>> {
        if self.flaw == Flaw::NotesAll {
            return Ok(batches.to_vec());
        }
        self.store.unsealed_among(batches).await
    }

    async fn append_epoch(&self, epoch: &NewEpoch) -> Result<bool> {
        let mut epoch = epoch.clone();
        match self.flaw {
            Flaw::SealsAgain => {
                let unsealed = self.store.unsealed_batches(AUDIT_READ_MAX).await?;
                let keys: BTreeSet<(WriterId, u64)> =
                    unsealed.iter().map(|batch| (batch.writer_id, batch.sequence)).collect();
                epoch.batches.retain(|key| keys.contains(key));
            }
            Flaw::LeavesNumbersOut => {
                let next = self.store.audit_state().await?.epoch.map_or(0, |epoch| epoch.number + 1);
                if epoch.epoch.number >= next {
                    epoch.epoch.number = next;
                }
            }
            Flaw::ChecksCheckpoints => {
                epoch.epoch.checkpoint.parse::<metertrail::audit::Checkpoint>()?;
            }
            Flaw::KeepsLeavesOnly => epoch.nodes.retain(|new| new.kept.node.level == 0),
            Flaw::SealsInTwoSteps => {
                let later = epoch.heads.clone();
                let kept = self.store.append_epoch(&without_heads(&epoch)).await?;
                in_between().await;
                if kept {
                    tamper(&self.store, |tables| {
                        tables.heads.extend(later.into_iter().map(|head| (head.tenant_id.clone(), head)));
                    });
                }
                return Ok(kept);
            }
            _ => {}
        }
        let is_kept = self.store.append_epoch(&epoch).await?;
        tamper(&self.store, |tables| match self.flaw {
            Flaw::KeepsRefusedHeads => {
                let heads = epoch.heads.iter().cloned();
                tables.heads.extend(heads.map(|head| (head.tenant_id.clone(), head)));
            }
            Flaw::ChangesNodes => {
                if tables.epochs.len() > 1
                    && let Some((hash, _)) = tables.nodes.values_mut().next()
                {
                    *hash = metertrail::audit::Hash::ZERO;
                }
            }
            _ => {}
        });
        Ok(is_kept || self.flaw == Flaw::TellsAllSealers)
    }

    async fn audit_epochs(&self, from: u64, limit: u32) -> Result<Vec<StoredEpoch>> {
        let from = if self.flaw == Flaw::BeginsBehindTheNumber && from > 0 { from + 1 } else { from };
        self.store.audit_epochs(from, limit).await
    }

    async fn audit_state(&self) -> Result<AuditState> {
        let mut state = self.store.audit_state().await?;
        if self.flaw == Flaw::OrdersHeadsBackwards {
            state.heads.reverse();
        }
        if self.flaw == Flaw::StatesLate {
            let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
            return Ok(std::mem::replace(&mut *states, state));
        }
        Ok(state)
    }

    async fn tree_nodes(
        &self,
        tenant_id: &TenantId,
        level: u8,
        from: u64,
        limit: u32,
    ) -> Result<Vec<KeptNode>> {
        let from = if self.flaw == Flaw::BeginsBehindThePosition && from > 0 { from + 1 } else { from };
        self.store.tree_nodes(tenant_id, level, from, limit).await
    }

    async fn tree_leaves(
        &self,
        tenant_id: &TenantId,
        after: Option<EventId>,
        limit: u32,
    ) -> Result<Vec<TreeLeaf>> {
        let mut leaves = self.store.tree_leaves(tenant_id, after, limit).await?;
        if self.flaw == Flaw::OrdersLeavesByPosition {
            leaves.sort_by_key(|leaf| leaf.position);
        }
        Ok(leaves)
    }

    async fn tree_leaves_by_key(&self, keys: &[(TenantId, EventId)]) -> Result<Vec<(TenantId, TreeLeaf)>> {
        if self.flaw != Flaw::ConfusesLeaves {
            return self.store.tree_leaves_by_key(keys).await;
        }
        let found = |(tenant_id, id): &(TenantId, EventId)| {
            let leaves = tamper(&self.store, |tables| tables.leaves.clone());
            let leaf = leaves.iter().find(|((_, other), _)| other == id).map(|(_, leaf)| *leaf)?;
            Some((tenant_id.clone(), leaf))
        };
        Ok(keys.iter().filter_map(found).collect())
    }

    async fn put_subject_key(&self, tenant_id: &TenantId, subject: &Label, key: &[u8]) -> Result<Vec<u8>> {
        let place = (tenant_id.clone(), subject.clone());
        let is_there = self.store.subject_key(tenant_id, subject).await?.is_some();
        match self.flaw {
            Flaw::PutsWithoutTurns if !is_there => {
                in_between().await;
                tamper(&self.store, |tables| tables.subject_keys.insert(place, key.to_vec()));
                Ok(key.to_vec())
            }
            Flaw::KeepsTheLastKey => {
                tamper(&self.store, |tables| tables.subject_keys.insert(place, key.to_vec()));
                Ok(key.to_vec())
            }
            _ => self.store.put_subject_key(tenant_id, subject, key).await,
        }
    }

    async fn erase_subject_key(&self, tenant_id: &TenantId, subject: &Label) -> Result<KeyErased> {
        let holds = tamper(&self.store, |tables| tables.holds.clone());
        match self.flaw {
            Flaw::IgnoresHolds => tamper(&self.store, |tables| tables.holds.clear()),
            Flaw::HoldsPersonsOnly => tamper(&self.store, |tables| {
                tables.holds.retain(|(_, subject), _| subject.is_some());
            }),
            Flaw::HoldsEverybody => tamper(&self.store, |tables| {
                for ((tenant_id, _), reason) in &holds {
                    tables.holds.insert((tenant_id.clone(), None), reason.clone());
                }
            }),
            _ => {}
        }
        let key = self.store.subject_key(tenant_id, subject).await?;
        let erased = self.store.erase_subject_key(tenant_id, subject).await?;
        tamper(&self.store, |tables| {
            tables.holds = holds;
            match (self.flaw, key) {
                (Flaw::ErasesNothing, Some(key)) => {
                    tables.subject_keys.insert((tenant_id.clone(), subject.clone()), key);
                }
                (Flaw::ErasesTheTenant, _) if erased == KeyErased::Erased => {
                    tables.subject_keys.retain(|(other, _), _| other != tenant_id);
                }
                _ => {}
            }
        });
        Ok(erased)
    }

    async fn set_legal_hold(
        &self,
        tenant_id: &TenantId,
        subject: Option<&Label>,
        reason: Option<&Label>,
    ) -> Result<()> {
        match (self.flaw, reason) {
            (Flaw::NeverReleases, None) => return Ok(()),
            (Flaw::ReleasesAll, None) => tamper(&self.store, |tables| {
                tables.holds.retain(|(other, _), _| other != tenant_id);
            }),
            _ => {}
        }
        self.store.set_legal_hold(tenant_id, subject, reason).await
    }

    delegate_audit_store!(
        |flawed| flawed.store,
        except append_audit, audit_trail, audit_tenants, audit_rows, audit_rows_by_key, audit_batches,
            unsealed_batches, unsealed_among, append_epoch, audit_epochs, audit_state, tree_nodes, tree_leaves,
            tree_leaves_by_key, put_subject_key, erase_subject_key, set_legal_hold
    );
}

fn without_heads(epoch: &NewEpoch) -> NewEpoch {
    let mut epoch = epoch.clone();
    epoch.heads.clear();
    epoch
}
