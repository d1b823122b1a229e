-- Whose limits changed since. $1 timestamptz. A cross-tenant statement.
SELECT tenant_id, revision FROM metertrail.quota_tenants WHERE changed_at >= $1
