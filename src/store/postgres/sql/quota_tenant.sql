-- A tenant's plan, the revision of its quotas, and its zone. $1 text: tenant.
SELECT plan, revision, zone FROM metertrail.quota_tenants WHERE tenant_id = $1
