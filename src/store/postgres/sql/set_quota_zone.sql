-- Gives a tenant a zone of its own. $1 text: tenant. $2 text: zone or NULL. $3 timestamptz: when.
-- Locks: the tenant's row.
INSERT INTO metertrail.quota_tenants AS tenants (tenant_id, zone, revision, changed_at) VALUES ($1, $2, 1, $3)
ON CONFLICT (tenant_id) DO UPDATE SET
    zone = excluded.zone,
    revision = tenants.revision + 1,
    changed_at = excluded.changed_at
