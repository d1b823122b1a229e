-- Events by key. $1 text[], $2 uuid[]: tenants, ids.
SELECT
    events.tenant_id, events.id, events."timestamp", events.event_type, events.outcome, events.tokens_input,
    events.tokens_cache_read, events.tokens_cache_write, events.tokens_output, events.tokens_reasoning,
    events.tokens_audio_input, events.tokens_audio_cache_read, events.tokens_audio_output,
    events.tokens_unclassified, events.tokens_estimated, events.latency_us, events.status_code, events.cost_usd,
    events.model, events.provider, events.session_id, events.user_id, events.idempotency_key, events.measures,
    events.metadata, events.error_message, events.price_version
FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant_id, id)
JOIN metertrail.tenant_usage_realtime AS events
    ON events.tenant_id = wanted.tenant_id AND events.id = wanted.id
