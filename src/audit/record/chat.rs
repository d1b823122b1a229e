//! That something was said, never what.

use serde_json::{Map, Value};

use super::{fields, maybe, some};
use crate::audit::{AuditField, AuditRecord, AuditSchema, Severity, Target};
use crate::text::Label;

/// That something was said in a chat: lengths and counts, never the text.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ChatAudit {
    /// The user said something.
    MessageReceived {
        /// In which session.
        session: Label,
        /// How long it was, in characters.
        characters: u64,
        /// How many files came with it.
        attachments: u32,
    },
    /// The assistant answered.
    ResponseSent {
        /// In which session.
        session: Label,
        /// How long the answer was, in characters.
        characters: u64,
        /// How many tokens it took.
        tokens: Option<u64>,
        /// How many tools were called for it.
        tool_calls: u32,
    },
}

const CHARACTERS: AuditField = AuditField::integer("characters");

pub(super) const SCHEMAS: &[AuditSchema] = &[
    AuditSchema::new(
        "chat.message_received",
        1,
        "message_received",
        Severity::Info,
        &[CHARACTERS, AuditField::integer("attachments")],
    ),
    AuditSchema::new(
        "chat.response_sent",
        1,
        "response_sent",
        Severity::Info,
        &[CHARACTERS, AuditField::integer("tokens").optional(), AuditField::integer("tool_calls")],
    ),
];

impl AuditRecord for ChatAudit {
    fn schema(&self) -> &'static AuditSchema {
        match self {
            Self::MessageReceived { .. } => &SCHEMAS[0],
            Self::ResponseSent { .. } => &SCHEMAS[1],
        }
    }

    fn fields(&self) -> Map<String, Value> {
        match self {
            Self::MessageReceived { characters, attachments, .. } => {
                fields([("characters", some(*characters)), ("attachments", some(*attachments))])
            }
            Self::ResponseSent { characters, tokens, tool_calls, .. } => fields([
                ("characters", some(*characters)),
                ("tokens", maybe(tokens.as_ref())),
                ("tool_calls", some(*tool_calls)),
            ]),
        }
    }

    fn target(&self) -> Option<Target> {
        let (Self::MessageReceived { session, .. } | Self::ResponseSent { session, .. }) = self;
        Target::new("session", session.as_str()).ok()
    }
}
