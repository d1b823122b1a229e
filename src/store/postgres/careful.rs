//! The careful way of writing a batch: claim, write what is not yet there, compare the rest with what is.
//!
//! The outcome is that of appending the events one after the other, in rounds: a round takes events that share neither id
//! nor idempotency key, so that each of its statements meets every key once. Nearly always there is one round.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::append::{Failed, copy_journal};
use super::error::from_postgres;
use super::rows::{EventRow, event, event_columns, get};
use super::sql;
use crate::store::Appended;
use crate::usage::UsageEvent;
use crate::{Error, ErrorKind, Result};

/// What makes an event the same as another: (tenant, idempotency key) or (tenant, id).
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub(super) enum Identity {
    Key(String, String),
    Id(String, Uuid),
}

impl Identity {
    fn key_of(event: &UsageEvent) -> Option<Self> {
        let key = event.idempotency_key.as_ref()?;
        Some(Self::Key(event.tenant_id.as_str().to_owned(), key.as_str().to_owned()))
    }

    fn id_of(event: &UsageEvent) -> Self {
        Self::Id(event.tenant_id.as_str().to_owned(), event.id().as_uuid())
    }
}

/// Whether no two events of a batch share an id or a key.
pub(super) fn all_distinct(batch: &[UsageEvent]) -> bool {
    let mut ids = HashSet::with_capacity(batch.len());
    let mut keys = HashSet::new();
    batch.iter().all(|event| {
        let tenant = event.tenant_id.as_str();
        let key = event.idempotency_key.as_ref();
        ids.insert((tenant, event.id())) && key.is_none_or(|key| keys.insert((tenant, key.as_str())))
    })
}

/// Writes what of a batch is not yet there.
pub(super) async fn append_careful(
    transaction: &Transaction<'_>,
    batch: &[UsageEvent],
) -> Result<Vec<Appended>> {
    let mut results: Vec<Option<Appended>> = vec![None; batch.len()];
    let mut new: Vec<&UsageEvent> = Vec::new();
    // Over all rounds: who owns a key or an id does not change any more.
    let mut known: HashMap<Identity, Cow<'_, UsageEvent>> = HashMap::new();
    loop {
        let round = next_round(batch, &results);
        if round.is_empty() {
            break;
        }
        let written = write_round(transaction, batch, &round, &mut known).await?;
        for position in round {
            let event = &batch[position];
            results[position] = Some(if written.contains(&Identity::id_of(event)) {
                new.push(event);
                Appended::New
            } else {
                compare(event, &known).unwrap_or(Appended::Conflict)
            });
        }
        compare_the_rest(batch, &mut results, &known);
    }
    new.sort_unstable_by(|a, b| (&a.tenant_id, a.id()).cmp(&(&b.tenant_id, b.id())));
    copy_journal(transaction, &new).await.map_err(Failed::into_error)?;
    let undecided = || Error::new(ErrorKind::Store, "an event of the batch was not decided");
    results.into_iter().map(|result| result.ok_or_else(undecided)).collect()
}

/// The positions of the undecided events that share no identity with an undecided event before them, in the order of
/// their keys: rows are always locked in that order.
fn next_round(batch: &[UsageEvent], results: &[Option<Appended>]) -> Vec<usize> {
    let mut seen = HashSet::new();
    let mut round: Vec<usize> = Vec::new();
    for (position, event) in batch.iter().enumerate().filter(|(position, _)| results[*position].is_none()) {
        let fresh_id = seen.insert(Identity::id_of(event));
        let fresh_key = Identity::key_of(event).is_none_or(|key| seen.insert(key));
        if fresh_id && fresh_key {
            round.push(position);
        }
    }
    round.sort_unstable_by(|a, b| {
        let (a, b) = (&batch[*a], &batch[*b]);
        (&a.tenant_id, a.id()).cmp(&(&b.tenant_id, b.id()))
    });
    round
}

/// Decides the events that meet something known, except those that an undecided event before them may still concern.
fn compare_the_rest(
    batch: &[UsageEvent],
    results: &mut [Option<Appended>],
    known: &HashMap<Identity, Cow<'_, UsageEvent>>,
) {
    let mut undecided = HashSet::new();
    for (event, result) in batch.iter().zip(results).filter(|(_, result)| result.is_none()) {
        let identities = || Identity::key_of(event).into_iter().chain([Identity::id_of(event)]);
        // A key goes before the id: while nobody has asked who owns it, the id decides nothing.
        let is_asked = Identity::key_of(event).is_none_or(|key| known.contains_key(&key));
        if is_asked && !identities().any(|identity| undecided.contains(&identity)) {
            *result = compare(event, known);
        }
        if result.is_none() {
            undecided.extend(identities());
        }
    }
}

/// A repetition or a conflict, if something with the event's identity is known. Its key goes before its id.
fn compare(event: &UsageEvent, known: &HashMap<Identity, Cow<'_, UsageEvent>>) -> Option<Appended> {
    let by_key = Identity::key_of(event).and_then(|key| known.get(&key));
    let kept = by_key.or_else(|| known.get(&Identity::id_of(event)))?;
    Some(if kept.same_payload(event) { Appended::Duplicate } else { Appended::Conflict })
}

/// Writes one round: gives the ids that it wrote, and makes known who owns the ids and keys of the round.
async fn write_round<'a>(
    transaction: &Transaction<'_>,
    batch: &'a [UsageEvent],
    round: &[usize],
    known: &mut HashMap<Identity, Cow<'a, UsageEvent>>,
) -> Result<HashSet<Identity>> {
    let events: Vec<&'a UsageEvent> = round.iter().map(|position| &batch[*position]).collect();
    let owners = claim_keys(transaction, &events).await?;
    let taken = |event: &UsageEvent| Identity::key_of(event).is_some_and(|key| owners.contains_key(&key));
    let claimed: Vec<&UsageEvent> = events.iter().copied().filter(|event| !taken(event)).collect();
    let written = write_missing(transaction, &claimed).await?;
    let unused: Vec<Identity> = claimed
        .iter()
        .filter(|event| !written.contains(&Identity::id_of(event)))
        .filter_map(|event| Identity::key_of(event))
        .collect();
    release_keys(transaction, &unused).await?;
    let mut wanted: Vec<Identity> = owners.values().cloned().collect();
    wanted.extend(events.iter().map(|event| Identity::id_of(event)).filter(|id| !written.contains(id)));
    let kept = select_events(transaction, &wanted).await?;
    for (key, owner) in &owners {
        if let Some(event) = kept.get(owner) {
            known.insert(key.clone(), Cow::Owned(event.clone()));
        }
    }
    known.extend(kept.into_iter().map(|(id, event)| (id, Cow::Owned(event))));
    for event in events {
        if written.contains(&Identity::id_of(event)) {
            known.extend(Identity::key_of(event).map(|key| (key, Cow::Borrowed(event))));
            known.insert(Identity::id_of(event), Cow::Borrowed(event));
        }
    }
    Ok(written)
}

/// Claims the keys of a round. Gives the owners of those that were taken before.
async fn claim_keys(
    transaction: &Transaction<'_>,
    events: &[&UsageEvent],
) -> Result<HashMap<Identity, Identity>> {
    let mut keyed: Vec<(&str, &str, Uuid)> = events
        .iter()
        .filter_map(|event| {
            Some((event.tenant_id.as_str(), event.idempotency_key.as_ref()?.as_str(), event.id().as_uuid()))
        })
        .collect();
    if keyed.is_empty() {
        return Ok(HashMap::new());
    }
    keyed.sort_unstable();
    let tenants: Vec<&str> = keyed.iter().map(|(tenant, _, _)| *tenant).collect();
    let keys: Vec<&str> = keyed.iter().map(|(_, key, _)| *key).collect();
    let ids: Vec<Uuid> = keyed.iter().map(|(_, _, id)| *id).collect();
    let parameters: [(&(dyn ToSql + Sync), Type); 3] =
        [(&tenants, Type::TEXT_ARRAY), (&keys, Type::TEXT_ARRAY), (&ids, Type::UUID_ARRAY)];
    let claimed =
        transaction.query_typed(sql::CLAIM_IDEMPOTENCY_KEYS, &parameters).await.map_err(from_postgres)?;
    if claimed.len() == keyed.len() {
        return Ok(HashMap::new());
    }
    let claimed: HashSet<Identity> = claimed.iter().map(key_in).collect::<Result<_>>()?;
    let all = transaction
        .query_typed(sql::SELECT_IDEMPOTENCY_KEYS, &parameters[..2])
        .await
        .map_err(from_postgres)?;
    let owner = |row| Ok((key_in(row)?, Identity::Id(get(row, 0)?, get(row, 2)?)));
    let owners: HashMap<Identity, Identity> = all.iter().map(owner).collect::<Result<_>>()?;
    Ok(owners.into_iter().filter(|(key, _)| !claimed.contains(key)).collect())
}

fn key_in(row: &Row) -> Result<Identity> {
    Ok(Identity::Key(get(row, 0)?, get(row, 1)?))
}

/// Writes the events whose ids are not yet there and gives those ids.
async fn write_missing(transaction: &Transaction<'_>, events: &[&UsageEvent]) -> Result<HashSet<Identity>> {
    if events.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = events.iter().map(|event| EventRow::new(event)).collect::<Result<Vec<_>>>()?;
    let columns = event_columns(&rows);
    let parameters: Vec<(&(dyn ToSql + Sync), Type)> = columns
        .iter()
        .map(|(column, array)| -> (&(dyn ToSql + Sync), Type) { (&**column, array.clone()) })
        .collect();
    let written = transaction.query_typed(sql::APPEND_EVENTS, &parameters).await.map_err(from_postgres)?;
    written.iter().map(|row| Ok(Identity::Id(get(row, 0)?, get(row, 1)?))).collect()
}

async fn release_keys(transaction: &Transaction<'_>, unused: &[Identity]) -> Result<()> {
    let pair = |identity: &Identity| match identity {
        Identity::Key(tenant, key) => Some((tenant.clone(), key.clone())),
        Identity::Id(..) => None,
    };
    let (tenants, keys): (Vec<String>, Vec<String>) = unused.iter().filter_map(pair).unzip();
    if tenants.is_empty() {
        return Ok(());
    }
    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
        [(&tenants, Type::TEXT_ARRAY), (&keys, Type::TEXT_ARRAY)];
    transaction.query_typed(sql::RELEASE_IDEMPOTENCY_KEYS, &parameters).await.map_err(from_postgres)?;
    Ok(())
}

async fn select_events(
    transaction: &Transaction<'_>,
    wanted: &[Identity],
) -> Result<HashMap<Identity, UsageEvent>> {
    let pair = |identity: &Identity| match identity {
        Identity::Id(tenant, id) => Some((tenant.clone(), *id)),
        Identity::Key(..) => None,
    };
    let (tenants, ids): (Vec<String>, Vec<Uuid>) = wanted.iter().filter_map(pair).unzip();
    if tenants.is_empty() {
        return Ok(HashMap::new());
    }
    let parameters: [(&(dyn ToSql + Sync), Type); 2] =
        [(&tenants, Type::TEXT_ARRAY), (&ids, Type::UUID_ARRAY)];
    let rows = transaction.query_typed(sql::SELECT_EVENTS_BY_ID, &parameters).await.map_err(from_postgres)?;
    rows.iter().map(|row| event(row).map(|event| (Identity::id_of(&event), event))).collect()
}
