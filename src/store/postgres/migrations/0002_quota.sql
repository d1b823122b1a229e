-- Quotas: what each tenant was assigned, and the slices of its limits that processes hold.
--
-- Usage itself is not repeated here: what counts against a limit is read from the metrics and the journal (or, for windows
-- shorter than a quarter hour, from the events), so that there is one truth, and a row put in by hand counts like any other.

-- One row a tenant: its plan, and the lock under which its slices are leased.
CREATE TABLE metertrail.quota_tenants (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    plan text,
    zone text,
    revision bigint NOT NULL DEFAULT 0,
    changed_at timestamptz,
    PRIMARY KEY (tenant_id)
);
CREATE INDEX quota_tenants_changed_at ON metertrail.quota_tenants (changed_at);

-- The plans that a host keeps here and not in its code: small, the same for all tenants.
CREATE TABLE metertrail.quota_plans (
    name text COLLATE "C" NOT NULL,
    limits jsonb NOT NULL,
    PRIMARY KEY (name)
);

-- A tenant's own limits. An amount of NULL is unlimited.
CREATE TABLE metertrail.quota_overrides (
    tenant_id text COLLATE "C" NOT NULL,
    quota text COLLATE "C" NOT NULL,
    window_type text COLLATE "C" NOT NULL,
    window_definition jsonb NOT NULL,
    amount bigint CHECK (amount >= 0),
    expires_at timestamptz,
    reason text,
    PRIMARY KEY (tenant_id, quota, window_type)
);

-- What one holder was granted of one limit in one window. Leased is what is granted and neither given back nor settled.
CREATE TABLE metertrail.quota_slices (
    tenant_id text COLLATE "C" NOT NULL,
    quota text COLLATE "C" NOT NULL,
    window_type text COLLATE "C" NOT NULL,
    window_start timestamptz NOT NULL,
    holder_id uuid NOT NULL,
    window_end timestamptz NOT NULL,
    granted bigint NOT NULL DEFAULT 0 CHECK (granted >= 0),
    returned bigint NOT NULL DEFAULT 0 CHECK (returned BETWEEN 0 AND granted),
    settled bigint NOT NULL DEFAULT 0 CHECK (settled >= 0),
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, quota, window_type, window_start, holder_id)
) WITH (fillfactor = 80);

-- Units that events used up, written in the transaction of the events and folded into the slices when units are asked for:
-- inserts only, so that no append waits for a tenant's lock.
CREATE TABLE metertrail.quota_settlements (
    tenant_id text COLLATE "C" NOT NULL,
    batch_id uuid NOT NULL,
    quota text COLLATE "C" NOT NULL,
    window_type text COLLATE "C" NOT NULL,
    window_start timestamptz NOT NULL,
    holder_id uuid NOT NULL,
    amount bigint NOT NULL CHECK (amount >= 0),
    PRIMARY KEY (tenant_id, batch_id, quota, window_type, window_start, holder_id)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 20000);

-- Functions, so that their plans are kept by the session: planning them anew costs more than running them. The plan is the
-- same for all tenants and windows.

-- Locks a tenant's row until the end of the transaction, so that requests for its units take turns; folds what events used
-- up into its slices; and removes slices of windows that ended before an instant.
CREATE FUNCTION metertrail.lock_quotas(tenant text, ended_before timestamptz) RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    PERFORM FROM metertrail.quota_tenants WHERE tenant_id = tenant FOR UPDATE;
    IF NOT FOUND THEN
        INSERT INTO metertrail.quota_tenants (tenant_id) VALUES (tenant) ON CONFLICT (tenant_id) DO NOTHING;
        PERFORM FROM metertrail.quota_tenants WHERE tenant_id = tenant FOR UPDATE;
    END IF;
    -- Whoever locks several slices does so in the order of their keys.
    IF EXISTS (SELECT FROM metertrail.quota_settlements WHERE tenant_id = tenant) THEN
        PERFORM FROM metertrail.quota_slices
        WHERE tenant_id = tenant
        ORDER BY quota, window_type, window_start, holder_id
        FOR UPDATE;
    END IF;
    WITH taken AS (
        DELETE FROM metertrail.quota_settlements
        WHERE tenant_id = tenant
        RETURNING quota, window_type, window_start, holder_id, amount
    ), sums AS (
        SELECT quota, window_type, window_start, holder_id, sum(amount)::bigint AS amount
        FROM taken
        GROUP BY quota, window_type, window_start, holder_id
    )
    UPDATE metertrail.quota_slices AS slices
    SET settled = slices.settled + sums.amount
    FROM sums
    WHERE slices.tenant_id = tenant
        AND slices.quota = sums.quota
        AND slices.window_type = sums.window_type
        AND slices.window_start = sums.window_start
        AND slices.holder_id = sums.holder_id;
    IF ended_before IS NOT NULL THEN
        -- Where something is out, by two clocks and a month later: a caller's clock that runs ahead must not end a window
        -- that others are in.
        DELETE FROM metertrail.quota_slices
        WHERE tenant_id = tenant
            AND window_end < ended_before
            AND (granted - returned - settled <= 0
                OR window_end < least(ended_before, now()) - interval '31 days');
    END IF;
END;
$$;

-- Who holds how much of some limits of one tenant, settlements that are not yet folded taken into account; positions count
-- from 1. A window that overlaps one of these, since the zone or the anchor changed, is not the window itself.
CREATE FUNCTION metertrail.quota_leases(
    tenant text, quotas text[], window_types text[], window_starts timestamptz[], window_ends timestamptz[])
RETURNS TABLE ("position" bigint, is_the_window boolean, holder_id uuid, granted bigint, leased bigint,
    expires_at timestamptz)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT wanted.ordinality, slices.window_start = wanted.window_start, slices.holder_id, slices.granted,
        slices.granted - slices.returned - slices.settled - coalesce((
            SELECT sum(settlements.amount)
            FROM metertrail.quota_settlements AS settlements
            WHERE settlements.tenant_id = tenant
                AND settlements.quota = slices.quota
                AND settlements.window_type = slices.window_type
                AND settlements.window_start = slices.window_start
                AND settlements.holder_id = slices.holder_id), 0)::bigint,
        slices.expires_at
    FROM unnest(quotas, window_types, window_starts, window_ends)
        WITH ORDINALITY AS wanted (quota, window_type, window_start, window_end)
    CROSS JOIN LATERAL (
        SELECT *
        FROM metertrail.quota_slices
        WHERE tenant_id = tenant
            AND quota_slices.quota = wanted.quota
            AND quota_slices.window_type = wanted.window_type
            AND quota_slices.window_start < wanted.window_end
            AND quota_slices.window_end > wanted.window_start
        OFFSET 0
    ) AS slices;
END;
$$;

-- What counts against the limits of one tenant in some windows on quarter hours: each is tiled by roll-up periods, and what
-- is not yet rolled up is added. Positions count from 1; a window without usage has no row.
CREATE FUNCTION metertrail.quota_usage(
    tenant text, tile_positions bigint[], period_types text[], tile_starts timestamptz[], tile_ends timestamptz[],
    window_starts timestamptz[], window_ends timestamptz[])
RETURNS TABLE ("position" bigint, tokens numeric, api_calls numeric, chat_messages numeric, embeddings numeric,
    cost_usd numeric, measures jsonb)
LANGUAGE plpgsql STABLE SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT parts.part_position, sum(parts.total_tokens_used), sum(parts.api_calls_success + parts.abandoned_count),
        sum(parts.chat_messages_sent), sum(parts.embeddings_generated), sum(parts.estimated_cost_usd),
        metertrail.sum_amounts(parts.measures) FILTER (WHERE parts.measures IS NOT NULL)
    FROM (
        SELECT tile.tile_position AS part_position, metrics.total_tokens_used, metrics.api_calls_success,
            metrics.abandoned_count, metrics.chat_messages_sent, metrics.embeddings_generated,
            metrics.estimated_cost_usd, metrics.measures
        FROM unnest(tile_positions, period_types, tile_starts, tile_ends)
            AS tile (tile_position, period_type, range_start, range_end)
        CROSS JOIN LATERAL (
            SELECT *
            FROM metertrail.tenant_usage_metrics
            WHERE tenant_id = tenant
                AND tenant_usage_metrics.period_type = tile.period_type
                AND period_start >= tile.range_start
                AND period_start < tile.range_end
            OFFSET 0
        ) AS metrics
        UNION ALL
        SELECT windows.ordinality, journal.total_tokens_used, journal.api_calls_success, journal.abandoned_count,
            journal.chat_messages_sent, journal.embeddings_generated, journal.estimated_cost_usd, journal.measures
        FROM metertrail.usage_journal AS journal
        JOIN unnest(window_starts, window_ends) WITH ORDINALITY AS windows (window_start, window_end)
            ON journal.period_start >= windows.window_start AND journal.period_start < windows.window_end
        WHERE journal.tenant_id = tenant
    ) AS parts
    GROUP BY parts.part_position;
END;
$$;

-- Adds grants to the slices of one holder, and renews them until an instant.
CREATE FUNCTION metertrail.grant_quotas(
    tenant text, holder uuid, until timestamptz, quotas text[], window_types text[], window_starts timestamptz[],
    window_ends timestamptz[], units bigint[])
RETURNS void
LANGUAGE plpgsql SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    INSERT INTO metertrail.quota_slices AS slices (
        tenant_id, holder_id, expires_at, quota, window_type, window_start, window_end, granted)
    SELECT tenant, holder, until, * FROM unnest(quotas, window_types, window_starts, window_ends, units)
    ON CONFLICT ON CONSTRAINT quota_slices_pkey DO UPDATE SET
        granted = slices.granted + excluded.granted,
        expires_at = excluded.expires_at;
END;
$$;
