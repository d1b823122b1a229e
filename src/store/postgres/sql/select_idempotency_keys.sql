-- Which events own these idempotency keys. $1 text[], $2 text[]: tenants, keys.
SELECT keys.tenant_id, keys.idempotency_key, keys.event_id
FROM unnest($1::text[], $2::text[]) AS wanted (tenant_id, idempotency_key)
JOIN metertrail.usage_idempotency_keys AS keys
    ON keys.tenant_id = wanted.tenant_id AND keys.idempotency_key = wanted.idempotency_key
