-- Leaves of a tenant's tree in the order of their events. $1 text: tenant. $2 uuid: after this event. $3 bigint: how many at
-- most.
SELECT tenant_id, position, hash, event_id
FROM metertrail.audit_tree
WHERE tenant_id = $1 AND level = 0 AND event_id > $2
ORDER BY event_id
LIMIT $3
