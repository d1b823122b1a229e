-- Removes an incident that is resolved. $1 text, $2 uuid: its key.
DELETE FROM metertrail.incidents
WHERE tenant_id = $1 AND id = $2 AND state = 'resolved'
RETURNING true
