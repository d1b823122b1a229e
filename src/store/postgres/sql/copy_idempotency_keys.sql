-- Claims idempotency keys that are probably new; one that is not fails the whole batch.
-- Locks: the keys of the rows, until the end of the transaction.
COPY metertrail.usage_idempotency_keys (tenant_id, idempotency_key, event_id) FROM STDIN (FORMAT binary)
