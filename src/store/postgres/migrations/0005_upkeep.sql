-- Upkeep: who does which step, what became of it, days that were closed, holds, and aggregation anew from events.

-- One row a task: the latest step that anybody began. It is the register that a claim compares and swaps: whoever claims
-- gets a greater token, and what an earlier holder still wants to do under its token is refused.
CREATE TABLE metertrail.upkeep_tasks (
    task text COLLATE "C" NOT NULL CHECK (task <> ''),
    token bigint NOT NULL DEFAULT 0,
    due_at timestamptz,
    status text COLLATE "C" NOT NULL DEFAULT 'never' CHECK (status IN ('never', 'running', 'succeeded', 'failed')),
    attempt integer NOT NULL DEFAULT 0,
    owner text,
    lease_until timestamptz,
    retry_at timestamptz,
    last_success_due_at timestamptz,
    last_success_at timestamptz,
    PRIMARY KEY (task)
) WITH (fillfactor = 50);

-- What became of each attempt.
CREATE TABLE metertrail.upkeep_runs (
    task text COLLATE "C" NOT NULL,
    token bigint NOT NULL,
    due_at timestamptz NOT NULL,
    attempt integer NOT NULL,
    owner text NOT NULL,
    status text COLLATE "C" NOT NULL CHECK (status IN ('running', 'succeeded', 'failed', 'lost')),
    started_at timestamptz NOT NULL,
    finished_at timestamptz,
    rows bigint,
    error text,
    PRIMARY KEY (task, token)
);

-- Days whose partition was dropped, with the manifest of the archive that has their events, if there is one. Nothing is
-- appended to a closed day: who wrote to it twice could not be told any more.
CREATE TABLE metertrail.closed_days (
    table_name text COLLATE "C" NOT NULL CHECK (table_name IN ('usage', 'audit')),
    day date NOT NULL,
    state text COLLATE "C" NOT NULL CHECK (state IN ('dropped', 'restored')),
    events bigint NOT NULL,
    key_sum numeric NOT NULL,
    manifest text,
    manifest_sha256 text,
    closed_at timestamptz NOT NULL,
    kept_until timestamptz,
    PRIMARY KEY (table_name, day)
);

-- Tenants whose usage must stay.
CREATE TABLE metertrail.usage_holds (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    reason text NOT NULL,
    PRIMARY KEY (tenant_id)
);

-- Up to which day the events of a tenant were deleted, while others' of the same days stayed.
CREATE TABLE metertrail.usage_pruned (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    before_day date NOT NULL,
    PRIMARY KEY (tenant_id)
);

-- Events of a day that is being restored, until all of them are there.
CREATE TABLE metertrail.usage_restoring (LIKE metertrail.tenant_usage_realtime INCLUDING ALL);

-- A caller's key is forgotten with its event.
CREATE INDEX usage_idempotency_keys_event ON metertrail.usage_idempotency_keys (event_id);

-- Claims a step of a task, or says why not: 'done' (it, or a later one, was done or begun), 'running' (somebody holds the
-- task until an instant), 'later' (it failed and is tried again from an instant on). One row is locked for a moment.
CREATE FUNCTION metertrail.claim_upkeep_run(
    the_task text, due timestamptz, at timestamptz, until timestamptz, who text)
RETURNS TABLE (outcome text, run_token bigint, run_attempt integer, success_due_at timestamptz, wait_until timestamptz)
LANGUAGE plpgsql AS $$
DECLARE
    held metertrail.upkeep_tasks%ROWTYPE;
    next_attempt integer;
BEGIN
    INSERT INTO metertrail.upkeep_tasks (task) VALUES (the_task) ON CONFLICT (task) DO NOTHING;
    SELECT * INTO STRICT held FROM metertrail.upkeep_tasks WHERE task = the_task FOR UPDATE;
    IF held.due_at > due OR (held.due_at = due AND held.status = 'succeeded') THEN
        RETURN QUERY SELECT 'done', NULL::bigint, NULL::integer, NULL::timestamptz, NULL::timestamptz;
        RETURN;
    END IF;
    IF held.status = 'running' AND held.lease_until > at THEN
        RETURN QUERY SELECT 'running', NULL::bigint, NULL::integer, NULL::timestamptz, held.lease_until;
        RETURN;
    END IF;
    IF held.due_at = due AND held.status = 'failed' AND held.retry_at > at THEN
        RETURN QUERY SELECT 'later', NULL::bigint, NULL::integer, NULL::timestamptz, held.retry_at;
        RETURN;
    END IF;
    IF held.status = 'running' THEN
        UPDATE metertrail.upkeep_runs
        SET status = 'lost', finished_at = at, error = 'its lease ran out'
        WHERE task = the_task AND token = held.token AND status = 'running';
    END IF;
    next_attempt := CASE WHEN held.due_at = due THEN held.attempt + 1 ELSE 1 END;
    UPDATE metertrail.upkeep_tasks
    SET token = held.token + 1, due_at = due, status = 'running', attempt = next_attempt, owner = who,
        lease_until = until, retry_at = NULL
    WHERE task = the_task;
    INSERT INTO metertrail.upkeep_runs (task, token, due_at, attempt, owner, status, started_at)
    VALUES (the_task, held.token + 1, due, next_attempt, who, 'running', at);
    RETURN QUERY SELECT 'claimed', held.token + 1, next_attempt, held.last_success_due_at, NULL::timestamptz;
END;
$$;

-- Notes how a run ended; false if the task is not held under this token any more.
CREATE FUNCTION metertrail.finish_upkeep_run(
    the_task text, the_token bigint, end_status text, at timestamptz, row_count bigint, message text, retry timestamptz)
RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE metertrail.upkeep_tasks
    SET status = end_status, lease_until = NULL, retry_at = retry,
        last_success_due_at = CASE WHEN end_status = 'succeeded' THEN due_at ELSE last_success_due_at END,
        last_success_at = CASE WHEN end_status = 'succeeded' THEN at ELSE last_success_at END
    WHERE task = the_task AND token = the_token AND status = 'running';
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    UPDATE metertrail.upkeep_runs
    SET status = end_status, finished_at = at, rows = row_count, error = message
    WHERE task = the_task AND token = the_token;
    RETURN true;
END;
$$;

-- Whether a run may still act; if so, nobody takes its place before the transaction ends.
CREATE FUNCTION metertrail.holds_upkeep_run(the_task text, the_token bigint) RETURNS boolean
LANGUAGE plpgsql AS $$
BEGIN
    PERFORM FROM metertrail.upkeep_tasks
    WHERE task = the_task AND token = the_token AND status = 'running'
    FOR SHARE;
    RETURN FOUND;
END;
$$;

-- As before, but for a closed day: its partition is not made again.
CREATE OR REPLACE FUNCTION metertrail.ensure_usage_partition(day date) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'tenant_usage_realtime_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass('metertrail.' || partition) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM metertrail.refuse_closed_day('usage', day);
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

CREATE FUNCTION metertrail.refuse_closed_day(which text, the_day date) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (
        SELECT FROM metertrail.closed_days
        WHERE table_name = which AND day = the_day AND state = 'dropped')
    THEN
        RAISE EXCEPTION 'lies on %, which is closed: its events were archived or dropped', the_day
            USING ERRCODE = 'MT001';
    END IF;
END;
$$;

-- How many events a day of usage has, and the sum of the last 60 bits of their ids.
CREATE FUNCTION metertrail.usage_day_digest(the_day date, OUT events bigint, OUT key_sum numeric)
LANGUAGE plpgsql STABLE SET jit = off AS $$
DECLARE
    partition text := 'tenant_usage_realtime_' || to_char(the_day, 'YYYYMMDD');
BEGIN
    IF to_regclass('metertrail.' || partition) IS NULL THEN
        events := 0;
        key_sum := 0;
        RETURN;
    END IF;
    EXECUTE format(
        'SELECT count(*), coalesce(sum((''x'' || right(replace(id::text, ''-'', ''''), 15))::bit(60)::bigint), 0) '
        'FROM metertrail.%I', partition) INTO events, key_sum;
END;
$$;

-- Drops the partition of a day of usage and closes the day, if it has exactly what the caller says and nobody's hold is on
-- it. Answers 'dropped', 'fenced', 'gone', 'held' or 'changed'; nothing is done but for the first.
-- Locks: the table of events, against everybody, from before the day is looked at until the end of the transaction: what
-- is appended to the day meanwhile is seen, or is refused. It waits for the lock for two seconds at most, since everybody
-- else waits behind it.
CREATE FUNCTION metertrail.drop_usage_day(
    the_task text, the_token bigint, the_day date, expected_events bigint, expected_key_sum numeric,
    the_manifest text, the_manifest_sha256 text, at timestamptz)
RETURNS text
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    partition text := 'tenant_usage_realtime_' || to_char(the_day, 'YYYYMMDD');
    is_held boolean;
    found_events bigint;
    found_key_sum numeric;
BEGIN
    IF NOT metertrail.holds_upkeep_run(the_task, the_token) THEN
        RETURN 'fenced';
    END IF;
    PERFORM set_config('lock_timeout', '2s', true);
    LOCK TABLE metertrail.tenant_usage_realtime IN ACCESS EXCLUSIVE MODE;
    IF to_regclass('metertrail.' || partition) IS NULL THEN
        RETURN 'gone';
    END IF;
    EXECUTE format(
        'SELECT EXISTS (SELECT FROM metertrail.usage_holds AS holds '
        'WHERE EXISTS (SELECT FROM metertrail.%I AS events WHERE events.tenant_id = holds.tenant_id))', partition)
        INTO is_held;
    IF is_held THEN
        RETURN 'held';
    END IF;
    SELECT * INTO found_events, found_key_sum FROM metertrail.usage_day_digest(the_day);
    IF found_events <> expected_events OR found_key_sum <> expected_key_sum THEN
        RETURN 'changed';
    END IF;
    DELETE FROM metertrail.usage_idempotency_keys
    WHERE event_id >= metertrail.event_id_lower_bound(the_day::timestamp AT TIME ZONE 'UTC')
        AND event_id < metertrail.event_id_lower_bound((the_day + 1)::timestamp AT TIME ZONE 'UTC');
    EXECUTE format('DROP TABLE metertrail.%I', partition);
    INSERT INTO metertrail.closed_days AS closed (
        table_name, day, state, events, key_sum, manifest, manifest_sha256, closed_at)
    VALUES ('usage', the_day, 'dropped', found_events, found_key_sum, the_manifest, the_manifest_sha256, at)
    ON CONFLICT (table_name, day) DO UPDATE SET
        state = excluded.state, events = excluded.events, key_sum = excluded.key_sum, manifest = excluded.manifest,
        manifest_sha256 = excluded.manifest_sha256, closed_at = excluded.closed_at, kept_until = NULL;
    RETURN 'dropped';
END;
$$;

-- Makes the partition of a closed day again of what was staged, and opens the day. Answers 'opened', 'fenced', 'open' (it is
-- not closed) or 'changed' (what is staged is not what was dropped); nothing is done but for the first.
CREATE FUNCTION metertrail.open_usage_day(the_task text, the_token bigint, the_day date, until timestamptz) RETURNS text
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    partition text := 'tenant_usage_realtime_' || to_char(the_day, 'YYYYMMDD');
    first_id uuid := metertrail.event_id_lower_bound(the_day::timestamp AT TIME ZONE 'UTC');
    end_id uuid := metertrail.event_id_lower_bound((the_day + 1)::timestamp AT TIME ZONE 'UTC');
    closed metertrail.closed_days%ROWTYPE;
    found_events bigint;
    found_key_sum numeric;
BEGIN
    IF NOT metertrail.holds_upkeep_run(the_task, the_token) THEN
        RETURN 'fenced';
    END IF;
    SELECT * INTO closed FROM metertrail.closed_days
    WHERE table_name = 'usage' AND day = the_day AND state = 'dropped'
    FOR UPDATE;
    IF NOT FOUND THEN
        RETURN 'open';
    END IF;
    SELECT count(*), coalesce(sum(('x' || right(replace(id::text, '-', ''), 15))::bit(60)::bigint), 0)
    INTO found_events, found_key_sum
    FROM metertrail.usage_restoring
    WHERE id >= first_id AND id < end_id;
    IF found_events <> closed.events OR found_key_sum <> closed.key_sum THEN
        RETURN 'changed';
    END IF;
    EXECUTE format('CREATE TABLE metertrail.%I (LIKE metertrail.tenant_usage_realtime INCLUDING ALL)', partition);
    EXECUTE format(
        'INSERT INTO metertrail.%I SELECT * FROM metertrail.usage_restoring WHERE id >= %L AND id < %L',
        partition, first_id, end_id);
    EXECUTE format(
        'ALTER TABLE metertrail.tenant_usage_realtime ATTACH PARTITION metertrail.%I FOR VALUES FROM (%L) TO (%L)',
        partition, first_id, end_id);
    INSERT INTO metertrail.usage_idempotency_keys (tenant_id, idempotency_key, event_id)
    SELECT tenant_id, idempotency_key, id
    FROM metertrail.usage_restoring
    WHERE id >= first_id AND id < end_id AND idempotency_key IS NOT NULL
    ON CONFLICT (tenant_id, idempotency_key) DO NOTHING;
    DELETE FROM metertrail.usage_restoring WHERE id >= first_id AND id < end_id;
    UPDATE metertrail.closed_days SET state = 'restored', kept_until = until
    WHERE table_name = 'usage' AND day = the_day;
    RETURN 'opened';
END;
$$;

-- Erases all usage of a tenant: events, journal, metrics, keys, what it was pruned to. Answers how many rows it deleted, or
-- NULL, and does nothing, if the tenant's usage is held. Quotas stay. A roll-up of the tenant that is under way commits
-- first: its metrics rows are waited for.
CREATE FUNCTION metertrail.erase_usage(tenant text) RETURNS bigint
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    erased bigint;
    more bigint;
BEGIN
    IF EXISTS (SELECT FROM metertrail.usage_holds WHERE tenant_id = tenant) THEN
        RETURN NULL;
    END IF;
    -- One statement, so one snapshot: an append that commits meanwhile stays as a whole.
    WITH journal AS (
        DELETE FROM metertrail.usage_journal WHERE tenant_id = tenant RETURNING 1
    ), events AS (
        DELETE FROM metertrail.tenant_usage_realtime WHERE tenant_id = tenant RETURNING 1
    ), staged AS (
        DELETE FROM metertrail.usage_restoring WHERE tenant_id = tenant
    ), keys AS (
        DELETE FROM metertrail.usage_idempotency_keys WHERE tenant_id = tenant
    ), pruned AS (
        DELETE FROM metertrail.usage_pruned WHERE tenant_id = tenant
    )
    SELECT (SELECT count(*) FROM journal) + (SELECT count(*) FROM events) INTO erased;
    -- Last, in the order in which the roll-up locks them.
    PERFORM FROM metertrail.tenant_usage_metrics
    WHERE tenant_id = tenant
    ORDER BY period_type, period_start
    FOR UPDATE;
    DELETE FROM metertrail.tenant_usage_metrics WHERE tenant_id = tenant;
    GET DIAGNOSTICS more = ROW_COUNT;
    RETURN erased + more;
END;
$$;

-- Deletes events of one tenant of the days before one, about as many as said, and notes that they were: such days of the
-- tenant are not held against their events any more. Answers how many it deleted; none of a tenant that is held.
CREATE FUNCTION metertrail.prune_usage_events(tenant text, before date, rows_max bigint) RETURNS bigint
LANGUAGE plpgsql SET jit = off AS $$
DECLARE
    end_id uuid := metertrail.event_id_lower_bound(before::timestamp AT TIME ZONE 'UTC');
    pruned bigint;
BEGIN
    IF EXISTS (SELECT FROM metertrail.usage_holds WHERE tenant_id = tenant)
        OR NOT EXISTS (SELECT FROM metertrail.tenant_usage_realtime WHERE tenant_id = tenant AND id < end_id)
    THEN
        RETURN 0;
    END IF;
    INSERT INTO metertrail.usage_pruned AS known (tenant_id, before_day) VALUES (tenant, before)
    ON CONFLICT (tenant_id) DO UPDATE SET before_day = greatest(known.before_day, excluded.before_day);
    WITH gone AS (
        DELETE FROM metertrail.tenant_usage_realtime
        WHERE tenant_id = tenant
            AND id = ANY (ARRAY(
                SELECT id
                FROM metertrail.tenant_usage_realtime
                WHERE tenant_id = tenant AND id < end_id
                ORDER BY id
                LIMIT rows_max))
        RETURNING id, idempotency_key
    ), keys AS (
        DELETE FROM metertrail.usage_idempotency_keys
        WHERE tenant_id = tenant
            AND idempotency_key = ANY (ARRAY(SELECT idempotency_key FROM gone WHERE idempotency_key IS NOT NULL))
    )
    SELECT count(*) INTO pruned FROM gone;
    RETURN pruned;
END;
$$;
