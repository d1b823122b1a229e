-- The tenants of one zone that have used a share of a limit, over roll-ups and what is not yet rolled up, in one snapshot. A
-- cross-tenant statement.
-- $1 text[], $2 timestamptz[], $3 timestamptz[]: runs of roll-up periods that tile the range. $4, $5 timestamptz: the
-- range. $6 text: the tenant after which they begin. $7 bigint: how many at most. $8 text: the quota. $9 text, $10
-- jsonb: the window's kind and definition. $11 text: the zone. $12 text: that of tenants without one of their own. $13
-- text[], $14 bigint[]: plans and their limits, '' for tenants without a plan. $15 bigint: the share in per cent. $16
-- timestamptz: tenants' own limits that have expired by then do not count.
WITH usage AS (
    SELECT metrics.tenant_id, metrics.total_tokens_used, metrics.api_calls_success, metrics.abandoned_count,
        metrics.chat_messages_sent, metrics.embeddings_generated, metrics.estimated_cost_usd, metrics.measures
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
    SELECT tenant_id, total_tokens_used, api_calls_success, abandoned_count, chat_messages_sent, embeddings_generated,
        estimated_cost_usd, measures
    FROM metertrail.usage_journal
    WHERE period_start >= $4 AND period_start < $5 AND tenant_id > $6
), sums AS (
    SELECT tenant_id,
        ceil(sum(
            CASE $8
                WHEN 'tokens' THEN total_tokens_used
                WHEN 'api_calls' THEN api_calls_success + abandoned_count
                WHEN 'chat_messages' THEN chat_messages_sent
                WHEN 'embeddings' THEN embeddings_generated
                WHEN 'cost' THEN estimated_cost_usd * 1000000000
                ELSE coalesce((measures ->> $8)::numeric, 0)
            END)) AS used
    FROM usage
    GROUP BY tenant_id
), limits AS (
    SELECT sums.tenant_id, sums.used,
        CASE
            WHEN own.tenant_id IS NULL THEN plan.units
            WHEN own.window_definition = $10 THEN own.amount
        END AS units
    FROM sums
    LEFT JOIN metertrail.quota_tenants AS tenant ON tenant.tenant_id = sums.tenant_id
    LEFT JOIN metertrail.quota_overrides AS own
        ON own.tenant_id = sums.tenant_id
        AND own.quota = $8
        AND own.window_type = $9
        AND (own.expires_at IS NULL OR own.expires_at > $16)
    LEFT JOIN unnest($13::text[], $14::bigint[]) AS plan (name, units) ON plan.name = coalesce(tenant.plan, '')
    WHERE sums.used > 0 AND coalesce(tenant.zone, $12) = $11
)
SELECT tenant_id, used::numeric, units
FROM limits
WHERE units > 0 AND used * 100 >= units::numeric * $15
ORDER BY tenant_id
LIMIT $7
