-- The tenants whose cost in one range is more than so many times the mean of earlier ranges, over roll-ups and what is not yet
-- rolled up, in one snapshot. A cross-tenant statement.
-- $1 bigint[], $2 text[], $3 timestamptz[], $4 timestamptz[]: positions of ranges, 0 being the one that is looked at, and runs
-- of roll-up periods that tile them. $5, $6 timestamptz[]: the ranges from position 0 on. $7 text: the tenant after which they
-- begin. $8 bigint: how many at most. $9 numeric: how many times. $10 numeric: at least so much. $11 bigint: earlier ranges
-- with usage at least.
WITH usage AS (
    SELECT tile."position", metrics.tenant_id, metrics.estimated_cost_usd
    FROM unnest($1::bigint[], $2::text[], $3::timestamptz[], $4::timestamptz[])
        AS tile ("position", period_type, range_start, range_end)
    CROSS JOIN LATERAL (
        SELECT *
        FROM metertrail.tenant_usage_metrics
        WHERE period_type = tile.period_type
            AND period_start >= tile.range_start
            AND period_start < tile.range_end
            AND tenant_id > $7
        OFFSET 0
    ) AS metrics
    UNION ALL
    SELECT ranges.ordinality - 1, journal.tenant_id, journal.estimated_cost_usd
    FROM unnest($5::timestamptz[], $6::timestamptz[]) WITH ORDINALITY AS ranges (range_start, range_end)
    JOIN metertrail.usage_journal AS journal
        ON journal.period_start >= ranges.range_start AND journal.period_start < ranges.range_end
    WHERE journal.tenant_id > $7
), sums AS (
    SELECT tenant_id, "position", sum(estimated_cost_usd) AS cost
    FROM usage
    GROUP BY tenant_id, "position"
)
SELECT tenant_id, sum(cost) FILTER (WHERE "position" = 0) AS cost,
    sum(cost) FILTER (WHERE "position" > 0) AS history, count(*) FILTER (WHERE "position" > 0) AS ranges
FROM sums
GROUP BY tenant_id
HAVING sum(cost) FILTER (WHERE "position" = 0) >= $10
    AND count(*) FILTER (WHERE "position" > 0) >= greatest($11, 1)
    AND sum(cost) FILTER (WHERE "position" = 0) * count(*) FILTER (WHERE "position" > 0)
        > $9 * sum(cost) FILTER (WHERE "position" > 0)
ORDER BY tenant_id
LIMIT $8
