-- Gives back keys that this transaction claimed for events it then did not write. $1 text[], $2 text[]: tenants, keys.
DELETE FROM metertrail.usage_idempotency_keys AS keys
USING unnest($1::text[], $2::text[]) AS unused (tenant_id, idempotency_key)
WHERE keys.tenant_id = unused.tenant_id AND keys.idempotency_key = unused.idempotency_key
