//! Who did something, and to what.

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::text::Label;

/// Who did it. Ids are pseudonyms that only the host can resolve: what names a person goes into
/// [`PersonalData`](crate::audit::PersonalData), which can be forgotten.
///
/// ```
/// use metertrail::audit::Actor;
///
/// let actor = Actor::user("u-71")?;
/// assert_eq!((actor.kind.as_str(), actor.id.as_str()), ("user", "u-71"));
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub struct Actor {
    /// What kind of actor: `user`, `service`, `system`, or the host's own.
    pub kind: Label,
    /// Which one.
    pub id: Label,
}

impl Actor {
    /// An actor of the host's own kind.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `actor_type` or `actor_id`.
    pub fn new(kind: impl AsRef<str>, id: impl AsRef<str>) -> Result<Self> {
        Ok(Self { kind: Label::new("actor_type", kind)?, id: Label::new("actor_id", id)? })
    }

    /// A user.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `actor_id`.
    pub fn user(id: impl AsRef<str>) -> Result<Self> {
        Self::new("user", id)
    }

    /// A service, such as one that calls with a key of its own.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `actor_id`.
    pub fn service(id: impl AsRef<str>) -> Result<Self> {
        Self::new("service", id)
    }

    /// The host itself: a job, a timer.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `actor_id`.
    pub fn system(id: impl AsRef<str>) -> Result<Self> {
        Self::new("system", id)
    }
}

/// What it was done to.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[non_exhaustive]
pub struct Target {
    /// What kind of thing, such as `document`.
    pub kind: Label,
    /// Which one.
    pub id: Label,
}

impl Target {
    /// A thing.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `target_type` or `target_id`.
    pub fn new(kind: impl AsRef<str>, id: impl AsRef<str>) -> Result<Self> {
        Ok(Self { kind: Label::new("target_type", kind)?, id: Label::new("target_id", id)? })
    }
}
