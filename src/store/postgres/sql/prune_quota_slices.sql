-- Removes a tenant's slices of windows that ended long ago and of which nothing is out. $1 text: tenant. $2 timestamptz:
-- before when they ended. A caller whose clock runs ahead finds nothing that is still held.
-- Locks: the rows.
DELETE FROM metertrail.quota_slices
WHERE tenant_id = $1 AND window_end < $2 AND granted - returned - settled <= 0
