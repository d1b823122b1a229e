-- Tenants that have events of ids below one and are not on some plans. $1 uuid. $2 text[]: plans. $3 bigint: how many at most.
-- Held tenants are left out. Reads the partitions of days that should be gone: as a rule there are none.
SELECT DISTINCT events.tenant_id
FROM metertrail.tenant_usage_realtime AS events
WHERE events.id < $1
    AND NOT EXISTS (
        SELECT FROM metertrail.quota_tenants AS tenants
        WHERE tenants.tenant_id = events.tenant_id AND tenants.plan = ANY ($2))
    AND NOT EXISTS (SELECT FROM metertrail.usage_holds AS holds WHERE holds.tenant_id = events.tenant_id)
LIMIT $3
