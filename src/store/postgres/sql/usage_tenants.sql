-- Tenants that have events, metrics or journal rows in a range, in the order of their bytes. A cross-tenant statement.
-- $1 text: the tenant after which they begin. $2, $3 uuid: ids from and below. $4, $5 timestamptz: the range. $6 bigint: how
-- many at most.
SELECT tenant_id
FROM (
    (SELECT DISTINCT tenant_id
    FROM metertrail.tenant_usage_realtime
    WHERE tenant_id > $1 AND id >= $2 AND id < $3 AND "timestamp" >= $4 AND "timestamp" < $5
    ORDER BY tenant_id
    LIMIT $6)
    UNION
    (SELECT DISTINCT tenant_id
    FROM metertrail.tenant_usage_metrics
    WHERE tenant_id > $1 AND period_start >= $4 AND period_start < $5
    ORDER BY tenant_id
    LIMIT $6)
    UNION
    (SELECT DISTINCT tenant_id
    FROM metertrail.usage_journal
    WHERE tenant_id > $1 AND period_start >= $4 AND period_start < $5
    ORDER BY tenant_id
    LIMIT $6)
) AS tenants
ORDER BY tenant_id
LIMIT $6
