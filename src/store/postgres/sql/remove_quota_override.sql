-- Takes a tenant's own limit away. $1 text: tenant. $2 text: quota. $3 text: kind of window. Answers what it took away.
-- Locks: the row.
DELETE FROM metertrail.quota_overrides
WHERE tenant_id = $1 AND quota = $2 AND window_type = $3
RETURNING quota
