//! Reading the trail, and the keys of persons.

use tokio_postgres::Transaction;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Parameters, rows};
use crate::audit::{AuditEvent, AuditQuery, AuditResult};
use crate::page::{Cursor, Page};
use crate::store::KeyErased;
use crate::store::postgres::error::from_postgres;
use crate::store::postgres::rows::get;
use crate::store::postgres::sql;
use crate::text::Label;
use crate::usage::EventId;
use crate::{Error, ErrorKind, Result, TenantId};

/// Above every text that can be in a column: labels have at most 256 bytes.
const TEXT_MAX: [u8; 260] = {
    let mut bytes = [0; 260];
    let mut at = 0;
    while at < 260 {
        // U+10FFFF in UTF-8, again and again.
        bytes[at] = 0xf4;
        bytes[at + 1] = 0x8f;
        bytes[at + 2] = 0xbf;
        bytes[at + 3] = 0xbf;
        at += 4;
    }
    bytes
};

/// One page of a trail.
pub(super) async fn trail(transaction: &Transaction<'_>, query: &AuditQuery) -> Result<Page<AuditEvent>> {
    let range = query.range;
    let below = query.position()?.map_or_else(|| EventId::upper_bound(range.end()), EventId::as_uuid);
    let tenant = query.tenant_id.as_str();
    let from: Uuid = EventId::lower_bound(range.start());
    let (start, end) = (range.start(), range.end());
    let types = query.types.bounds();
    let actor = query.actor.as_ref();
    let target = query.target.as_ref();
    let actor_types = text_bounds(actor.map(|actor| actor.kind.as_str()));
    let actor_ids = text_bounds(actor.map(|actor| actor.id.as_str()));
    let target_types = text_bounds(target.map(|target| target.kind.as_str()));
    let target_ids = text_bounds(target.map(|target| target.id.as_str()));
    let results = if query.results.is_empty() { &AuditResult::ALL[..] } else { &query.results };
    let results: Vec<&str> = results.iter().map(|result| result.as_str()).collect();
    let size = usize::from(query.page_size.get());
    // One more than asked for, which tells whether there is another page.
    let limit = i64::from(query.page_size.get()) + 1;
    let parameters: Parameters<'_> = &[
        (&tenant, Type::TEXT),
        (&from, Type::UUID),
        (&below, Type::UUID),
        (&start, Type::TIMESTAMPTZ),
        (&end, Type::TIMESTAMPTZ),
        (&types.0, Type::TEXT),
        (&types.1, Type::TEXT),
        (&actor_types.0, Type::TEXT),
        (&actor_types.1, Type::TEXT),
        (&actor_ids.0, Type::TEXT),
        (&actor_ids.1, Type::TEXT),
        (&target_types.0, Type::TEXT),
        (&target_types.1, Type::TEXT),
        (&target_ids.0, Type::TEXT),
        (&target_ids.1, Type::TEXT),
        (&results, Type::TEXT_ARRAY),
        (&limit, Type::INT8),
    ];
    let found = transaction.query_typed(sql::AUDIT_TRAIL, parameters).await.map_err(from_postgres)?;
    let items = found.iter().take(size).map(rows::event).collect::<Result<Vec<AuditEvent>>>()?;
    let last = items.last().filter(|_| found.len() > size);
    let next = last.map(|event| Cursor::new(event.id().as_uuid().into_bytes(), query.fingerprint()));
    Ok(Page { items, next })
}

pub(super) async fn put_subject_key(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    subject: &Label,
    key: &[u8],
) -> Result<Vec<u8>> {
    let (tenant, subject) = (tenant_id.as_str(), subject.as_str());
    let parameters: Parameters<'_> = &[(&tenant, Type::TEXT), (&subject, Type::TEXT), (&key, Type::BYTEA)];
    let kept =
        transaction.query_typed(sql::PUT_AUDIT_SUBJECT_KEY, parameters).await.map_err(from_postgres)?;
    let row = kept.first().ok_or_else(|| Error::new(ErrorKind::Store, "a subject's key was not kept"))?;
    get(row, 0)
}

pub(super) async fn erase_subject_key(
    transaction: &Transaction<'_>,
    tenant_id: &TenantId,
    subject: &Label,
) -> Result<KeyErased> {
    let (tenant, subject) = (tenant_id.as_str(), subject.as_str());
    let parameters: Parameters<'_> = &[(&tenant, Type::TEXT), (&subject, Type::TEXT)];
    let found = transaction.query_typed(sql::LOCK_AUDIT_SUBJECT, parameters).await.map_err(from_postgres)?;
    let mut has_key = false;
    for row in &found {
        if let Some(reason) = get::<Option<&str>>(row, 2)? {
            return Ok(KeyErased::Held(Label::new("hold_reason", reason)?));
        }
        has_key |= get::<&str>(row, 0)? == subject && get::<bool>(row, 1)?;
    }
    if !has_key {
        return Ok(KeyErased::Absent);
    }
    transaction.query_typed(sql::DELETE_AUDIT_SUBJECT, parameters).await.map_err(from_postgres)?;
    Ok(KeyErased::Erased)
}

/// The first and the last text of a column that a filter lets pass, both included.
fn text_bounds(filter: Option<&str>) -> (&str, &str) {
    match filter {
        Some(text) => (text, text),
        None => ("", std::str::from_utf8(&TEXT_MAX).unwrap_or("\u{10ffff}")),
    }
}
