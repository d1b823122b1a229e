-- The silences that last or are still to come, those that end last first. $1 timestamptz: now. $2 bigint: how many at most. A
-- cross-tenant statement.
SELECT tenant_id, id, rule, starts_at, ends_at, reason, created_by
FROM metertrail.alert_silences
WHERE ends_at > $1
ORDER BY ends_at DESC, id
LIMIT $2
