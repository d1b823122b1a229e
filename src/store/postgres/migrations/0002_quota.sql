-- Quotas: what each tenant was assigned, and the slices of its limits that processes hold.
--
-- Usage itself is not repeated here: what counts against a limit is read from the metrics and the journal (or, for windows
-- shorter than a quarter hour, from the events), so that there is one truth, and a row put in by hand counts like any other.

-- One row a tenant: its plan, and the lock under which its slices are leased.
CREATE TABLE metertrail.quota_tenants (
    tenant_id text COLLATE "C" NOT NULL CHECK (tenant_id <> ''),
    plan text,
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

-- Units that events used up, written in the transaction of the events and folded into the slices when units are asked for
-- or rolled up: inserts only, so that no append waits for a tenant's lock.
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
