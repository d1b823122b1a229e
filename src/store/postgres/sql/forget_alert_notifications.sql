-- Removes the notifications of an incident. $1 text, $2 uuid: the incident.
DELETE FROM metertrail.alert_notifications
WHERE tenant_id = $1 AND incident_id = $2
