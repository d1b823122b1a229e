//! What a caller wants to remember of an operation, bounded.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Number, Value};

use crate::{Error, Result};

/// The most bytes that the metadata of one event may take as compact JSON: 16 KiB.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// The deepest nesting of metadata.
pub const METADATA_DEPTH_MAX: usize = 16;

/// A JSON object of at most 16 KiB and 16 levels, without NUL characters. Cloning is cheap.
///
/// Numbers are kept as `jsonb` keeps them: a whole number has no fraction (`1.0` becomes `1`), so that what is read
/// back equals what was given.
///
/// ```
/// use metertrail::Metadata;
/// use serde_json::json;
///
/// let metadata = Metadata::new(json!({"session": "s-1", "retries": 2}))?;
/// assert_eq!(metadata.get("retries"), Some(&json!(2)));
/// assert_eq!(Metadata::new(json!([1, 2])).unwrap_err().field(), Some("metadata"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Default, Deserialize, PartialEq, Serialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct Metadata(Option<Arc<Map<String, Value>>>);

impl Metadata {
    /// Checks and takes a JSON object.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `metadata` if the value is not an object, is larger than
    /// [`METADATA_BYTES_MAX`], deeper than [`METADATA_DEPTH_MAX`], or has a NUL character in a key or a text.
    pub fn new(value: impl Into<Value>) -> Result<Self> {
        let mut value = value.into();
        normalise(&mut value, 0)?;
        let Value::Object(map) = value else {
            return Err(Error::invalid("metadata", "must be a JSON object"));
        };
        let mut size = ByteCount(0);
        serde_json::to_writer(&mut size, &map)
            .map_err(|error| Error::invalid("metadata", "cannot be written as JSON").with_source(error))?;
        if size.0 > METADATA_BYTES_MAX {
            let rule = format!("must not be larger than {METADATA_BYTES_MAX} bytes as JSON, is {}", size.0);
            return Err(Error::invalid("metadata", rule));
        }
        Ok(if map.is_empty() { Self::default() } else { Self(Some(Arc::new(map))) })
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.as_ref().and_then(|map| map.get(key))
    }

    /// A copy in which a key is true; the same where that would be too much.
    pub(crate) fn marked(&self, key: &str) -> Self {
        let mut map = self.as_map().cloned().unwrap_or_default();
        map.insert(key.to_owned(), Value::Bool(true));
        Self::new(map).unwrap_or_else(|_| self.clone())
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The object, if there is anything in it.
    pub fn as_map(&self) -> Option<&Map<String, Value>> {
        self.0.as_deref()
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("{}"),
            Some(map) => f.debug_map().entries(map.iter()).finish(),
        }
    }
}

impl TryFrom<Value> for Metadata {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self> {
        Self::new(value)
    }
}

impl From<Metadata> for Value {
    fn from(metadata: Metadata) -> Self {
        Self::Object(metadata.0.map(Arc::unwrap_or_clone).unwrap_or_default())
    }
}

fn normalise(value: &mut Value, depth: usize) -> Result<()> {
    if depth > METADATA_DEPTH_MAX {
        return Err(Error::invalid(
            "metadata",
            format!("must not be nested deeper than {METADATA_DEPTH_MAX}"),
        ));
    }
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => {
            if let Some(whole) = whole_number(number) {
                *number = whole;
            }
            Ok(())
        }
        Value::String(text) => refuse_nul(text),
        Value::Array(items) => items.iter_mut().try_for_each(|item| normalise(item, depth + 1)),
        Value::Object(map) => map.iter_mut().try_for_each(|(key, item)| {
            refuse_nul(key)?;
            normalise(item, depth + 1)
        }),
    }
}

/// The integer form of a float without a fraction, if an integer type holds it. Written out, such a float is short, so
/// its text parses as an integer after the fraction or the exponent is resolved.
fn whole_number(number: &Number) -> Option<Number> {
    let float =
        number.as_f64().filter(|float| !number.is_i64() && !number.is_u64() && float.fract() == 0.0)?;
    let digits = format!("{float:.0}");
    digits.parse::<i64>().map(Number::from).or_else(|_| digits.parse::<u64>().map(Number::from)).ok()
}

fn refuse_nul(text: &str) -> Result<()> {
    if text.contains('\0') {
        return Err(Error::invalid("metadata", "must not have NUL characters"));
    }
    Ok(())
}

struct ByteCount(usize);

impl std::io::Write for ByteCount {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0 = self.0.saturating_add(bytes.len());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
