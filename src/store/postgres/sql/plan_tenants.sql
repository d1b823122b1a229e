-- Tenants on a plan, after one of them. $1 text: plan. $2 text: after. $3 bigint: how many at most.
SELECT tenant_id
FROM metertrail.quota_tenants
WHERE plan = $1 AND tenant_id > $2
ORDER BY tenant_id
LIMIT $3
