-- The tenants of which more operations were refused for a used-up quota than so many, over roll-ups and what is not yet rolled
-- up, in one snapshot. A cross-tenant statement.
-- $1 text[], $2 timestamptz[], $3 timestamptz[]: runs of roll-up periods that tile the range. $4, $5 timestamptz: the
-- range. $6 text: the tenant after which they begin. $7 bigint: how many at most. $8 bigint: more than this.
SELECT tenant_id, sum(quota_exceeded_count)::bigint AS quota_exceeded
FROM (
    SELECT metrics.tenant_id, metrics.quota_exceeded_count
    FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS tile (period_type, range_start, range_end)
    CROSS JOIN LATERAL (
        SELECT *
        FROM metertrail.tenant_usage_metrics
        WHERE period_type = tile.period_type
            AND period_start >= tile.range_start
            AND period_start < tile.range_end
            AND tenant_id > $6
            AND quota_exceeded_count > 0
        OFFSET 0
    ) AS metrics
    UNION ALL
    SELECT tenant_id, quota_exceeded_count
    FROM metertrail.usage_journal
    WHERE period_start >= $4 AND period_start < $5 AND tenant_id > $6 AND quota_exceeded_count > 0
) AS usage
GROUP BY tenant_id
HAVING sum(quota_exceeded_count) > $8
ORDER BY tenant_id
LIMIT $7
