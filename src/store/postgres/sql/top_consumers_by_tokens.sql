-- Which tenants used tokens most, over roll-ups and what is not yet rolled up, in one snapshot. A cross-tenant statement.
-- $1 text[], $2 timestamptz[], $3 timestamptz[]: runs of roll-up periods that tile the range. $4, $5 timestamptz: the
-- range. $6 bigint: how many at most.
SELECT tenant_id, sum(amount) AS amount
FROM (
    SELECT metrics.tenant_id, metrics.total_tokens_used AS amount
    FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS tile (period_type, range_start, range_end)
    JOIN metertrail.tenant_usage_metrics AS metrics
        ON metrics.period_type = tile.period_type
        AND metrics.period_start >= tile.range_start
        AND metrics.period_start < tile.range_end
    UNION ALL
    SELECT journal.tenant_id, journal.total_tokens_used
    FROM metertrail.usage_journal AS journal
    WHERE journal.period_start >= $4 AND journal.period_start < $5
) AS amounts
GROUP BY tenant_id
HAVING sum(amount) > 0
ORDER BY amount DESC, tenant_id
LIMIT $6
