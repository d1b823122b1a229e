-- Adds grants to the slices of one holder, and renews them. Run under lock_quotas.
-- $1 text: tenant. $2 uuid: holder. $3 timestamptz: until when it answers for them. $4 text[], $5 text[], $6 timestamptz[],
-- $7 timestamptz[], $8 bigint[]: quotas, kinds, starts and ends of windows, units.
-- Locks: the slices.
INSERT INTO metertrail.quota_slices AS slices (
    tenant_id, holder_id, expires_at, quota, window_type, window_start, window_end, granted)
SELECT $1, $2, $3, * FROM unnest($4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[], $8::bigint[])
ON CONFLICT (tenant_id, quota, window_type, window_start, holder_id) DO UPDATE SET
    granted = slices.granted + excluded.granted,
    expires_at = excluded.expires_at
