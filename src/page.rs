//! Keyset paging: a page, its size and the cursor to the next one.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// The most items on one page.
pub const PAGE_SIZE_MAX: u16 = 1_000;

/// How many items a page may have: 1 to 1,000; 100 by default.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PageSize(u16);

impl PageSize {
    /// Checks and takes a size.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `page_size` if it is not in 1 to [`PAGE_SIZE_MAX`].
    pub fn new(size: u16) -> Result<Self> {
        if !(1..=PAGE_SIZE_MAX).contains(&size) {
            return Err(Error::invalid("page_size", format!("must be in 1 to {PAGE_SIZE_MAX}, is {size}")));
        }
        Ok(Self(size))
    }

    /// The size as a number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl Default for PageSize {
    fn default() -> Self {
        Self(100)
    }
}

/// Some items, and where the next page begins if there may be more.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Page<T> {
    /// The items of this page, in the order of the query.
    pub items: Vec<T>,
    /// The cursor of the next page; `None` on the last.
    pub next: Option<Cursor>,
}

/// An opaque place in the results of one query. It is good for that query only: one of another tenant or other filters
/// is refused.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cursor {
    position: [u8; 16],
    query: [u8; 16],
}

impl Cursor {
    /// A place after the item of this position, in the query that has this fingerprint. Made by stores.
    pub fn new(position: [u8; 16], query: [u8; 16]) -> Self {
        Self { position, query }
    }

    /// The position, if the cursor was made by the query of this fingerprint.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `cursor` otherwise.
    pub fn position(&self, query: [u8; 16]) -> Result<[u8; 16]> {
        if self.query == query {
            return Ok(self.position);
        }
        Err(Error::invalid("cursor", "belongs to another query"))
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.position.iter().chain(&self.query).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let malformed = || Error::invalid("cursor", "is not one that this crate made");
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(malformed());
        }
        let half = |from: usize| -> Result<[u8; 16]> {
            let number = u128::from_str_radix(&text[from..from + 32], 16).map_err(|_| malformed())?;
            Ok(number.to_be_bytes())
        };
        Ok(Self { position: half(0)?, query: half(32)? })
    }
}

impl TryFrom<String> for Cursor {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Cursor> for String {
    fn from(cursor: Cursor) -> Self {
        cursor.to_string()
    }
}
