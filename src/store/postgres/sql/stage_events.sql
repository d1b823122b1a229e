-- Stages events of a closed day. One array a column. Writes those that are not yet there.
INSERT INTO metertrail.usage_restoring (
    tenant_id, id, "timestamp", event_type, outcome, tokens_input, tokens_cache_read, tokens_cache_write,
    tokens_output, tokens_reasoning, tokens_audio_input, tokens_audio_cache_read, tokens_audio_output,
    tokens_unclassified, tokens_estimated, latency_us, status_code, cost_usd, model, provider, session_id,
    user_id, idempotency_key, measures, metadata, error_message, price_version)
SELECT * FROM unnest(
    $1::text[], $2::uuid[], $3::timestamptz[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::boolean[],
    $16::bigint[], $17::smallint[], $18::numeric[], $19::text[], $20::text[], $21::text[], $22::text[],
    $23::text[], $24::jsonb[], $25::jsonb[], $26::text[], $27::text[])
ON CONFLICT (tenant_id, id) DO NOTHING
