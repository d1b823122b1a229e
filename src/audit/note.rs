//! Checkpoints in the form of signed notes: what an anchor keeps, and what a trail is held against later.

use std::fmt;
use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::audit::{AuditSigningKey, AuditVerifyingKey, Hash, Origin};
use crate::{Error, Result};

/// The size and root of the log of epochs at one moment (<https://c2sp.org/tlog-checkpoint>), signed or not
/// (<https://c2sp.org/signed-note>). Whoever keeps one outside of the database can tell later whether the trail still is
/// what it was.
///
/// ```
/// use metertrail::audit::{AuditSigningKey, Checkpoint, Hash, Origin};
///
/// let key = AuditSigningKey::from_seed("example.org/audit", [7; 32])?;
/// let signed = Checkpoint::new(Origin::new("example.org/trail")?, 3, Hash::of(b"")).signed(&key);
/// let text = signed.to_string();
/// assert!(text.starts_with("example.org/trail\n3\n47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=\n\n\u{2014} example.org/audit "));
///
/// let read: Checkpoint = text.parse()?;
/// assert!(read.is_signed_by(&key.verifying_key()));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Checkpoint {
    origin: Origin,
    size: u64,
    root: Hash,
    /// The lines that are signed.
    body: String,
    signatures: Vec<NoteSignature>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct NoteSignature {
    name: String,
    key_hash: [u8; 4],
    signature: Vec<u8>,
}

impl Checkpoint {
    /// A checkpoint that nobody has signed.
    pub fn new(origin: Origin, size: u64, root: Hash) -> Self {
        let body = format!("{origin}\n{size}\n{}\n", STANDARD.encode(root.as_bytes()));
        Self { origin, size, root, body, signatures: Vec::new() }
    }

    /// The same checkpoint with one signature more.
    #[must_use]
    pub fn signed(mut self, key: &AuditSigningKey) -> Self {
        let public = key.verifying_key();
        self.signatures.push(NoteSignature {
            name: public.name().to_owned(),
            key_hash: public.key_hash(),
            signature: key.sign(self.body.as_bytes()).to_vec(),
        });
        self
    }

    /// Which log it is of.
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How many epochs the log has.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The root of the tree of these epochs.
    pub fn root(&self) -> Hash {
        self.root
    }

    /// Whether there is a signature at all.
    pub fn is_signed(&self) -> bool {
        !self.signatures.is_empty()
    }

    /// Whether this key signed it.
    pub fn is_signed_by(&self, key: &AuditVerifyingKey) -> bool {
        self.signatures.iter().any(|line| {
            let is_named = line.name == key.name() && line.key_hash == key.key_hash();
            let signature = <&[u8; 64]>::try_from(line.signature.as_slice());
            is_named && signature.is_ok_and(|signature| key.verify(self.body.as_bytes(), signature))
        })
    }
}

impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.body)?;
        self.signatures.iter().try_for_each(|line| {
            let bytes = [&line.key_hash[..], &line.signature].concat();
            writeln!(f, "\u{2014} {} {}", line.name, STANDARD.encode(bytes))
        })
    }
}

impl FromStr for Checkpoint {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || Error::invalid("checkpoint", "is no checkpoint in the form of a signed note");
        let split = text.rfind("\n\n").ok_or_else(malformed)?;
        let (body, signatures) = text.split_at_checked(split + 1).ok_or_else(malformed)?;
        let mut lines = body.lines();
        let (Some(origin), Some(size), Some(root)) = (lines.next(), lines.next(), lines.next()) else {
            return Err(malformed());
        };
        let root = STANDARD.decode(root).map_err(|_| malformed())?;
        let size = size.parse().map_err(|_| malformed())?;
        let mut this = Self::new(Origin::new(origin)?, size, Hash::try_from(root.as_slice())?);
        // Lines after the third are extensions: signed, and not understood here.
        if !body.starts_with(&this.body) {
            return Err(malformed());
        }
        body.clone_into(&mut this.body);
        for line in signatures.lines().filter(|line| !line.is_empty()) {
            this.signatures.push(signature_of(line).ok_or_else(malformed)?);
        }
        Ok(this)
    }
}

fn signature_of(line: &str) -> Option<NoteSignature> {
    let (name, bytes) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(bytes).ok()?;
    let (key_hash, signature) = bytes.split_first_chunk::<4>()?;
    Some(NoteSignature { name: name.to_owned(), key_hash: *key_hash, signature: signature.to_vec() })
}
