-- Nobody is told again of an incident who was told. $1 text, $2 uuid: the incident.
UPDATE metertrail.alert_notifications
SET status = 'done'
WHERE tenant_id = $1 AND incident_id = $2 AND was_delivered
