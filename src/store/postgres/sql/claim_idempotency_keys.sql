-- Claims idempotency keys. $1 text[], $2 text[], $3 uuid[]: tenants, keys, events; in the order of tenants and keys.
-- Answers the claimed ones only. Claim and write are one statement: of two callers at once one waits for the other.
-- Locks: the keys of the rows, in the order given, until the end of the transaction.
INSERT INTO metertrail.usage_idempotency_keys (tenant_id, idempotency_key, event_id)
SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[])
ON CONFLICT (tenant_id, idempotency_key) DO NOTHING
RETURNING tenant_id, idempotency_key
