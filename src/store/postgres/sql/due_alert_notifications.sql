-- Notifications to some sinks that are due and not on their way, the longest due first. $1 text[]: sinks. $2 timestamptz: now.
-- $3 bigint: how many at most. A cross-tenant statement.
SELECT tenant_id, incident_id, kind, sink
FROM metertrail.alert_notifications AS notification
WHERE status = 'waiting'
    AND due_at <= $2
    AND (claimed_until IS NULL OR claimed_until <= $2)
    AND sink = ANY ($1)
    AND NOT (kind = 'resolved' AND EXISTS (
        SELECT
        FROM metertrail.alert_notifications AS before
        WHERE before.tenant_id = notification.tenant_id
            AND before.incident_id = notification.incident_id
            AND before.kind = 'firing'
            AND before.sink = notification.sink
            AND (before.status = 'waiting' OR before.claimed_until > $2)))
ORDER BY due_at, tenant_id, incident_id, kind, sink
LIMIT $3
