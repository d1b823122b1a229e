-- What one tenant's events in a short window used: for limits by the minute.
-- $1 text: tenant. $2, $3 uuid: ids from and below. $4, $5 timestamptz: the window. $6 bigint: its position.
SELECT $6 AS "position",
    coalesce(sum(tokens_input + tokens_cache_read + tokens_cache_write + tokens_output + tokens_reasoning
        + tokens_audio_input + tokens_audio_cache_read + tokens_audio_output + tokens_unclassified), 0) AS tokens,
    (count(*) FILTER (WHERE outcome IN ('success', 'abandoned')))::numeric AS api_calls,
    (count(*) FILTER (WHERE outcome IN ('success', 'abandoned') AND event_type = 'chat_message'))::numeric AS chat_messages,
    (count(*) FILTER (WHERE outcome IN ('success', 'abandoned') AND event_type = 'embedding'))::numeric AS embeddings,
    coalesce(sum(cost_usd), 0) AS cost_usd,
    metertrail.sum_amounts(measures) FILTER (WHERE measures IS NOT NULL) AS measures
FROM metertrail.tenant_usage_realtime
WHERE tenant_id = $1
    AND id >= $2 AND id < $3
    AND "timestamp" >= $4 AND "timestamp" < $5
