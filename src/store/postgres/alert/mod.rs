//! Incidents in Postgres: each method takes a connection, does its step in a transaction, and gives it back.

mod change;
mod check;
mod deliver;
mod rows;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Row, Transaction};
use uuid::Uuid;

use super::error::from_postgres;
use super::rows::{get, natural};
use super::{PostgresStore, sql, transact};
use crate::alert::{
    AggregationBacklog, Attempted, Breach, Change, DeadLetter, Incident, IncidentId, IncidentQuery,
    IncidentState, Notification, NotificationKey, QuotaWindows, Silence, SilenceId, TenantCheck,
};
use crate::page::Page;
use crate::store::{
    ALERT_BATCH_MAX, AlertStore, EvaluationTurn, OpenIncidents, SILENCES_MAX, check_changes,
    check_tenant_check,
};
use crate::text::Label;
use crate::{Error, Result, TenantId};

/// A parameter of a statement with its type.
type Parameter<'a> = (&'a (dyn ToSql + Sync), Type);

/// One statement.
async fn ask(
    transaction: &Transaction<'_>,
    statement: &str,
    parameters: &[Parameter<'_>],
) -> Result<Vec<Row>> {
    transaction.query_typed(statement, parameters).await.map_err(from_postgres)
}

/// What is about no tenant has the tenant ''.
fn tenant_text(tenant_id: Option<&TenantId>) -> &str {
    tenant_id.map_or("", TenantId::as_str)
}

/// As many rows as are asked for, and no more than one call gives.
fn bounded(limit: u32) -> i64 {
    limit.min(ALERT_BATCH_MAX).into()
}

#[async_trait]
impl AlertStore for PostgresStore {
    async fn breaches(
        &self,
        tenant_check: &TenantCheck,
        after: Option<&TenantId>,
        limit: u32,
    ) -> Result<Vec<Breach>> {
        check_tenant_check(tenant_check)?;
        transact!(self, |transaction| check::breaches(
            transaction,
            tenant_check,
            tenant_text(after),
            bounded(limit)
        ))
    }

    async fn quota_windows(&self, now: DateTime<Utc>) -> Result<QuotaWindows> {
        transact!(self, |transaction| check::quota_windows(transaction, now))
    }

    async fn aggregation_backlog(&self) -> Result<AggregationBacklog> {
        let rows = transact!(self, |transaction| ask(transaction, sql::ALERT_BACKLOG, &[]))?;
        let oldest = rows.first().map(|row| get(row, 0)).transpose()?.flatten();
        Ok(AggregationBacklog::new(oldest))
    }

    async fn begin_evaluation(
        &self,
        scope: &str,
        now: DateTime<Utc>,
        interval: TimeDelta,
    ) -> Result<Option<EvaluationTurn>> {
        let (before, later) = (now - interval, now + interval);
        let parameters: [Parameter<'_>; 4] = [
            (&scope, Type::TEXT),
            (&now, Type::TIMESTAMPTZ),
            (&before, Type::TIMESTAMPTZ),
            (&later, Type::TIMESTAMPTZ),
        ];
        let rows = transact!(self, |transaction| ask(transaction, sql::BEGIN_ALERT_EVALUATION, &parameters))?;
        let turn =
            |row| Ok(EvaluationTurn { scope: scope.to_owned(), generation: natural(row, 0, get(row, 0)?)? });
        rows.first().map(turn).transpose()
    }

    async fn open_incidents(
        &self,
        which: &OpenIncidents,
        after: Option<(Option<&TenantId>, IncidentId)>,
        limit: u32,
    ) -> Result<Vec<Incident>> {
        let (tenant, id) = match after {
            Some((tenant_id, id)) => (tenant_text(tenant_id), id.as_uuid()),
            None => ("", Uuid::nil()),
        };
        let limit = bounded(limit);
        let rule = match which {
            OpenIncidents::OfRule(rule) => rule.as_str(),
            OpenIncidents::NotObservedSince(_) => "",
        };
        let (statement, first): (&str, Parameter<'_>) = match which {
            OpenIncidents::OfRule(_) => (sql::OPEN_INCIDENTS_OF_RULE, (&rule, Type::TEXT)),
            OpenIncidents::NotObservedSince(since) => {
                (sql::OPEN_INCIDENTS_NOT_OBSERVED, (since, Type::TIMESTAMPTZ))
            }
        };
        let parameters: [Parameter<'_>; 4] =
            [first, (&tenant, Type::TEXT), (&id, Type::UUID), (&limit, Type::INT8)];
        let rows = transact!(self, |transaction| ask(transaction, statement, &parameters))?;
        rows.iter().map(rows::incident).collect()
    }

    async fn change_incidents(
        &self,
        turn: Option<&EvaluationTurn>,
        changes: &[Change],
        now: DateTime<Utc>,
    ) -> Result<Vec<bool>> {
        check_changes(changes)?;
        transact!(self, |transaction| change::change_incidents(transaction, turn, changes, now))
    }

    async fn incidents(&self, query: &IncidentQuery) -> Result<Page<Incident>> {
        let before = query.position()?.unwrap_or(Uuid::max());
        let states: Vec<&str> = IncidentState::ALL
            .into_iter()
            .filter(|other| query.state.is_none_or(|only| only == *other))
            .map(IncidentState::as_str)
            .collect();
        // A label has at most 256 bytes, so this is above every one of them.
        let above_all = "\u{10ffff}".repeat(65);
        let (rule_from, rule_to) =
            query.rule.as_ref().map_or(("", above_all.as_str()), |rule| (rule.as_str(), rule.as_str()));
        let size = usize::from(query.page_size.get());
        let limit = i64::from(query.page_size.get()) + 1;
        let tenant = tenant_text(query.tenant_id.as_ref());
        let mut parameters: Vec<Parameter<'_>> = vec![
            (&before, Type::UUID),
            (&states, Type::TEXT_ARRAY),
            (&rule_from, Type::TEXT),
            (&rule_to, Type::TEXT),
            (&limit, Type::INT8),
        ];
        let statement = if query.tenant_id.is_some() {
            parameters.insert(0, (&tenant, Type::TEXT));
            sql::INCIDENTS_OF_TENANT
        } else {
            sql::INCIDENTS
        };
        let rows = transact!(self, |transaction| ask(transaction, statement, &parameters))?;
        let items: Vec<Incident> = rows.iter().take(size).map(rows::incident).collect::<Result<_>>()?;
        let next = items.last().filter(|_| rows.len() > size).map(|last| query.cursor(last.id));
        Ok(Page { items, next })
    }

    async fn acknowledge(
        &self,
        tenant_id: Option<&TenantId>,
        id: IncidentId,
        by: &Label,
        now: DateTime<Utc>,
    ) -> Result<Option<Incident>> {
        transact!(self, |transaction| change::acknowledge(transaction, tenant_text(tenant_id), id, by, now))
    }

    async fn put_silence(&self, silence: &Silence) -> Result<()> {
        let (tenant, id) = (tenant_text(silence.tenant_id.as_ref()), silence.id.as_uuid());
        let rule = silence.rule.as_ref().map_or("", Label::as_str);
        let (reason, by) = (silence.reason.as_str(), silence.created_by.as_str());
        let parameters: [Parameter<'_>; 7] = [
            (&tenant, Type::TEXT),
            (&id, Type::UUID),
            (&rule, Type::TEXT),
            (&silence.starts_at, Type::TIMESTAMPTZ),
            (&silence.ends_at, Type::TIMESTAMPTZ),
            (&reason, Type::TEXT),
            (&by, Type::TEXT),
        ];
        transact!(self, |transaction| ask(transaction, sql::PUT_ALERT_SILENCE, &parameters)).map(|_| ())
    }

    async fn end_silence(&self, id: SilenceId, now: DateTime<Utc>) -> Result<bool> {
        let id = id.as_uuid();
        let parameters: [Parameter<'_>; 2] = [(&id, Type::UUID), (&now, Type::TIMESTAMPTZ)];
        let rows = transact!(self, |transaction| ask(transaction, sql::END_ALERT_SILENCE, &parameters))?;
        Ok(!rows.is_empty())
    }

    async fn silences(&self, now: DateTime<Utc>) -> Result<Vec<Silence>> {
        let limit = i64::from(SILENCES_MAX);
        let parameters: [Parameter<'_>; 2] = [(&now, Type::TIMESTAMPTZ), (&limit, Type::INT8)];
        let rows = transact!(self, |transaction| ask(transaction, sql::ALERT_SILENCES, &parameters))?;
        rows.iter().map(rows::silence).collect()
    }

    async fn claim_notifications(
        &self,
        sinks: &[Label],
        claim_id: Uuid,
        now: DateTime<Utc>,
        leased_until: DateTime<Utc>,
        limit: u32,
    ) -> Result<Vec<Notification>> {
        let claim = deliver::Claim { id: claim_id, now, leased_until };
        transact!(self, |transaction| deliver::claim(transaction, sinks, &claim, bounded(limit)))
    }

    async fn settle_notification(
        &self,
        key: &NotificationKey,
        claim_id: Uuid,
        attempted: &Attempted,
        now: DateTime<Utc>,
    ) -> Result<bool> {
        transact!(self, |transaction| deliver::settle(transaction, key, claim_id, attempted, now))
    }

    async fn dead_letters(&self, after: Option<&NotificationKey>, limit: u32) -> Result<Vec<DeadLetter>> {
        transact!(self, |transaction| deliver::dead_letters(transaction, after, bounded(limit)))
    }

    async fn redrive(&self, key: &NotificationKey, now: DateTime<Utc>) -> Result<bool> {
        transact!(self, |transaction| deliver::redrive(transaction, key, now))
    }

    async fn forget_incidents(&self, resolved_before: DateTime<Utc>, limit: u32) -> Result<u64> {
        transact!(self, |transaction| change::forget(transaction, resolved_before, bounded(limit)))
    }
}

/// A number that the database keeps in a signed column.
fn signed(field: &'static str, number: u64) -> Result<i64> {
    i64::try_from(number).map_err(|_| Error::invalid(field, format!("must fit into 63 bits, is {number}")))
}
