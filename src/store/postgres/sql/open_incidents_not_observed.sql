-- Incidents that are not resolved and of which no rule said anything since, in the order of their keys. $1 timestamptz: since
-- when. $2 text, $3 uuid: after this key. $4 bigint: how many at most. A cross-tenant statement.
SELECT tenant_id, id, rule, subject, severity, state, value, threshold, unit, opened_at, fired_at, calm_since, observed_at,
    resolved_at, notified_at, acknowledged_by, acknowledged_at, revision
FROM metertrail.incidents
WHERE state <> 'resolved' AND observed_at < $1 AND (tenant_id, id) > ($2, $3)
ORDER BY tenant_id, id
LIMIT $4
