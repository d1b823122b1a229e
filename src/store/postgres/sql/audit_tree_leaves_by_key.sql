-- Leaves of some events. $1 text[], $2 uuid[]: tenants, ids.
-- OFFSET 0 keeps the planner from reading the whole tree while it has no statistics of a new table.
SELECT tree.tenant_id, tree.position, tree.hash, tree.event_id
FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant_id, event_id)
CROSS JOIN LATERAL (
    SELECT tenant_id, position, hash, event_id
    FROM metertrail.audit_tree
    WHERE tenant_id = wanted.tenant_id AND event_id = wanted.event_id AND level = 0
    OFFSET 0
) AS tree
