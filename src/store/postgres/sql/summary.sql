-- What all tenants did together, over roll-ups and what is not yet rolled up, in one snapshot. A cross-tenant statement.
-- $1 text[], $2 timestamptz[], $3 timestamptz[]: runs of roll-up periods that tile the range. $4, $5 timestamptz: the
-- range. $6 bigint: how many refused tenants are listed at most.
-- OFFSET 0 keeps the planner from joining the other way round, over all periods that there ever were.
WITH usage AS (
    SELECT metrics.tenant_id, metrics.api_calls_total, metrics.api_calls_failure, metrics.quota_exceeded_count,
        metrics.total_tokens_used, metrics.estimated_cost_usd, metrics.unpriced_count, metrics.latency_us_total,
        metrics.latency_count
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
    SELECT journal.tenant_id, journal.api_calls_total, journal.api_calls_failure, journal.quota_exceeded_count,
        journal.total_tokens_used, journal.estimated_cost_usd, journal.unpriced_count, journal.latency_us_total,
        journal.latency_count
    FROM metertrail.usage_journal AS journal
    WHERE journal.period_start >= $4 AND journal.period_start < $5
), tenants AS (
    SELECT tenant_id, sum(api_calls_total) AS calls, sum(api_calls_failure) AS failures,
        sum(quota_exceeded_count) AS quota_exceeded, sum(total_tokens_used) AS tokens, sum(estimated_cost_usd) AS cost,
        sum(unpriced_count) AS unpriced, sum(latency_us_total) AS latency_us_total, sum(latency_count) AS latency_count
    FROM usage
    GROUP BY tenant_id
), refused AS (
    SELECT tenant_id, quota_exceeded::bigint AS quota_exceeded
    FROM tenants
    WHERE quota_exceeded > 0
    ORDER BY quota_exceeded DESC, tenant_id
    LIMIT $6
)
SELECT
    count(*) AS tenants,
    coalesce(sum(calls), 0)::bigint AS calls,
    coalesce(sum(failures), 0)::bigint AS failures,
    coalesce(sum(tokens), 0)::bigint AS tokens,
    coalesce(sum(cost), 0) AS cost,
    coalesce(sum(unpriced), 0)::bigint AS unpriced,
    div(sum(latency_us_total), nullif(sum(latency_count), 0))::bigint AS latency_us_mean,
    (SELECT coalesce(array_agg(tenant_id ORDER BY quota_exceeded DESC, tenant_id), '{}') FROM refused) AS refused_tenants,
    (SELECT coalesce(array_agg(quota_exceeded ORDER BY quota_exceeded DESC, tenant_id), '{}') FROM refused) AS refused_counts
FROM tenants
