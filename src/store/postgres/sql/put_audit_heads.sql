-- Sets how the trees of some tenants stand. $1 text[], $2 bigint[], $3 bytea[], $4 bytea[]: tenants in ascending order, sizes,
-- roots, frontiers.
-- Locks: the tenants' heads in that order, until the end of the transaction.
INSERT INTO metertrail.audit_heads AS heads (tenant_id, size, root, frontier)
SELECT * FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[])
ON CONFLICT (tenant_id) DO UPDATE SET
    size = excluded.size, root = excluded.root, frontier = excluded.frontier
