-- Notifications that were given up, in the order of their keys. $1 text, $2 uuid, $3 text, $4 text: after this key. $5 bigint:
-- how many at most. A cross-tenant statement.
SELECT tenant_id, incident_id, kind, sink, attempts, tried_at, error
FROM metertrail.alert_notifications
WHERE status = 'dead' AND (tenant_id, incident_id, kind, sink) > ($1, $2, $3, $4)
ORDER BY tenant_id, incident_id, kind, sink
LIMIT $5
