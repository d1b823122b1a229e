-- Incidents that were resolved before an instant, the oldest first. $1 timestamptz. $2 bigint: how many at most. A cross-tenant
-- statement.
SELECT tenant_id, id
FROM metertrail.incidents
WHERE state = 'resolved' AND resolved_at < $1
ORDER BY resolved_at
LIMIT $2
