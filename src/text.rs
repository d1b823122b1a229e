//! The one rule for short texts that come from outside: bounded, printable, storable in every store.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The longest [`Label`], in bytes of UTF-8.
pub const LABEL_BYTES_MAX: usize = 256;

/// A short text such as a session, a user, a model or an idempotency key: 1 to 256 bytes of UTF-8 without control
/// characters and without white space at either end. Cloning is cheap.
#[derive(Clone, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(Arc<str>);

impl Label {
    /// Checks and takes a text; `field` is the name that an error gives it.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `field` if the text is empty, too long, has a control
    /// character (NUL among them) or begins or ends with white space.
    pub fn new(field: &'static str, text: impl AsRef<str>) -> Result<Self> {
        checked_text(field, text.as_ref(), LABEL_BYTES_MAX).map(|text| Self(text.into()))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for Label {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::new("label", text)
    }
}

impl From<Label> for String {
    fn from(label: Label) -> Self {
        label.as_str().to_owned()
    }
}

pub(crate) fn checked_text<'a>(field: &'static str, text: &'a str, bytes_max: usize) -> Result<&'a str> {
    if text.is_empty() {
        return Err(Error::invalid(field, "must not be empty"));
    }
    if text.len() > bytes_max {
        let rule = format!("must not be longer than {bytes_max} bytes, is {}", text.len());
        return Err(Error::invalid(field, rule));
    }
    if let Some(position) = text.chars().position(char::is_control) {
        let rule = format!("must not have control characters, has one at character {position}");
        return Err(Error::invalid(field, rule));
    }
    if text.trim().len() != text.len() {
        return Err(Error::invalid(field, "must not begin or end with white space"));
    }
    Ok(text)
}
