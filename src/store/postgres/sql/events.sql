-- One page of one tenant's events, newest first.
-- $1 text: tenant. $2, $3 uuid: ids from and below. $4, $5 timestamptz: the range. $6, $7 text: event types from and to,
-- both included. $8 text[]: outcomes. $9 bigint: how many at most.
-- The bounds on the id are what the key and the partitions are found by; those on the time cut the millisecond exactly.
SELECT
    tenant_id, id, "timestamp", event_type, outcome, tokens_input, tokens_cache_read, tokens_cache_write,
    tokens_output, tokens_reasoning, tokens_audio_input, tokens_audio_cache_read, tokens_audio_output,
    tokens_unclassified, tokens_estimated, latency_us, status_code, cost_usd, model, provider, session_id,
    user_id, idempotency_key, measures, metadata, error_message, price_version
FROM metertrail.tenant_usage_realtime
WHERE tenant_id = $1
    AND id >= $2 AND id < $3
    AND "timestamp" >= $4 AND "timestamp" < $5
    AND event_type >= $6 AND event_type <= $7
    AND outcome = ANY ($8)
ORDER BY id DESC
LIMIT $9
