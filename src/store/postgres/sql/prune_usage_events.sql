-- Deletes a tenant's events of days before one. $1 text: tenant. $2 date. $3 bigint: how many at most. Answers how many.
SELECT metertrail.prune_usage_events($1, $2, $3)
