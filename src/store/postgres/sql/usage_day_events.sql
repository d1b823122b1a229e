-- Events of a day, in the order of their keys. $1, $2 uuid: ids from and below. $3 text, $4 uuid: after which key.
-- $5 bigint: how many at most.
SELECT
    tenant_id, id, "timestamp", event_type, outcome, tokens_input, tokens_cache_read, tokens_cache_write,
    tokens_output, tokens_reasoning, tokens_audio_input, tokens_audio_cache_read, tokens_audio_output,
    tokens_unclassified, tokens_estimated, latency_us, status_code, cost_usd, model, provider, session_id,
    user_id, idempotency_key, measures, metadata, error_message, price_version
FROM metertrail.tenant_usage_realtime
WHERE id >= $1 AND id < $2 AND (tenant_id, id) > ($3, $4)
ORDER BY tenant_id, id
LIMIT $5
