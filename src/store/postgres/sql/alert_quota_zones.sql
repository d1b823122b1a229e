-- The zones that tenants have of their own, each once. A cross-tenant statement.
SELECT DISTINCT zone
FROM metertrail.quota_tenants
WHERE zone IS NOT NULL
ORDER BY zone
