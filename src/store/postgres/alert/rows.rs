//! Rows about incidents to values of the domain.

use tokio_postgres::Row;

use super::super::rows::{get, misread, natural};
use crate::alert::{
    Acknowledgement, Incident, IncidentId, NotificationKey, NotificationKind, Severity, Silence, SilenceId,
};
use crate::text::Label;
use crate::{Result, TenantId};

/// The tenant of a row; '' is none.
pub(super) fn tenant(row: &Row, index: usize) -> Result<Option<TenantId>> {
    let tenant = get::<&str>(row, index)?;
    if tenant.is_empty() { Ok(None) } else { TenantId::new(tenant).map(Some) }
}

fn label(row: &Row, index: usize, field: &'static str) -> Result<Label> {
    Label::new(field, get::<&str>(row, index)?)
}

/// An incident from a row that has its columns in the order of every statement that reads one.
pub(super) fn incident(row: &Row) -> Result<Incident> {
    let severity: Severity = get::<&str>(row, 4)?.parse()?;
    let measured = (get(row, 6)?, get(row, 7)?, label(row, 8, "unit")?);
    let rule = label(row, 2, "rule")?;
    let subject = get::<Option<&str>>(row, 3)?.map(|text| Label::new("subject", text)).transpose()?;
    let mut incident = Incident::opened(tenant(row, 0)?, rule, subject, severity, measured, get(row, 9)?);
    incident.id = IncidentId::from_uuid(get(row, 1)?);
    incident.state = get::<&str>(row, 5)?.parse()?;
    incident.fired_at = get(row, 10)?;
    incident.calm_since = get(row, 11)?;
    incident.observed_at = get(row, 12)?;
    incident.resolved_at = get(row, 13)?;
    incident.notified_at = get(row, 14)?;
    incident.acknowledged = match (get::<Option<&str>>(row, 15)?, get(row, 16)?) {
        (Some(by), Some(at)) => Some(Acknowledgement { by: Label::new("acknowledged_by", by)?, at }),
        _ => None,
    };
    incident.revision = natural(row, 17, get(row, 17)?)?;
    Ok(incident)
}

pub(super) fn silence(row: &Row) -> Result<Silence> {
    let (reason, by) = (label(row, 5, "reason")?, label(row, 6, "created_by")?);
    // One that was ended before it began has no length, so it is not made by `Silence::new`.
    let (starts_at, ends_at) = (get(row, 3)?, get(row, 4)?);
    let mut silence = Silence::new(starts_at, ends_at, reason, by)
        .map_err(|error| misread("a silence has no length").with_source(error))?;
    silence.id = SilenceId::from_uuid(get(row, 1)?);
    silence.tenant_id = tenant(row, 0)?;
    let rule = get::<&str>(row, 2)?;
    silence.rule = if rule.is_empty() { None } else { Some(Label::new("rule", rule)?) };
    Ok(silence)
}

/// The key of a notification, whose columns come first.
pub(super) fn key(row: &Row) -> Result<NotificationKey> {
    Ok(NotificationKey {
        tenant_id: tenant(row, 0)?,
        incident_id: IncidentId::from_uuid(get(row, 1)?),
        kind: get::<&str>(row, 2)?.parse::<NotificationKind>()?,
        sink: label(row, 3, "sink")?,
    })
}
