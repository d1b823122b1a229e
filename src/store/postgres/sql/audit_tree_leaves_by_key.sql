-- Leaves of some events. $1 text[], $2 uuid[]: tenants, ids.
SELECT tree.tenant_id, tree.position, tree.hash, tree.event_id
FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant_id, event_id)
JOIN metertrail.audit_tree AS tree
    ON tree.tenant_id = wanted.tenant_id AND tree.event_id = wanted.event_id AND tree.level = 0
