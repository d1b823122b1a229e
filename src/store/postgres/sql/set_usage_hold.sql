-- Holds a tenant's usage. $1 text: tenant. $2 text: reason.
INSERT INTO metertrail.usage_holds (tenant_id, reason) VALUES ($1, $2)
ON CONFLICT (tenant_id) DO UPDATE SET reason = excluded.reason
