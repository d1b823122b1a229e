//! Who is metered.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::checked_text;
use crate::{Error, Result};

/// The longest tenant id, in bytes of UTF-8.
pub const TENANT_ID_BYTES_MAX: usize = 128;

/// The id of a tenant: 1 to 128 bytes of UTF-8 without control characters and without white space at either end.
///
/// Ids are compared byte by byte; nothing is folded or trimmed. Cloning is cheap (a reference count).
///
/// ```
/// use metertrail::TenantId;
///
/// let tenant = TenantId::new("acme-corp")?;
/// assert_eq!(tenant.as_str(), "acme-corp");
/// assert!(TenantId::new("bell\u{7}").is_err());
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId(Arc<str>);

impl TenantId {
    /// Checks and takes an id.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `tenant_id` if the id is empty, too long, has a control
    /// character (NUL among them) or begins or ends with white space.
    pub fn new(id: impl AsRef<str>) -> Result<Self> {
        checked_text("tenant_id", id.as_ref(), TENANT_ID_BYTES_MAX).map(|id| Self(id.into()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TenantId({:?})", &*self.0)
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for TenantId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl FromStr for TenantId {
    type Err = Error;

    fn from_str(id: &str) -> Result<Self> {
        Self::new(id)
    }
}

impl TryFrom<&str> for TenantId {
    type Error = Error;

    fn try_from(id: &str) -> Result<Self> {
        Self::new(id)
    }
}

impl TryFrom<String> for TenantId {
    type Error = Error;

    fn try_from(id: String) -> Result<Self> {
        Self::new(id)
    }
}

impl From<TenantId> for String {
    fn from(id: TenantId) -> Self {
        id.as_str().to_owned()
    }
}
