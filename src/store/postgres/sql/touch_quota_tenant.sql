-- Notes that a tenant's limits changed. $1 text: tenant. $2 timestamptz: when.
-- Locks: the tenant's row.
INSERT INTO metertrail.quota_tenants AS tenants (tenant_id, revision, changed_at) VALUES ($1, 1, $2)
ON CONFLICT (tenant_id) DO UPDATE SET revision = tenants.revision + 1, changed_at = excluded.changed_at
