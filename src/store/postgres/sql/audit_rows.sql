-- One tenant's audit events in ascending order. $1 text: tenant. $2 uuid: after this id. $3 bigint: how many at most.
SELECT
    tenant_id, id, "timestamp", event_type, action, result, metadata, error_message, schema_version, severity,
    actor_type, actor_id, target_type, target_id, ip, user_agent, request_id, trace_id, represents, personal
FROM metertrail.audit_events
WHERE tenant_id = $1 AND id > $2
ORDER BY id
LIMIT $3
