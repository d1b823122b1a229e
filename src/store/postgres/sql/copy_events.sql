-- Writes events that are probably new; one that is not fails the whole batch, which is then written by append_events.
-- Guarantee: all or nothing.
-- Locks: the keys of the rows, until the end of the transaction.
COPY metertrail.tenant_usage_realtime (
    tenant_id, id, "timestamp", event_type, outcome, tokens_input, tokens_cache_read, tokens_cache_write,
    tokens_output, tokens_reasoning, tokens_audio_input, tokens_audio_cache_read, tokens_audio_output,
    tokens_unclassified, tokens_estimated, latency_us, status_code, cost_usd, model, provider, session_id,
    user_id, idempotency_key, measures, metadata, error_message, price_version
) FROM STDIN (FORMAT binary)
