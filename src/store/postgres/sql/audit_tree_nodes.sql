-- Nodes of one level of a tenant's tree, in order. $1 text: tenant. $2 smallint: level. $3 bigint: from this position on.
-- $4 bigint: how many at most; positions have no gaps, so this bounds them.
SELECT level, position, hash, event_id
FROM metertrail.audit_tree
WHERE tenant_id = $1 AND level = $2 AND position >= $3 AND position < $3 + $4
ORDER BY position
LIMIT $4
