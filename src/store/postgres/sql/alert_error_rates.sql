-- The tenants whose failures are more than a share of their successes and failures, over roll-ups and what is not yet rolled
-- up, in one snapshot. A cross-tenant statement.
-- $1 text[], $2 timestamptz[], $3 timestamptz[]: runs of roll-up periods that tile the range. $4, $5 timestamptz: the
-- range. $6 text: the tenant after which they begin. $7 bigint: how many at most. $8 bigint: more than this, in
-- hundredths of a per cent. $9 bigint: of at least so many.
SELECT tenant_id, sum(failures)::bigint AS failures, sum(finished)::bigint AS finished
FROM (
    SELECT metrics.tenant_id, metrics.api_calls_failure AS failures,
        metrics.api_calls_success + metrics.api_calls_failure AS finished
    FROM unnest($1::text[], $2::timestamptz[], $3::timestamptz[]) AS tile (period_type, range_start, range_end)
    CROSS JOIN LATERAL (
        SELECT *
        FROM metertrail.tenant_usage_metrics
        WHERE period_type = tile.period_type
            AND period_start >= tile.range_start
            AND period_start < tile.range_end
            AND tenant_id > $6
        OFFSET 0
    ) AS metrics
    UNION ALL
    SELECT tenant_id, api_calls_failure, api_calls_success + api_calls_failure
    FROM metertrail.usage_journal
    WHERE period_start >= $4 AND period_start < $5 AND tenant_id > $6
) AS usage
GROUP BY tenant_id
HAVING sum(finished) >= greatest($9, 1) AND sum(failures) * 10000 > sum(finished) * $8
ORDER BY tenant_id
LIMIT $7
