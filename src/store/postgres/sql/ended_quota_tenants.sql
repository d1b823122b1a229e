-- Tenants that have slices of windows that ended before an instant, and nothing out in them that the tenant's lock would
-- leave. $1 timestamptz. $2 bigint: how many at most.
SELECT tenant_id
FROM metertrail.quota_slices
WHERE window_end < $1
    AND (granted - returned - settled <= 0 OR window_end < least($1, now()) - interval '31 days')
GROUP BY tenant_id
ORDER BY tenant_id
LIMIT $2
