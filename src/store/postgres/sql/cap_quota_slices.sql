-- Settles of one tenant's slices no more than was left of them. $1 text: tenant. Run under lock_quotas.
-- Locks: the slices that it changes.
UPDATE metertrail.quota_slices
SET settled = granted - returned
WHERE tenant_id = $1 AND returned + settled > granted
