//! Data about a person, which can be forgotten without breaking a seal.
//!
//! What is sealed is a salted commitment and a ciphertext. The salt lies inside of the ciphertext, so that deleting the
//! subject's key deletes both: what is left says nothing but how long it was, and every proof still verifies.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};

use crate::audit::Hash;
use crate::audit::canonical::Canonical;
use crate::audit::key::random;
use crate::text::Label;
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result, TenantId};

/// The most bytes of one piece of personal data.
pub const PERSONAL_BYTES_MAX: usize = 4 * 1024;
/// The most pieces of personal data in one event.
pub const PERSONAL_FIELDS_MAX: usize = 16;

const NONCE_BYTES: usize = 24;
const SALT_BYTES: usize = 32;

/// A text about a person: readable until the person is forgotten.
///
/// ```
/// use metertrail::audit::PersonalData;
///
/// let email = PersonalData::new("u-71", "ada@example.org")?;
/// assert!(!format!("{email:?}").contains("ada"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Eq, PartialEq)]
pub struct PersonalData {
    subject: Label,
    state: State,
}

#[derive(Clone, Eq, PartialEq)]
enum State {
    /// As the host gave it; it never leaves the process like that.
    Open(Box<str>),
    Sealed {
        commitment: Hash,
        ciphertext: Vec<u8>,
    },
}

/// Where a piece of personal data belongs. It can be read there only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) tenant_id: &'a TenantId,
    pub(crate) event_id: EventId,
    pub(crate) field: &'a Label,
}

impl PersonalData {
    /// Takes a text about the person whom the host knows by this pseudonym.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) on `subject`, or on `personal` if the text is longer than
    /// [`PERSONAL_BYTES_MAX`].
    pub fn new(subject: impl AsRef<str>, text: impl Into<String>) -> Result<Self> {
        let text = text.into();
        if text.len() > PERSONAL_BYTES_MAX {
            let rule = format!("must not be longer than {PERSONAL_BYTES_MAX} bytes, is {}", text.len());
            return Err(Error::invalid("personal", rule));
        }
        Ok(Self { subject: Label::new("subject", subject)?, state: State::Open(text.into()) })
    }

    /// What a store has kept.
    pub fn from_stored(subject: Label, commitment: Hash, ciphertext: Vec<u8>) -> Self {
        Self { subject, state: State::Sealed { commitment, ciphertext } }
    }

    /// Whom it is about.
    pub fn subject(&self) -> &Label {
        &self.subject
    }

    /// The commitment and the ciphertext, once it is sealed.
    pub fn sealed(&self) -> Option<(Hash, &[u8])> {
        match &self.state {
            State::Open(_) => None,
            State::Sealed { commitment, ciphertext } => Some((*commitment, ciphertext)),
        }
    }

    /// Encrypts it under the subject's key; what is sealed already stays as it is.
    pub(crate) fn sealed_with(&self, key: &SubjectKey, place: Place<'_>) -> Result<Self> {
        let State::Open(text) = &self.state else {
            return Ok(self.clone());
        };
        let salt: [u8; SALT_BYTES] = random();
        let plaintext = [&salt[..], text.as_bytes()].concat();
        let ciphertext = encrypt(&key.0, &plaintext, &place.to_bytes())?;
        let state = State::Sealed { commitment: commitment(&salt, text), ciphertext };
        Ok(Self { subject: self.subject.clone(), state })
    }

    /// The text, if the key is the subject's and nobody has touched the ciphertext.
    pub(crate) fn opened_with(&self, key: &SubjectKey, place: Place<'_>) -> Result<String> {
        let State::Sealed { commitment: committed, ciphertext } = &self.state else {
            return Err(Error::new(ErrorKind::Misuse, "the personal data is not sealed yet"));
        };
        let plaintext = decrypt(&key.0, ciphertext, &place.to_bytes()).ok_or_else(altered)?;
        let (salt, text) = plaintext.split_at_checked(SALT_BYTES).ok_or_else(altered)?;
        let text = std::str::from_utf8(text).map_err(|_| altered())?;
        if commitment(salt, text) == *committed { Ok(text.to_owned()) } else { Err(altered()) }
    }
}

impl Place<'_> {
    fn to_bytes(self) -> Vec<u8> {
        let mut bytes = Canonical::new("metertrail/audit/personal-place/1");
        bytes.text(self.tenant_id.as_str());
        bytes.fixed(self.event_id.as_uuid().as_bytes());
        bytes.text(self.field.as_str());
        bytes.into_bytes()
    }
}

/// Shows whom it is about and not what it says.
impl fmt::Debug for PersonalData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PersonalData").field("subject", &self.subject).finish_non_exhaustive()
    }
}

/// The digest that an event is sealed with in place of a text about a person.
pub(crate) fn commitment(salt: &[u8], text: &str) -> Hash {
    let mut bytes = Canonical::new("metertrail/audit/personal/1");
    bytes.bytes(salt);
    bytes.text(text);
    Hash::of(bytes.as_bytes())
}

/// The key of one subject's data.
#[derive(Clone, Eq, PartialEq)]
pub(crate) struct SubjectKey([u8; 32]);

impl SubjectKey {
    pub(crate) fn generate() -> Self {
        Self(random())
    }

    /// The key as a store keeps it: encrypted, if there is a key for that.
    pub(crate) fn to_stored(&self, wrapping: Option<&[u8; 32]>, whose: &[u8]) -> Result<Vec<u8>> {
        match wrapping {
            None => Ok([&[0], &self.0[..]].concat()),
            Some(wrapping) => Ok([&[1], &encrypt(wrapping, &self.0, whose)?[..]].concat()),
        }
    }

    pub(crate) fn from_stored(bytes: &[u8], wrapping: Option<&[u8; 32]>, whose: &[u8]) -> Result<Self> {
        let unreadable = || Error::new(ErrorKind::Store, "a subject's key cannot be read");
        let key = match (bytes.split_first(), wrapping) {
            (Some((0, key)), _) => key.to_vec(),
            (Some((1, wrapped)), Some(wrapping)) => {
                decrypt(wrapping, wrapped, whose).ok_or_else(unreadable)?
            }
            _ => return Err(unreadable()),
        };
        key.try_into().map(Self).map_err(|_| unreadable())
    }

    /// What a stored key is bound to.
    pub(crate) fn owner(tenant_id: &TenantId, subject: &Label) -> Vec<u8> {
        let mut bytes = Canonical::new("metertrail/audit/subject-key/1");
        bytes.text(tenant_id.as_str());
        bytes.text(subject.as_str());
        bytes.into_bytes()
    }
}

impl fmt::Debug for SubjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubjectKey(..)")
    }
}

fn encrypt(key: &[u8; 32], plaintext: &[u8], place: &[u8]) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE_BYTES] = random();
    let payload = Payload { msg: plaintext, aad: place };
    let sealed = XChaCha20Poly1305::new(key.into()).encrypt(XNonce::from_slice(&nonce), payload);
    let sealed = sealed.map_err(|_| Error::new(ErrorKind::Misuse, "personal data cannot be encrypted"))?;
    Ok([&nonce[..], &sealed].concat())
}

fn decrypt(key: &[u8; 32], ciphertext: &[u8], place: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = ciphertext.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload { msg: sealed, aad: place };
    XChaCha20Poly1305::new(key.into()).decrypt(XNonce::from_slice(nonce), payload).ok()
}

fn altered() -> Error {
    Error::new(ErrorKind::Store, "the personal data was altered, or its key is another")
}
