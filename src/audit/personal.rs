//! Data about a person, which can be forgotten without breaking a seal.
//!
//! What is sealed is a salted commitment and a ciphertext. The salt lies inside of the ciphertext, so that deleting the
//! subject's key deletes both: what is left says nothing but roughly how long it was, and every proof still verifies.

use std::fmt;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use crate::audit::canonical::Canonical;
use crate::audit::key::random;
use crate::audit::{Hash, WrappingKey};
use crate::text::Label;
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result, TenantId};

/// The most bytes of one piece of personal data.
pub const PERSONAL_BYTES_MAX: usize = 4 * 1024;
/// The most pieces of personal data in one event.
pub const PERSONAL_FIELDS_MAX: usize = 16;

const NONCE_BYTES: usize = 24;
const SALT_BYTES: usize = 32;
/// The step in which what is encrypted grows.
const PADDING_BYTES: usize = 64;
/// A stored key that lies there as it is.
const BARE: u8 = 0;
/// A stored key that is encrypted under a wrapping key, whose id stands before it.
const WRAPPED: u8 = 1;

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
        let plaintext = padded(&salt, text)?;
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
        let (salt, text) = unpadded(&plaintext).ok_or_else(altered)?;
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
pub(crate) struct SubjectKey(Zeroizing<[u8; 32]>);

impl SubjectKey {
    pub(crate) fn generate() -> Self {
        Self(Zeroizing::new(random()))
    }

    /// The key as a store keeps it: encrypted, if there is a key for that.
    pub(crate) fn to_stored(&self, wrapping: Option<&WrappingKey>, whose: &[u8]) -> Result<Vec<u8>> {
        match wrapping {
            None => Ok([&[BARE], &self.0[..]].concat()),
            Some(wrapping) => {
                let wrapped = encrypt(wrapping.bytes(), &self.0[..], whose)?;
                Ok([&[WRAPPED], &wrapping.id()[..], &wrapped].concat())
            }
        }
    }

    /// Reads a stored key with the one of these that it is encrypted under.
    pub(crate) fn from_stored(bytes: &[u8], wrapping: &[WrappingKey], whose: &[u8]) -> Result<Self> {
        let unreadable = |what| Error::new(ErrorKind::Store, what);
        let key = match bytes.split_first() {
            Some((&BARE, key)) => Zeroizing::new(key.to_vec()),
            Some((&WRAPPED, bytes)) => {
                let (id, wrapped) = bytes
                    .split_first_chunk::<4>()
                    .ok_or_else(|| unreadable("a subject's key cannot be read"))?;
                let wrapping = wrapping.iter().find(|key| key.id() == *id).ok_or_else(not_given)?;
                decrypt(wrapping.bytes(), wrapped, whose)
                    .ok_or_else(|| unreadable("a subject's key was altered"))?
            }
            _ => return Err(unreadable("a subject's key cannot be read")),
        };
        let key: &[u8; 32] =
            key.as_slice().try_into().map_err(|_| unreadable("a subject's key cannot be read"))?;
        Ok(Self(Zeroizing::new(*key)))
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

/// What is encrypted: the salt, the text's length and the text, filled up with zeros. So what is left of a person that was
/// forgotten says of the text's length only in which step of [`PADDING_BYTES`] it was.
fn padded(salt: &[u8; SALT_BYTES], text: &str) -> Result<Zeroizing<Vec<u8>>> {
    let length = u16::try_from(text.len()).map_err(|_| {
        Error::invalid("personal", format!("must not be longer than {PERSONAL_BYTES_MAX} bytes"))
    })?;
    let size = (SALT_BYTES + size_of::<u16>() + text.len()).next_multiple_of(PADDING_BYTES);
    let mut plaintext = Zeroizing::new(Vec::with_capacity(size));
    plaintext.extend_from_slice(salt);
    plaintext.extend_from_slice(&length.to_be_bytes());
    plaintext.extend_from_slice(text.as_bytes());
    plaintext.resize(size, 0);
    Ok(plaintext)
}

/// The salt and the text of what [`padded`] made.
fn unpadded(plaintext: &[u8]) -> Option<(&[u8], &str)> {
    let (salt, rest) = plaintext.split_at_checked(SALT_BYTES)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (text, _) = rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))?;
    Some((salt, std::str::from_utf8(text).ok()?))
}

fn encrypt(key: &[u8; 32], plaintext: &[u8], place: &[u8]) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE_BYTES] = random();
    let payload = Payload { msg: plaintext, aad: place };
    let sealed = XChaCha20Poly1305::new(key.into()).encrypt(XNonce::from_slice(&nonce), payload);
    let sealed = sealed.map_err(|_| Error::new(ErrorKind::Misuse, "personal data cannot be encrypted"))?;
    Ok([&nonce[..], &sealed].concat())
}

fn decrypt(key: &[u8; 32], ciphertext: &[u8], place: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = ciphertext.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload { msg: sealed, aad: place };
    XChaCha20Poly1305::new(key.into()).decrypt(XNonce::from_slice(nonce), payload).ok().map(Zeroizing::new)
}

/// Passes: another process was given a new wrapping key before this one.
fn not_given() -> Error {
    Error::new(ErrorKind::Unavailable, "a subject's key is encrypted under a wrapping key that is not given")
}

fn altered() -> Error {
    Error::new(ErrorKind::Store, "the personal data was altered, or its key is another")
}

#[cfg(test)]
mod tests {
    use super::{PADDING_BYTES, SALT_BYTES, SubjectKey, padded, unpadded};
    use crate::audit::WrappingKey;
    use crate::audit::key::random;

    /// The layout of what is encrypted: salt, length, text, zeros.
    #[test]
    fn the_bytes_of_a_text_before_it_is_encrypted() {
        let mut expected = vec![7; 32];
        expected.extend([0, 3]);
        expected.extend(b"ada");
        expected.resize(64, 0);
        assert_eq!(*padded(&[7; SALT_BYTES], "ada").unwrap(), expected);
        assert_eq!(unpadded(&expected), Some((&[7; SALT_BYTES][..], "ada")));
    }

    #[test]
    fn the_length_of_a_text_is_told_in_steps_only() {
        let size = |length| padded(&[0; SALT_BYTES], &"x".repeat(length)).unwrap().len();
        assert_eq!((size(0), size(30), size(31), size(94), size(95)), (64, 64, 128, 128, 192));
        for length in 0..=4_096 {
            let text = "x".repeat(length);
            let plaintext = padded(&[0; SALT_BYTES], &text).unwrap();
            assert_eq!((plaintext.len() % PADDING_BYTES, unpadded(&plaintext).unwrap().1), (0, &*text));
        }
        assert_eq!(unpadded(&[0; SALT_BYTES]), None);
        let mut too_long = [0; 64];
        too_long[32..34].copy_from_slice(&31_u16.to_be_bytes());
        assert_eq!(unpadded(&too_long), None);
    }

    #[test]
    fn a_stored_key_is_read_with_the_wrapping_key_that_it_names() {
        let [old, new, other] = [1, 2, 3].map(|byte| WrappingKey::from_bytes([byte; 32]));
        let key = SubjectKey(zeroize::Zeroizing::new(random()));
        let stored = key.to_stored(Some(&old), b"acme").unwrap();
        assert_eq!((stored[0], &stored[1..5], stored.len()), (1, &old.id()[..], 1 + 4 + 24 + 32 + 16));
        let read = |keys: &[WrappingKey], whose: &[u8]| SubjectKey::from_stored(&stored, keys, whose);
        assert!(read(&[new.clone(), old.clone()], b"acme").unwrap() == key);
        assert!(read(&[new, other], b"acme").unwrap_err().to_string().contains("not given"));
        assert!(read(&[old], b"bolt").unwrap_err().to_string().contains("altered"));
        let bare = key.to_stored(None, b"acme").unwrap();
        assert_eq!((bare[0], &bare[1..]), (0, &key.0[..]));
        assert!(SubjectKey::from_stored(&bare, &[], b"acme").unwrap() == key);
    }
}
