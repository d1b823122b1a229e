-- Writes down what is to be told, due at once, unless it is there. $1 text, $2 uuid: the incident. $3 text: the kind. $4 text:
-- the sink. $5 timestamptz: now.
INSERT INTO metertrail.alert_notifications (tenant_id, incident_id, kind, sink, due_at)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (tenant_id, incident_id, kind, sink) DO NOTHING
