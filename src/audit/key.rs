//! The keys that seal, and those that check.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::OsRng;
use chacha20poly1305::aead::rand_core::RngCore;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use zeroize::Zeroizing;

use crate::audit::canonical::Canonical;
use crate::audit::hash::{from_hex, to_hex};
use crate::{Error, ErrorKind, Result};

/// The longest name of a key, in bytes.
pub const KEY_NAME_BYTES_MAX: usize = 128;

/// The byte that says Ed25519 in a signed note.
const ED25519: u8 = 1;

/// Where the keys come from: a secret store, the environment, a file. Asked again for every batch and epoch, so that a key
/// can be rotated while the process runs; the old public key has to stay with those who verify.
///
/// Writers and sealers should have different keys, kept apart: whoever has only one of them cannot write another trail. (With the
/// sealer's, the ends of chains can be cut off, which an anchor shows.)
/// Without keys the trail is hashed and not signed; see `docs/audit.md` for what that cannot detect.
///
/// `Ok(None)` says that there is no such key; an error, of any kind, that it cannot be had now: nothing is then written or
/// sealed without it, and it is asked for again. The methods are called on the runtime, so they must not block: keep what a
/// secret store gave in memory.
pub trait AuditKeys: fmt::Debug + Send + Sync + 'static {
    /// The key that signs this process's batches.
    ///
    /// # Errors
    /// Whatever the host meets; asked again later.
    fn writer_key(&self) -> Result<Option<AuditSigningKey>>;

    /// The public keys of all writers, former ones included. A sealer does not seal a batch that none of them signed; if there
    /// are none, it looks at hashes only.
    ///
    /// # Errors
    /// Whatever the host meets; asked again later.
    fn writer_verifying_keys(&self) -> Result<Vec<AuditVerifyingKey>>;

    /// The key that signs epochs.
    ///
    /// # Errors
    /// Whatever the host meets; asked again later.
    fn sealer_key(&self) -> Result<Option<AuditSigningKey>>;

    /// The keys that signed epochs before a rotation. The sealer goes on only behind an epoch that one of its keys signed.
    ///
    /// # Errors
    /// Whatever the host meets; asked again later.
    fn former_sealer_keys(&self) -> Result<Vec<AuditVerifyingKey>>;

    /// The keys that the keys of personal data are encrypted under: the first for new ones, the others, of before a rotation,
    /// to read those that were encrypted under them. Without any they lie in the database as they are.
    ///
    /// # Errors
    /// Whatever the host meets; asked again later.
    fn wrapping_keys(&self) -> Result<Vec<WrappingKey>>;
}

/// What the host answered. That it cannot answer passes, whatever kind of error it calls that: nothing is refused for it.
pub(crate) fn available<T>(answer: Result<T>) -> Result<T> {
    answer.map_err(|error| {
        Error::new(ErrorKind::Unavailable, "the keys of the audit trail cannot be had").with_source(error)
    })
}

/// No keys: hashes only.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeys;

impl AuditKeys for NoKeys {
    fn writer_key(&self) -> Result<Option<AuditSigningKey>> {
        Ok(None)
    }

    fn writer_verifying_keys(&self) -> Result<Vec<AuditVerifyingKey>> {
        Ok(Vec::new())
    }

    fn sealer_key(&self) -> Result<Option<AuditSigningKey>> {
        Ok(None)
    }

    fn former_sealer_keys(&self) -> Result<Vec<AuditVerifyingKey>> {
        Ok(Vec::new())
    }

    fn wrapping_keys(&self) -> Result<Vec<WrappingKey>> {
        Ok(Vec::new())
    }
}

/// Keys that stay the same.
///
/// ```
/// use metertrail::audit::{AuditSigningKey, StaticKeys};
///
/// let sealer = AuditSigningKey::generate("example.org/sealer")?;
/// println!("give this to whoever verifies: {}", sealer.verifying_key());
/// let keys = StaticKeys::new().writer(AuditSigningKey::generate("example.org/writer")?).sealer(sealer);
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct StaticKeys {
    writer: Option<AuditSigningKey>,
    other_writers: Vec<AuditVerifyingKey>,
    sealer: Option<AuditSigningKey>,
    former_sealers: Vec<AuditVerifyingKey>,
    wrapping: Vec<WrappingKey>,
}

impl StaticKeys {
    /// No keys yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The key that signs batches.
    #[must_use]
    pub fn writer(mut self, key: AuditSigningKey) -> Self {
        self.writer = Some(key);
        self
    }

    /// The public key of a writer that has another key, or of this one before a rotation: its batches are sealed, too.
    #[must_use]
    pub fn other_writer(mut self, key: AuditVerifyingKey) -> Self {
        self.other_writers.push(key);
        self
    }

    /// The key that signs epochs.
    #[must_use]
    pub fn sealer(mut self, key: AuditSigningKey) -> Self {
        self.sealer = Some(key);
        self
    }

    /// A key that signed epochs before a rotation.
    #[must_use]
    pub fn former_sealer(mut self, key: AuditVerifyingKey) -> Self {
        self.former_sealers.push(key);
        self
    }

    /// The key that the keys of personal data are encrypted under; given again, those of before a rotation.
    #[must_use]
    pub fn wrapping(mut self, key: WrappingKey) -> Self {
        self.wrapping.push(key);
        self
    }
}

impl AuditKeys for StaticKeys {
    fn writer_key(&self) -> Result<Option<AuditSigningKey>> {
        Ok(self.writer.clone())
    }

    fn writer_verifying_keys(&self) -> Result<Vec<AuditVerifyingKey>> {
        let own = self.writer.as_ref().map(AuditSigningKey::verifying_key);
        Ok(self.other_writers.iter().cloned().chain(own).collect())
    }

    fn sealer_key(&self) -> Result<Option<AuditSigningKey>> {
        Ok(self.sealer.clone())
    }

    fn former_sealer_keys(&self) -> Result<Vec<AuditVerifyingKey>> {
        Ok(self.former_sealers.clone())
    }

    fn wrapping_keys(&self) -> Result<Vec<WrappingKey>> {
        Ok(self.wrapping.clone())
    }
}

/// A key of 256 bits that the keys of personal data are encrypted under. It is wiped from memory when it is dropped, and
/// shows nothing of itself but its id.
///
/// ```
/// use metertrail::audit::WrappingKey;
///
/// let key = WrappingKey::from_bytes([7; 32]);
/// assert_eq!(format!("{key:?}").len(), "WrappingKey(12345678)".len());
/// assert!(!format!("{key:?}").contains("0707"));
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct WrappingKey(Zeroizing<[u8; 32]>);

impl WrappingKey {
    /// The key of these bytes, which must be random.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// What is stored with what is encrypted under it, so that it is found again among others after a rotation.
    pub(crate) fn id(&self) -> [u8; 4] {
        let mut bytes = Canonical::new("metertrail/audit/wrapping-key-id/1");
        bytes.fixed(&*self.0);
        let [a, b, c, d, ..] = *crate::audit::Hash::of(bytes.as_bytes()).as_bytes();
        [a, b, c, d]
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for WrappingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WrappingKey({})", to_hex(&self.id()))
    }
}

/// An Ed25519 key with a name, as signed notes have them (<https://c2sp.org/signed-note>).
#[derive(Clone)]
pub struct AuditSigningKey {
    name: Arc<str>,
    key: SigningKey,
}

impl AuditSigningKey {
    /// The key of a secret seed. The name should be one that nobody else uses: a domain and a path.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `key_name` if it is empty, too long or has white space or `+`.
    pub fn from_seed(name: impl AsRef<str>, seed: [u8; 32]) -> Result<Self> {
        Ok(Self { name: checked_name(name.as_ref())?.into(), key: SigningKey::from_bytes(&seed) })
    }

    /// A new key from the operating system's randomness.
    ///
    /// # Errors
    /// As [`from_seed`](Self::from_seed).
    pub fn generate(name: impl AsRef<str>) -> Result<Self> {
        Self::from_seed(name, random())
    }

    /// The secret seed, to be kept where nobody but the host can read it.
    pub fn seed(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The public half.
    pub fn verifying_key(&self) -> AuditVerifyingKey {
        AuditVerifyingKey { name: Arc::clone(&self.name), key: self.key.verifying_key() }
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> [u8; 64] {
        self.key.sign(bytes).to_bytes()
    }
}

/// Shows the public half.
impl fmt::Debug for AuditSigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditSigningKey({})", self.verifying_key())
    }
}

/// The public half of a key. As a text it is a verifier key of signed notes: `name+hash+key`.
///
/// ```
/// use metertrail::audit::{AuditSigningKey, AuditVerifyingKey};
///
/// let key = AuditSigningKey::from_seed("example.org/audit", [7; 32])?.verifying_key();
/// assert_eq!(key.to_string().parse::<AuditVerifyingKey>()?, key);
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct AuditVerifyingKey {
    name: Arc<str>,
    key: VerifyingKey,
}

impl AuditVerifyingKey {
    /// The key's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What signatures name the key by: the beginning of a digest of its name and its bytes.
    pub fn key_hash(&self) -> [u8; 4] {
        let bytes = [self.name.as_bytes(), b"\n", &[ED25519], self.key.as_bytes()].concat();
        let [a, b, c, d, ..] = *crate::audit::Hash::of(&bytes).as_bytes();
        [a, b, c, d]
    }

    /// Whether this key signed the bytes.
    pub fn verify(&self, bytes: &[u8], signature: &[u8; 64]) -> bool {
        self.key.verify_strict(bytes, &Signature::from_bytes(signature)).is_ok()
    }
}

impl fmt::Display for AuditVerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = [&[ED25519], &self.key.as_bytes()[..]].concat();
        write!(f, "{}+{}+{}", self.name, to_hex(&self.key_hash()), STANDARD.encode(bytes))
    }
}

impl fmt::Debug for AuditVerifyingKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuditVerifyingKey({self})")
    }
}

impl FromStr for AuditVerifyingKey {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || Error::invalid("verifying_key", "must be a verifier key: name+hash+key");
        let mut parts = text.splitn(3, '+');
        let (Some(name), Some(hash), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(malformed());
        };
        let bytes = STANDARD.decode(key).map_err(|_| malformed())?;
        let Some((&ED25519, key)) = bytes.split_first() else {
            return Err(malformed());
        };
        let key = key.try_into().ok().and_then(|bytes| VerifyingKey::from_bytes(bytes).ok());
        let this = Self { name: checked_name(name)?.into(), key: key.ok_or_else(malformed)? };
        if from_hex(hash).is_some_and(|hash| hash == this.key_hash()) { Ok(this) } else { Err(malformed()) }
    }
}

fn checked_name(name: &str) -> Result<&str> {
    let name = crate::text::checked_text("key_name", name, KEY_NAME_BYTES_MAX)?;
    if name.chars().any(|character| character.is_whitespace() || character == '+') {
        return Err(Error::invalid("key_name", "must not have white space or +"));
    }
    Ok(name)
}

/// Bytes from the operating system's randomness.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    OsRng.fill_bytes(&mut bytes);
    bytes
}
