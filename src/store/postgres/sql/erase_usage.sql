-- Erases a tenant's usage. $1 text: tenant. Answers how many rows, or NULL if it is held.
-- Locks: the tenant's rows; metrics in the order in which the roll-up locks them.
SELECT metertrail.erase_usage($1)
