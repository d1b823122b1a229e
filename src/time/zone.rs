//! Where a tenant's day begins.

use std::fmt;
use std::str::FromStr;

use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeZone, Utc};
use chrono_tz::{GapInfo, Tz};
use serde::{Deserialize, Serialize};

use crate::text::checked_text;
use crate::{Error, Result};

const ZONE_NAME_BYTES_MAX: usize = 64;

/// A time zone of the IANA database, by name: `Europe/Berlin`, `Asia/Kathmandu`, `UTC`.
///
/// The rules are compiled in (crate `chrono-tz`), so that every process of one build agrees on them, whatever the
/// machine has installed. Two names of one zone, such as `UTC` and `Etc/UTC`, are different values with the same rules.
///
/// ```
/// use metertrail::time::Zone;
///
/// let zone = Zone::new("Europe/Berlin")?;
/// assert_eq!(zone.to_string(), "Europe/Berlin");
/// assert_eq!(Zone::default(), Zone::UTC);
/// # Ok::<(), metertrail::Error>(())
/// ```
#[derive(Clone, Copy, Deserialize, Eq, Hash, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone(Tz);

impl Zone {
    /// Coordinated universal time: no offset, no changes.
    pub const UTC: Self = Self(Tz::UTC);

    /// Looks a zone up by its IANA name. Case matters.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `zone` if the name is not in the database.
    ///
    /// ```
    /// use metertrail::time::Zone;
    ///
    /// let error = Zone::new("Mars/Olympus_Mons").unwrap_err();
    /// assert_eq!(error.field(), Some("zone"));
    /// assert!(error.to_string().contains("Mars/Olympus_Mons"));
    /// ```
    pub fn new(name: impl AsRef<str>) -> Result<Self> {
        let name = checked_text("zone", name.as_ref(), ZONE_NAME_BYTES_MAX)?;
        Tz::from_str(name).map(Self).map_err(|_| {
            Error::invalid("zone", format!("must be the name of an IANA time zone, is {name:?}"))
        })
    }

    /// The name of the zone.
    pub fn as_str(&self) -> &'static str {
        self.0.name()
    }

    /// What the clocks on the wall show at the instant.
    pub(super) fn local(self, instant: DateTime<Utc>) -> NaiveDateTime {
        instant.with_timezone(&self.0).naive_local()
    }

    /// The earliest instant whose local date is this date or a later one.
    pub(super) fn day_start(self, date: NaiveDate) -> DateTime<Utc> {
        self.first_instant(date.and_time(NaiveTime::MIN))
    }

    /// The earliest instant at which the clocks on the wall show this time or, where they skip it, a later one.
    pub(super) fn first_instant(self, local: NaiveDateTime) -> DateTime<Utc> {
        if let Some(instant) = self.0.from_local_datetime(&local).earliest() {
            return instant.to_utc();
        }
        // The clocks are put forward over this time: the change is when the time before it runs out.
        match GapInfo::new(&local, &self.0).and_then(|gap| gap.begin) {
            Some((begin, offset)) => (begin - offset.fix()).and_utc(),
            None => local.and_utc(),
        }
    }
}

/// [`Zone::UTC`].
impl Default for Zone {
    fn default() -> Self {
        Self::UTC
    }
}

impl fmt::Debug for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Zone({:?})", self.as_str())
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Zone {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<String> for Zone {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name)
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.as_str().to_owned()
    }
}
