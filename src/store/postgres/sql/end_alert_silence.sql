-- Ends a silence that lasts or is still to come. $1 uuid: its id. $2 timestamptz: now. A cross-tenant statement.
UPDATE metertrail.alert_silences
SET ends_at = $2, starts_at = least(starts_at, $2)
WHERE id = $1 AND ends_at > $2
RETURNING true
