-- The audit trail: events, the batches that writers seal, the tenants' trees, the log of epochs, the keys of persons.
--
-- The hot path inserts only: the rows of a batch, the batch and one marker, in one transaction, without a lock on any
-- tenant. Tables of tenants begin with tenant_id; batches are nobody's and begin with their writer. What is sealed is hashed
-- by the crate, never here: the database is what the seals do not trust.

ALTER TABLE metertrail.audit_events
    ADD COLUMN schema_version integer NOT NULL DEFAULT 1,
    ADD COLUMN severity text COLLATE "C" NOT NULL DEFAULT 'info',
    ADD COLUMN actor_type text COLLATE "C" NOT NULL DEFAULT 'unknown',
    ADD COLUMN actor_id text COLLATE "C" NOT NULL DEFAULT 'unknown',
    ADD COLUMN target_type text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN target_id text COLLATE "C" NOT NULL DEFAULT '',
    ADD COLUMN ip text,
    ADD COLUMN user_agent text,
    ADD COLUMN request_id text,
    ADD COLUMN trace_id text,
    ADD COLUMN represents bigint NOT NULL DEFAULT 1,
    ADD COLUMN personal jsonb;

-- What is looked for among many: security events, and what did not succeed. The rest costs these indexes nothing.
CREATE INDEX audit_events_security ON metertrail.audit_events (tenant_id, id)
    WHERE event_type >= 'security.' AND event_type < 'security/';
CREATE INDEX audit_events_unsuccessful ON metertrail.audit_events (tenant_id, id) WHERE result <> 'success';

COMMENT ON COLUMN metertrail.audit_events.represents IS
    'For how many events of its type the row stands; more than one where a chatty type is sampled.';
COMMENT ON COLUMN metertrail.audit_events.personal IS
    'Ciphertexts and commitments by field; unreadable once the key of the subject is deleted from audit_subjects.';

-- What one flush wrote: the signed header, and the list of its events and their leaves.
CREATE TABLE metertrail.audit_batches (
    writer_id uuid NOT NULL,
    sequence bigint NOT NULL CHECK (sequence >= 0),
    header bytea NOT NULL,
    manifest bytea NOT NULL,
    signature bytea,
    PRIMARY KEY (writer_id, sequence)
);
-- Hashes do not compress.
ALTER TABLE metertrail.audit_batches ALTER COLUMN manifest SET STORAGE EXTERNAL;

-- The batches that no epoch has sealed. A marker is written with its batch and deleted by the epoch, so that one that
-- commits late is not forgotten.
CREATE TABLE metertrail.audit_unsealed (
    writer_id uuid NOT NULL,
    sequence bigint NOT NULL,
    sealed_at timestamptz NOT NULL,
    PRIMARY KEY (writer_id, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
CREATE INDEX audit_unsealed_order ON metertrail.audit_unsealed (sealed_at, writer_id, sequence);

-- The log of epochs. The number is the lock: of two sealers at once the second finds it taken.
CREATE TABLE metertrail.audit_epochs (
    number bigint NOT NULL CHECK (number >= 0),
    record bytea NOT NULL,
    checkpoint text NOT NULL,
    frontier bytea NOT NULL,
    PRIMARY KEY (number)
);

-- How each tenant's tree stands with the latest epoch.
CREATE TABLE metertrail.audit_heads (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    size bigint NOT NULL CHECK (size >= 0),
    root bytea NOT NULL,
    frontier bytea NOT NULL,
    PRIMARY KEY (tenant_id)
) WITH (fillfactor = 80);

-- The tenants' trees: the leaves (level 0), and the roots of complete subtrees of 256, 65536, … leaves (level 8, 16, …).
CREATE TABLE metertrail.audit_tree (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    level smallint NOT NULL CHECK (level >= 0),
    position bigint NOT NULL CHECK (position >= 0),
    hash bytea NOT NULL,
    event_id uuid,
    PRIMARY KEY (tenant_id, level, position)
);
-- Where an event is; and no event is in a tree twice.
CREATE UNIQUE INDEX audit_tree_event ON metertrail.audit_tree (tenant_id, event_id) WHERE level = 0;

-- The keys of the data about persons, and legal holds. The subject '' stands for everybody of the tenant.
CREATE TABLE metertrail.audit_subjects (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    subject text COLLATE "C" NOT NULL,
    key bytea,
    hold_reason text,
    PRIMARY KEY (tenant_id, subject)
);

-- A guard against accidents and against roles that may write: what is sealed is only ever added. It does not stop a
-- superuser, who can disable it; for that there are the seals.
CREATE FUNCTION metertrail.refuse_audit_change() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'the audit trail is append only: % on %.% is refused', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege';
END;
$$;

-- Makes the partition of one UTC day of audit events, if it is missing; as metertrail.ensure_usage_partition does.
CREATE FUNCTION metertrail.ensure_audit_partition(day date) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    partition text := 'audit_events_' || to_char(day, 'YYYYMMDD');
BEGIN
    IF to_regclass('metertrail.' || partition) IS NOT NULL THEN
        RETURN;
    END IF;
    PERFORM pg_advisory_xact_lock(7307497709806154099);
    EXECUTE format('CREATE TABLE metertrail.%I (LIKE metertrail.audit_events INCLUDING ALL)', partition);
    EXECUTE format(
        'ALTER TABLE metertrail.audit_events ATTACH PARTITION metertrail.%I FOR VALUES FROM (%L) TO (%L)',
        partition,
        metertrail.event_id_lower_bound(day::timestamp AT TIME ZONE 'UTC'),
        metertrail.event_id_lower_bound((day + 1)::timestamp AT TIME ZONE 'UTC'));
    -- Row triggers come with the parent, this one does not.
    IF NOT EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') THEN
        EXECUTE format(
            'CREATE TRIGGER audit_is_not_truncated BEFORE TRUNCATE ON metertrail.%I '
            'EXECUTE FUNCTION metertrail.refuse_audit_change()', partition);
    END IF;
EXCEPTION
    WHEN duplicate_table THEN
        -- Another caller made it while this one waited.
        RETURN;
END;
$$;

-- Triggers cannot be on distributed tables.
DO $guards$
DECLARE
    guarded text;
BEGIN
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'citus') THEN
        RETURN;
    END IF;
    FOREACH guarded IN ARRAY ARRAY['audit_events', 'audit_batches', 'audit_epochs', 'audit_tree'] LOOP
        EXECUTE format(
            'CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON metertrail.%I '
            'FOR EACH ROW EXECUTE FUNCTION metertrail.refuse_audit_change()', guarded);
        EXECUTE format(
            'CREATE TRIGGER audit_is_not_truncated BEFORE TRUNCATE ON metertrail.%I '
            'EXECUTE FUNCTION metertrail.refuse_audit_change()', guarded);
    END LOOP;
END;
$guards$;

-- What a role that is bound to one tenant sees: the tenant of the setting metertrail.tenant_id. The policies sleep until
-- metertrail.enable_audit_row_security() is called; then writers must own the tables or have BYPASSRLS, since COPY is
-- refused to anybody whom a policy binds.
DO $policies$
DECLARE
    secured text;
BEGIN
    FOREACH secured IN ARRAY ARRAY['audit_events', 'audit_heads', 'audit_tree', 'audit_subjects'] LOOP
        EXECUTE format(
            'CREATE POLICY own_tenant ON metertrail.%I FOR SELECT '
            'USING (tenant_id = current_setting(''metertrail.tenant_id'', true))', secured);
    END LOOP;
END;
$policies$;

CREATE FUNCTION metertrail.enable_audit_row_security() RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    ALTER TABLE metertrail.audit_events ENABLE ROW LEVEL SECURITY;
    ALTER TABLE metertrail.audit_heads ENABLE ROW LEVEL SECURITY;
    ALTER TABLE metertrail.audit_tree ENABLE ROW LEVEL SECURITY;
    ALTER TABLE metertrail.audit_subjects ENABLE ROW LEVEL SECURITY;
END;
$$;

-- The view of the plain name gains the new columns, if it is the one that this crate made.
DO $view$
BEGIN
    IF has_schema_privilege(to_regnamespace('public'), 'CREATE')
        AND EXISTS (
            SELECT FROM pg_views
            WHERE schemaname = 'public' AND viewname = 'audit_events'
                AND definition LIKE '%FROM metertrail.audit_events%')
    THEN
        CREATE OR REPLACE VIEW public.audit_events WITH (security_invoker = true) AS
        SELECT * FROM metertrail.audit_events;
    END IF;
END;
$view$;
