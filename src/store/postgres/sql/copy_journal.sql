-- Notes what a batch adds, for the roll-up. Rows are keyed by the batch, so they meet no others.
COPY metertrail.usage_journal (
    tenant_id, batch_id, period_start,
    api_calls_total, api_calls_success, api_calls_failure, rate_limited_count, quota_exceeded_count,
    abandoned_count, chat_messages_sent, embeddings_generated, searches_performed, api_requests,
    total_tokens_used, tokens_input, tokens_cache_read, tokens_cache_write, tokens_output, tokens_reasoning,
    tokens_audio_input, tokens_audio_cache_read, tokens_audio_output, tokens_estimated, estimated_cost_usd,
    unpriced_count, latency_us_total, latency_count, custom_events, measures, latency_sketch
) FROM STDIN (FORMAT binary)
