-- Alerts: incidents, their notifications, silences, and the turns of evaluations.
--
-- What is about no tenant in particular has the tenant ''. Rows are few: as many as there is wrong, not as many as there are
-- tenants.

-- The turns of evaluations, one row a scope (a rule, or a rule on one process). The row is locked while the changes of a turn
-- are made, so that those of an earlier turn cannot come after those of a later one. Small, the same for all tenants.
CREATE TABLE metertrail.alert_evaluations (
    scope text COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    evaluated_at timestamptz NOT NULL,
    PRIMARY KEY (scope)
);

CREATE TABLE metertrail.incidents (
    tenant_id text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    fingerprint uuid NOT NULL,
    rule text COLLATE "C" NOT NULL CHECK (rule <> ''),
    subject text,
    severity text COLLATE "C" NOT NULL CHECK (severity IN ('info', 'warning', 'critical')),
    state text COLLATE "C" NOT NULL CHECK (state IN ('pending', 'firing', 'resolved')),
    value numeric NOT NULL,
    threshold numeric NOT NULL,
    unit text NOT NULL,
    opened_at timestamptz NOT NULL,
    fired_at timestamptz,
    calm_since timestamptz,
    observed_at timestamptz NOT NULL,
    resolved_at timestamptz,
    notified_at timestamptz,
    acknowledged_by text,
    acknowledged_at timestamptz,
    revision bigint NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CHECK ((state = 'resolved') = (resolved_at IS NOT NULL)),
    CHECK ((acknowledged_by IS NULL) = (acknowledged_at IS NULL))
);
-- One that is not resolved for each rule and subject of a tenant.
CREATE UNIQUE INDEX incidents_one_open ON metertrail.incidents (tenant_id, fingerprint) WHERE state <> 'resolved';
CREATE INDEX incidents_open ON metertrail.incidents (rule, tenant_id, id) WHERE state <> 'resolved';
CREATE INDEX incidents_newest ON metertrail.incidents (id);
CREATE INDEX incidents_resolved_at ON metertrail.incidents (resolved_at) WHERE state = 'resolved';

-- What is told to whom, written in the transaction of the change that it tells of. A claim is a lease: whoever takes it after
-- its end takes over what a process that died has left.
CREATE TABLE metertrail.alert_notifications (
    tenant_id text COLLATE "C" NOT NULL,
    incident_id uuid NOT NULL,
    kind text COLLATE "C" NOT NULL CHECK (kind IN ('firing', 'resolved')),
    sink text COLLATE "C" NOT NULL,
    status text COLLATE "C" NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'done', 'dead')),
    attempts bigint NOT NULL DEFAULT 0,
    due_at timestamptz NOT NULL,
    claim_id uuid,
    claimed_until timestamptz,
    was_delivered boolean NOT NULL DEFAULT false,
    tried_at timestamptz,
    error text,
    PRIMARY KEY (tenant_id, incident_id, kind, sink)
);
CREATE INDEX alert_notifications_due ON metertrail.alert_notifications (due_at) WHERE status = 'waiting';
CREATE INDEX alert_notifications_dead ON metertrail.alert_notifications (tenant_id, incident_id, kind, sink)
    WHERE status = 'dead';

-- A rule of '' is every rule, a tenant of '' every tenant and none.
CREATE TABLE metertrail.alert_silences (
    tenant_id text COLLATE "C" NOT NULL,
    id uuid NOT NULL,
    rule text COLLATE "C" NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    reason text NOT NULL,
    created_by text NOT NULL,
    PRIMARY KEY (tenant_id, id),
    CHECK (starts_at <= ends_at)
);
CREATE INDEX alert_silences_ends_at ON metertrail.alert_silences (ends_at);
