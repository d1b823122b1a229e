-- Notes what holders gave back in all so far. $1 text[], $2 uuid[], $3 text[], $4 text[], $5 timestamptz[], $6 bigint[]:
-- tenants, holders, quotas, kinds and starts of windows, units. A cross-tenant statement.
-- Guarantee: told twice or in the wrong order it counts once.
-- Locks: the slices.
UPDATE metertrail.quota_slices AS slices
SET returned = least(slices.granted, greatest(slices.returned, told.returned))
FROM unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::timestamptz[], $6::bigint[])
    AS told (tenant_id, holder_id, quota, window_type, window_start, returned)
WHERE slices.tenant_id = told.tenant_id
    AND slices.quota = told.quota
    AND slices.window_type = told.window_type
    AND slices.window_start = told.window_start
    AND slices.holder_id = told.holder_id
