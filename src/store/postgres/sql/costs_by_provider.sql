-- What the events of one tenant used and cost by provider, the dearest first. $1 text: tenant. $2, $3 uuid: ids from and below. $4, $5
-- timestamptz: the range. $6 bigint: how many at most.
SELECT provider,
    count(*) AS calls,
    sum(tokens_input + tokens_cache_read + tokens_cache_write + tokens_output + tokens_reasoning + tokens_audio_input
        + tokens_audio_cache_read + tokens_audio_output + tokens_unclassified)::bigint AS tokens,
    coalesce(sum(cost_usd), 0) AS cost_usd,
    count(*) FILTER (WHERE cost_usd IS NULL
        AND tokens_input + tokens_cache_read + tokens_cache_write + tokens_output + tokens_reasoning
            + tokens_audio_input + tokens_audio_cache_read + tokens_audio_output + tokens_unclassified > 0) AS unpriced
FROM metertrail.tenant_usage_realtime
WHERE tenant_id = $1
    AND id >= $2 AND id < $3
    AND "timestamp" >= $4 AND "timestamp" < $5
GROUP BY provider
ORDER BY cost_usd DESC, provider COLLATE "C" NULLS LAST
LIMIT $6
