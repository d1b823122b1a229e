-- One incident. $1 text, $2 uuid: its key.
SELECT tenant_id, id, rule, subject, severity, state, value, threshold, unit, opened_at, fired_at, calm_since, observed_at,
    resolved_at, notified_at, acknowledged_by, acknowledged_at, revision
FROM metertrail.incidents
WHERE tenant_id = $1 AND id = $2
