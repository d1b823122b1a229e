//! A whole trail in a directory, for those who verify it elsewhere, with a public key and nothing else.

use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::audit::hash::{from_hex, to_hex};
use crate::audit::tree::{Frontier, TILE_LEVELS};
use crate::audit::{
    AuditEvent, AuditState, BatchRecord, ExportFormat, Hash, ManifestEntry, StoredEpoch, TenantHead,
    TreeLeaf, WriterId,
};
use crate::store::{AUDIT_READ_MAX, AuditRow, AuditStore, AuditTables};
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result, TenantId};

const EVENTS: &str = "events.jsonl";
const BATCHES: &str = "batches.jsonl";
const EPOCHS: &str = "epochs.jsonl";
const HEADS: &str = "heads.jsonl";
const TREE: &str = "tree.jsonl";

/// What was written.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Exported {
    /// How many events.
    pub events: u64,
    /// How many batches.
    pub batches: u64,
    /// How many epochs.
    pub epochs: u64,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct BatchLine {
    writer_id: WriterId,
    sequence: u64,
    header: String,
    manifest: String,
    signature: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct EpochLine {
    number: u64,
    record: String,
    checkpoint: String,
    frontier: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct HeadLine {
    tenant_id: TenantId,
    size: u64,
    root: Hash,
    frontier: String,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct NodeLine {
    tenant_id: TenantId,
    level: u8,
    position: u64,
    hash: Hash,
    event_id: Option<Uuid>,
}

/// Writes a whole trail into a directory, which is made if it is not there: everything that a verifier looks at, and no keys
/// of persons. Writers and sealers may go on meanwhile. Files are written by the calling task: it is for tools and jobs,
/// not for handlers.
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) if the directory cannot be written; [`Store`](ErrorKind::Store) if an event cannot
/// be read; whatever the store meets.
pub async fn export_trail(store: &dyn AuditStore, directory: impl AsRef<Path> + Send) -> Result<Exported> {
    let directory = directory.as_ref();
    fs::create_dir_all(directory).map_err(unusable)?;
    let state = store.audit_state().await?;
    let epochs = export_epochs(store, directory, &state).await?;
    export_trees(store, directory, &state).await?;
    let mut events = Lines::create(directory, EVENTS)?;
    let mut seen: HashSet<(TenantId, Uuid)> = HashSet::new();
    let mut tenants: Vec<TenantId> = Vec::new();
    loop {
        let page = store.audit_tenants(tenants.last(), AUDIT_READ_MAX).await?;
        if page.is_empty() {
            break;
        }
        tenants.extend(page);
    }
    for tenant_id in &tenants {
        let mut after = None;
        loop {
            let page = store.audit_rows(tenant_id, after, AUDIT_READ_MAX).await?;
            let Some(last) = page.last() else {
                break;
            };
            after = Some(last.id);
            page.into_iter().try_for_each(|row| events.event(row, &mut seen))?;
        }
    }
    // The batches last: each event that was written is in one of them. What came in meanwhile is added.
    let batches = export_batches(store, directory, &mut events, &mut seen).await?;
    events.finish()?;
    Ok(Exported { events: u64::try_from(seen.len()).unwrap_or(u64::MAX), batches, epochs })
}

async fn export_epochs(store: &dyn AuditStore, directory: &Path, state: &AuditState) -> Result<u64> {
    let mut lines = Lines::create(directory, EPOCHS)?;
    let size = state.epoch.as_ref().map_or(0, |epoch| epoch.number + 1);
    let (mut next, mut count) = (0, 0);
    while next < size {
        let page = store.audit_epochs(next, AUDIT_READ_MAX).await?;
        let Some(last) = page.last() else {
            break;
        };
        next = last.number + 1;
        for epoch in page.into_iter().filter(|epoch| epoch.number < size) {
            count += 1;
            lines.write(&EpochLine {
                number: epoch.number,
                record: to_hex(&epoch.record),
                checkpoint: epoch.checkpoint,
                frontier: to_hex(&epoch.frontier),
            })?;
        }
    }
    lines.finish()?;
    Ok(count)
}

/// The heads of a state, and of the trees what the heads cover.
async fn export_trees(store: &dyn AuditStore, directory: &Path, state: &AuditState) -> Result<()> {
    let mut heads = Lines::create(directory, HEADS)?;
    let mut nodes = Lines::create(directory, TREE)?;
    for head in &state.heads {
        let (tenant_id, size) = (head.tenant_id.clone(), head.frontier.size());
        heads.write(&HeadLine {
            tenant_id: tenant_id.clone(),
            size,
            root: head.root,
            frontier: to_hex(&head.frontier.to_bytes()),
        })?;
        for level in (0..64).step_by(usize::from(TILE_LEVELS)).take_while(|level| size >> level > 0) {
            let mut next = 0;
            while next < size >> level {
                let page = store.tree_nodes(&tenant_id, level, next, AUDIT_READ_MAX).await?;
                let Some(last) = page.last() else {
                    break;
                };
                next = last.node.position + 1;
                for kept in page.into_iter().filter(|kept| kept.node.position < size >> level) {
                    nodes.write(&NodeLine {
                        tenant_id: tenant_id.clone(),
                        level,
                        position: kept.node.position,
                        hash: kept.node.hash,
                        event_id: kept.event_id.map(EventId::as_uuid),
                    })?;
                }
            }
        }
    }
    heads.finish()?;
    nodes.finish()
}

async fn export_batches(
    store: &dyn AuditStore,
    directory: &Path,
    events: &mut Lines,
    seen: &mut HashSet<(TenantId, Uuid)>,
) -> Result<u64> {
    let mut lines = Lines::create(directory, BATCHES)?;
    let (mut after, mut count) = (None, 0);
    loop {
        let page = store.audit_batches(after, 64).await?;
        let Some(last) = page.last() else {
            break;
        };
        after = Some((last.writer_id, last.sequence));
        for batch in page {
            let entries = batch.open().map(|(_, entries)| entries).unwrap_or_default();
            let keys = entries.into_iter().map(|entry| (entry.tenant_id, entry.event_id));
            let unseen: Vec<(TenantId, EventId)> =
                keys.filter(|(tenant_id, id)| !seen.contains(&(tenant_id.clone(), id.as_uuid()))).collect();
            if !unseen.is_empty() {
                let rows = store.audit_rows_by_key(&unseen).await?;
                rows.into_iter().try_for_each(|row| events.event(row, seen))?;
            }
            count += 1;
            lines.write(&BatchLine {
                writer_id: batch.writer_id,
                sequence: batch.sequence,
                header: to_hex(&batch.header),
                manifest: to_hex(&batch.manifest),
                signature: batch.signature.as_deref().map(to_hex),
            })?;
        }
    }
    lines.finish()?;
    Ok(count)
}

/// Reads a trail from a directory that [`export_trail`] wrote. Give it to a
/// [`MemoryStore::from_audit_tables`](crate::MemoryStore::from_audit_tables), and that to a
/// [`Verifier`](crate::audit::Verifier), with the time of the export as `now`. It takes memory for all of it.
///
/// # Errors
/// [`Unavailable`](ErrorKind::Unavailable) if a file cannot be read; [`InvalidInput`](ErrorKind::InvalidInput) on `line` if
/// one is not to the byte what the export writes, or speaks of the same thing as another; the message says which.
pub fn read_trail(directory: impl AsRef<Path>) -> Result<AuditTables> {
    let directory = directory.as_ref();
    let mut tables = AuditTables::default();
    each_line(directory, EVENTS, |line| {
        let event = AuditEvent::from_json(line)?;
        put(&mut tables.events, (event.tenant_id.clone(), event.id()), event)
    })?;
    each_line(directory, BATCHES, |line| {
        let line: BatchLine = parsed(line)?;
        let batch = BatchRecord {
            writer_id: line.writer_id,
            sequence: line.sequence,
            header: bytes(&line.header)?,
            manifest: bytes(&line.manifest)?,
            signature: line.signature.as_deref().map(bytes).transpose()?,
        };
        put(&mut tables.batches, (batch.writer_id, batch.sequence), batch)
    })?;
    each_line(directory, EPOCHS, |line| {
        let line: EpochLine = parsed(line)?;
        let (record, frontier) = (bytes(&line.record)?, bytes(&line.frontier)?);
        let epoch = StoredEpoch { number: line.number, record, checkpoint: line.checkpoint, frontier };
        put(&mut tables.epochs, epoch.number, epoch)
    })?;
    each_line(directory, HEADS, |line| {
        let line: HeadLine = parsed(line)?;
        let frontier = Frontier::from_bytes_or_damaged(line.size, &bytes(&line.frontier)?);
        let head = TenantHead { tenant_id: line.tenant_id.clone(), root: line.root, frontier };
        put(&mut tables.heads, line.tenant_id, head)
    })?;
    each_line(directory, TREE, |line| {
        let NodeLine { tenant_id, level, position, hash, event_id } = parsed(line)?;
        let event_id = event_id.map(EventId::bound);
        put(&mut tables.nodes, (tenant_id.clone(), level, position), (hash, event_id))?;
        if let Some(event_id) = event_id.filter(|_| level == 0) {
            put(&mut tables.leaves, (tenant_id, event_id), TreeLeaf { position, hash, event_id })?;
        }
        Ok(())
    })?;
    // What the trees that were exported do not have was waiting for a sealer then.
    for batch in tables.batches.values() {
        let Ok((header, entries)) = batch.open() else {
            continue;
        };
        let is_sealed = |entry: ManifestEntry| tables.leaves.contains_key(&(entry.tenant_id, entry.event_id));
        if !entries.into_iter().any(is_sealed) {
            tables.unsealed.insert((header.sealed_at, batch.writer_id, batch.sequence));
        }
    }
    Ok(tables)
}

/// A file of lines that is being written.
struct Lines(BufWriter<File>);

impl Lines {
    fn create(directory: &Path, name: &str) -> Result<Self> {
        File::create(directory.join(name)).map(|file| Self(BufWriter::new(file))).map_err(unusable)
    }

    fn write(&mut self, line: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string(line)
            .map_err(|error| Error::new(ErrorKind::Misuse, "a line cannot be written").with_source(error))?;
        writeln!(self.0, "{text}").map_err(unusable)
    }

    fn event(&mut self, row: AuditRow, seen: &mut HashSet<(TenantId, Uuid)>) -> Result<()> {
        let event = row.event?;
        writeln!(self.0, "{}", ExportFormat::Jsonl.line(&event)?).map_err(unusable)?;
        seen.insert((row.tenant_id, row.id));
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.0.flush().and_then(|()| self.0.get_ref().sync_all()).map_err(unusable)
    }
}

fn each_line(directory: &Path, name: &str, mut each: impl FnMut(&str) -> Result<()>) -> Result<()> {
    let file = File::open(directory.join(name)).map_err(unusable)?;
    for (number, line) in (1_u64..).zip(BufReader::new(file).lines()) {
        each(&line.map_err(unusable)?).map_err(|error| match error.kind() {
            ErrorKind::InvalidInput => {
                Error::invalid("line", format!("{number} of {name} is none that this crate wrote"))
                    .with_source(error)
            }
            _ => error,
        })?;
    }
    Ok(())
}

/// Reads a line that is to the byte what writing it again gives.
fn parsed<'a, T: Deserialize<'a> + Serialize>(line: &'a str) -> Result<T> {
    let malformed = || Error::invalid("line", "is none that this crate wrote");
    let value: T = serde_json::from_str(line).map_err(|error| malformed().with_source(error))?;
    let again = serde_json::to_string(&value).map_err(|error| malformed().with_source(error))?;
    if again == line { Ok(value) } else { Err(malformed()) }
}

/// Puts a line's content under its key, which no other line may have.
fn put<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> Result<()> {
    match map.insert(key, value) {
        None => Ok(()),
        Some(_) => Err(Error::invalid("line", "is about the same thing as another")),
    }
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    from_hex(hex).ok_or_else(|| Error::invalid("line", "has bytes that are none"))
}

fn unusable(error: std::io::Error) -> Error {
    Error::new(ErrorKind::Unavailable, "the directory of the export cannot be used").with_source(error)
}
