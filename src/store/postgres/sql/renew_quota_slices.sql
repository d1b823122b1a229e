-- Notes that holders answer for their slices until then. $1 text[], $2 uuid[]: tenants, holders. $3 timestamptz: until when.
-- A cross-tenant statement.
-- Guarantee: never shortens it.
-- Locks: the slices.
UPDATE metertrail.quota_slices AS slices
SET expires_at = $3
FROM unnest($1::text[], $2::uuid[]) AS told (tenant_id, holder_id)
WHERE slices.tenant_id = told.tenant_id AND slices.holder_id = told.holder_id AND slices.expires_at < $3
