-- Takes a notification for a while, if it still is due and not on its way. $1 text, $2 uuid, $3 text, $4 text: its key. $5
-- timestamptz: now. $6 uuid: the claim. $7 timestamptz: until when.
-- Guarantee: of several callers at once one takes it; it is given the number of the attempt.
-- Locks: its row.
UPDATE metertrail.alert_notifications AS notification
SET claim_id = $6, claimed_until = $7, attempts = attempts + 1
WHERE tenant_id = $1 AND incident_id = $2 AND kind = $3 AND sink = $4
    AND status = 'waiting'
    AND due_at <= $5
    AND (claimed_until IS NULL OR claimed_until <= $5)
    AND NOT (kind = 'resolved' AND EXISTS (
        SELECT
        FROM metertrail.alert_notifications AS before
        WHERE before.tenant_id = notification.tenant_id
            AND before.incident_id = notification.incident_id
            AND before.kind = 'firing'
            AND before.sink = notification.sink
            AND (before.status = 'waiting' OR before.claimed_until > $5)))
RETURNING attempts
