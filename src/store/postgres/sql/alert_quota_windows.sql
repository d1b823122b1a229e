-- The quotas and windows that tenants have limits of their own for, each once. A cross-tenant statement.
-- $1 timestamptz: those that have expired by then are left out.
SELECT DISTINCT quota, window_definition
FROM metertrail.quota_overrides
WHERE expires_at IS NULL OR expires_at > $1
