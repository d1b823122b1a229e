//! Batches: what one flush writes, hashed, signed and chained to the batch before.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::audit::canonical::{Canonical, Reader, malformed};
use crate::audit::{AuditEvent, AuditSigningKey, AuditVerifyingKey, Hash, Origin, tree};
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result, TenantId};

/// The most events in one batch.
pub const AUDIT_BATCH_EVENTS_MAX: usize = 10_000;

const HEADER: &str = "metertrail/audit/batch/1";
const MANIFEST: &str = "metertrail/audit/manifest/1";

/// One chain of batches: a process has one, and an append inside of a caller's transaction has one of its own.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(transparent)]
pub struct WriterId(Uuid);

impl WriterId {
    /// A new chain.
    pub fn generate() -> Self {
        Self(Uuid::new_v4())
    }

    /// A chain that is known.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id)
    }

    /// The id as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// What is signed of a batch.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct BatchHeader {
    /// Which trail it is of.
    pub origin: Origin,
    /// Whose chain it is in.
    pub writer_id: WriterId,
    /// Its place there, from 0.
    pub sequence: u64,
    /// The hash of the batch before; zero for the first.
    pub previous: Hash,
    /// When it was sealed. It does not go back within a chain.
    pub sealed_at: DateTime<Utc>,
    /// How many events it has.
    pub events: u32,
    /// The root of the tree of their leaves.
    pub root: Hash,
    /// The digest of the manifest: who, which ids, which leaves.
    pub manifest: Hash,
    /// The key that signed it; zero if none did.
    pub key_hash: [u8; 4],
}

impl BatchHeader {
    fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Canonical::new(HEADER);
        bytes.text(self.origin.as_str());
        bytes.fixed(self.writer_id.0.as_bytes());
        bytes.u64(self.sequence);
        bytes.hash(self.previous);
        bytes.i64(self.sealed_at.timestamp_micros());
        bytes.u32(self.events);
        bytes.hash(self.root);
        bytes.hash(self.manifest);
        bytes.fixed(&self.key_hash);
        bytes.into_bytes()
    }

    fn parse(bytes: &[u8]) -> Result<Self> {
        let mut reader = Reader::new(bytes, HEADER)?;
        let this = Self {
            origin: Origin::new(reader.text()?).map_err(|_| malformed())?,
            writer_id: WriterId(Uuid::from_bytes(reader.array()?)),
            sequence: reader.u64()?,
            previous: reader.hash()?,
            sealed_at: DateTime::from_timestamp_micros(reader.i64()?).ok_or_else(malformed)?,
            events: reader.u32()?,
            root: reader.hash()?,
            manifest: reader.hash()?,
            key_hash: reader.array()?,
        };
        reader.end()?;
        Ok(this)
    }
}

/// One event of a batch: whose, which, and its leaf.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ManifestEntry {
    /// Whose trail it is in.
    pub tenant_id: TenantId,
    /// The event's id.
    pub event_id: EventId,
    /// The hash of its leaf.
    pub leaf: Hash,
}

/// The manifest's bytes: runs of one tenant's events, in the batch's order.
fn manifest_bytes(entries: &[ManifestEntry]) -> Vec<u8> {
    let mut bytes = Canonical::new(MANIFEST);
    let runs: Vec<&[ManifestEntry]> = entries.chunk_by(|a, b| a.tenant_id == b.tenant_id).collect();
    bytes.count(runs.len());
    for run in runs {
        bytes.text(run.first().map_or("", |entry| entry.tenant_id.as_str()));
        bytes.count(run.len());
        for entry in run {
            bytes.fixed(entry.event_id.as_uuid().as_bytes());
            bytes.hash(entry.leaf);
        }
    }
    bytes.into_bytes()
}

fn parse_manifest(bytes: &[u8]) -> Result<Vec<ManifestEntry>> {
    let mut reader = Reader::new(bytes, MANIFEST)?;
    let mut entries = Vec::new();
    for _ in 0..reader.count()? {
        let tenant_id = TenantId::new(reader.text()?)?;
        for _ in 0..reader.count()? {
            let event_id = EventId::from_uuid(Uuid::from_bytes(reader.array()?))?;
            entries.push(ManifestEntry { tenant_id: tenant_id.clone(), event_id, leaf: reader.hash()? });
        }
    }
    reader.end()?;
    Ok(entries)
}

/// A batch as a store keeps it: bytes under the name of a writer and a sequence. Nothing of it is believed before
/// [`open`](Self::open) has looked at it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BatchRecord {
    /// The writer that it is kept under.
    pub writer_id: WriterId,
    /// The sequence that it is kept under.
    pub sequence: u64,
    /// What is signed.
    pub header: Vec<u8>,
    /// What the header's digest covers.
    pub manifest: Vec<u8>,
    /// The signature, if there is one.
    pub signature: Option<Vec<u8>>,
}

impl BatchRecord {
    /// The hash that the next batch of the chain names.
    pub fn hash(&self) -> Hash {
        Hash::of(&self.header)
    }

    /// Reads the batch and checks everything that can be checked without a key.
    ///
    /// # Errors
    /// [`Store`](ErrorKind::Store) if the bytes are no batch, are another one than the one that they are kept under, or do
    /// not fit together.
    pub fn open(&self) -> Result<(BatchHeader, Vec<ManifestEntry>)> {
        let header = BatchHeader::parse(&self.header)?;
        let entries = parse_manifest(&self.manifest).map_err(|_| malformed())?;
        let leaves: Vec<Hash> = entries.iter().map(|entry| entry.leaf).collect();
        let fits = header.writer_id == self.writer_id
            && header.sequence == self.sequence
            && header.manifest == Hash::of(&self.manifest)
            && usize::try_from(header.events).is_ok_and(|events| events == entries.len())
            && header.root == tree::root(&leaves);
        if fits { Ok((header, entries)) } else { Err(malformed()) }
    }

    /// Whether one of these keys signed it.
    pub fn is_signed_by(&self, keys: &[AuditVerifyingKey]) -> bool {
        let signature = self.signature.as_deref().and_then(|bytes| <&[u8; 64]>::try_from(bytes).ok());
        signature.is_some_and(|signature| keys.iter().any(|key| key.verify(&self.header, signature)))
    }
}

/// A batch with its events, ready to be kept. Only a [`WriterChain`] makes one.
#[derive(Clone, Debug)]
pub struct SealedBatch {
    record: BatchRecord,
    sealed_at: DateTime<Utc>,
    events: Vec<AuditEvent>,
}

impl SealedBatch {
    /// What is kept of the batch itself.
    pub fn record(&self) -> &BatchRecord {
        &self.record
    }

    /// Its events, in its order.
    pub fn events(&self) -> &[AuditEvent] {
        &self.events
    }

    /// Its events, to be sealed otherwise.
    pub(crate) fn into_events(self) -> Vec<AuditEvent> {
        self.events
    }

    /// When it was sealed.
    pub fn sealed_at(&self) -> DateTime<Utc> {
        self.sealed_at
    }
}

/// The end of a chain of batches: what the next one is built on.
///
/// ```
/// use metertrail::TenantId;
/// use metertrail::audit::{Actor, AuditEvent, Origin, TrialAudit, WriterChain};
/// use metertrail::time::{Clock, SystemClock};
///
/// let now = SystemClock.now();
/// let expired = TrialAudit::Expired { plan: "pro".into() };
/// let event = AuditEvent::new(TenantId::new("acme")?, now, Actor::system("timer")?, &expired)?;
///
/// let mut chain = WriterChain::new(Origin::new("example.org/audit")?);
/// let batch = chain.seal(vec![event], None, now)?;
/// chain.advance(&batch); // once the store has it
/// let (header, entries) = batch.record().open()?;
/// assert_eq!((header.sequence, entries.len(), chain.next_sequence()), (0, 1, 1));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct WriterChain {
    origin: Origin,
    writer_id: WriterId,
    next_sequence: u64,
    previous: Hash,
    sealed_at: DateTime<Utc>,
}

impl WriterChain {
    /// A new chain of batches for a trail.
    pub fn new(origin: Origin) -> Self {
        Self::of(origin, WriterId::generate())
    }

    /// The chain of a writer that has written nothing yet.
    pub fn of(origin: Origin, writer_id: WriterId) -> Self {
        Self { origin, writer_id, next_sequence: 0, previous: Hash::ZERO, sealed_at: DateTime::UNIX_EPOCH }
    }

    /// Which trail it is for.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Whose chain it is.
    pub fn writer_id(&self) -> WriterId {
        self.writer_id
    }

    /// The place of the next batch.
    pub fn next_sequence(&self) -> u64 {
        self.next_sequence
    }

    /// Seals events as the next batch; those of one tenant stand together, in the order given. The chain goes on with
    /// [`advance`](Self::advance) only.
    ///
    /// # Errors
    /// [`Misuse`](ErrorKind::Misuse) if an event has personal data that is not encrypted yet;
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `batch` if there are no events, or more than
    /// [`AUDIT_BATCH_EVENTS_MAX`].
    pub fn seal(
        &self,
        mut events: Vec<AuditEvent>,
        key: Option<&AuditSigningKey>,
        now: DateTime<Utc>,
    ) -> Result<SealedBatch> {
        if events.is_empty() || events.len() > AUDIT_BATCH_EVENTS_MAX {
            let rule = format!("must have 1 to {AUDIT_BATCH_EVENTS_MAX} events, has {}", events.len());
            return Err(Error::invalid("batch", rule));
        }
        events.sort_by(|a, b| a.tenant_id.cmp(&b.tenant_id));
        let entry = |event: &AuditEvent| {
            let (tenant_id, event_id) = (event.tenant_id.clone(), event.id());
            Ok(ManifestEntry { tenant_id, event_id, leaf: event.leaf()? })
        };
        let entries = events.iter().map(entry).collect::<Result<Vec<_>>>()?;
        let leaves: Vec<Hash> = entries.iter().map(|entry| entry.leaf).collect();
        let manifest = manifest_bytes(&entries);
        let header = BatchHeader {
            origin: self.origin.clone(),
            writer_id: self.writer_id,
            sequence: self.next_sequence,
            previous: self.previous,
            sealed_at: now.max(self.sealed_at),
            events: u32::try_from(events.len()).map_err(|_| malformed())?,
            root: tree::root(&leaves),
            manifest: Hash::of(&manifest),
            key_hash: key.map_or([0; 4], |key| key.verifying_key().key_hash()),
        };
        let bytes = header.to_bytes();
        let record = BatchRecord {
            writer_id: header.writer_id,
            sequence: header.sequence,
            signature: key.map(|key| key.sign(&bytes).to_vec()),
            header: bytes,
            manifest,
        };
        Ok(SealedBatch { record, sealed_at: header.sealed_at, events })
    }

    /// Goes on behind a batch that was made by this chain and that the store has kept.
    pub fn advance(&mut self, batch: &SealedBatch) {
        self.next_sequence = batch.record.sequence + 1;
        self.previous = batch.record.hash();
        self.sealed_at = batch.sealed_at;
    }
}

/// Sealed by another version of this crate, or by somebody else.
pub(crate) fn is_unreadable(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Store | ErrorKind::InvalidInput)
}
