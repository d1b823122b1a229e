//! What events of a type have in them, by version: the contract with whoever reads the trail years later.

use std::fmt::Write;

use serde_json::{Map, Value};

use crate::audit::{AuditResult, Severity, Target};
use crate::usage::ErrorMessage;
use crate::{Error, Result};

/// A type of events that says what is in them. The crate's own are in [`record`](crate::audit::record); a host implements it
/// for its own.
///
/// ```
/// use metertrail::audit::{AuditField, AuditRecord, AuditSchema, Severity};
/// use serde_json::{Map, Value, json};
///
/// struct InvoiceSent { number: u64 }
///
/// impl AuditRecord for InvoiceSent {
///     fn schema(&self) -> &'static AuditSchema {
///         const SCHEMA: AuditSchema =
///             AuditSchema::new("invoice.sent", 1, "sent", Severity::Info, &[AuditField::integer("number")]);
///         &SCHEMA
///     }
///
///     fn fields(&self) -> Map<String, Value> {
///         Map::from_iter([("number".to_owned(), json!(self.number))])
///     }
/// }
///
/// InvoiceSent { number: 7 }.schema().check(&InvoiceSent { number: 7 }.fields())?;
/// # Ok::<(), metertrail::Error>(())
/// ```
pub trait AuditRecord {
    /// What events of this kind have in them.
    fn schema(&self) -> &'static AuditSchema;

    /// What this one has.
    fn fields(&self) -> Map<String, Value>;

    /// What it was done to, if to anything.
    fn target(&self) -> Option<Target> {
        None
    }

    /// How it ended.
    fn result(&self) -> AuditResult {
        AuditResult::Success
    }

    /// What went wrong.
    fn error_message(&self) -> Option<ErrorMessage> {
        None
    }
}

/// What the events of one type and version have in them. A change of it is a new version.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuditSchema {
    /// The name of the type.
    pub event_type: &'static str,
    /// Counts from 1.
    pub version: u16,
    /// What is done.
    pub action: &'static str,
    /// How grave it is.
    pub severity: Severity,
    /// The fields of the metadata.
    pub fields: &'static [AuditField],
}

/// A field of the metadata of an event.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AuditField {
    /// Its key.
    pub name: &'static str,
    /// What it holds.
    pub kind: FieldKind,
    /// Whether it is always there.
    pub is_required: bool,
}

/// What a field holds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FieldKind {
    /// A text.
    Text,
    /// A whole number.
    Integer,
    /// Yes or no.
    Boolean,
    /// A list of texts.
    Texts,
}

impl FieldKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Boolean => "boolean",
            Self::Texts => "texts",
        }
    }

    fn holds(self, value: &Value) -> bool {
        match self {
            Self::Text => value.is_string(),
            Self::Integer => value.is_u64() || value.is_i64(),
            Self::Boolean => value.is_boolean(),
            Self::Texts => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        }
    }
}

impl AuditField {
    /// A text that is always there.
    pub const fn text(name: &'static str) -> Self {
        Self { name, kind: FieldKind::Text, is_required: true }
    }

    /// A whole number that is always there.
    pub const fn integer(name: &'static str) -> Self {
        Self { name, kind: FieldKind::Integer, is_required: true }
    }

    /// A yes or no that is always there.
    pub const fn boolean(name: &'static str) -> Self {
        Self { name, kind: FieldKind::Boolean, is_required: true }
    }

    /// A list of texts that is always there.
    pub const fn texts(name: &'static str) -> Self {
        Self { name, kind: FieldKind::Texts, is_required: true }
    }

    /// The same field, which may be missing.
    #[must_use]
    pub const fn optional(mut self) -> Self {
        self.is_required = false;
        self
    }
}

impl AuditSchema {
    /// A schema.
    pub const fn new(
        event_type: &'static str,
        version: u16,
        action: &'static str,
        severity: Severity,
        fields: &'static [AuditField],
    ) -> Self {
        Self { event_type, version, action, severity, fields }
    }

    /// Whether an event's fields are those of the schema.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) on `metadata` if one is missing, is not declared or holds something
    /// else.
    pub fn check(&self, fields: &Map<String, Value>) -> Result<()> {
        let refused = |name: &str, rule: &str| {
            Error::invalid("metadata", format!("{}: {name} {rule}", self.event_type))
        };
        for field in self.fields {
            match fields.get(field.name) {
                None if field.is_required => return Err(refused(field.name, "is missing")),
                Some(value) if !field.kind.holds(value) => {
                    return Err(refused(field.name, &format!("must be of the kind {}", field.kind.as_str())));
                }
                _ => {}
            }
        }
        match fields.keys().find(|name| self.fields.iter().all(|field| field.name != name.as_str())) {
            Some(name) => Err(refused(name, "is not in the schema")),
            None => Ok(()),
        }
    }

    /// The schema on one line, as it stands in a registry: `trial.extended 1 extended info days:integer reason:text?`.
    pub fn to_line(&self) -> String {
        let mut line = format!("{} {} {} {}", self.event_type, self.version, self.action, self.severity);
        for field in self.fields {
            let mark = if field.is_required { "" } else { "?" };
            // Writing to a String cannot fail.
            let _ = write!(line, " {}:{}{mark}", field.name, field.kind.as_str());
        }
        line
    }
}

/// Compares schemas with the registry that was committed with them: every schema's line must stand there, and no type may
/// have gone back to an older version. Each version that was ever written stays in the registry, for those who read old
/// trails. For a test of the host.
///
/// # Errors
/// [`Misuse`](crate::ErrorKind::Misuse) that says which schema changed without a new version, or is not registered yet.
pub fn check_registry<'a>(schemas: impl IntoIterator<Item = &'a AuditSchema>, registry: &str) -> Result<()> {
    let lines: Vec<&str> =
        registry.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    let misuse = |message: String| Err(Error::new(crate::ErrorKind::Misuse, message));
    for schema in schemas {
        let line = schema.to_line();
        let key = format!("{} {} ", schema.event_type, schema.version);
        let registered: Vec<&&str> = lines.iter().filter(|line| line.starts_with(&key)).collect();
        match registered[..] {
            [] => return misuse(format!("not registered yet, add this line: {line}")),
            [known] if **known == line => {}
            [known] => {
                return misuse(format!("changed without a new version: it was `{known}` and is `{line}`"));
            }
            _ => return misuse(format!("registered twice: {key}")),
        }
        let versions = lines.iter().filter_map(|line| {
            let mut words = line.split(' ');
            (words.next() == Some(schema.event_type)).then(|| words.next()?.parse::<u16>().ok())?
        });
        if versions.max().is_some_and(|newest| newest > schema.version) {
            return misuse(format!("{} went back to version {}", schema.event_type, schema.version));
        }
    }
    Ok(())
}
