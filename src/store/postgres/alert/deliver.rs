//! Notifications on their way.

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::super::rows::{get, natural};
use super::super::sql;
use super::{Parameter, ask, change, rows, tenant_text};
use crate::Result;
use crate::alert::{Attempted, DeadLetter, Notification, NotificationKey};
use crate::text::Label;

/// Who takes notifications, and for how long.
pub(super) struct Claim {
    pub(super) id: Uuid,
    pub(super) now: DateTime<Utc>,
    pub(super) leased_until: DateTime<Utc>,
}

/// Takes what is due. What is found is taken key by key, each by a statement that looks again: of several callers at once one
/// has it.
pub(super) async fn claim(
    transaction: &Transaction<'_>,
    sinks: &[Label],
    claim: &Claim,
    limit: i64,
) -> Result<Vec<Notification>> {
    let sinks: Vec<&str> = sinks.iter().map(Label::as_str).collect();
    let parameters: [Parameter<'_>; 3] =
        [(&sinks, Type::TEXT_ARRAY), (&claim.now, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
    let due = ask(transaction, sql::DUE_ALERT_NOTIFICATIONS, &parameters).await?;
    let mut keys: Vec<NotificationKey> = due.iter().map(rows::key).collect::<Result<_>>()?;
    // Locked in one order by all.
    keys.sort();
    let taken = try_join_all(keys.into_iter().map(|key| take(transaction, key, claim))).await?;
    Ok(taken.into_iter().flatten().collect())
}

async fn take(
    transaction: &Transaction<'_>,
    key: NotificationKey,
    claim: &Claim,
) -> Result<Option<Notification>> {
    let parts = KeyParts::of(&key);
    let mut parameters = parts.parameters().to_vec();
    let rest: [Parameter<'_>; 3] =
        [(&claim.now, Type::TIMESTAMPTZ), (&claim.id, Type::UUID), (&claim.leased_until, Type::TIMESTAMPTZ)];
    parameters.extend(rest);
    let rows = ask(transaction, sql::CLAIM_ALERT_NOTIFICATION, &parameters).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let attempt = u32::try_from(natural(row, 0, get(row, 0)?)?).unwrap_or(u32::MAX);
    let incident = change::incident(transaction, parts.tenant, parts.incident_id).await?;
    drop(parameters);
    Ok(incident.map(|incident| Notification::new(key.clone(), incident, attempt)))
}

pub(super) async fn settle(
    transaction: &Transaction<'_>,
    key: &NotificationKey,
    claim_id: Uuid,
    attempted: &Attempted,
    now: DateTime<Utc>,
) -> Result<bool> {
    let (status, due_at, has_arrived, error) = match attempted {
        Attempted::Delivered { again_at: Some(again_at) } => ("waiting", *again_at, true, None),
        Attempted::Delivered { again_at: None } => ("done", now, true, None),
        Attempted::Failed { retry_at, error } => ("waiting", *retry_at, false, Some(error.as_str())),
        Attempted::Dead { error } => ("dead", now, false, Some(error.as_str())),
    };
    let parts = KeyParts::of(key);
    let mut parameters = parts.parameters().to_vec();
    let rest: [Parameter<'_>; 6] = [
        (&claim_id, Type::UUID),
        (&status, Type::TEXT),
        (&due_at, Type::TIMESTAMPTZ),
        (&has_arrived, Type::BOOL),
        (&error, Type::TEXT),
        (&now, Type::TIMESTAMPTZ),
    ];
    parameters.extend(rest);
    Ok(!ask(transaction, sql::SETTLE_ALERT_NOTIFICATION, &parameters).await?.is_empty())
}

pub(super) async fn dead_letters(
    transaction: &Transaction<'_>,
    after: Option<&NotificationKey>,
    limit: i64,
) -> Result<Vec<DeadLetter>> {
    let parts =
        after.map_or(KeyParts { tenant: "", incident_id: Uuid::nil(), kind: "", sink: "" }, KeyParts::of);
    let mut parameters = parts.parameters().to_vec();
    parameters.push((&limit, Type::INT8));
    let rows = ask(transaction, sql::DEAD_ALERT_LETTERS, &parameters).await?;
    let letter = |row| {
        let attempts = u32::try_from(natural(row, 4, get(row, 4)?)?).unwrap_or(u32::MAX);
        let error = get::<Option<String>>(row, 6)?.unwrap_or_default();
        Ok(DeadLetter::new(rows::key(row)?, attempts, get(row, 5)?, error))
    };
    rows.iter().map(letter).collect()
}

pub(super) async fn redrive(
    transaction: &Transaction<'_>,
    key: &NotificationKey,
    now: DateTime<Utc>,
) -> Result<bool> {
    let parts = KeyParts::of(key);
    let mut parameters = parts.parameters().to_vec();
    parameters.push((&now, Type::TIMESTAMPTZ));
    Ok(!ask(transaction, sql::REDRIVE_ALERT_NOTIFICATION, &parameters).await?.is_empty())
}

/// A key as the columns of its row.
struct KeyParts<'a> {
    tenant: &'a str,
    incident_id: Uuid,
    kind: &'static str,
    sink: &'a str,
}

impl<'a> KeyParts<'a> {
    fn of(key: &'a NotificationKey) -> Self {
        Self {
            tenant: tenant_text(key.tenant_id.as_ref()),
            incident_id: key.incident_id.as_uuid(),
            kind: key.kind.as_str(),
            sink: key.sink.as_str(),
        }
    }

    fn parameters(&self) -> [Parameter<'_>; 4] {
        [
            (&self.tenant, Type::TEXT),
            (&self.incident_id, Type::UUID),
            (&self.kind, Type::TEXT),
            (&self.sink, Type::TEXT),
        ]
    }
}
