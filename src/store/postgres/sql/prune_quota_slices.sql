-- Removes a tenant's slices of windows that ended long ago, by the caller's clock and by the database's: a caller whose
-- clock runs ahead must not remove slices that are still held. $1 text: tenant. $2 timestamptz: before when they ended.
-- Locks: the rows.
DELETE FROM metertrail.quota_slices WHERE tenant_id = $1 AND window_end < least($2, now() - interval '1 day')
