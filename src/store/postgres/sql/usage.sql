-- What one tenant used, in roll-ups and in what is not yet rolled up, in one snapshot.
-- $1 text: tenant. $2 text[], $3 timestamptz[], $4 timestamptz[]: runs of roll-up periods that tile the range.
-- $5, $6 timestamptz: the range.
-- OFFSET 0 keeps the planner from joining the other way round, over all periods that the tenant ever had.
SELECT metrics.period_start,
    metrics.api_calls_total, metrics.api_calls_success, metrics.api_calls_failure, metrics.rate_limited_count,
    metrics.quota_exceeded_count, metrics.abandoned_count, metrics.chat_messages_sent,
    metrics.embeddings_generated, metrics.searches_performed, metrics.api_requests, metrics.total_tokens_used,
    metrics.tokens_input, metrics.tokens_cache_read, metrics.tokens_cache_write, metrics.tokens_output,
    metrics.tokens_reasoning, metrics.tokens_audio_input, metrics.tokens_audio_cache_read,
    metrics.tokens_audio_output, metrics.tokens_estimated, metrics.estimated_cost_usd, metrics.unpriced_count,
    metrics.latency_us_total, metrics.latency_count, metrics.custom_events, metrics.measures, metrics.latency_sketch
FROM unnest($2::text[], $3::timestamptz[], $4::timestamptz[]) AS tile (period_type, range_start, range_end)
CROSS JOIN LATERAL (
    SELECT *
    FROM metertrail.tenant_usage_metrics
    WHERE tenant_id = $1
        AND period_type = tile.period_type
        AND period_start >= tile.range_start
        AND period_start < tile.range_end
    OFFSET 0
) AS metrics
UNION ALL
SELECT journal.period_start,
    journal.api_calls_total, journal.api_calls_success, journal.api_calls_failure, journal.rate_limited_count,
    journal.quota_exceeded_count, journal.abandoned_count, journal.chat_messages_sent,
    journal.embeddings_generated, journal.searches_performed, journal.api_requests, journal.total_tokens_used,
    journal.tokens_input, journal.tokens_cache_read, journal.tokens_cache_write, journal.tokens_output,
    journal.tokens_reasoning, journal.tokens_audio_input, journal.tokens_audio_cache_read,
    journal.tokens_audio_output, journal.tokens_estimated, journal.estimated_cost_usd, journal.unpriced_count,
    journal.latency_us_total, journal.latency_count, journal.custom_events, journal.measures, journal.latency_sketch
FROM metertrail.usage_journal AS journal
WHERE journal.tenant_id = $1 AND journal.period_start >= $5 AND journal.period_start < $6
