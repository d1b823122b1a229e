//! The identity of an event.

use std::fmt;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::{Builder, Uuid, Variant};

use crate::page::Cursor;
use crate::time::{TIME_MAX, TIME_MIN};
use crate::{Error, Result};

/// The id of an event: a `UUIDv7` (RFC 9562) whose time stamp is the start of the operation: the millisecond where the
/// standard has it, and the microsecond in the bits behind, so that ids sort by time to the microsecond.
///
/// Ids of one tenant sort by time, the day partition of an event follows from its id alone, and a retry after midnight
/// meets its first copy.
///
/// ```
/// use metertrail::EventId;
/// use metertrail::time::{Clock, SystemClock};
///
/// let now = SystemClock.now();
/// let id = EventId::at(now);
/// assert_eq!(id.millisecond().timestamp_millis(), now.timestamp_millis());
/// assert_eq!(EventId::from_uuid(id.as_uuid())?, id);
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Copy, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
#[serde(try_from = "Uuid", into = "Uuid")]
pub struct EventId(Uuid);

impl EventId {
    /// Below every id; itself none. For bounds.
    pub(crate) const MIN: Self = Self(Uuid::nil());
    /// Above every id; itself none. For bounds.
    pub(crate) const MAX: Self = Self(Uuid::max());

    /// Any UUID, as a bound.
    pub(crate) fn bound(id: Uuid) -> Self {
        Self(id)
    }

    /// The id of the event that a page begins after.
    pub(crate) fn of_cursor(cursor: &Cursor, fingerprint: [u8; 16]) -> Result<Self> {
        Self::from_uuid(Uuid::from_bytes(cursor.position(fingerprint)?))
            .map_err(|_| Error::invalid("cursor", "holds no event id"))
    }

    /// A new id for an operation that starts at this instant. Instants outside of the crate's range of time
    /// ([`TIME_MIN`] to [`TIME_MAX`]) are moved to its nearest end.
    pub fn at(instant: DateTime<Utc>) -> Self {
        Self::at_checked(instant.clamp(TIME_MIN, TIME_MAX - TimeDelta::microseconds(1)))
    }

    /// As [`at`](Self::at), for an instant inside of the range.
    pub(crate) fn at_checked(instant: DateTime<Utc>) -> Self {
        let milliseconds = u64::try_from(instant.timestamp_millis()).unwrap_or(0);
        // The fraction of the millisecond in 12 bits, as RFC 9562 (section 6.2, method 3) has it: ids of one tenant sort
        // by the microsecond. The other 62 bits are random.
        let fraction = instant.timestamp_subsec_micros() % 1_000 * 4_096 / 1_000;
        let mut bytes = Uuid::new_v4().into_bytes();
        let [_, _, high, low] = fraction.to_be_bytes();
        bytes[6] = 0x70 | high;
        bytes[7] = low;
        bytes[..6].copy_from_slice(&milliseconds.to_be_bytes()[2..]);
        Self(Uuid::from_bytes(bytes))
    }

    /// Takes an id that was made elsewhere.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `id` if it is not a `UUIDv7` or its time lies outside of
    /// the crate's range.
    pub fn from_uuid(id: Uuid) -> Result<Self> {
        if id.get_version_num() != 7 || id.get_variant() != Variant::RFC4122 {
            return Err(Error::invalid("id", format!("must be a UUIDv7, is {id}")));
        }
        let id = Self(id);
        let millisecond = id.millisecond();
        if millisecond < TIME_MIN || millisecond >= TIME_MAX {
            return Err(Error::invalid(
                "id",
                format!("its time {millisecond} lies outside of {TIME_MIN} to {TIME_MAX}"),
            ));
        }
        Ok(id)
    }

    /// The id as a UUID.
    pub fn as_uuid(self) -> Uuid {
        self.0
    }

    /// The time inside of the id.
    pub fn millisecond(self) -> DateTime<Utc> {
        let bytes = self.0.into_bytes();
        let milliseconds = bytes[..6].iter().fold(0_i64, |sum, byte| sum << 8 | i64::from(*byte));
        DateTime::from_timestamp_millis(milliseconds).unwrap_or(TIME_MIN)
    }

    /// A bound that is not above any id made in the instant's millisecond or later, and above all earlier ones.
    /// It is not an id itself.
    pub fn lower_bound(instant: DateTime<Utc>) -> Uuid {
        let milliseconds = instant.clamp(TIME_MIN, TIME_MAX).timestamp_millis().to_be_bytes();
        let mut bytes = [0; 16];
        bytes[..6].copy_from_slice(&milliseconds[2..]);
        Builder::from_bytes(bytes).into_uuid()
    }

    /// A bound that is above any id made before the instant, also in its millisecond.
    pub fn upper_bound(instant: DateTime<Utc>) -> Uuid {
        let whole = instant.timestamp_subsec_nanos().is_multiple_of(1_000_000);
        Self::lower_bound(if whole { instant } else { instant + TimeDelta::milliseconds(1) })
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventId({})", self.0)
    }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<Uuid> for EventId {
    type Error = Error;

    fn try_from(id: Uuid) -> Result<Self> {
        Self::from_uuid(id)
    }
}

impl From<EventId> for Uuid {
    fn from(id: EventId) -> Self {
        id.0
    }
}
