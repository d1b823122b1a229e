-- Removes a tenant's slices of windows that ended long ago. $1 text: tenant. $2 timestamptz: before when they ended.
-- Locks: the rows.
DELETE FROM metertrail.quota_slices WHERE tenant_id = $1 AND window_end < $2
