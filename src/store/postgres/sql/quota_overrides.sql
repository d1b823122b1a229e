-- A tenant's own limits. $1 text: tenant.
SELECT quota, window_definition, amount, expires_at, reason
FROM metertrail.quota_overrides
WHERE tenant_id = $1
ORDER BY quota, window_type
