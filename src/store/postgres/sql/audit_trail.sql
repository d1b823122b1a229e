-- One page of one tenant's audit events, newest first.
-- $1 text: tenant. $2, $3 uuid: ids from and below. $4, $5 timestamptz: the range. $6, $7 text: event types, $8, $9
-- actor types, $10, $11 actor ids, $12, $13 target types, $14, $15 target ids: each from and to, both included.
-- $16 text[]: results. $17 bigint: how many at most.
SELECT
    tenant_id, id, "timestamp", event_type, action, result, metadata, error_message, schema_version, severity,
    actor_type, actor_id, target_type, target_id, ip, user_agent, request_id, trace_id, represents, personal
FROM metertrail.audit_events
WHERE tenant_id = $1
    AND id >= $2 AND id < $3
    AND "timestamp" >= $4 AND "timestamp" < $5
    AND event_type >= $6 AND event_type <= $7
    AND actor_type >= $8 AND actor_type <= $9
    AND actor_id >= $10 AND actor_id <= $11
    AND target_type >= $12 AND target_type <= $13
    AND target_id >= $14 AND target_id <= $15
    AND result = ANY ($16)
ORDER BY id DESC
LIMIT $17
