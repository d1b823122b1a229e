-- Releases a tenant's usage. $1 text: tenant.
DELETE FROM metertrail.usage_holds WHERE tenant_id = $1
