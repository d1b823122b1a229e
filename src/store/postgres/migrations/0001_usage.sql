-- Usage metering: events, the journal of what is not yet rolled up, roll-ups, and the views that psql users see.
--
-- Every key begins with tenant_id and there are no foreign keys, sequences or triggers, so that each table can be
-- distributed by tenant. An event's id is a UUIDv7: its partition and its place in the primary key follow from its time,
-- so the primary key is the only index that ingest has to keep.

CREATE FUNCTION metertrail.event_id_lower_bound(instant timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN rpad(lpad(to_hex(floor(extract(epoch FROM instant) * 1000)::bigint), 12, '0'), 32, '0')::uuid;

COMMENT ON FUNCTION metertrail.event_id_lower_bound(timestamptz) IS
    'The smallest UUID that can be the id of an event of this instant (cut to the millisecond) or later.';

CREATE TABLE metertrail.tenant_usage_realtime (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    id uuid NOT NULL,
    "timestamp" timestamptz NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    outcome text COLLATE "C" NOT NULL
        CHECK (outcome IN ('success', 'failure', 'rate_limited', 'quota_exceeded', 'abandoned')),
    tokens_input bigint NOT NULL DEFAULT 0 CHECK (tokens_input >= 0),
    tokens_cache_read bigint NOT NULL DEFAULT 0 CHECK (tokens_cache_read >= 0),
    tokens_cache_write bigint NOT NULL DEFAULT 0 CHECK (tokens_cache_write >= 0),
    tokens_output bigint NOT NULL DEFAULT 0 CHECK (tokens_output >= 0),
    tokens_reasoning bigint NOT NULL DEFAULT 0 CHECK (tokens_reasoning >= 0),
    tokens_audio_input bigint NOT NULL DEFAULT 0 CHECK (tokens_audio_input >= 0),
    tokens_audio_cache_read bigint NOT NULL DEFAULT 0 CHECK (tokens_audio_cache_read >= 0),
    tokens_audio_output bigint NOT NULL DEFAULT 0 CHECK (tokens_audio_output >= 0),
    tokens_unclassified bigint NOT NULL DEFAULT 0 CHECK (tokens_unclassified >= 0),
    tokens_estimated boolean NOT NULL DEFAULT false,
    latency_us bigint CHECK (latency_us >= 0),
    status_code smallint CHECK (status_code BETWEEN 100 AND 599),
    cost_usd numeric CHECK (cost_usd >= 0),
    model text,
    provider text,
    session_id text,
    user_id text,
    idempotency_key text COLLATE "C",
    measures jsonb,
    metadata jsonb,
    error_message text,
    PRIMARY KEY (tenant_id, id)
) PARTITION BY RANGE (id);

-- Makes the partition of one UTC day, if it is missing. It is made beside the table and then attached: that needs only a
-- lock that lets readers and writers go on. Two callers at once are put in a row by the advisory lock; without it (it
-- does not reach beyond one node) the second would fail on the name and be tried again.
CREATE FUNCTION metertrail.ensure_usage_partition(day date) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'tenant_usage_realtime_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass('metertrail.' || partition) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(7307497709806154098);
    EXECUTE format('CREATE TABLE metertrail.%I (LIKE metertrail.tenant_usage_realtime INCLUDING ALL)', partition);
    EXECUTE format(
        'ALTER TABLE metertrail.tenant_usage_realtime ATTACH PARTITION metertrail.%I FOR VALUES FROM (%L) TO (%L)',
        partition,
        metertrail.event_id_lower_bound(day::timestamp AT TIME ZONE 'UTC'),
        metertrail.event_id_lower_bound((day + 1)::timestamp AT TIME ZONE 'UTC'));
EXCEPTION
    WHEN duplicate_table THEN
        -- Another caller made it while this one waited.
        RETURN;
END;
$$;

-- Keys that callers gave, over all partitions. Only events that have one cost this.
CREATE TABLE metertrail.usage_idempotency_keys (
    tenant_id text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    event_id uuid NOT NULL,
    PRIMARY KEY (tenant_id, idempotency_key)
);

-- One period of one tenant. The quarter hours are the truth; hours, days and months are their sums, kept so that a
-- question about a long time touches few rows. All periods are UTC; other zones are put together from them.
CREATE TABLE metertrail.tenant_usage_metrics (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    period_type text COLLATE "C" NOT NULL,
    period_start timestamptz NOT NULL DEFAULT (date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'),
    api_calls_total bigint NOT NULL DEFAULT 0,
    api_calls_success bigint NOT NULL DEFAULT 0,
    api_calls_failure bigint NOT NULL DEFAULT 0,
    rate_limited_count bigint NOT NULL DEFAULT 0,
    quota_exceeded_count bigint NOT NULL DEFAULT 0,
    abandoned_count bigint NOT NULL DEFAULT 0,
    chat_messages_sent bigint NOT NULL DEFAULT 0,
    embeddings_generated bigint NOT NULL DEFAULT 0,
    searches_performed bigint NOT NULL DEFAULT 0,
    api_requests bigint NOT NULL DEFAULT 0,
    custom_events jsonb,
    total_tokens_used bigint NOT NULL DEFAULT 0,
    tokens_input bigint NOT NULL DEFAULT 0,
    tokens_cache_read bigint NOT NULL DEFAULT 0,
    tokens_cache_write bigint NOT NULL DEFAULT 0,
    tokens_output bigint NOT NULL DEFAULT 0,
    tokens_reasoning bigint NOT NULL DEFAULT 0,
    tokens_audio_input bigint NOT NULL DEFAULT 0,
    tokens_audio_cache_read bigint NOT NULL DEFAULT 0,
    tokens_audio_output bigint NOT NULL DEFAULT 0,
    tokens_estimated bigint NOT NULL DEFAULT 0,
    estimated_cost_usd numeric NOT NULL DEFAULT 0,
    unpriced_count bigint NOT NULL DEFAULT 0,
    measures jsonb,
    latency_us_total bigint NOT NULL DEFAULT 0,
    latency_count bigint NOT NULL DEFAULT 0,
    latency_sketch bigint[] NOT NULL DEFAULT '{}',
    quota_limit bigint,
    PRIMARY KEY (tenant_id, period_type, period_start),
    CONSTRAINT total_tokens_used_covers_its_classes CHECK (
        total_tokens_used >= tokens_input + tokens_cache_read + tokens_cache_write + tokens_output + tokens_reasoning
            + tokens_audio_input + tokens_audio_cache_read + tokens_audio_output),
    -- Far from the end of bigint, so that no row put in by hand can make a sum overflow.
    CONSTRAINT counts_are_in_range CHECK (
        least(api_calls_total, api_calls_success, api_calls_failure, rate_limited_count, quota_exceeded_count,
            abandoned_count, chat_messages_sent, embeddings_generated, searches_performed, api_requests, tokens_input,
            tokens_cache_read, tokens_cache_write, tokens_output, tokens_reasoning, tokens_audio_input,
            tokens_audio_cache_read, tokens_audio_output, tokens_estimated, unpriced_count, latency_us_total,
            latency_count) >= 0
        AND greatest(api_calls_total, api_calls_success, api_calls_failure, rate_limited_count, quota_exceeded_count,
            abandoned_count, chat_messages_sent, embeddings_generated, searches_performed, api_requests,
            total_tokens_used, tokens_estimated, unpriced_count, latency_us_total, latency_count)
            <= 4000000000000000000
        AND estimated_cost_usd BETWEEN 0 AND 1e20)
) PARTITION BY LIST (period_type);

COMMENT ON COLUMN metertrail.tenant_usage_metrics.latency_sketch IS
    'Bins of a quantile sketch of latencies in microseconds, each bin << 40 | count, in any order; equal bins add up.';

-- Counters are updated in place: room on the page keeps the updates off the indexes.
CREATE TABLE metertrail.tenant_usage_metrics_quarter_hourly PARTITION OF metertrail.tenant_usage_metrics (
    CONSTRAINT period_start_is_a_quarter_hour CHECK (
        date_bin('15 minutes', period_start AT TIME ZONE 'UTC', '2000-01-01') = period_start AT TIME ZONE 'UTC')
) FOR VALUES IN ('quarter_hourly') WITH (fillfactor = 80);
CREATE TABLE metertrail.tenant_usage_metrics_hourly PARTITION OF metertrail.tenant_usage_metrics (
    CONSTRAINT period_start_is_an_hour CHECK (
        date_trunc('hour', period_start AT TIME ZONE 'UTC') = period_start AT TIME ZONE 'UTC')
) FOR VALUES IN ('hourly') WITH (fillfactor = 80);
CREATE TABLE metertrail.tenant_usage_metrics_daily PARTITION OF metertrail.tenant_usage_metrics (
    CONSTRAINT period_start_is_a_day CHECK (
        date_trunc('day', period_start AT TIME ZONE 'UTC') = period_start AT TIME ZONE 'UTC')
) FOR VALUES IN ('daily') WITH (fillfactor = 80);
CREATE TABLE metertrail.tenant_usage_metrics_monthly PARTITION OF metertrail.tenant_usage_metrics (
    CONSTRAINT period_start_is_a_month CHECK (
        date_trunc('month', period_start AT TIME ZONE 'UTC') = period_start AT TIME ZONE 'UTC')
) FOR VALUES IN ('monthly') WITH (fillfactor = 80);

-- For questions about all tenants.
CREATE INDEX tenant_usage_metrics_period ON metertrail.tenant_usage_metrics (period_start, tenant_id);

-- What appends added and the roll-up has not yet folded in: one row for each batch, tenant and quarter hour, written in
-- the transaction of its events. Reads add these rows to the roll-ups, so no reader waits for the roll-up.
CREATE TABLE metertrail.usage_journal (
    tenant_id text COLLATE "C" NOT NULL,
    batch_id uuid NOT NULL,
    period_start timestamptz NOT NULL,
    api_calls_total bigint NOT NULL,
    api_calls_success bigint NOT NULL,
    api_calls_failure bigint NOT NULL,
    rate_limited_count bigint NOT NULL,
    quota_exceeded_count bigint NOT NULL,
    abandoned_count bigint NOT NULL,
    chat_messages_sent bigint NOT NULL,
    embeddings_generated bigint NOT NULL,
    searches_performed bigint NOT NULL,
    api_requests bigint NOT NULL,
    custom_events jsonb,
    total_tokens_used bigint NOT NULL,
    tokens_input bigint NOT NULL,
    tokens_cache_read bigint NOT NULL,
    tokens_cache_write bigint NOT NULL,
    tokens_output bigint NOT NULL,
    tokens_reasoning bigint NOT NULL,
    tokens_audio_input bigint NOT NULL,
    tokens_audio_cache_read bigint NOT NULL,
    tokens_audio_output bigint NOT NULL,
    tokens_estimated bigint NOT NULL,
    estimated_cost_usd numeric NOT NULL,
    unpriced_count bigint NOT NULL,
    measures jsonb,
    latency_us_total bigint NOT NULL,
    latency_count bigint NOT NULL,
    latency_sketch bigint[] NOT NULL,
    PRIMARY KEY (tenant_id, batch_id, period_start)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000,
        autovacuum_vacuum_insert_scale_factor = 0, autovacuum_vacuum_insert_threshold = 200000);

-- The audit trail; written from the release that brings the audit log on.
CREATE TABLE metertrail.audit_events (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    id uuid NOT NULL,
    "timestamp" timestamptz NOT NULL,
    event_type text COLLATE "C" NOT NULL,
    action text COLLATE "C" NOT NULL,
    result text COLLATE "C" NOT NULL,
    metadata jsonb,
    error_message text,
    PRIMARY KEY (tenant_id, id)
) PARTITION BY RANGE (id);

-- Adds two objects of decimal numbers kept as texts, key by key.
CREATE FUNCTION metertrail.add_amounts(a jsonb, b jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE
        WHEN a IS NULL THEN b
        WHEN b IS NULL THEN a
        ELSE (
            SELECT jsonb_object_agg(key, total::text)
            FROM (
                SELECT key, sum(value::numeric) AS total
                FROM (SELECT * FROM jsonb_each_text(a) UNION ALL SELECT * FROM jsonb_each_text(b)) AS amounts
                GROUP BY key
            ) AS totals)
        END
$$;

CREATE AGGREGATE metertrail.sum_amounts(jsonb) (SFUNC = metertrail.add_amounts, STYPE = jsonb, PARALLEL = SAFE,
    COMBINEFUNC = metertrail.add_amounts);

-- All the elements of some sketches, one after the other.
CREATE AGGREGATE metertrail.concat_sketches(bigint[]) (SFUNC = array_cat, STYPE = bigint[], INITCOND = '{}');

-- Writes each bin of a sketch once, splitting counts that do not fit into 40 bits.
CREATE FUNCTION metertrail.compact_sketch(sketch bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
    SELECT coalesce(array_agg((bin << 40) | part ORDER BY bin, part DESC), '{}')
    FROM (
        SELECT bin, least(1099511627775, total - chunk * 1099511627775)::bigint AS part
        FROM (
            SELECT element >> 40 AS bin, sum(element & 1099511627775) AS total
            FROM unnest(sketch) AS element
            GROUP BY 1
        ) AS bins, generate_series(0, ((total - 1) / 1099511627775)::bigint) AS chunk
    ) AS parts
$$;

-- A sketch in which each bin stands once if it would otherwise be long.
CREATE FUNCTION metertrail.short_sketch(sketch bigint[]) RETURNS bigint[]
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT
RETURN CASE WHEN cardinality(sketch) > 256 THEN metertrail.compact_sketch(sketch) ELSE sketch END;

-- The latency of a quantile, given in thousandths, in milliseconds; off by at most 1 %. NULL without any latency.
CREATE FUNCTION metertrail.sketch_quantile_ms(sketch bigint[], permille integer) RETURNS numeric
LANGUAGE sql IMMUTABLE PARALLEL SAFE STRICT AS $$
    SELECT round(
        CASE WHEN bin < 128 THEN bin
        ELSE ((bin & 63) + 64 << ((bin >> 6) - 1)::integer) + ((1::bigint << ((bin >> 6) - 1)::integer) - 1) / 2
        END / 1000.0, 3)
    FROM (
        SELECT bin, sum(total) OVER (ORDER BY bin) AS rank, sum(total) OVER () AS count
        FROM (
            SELECT element >> 40 AS bin, sum(element & 1099511627775) AS total
            FROM unnest(sketch) AS element
            GROUP BY 1
        ) AS bins
    ) AS ranked
    WHERE rank >= greatest(1, ceil(count * permille / 1000.0))
    ORDER BY bin
    LIMIT 1
$$;

-- Folds journal rows into the metrics: all of them, or about rows_max. Answers how many it folded. One statement moves
-- them, so every reader sees each row in exactly one of the two places. Any number of callers may run it at once: rows
-- that another one holds are skipped, and metrics rows are locked in the order of their keys, so they cannot deadlock.
-- A sketch is appended to the other; only when the array has grown past 256 elements each bin is written once. Appending
-- copies bytes, so an update costs little however many latencies the sketch has seen.
-- Rows are deleted where they lie (nobody ever updates one): the journal is as good as empty whenever statistics are taken,
-- so a join would be planned for a row or two.
CREATE FUNCTION metertrail.aggregate_usage_metrics(rows_max bigint DEFAULT NULL) RETURNS bigint
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    folded bigint;
BEGIN
    WITH taken AS (
        DELETE FROM metertrail.usage_journal
        WHERE ctid = ANY (ARRAY(
            SELECT ctid
            FROM metertrail.usage_journal
            LIMIT rows_max
            FOR UPDATE SKIP LOCKED))
        RETURNING *
    ), sums AS (
        SELECT tenant_id, period_start, count(*) AS journal_rows,
            sum(api_calls_total) AS api_calls_total, sum(api_calls_success) AS api_calls_success,
            sum(api_calls_failure) AS api_calls_failure, sum(rate_limited_count) AS rate_limited_count,
            sum(quota_exceeded_count) AS quota_exceeded_count, sum(abandoned_count) AS abandoned_count,
            sum(chat_messages_sent) AS chat_messages_sent, sum(embeddings_generated) AS embeddings_generated,
            sum(searches_performed) AS searches_performed, sum(api_requests) AS api_requests,
            sum(total_tokens_used) AS total_tokens_used, sum(tokens_input) AS tokens_input,
            sum(tokens_cache_read) AS tokens_cache_read, sum(tokens_cache_write) AS tokens_cache_write,
            sum(tokens_output) AS tokens_output, sum(tokens_reasoning) AS tokens_reasoning,
            sum(tokens_audio_input) AS tokens_audio_input,
            sum(tokens_audio_cache_read) AS tokens_audio_cache_read,
            sum(tokens_audio_output) AS tokens_audio_output, sum(tokens_estimated) AS tokens_estimated,
            sum(estimated_cost_usd) AS estimated_cost_usd, sum(unpriced_count) AS unpriced_count,
            sum(latency_us_total) AS latency_us_total, sum(latency_count) AS latency_count,
            metertrail.sum_amounts(custom_events) FILTER (WHERE custom_events IS NOT NULL) AS custom_events,
            metertrail.sum_amounts(measures) FILTER (WHERE measures IS NOT NULL) AS measures,
            metertrail.short_sketch(metertrail.concat_sketches(latency_sketch)) AS latency_sketch
        FROM taken
        GROUP BY tenant_id, period_start
    ), levels AS (
        SELECT tenant_id, level.period_type,
            CASE
                WHEN level.unit IS NULL THEN period_start
                ELSE date_trunc(level.unit, period_start AT TIME ZONE 'UTC') AT TIME ZONE 'UTC'
            END AS level_start,
            api_calls_total, api_calls_success, api_calls_failure, rate_limited_count, quota_exceeded_count,
            abandoned_count, chat_messages_sent, embeddings_generated, searches_performed, api_requests,
            total_tokens_used, tokens_input, tokens_cache_read, tokens_cache_write, tokens_output,
            tokens_reasoning, tokens_audio_input, tokens_audio_cache_read, tokens_audio_output,
            tokens_estimated, estimated_cost_usd, unpriced_count, latency_us_total, latency_count, custom_events, measures,
            latency_sketch
        FROM sums, (VALUES ('quarter_hourly', NULL), ('hourly', 'hour'), ('daily', 'day'),
            ('monthly', 'month')) AS level (period_type, unit)
    ), merged AS (
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
        ORDER BY tenant_id, period_type, level_start
        ON CONFLICT (tenant_id, period_type, period_start) DO UPDATE SET
            api_calls_total = metrics.api_calls_total + excluded.api_calls_total,
            api_calls_success = metrics.api_calls_success + excluded.api_calls_success,
            api_calls_failure = metrics.api_calls_failure + excluded.api_calls_failure,
            rate_limited_count = metrics.rate_limited_count + excluded.rate_limited_count,
            quota_exceeded_count = metrics.quota_exceeded_count + excluded.quota_exceeded_count,
            abandoned_count = metrics.abandoned_count + excluded.abandoned_count,
            chat_messages_sent = metrics.chat_messages_sent + excluded.chat_messages_sent,
            embeddings_generated = metrics.embeddings_generated + excluded.embeddings_generated,
            searches_performed = metrics.searches_performed + excluded.searches_performed,
            api_requests = metrics.api_requests + excluded.api_requests,
            total_tokens_used = metrics.total_tokens_used + excluded.total_tokens_used,
            tokens_input = metrics.tokens_input + excluded.tokens_input,
            tokens_cache_read = metrics.tokens_cache_read + excluded.tokens_cache_read,
            tokens_cache_write = metrics.tokens_cache_write + excluded.tokens_cache_write,
            tokens_output = metrics.tokens_output + excluded.tokens_output,
            tokens_reasoning = metrics.tokens_reasoning + excluded.tokens_reasoning,
            tokens_audio_input = metrics.tokens_audio_input + excluded.tokens_audio_input,
            tokens_audio_cache_read = metrics.tokens_audio_cache_read + excluded.tokens_audio_cache_read,
            tokens_audio_output = metrics.tokens_audio_output + excluded.tokens_audio_output,
            tokens_estimated = metrics.tokens_estimated + excluded.tokens_estimated,
            estimated_cost_usd = metrics.estimated_cost_usd + excluded.estimated_cost_usd,
            unpriced_count = metrics.unpriced_count + excluded.unpriced_count,
            latency_us_total = metrics.latency_us_total + excluded.latency_us_total,
            latency_count = metrics.latency_count + excluded.latency_count,
            custom_events = CASE
                WHEN excluded.custom_events IS NULL THEN metrics.custom_events
                ELSE metertrail.add_amounts(metrics.custom_events, excluded.custom_events)
            END,
            measures = CASE
                WHEN excluded.measures IS NULL THEN metrics.measures
                ELSE metertrail.add_amounts(metrics.measures, excluded.measures)
            END,
            latency_sketch = CASE
                WHEN cardinality(metrics.latency_sketch) + cardinality(excluded.latency_sketch) > 256
                THEN metertrail.compact_sketch(metrics.latency_sketch || excluded.latency_sketch)
                ELSE metrics.latency_sketch || excluded.latency_sketch
            END
    )
    SELECT sum(journal_rows) INTO folded FROM sums;
    RETURN coalesce(folded, 0);
END;
$$;

COMMENT ON FUNCTION metertrail.aggregate_usage_metrics(bigint) IS
    'Folds what was recorded into the metrics. Safe to run at any time, twice and in parallel, for example by pg_cron.';

-- What psql users and dashboards see, under the plain names. A name that is already taken in the schema public is left
-- alone, and so is a database without that schema or the right to make something in it. Rows can be inserted through the
-- views.
DO $views$
BEGIN
    IF NOT coalesce(has_schema_privilege(to_regnamespace('public'), 'CREATE'), false) THEN
        RETURN;
    END IF;
    IF to_regclass('public.tenant_usage_realtime') IS NULL THEN
        CREATE VIEW public.tenant_usage_realtime WITH (security_invoker = true) AS
        SELECT *,
            tokens_input + tokens_cache_read + tokens_cache_write + tokens_output + tokens_reasoning
                + tokens_audio_input + tokens_audio_cache_read + tokens_audio_output + tokens_unclassified AS tokens_used,
            round(latency_us / 1000.0, 3) AS response_time_ms
        FROM metertrail.tenant_usage_realtime;
    END IF;
    IF to_regclass('public.audit_events') IS NULL THEN
        CREATE VIEW public.audit_events WITH (security_invoker = true) AS SELECT * FROM metertrail.audit_events;
    END IF;
    IF to_regclass('public.tenant_usage_metrics') IS NULL THEN
        CREATE VIEW public.tenant_usage_metrics WITH (security_invoker = true) AS
        SELECT *,
            round(100.0 * api_calls_failure / nullif(api_calls_success + api_calls_failure, 0), 2) AS error_rate,
            metertrail.sketch_quantile_ms(latency_sketch, 500) AS api_latency_p50_ms,
            metertrail.sketch_quantile_ms(latency_sketch, 950) AS api_latency_p95_ms,
            metertrail.sketch_quantile_ms(latency_sketch, 990) AS api_latency_p99_ms
        FROM metertrail.tenant_usage_metrics;
    END IF;
END;
$views$;
