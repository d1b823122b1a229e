-- Notes what a holder gave back in all so far. $1 text: tenant. $2 uuid: holder. $3 text[], $4 text[], $5 timestamptz[],
-- $6 bigint[]: quotas, kinds and starts of windows, units.
-- Guarantee: told twice or in the wrong order it counts once.
-- Locks: the slices.
UPDATE metertrail.quota_slices AS slices
SET returned = least(slices.granted, greatest(slices.returned, told.returned))
FROM unnest($3::text[], $4::text[], $5::timestamptz[], $6::bigint[]) AS told (quota, window_type, window_start, returned)
WHERE slices.tenant_id = $1
    AND slices.quota = told.quota
    AND slices.window_type = told.window_type
    AND slices.window_start = told.window_start
    AND slices.holder_id = $2
