-- Gives events of one tenant another cost. $1 text: tenant. $2, $3 uuid: ids from and up to. $4 uuid[], $5 numeric[],
-- $6 text[], $7 numeric[], $8 text[]: ids, the costs and versions that they must still have, and those that they get.
-- Answers the events that were changed: once more with the same arguments, none. A cost that somebody reported, which has no
-- version, is never changed. Run under lock_usage_metrics.
-- Locks: the rows.
UPDATE metertrail.tenant_usage_realtime AS event
SET cost_usd = change.cost_to,
    price_version = change.version_to,
    measures = nullif(event.measures - 'unpriced_ceiling_usd', '{}'::jsonb)
FROM unnest($4::uuid[], $5::numeric[], $6::text[], $7::numeric[], $8::text[])
    AS change (id, cost_from, version_from, cost_to, version_to)
WHERE event.tenant_id = $1
    AND event.id >= $2 AND event.id <= $3
    AND event.id = change.id
    AND (event.cost_usd IS NULL) = (event.price_version IS NULL)
    AND event.cost_usd IS NOT DISTINCT FROM change.cost_from
    AND event.price_version IS NOT DISTINCT FROM change.version_from
RETURNING event.id
