-- What one tenant's events add up to in each quarter hour of a range, what the journal has of them, and the rows of metrics
-- of all kinds that start in it. Columns as in usage.sql, then where the row is from and the kind of its period.
-- $1 text: tenant. $2, $3 uuid: ids from and below. $4, $5 timestamptz: the range.
-- Guarantee: events and their journal rows commit together, and a roll-up moves a journal row into the metrics in one
-- statement. So in the one snapshot of this statement the events are the sum of the metrics and the journal, whoever appends
-- and rolls up meanwhile; what differs is drift. The bins of latencies are those of LatencySketch: 64 to the octave.
-- Locks: none on rows. That on the table of events keeps its partitions from being dropped until the transaction ends.
WITH events AS MATERIALIZED (
    SELECT date_bin('15 minutes', "timestamp" AT TIME ZONE 'UTC', '2000-01-01') AT TIME ZONE 'UTC' AS period_start,
        event_type, outcome, outcome IN ('success', 'abandoned') AS counts,
        tokens_input, tokens_cache_read, tokens_cache_write, tokens_output, tokens_reasoning, tokens_audio_input,
        tokens_audio_cache_read, tokens_audio_output, tokens_estimated,
        tokens_input + tokens_cache_read + tokens_cache_write + tokens_output + tokens_reasoning + tokens_audio_input
            + tokens_audio_cache_read + tokens_audio_output + tokens_unclassified AS tokens,
        CASE WHEN outcome IN ('success', 'failure') THEN latency_us END AS latency_us,
        cost_usd, measures
    FROM metertrail.tenant_usage_realtime
    WHERE tenant_id = $1
        AND id >= $2 AND id < $3
        AND "timestamp" >= $4 AND "timestamp" < $5
), customs AS (
    SELECT period_start, jsonb_object_agg(event_type, number::text) AS custom_events
    FROM (
        SELECT period_start, event_type, count(*) AS number
        FROM events
        WHERE counts AND event_type NOT IN ('chat_message', 'embedding', 'search', 'api_call')
        GROUP BY period_start, event_type
    ) AS numbers
    GROUP BY period_start
), amounts AS (
    SELECT period_start, jsonb_object_agg(name, amount::text) AS measures
    FROM (
        SELECT period_start, measure.key AS name, sum(measure.value::numeric) AS amount
        FROM events, jsonb_each_text(events.measures) AS measure
        GROUP BY period_start, measure.key
    ) AS sums
    GROUP BY period_start
), latencies AS (
    SELECT period_start, least(latency_us, 4398046511103) AS latency_us,
        58 - position(B'1' IN (least(latency_us, 4398046511103) | 127)::bit(64)) AS shift
    FROM events
    WHERE latency_us IS NOT NULL
), sketches AS (
    SELECT period_start, array_agg(bin << 40 | number) AS latency_sketch
    FROM (
        SELECT period_start, shift * 64 + (latency_us >> shift) AS bin, count(*) AS number
        FROM latencies
        GROUP BY period_start, 2
    ) AS bins
    GROUP BY period_start
), sums AS (
    SELECT period_start,
        count(*) AS api_calls_total,
        count(*) FILTER (WHERE outcome = 'success') AS api_calls_success,
        count(*) FILTER (WHERE outcome = 'failure') AS api_calls_failure,
        count(*) FILTER (WHERE outcome = 'rate_limited') AS rate_limited_count,
        count(*) FILTER (WHERE outcome = 'quota_exceeded') AS quota_exceeded_count,
        count(*) FILTER (WHERE outcome = 'abandoned') AS abandoned_count,
        count(*) FILTER (WHERE counts AND event_type = 'chat_message') AS chat_messages_sent,
        count(*) FILTER (WHERE counts AND event_type = 'embedding') AS embeddings_generated,
        count(*) FILTER (WHERE counts AND event_type = 'search') AS searches_performed,
        count(*) FILTER (WHERE counts AND event_type = 'api_call') AS api_requests,
        sum(tokens)::bigint AS total_tokens_used,
        sum(tokens_input)::bigint AS tokens_input,
        sum(tokens_cache_read)::bigint AS tokens_cache_read,
        sum(tokens_cache_write)::bigint AS tokens_cache_write,
        sum(tokens_output)::bigint AS tokens_output,
        sum(tokens_reasoning)::bigint AS tokens_reasoning,
        sum(tokens_audio_input)::bigint AS tokens_audio_input,
        sum(tokens_audio_cache_read)::bigint AS tokens_audio_cache_read,
        sum(tokens_audio_output)::bigint AS tokens_audio_output,
        coalesce(sum(tokens) FILTER (WHERE tokens_estimated), 0)::bigint AS tokens_estimated,
        coalesce(sum(cost_usd), 0) AS estimated_cost_usd,
        count(*) FILTER (WHERE cost_usd IS NULL AND tokens > 0) AS unpriced_count,
        coalesce(sum(latency_us), 0)::bigint AS latency_us_total,
        count(latency_us) AS latency_count
    FROM events
    GROUP BY period_start
)
SELECT sums.*, customs.custom_events, amounts.measures, coalesce(sketches.latency_sketch, '{}') AS latency_sketch,
    'events' AS source, 'quarter_hourly' AS period_type
FROM sums
LEFT JOIN customs ON customs.period_start = sums.period_start
LEFT JOIN amounts ON amounts.period_start = sums.period_start
LEFT JOIN sketches ON sketches.period_start = sums.period_start
UNION ALL
SELECT period_start,
    api_calls_total, api_calls_success, api_calls_failure, rate_limited_count, quota_exceeded_count, abandoned_count,
    chat_messages_sent, embeddings_generated, searches_performed, api_requests, total_tokens_used, tokens_input,
    tokens_cache_read, tokens_cache_write, tokens_output, tokens_reasoning, tokens_audio_input,
    tokens_audio_cache_read, tokens_audio_output, tokens_estimated, estimated_cost_usd, unpriced_count,
    latency_us_total, latency_count, custom_events, measures, latency_sketch,
    'journal', 'quarter_hourly'
FROM metertrail.usage_journal
WHERE tenant_id = $1 AND period_start >= $4 AND period_start < $5
UNION ALL
SELECT period_start,
    api_calls_total, api_calls_success, api_calls_failure, rate_limited_count, quota_exceeded_count, abandoned_count,
    chat_messages_sent, embeddings_generated, searches_performed, api_requests, total_tokens_used, tokens_input,
    tokens_cache_read, tokens_cache_write, tokens_output, tokens_reasoning, tokens_audio_input,
    tokens_audio_cache_read, tokens_audio_output, tokens_estimated, estimated_cost_usd, unpriced_count,
    latency_us_total, latency_count, custom_events, measures, latency_sketch,
    'metrics', period_type
FROM metertrail.tenant_usage_metrics
WHERE tenant_id = $1 AND period_start >= $4 AND period_start < $5
