-- Adds grants to the slices of one holder, and renews them. Run after lock_quotas.
-- $1 text: tenant. $2 uuid: holder. $3 timestamptz: until when it answers for them. $4 text[], $5 text[], $6 timestamptz[],
-- $7 timestamptz[], $8 bigint[]: quotas, kinds, starts and ends of windows, units.
-- Locks: the slices.
SELECT metertrail.grant_quotas($1, $2, $3, $4, $5, $6, $7, $8)
