-- The second half of migration 5: aggregation anew from events.

-- Aggregates the days that a range touches anew, of all tenants, from their events: the quarter hours, hours and days of
-- these days, and the months that they are in, which are the sums of their days. Answers how many rows it wrote. What
-- nobody's hand was in comes out as it was. Days without events kept (archived, dropped) and tenants whose events of a day
-- were deleted are left as they are.
--
-- The lock keeps roll-ups waiting, and lets appends and readers go on. While it is held metrics + journal = events in every
-- snapshot, and nobody else folds a journal row; so the statement that adds up a day's events also deletes the journal rows
-- that its snapshot has of the day: they are in the sums. What commits later is in neither, and is folded later.
-- For one Postgres: over several nodes there is no such snapshot, and a tenant is repaired by itself (Store::reconcile).
CREATE FUNCTION metertrail.aggregate_usage_metrics(range_start timestamptz, range_end timestamptz) RETURNS bigint
LANGUAGE plpgsql SET jit = off SET work_mem = '128MB' AS $$
DECLARE
    the_day date := (range_start AT TIME ZONE 'UTC')::date;
    last_day date := ((range_end - interval '1 microsecond') AT TIME ZONE 'UTC')::date;
    days date[] := '{}';
    the_month date;
    written bigint := 0;
BEGIN
    LOCK TABLE metertrail.tenant_usage_metrics IN SHARE ROW EXCLUSIVE MODE;
    WHILE the_day <= last_day LOOP
        IF to_regclass('metertrail.tenant_usage_realtime_' || to_char(the_day, 'YYYYMMDD')) IS NOT NULL THEN
            written := written + metertrail.aggregate_usage_day(the_day);
            days := days || the_day;
        END IF;
        the_day := the_day + 1;
    END LOOP;
    FOR the_month IN SELECT DISTINCT date_trunc('month', one)::date FROM unnest(days) AS one ORDER BY 1 LOOP
        written := written + metertrail.aggregate_usage_month(the_month);
    END LOOP;
    RETURN written;
END;
$$;

COMMENT ON FUNCTION metertrail.aggregate_usage_metrics(timestamptz, timestamptz) IS
    'Aggregates the days of a range anew from their events. Safe to run at any time and twice.';

-- One day of it; run under the lock. The bins of latencies are those of LatencySketch: 64 to the octave.
CREATE FUNCTION metertrail.aggregate_usage_day(the_day date) RETURNS bigint
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    day_start timestamptz := the_day::timestamp AT TIME ZONE 'UTC';
    day_end timestamptz := (the_day + 1)::timestamp AT TIME ZONE 'UTC';
    first_id uuid := metertrail.event_id_lower_bound(day_start);
    end_id uuid := metertrail.event_id_lower_bound(day_end);
    pruned text[] := ARRAY(SELECT tenant_id FROM metertrail.usage_pruned WHERE before_day > the_day);
    written bigint;
BEGIN
    DELETE FROM metertrail.tenant_usage_metrics
    WHERE period_type IN ('quarter_hourly', 'hourly', 'daily')
        AND period_start >= day_start AND period_start < day_end
        AND tenant_id <> ALL (pruned)
        AND quota_limit IS NULL;
    WITH absorbed AS (
        DELETE FROM metertrail.usage_journal
        WHERE period_start >= day_start AND period_start < day_end AND tenant_id <> ALL (pruned)
    ), customs AS (
        SELECT tenant_id, period_start, jsonb_object_agg(event_type, number::text) AS custom_events
        FROM (
            SELECT tenant_id, event_type, count(*) AS number,
                date_bin('15 minutes', "timestamp", '2000-01-01 00:00:00+00') AS period_start
            FROM metertrail.tenant_usage_realtime
            WHERE id >= first_id AND id < end_id
                AND outcome IN ('success', 'abandoned')
                AND event_type NOT IN ('chat_message', 'embedding', 'search', 'api_call')
            GROUP BY tenant_id, 4, event_type
        ) AS numbers
        GROUP BY tenant_id, period_start
    ), amounts AS (
        SELECT tenant_id, period_start, jsonb_object_agg(name, amount::text) AS measures
        FROM (
            SELECT tenant_id, measure.key AS name, sum(measure.value::numeric) AS amount,
                date_bin('15 minutes', "timestamp", '2000-01-01 00:00:00+00') AS period_start
            FROM metertrail.tenant_usage_realtime AS events, jsonb_each_text(events.measures) AS measure
            WHERE id >= first_id AND id < end_id AND events.measures IS NOT NULL
            GROUP BY tenant_id, 4, measure.key
        ) AS sums
        GROUP BY tenant_id, period_start
    ), sums AS MATERIALIZED (
        SELECT tenant_id,
            date_bin('15 minutes', "timestamp", '2000-01-01 00:00:00+00') AS period_start,
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
            coalesce(sum(latency), 0)::bigint AS latency_us_total,
            count(latency) AS latency_count,
            metertrail.short_sketch(coalesce(
                array_agg(((shift * 64 + (least(latency, 4398046511103) >> shift)) << 40) | 1)
                    FILTER (WHERE latency IS NOT NULL),
                '{}')) AS latency_sketch
        FROM (
            SELECT *, outcome IN ('success', 'abandoned') AS counts,
                tokens_input + tokens_cache_read + tokens_cache_write + tokens_output + tokens_reasoning
                    + tokens_audio_input + tokens_audio_cache_read + tokens_audio_output + tokens_unclassified AS tokens,
                CASE WHEN outcome IN ('success', 'failure') THEN latency_us END AS latency,
                58 - position(B'1' IN (least(latency_us, 4398046511103) | 127)::bit(64)) AS shift
            FROM metertrail.tenant_usage_realtime
            WHERE id >= first_id AND id < end_id
            OFFSET 0
        ) AS events
        WHERE tenant_id <> ALL (pruned)
        GROUP BY tenant_id, 2
    ), quarter_hours AS MATERIALIZED (
        SELECT sums.*, customs.custom_events, amounts.measures
        FROM sums
        LEFT JOIN customs ON customs.tenant_id = sums.tenant_id AND customs.period_start = sums.period_start
        LEFT JOIN amounts ON amounts.tenant_id = sums.tenant_id AND amounts.period_start = sums.period_start
    ), levels AS (
        SELECT 'quarter_hourly' AS period_type, period_start AS level_start, quarter_hours.* FROM quarter_hours
        UNION ALL
        SELECT 'hourly', date_trunc('hour', period_start, 'UTC'), quarter_hours.* FROM quarter_hours
        UNION ALL
        SELECT 'daily', day_start, quarter_hours.* FROM quarter_hours
    ), put AS (
        INSERT INTO metertrail.tenant_usage_metrics AS metrics (
            tenant_id, period_type, period_start,
            api_calls_total, api_calls_success, api_calls_failure, rate_limited_count, quota_exceeded_count,
            abandoned_count, chat_messages_sent, embeddings_generated, searches_performed, api_requests,
            total_tokens_used, tokens_input, tokens_cache_read, tokens_cache_write, tokens_output,
            tokens_reasoning, tokens_audio_input, tokens_audio_cache_read, tokens_audio_output,
            tokens_estimated, estimated_cost_usd, unpriced_count, latency_us_total, latency_count, custom_events, measures,
            latency_sketch)
        SELECT tenant_id, period_type, level_start,
            sum(api_calls_total), sum(api_calls_success), sum(api_calls_failure), sum(rate_limited_count),
            sum(quota_exceeded_count), sum(abandoned_count), sum(chat_messages_sent), sum(embeddings_generated),
            sum(searches_performed), sum(api_requests), sum(total_tokens_used), sum(tokens_input),
            sum(tokens_cache_read), sum(tokens_cache_write), sum(tokens_output), sum(tokens_reasoning),
            sum(tokens_audio_input), sum(tokens_audio_cache_read), sum(tokens_audio_output),
            sum(tokens_estimated), sum(estimated_cost_usd), sum(unpriced_count), sum(latency_us_total), sum(latency_count),
            metertrail.sum_amounts(custom_events) FILTER (WHERE custom_events IS NOT NULL),
            metertrail.sum_amounts(measures) FILTER (WHERE measures IS NOT NULL),
            metertrail.short_sketch(metertrail.concat_sketches(latency_sketch))
        FROM levels
        GROUP BY tenant_id, period_type, level_start
        ON CONFLICT (tenant_id, period_type, period_start) DO UPDATE SET
            api_calls_total = excluded.api_calls_total, api_calls_success = excluded.api_calls_success,
            api_calls_failure = excluded.api_calls_failure, rate_limited_count = excluded.rate_limited_count,
            quota_exceeded_count = excluded.quota_exceeded_count, abandoned_count = excluded.abandoned_count,
            chat_messages_sent = excluded.chat_messages_sent, embeddings_generated = excluded.embeddings_generated,
            searches_performed = excluded.searches_performed, api_requests = excluded.api_requests,
            total_tokens_used = excluded.total_tokens_used, tokens_input = excluded.tokens_input,
            tokens_cache_read = excluded.tokens_cache_read, tokens_cache_write = excluded.tokens_cache_write,
            tokens_output = excluded.tokens_output, tokens_reasoning = excluded.tokens_reasoning,
            tokens_audio_input = excluded.tokens_audio_input,
            tokens_audio_cache_read = excluded.tokens_audio_cache_read,
            tokens_audio_output = excluded.tokens_audio_output, tokens_estimated = excluded.tokens_estimated,
            estimated_cost_usd = excluded.estimated_cost_usd, unpriced_count = excluded.unpriced_count,
            latency_us_total = excluded.latency_us_total, latency_count = excluded.latency_count,
            custom_events = excluded.custom_events, measures = excluded.measures,
            latency_sketch = excluded.latency_sketch
        RETURNING 1
    )
    SELECT count(*) INTO written FROM put;
    -- Rows by hand that have a limit were not deleted above; what stands for no events goes now.
    DELETE FROM metertrail.tenant_usage_metrics AS metrics
    WHERE period_type IN ('quarter_hourly', 'hourly', 'daily')
        AND period_start >= day_start AND period_start < day_end
        AND tenant_id <> ALL (pruned)
        AND quota_limit IS NOT NULL
        AND NOT EXISTS (
            SELECT
            FROM metertrail.tenant_usage_realtime AS events
            WHERE events.tenant_id = metrics.tenant_id
                AND id >= first_id AND id < end_id
                AND "timestamp" >= metrics.period_start
                AND "timestamp" < metrics.period_start + CASE metrics.period_type
                    WHEN 'quarter_hourly' THEN interval '15 minutes'
                    WHEN 'hourly' THEN interval '1 hour'
                    ELSE interval '1 day'
                END);
    RETURN written;
END;
$$;

-- One month of it, from its days; run under the lock.
CREATE FUNCTION metertrail.aggregate_usage_month(the_month date) RETURNS bigint
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    month_start timestamptz := the_month::timestamp AT TIME ZONE 'UTC';
    month_end timestamptz := (the_month + interval '1 month') AT TIME ZONE 'UTC';
    written bigint;
BEGIN
    DELETE FROM metertrail.tenant_usage_metrics AS metrics
    WHERE period_type = 'monthly' AND period_start = month_start
        AND (quota_limit IS NULL OR NOT EXISTS (
            SELECT
            FROM metertrail.tenant_usage_metrics AS days
            WHERE days.tenant_id = metrics.tenant_id AND days.period_type = 'daily'
                AND days.period_start >= month_start AND days.period_start < month_end));
    INSERT INTO metertrail.tenant_usage_metrics AS metrics (
        tenant_id, period_type, period_start,
        api_calls_total, api_calls_success, api_calls_failure, rate_limited_count, quota_exceeded_count,
        abandoned_count, chat_messages_sent, embeddings_generated, searches_performed, api_requests,
        total_tokens_used, tokens_input, tokens_cache_read, tokens_cache_write, tokens_output,
        tokens_reasoning, tokens_audio_input, tokens_audio_cache_read, tokens_audio_output,
        tokens_estimated, estimated_cost_usd, unpriced_count, latency_us_total, latency_count, custom_events, measures,
        latency_sketch)
    SELECT tenant_id, 'monthly', month_start,
        sum(api_calls_total), sum(api_calls_success), sum(api_calls_failure), sum(rate_limited_count),
        sum(quota_exceeded_count), sum(abandoned_count), sum(chat_messages_sent), sum(embeddings_generated),
        sum(searches_performed), sum(api_requests), sum(total_tokens_used), sum(tokens_input),
        sum(tokens_cache_read), sum(tokens_cache_write), sum(tokens_output), sum(tokens_reasoning),
        sum(tokens_audio_input), sum(tokens_audio_cache_read), sum(tokens_audio_output),
        sum(tokens_estimated), sum(estimated_cost_usd), sum(unpriced_count), sum(latency_us_total), sum(latency_count),
        metertrail.sum_amounts(custom_events) FILTER (WHERE custom_events IS NOT NULL),
        metertrail.sum_amounts(measures) FILTER (WHERE measures IS NOT NULL),
        metertrail.short_sketch(metertrail.concat_sketches(latency_sketch))
    FROM metertrail.tenant_usage_metrics
    WHERE period_type = 'daily' AND period_start >= month_start AND period_start < month_end
    GROUP BY tenant_id
    ON CONFLICT (tenant_id, period_type, period_start) DO UPDATE SET
        api_calls_total = excluded.api_calls_total, api_calls_success = excluded.api_calls_success,
        api_calls_failure = excluded.api_calls_failure, rate_limited_count = excluded.rate_limited_count,
        quota_exceeded_count = excluded.quota_exceeded_count, abandoned_count = excluded.abandoned_count,
        chat_messages_sent = excluded.chat_messages_sent, embeddings_generated = excluded.embeddings_generated,
        searches_performed = excluded.searches_performed, api_requests = excluded.api_requests,
        total_tokens_used = excluded.total_tokens_used, tokens_input = excluded.tokens_input,
        tokens_cache_read = excluded.tokens_cache_read, tokens_cache_write = excluded.tokens_cache_write,
        tokens_output = excluded.tokens_output, tokens_reasoning = excluded.tokens_reasoning,
        tokens_audio_input = excluded.tokens_audio_input,
        tokens_audio_cache_read = excluded.tokens_audio_cache_read,
        tokens_audio_output = excluded.tokens_audio_output, tokens_estimated = excluded.tokens_estimated,
        estimated_cost_usd = excluded.estimated_cost_usd, unpriced_count = excluded.unpriced_count,
        latency_us_total = excluded.latency_us_total, latency_count = excluded.latency_count,
        custom_events = excluded.custom_events, measures = excluded.measures,
        latency_sketch = excluded.latency_sketch;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END;
$$;
