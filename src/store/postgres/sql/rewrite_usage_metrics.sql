-- Writes what one period of one tenant adds up to, in place of what is there. Run under lock_usage_metrics.
-- $1 text: tenant. $2 text: kind of the period. $3 timestamptz: its start. $4 and on: the numbers.
-- Locks: the row.
UPDATE metertrail.tenant_usage_metrics
SET
    api_calls_total = $4, api_calls_success = $5, api_calls_failure = $6, rate_limited_count = $7,
    quota_exceeded_count = $8, abandoned_count = $9, chat_messages_sent = $10, embeddings_generated = $11,
    searches_performed = $12, api_requests = $13, total_tokens_used = $14, tokens_input = $15,
    tokens_cache_read = $16, tokens_cache_write = $17, tokens_output = $18, tokens_reasoning = $19,
    tokens_audio_input = $20, tokens_audio_cache_read = $21, tokens_audio_output = $22, tokens_estimated = $23,
    estimated_cost_usd = $24, unpriced_count = $25, latency_us_total = $26, latency_count = $27, custom_events = $28,
    measures = $29, latency_sketch = $30
WHERE tenant_id = $1 AND period_type = $2 AND period_start = $3
