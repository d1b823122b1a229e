-- Cost: by which prices the cost of an event was found.

ALTER TABLE metertrail.tenant_usage_realtime ADD COLUMN price_version text;

COMMENT ON COLUMN metertrail.tenant_usage_realtime.price_version IS
    'By which prices cost_usd was found. NULL where the cost is not known, or where somebody reported it.';

-- The view of the plain name gains the new column, if it is the one that this crate made.
DO $view$
BEGIN
    IF has_schema_privilege(to_regnamespace('public'), 'CREATE')
        AND EXISTS (
            SELECT FROM pg_views
            WHERE schemaname = 'public' AND viewname = 'tenant_usage_realtime'
                AND definition LIKE '%FROM metertrail.tenant_usage_realtime%')
    THEN
        CREATE OR REPLACE VIEW public.tenant_usage_realtime WITH (security_invoker = true) AS
        SELECT tenant_id, id, "timestamp", event_type, outcome, tokens_input, tokens_cache_read, tokens_cache_write,
            tokens_output, tokens_reasoning, tokens_audio_input, tokens_audio_cache_read, tokens_audio_output,
            tokens_unclassified, tokens_estimated, latency_us, status_code, cost_usd, model, provider, session_id,
            user_id, idempotency_key, measures, metadata, error_message,
            tokens_input + tokens_cache_read + tokens_cache_write + tokens_output + tokens_reasoning
                + tokens_audio_input + tokens_audio_cache_read + tokens_audio_output + tokens_unclassified AS tokens_used,
            round(latency_us / 1000.0, 3) AS response_time_ms,
            price_version
        FROM metertrail.tenant_usage_realtime;
    END IF;
END;
$view$;
