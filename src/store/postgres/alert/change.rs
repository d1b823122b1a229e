//! Incidents that begin, change and end.

use chrono::{DateTime, Utc};
use futures_util::future::try_join_all;
use tokio_postgres::Transaction;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::super::rows::{get, natural};
use super::super::sql;
use super::{Parameter, ask, rows, signed, tenant_text};
use crate::Result;
use crate::alert::{Change, Incident, IncidentId};
use crate::store::EvaluationTurn;
use crate::text::Label;

/// Makes changes, one statement each, sent together: each touches one tenant. The turn's row is locked all the while.
pub(super) async fn change_incidents(
    transaction: &Transaction<'_>,
    turn: Option<&EvaluationTurn>,
    changes: &[Change],
    now: DateTime<Utc>,
) -> Result<Vec<bool>> {
    if let Some(turn) = turn
        && is_over(transaction, turn).await?
    {
        return Ok(vec![false; changes.len()]);
    }
    // In the order of their keys, so that two callers cannot wait for each other.
    let mut order: Vec<usize> = (0..changes.len()).collect();
    order.sort_by_key(|at| (&changes[*at].incident.tenant_id, changes[*at].incident.fingerprint()));
    let made = try_join_all(order.iter().map(|at| make(transaction, &changes[*at]))).await?;
    let mut answers = vec![false; changes.len()];
    for (at, made) in order.iter().zip(made) {
        answers[*at] = made;
    }
    let told = changes.iter().zip(&answers).filter(|(_, made)| **made).map(|(change, _)| change);
    try_join_all(told.map(|change| tell(transaction, change, now))).await?;
    Ok(answers)
}

async fn is_over(transaction: &Transaction<'_>, turn: &EvaluationTurn) -> Result<bool> {
    let rows = ask(transaction, sql::LOCK_ALERT_EVALUATION, &[(&turn.scope.as_str(), Type::TEXT)]).await?;
    let Some(row) = rows.first() else {
        return Ok(true);
    };
    Ok(natural(row, 0, get(row, 0)?)? != turn.generation)
}

async fn make(transaction: &Transaction<'_>, change: &Change) -> Result<bool> {
    let incident = &change.incident;
    let expected = change.expected.map(|expected| signed("revision", expected)).transpose()?;
    match expected {
        None => insert(transaction, incident).await,
        Some(expected) if change.is_withdrawn => {
            let (tenant, id) = key(incident);
            let parameters: [Parameter<'_>; 3] =
                [(&tenant, Type::TEXT), (&id, Type::UUID), (&expected, Type::INT8)];
            Ok(!ask(transaction, sql::WITHDRAW_INCIDENT, &parameters).await?.is_empty())
        }
        Some(expected) => update(transaction, incident, expected).await,
    }
}

fn key(incident: &Incident) -> (&str, Uuid) {
    (tenant_text(incident.tenant_id.as_ref()), incident.id.as_uuid())
}

async fn insert(transaction: &Transaction<'_>, incident: &Incident) -> Result<bool> {
    let (tenant, id) = key(incident);
    let (rule, subject) = (incident.rule.as_str(), incident.subject.as_ref().map(Label::as_str));
    let (severity, state) = (incident.severity.as_str(), incident.state.as_str());
    let unit = incident.unit.as_str();
    let by = incident.acknowledged.as_ref().map(|taken| taken.by.as_str());
    let acknowledged_at = incident.acknowledged.as_ref().map(|taken| taken.at);
    let revision = signed("revision", incident.revision)?;
    let fingerprint = incident.fingerprint();
    let parameters: [Parameter<'_>; 19] = [
        (&tenant, Type::TEXT),
        (&id, Type::UUID),
        (&rule, Type::TEXT),
        (&subject, Type::TEXT),
        (&severity, Type::TEXT),
        (&state, Type::TEXT),
        (&incident.value, Type::NUMERIC),
        (&incident.threshold, Type::NUMERIC),
        (&unit, Type::TEXT),
        (&incident.opened_at, Type::TIMESTAMPTZ),
        (&incident.fired_at, Type::TIMESTAMPTZ),
        (&incident.calm_since, Type::TIMESTAMPTZ),
        (&incident.observed_at, Type::TIMESTAMPTZ),
        (&incident.resolved_at, Type::TIMESTAMPTZ),
        (&incident.notified_at, Type::TIMESTAMPTZ),
        (&by, Type::TEXT),
        (&acknowledged_at, Type::TIMESTAMPTZ),
        (&revision, Type::INT8),
        (&fingerprint, Type::UUID),
    ];
    Ok(!ask(transaction, sql::INSERT_INCIDENT, &parameters).await?.is_empty())
}

async fn update(transaction: &Transaction<'_>, incident: &Incident, expected: i64) -> Result<bool> {
    let (tenant, id) = key(incident);
    let state = incident.state.as_str();
    let revision = signed("revision", incident.revision)?;
    let parameters: [Parameter<'_>; 12] = [
        (&tenant, Type::TEXT),
        (&id, Type::UUID),
        (&expected, Type::INT8),
        (&state, Type::TEXT),
        (&incident.value, Type::NUMERIC),
        (&incident.threshold, Type::NUMERIC),
        (&incident.fired_at, Type::TIMESTAMPTZ),
        (&incident.calm_since, Type::TIMESTAMPTZ),
        (&incident.observed_at, Type::TIMESTAMPTZ),
        (&incident.resolved_at, Type::TIMESTAMPTZ),
        (&incident.notified_at, Type::TIMESTAMPTZ),
        (&revision, Type::INT8),
    ];
    Ok(!ask(transaction, sql::UPDATE_INCIDENT, &parameters).await?.is_empty())
}

/// Writes down what is to be told of a change that was made.
async fn tell(transaction: &Transaction<'_>, change: &Change, now: DateTime<Utc>) -> Result<()> {
    let (tenant, id) = key(&change.incident);
    if !change.incident.is_open() {
        ask(transaction, sql::END_ALERT_REMINDERS, &[(&tenant, Type::TEXT), (&id, Type::UUID)]).await?;
    }
    let kind = change.kind().as_str();
    for sink in &change.notify {
        let sink = sink.as_str();
        let parameters: [Parameter<'_>; 5] = [
            (&tenant, Type::TEXT),
            (&id, Type::UUID),
            (&kind, Type::TEXT),
            (&sink, Type::TEXT),
            (&now, Type::TIMESTAMPTZ),
        ];
        ask(transaction, sql::INSERT_ALERT_NOTIFICATION, &parameters).await?;
    }
    Ok(())
}

pub(super) async fn acknowledge(
    transaction: &Transaction<'_>,
    tenant: &str,
    id: IncidentId,
    by: &Label,
    now: DateTime<Utc>,
) -> Result<Option<Incident>> {
    let (id, by) = (id.as_uuid(), by.as_str());
    let parameters: [Parameter<'_>; 4] =
        [(&tenant, Type::TEXT), (&id, Type::UUID), (&by, Type::TEXT), (&now, Type::TIMESTAMPTZ)];
    ask(transaction, sql::ACKNOWLEDGE_INCIDENT, &parameters).await?;
    incident(transaction, tenant, id).await
}

pub(super) async fn incident(
    transaction: &Transaction<'_>,
    tenant: &str,
    id: Uuid,
) -> Result<Option<Incident>> {
    let rows = ask(transaction, sql::INCIDENT, &[(&tenant, Type::TEXT), (&id, Type::UUID)]).await?;
    rows.first().map(rows::incident).transpose()
}

/// Removes old incidents, each with its notifications.
pub(super) async fn forget(
    transaction: &Transaction<'_>,
    resolved_before: DateTime<Utc>,
    limit: i64,
) -> Result<u64> {
    let parameters: [Parameter<'_>; 2] = [(&resolved_before, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
    let old = ask(transaction, sql::RESOLVED_INCIDENTS, &parameters).await?;
    let mut keys: Vec<(String, Uuid)> =
        old.iter().map(|row| Ok((get(row, 0)?, get(row, 1)?))).collect::<Result<_>>()?;
    keys.sort();
    let forgotten = try_join_all(keys.iter().map(|(tenant, id)| async move {
        let key: [Parameter<'_>; 2] = [(tenant, Type::TEXT), (id, Type::UUID)];
        ask(transaction, sql::FORGET_ALERT_NOTIFICATIONS, &key).await?;
        ask(transaction, sql::FORGET_INCIDENT, &key).await.map(|rows| !rows.is_empty())
    }))
    .await?;
    ask(transaction, sql::FORGET_ALERT_SILENCES, &[(&resolved_before, Type::TIMESTAMPTZ)]).await?;
    Ok(u64::try_from(forgotten.iter().filter(|forgotten| **forgotten).count()).unwrap_or(u64::MAX))
}
