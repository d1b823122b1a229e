-- Has a notification that was given up tried anew. $1 text, $2 uuid, $3 text, $4 text: its key. $5 timestamptz: now.
UPDATE metertrail.alert_notifications
SET status = 'waiting', attempts = 0, due_at = $5, error = NULL, claim_id = NULL, claimed_until = NULL
WHERE tenant_id = $1 AND incident_id = $2 AND kind = $3 AND sink = $4 AND status = 'dead'
RETURNING true
