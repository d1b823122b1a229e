-- The tenants whose usage is held, and why.
SELECT tenant_id, reason FROM metertrail.usage_holds ORDER BY tenant_id
