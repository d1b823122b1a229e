-- Makes a tenant's row, if it is missing. $1 text: tenant.
INSERT INTO metertrail.quota_tenants (tenant_id) VALUES ($1) ON CONFLICT (tenant_id) DO NOTHING
