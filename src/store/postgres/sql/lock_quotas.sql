-- Locks a tenant's quotas until the end of the transaction, folds settlements, removes what is over: see the function.
-- $1 text: tenant. $2 timestamptz: before when a window ended whose slices are removed, or NULL.
-- Locks: the tenant's row, its settlements and slices.
SELECT metertrail.lock_quotas($1, $2)
