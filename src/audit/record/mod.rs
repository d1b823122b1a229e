//! The events that this crate knows: each type says what is in it, by version.

mod administration;
mod chat;
mod config;
mod failure;
mod knowledge;
mod privacy;
mod security;
mod trial;

use serde_json::{Map, Value};

use crate::audit::AuditSchema;

pub use self::administration::{AdminAudit, Mended};
pub use self::chat::ChatAudit;
pub use self::config::ConfigAudit;
pub use self::failure::ErrorAudit;
pub use self::knowledge::KbAudit;
pub use self::privacy::PrivacyAudit;
pub use self::security::SecurityAudit;
pub use self::trial::TrialAudit;

/// The schemas of all events that this crate knows, in their newest versions.
pub fn schemas() -> impl Iterator<Item = &'static AuditSchema> {
    let all: [&'static [AuditSchema]; 8] = [
        trial::SCHEMAS,
        knowledge::SCHEMAS,
        config::SCHEMAS,
        chat::SCHEMAS,
        failure::SCHEMAS,
        security::SCHEMAS,
        privacy::SCHEMAS,
        administration::SCHEMAS,
    ];
    all.into_iter().flatten()
}

/// Fields from names and values; those without a value are left out.
fn fields<const N: usize>(entries: [(&str, Option<Value>); N]) -> Map<String, Value> {
    entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// A value that is there.
#[expect(clippy::unnecessary_wraps, reason = "fields that are always there stand beside those that are not")]
fn some(value: impl Into<Value>) -> Option<Value> {
    Some(value.into())
}

/// A value that may be missing.
fn maybe<T: Into<Value> + Clone>(value: Option<&T>) -> Option<Value> {
    value.cloned().map(Into::into)
}
