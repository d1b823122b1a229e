//! Which trail something belongs to.

use std::fmt;
use std::sync::Arc;

use crate::Result;

/// The longest name of a trail, in bytes.
pub const ORIGIN_BYTES_MAX: usize = 256;

/// The name of a trail: in its checkpoints (<https://c2sp.org/tlog-checkpoint>) and in every batch, so that nothing that was
/// signed for one trail passes in another. It should be one that nobody else uses: a domain and a path.
///
/// ```
/// use metertrail::audit::Origin;
///
/// assert_eq!(Origin::new("example.org/audit")?.as_str(), "example.org/audit");
/// assert_eq!(Origin::new("two\nlines").unwrap_err().field(), Some("origin"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Origin(Arc<str>);

impl Origin {
    /// Checks a name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `origin` if it is empty, longer than [`ORIGIN_BYTES_MAX`] or has
    /// control characters.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        crate::text::checked_text("origin", name.as_ref(), ORIGIN_BYTES_MAX).map(|name| Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// `metertrail/audit`: for those who have one trail and share no key with another.
impl Default for Origin {
    fn default() -> Self {
        Self("metertrail/audit".into())
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
