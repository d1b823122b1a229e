-- The tenants that have audit events. $1 text: after this one. $2 bigint: how many at most.
SELECT DISTINCT tenant_id
FROM metertrail.audit_events
WHERE tenant_id > $1
ORDER BY tenant_id
LIMIT $2
