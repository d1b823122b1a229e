-- Forgets what was staged of a day. $1, $2 uuid: ids from and below.
DELETE FROM metertrail.usage_restoring WHERE id >= $1 AND id < $2
