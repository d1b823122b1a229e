-- One page of one tenant's incidents, newest first. $1 text: the tenant. $2 uuid: below this id. $3 text[]: states. $4, $5 text:
-- rules, from and to, both included. $6 bigint: how many at most.
SELECT tenant_id, id, rule, subject, severity, state, value, threshold, unit, opened_at, fired_at, calm_since, observed_at,
    resolved_at, notified_at, acknowledged_by, acknowledged_at, revision
FROM metertrail.incidents
WHERE tenant_id = $1 AND id < $2 AND state = ANY ($3) AND rule >= $4 AND rule <= $5
ORDER BY id DESC
LIMIT $6
