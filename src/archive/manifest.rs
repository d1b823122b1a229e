//! What the archive of a day has: its files, and what is in them.

use std::collections::BTreeMap;

use chrono::NaiveDate;
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::store::DayDigest;
use crate::usage::{TokenClass, UsageEvent};
use crate::{Error, Result, TenantId};

/// The name of the format, with its version.
const FORMAT: &str = "metertrail/usage-archive/1";

/// What the archive of a day has. As JSON it lies beside the files, and in the database once the day is closed.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Manifest {
    /// The name of the format, with its version.
    pub format: String,
    /// The day, in UTC.
    pub day: NaiveDate,
    /// How many events there are of each tenant.
    pub tenants: BTreeMap<TenantId, u64>,
    /// The files, in the order of their events, which is that of tenants and ids.
    pub parts: Vec<Part>,
}

/// One file of an archive.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Part {
    /// Where it is in the archive.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    /// The SHA-256 of its bytes in hexadecimal.
    pub sha256: String,
    /// How many events it has.
    pub events: u64,
    /// The sum of the last 60 bits of their ids.
    pub key_sum: String,
    /// The sum of their tokens.
    pub tokens: u64,
    /// The sum of their costs in US dollars.
    pub cost_usd: Decimal,
    /// The first tenant in it.
    pub first_tenant: TenantId,
    /// The last tenant in it.
    pub last_tenant: TenantId,
}

impl Manifest {
    pub(super) fn new(day: NaiveDate) -> Self {
        Self { format: FORMAT.to_owned(), day, tenants: BTreeMap::new(), parts: Vec::new() }
    }

    /// Reads a manifest from JSON.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `manifest` if it is none of this version.
    pub fn from_json(text: &str) -> Result<Self> {
        let this: Self = serde_json::from_str(text).map_err(|error| {
            Error::invalid("manifest", "is none that this crate wrote").with_source(error)
        })?;
        if this.format != FORMAT {
            return Err(Error::invalid("manifest", format!("must be of {FORMAT}, is of {:?}", this.format)));
        }
        Ok(this)
    }

    pub(super) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|error| Error::invalid("manifest", "cannot be written").with_source(error))
    }

    /// Takes in a file with these events.
    pub(super) fn add(&mut self, path: String, file: &[u8], events: &[UsageEvent]) {
        self.count(path, u64::try_from(file.len()).unwrap_or(u64::MAX), sha256(file), events);
    }

    /// Takes in a file that was read, whose checksum is known to be right.
    pub(super) fn count(&mut self, path: String, bytes: u64, sha256: String, events: &[UsageEvent]) {
        let (Some(first), Some(last)) = (events.first(), events.last()) else {
            return;
        };
        let mut digest = DayDigest::default();
        let mut part = Part {
            path,
            bytes,
            sha256,
            events: 0,
            key_sum: String::new(),
            tokens: 0,
            cost_usd: Decimal::ZERO,
            first_tenant: first.tenant_id.clone(),
            last_tenant: last.tenant_id.clone(),
        };
        for event in events {
            digest.add(event.id());
            let tokens = TokenClass::ALL.into_iter().map(|class| event.tokens.get(class));
            part.tokens = tokens.fold(part.tokens, u64::saturating_add);
            part.cost_usd += event.cost.map(crate::usage::Cost::as_decimal).unwrap_or_default();
            *self.tenants.entry(event.tenant_id.clone()).or_default() += 1;
        }
        part.events = digest.events;
        part.key_sum = digest.key_sum.to_string();
        self.parts.push(part);
    }

    /// What the day has.
    pub fn digest(&self) -> DayDigest {
        let mut digest = DayDigest::default();
        for part in &self.parts {
            digest.events = digest.events.saturating_add(part.events);
            digest.key_sum = digest.key_sum.saturating_add(part.key_sum.parse().unwrap_or_default());
        }
        digest
    }

    /// The files that may have events of a tenant.
    pub(super) fn parts_of<'a>(&'a self, tenant_id: &'a TenantId) -> impl Iterator<Item = &'a Part> {
        let is_there = self.tenants.contains_key(tenant_id);
        self.parts
            .iter()
            .filter(move |part| is_there && part.first_tenant <= *tenant_id && *tenant_id <= part.last_tenant)
    }
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}
