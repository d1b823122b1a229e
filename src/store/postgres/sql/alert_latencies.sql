-- The tenants of which a quantile of the latencies is above a bound, with the sketches of their latencies, over roll-ups and
-- what is not yet rolled up, in one snapshot. A cross-tenant statement.
-- $1 text[], $2 timestamptz[], $3 timestamptz[]: runs of roll-up periods that tile the range. $4, $5 timestamptz: the
-- range. $6 text: the tenant after which they begin. $7 bigint: how many at most. $8 bigint: the quantile in
-- thousandths. $9 bigint: the first element of a sketch that is above the bound. $10 bigint: of at least so many.
-- The quantile is above the bound if and only if fewer than its share are not: by nearest rank it is then among the others.
SELECT tenant_id, metertrail.concat_sketches(latency_sketch) AS latency_sketch
FROM (
    SELECT metrics.tenant_id, metrics.latency_sketch
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
    SELECT tenant_id, latency_sketch
    FROM metertrail.usage_journal
    WHERE period_start >= $4 AND period_start < $5 AND tenant_id > $6
) AS usage
CROSS JOIN LATERAL (
    SELECT coalesce(sum(element & 1099511627775), 0) AS latencies,
        coalesce(sum(element & 1099511627775) FILTER (WHERE element >= $9), 0) AS above
    FROM unnest(usage.latency_sketch) AS element
) AS counts
GROUP BY tenant_id
HAVING sum(latencies) >= greatest($10, 1) AND (sum(latencies) - sum(above)) * 1000 < sum(latencies) * $8
ORDER BY tenant_id
LIMIT $7
