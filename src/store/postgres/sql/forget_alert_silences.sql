-- Removes silences that ended before an instant. $1 timestamptz. A cross-tenant statement.
DELETE FROM metertrail.alert_silences
WHERE ends_at < $1
