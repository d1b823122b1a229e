-- Locks a tenant's row until the end of the transaction: requests of one tenant for units take turns. $1 text: tenant.
-- Answers nothing if there is no row yet.
-- Locks: the tenant's row.
SELECT tenant_id FROM metertrail.quota_tenants WHERE tenant_id = $1 FOR UPDATE
