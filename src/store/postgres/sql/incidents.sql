-- One page of all incidents, newest first. $1 uuid: below this id. $2 text[]: states. $3, $4 text: rules, from and to, both
-- included. $5 bigint: how many at most. A cross-tenant statement.
SELECT tenant_id, id, rule, subject, severity, state, value, threshold, unit, opened_at, fired_at, calm_since, observed_at,
    resolved_at, notified_at, acknowledged_by, acknowledged_at, revision
FROM metertrail.incidents
WHERE id < $1 AND state = ANY ($2) AND rule >= $3 AND rule <= $4
ORDER BY id DESC
LIMIT $5
