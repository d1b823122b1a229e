-- Folds what events used up into the slices of one tenant. $1 text: tenant. Run under lock_quota_tenant.
-- Locks: the tenant's settlements and slices.
WITH taken AS (
    DELETE FROM metertrail.quota_settlements
    WHERE tenant_id = $1
    RETURNING quota, window_type, window_start, holder_id, amount
), sums AS (
    SELECT quota, window_type, window_start, holder_id, sum(amount)::bigint AS amount
    FROM taken
    GROUP BY quota, window_type, window_start, holder_id
)
UPDATE metertrail.quota_slices AS slices
SET settled = slices.settled + sums.amount
FROM sums
WHERE slices.tenant_id = $1
    AND slices.quota = sums.quota
    AND slices.window_type = sums.window_type
    AND slices.window_start = sums.window_start
    AND slices.holder_id = sums.holder_id
