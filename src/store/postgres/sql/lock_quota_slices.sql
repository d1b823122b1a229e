-- Locks slices of holders in the order of their keys, as everybody does who locks several. $1 text[], $2 uuid[]: tenants,
-- holders. A cross-tenant statement.
-- Locks: the slices.
SELECT 1
FROM (SELECT DISTINCT * FROM unnest($1::text[], $2::uuid[])) AS told (tenant_id, holder_id)
JOIN metertrail.quota_slices AS slices
    ON slices.tenant_id = told.tenant_id AND slices.holder_id = told.holder_id
ORDER BY slices.tenant_id, slices.quota, slices.window_type, slices.window_start, slices.holder_id
FOR UPDATE OF slices
