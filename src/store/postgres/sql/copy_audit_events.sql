-- Writes the events of one batch. A key that is taken fails the whole batch.
-- Guarantee: all or nothing.
-- Locks: the keys of the rows, until the end of the transaction.
COPY metertrail.audit_events (
    tenant_id, id, "timestamp", event_type, action, result, metadata, error_message, schema_version, severity,
    actor_type, actor_id, target_type, target_id, ip, user_agent, request_id, trace_id, represents, personal
) FROM STDIN (FORMAT binary)
