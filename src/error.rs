//! The one error of the crate.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;

/// A result whose error is the crate's own [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Anything that can go wrong in this crate.
///
/// Opaque on purpose: ask [`kind`](Error::kind) what to do about it, [`is_transient`](Error::is_transient)
/// whether trying again helps, and [`source`](std::error::Error::source) for the cause underneath.
/// `Display` prints this level only.
///
/// ```
/// use metertrail::{ErrorKind, TenantId};
///
/// let error = TenantId::new("").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::InvalidInput);
/// assert_eq!(error.field(), Some("tenant_id"));
/// assert_eq!(error.to_string(), "tenant_id: must not be empty");
/// ```
pub struct Error {
    inner: Box<Inner>,
}

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    field: Option<Cow<'static, str>>,
    message: Cow<'static, str>,
    source: Option<std::sync::Arc<dyn StdError + Send + Sync>>,
}

/// What an [`Error`] means to the caller.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A value given by the caller is refused; [`Error::field`] names it.
    InvalidInput,
    /// The id or idempotency key is already taken by an event with another payload. The first one stands.
    Conflict,
    /// The buffer is at its bound and the event was not accepted.
    BufferFull,
    /// The tracker was shut down and takes no more events.
    ShutDown,
    /// The store could not be reached or did not answer in time. The work may or may not have been done;
    /// every store method may be called again with the same arguments.
    Unavailable,
    /// The store's schema is missing, older or newer than this crate.
    Schema,
    /// The store refused or misread a row: a defect, or somebody else's hand in the tables.
    Store,
    /// A change was made and stands, and the audit trail has not confirmed the event that says so: see
    /// [`audited`](crate::audited). That it was asked for, and by whom, is in the trail.
    Unaudited,
    /// The crate is used in a way it cannot work, for example outside of a tokio runtime.
    Misuse,
}

impl Error {
    /// What this error means to the caller.
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The name of the refused field, for [`ErrorKind::InvalidInput`].
    pub fn field(&self) -> Option<&str> {
        self.inner.field.as_deref()
    }

    /// Whether the same call may succeed later without any change by the caller.
    pub fn is_transient(&self) -> bool {
        matches!(self.inner.kind, ErrorKind::Unavailable | ErrorKind::BufferFull)
    }

    /// Whether the fault of a write lies with the store and not with what is written. A missing schema is repaired by a
    /// migration, so it is waited for: nothing that was accepted is lost by it.
    pub(crate) fn may_pass(&self) -> bool {
        self.is_transient() || self.kind() == ErrorKind::Schema
    }

    /// An error of a store written outside of this crate.
    ///
    /// ```
    /// use metertrail::{Error, ErrorKind};
    ///
    /// let error = Error::new(ErrorKind::Unavailable, "the cluster has no leader");
    /// assert!(error.is_transient());
    /// ```
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self { inner: Box::new(Inner { kind, field: None, message: message.into(), source: None }) }
    }

    /// The same error with the cause underneath.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.inner.source = Some(std::sync::Arc::new(source));
        self
    }

    /// A refused value: the field's name and the rule that it breaks.
    pub fn invalid(field: impl Into<Cow<'static, str>>, rule: impl Into<Cow<'static, str>>) -> Self {
        let mut error = Self::new(ErrorKind::InvalidInput, rule);
        error.inner.field = Some(field.into());
        error
    }
}

/// A cheap copy, so that every waiter of one failed batch is told the same cause.
impl Clone for Error {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(field) = &self.inner.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.inner.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.inner.kind)
            .field("field", &self.inner.field)
            .field("message", &self.inner.message)
            .field("source", &self.inner.source)
            .finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| {
            let source: &(dyn StdError + 'static) = source;
            source
        })
    }
}
