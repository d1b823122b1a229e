-- Audit events by key. $1 text[], $2 uuid[]: tenants, ids.
-- OFFSET 0 keeps the planner from reading all events while it has no statistics of a new table.
SELECT
    events.tenant_id, events.id, events."timestamp", events.event_type, events.action, events.result,
    events.metadata, events.error_message, events.schema_version, events.severity, events.actor_type, events.actor_id,
    events.target_type, events.target_id, events.ip, events.user_agent, events.request_id, events.trace_id,
    events.represents, events.personal
FROM unnest($1::text[], $2::uuid[]) AS wanted (tenant_id, id)
CROSS JOIN LATERAL (
    SELECT *
    FROM metertrail.audit_events
    WHERE tenant_id = wanted.tenant_id AND id = wanted.id
    OFFSET 0
) AS events
