//! What kind of thing happened, how it ended and how grave it is.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::text::checked_text;
use crate::{Error, Result};

/// The longest name of a type of audit events, in bytes.
pub const AUDIT_TYPE_BYTES_MAX: usize = 64;

/// The names of types of security events begin with this.
pub const SECURITY_PREFIX: &str = "security.";

/// What kind of thing happened: 1 to 64 bytes of `a-z`, `0-9`, `_`, `.` and `-`, such as `trial.created`.
///
/// ```
/// use metertrail::audit::AuditType;
///
/// assert!(AuditType::new("security.auth_failed")?.is_security());
/// assert!(AuditType::new("Trial created").is_err());
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct AuditType(Arc<str>);

impl AuditType {
    /// Checks and takes a name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `event_type`.
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = checked_text("event_type", name.as_ref(), AUDIT_TYPE_BYTES_MAX)?;
        let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_.-".contains(&byte);
        if !name.bytes().all(allowed) {
            let rule = format!("must be of a-z, 0-9, _, . and - only, is {name:?}");
            return Err(Error::invalid("event_type", rule));
        }
        Ok(Self(name.into()))
    }

    /// The name in JSON and SQL.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is a security event: its name begins with [`SECURITY_PREFIX`].
    pub fn is_security(&self) -> bool {
        self.0.starts_with(SECURITY_PREFIX)
    }
}

impl fmt::Debug for AuditType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl fmt::Display for AuditType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for AuditType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<String> for AuditType {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<AuditType> for String {
    fn from(event_type: AuditType) -> Self {
        event_type.as_str().to_owned()
    }
}

/// How an action ended.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuditResult {
    /// It was done.
    Success,
    /// It was tried and failed.
    Failure,
    /// It was refused.
    Denied,
}

impl AuditResult {
    /// Every result.
    pub const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Denied];

    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Denied => "denied",
        }
    }
}

impl fmt::Display for AuditResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for AuditResult {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || Error::invalid("result", format!("is not known: {name:?}"));
        Self::ALL.into_iter().find(|result| result.as_str() == name).ok_or_else(unknown)
    }
}

/// How grave an event is.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Severity {
    /// Things as they go.
    Info,
    /// Worth a look.
    Warning,
    /// Something went wrong.
    Error,
    /// Somebody has to act.
    Critical,
}

impl Severity {
    /// Every severity, the least grave first.
    pub const ALL: [Self; 4] = [Self::Info, Self::Warning, Self::Error, Self::Critical];

    /// The name in JSON and SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
            Self::Critical => "critical",
        }
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Severity {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let unknown = || Error::invalid("severity", format!("is not known: {name:?}"));
        Self::ALL.into_iter().find(|severity| severity.as_str() == name).ok_or_else(unknown)
    }
}
