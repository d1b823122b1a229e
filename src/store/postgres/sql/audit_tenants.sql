-- The tenants that have audit events. $1 text: after this one. $2 bigint: how many at most. Jumps from tenant to tenant
-- along the key, so that it costs by tenants and partitions and not by events.
WITH RECURSIVE tenants (tenant_id, place) AS (
    SELECT (SELECT min(tenant_id) FROM metertrail.audit_events WHERE tenant_id > $1), 1::bigint
    UNION ALL
    SELECT
        (SELECT min(events.tenant_id) FROM metertrail.audit_events AS events WHERE events.tenant_id > tenants.tenant_id),
        tenants.place + 1
    FROM tenants
    WHERE tenants.tenant_id IS NOT NULL AND tenants.place < $2
)
SELECT tenant_id
FROM tenants
WHERE tenant_id IS NOT NULL
ORDER BY tenant_id
LIMIT $2
