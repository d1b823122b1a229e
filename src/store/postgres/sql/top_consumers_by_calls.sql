-- Which tenants called most, over roll-ups and what is not yet rolled up, in one snapshot. A cross-tenant statement.
-- $1 text[], $2 timestamptz[], $3 timestamptz[]: runs of roll-up periods that tile the range. $4, $5 timestamptz: the
-- range. $6 bigint: how many at most.
-- OFFSET 0 keeps the planner from joining the other way round, over all periods that there ever were.
SELECT tenant_id, sum(amount) AS amount
FROM (
    SELECT metrics.tenant_id, metrics.api_calls_total AS amount
    FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS tile (period_type, range_start, range_end)
    CROSS JOIN LATERAL (
        SELECT *
        FROM metertrail.tenant_usage_metrics
        WHERE period_type = tile.period_type
            AND period_start >= tile.range_start
            AND period_start < tile.range_end
        OFFSET 0
    ) AS metrics
    UNION ALL
    SELECT journal.tenant_id, journal.api_calls_total
    FROM metertrail.usage_journal AS journal
    WHERE journal.period_start >= $4 AND journal.period_start < $5
) AS amounts
GROUP BY tenant_id
HAVING sum(amount) > 0
ORDER BY amount DESC, tenant_id
LIMIT $6
