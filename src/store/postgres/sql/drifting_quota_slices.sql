-- Slices of one tenant of which more is given back and settled than was granted, and settlements of slices that do not exist
-- (their granted is NULL); settlements that are not yet folded taken into account. $1 text: tenant.
-- Guarantee: one snapshot, so that a settlement that is folded meanwhile counts once.
SELECT coalesce(slices.quota, pending.quota), coalesce(slices.window_type, pending.window_type),
    coalesce(slices.window_start, pending.window_start), coalesce(slices.holder_id, pending.holder_id),
    slices.granted, coalesce(slices.returned, 0), coalesce(slices.settled, 0) + coalesce(pending.amount, 0)
FROM (
    SELECT quota, window_type, window_start, holder_id, granted, returned, settled
    FROM metertrail.quota_slices
    WHERE tenant_id = $1
) AS slices
FULL JOIN (
    SELECT quota, window_type, window_start, holder_id, sum(amount)::bigint AS amount
    FROM metertrail.quota_settlements
    WHERE tenant_id = $1
    GROUP BY quota, window_type, window_start, holder_id
) AS pending
    ON pending.quota = slices.quota
    AND pending.window_type = slices.window_type
    AND pending.window_start = slices.window_start
    AND pending.holder_id = slices.holder_id
WHERE slices.granted IS NULL
    OR slices.returned + slices.settled + coalesce(pending.amount, 0) > slices.granted
ORDER BY 1, 2, 3, 4
