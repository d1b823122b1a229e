-- A tenant's plan and the revision of its quotas. $1 text: tenant.
SELECT plan, revision FROM metertrail.quota_tenants WHERE tenant_id = $1
